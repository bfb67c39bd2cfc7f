//! A stream over its life: what it is, its state at any moment, and what differs between two.
//!
//! Invariants: version 0 is the empty state. Each answer says on which version and commit it stands,
//! whether it follows a history that never was (`hypothetical`: by business time, events are left
//! out although they come earlier), and whether later records may change it (`provisional`).
//! Deliberately absent: folding (`fold`), and what a difference is (`difference`).

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use door::header::tenant;
use door::tag::Tag;
use door::{Charge, Path, Problem, Query};
use event_log::commit::Commit;
use kernel::{Actor, StreamName, Timestamp, TypeName};
use projector::{STREAM_INDEX, StreamSummary};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fold::{Fold, Of, Place, Step, range_too_long};
use super::{ShownEvent, not_found, shown};
use crate::answer::tagged;
use crate::difference::{Authors, Kind, changes};
use crate::parameters::{
    DiffParameters, Moment, OneParameters, StateParameters, backwards, stream_of,
};
use crate::{Inner, QueryDoor, code, failed};

/// The most events between the two moments of a difference: each of them is looked at.
pub(crate) const DIFF_EVENTS_MAX: u64 = 10_000;
/// The most changes of one answer.
pub(crate) const CHANGES_MAX: usize = 10_000;

#[derive(Serialize)]
struct Folded<'a> {
    stream: &'a StreamName,
    category: &'a str,
    version: u64,
    state: Box<RawValue>,
    commit: Option<Uuid>,
    recorded_at: Option<Timestamp>,
    hypothetical: bool,
    skipped: u64,
    provisional: bool,
}

/// A moment that an answer stands on.
#[derive(Serialize)]
struct Standing {
    version: u64,
    commit: Option<Uuid>,
    recorded_at: Option<Timestamp>,
    hypothetical: bool,
    skipped: u64,
    provisional: bool,
}

impl Standing {
    fn of(place: &Place) -> Self {
        Self {
            version: place.version,
            commit: place.commit.as_ref().map(|commit| commit.id),
            recorded_at: place.commit.as_ref().map(|commit| commit.recorded_at),
            hypothetical: place.skipped > 0,
            skipped: place.skipped,
            provisional: place.is_provisional,
        }
    }
}

#[derive(Serialize)]
struct Compared<'a> {
    stream: &'a StreamName,
    category: &'a str,
    from: Standing,
    to: Standing,
    changes: Vec<ShownChange<'a>>,
    complete: bool,
}

#[derive(Serialize)]
struct ShownChange<'a> {
    path: String,
    kind: Kind,
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    by: Option<Author>,
}

/// The event that changed a field, with its envelope.
#[derive(Clone, Serialize)]
struct Author {
    version: u64,
    id: Uuid,
    #[serde(rename = "type")]
    type_name: TypeName,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    command_id: String,
    command: TypeName,
    correlation_id: String,
    causation_id: String,
    actor: Option<Actor>,
    traceparent: Option<String>,
}

impl Author {
    fn of(step: &Step<'_>) -> Self {
        let Commit { command, .. } = step.commit;
        Self {
            version: step.version,
            id: step.event.id,
            type_name: step.event.type_name.clone(),
            occurred_at: step.commit.occurred_at(step.event),
            recorded_at: step.commit.recorded_at,
            command_id: command.id.to_string(),
            command: command.type_name.clone(),
            correlation_id: step.commit.correlation_id().to_owned(),
            causation_id: step.commit.causation_id().to_owned(),
            actor: step.commit.actor.clone(),
            traceparent: step.commit.trace.clone(),
        }
    }
}

/// What a stream is.
#[derive(Serialize)]
struct Summary<'a> {
    stream: &'a StreamName,
    category: &'a str,
    known: bool,
    version: u64,
    partition: u32,
    first_recorded_at: Timestamp,
    last_recorded_at: Timestamp,
    refused: bool,
    last_event: Option<ShownEvent>,
    links: Links,
}

/// Where the rest is.
#[derive(Serialize)]
struct Links {
    events: String,
    state: Option<String>,
    diff: Option<String>,
}

/// `GET /v1/streams/{stream}`
pub(crate) async fn summary(
    State(door): State<QueryDoor>,
    Path(stream): Path<String>,
    Query(parameters): Query<OneParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let stream = stream_of(&stream)?;
    let answered = summary_of(inner, &stream, &parameters, &headers, charge).await;
    inner.with_freshness(STREAM_INDEX, answered)
}

async fn summary_of(
    inner: &Inner,
    stream: &StreamName,
    parameters: &OneParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let wait = parameters.wait(headers)?;
    let position = inner.position(STREAM_INDEX, &wait).await?;
    let found = StreamSummary::of(&inner.pool, &tenant, stream).await;
    let found = found.map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| not_found(inner, stream, &wait))?;
    charge.keep(door::memory::SMALL_BYTES_MAX).await?;
    let last = found.last.as_slice();
    let last = inner.read(&tenant, stream, found.partition, last).await?;
    let log = position.as_ref().map(|position| position.log);
    let last = last.into_iter().next();
    let last = last.map(|(commit, place)| shown(commit, place, log, found.partition));
    let category = stream.category();
    let known = inner.registry.get(category).is_some();
    let link = |what: &str| format!("/v1/streams/{stream}/{what}");
    let body = Summary {
        stream,
        category,
        known,
        version: found.version,
        partition: found.partition.0,
        first_recorded_at: found.first_recorded_at,
        last_recorded_at: found.last_recorded_at,
        refused: found.is_refused,
        last_event: last.and_then(|mut events| events.pop()),
        links: Links {
            events: link("events"),
            state: known.then(|| link("state")),
            diff: known.then(|| link("diff")),
        },
    };
    tagged(headers, &body, position.as_ref(), Tag::weak)
}

