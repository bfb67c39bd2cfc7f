//! The events of a stream, read from the log.
//!
//! Invariant: the read model `stream_index` gives the places; the log gives the events. Each record
//! must be the one that was projected, by its hash. A different record is damage: it is logged with
//! its place, and nothing is shown. Deliberately absent: what events fold to (`life`).

mod fold;
mod life;
mod snapshots;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use door::header::tenant;
use door::memory::SMALL_BYTES_MAX;
use door::tag::Tag;
use door::{Charge, Path, Problem, Query};
use event_log::commit::Commit;
use event_log::log::LogError;
use event_log::record::{Record, record_hash};
use kernel::registry::{Aggregate, MessageError, RuleError};
use kernel::{Actor, StreamName, TenantId, Timestamp, TypeName};
use position::{LogId, Offset, Partition, PositionToken};
use projector::{CommitPlace, STREAM_INDEX, StreamPlaces};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::answer::{link_next, tagged};
use super::parameters::{EventParameters, Shape, VERSION_MAX, Wait, stream_of};
use super::{Inner, QueryDoor, RETRY_AFTER, code, failed};

pub(super) use fold::LONG_FOLDS_MAX;
pub(super) use life::{CHANGES_MAX, DIFF_EVENTS_MAX, diff, state, summary};
pub(super) use snapshots::Snapshots;

/// How many commits are read from the log at once.
const COMMITS_READ_MAX: usize = 64;
/// How many commits are read first, while their size is unknown.
const COMMITS_READ_FIRST: usize = 2;
/// The target size of one read from the log, in bytes.
const BYTES_READ_TYPICAL: usize = 256 << 10;
/// A page of events ends after the commit with which its data reaches this many bytes.
pub(super) const PAGE_BYTES_MAX: usize = 2 << 20;
/// The memory for a full page while it is made: the events, their text, and the commit that filled
/// the page.
const PAGE_ROOM_BYTES: usize = 2 * PAGE_BYTES_MAX + (1 << 20);
/// When to try again if an operator must act first.
const DAMAGED_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Serialize)]
struct Events<'a> {
    stream: &'a StreamName,
    version: u64,
    events: Vec<ShownEvent>,
    next: Option<u64>,
}

/// An event with its complete envelope.
#[derive(Serialize)]
struct ShownEvent {
    id: Uuid,
    #[serde(rename = "type")]
    type_name: TypeName,
    schema: u16,
    version: u64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    data: Box<RawValue>,
    command_id: String,
    command: TypeName,
    correlation_id: String,
    causation_id: String,
    actor: Option<Actor>,
    traceparent: Option<String>,
    position: Option<PositionToken>,
}

/// `GET /v1/streams/{stream}/events`
pub(super) async fn events(
    State(door): State<QueryDoor>,
    Path(stream): Path<String>,
    Query(parameters): Query<EventParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let stream = stream_of(&stream)?;
    let answered = events_of(inner, &stream, &parameters, &headers, charge).await;
    inner.with_freshness(STREAM_INDEX, answered)
}

async fn events_of(
    inner: &Inner,
    stream: &StreamName,
    parameters: &EventParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let limit = parameters.limit()?;
    let from = parameters.first_version()?;
    let shape = parameters.shape()?;
    let wait = parameters.wait(headers)?;
    let position = inner.position(STREAM_INDEX, &wait).await?;
    let places = inner.places(&tenant, stream, from, limit, &wait).await?;
    let log = position.as_ref().map(|position| position.log);
    let mut events: Vec<ShownEvent> = Vec::new();
    let mut size = 0;
    let mut reading = Reading::begin(charge).await?;
    let mut rest = &places.commits[..];
    'page: while let Some(chunk) = reading.next(&mut rest).await? {
        for (commit, place) in inner.read(&tenant, stream, places.partition, chunk).await? {
            if size >= PAGE_BYTES_MAX {
                break 'page;
            }
            size += reading.came(&commit);
            let shown = shown(commit, place, log, places.partition);
            for event in shown.into_iter().filter(|event| event.version >= from) {
                events.push(match shape {
                    Shape::Recorded => event,
                    Shape::Latest => inner.newest(stream, places.partition, place, event)?,
                });
            }
        }
    }
    events.truncate(limit as usize);
    let last = events.last().map(|event| event.version);
    let body = Events {
        stream,
        version: places.version,
        next: last
            .filter(|last| *last < places.version)
            .map(|last| last + 1),
        events,
    };
    let mut response = tagged(headers, &body, position.as_ref(), Tag::weak)?;
    if let Some(next) = body.next {
        let path = format!("/v1/streams/{stream}/events");
        let mut next = format!("{path}?limit={limit}&from_version={next}");
        if shape == Shape::Latest {
            next = format!("{next}&schema={}", shape.as_str());
        }
        link_next(&mut response, &next);
    }
    Ok(response)
}

