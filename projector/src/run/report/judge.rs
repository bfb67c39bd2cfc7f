//! In what state a projection is, and why it does not move.
//!
//! Invariant: one rule decides it for reports, metrics and health. Deliberately absent: I/O, but for
//! the one record that an error names.

use std::sync::Arc;

use event_log::commit::Commit;
use event_log::log::EventLog;
use serde::Serialize;

use super::{PartitionReport, Report, ReportError};
use crate::declare::model::models_of;
use crate::declare::projection::Projection;
use crate::store::generation::rule_of;

/// A projection that is so far behind, in seconds, is shown as behind.
const BEHIND_FROM_SECONDS: f64 = 5.0;
/// A projection that has something to take up and has not moved for so long, in seconds, is stuck.
const STUCK_FROM_SECONDS: f64 = 10.0;

/// The state of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It is current.
    Live,
    /// It takes up records, and lacks some.
    Behind,
    /// It has something to take up, and does not move.
    Stuck,
    /// It goes on, without some streams.
    Parked,
    /// An operator paused it.
    Paused,
    /// It stopped in some partition.
    Stopped,
    /// Its rows were made by another rule than this program's.
    Outdated,
    /// No process has made its tables yet.
    Absent,
    /// Postgres has it, and this program does not.
    Unknown,
}

impl ReportState {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Behind => "behind",
            Self::Stuck => "stuck",
            Self::Parked => "parked",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Outdated => "outdated",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }

    /// The state of a live projection, by the signs. What a person must act on comes first.
    pub(crate) fn of(signs: &Signs) -> Self {
        if signs.is_paused {
            Self::Paused
        } else if signs.is_stopped {
            Self::Stopped
        } else if signs.is_stuck {
            Self::Stuck
        } else if signs.is_parked {
            Self::Parked
        } else if signs.lag_seconds >= BEHIND_FROM_SECONDS {
            Self::Behind
        } else {
            Self::Live
        }
    }

    /// The states of live projections.
    pub(crate) const OF_LIVE: [Self; 6] = [
        Self::Live,
        Self::Behind,
        Self::Stuck,
        Self::Parked,
        Self::Paused,
        Self::Stopped,
    ];
}

/// What the state of a live projection depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs {
    pub(crate) is_paused: bool,
    pub(crate) is_stopped: bool,
    pub(crate) is_stuck: bool,
    pub(crate) is_parked: bool,
    pub(crate) lag_seconds: f64,
}

/// Whether a projection is stuck in a partition: a record has waited for so long, and the
/// projection has not moved for so long.
pub(crate) fn is_stuck(lag_seconds: f64, idle_seconds: f64) -> bool {
    lag_seconds >= STUCK_FROM_SECONDS && idle_seconds >= STUCK_FROM_SECONDS
}

/// Decides what state a projection is in.
pub(super) fn judge(
    report: &mut Report,
    declared: Option<&Arc<dyn Projection>>,
    live_rule: Option<&str>,
) {
    if let (Some(declared), None) = (declared, live_rule) {
        report.tables = models_of(&**declared)
            .iter()
            .map(|model| model.name.to_owned())
            .collect();
        return;
    }
    let Some(live) = report.generations.iter().find(|g| g.state == "live") else {
        return;
    };
    let places = &live.partitions;
    report.gap = places.iter().map(|place| place.gap).sum();
    let lags = places.iter().filter_map(|place| place.lag_seconds);
    report.lag_seconds = lags.max_by(f64::total_cmp);
    let Some(declared) = declared else {
        return;
    };
    let lacks = |place: &&PartitionReport| place.gap.is_some_and(|gap| gap > 0);
    let is_idle = |place: &PartitionReport| {
        is_stuck(
            place.lag_seconds.unwrap_or_default(),
            place.idle_seconds.unwrap_or(f64::INFINITY),
        )
    };
    let stuck = places.iter().filter(lacks).find(|place| is_idle(place));
    let is_stopped = places.iter().any(|place| place.stopped.is_some());
    report.state = if live_rule == Some(rule_of(&**declared).as_str()) {
        ReportState::of(&Signs {
            is_paused: report.paused.is_some(),
            is_stopped,
            is_stuck: stuck.is_some(),
            is_parked: report.parked_streams > 0,
            lag_seconds: report.lag_seconds.unwrap_or_default(),
        })
    } else {
        ReportState::Outdated
    };
    // What holds it up now says more than what it met before.
    let troubled = places.iter().filter(lacks).find(|p| p.trouble.is_some());
    let is_now = |error: &ReportError| is_stopped && error.partition.is_some();
    if let Some(place) = troubled.or(stuck)
        && !report.error.as_ref().is_some_and(is_now)
    {
        report.error = Some(held_up(place));
    }
}

/// Why a projection does not move in a partition in which it has not stopped.
fn held_up(place: &PartitionReport) -> ReportError {
    let (reason, remedy) = match (&place.trouble, &place.owner) {
        (Some(trouble), _) => (
            trouble.clone(),
            "its process tries again by itself; remove the cause",
        ),
        (None, Some(_)) => (
            "it has records to take up and does not move".to_owned(),
            "see the log of the process that holds it, and what holds locks in Postgres (pg_locks)",
        ),
        (None, None) => (
            "no process takes it up".to_owned(),
            "start a process with the role projector",
        ),
    };
    ReportError {
        at: None,
        partition: Some(place.partition),
        offset: None,
        tenant: None,
        stream: None,
        event_type: None,
        reason,
        remedy: remedy.to_owned(),
    }
}

/// Names the stream and the event at which a projection stopped, as far as the log can tell.
pub(super) async fn name_event(log: &dyn EventLog, error: &mut ReportError) {
    let (Some(partition), Some(offset), None) = (error.partition, error.offset, &error.stream)
    else {
        return;
    };
    // Damage cannot be read, and a log that does not answer names nothing.
    let Ok(records) = log.read_at(partition, &[offset]).await else {
        return;
    };
    let Some(Some(record)) = records.into_iter().next() else {
        return;
    };
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    let Ok(commit) = Commit::read(key.unwrap_or_default(), value.unwrap_or_default()) else {
        return;
    };
    error.tenant = Some(commit.tenant.to_string());
    error.stream = Some(commit.stream.to_string());
    if let [event] = &*commit.events {
        error.event_type = Some(event.type_name.to_string());
    }
}
