//! The plan of a run, drawn from its seed.
//!
//! Invariant: everything that differs between runs is in the plan or is drawn during the run.

use engine::owner::OwnerSettings;
use event_log::claim::IDEMPOTENCY_WINDOW_MS;
use event_log::known_bad::Flaw;

use super::faults::{FAULTS, Fault, Kind};
use super::random::Random;

/// A known-bad change in the parts around the engine: a mistake built in on purpose, which the
/// checks must find. The known-bad changes of the engine itself are in `event_log::known_bad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Commands are forwarded under new command ids.
    ForwardsUnderNewId,
    /// A projector writes without comparing the checkpoint.
    ProjectorWithoutCompareAndSet,
    /// A projector writes rows and checkpoint in two steps.
    ProjectorInTwoSteps,
}

/// The options of a run, apart from its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The number of nodes; `None`: random.
    pub nodes: Option<usize>,
    /// The number of partitions; `None`: 2.
    pub partitions: Option<u32>,
    /// The maximal number of events; `None`: no limit.
    pub steps: Option<u64>,
    /// Whether records are cut off; `None`: in one run of eight.
    pub cuts: Option<bool>,
    /// Whether rules sometimes decide events that nobody can read.
    pub unreadable: bool,
    /// A mistake to build in.
    pub mistake: Option<Mistake>,
    /// A known-bad change of the engine; it has no effect without the feature `known-bad`.
    pub flaw: Flaw,
}

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub partitions: u32,
    pub clients: usize,
    pub streams: usize,
    /// When the faults end, in microseconds.
    pub quiet_from_us: u64,
    /// The faults of this run, each with its share.
    pub faults: Vec<(Fault, u64)>,
    /// The mean time between two faults, in microseconds.
    pub fault_every_us: u64,
    /// Whether records are cut off, once.
    pub cuts: bool,
    /// Whether all machines sometimes sleep together for minutes or days. Ids expire during that
    /// time, so in such a run clients never use an id again for another command.
    pub nights: bool,
    /// How far the newest record is ahead of the clock at the beginning, in milliseconds.
    pub log_ahead_ms: u64,
    pub unreadable: bool,
    /// The owners' settings, without names.
    pub settings: OwnerSettings,
    /// How many records one read returns at most: brokers return what they have available.
    pub read_max: usize,
    /// How many commands may wait at a node's door for one partition.
    pub queue_max: usize,
    /// The longest pause of a client between two batches, in microseconds.
    pub think_us: u64,
    /// One of this many commands makes the rules fail; 0: none does.
    pub failing_of: u64,
    pub mistake: Option<Mistake>,
    pub flaw: Flaw,
}

impl Plan {
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
            // Minutes, so that nights and clock jumps can exceed it.
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
        // Each run has only some of the faults, so that frequent ones do not hide rare ones.
        let mut faults: Vec<(Fault, u64)> = Vec::new();
        for fault in FAULTS {
            let source = match fault.kind {
                Kind::Suspension | Kind::Night => &mut aside,
                _ => &mut *random,
            };
            let is_possible = nights || fault.kind != Kind::Night;
            if source.chance(450) && is_possible {
                faults.push((fault, source.between(1, 8)));
            }
        }
        let cuts = random.below(8) == 0;
        // Drawn from a copy, so that runs without failing commands stay the same.
        let failing_of = [0, 0, 12, 40][random.clone().fork().index(4)];
        let quiet_from_us = random.between(4_000_000, 10_000_000);
        Self {
            nodes: options.nodes.unwrap_or(nodes).max(1),
            partitions: options.partitions.unwrap_or(2).max(1),
            clients: 1 + random.index(6),
            streams: 1 + random.index(8),
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