/// How much of a stream is read for one answer, and the memory for it.
///
/// Each answer begins with a small part of the shared memory. An answer that needs more waits for a
/// large part before it reads on.
pub(super) struct Reading {
    charge: Charge,
    has_large: bool,
    commits: usize,
    bytes: usize,
}

impl Reading {
    pub(super) async fn begin(charge: Charge) -> Result<Self, Problem> {
        charge.keep(SMALL_BYTES_MAX).await?;
        Ok(Self {
            charge,
            has_large: false,
            commits: 0,
            bytes: 0,
        })
    }

    /// The places to read next.
    pub(super) async fn next<'p, P>(
        &mut self,
        rest: &mut &'p [P],
    ) -> Result<Option<&'p [P]>, Problem> {
        if rest.is_empty() {
            return Ok(None);
        }
        if !self.has_large && self.bytes + BYTES_READ_TYPICAL > SMALL_BYTES_MAX / 2 {
            self.charge.keep(PAGE_ROOM_BYTES).await?;
            self.has_large = true;
        }
        let count = match self.bytes / self.commits.max(1) {
            _ if self.commits == 0 => COMMITS_READ_FIRST,
            typical => (BYTES_READ_TYPICAL / typical.max(1)).clamp(1, COMMITS_READ_MAX),
        };
        let (next, after) = rest.split_at(count.min(rest.len()));
        *rest = after;
        Ok(Some(next))
    }

    /// Counts a commit that was read; returns the size of its events' data in bytes.
    pub(super) fn came(&mut self, commit: &Commit) -> usize {
        let data = commit.events.iter().map(|event| event.data.get().len());
        let size = data.sum::<usize>();
        self.commits += 1;
        self.bytes += size;
        size
    }
}

impl Inner {
    fn aggregate(&self, stream: &StreamName) -> Result<&dyn Aggregate, Problem> {
        let category = stream.category();
        let aggregate = self.registry.get(category).ok_or_else(|| {
            let detail = format!("no aggregate has the category {category:?}");
            Problem::new(code::AGGREGATE_UNKNOWN, detail)
        })?;
        Ok(&**aggregate)
    }

    /// An event in the newest shape of its type.
    fn newest(
        &self,
        stream: &StreamName,
        partition: Partition,
        place: &CommitPlace,
        mut event: ShownEvent,
    ) -> Result<ShownEvent, Problem> {
        let aggregate = self.aggregate(stream)?;
        let newest = aggregate
            .newest_event(&event.type_name, event.schema, &event.data)
            .map_err(|error| unread(stream, partition, place, &error))?;
        (event.schema, event.data) = (newest.schema, newest.data);
        Ok(event)
    }

    /// The places of the commits that hold the events from `from` on, at most `limit` of them.
    async fn places(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        from: u64,
        limit: u32,
        wait: &Wait,
    ) -> Result<StreamPlaces, Problem> {
        let places = StreamPlaces::of(&self.pool, tenant, stream, from, limit).await;
        let places = places.map_err(|error| failed(&error))?;
        places.ok_or_else(|| not_found(self, stream, wait))
    }

    /// The version of a stream for which something was recorded.
    async fn require_stream(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        wait: &Wait,
    ) -> Result<u64, Problem> {
        let places = self.places(tenant, stream, VERSION_MAX, 1, wait).await?;
        Ok(places.version)
    }

