//! What a run is made of, drawn from its seed.
//!
//! Invariant: everything that differs between runs is here or is drawn while the run goes on.

use engine::owner::OwnerSettings;
use event_log::claim::IDEMPOTENCY_WINDOW_MS;
use event_log::known_bad::Flaw;

use super::faults::{FAULTS, Fault};
use super::random::Random;

/// A mistake of what lies around the engine, built in on purpose to see whether it is found. Those of
/// the engine itself are its own (`event_log::known_bad`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Commands are forwarded under new command ids.
    ForwardsUnderNewId,
    /// A projector writes whatever the checkpoint is.
    ProjectorWithoutCompareAndSet,
    /// A projector writes rows and checkpoint in two steps.
    ProjectorInTwoSteps,
}

/// What may be asked of a run, apart from its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many nodes there are; absent: by chance.
    pub nodes: Option<usize>,
    /// How many partitions there are; absent: 2.
    pub partitions: Option<u32>,
    /// How many events happen at most; absent: all.
    pub steps: Option<u64>,
    /// Whether records are cut off; absent: in one run of eight.
    pub cuts: Option<bool>,
    /// Whether rules decide now and then what nobody can read.
    pub unreadable: bool,
    /// A mistake that is built in.
    pub mistake: Option<Mistake>,
    /// A change of the engine that breaks the protocol; none without its feature `known-bad`.
    pub flaw: Flaw,
}

/// A run's make-up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many partitions there are.
    pub partitions: u32,
    /// How many clients there are.
    pub clients: usize,
    /// How many streams they write.
    pub streams: usize,
    /// When the faults end, in microseconds.
    pub quiet_from_us: u64,
    /// The faults of this run, each with its share.
    pub faults: Vec<(Fault, u64)>,
    /// The mean time between two faults, in microseconds.
    pub fault_every_us: u64,
    /// Whether records are cut off once.
    pub cuts: bool,
    /// Whether all machines sleep for minutes or days from time to time. Ids expire then, so that clients
    /// use none again for something else.
    pub nights: bool,
    /// How far the newest record is ahead when the run begins, in milliseconds; 0: it is not.
    pub log_ahead_ms: u64,
    /// Whether rules decide now and then what nobody can read.
    pub unreadable: bool,
    /// The owners' settings, without names.
    pub settings: OwnerSettings,
    /// How many records one read returns at most: brokers answer with what they have at hand.
    pub read_max: usize,
    /// How many commands may wait at a node's door for one partition.
    pub queue_max: usize,
    /// The most a client waits between two batches, in microseconds.
    pub think_us: u64,
    /// Of how many commands one is made to fail the rules; 0: none.
    pub failing_of: u64,
    /// A mistake that is built in.
    pub mistake: Option<Mistake>,
    /// A change of the engine that breaks the protocol.
    pub flaw: Flaw,
}

impl Options {
    /// Every default, and a mistake.
    #[must_use]
    pub fn with_mistake(mistake: Mistake) -> Self {
        Self {
            mistake: Some(mistake),
            ..Self::default()
        }
    }

    /// Every default, and a change of the engine that breaks the protocol.
    #[must_use]
    pub fn with_flaw(flaw: Flaw) -> Self {
        Self {
            flaw,
            ..Self::default()
        }
    }
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(random: &mut Random, options: &Options) -> Self {
        let nodes = match random.below(10) {
            0 => 1,
            1 | 2 => 2,
            9 => 4,
            _ => 3,
        };
        let mut aside = random.aside();
        let nights = aside.chance(250);
        let settings = OwnerSettings {
            // Minutes, so that nights and clocks that jump get past it.
            idempotency_window_ms: match nights {
                true => aside.between(6 * 60_000, 20 * 60_000),
                false => [6 * 60_000, IDEMPOTENCY_WINDOW_MS][aside.index(2)],
            },
            in_flight_max: [1, 2, 4, 8, 32][random.index(5)],
            append_doubt_after_ms: random.between(800, 3_000),
            back_off_ms: random.between(50, 250),
            clock_back_off_ms: random.between(500, 2_000),
            states_bytes_max: [500, 1_500, 50_000][random.index(3)],
            save_every_commits: [1, 4, 50][random.index(3)],
            hand_over_wait_ms: random.between(100, 1_000),
            standby_read_every_ms: random.chance(800).then(|| random.between(50, 1_000)),
            look_every_ms: Some(random.between(200, 2_000)),
            ..OwnerSettings::default()
        };
        // Each run has some of the faults, so that rare ones are not drowned.
        let mut faults: Vec<(Fault, u64)> = Vec::new();
        for fault in FAULTS {
            let source = match fault {
                Fault::Suspension | Fault::Night => &mut aside,
                _ => &mut *random,
            };
            let is_possible = nights || fault != Fault::Night;
            if source.chance(450) && is_possible {
                faults.push((fault, source.between(1, 8)));
            }
        }
        let cuts = random.below(8) == 0;
        // Drawn apart, so that runs without are as they were.
        let mut apart = random.clone();
        let failing_of = [0, 0, 12, 40][apart.fork().index(4)];
        let quiet_from_us = random.between(4_000_000, 10_000_000);
        Self {
            nodes: options.nodes.unwrap_or(nodes).max(1),
            partitions: options.partitions.unwrap_or(2).max(1),
            clients: usize::try_from(random.between(1, 6)).unwrap_or(1),
            streams: usize::try_from(random.between(1, 8)).unwrap_or(1),
            quiet_from_us,
            faults,
            fault_every_us: random.between(60_000, 900_000),
            cuts: options.cuts.unwrap_or(cuts),
            nights,
            log_ahead_ms: match aside.below(6) {
                0 => aside.between(1_000, 7_200_000),
                _ => 0,
            },
            unreadable: options.unreadable,
            settings,
            read_max: [1, 2, 4, 16, 64][random.index(5)],
            queue_max: [1, 4, 32][random.index(3)],
            think_us: random.between(1_000, 200_000),
            failing_of,
            mistake: options.mistake,
            flaw: options.flaw,
        }
    }
}
