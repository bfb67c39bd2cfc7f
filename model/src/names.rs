//! The source of a modelled node's ids and randomness.
//!
//! Invariant: they depend only on the node and on what it did before, so that equal histories lead
//! to equal states.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use engine::owner::Entropy;

/// Ids that depend only on the node and on how many claims it has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Names {
    node: u8,
    claims: u8,
    draws: u8,
    is_fresh: bool,
}

/// The ids of one node, shared by its owner and the model.
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

    /// Continues as a node that has just started.
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

    /// A separate copy of the present state.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.get())))
    }
}

impl Entropy for SharedNames {
    fn bytes(&mut self) -> [u8; 16] {
        let mut names = self.get();
        let mut bytes = [0; 16];
        if names.is_fresh {
            // The key of fingerprints: equal in all nodes.
            names.is_fresh = false;
        } else {
            // The first byte decides how long a pause is.
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
