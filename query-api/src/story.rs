//! The story of a conversation: the commits with one correlation id, refusals included, as a tree.
//!
//! Invariants: the read model `commit_index` gives the places; the log gives the commits, and each
//! record must be the one that was projected, by its hash. A story is bounded in commits and events,
//! and says if there is more; then its earliest part is shown. Deliberately absent: the data of
//! events, which their streams show; what is a cause of what (`tree`).

mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use door::header::tenant;
use door::tag::Tag;
use door::{Charge, Path, Problem, Query};
use event_log::commit::Commit;
use kernel::{Actor, CorrelationId, StreamName, TenantId, Timestamp, TypeName};
use position::{LogId, Partition, Position, PositionToken};
use projector::{COMMIT_INDEX, CommitFilter, CommitPlace, FoundCommit, PositionRange};
use serde::Serialize;
use uuid::Uuid;

use self::tree::{Cause, Link, Placed, placed};
use crate::answer::tagged;
use crate::parameters::{OneParameters, Wait};
use crate::streams::Reading;
use crate::{Inner, QueryDoor, code, failed};

/// The most commits of a story.
pub(crate) const COMMITS_MAX: usize = 500;
/// How many events of a story are looked at; beyond it, only the first ones of each commit, so that a
/// cause may not be found.
pub(crate) const EVENTS_MAX: usize = 20_000;
/// The most events that are shown of one commit.
pub(crate) const EVENTS_SHOWN_MAX: usize = 100;
/// How many partitions are searched at once.
const PARTITIONS_AT_ONCE: usize = 16;

#[derive(Serialize)]
struct Story<'a> {
    correlation_id: &'a str,
    commits: Vec<ShownCommit<'a>>,
    streams: usize,
    refused: usize,
    began_at: Timestamp,
    ended_at: Timestamp,
    complete: bool,
}

#[derive(Serialize)]
struct ShownCommit<'a> {
    commit: Uuid,
    depth: usize,
    cause: Cause,
    parent: Option<Uuid>,
    parent_event: Option<Uuid>,
    after_ms: Option<i64>,
    stream: &'a StreamName,
    command_id: &'a str,
    command: &'a TypeName,
    causation_id: &'a str,
    actor: Option<&'a Actor>,
    traceparent: Option<&'a str>,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    outcome: &'static str,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    version: u64,
    events: &'a [ShownEvent],
    event_count: usize,
    position: Option<PositionToken>,
}

#[derive(Serialize)]
struct ShownEvent {
    id: Uuid,
    #[serde(rename = "type")]
    type_name: TypeName,
    version: u64,
    occurred_at: Timestamp,
}

/// What a story keeps of a commit.
struct Told {
    commit: Uuid,
    stream: StreamName,
    command: TypeName,
    actor: Option<Actor>,
    traceparent: Option<String>,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    rejection: Option<(String, String)>,
    version: u64,
    events: Vec<ShownEvent>,
    event_count: usize,
    partition: Partition,
    position: Position,
}

/// `GET /v1/stories/{correlation}`
pub(crate) async fn story(
    State(door): State<QueryDoor>,
    Path(correlation): Path<String>,
    Query(parameters): Query<OneParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let correlation: CorrelationId = correlation.parse().map_err(|error: kernel::NameError| {
        let problem = Problem::new(door::code::PATH_INVALID, error.to_string());
        problem.member("parameter", "correlation")
    })?;
    let answered = story_of(inner, &correlation, &parameters, &headers, charge).await;
    inner.with_freshness(COMMIT_INDEX, answered)
}

async fn story_of(
    inner: &Inner,
    correlation: &CorrelationId,
    parameters: &OneParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let wait = parameters.wait(headers)?;
    let position = inner.position(COMMIT_INDEX, &wait).await?;
    let (found, is_all) = inner.find(&tenant, correlation).await?;
    if found.is_empty() {
        return Err(not_found(correlation, &wait));
    }
    let reading = Reading::begin(charge).await?;
    let (told, links, is_read) = inner.tell(&tenant, correlation, &found, reading).await?;
    let log = position.as_ref().map(|position| position.log);
    let placed = placed(&links);
    let commits = placed.iter().map(|one| shown(one, &told, &links, log));
    let times = || told.iter().map(|told| told.recorded_at);
    let streams: BTreeSet<_> = told.iter().map(|told| &told.stream).collect();
    let none = || not_found(correlation, &wait);
    let body = Story {
        correlation_id: correlation.as_str(),
        commits: commits.collect(),
        streams: streams.len(),
        refused: told.iter().filter(|told| told.rejection.is_some()).count(),
        began_at: times().min().ok_or_else(none)?,
        ended_at: times().max().ok_or_else(none)?,
        complete: is_all && is_read,
    };
    tagged(headers, &body, position.as_ref(), Tag::weak)
}

