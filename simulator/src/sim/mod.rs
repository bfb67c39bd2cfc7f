//! The simulator: nodes, log, clocks and network driven by one seed, around the engine's own seats,
//! owners, routers and followers.
//!
//! Invariant: a run is a function of its seed and options. Deliberately absent: how runs are
//! requested and printed (`cli`).

mod book;
mod check;
mod client;
mod door;
mod event;
mod faults;
mod group;
mod history;
mod leave;
mod log;
mod nemesis;
mod net;
mod node;
mod plan;
mod producer;
mod projector;
mod random;
mod store;
mod time;
mod trace;
mod violation;
mod world;

pub use faults::{FAULTS, Fault};
pub use plan::{Mistake, Options};
pub use trace::Listener;
pub use violation::{Invariant, Violation};
pub use world::Counts;

use plan::Plan;
use random::Random;
use trace::Trace;
use world::World;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many events happened.
    pub steps: u64,
    /// The virtual time of the run, in microseconds.
    pub took_us: u64,
    /// The digest of everything that happened.
    pub digest: u64,
    /// Counters of what happened.
    pub counts: Counts,
    /// The promise that was broken, if any.
    pub violation: Option<Violation>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options, listener: Option<Listener>) -> Report {
    let mut random = Random::new(seed);
    let plan = Plan::draw(&mut random, options);
    let trace = Trace {
        digest: 0,
        listener,
    };
    let mut world = World::new(random, plan, trace);
    let mut steps = 0;
    while options.steps.is_none_or(|most| steps < most) && world.step() {
        steps += 1;
    }
    Report {
        seed,
        steps,
        took_us: world.now_us,
        digest: world.trace.digest,
        counts: world.counts,
        violation: world.violation,
    }
}
