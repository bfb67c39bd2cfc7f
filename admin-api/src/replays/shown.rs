//! What is shown of a replay.
//!
//! Invariant: events have the members that the routes of streams give them. Deliberately absent: where it
//! comes from (`kept`).

use kernel::Timestamp;
use projector::{ChangedRow, Density, Model, ReplayProgress, Step};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The most streams that are named of those that were set aside.
pub(super) const SET_ASIDE_SHOWN_MAX: usize = 10;

/// What a replay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplayState {
    Beginning,
    Running,
    Paused,
    Finished,
    Stopped,
    Failed,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ReplayShown {
    pub(super) schema: String,
    pub(super) projection: String,
    pub(super) until: Option<String>,
    pub(super) until_at: Option<Timestamp>,
    pub(super) from_snapshot: Option<Timestamp>,
    pub(super) begun_at: Timestamp,
    pub(super) by: String,
    pub(super) state: ReplayState,
    /// Why it paused or ended.
    pub(super) why: Option<&'static str>,
    pub(super) error: Option<String>,
    /// How many times faster than recorded time passes, while it plays.
    pub(super) speed: Option<f64>,
    pub(super) revision: u64,
    pub(super) progress: ProgressShown,
    pub(super) stands: Option<StandsShown>,
    pub(super) says: Option<String>,
    pub(super) step: Option<StepShown>,
    pub(super) set_aside: Vec<SetAside>,
    pub(super) set_aside_streams: usize,
    pub(super) density: Option<Density>,
    pub(super) density_missing: Option<String>,
}

impl ReplayShown {
    pub(super) fn is_beginning(&self) -> bool {
        self.state == ReplayState::Beginning
    }

    pub(super) fn is_ended(&self) -> bool {
        use ReplayState::{Failed, Finished, Stopped};
        matches!(self.state, Finished | Stopped | Failed)
    }

    pub(super) fn progress(&mut self, progress: ReplayProgress) {
        self.progress = ProgressShown {
            records_read: progress.records_read,
            records: progress.records,
            commits: progress.commits,
        };
        self.stands = progress
            .stands
            .map(|(at, partition, position)| StandsShown {
                at,
                partition: partition.0,
                position: position.0,
            });
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ProgressShown {
    records_read: u64,
    records: u64,
    commits: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StandsShown {
    at: Timestamp,
    partition: u32,
    position: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SetAside {
    pub(super) stream: String,
    pub(super) reason: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct StepShown {
    tenant: String,
    stream: String,
    at: Timestamp,
    partition: u32,
    position: u64,
    offset: u64,
    command: String,
    command_id: String,
    correlation_id: String,
    actor: Option<ActorShown>,
    /// The code of the refusal, if the command was refused.
    refusal: Option<String>,
    /// Which event of the commit it was, from 1, if it was one alone.
    event: Option<usize>,
    /// How many events the commit has.
    of: usize,
    events: Vec<EventShown>,
    rows: Vec<RowShown>,
    more: usize,
}

#[derive(Clone, Debug, Serialize)]
struct ActorShown {
    id: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct EventShown {
    id: String,
    #[serde(rename = "type")]
    type_name: String,
    schema: u16,
    version: u64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    data: Box<RawValue>,
    command_id: String,
    command: String,
    correlation_id: String,
    causation_id: String,
    actor: Option<ActorShown>,
    traceparent: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct RowShown {
    model: &'static str,
    /// The columns of its key.
    key: Vec<&'static str>,
    before: Option<Value>,
    after: Option<Value>,
    is_hit: bool,
}

impl StepShown {
    pub(super) fn of(step: Step, models: &[Model]) -> Self {
        let (placed, commit) = (&step.placed, &step.placed.commit);
        let actor = commit.actor.as_ref().map(|actor| ActorShown {
            id: actor.id.to_string(),
            kind: actor.kind.as_str(),
        });
        let events = commit.events.iter().zip(commit.from_version + 1..);
        let events = events.enumerate();
        let events = events.filter(|(index, _)| step.event.is_none_or(|event| event == *index));
        let events = events.map(|(_, (event, version))| EventShown {
            id: event.id.to_string(),
            type_name: event.type_name.as_str().to_owned(),
            schema: event.schema,
            version,
            occurred_at: commit.occurred_at(event),
            recorded_at: commit.recorded_at,
            data: event.data.clone(),
            command_id: commit.command.id.as_str().to_owned(),
            command: commit.command.type_name.as_str().to_owned(),
            correlation_id: commit.correlation_id().to_owned(),
            causation_id: commit.causation_id().to_owned(),
            actor: actor.clone(),
            traceparent: commit.trace.clone(),
        });
        Self {
            tenant: commit.tenant.as_str().to_owned(),
            stream: commit.stream.to_string(),
            at: placed.at,
            partition: placed.partition.0,
            position: placed.position.0,
            offset: placed.record.offset.0,
            command: commit.command.type_name.as_str().to_owned(),
            command_id: commit.command.id.as_str().to_owned(),
            correlation_id: commit.correlation_id().to_owned(),
            refusal: commit.rejection.as_ref().map(|one| one.code.to_string()),
            event: step.event.map(|event| event + 1),
            of: commit.events.len(),
            events: events.collect(),
            actor,
            rows: step
                .rows
                .into_iter()
                .map(|row| shown(row, models))
                .collect(),
            more: step.more,
        }
    }
}

fn shown(row: ChangedRow, models: &[Model]) -> RowShown {
    let model = models.iter().find(|model| model.name == row.model);
    let key = model.map_or_else(Vec::new, |model| {
        model.key.iter().map(|column| column.name).collect()
    });
    RowShown {
        model: row.model,
        key,
        before: row.before,
        after: row.after,
        is_hit: row.is_hit,
    }
}
