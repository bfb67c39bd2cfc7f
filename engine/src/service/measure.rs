//! The figures of the write side about commands, queues and ownership.
//!
//! Invariant: labels come from sets that clients cannot extend; counters exist from the start, with
//! value 0. Deliberately absent: how figures are published, and how documents name them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kernel::registry::Registry;
use metrics::{Counter, counter, gauge};

use super::shares::Shares;
use super::{Engine, unready};
use crate::command::{Answer, Decision, Reply, SubmitError, TurnedAway};
use crate::owner::{NotOwning, VERSION_CONFLICT};

/// The outcomes of a command, as labels.
const OUTCOMES: [&str; 11] = [
    "accepted",
    "rejected",
    "repeated",
    "id_reused",
    "unknown",
    "turned_away",
    "too_large",
    "failed",
    "damaged",
    "stream_too_large",
    "frozen",
];
const REASONS: [&str; 5] = [
    "overloaded",
    "late",
    "not_ready",
    "stopping",
    "after_unanswered",
];
/// How many rejection codes have counters of their own; all others count as [`OTHER`].
const CODES_MAX: usize = 200;
const OTHER: &str = "other";

/// Identifies a command type among the counters.
#[derive(Clone, Copy)]
pub(super) struct Kind(usize);

pub(super) struct Counts {
    /// By category and command name: the index into `outcomes`.
    kinds: BTreeMap<&'static str, Vec<(&'static str, usize)>>,
    outcomes: Vec<[Counter; OUTCOMES.len()]>,
    reasons: [Counter; REASONS.len()],
    refusals: Mutex<BTreeMap<String, Counter>>,
}

impl Counts {
    pub(super) fn of(registry: &Registry) -> Self {
        let mut counts = Self {
            kinds: BTreeMap::new(),
            outcomes: Vec::new(),
            reasons: REASONS
                .map(|reason| zero(counter!("annals_turned_away_total", "reason" => reason))),
            refusals: Mutex::default(),
        };
        for aggregate in registry.iter() {
            let category = aggregate.category();
            let types = aggregate.command_types(&mut Registry::schema_generator("#/"));
            let mut names: Vec<&str> = types.iter().map(|one| one.name).collect();
            names.sort_unstable();
            names.dedup();
            let numbered = names.into_iter().map(|name| {
                counts.outcomes.push(OUTCOMES.map(|outcome| {
                    let labels = [
                        ("category", category.to_owned()),
                        ("command", name.to_owned()),
                        ("outcome", outcome.to_owned()),
                    ];
                    zero(counter!("annals_commands_total", &labels))
                }));
                (name, counts.outcomes.len() - 1)
            });
            counts.kinds.insert(category, numbered.collect());
        }
        for name in [
            "annals_take_overs_total",
            "annals_let_go_total",
            "annals_streams_frozen_total",
            "annals_streams_half_full_total",
            "annals_defects_total",
        ] {
            drop(zero(counter!(name)));
        }
        for code in [VERSION_CONFLICT, OTHER] {
            drop(counts.refusal(code));
        }
        counts
    }

    /// The kind of a command that its aggregate has read.
    pub(super) fn kind(&self, category: &str, command: &str) -> Option<Kind> {
        let mut names = self.kinds.get(category)?.iter();
        let found = names.find(|(name, _)| *name == command)?;
        Some(Kind(found.1))
    }

    /// Counts the outcome of a command.
    pub(super) fn note(&self, kind: Option<Kind>, result: &Reply) {
        if let Some(Kind(number)) = kind {
            self.outcomes[number][place_of(outcome(result), &OUTCOMES)].increment(1);
        }
        match result {
            Ok(Answer {
                decision: Decision::Rejected(rejection),
                repeated: false,
                ..
            }) => self.refusal(&rejection.code).increment(1),
            Err(SubmitError::TurnedAway { reason, .. }) => {
                self.reasons[place_of(label(*reason), &REASONS)].increment(1);
            }
            _ => {}
        }
    }

    /// The counter of a rejection code; the rules of a domain may produce any number of codes.
    fn refusal(&self, code: &str) -> Counter {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !refusals.contains_key(code);
        let code = if is_new && refusals.len() >= CODES_MAX {
            OTHER
        } else {
            code
        };
        let make = || zero(counter!("annals_refusals_total", "code" => code.to_owned()));
        refusals.entry(code.to_owned()).or_insert_with(make).clone()
    }
}

/// Makes a counter visible before anything is counted.
fn zero(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}

fn place_of(label: &str, labels: &[&str]) -> usize {
    let place = labels.iter().position(|one| *one == label);
    place.expect("every label is in its list")
}

fn outcome(result: &Reply) -> &'static str {
    match result {
        Ok(answer) if answer.repeated => "repeated",
        Ok(answer) => match answer.decision {
            Decision::Accepted(_) => "accepted",
            Decision::Rejected(_) => "rejected",
        },
        Err(SubmitError::IdReused) => "id_reused",
        Err(SubmitError::Unknown) => "unknown",
        Err(SubmitError::TurnedAway { .. }) => "turned_away",
        Err(SubmitError::TooLarge { .. }) => "too_large",
        Err(SubmitError::Failed) => "failed",
        Err(SubmitError::Damaged(_)) => "damaged",
        Err(SubmitError::StreamTooLarge { .. }) => "stream_too_large",
        Err(SubmitError::Frozen(_)) => "frozen",
    }
}

fn label(reason: TurnedAway) -> &'static str {
    match reason {
        TurnedAway::Overloaded => "overloaded",
        TurnedAway::Late => "late",
        TurnedAway::NotReady => "not_ready",
        TurnedAway::Stopping => "stopping",
        TurnedAway::AfterUnanswered => "after_unanswered",
    }
}

/// Publishes the parts of the node's memory budget.
pub(super) fn budget(shares: &Shares, partitions: u32) {
    let partitions = partitions as usize;
    for (part, bytes) in [
        ("states", shares.states * partitions),
        ("in_flight", shares.in_flight * partitions),
        ("waiting", shares.waiting),
        ("store", shares.store),
    ] {
        gauge!("annals_memory_budget_bytes", "part" => part).set(float(bytes));
    }
}

// The figures are for people; the lost precision of large counts does not matter.
#[allow(clippy::cast_precision_loss)]
fn float(count: usize) -> f64 {
    count as f64
}

impl Engine {
    /// Brings the gauges up to date; to be called before they are read.
    pub fn measure(&self) {
        let partitions = &self.inner.partitions;
        let depths = partitions
            .iter()
            .map(|desk| desk.queues.commands.len() + desk.queues.from_peers.len());
        let unowned = partitions
            .iter()
            .filter(|desk| unready(&desk.status.borrow()).is_some());
        let too_old = partitions.iter().filter(|desk| {
            let status = desk.status.borrow();
            matches!(&status.not_owning, Some(NotOwning::Stopped(stop)) if stop.asks_for_upgrade())
        });
        let open: usize = partitions.iter().map(|desk| desk.open_commands()).sum();
        gauge!("annals_owned_partitions").set(float(self.owned().len()));
        gauge!("annals_unowned_partitions").set(float(unowned.count()));
        gauge!("annals_too_old_partitions").set(float(too_old.count()));
        gauge!("annals_queued_commands").set(float(depths.clone().sum()));
        gauge!("annals_queued_commands_fullest").set(float(depths.max().unwrap_or_default()));
        gauge!("annals_open_commands").set(float(open));
        gauge!("annals_waiting_bytes").set(float(self.inner.room.used()));
    }
}