impl Inner {
    /// The places of the earliest commits of a conversation, in the order of their times, and whether
    /// these are all.
    async fn find(
        &self,
        tenant: &TenantId,
        correlation: &CorrelationId,
    ) -> Result<(Vec<FoundCommit>, bool), Problem> {
        let filter = CommitFilter {
            tenant: Some(tenant.clone()),
            correlation_id: Some(correlation.as_str().to_owned()),
            ..CommitFilter::default()
        };
        let all: Vec<PositionRange> = (0..self.log.partition_count())
            .map(|partition| PositionRange {
                partition: Partition(partition),
                after: Position(0),
                until: Position(i64::MAX.cast_unsigned()),
            })
            .collect();
        let limit = u32::try_from(COMMITS_MAX + 1).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for ranges in all.chunks(PARTITIONS_AT_ONCE) {
            let some = filter.search(&self.pool, ranges, limit).await;
            found.extend(some.map_err(|error| failed(&error))?);
            found.sort_by_key(|one| (one.recorded_at, one.partition, one.position));
            found.truncate(COMMITS_MAX + 1);
        }
        let is_all = found.len() <= COMMITS_MAX;
        found.truncate(COMMITS_MAX);
        Ok((found, is_all))
    }

    /// Reads the commits, partition by partition, and gives them in the order in which they were
    /// found; and says whether all of their events were looked at.
    async fn tell(
        &self,
        tenant: &TenantId,
        correlation: &CorrelationId,
        found: &[FoundCommit],
        mut reading: Reading,
    ) -> Result<(Vec<Told>, Vec<Link>, bool), Problem> {
        let mut by_partition: BTreeMap<Partition, Vec<CommitPlace>> = BTreeMap::new();
        for one in found {
            by_partition
                .entry(one.partition)
                .or_default()
                .push(place(one));
        }
        let (mut read, mut events) = (HashMap::new(), 0);
        for (partition, places) in &by_partition {
            let mut rest = &places[..];
            while let Some(chunk) = reading.next(&mut rest).await? {
                for (commit, place) in self
                    .read_any(tenant, correlation, *partition, chunk)
                    .await?
                {
                    // A long text stands in an index by its beginning and its hash.
                    if commit.correlation_id() != correlation.as_str() {
                        continue;
                    }
                    reading.came(&commit);
                    let known_max = match events <= EVENTS_MAX {
                        true => usize::MAX,
                        false => EVENTS_SHOWN_MAX,
                    };
                    events += commit.events.len();
                    let ids = commit.events.iter().map(|event| event.id);
                    let link = Link {
                        command_id: commit.command.id.to_string(),
                        causation_id: commit.causation_id().to_owned(),
                        events: ids.take(known_max).collect(),
                    };
                    let told = Told::of(commit, *partition, place.position);
                    read.insert((*partition, place.position), (told, link));
                }
            }
        }
        let in_order = found
            .iter()
            .filter_map(|one| read.remove(&(one.partition, one.position)));
        let (told, links) = in_order.unzip();
        Ok((told, links, events <= EVENTS_MAX))
    }
}

fn place(found: &FoundCommit) -> CommitPlace {
    CommitPlace {
        position: found.position,
        offset: found.offset,
        record_hash: found.record_hash.clone(),
        recorded_at: found.recorded_at,
    }
}

impl Told {
    fn of(commit: Commit, partition: Partition, position: Position) -> Self {
        let asked_at = commit.asked_at();
        let (version, first) = (commit.version(), commit.from_version + 1);
        let event_count = commit.events.len();
        let rejection = commit.rejection.as_ref();
        let events = commit
            .events
            .into_iter()
            .zip(first..)
            .take(EVENTS_SHOWN_MAX)
            .map(|(event, version)| ShownEvent {
                id: event.id,
                type_name: event.type_name,
                version,
                occurred_at: event.occurred_at.unwrap_or(asked_at),
            });
        Self {
            commit: commit.commit,
            rejection: rejection.map(|it| (it.code.to_string(), it.detail.to_string())),
            events: events.collect(),
            event_count,
            stream: commit.stream,
            command: commit.command.type_name,
            actor: commit.actor,
            traceparent: commit.trace,
            occurred_at: asked_at,
            recorded_at: commit.recorded_at,
            version,
            partition,
            position,
        }
    }
}

fn shown<'a>(
    one: &Placed,
    told: &'a [Told],
    links: &'a [Link],
    log: Option<LogId>,
) -> ShownCommit<'a> {
    let (this, link) = (&told[one.link], &links[one.link]);
    let parent = one.parent.map(|parent| &told[parent]);
    let after = parent.map(|parent| this.recorded_at.micros() - parent.recorded_at.micros());
    ShownCommit {
        commit: this.commit,
        depth: one.depth,
        cause: one.cause,
        parent: parent.map(|parent| parent.commit),
        parent_event: one
            .parent
            .zip(one.event)
            .map(|(parent, event)| links[parent].events[event]),
        after_ms: after.map(|micros| micros.div_euclid(1_000)),
        stream: &this.stream,
        command_id: &link.command_id,
        command: &this.command,
        causation_id: &link.causation_id,
        actor: this.actor.as_ref(),
        traceparent: this.traceparent.as_deref(),
        occurred_at: this.occurred_at,
        recorded_at: this.recorded_at,
        outcome: if this.rejection.is_some() {
            "refused"
        } else {
            "accepted"
        },
        code: this.rejection.as_ref().map(|(code, _)| &**code),
        detail: this.rejection.as_ref().map(|(_, detail)| &**detail),
        version: this.version,
        events: &this.events,
        event_count: this.event_count,
        position: log.map(|log| PositionToken::at(log, this.partition, this.position)),
    }
}

fn not_found(correlation: &CorrelationId, wait: &Wait) -> Problem {
    let detail = format!(
        "nothing is recorded with the correlation id {:?}{}",
        correlation.as_str(),
        wait.advice()
    );
    Problem::new(code::STORY_NOT_FOUND, detail)
}
