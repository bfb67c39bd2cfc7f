//! Where a node of the model has its names and its randomness from.
//!
//! Invariant: they depend on nothing but the node and what it did before, so that equal histories lead
//! to equal states.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use engine::owner::Entropy;

/// Names that depend only on the node and on how many claims it made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Names {
    node: u8,
    claims: u8,
    draws: u8,
    is_fresh: bool,
}

/// The names of one node, which its owner and the model share.
#[derive(Clone)]
pub struct SharedNames(Arc<Mutex<Names>>);

impl SharedNames {
    /// The names of a node that has made no claim.
    pub fn of(node: u8) -> Self {
        Self(Arc::new(Mutex::new(Names {
            node,
            claims: 0,
            draws: 0,
            is_fresh: true,
        })))
    }

    /// How many claims the node made.
    pub fn claims(&self) -> u8 {
        self.get().claims
    }

    /// Goes on as a node that has just started.
    pub fn start_again(&self) {
        let mut names = self.get();
        (names.draws, names.is_fresh) = (0, true);
        self.set(names);
    }

    fn get(&self) -> Names {
        *self.0.lock().expect("nobody panics while holding it")
    }

    fn set(&self, names: Names) {
        *self.0.lock().expect("nobody panics while holding it") = names;
    }

    /// The same names as they are now, apart from these.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.get())))
    }
}

impl Entropy for SharedNames {
    fn bytes(&mut self) -> [u8; 16] {
        let mut names = self.get();
        let mut bytes = [0; 16];
        if names.is_fresh {
            // The key of fingerprints, the same for everybody.
            names.is_fresh = false;
        } else {
            // The first byte is the chance of a pause.
            bytes[1..4].copy_from_slice(&[names.node + 1, names.claims, names.draws]);
            names.draws += 1;
        }
        self.set(names);
        bytes
    }

    fn writer(&mut self) -> [u8; 16] {
        let mut names = self.get();
        names.claims += 1;
        names.draws = 0;
        self.set(names);
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[names.node + 1, names.claims]);
        bytes
    }
}

impl Hash for SharedNames {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.get().hash(hasher);
    }
}