/// `GET /v1/streams/{stream}/state`
pub(crate) async fn state(
    State(door): State<QueryDoor>,
    Path(stream): Path<String>,
    Query(parameters): Query<StateParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let stream = stream_of(&stream)?;
    let answered = state_of(inner, &stream, &parameters, &headers, charge).await;
    inner.with_freshness(STREAM_INDEX, answered)
}

async fn state_of(
    inner: &Inner,
    stream: &StreamName,
    parameters: &StateParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let moment = parameters.moment()?;
    let wait = parameters.wait(headers)?;
    let position = inner.position(STREAM_INDEX, &wait).await?;
    inner.require_stream(&tenant, stream, &wait).await?;
    let of = Of {
        inner,
        tenant: &tenant,
        stream,
        wait: &wait,
        aggregate: inner.aggregate(stream)?,
    };
    let mut fold = Fold::begin(of, charge).await?;
    fold.to(moment, None).await?;
    let Standing {
        version,
        commit,
        recorded_at,
        hypothetical,
        skipped,
        provisional,
    } = Standing::of(&fold.place);
    let body = Folded {
        stream,
        category: stream.category(),
        version,
        state: RawValue::from_string(fold.json()?).map_err(Problem::internal)?,
        commit,
        recorded_at,
        hypothetical,
        skipped,
        provisional,
    };
    // Strong, because `If-Match` of a command takes no weak tag; it begins with the version. No
    // command can have seen a state that never was.
    let tag = |digest| match hypothetical {
        false => Tag::strong(format!("{version}-{digest}")),
        true => Tag::weak(digest),
    };
    tagged(headers, &body, position.as_ref(), tag)
}

/// `GET /v1/streams/{stream}/diff`
pub(crate) async fn diff(
    State(door): State<QueryDoor>,
    Path(stream): Path<String>,
    Query(parameters): Query<DiffParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let stream = stream_of(&stream)?;
    let answered = diff_of(inner, &stream, &parameters, &headers, charge).await;
    inner.with_freshness(STREAM_INDEX, answered)
}

async fn diff_of(
    inner: &Inner,
    stream: &StreamName,
    parameters: &DiffParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let (from, to) = parameters.moments()?;
    let wait = parameters.wait(headers)?;
    let position = inner.position(STREAM_INDEX, &wait).await?;
    let version = inner.require_stream(&tenant, stream, &wait).await?;
    let of = Of {
        inner,
        tenant: &tenant,
        stream,
        wait: &wait,
        aggregate: inner.aggregate(stream)?,
    };
    // Both ends are named before anything is folded, so that they lie in one history.
    let to = match to {
        Moment::Newest => Moment::Version(version),
        to => to,
    };
    let from = match (from, to) {
        (Some(from), _) => from,
        (None, Moment::Version(to)) => Moment::Version(to.saturating_sub(1)),
        (None, _) => return Err(from_missing()),
    };
    let mut fold = Fold::begin(of, charge.clone()).await?;
    fold.to(from, None).await?;
    let (before, start, began) = (fold.json()?, fold.copy()?, fold.place.clone());
    fold.to(to, None).await?;
    let (after, ended) = (fold.json()?, fold.place.clone());
    if began.version > ended.version {
        return Err(backwards());
    }
    let found = changes(&before, &after).map_err(Problem::internal)?;
    let paths = found.iter().map(|change| change.path.as_str());
    let mut authors = Authors::of(paths);
    // Of a history that never was, no event can be said to have led from one state to the other.
    if began.skipped == 0 && ended.skipped == 0 && !found.is_empty() {
        if ended.version - began.version > DIFF_EVENTS_MAX {
            return Err(range_too_long().member("max", DIFF_EVENTS_MAX));
        }
        let fold = fold.again(start, began.clone());
        note_authors(of, fold, ended.version, before.clone(), &mut authors).await?;
    }
    let size: usize = found.iter().map(|change| change.path.len() + 512).sum();
    charge
        .settle(size + 3 * (before.len() + after.len()))
        .await?;
    let complete = found.len() <= CHANGES_MAX;
    let shown = found
        .into_iter()
        .take(CHANGES_MAX)
        .map(|change| ShownChange {
            by: authors.get(&change.path).cloned(),
            path: change.path,
            kind: change.kind,
            before: change.before,
            after: change.after,
        });
    let body = Compared {
        stream,
        category: stream.category(),
        from: Standing::of(&began),
        to: Standing::of(&ended),
        complete,
        changes: shown.collect(),
    };
    tagged(headers, &body, position.as_ref(), Tag::weak)
}

/// Looks at each event up to a version, and notes which fields it changed.
async fn note_authors(
    of: Of<'_>,
    mut fold: Fold<'_>,
    version: u64,
    mut before: String,
    authors: &mut Authors<Author>,
) -> Result<(), Problem> {
    let mut note = |step: &Step<'_>| {
        let after = of.aggregate.encode_state(step.state);
        let after = after.map_err(|error| super::frozen(of.stream, &error))?;
        if after != before {
            let author = Author::of(step);
            for change in changes(&before, &after).map_err(Problem::internal)? {
                authors.note(&change.path, &author);
            }
            before = after;
        }
        Ok(())
    };
    fold.to(Moment::Version(version), Some(&mut note)).await
}

fn from_missing() -> Problem {
    let detail = "give from or from_time: without it, the version before `to` is meant, and `to` is \
                  a time";
    Problem::new(code::MOMENT_UNCLEAR, detail).member("parameter", "from")
}
