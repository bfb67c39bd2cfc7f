//! The schedule of the simulated world's events.
//!
//! Invariant: events with the same time happen in the order in which they were scheduled.

use std::collections::BTreeMap;

use engine::command::Request;

use super::world::World;

pub type Event = Box<dyn FnOnce(&mut World)>;

/// An event for a node's process; it gets the node's number.
pub type NodeEvent = Box<dyn FnOnce(&mut World, usize)>;

/// One process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub node: usize,
    pub incarnation: u32,
}

/// A question of one node's process to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The process that asks.
    pub from: Process,
    pub number: u64,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// Its number among all lines ever sent.
    pub number: u64,
    pub request: Request,
    /// How long the node may try, in microseconds.
    pub timeout_us: u64,
}

/// The scheduled events, in the order of their time.
#[derive(Default)]
pub struct Schedule {
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
}

impl Schedule {
    pub fn at(&mut self, at_us: u64, event: impl FnOnce(&mut World) + 'static) {
        self.count += 1;
        self.events.insert((at_us, self.count), Box::new(event));
    }

    /// Schedules an event for a node's process. It happens if that process still runs then, and
    /// waits while the node stands still.
    pub fn tell(
        &mut self,
        at_us: u64,
        process: Process,
        event: impl FnOnce(&mut World, usize) + 'static,
    ) {
        self.at(at_us, move |world| {
            world.node_event(process, Box::new(event))
        });
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let ((at_us, _), event) = self.events.pop_first()?;
        Some((at_us, event))
    }
}