    /// The commits at some places of a stream, as [`Self::read_any`] reads them.
    async fn read<'p>(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        partition: Partition,
        places: &'p [CommitPlace],
    ) -> Result<Vec<(Commit, &'p CommitPlace)>, Problem> {
        let commits = self.read_any(tenant, stream, partition, places).await?;
        match commits.iter().find(|(commit, _)| commit.stream != *stream) {
            Some((_, place)) => {
                let why = "the record belongs to another stream";
                Err(damaged(stream, partition, place.offset, &why))
            }
            None => Ok(commits),
        }
    }

    /// The commits at some places. Each record is checked against the hash that was stored when it
    /// was projected. They were looked for because of `what`.
    pub(super) async fn read_any<'p>(
        &self,
        tenant: &TenantId,
        what: &(dyn std::fmt::Display + Sync),
        partition: Partition,
        places: &'p [CommitPlace],
    ) -> Result<Vec<(Commit, &'p CommitPlace)>, Problem> {
        let read = self.read_records(tenant, what, partition, places).await?;
        let read = read.into_iter().map(|(_, commit)| commit);
        Ok(read.zip(places).collect())
    }

    /// The same with their records.
    pub(super) async fn read_records(
        &self,
        tenant: &TenantId,
        what: &(dyn std::fmt::Display + Sync),
        partition: Partition,
        places: &[CommitPlace],
    ) -> Result<Vec<(Record, Commit)>, Problem> {
        let offsets: Vec<Offset> = places.iter().map(|place| place.offset).collect();
        let records = self.log.read_at(partition, &offsets).await;
        let mut records = records.map_err(|error| log_unavailable(&error))?;
        let mut commits = Vec::with_capacity(places.len());
        for (index, place) in places.iter().enumerate() {
            let damaged = |why: &dyn std::fmt::Display| damaged(what, partition, place.offset, why);
            let Some(record) = records.get_mut(index).and_then(Option::take) else {
                return Err(damaged(&"the record is gone"));
            };
            if record_hash(&record).0[..] != place.record_hash[..] {
                return Err(damaged(&"another record stands where one was read before"));
            }
            let key = record.key.as_deref().unwrap_or_default();
            let value = record.value.as_deref().unwrap_or_default();
            let commit = Commit::read(key, value).map_err(|error| damaged(&error))?;
            if commit.tenant != *tenant {
                return Err(damaged(&"the record belongs to another tenant"));
            }
            commits.push((record, commit));
        }
        Ok(commits)
    }
}

fn not_found(inner: &Inner, stream: &StreamName, wait: &Wait) -> Problem {
    let category = stream.category();
    let detail = match inner.registry.get(category) {
        Some(_) => format!("nothing is recorded for {stream}{}", wait.advice()),
        None => format!(
            "nothing is recorded for {stream}, and no aggregate has the category {category:?}; \
             there are: {}",
            inner.registry.categories()
        ),
    };
    Problem::new(code::STREAM_NOT_FOUND, detail)
}

fn shown(
    commit: Commit,
    place: &CommitPlace,
    log: Option<LogId>,
    partition: Partition,
) -> Vec<ShownEvent> {
    let asked_at = commit.asked_at();
    let position = log.map(|log| PositionToken::at(log, partition, place.position));
    let (correlation_id, causation_id) = (commit.correlation_id(), commit.causation_id());
    let (correlation_id, causation_id) = (correlation_id.to_owned(), causation_id.to_owned());
    let first = commit.from_version + 1;
    let events = commit.events.into_iter().zip(first..);
    events
        .map(|(event, version)| ShownEvent {
            id: event.id,
            type_name: event.type_name,
            schema: event.schema,
            version,
            occurred_at: event.occurred_at.unwrap_or(asked_at),
            recorded_at: commit.recorded_at,
            data: event.data,
            command_id: commit.command.id.to_string(),
            command: commit.command.type_name.clone(),
            correlation_id: correlation_id.clone(),
            causation_id: causation_id.clone(),
            actor: commit.actor.clone(),
            traceparent: commit.trace.clone(),
            position: position.clone(),
        })
        .collect()
}

fn log_unavailable(error: &LogError) -> Problem {
    tracing::warn!(%error, "the log does not answer a query");
    Problem::new(code::LOG_UNAVAILABLE, "the log does not answer").retry_after(RETRY_AFTER)
}

/// An event could not be read in this program's shapes, or not be folded.
fn unread(
    stream: &StreamName,
    partition: Partition,
    place: &CommitPlace,
    error: &MessageError,
) -> Problem {
    match error {
        MessageError::Shape(error) if error.is_newer() => {
            let detail = format!("this program is too old for an event of {stream}: {error}");
            Problem::new(code::UPGRADE_NEEDED, detail).retry_after(DAMAGED_RETRY_AFTER)
        }
        MessageError::Shape(error) => damaged(stream, partition, place.offset, error),
        MessageError::Rule(error) => frozen(stream, error),
    }
}

/// The rules fail on a recorded event. The owner fails on it, too, and freezes the stream.
fn frozen(stream: &StreamName, error: &RuleError) -> Problem {
    tracing::error!(%stream, %error, "the rules fail on a stream");
    let detail =
        "the rules of this program fail on an event of the stream; an operator must examine it";
    Problem::new(code::STREAM_FROZEN, detail).retry_after(DAMAGED_RETRY_AFTER)
}

/// The place goes only into the server's log, for the operator.
fn damaged(
    what: &dyn std::fmt::Display,
    partition: Partition,
    offset: Offset,
    why: &dyn std::fmt::Display,
) -> Problem {
    tracing::error!(%what, %partition, %offset, %why, "a record of the log is damaged");
    let detail =
        "a record that belongs here was changed or is gone; an operator must examine the log";
    Problem::new(code::STREAM_DAMAGED, detail).retry_after(DAMAGED_RETRY_AFTER)
}
