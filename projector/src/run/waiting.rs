//! What waits behind a parked stream: its commits with their events, as the log has them.
//!
//! Invariant: what is shown is bounded, and a record that is not the parked one is named and not
//! shown. Deliberately absent: taking them up (`retry`).

use event_log::commit::Commit;
use event_log::log::EventLog;
use event_log::record::{Record, record_hash};
use kernel::{Actor, Timestamp, TypeName};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::RuntimeError;
use crate::fold::parked::{ParkedCommit, StreamId};
use crate::store::control::{Operator, ParkedStream};

/// The most waiting commits that are shown.
pub const WAITING_MAX: u32 = 100;
/// How many commits are read from the log at once.
const READ_AT_ONCE: usize = 8;
/// No further commit is shown once the records have so many bytes.
const BYTES_TYPICAL: usize = 1 << 20;

/// A parked stream with commits that wait.
#[derive(Debug, Serialize)]
pub struct ParkedDetails {
    /// The stream.
    #[serde(flatten)]
    pub parked: ParkedStream,
    /// The first commits that wait, in their order.
    pub waiting: Vec<WaitingCommit>,
    /// How many more wait.
    pub more: u64,
}

/// A commit of a parked stream.
#[derive(Debug, Serialize)]
pub struct WaitingCommit {
    /// Its number among the accepted records of the partition.
    pub position: u64,
    /// The log's own number of its record.
    pub offset: u64,
    /// Why it cannot be shown: its record is gone or another one. Then nothing else is known.
    pub unreadable: Option<String>,
    /// When it was recorded.
    pub recorded_at: Option<Timestamp>,
    /// The type of its command.
    pub command: Option<TypeName>,
    /// The id of its command.
    pub command_id: Option<String>,
    /// The conversation.
    pub correlation_id: Option<String>,
    /// The direct cause of the command.
    pub causation_id: Option<String>,
    /// Who asked, if the client said it.
    pub actor: Option<Actor>,
    /// W3C Trace Context of the command, if the client sent one.
    pub traceparent: Option<String>,
    /// The code of the refusal, if the command was refused.
    pub refusal: Option<String>,
    /// Its events.
    pub events: Vec<WaitingEvent>,
}

/// An event of a commit that waits.
#[derive(Debug, Serialize)]
pub struct WaitingEvent {
    /// The name of its type.
    #[serde(rename = "type")]
    pub type_name: TypeName,
    /// The number of its data's shape.
    pub schema: u16,
    /// The stream's version with it.
    pub version: u64,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Its data, as it was recorded.
    pub data: Box<RawValue>,
}

impl Operator {
    /// A parked stream of a live read model, with at most `limit` of the commits that wait; absent if
    /// the stream is not parked.
    ///
    /// # Errors
    /// `Postgres`, `Log`.
    pub async fn parked_stream(
        &mut self,
        log: &dyn EventLog,
        projection: &str,
        tenant: &str,
        stream: &str,
        limit: u32,
    ) -> Result<Option<ParkedDetails>, RuntimeError> {
        let stream = StreamId {
            tenant: tenant.to_owned(),
            stream: stream.to_owned(),
        };
        let limit = i64::from(limit.min(WAITING_MAX));
        let found = self.parked_commits(projection, &stream, limit).await?;
        let Some((parked, commits)) = found else {
            return Ok(None);
        };
        let partition = position::Partition(parked.partition);
        let mut waiting = Vec::with_capacity(commits.len());
        let mut bytes = 0;
        for commits in commits.chunks(READ_AT_ONCE) {
            let offsets: Vec<_> = commits.iter().map(|commit| commit.offset).collect();
            let records = log.read_at(partition, &offsets).await?;
            for (commit, record) in commits.iter().zip(records) {
                if bytes >= BYTES_TYPICAL {
                    break;
                }
                let value = record.as_ref().and_then(|record| record.value.as_ref());
                bytes += value.map_or(0, |value| value.len());
                waiting.push(WaitingCommit::of(commit, record.as_ref()));
            }
        }
        let count = u64::try_from(parked.commits).unwrap_or_default();
        Ok(Some(ParkedDetails {
            more: count.saturating_sub(waiting.len() as u64),
            parked,
            waiting,
        }))
    }
}

impl WaitingCommit {
    fn of(parked: &ParkedCommit, record: Option<&Record>) -> Self {
        let mut shown = Self {
            position: parked.position.0,
            offset: parked.offset.0,
            unreadable: None,
            recorded_at: None,
            command: None,
            command_id: None,
            correlation_id: None,
            causation_id: None,
            actor: None,
            traceparent: None,
            refusal: None,
            events: Vec::new(),
        };
        match read(parked, record) {
            Ok(commit) => shown.fill(commit),
            Err(why) => shown.unreadable = Some(why),
        }
        shown
    }

    fn fill(&mut self, commit: Commit) {
        self.recorded_at = Some(commit.recorded_at);
        self.command_id = Some(commit.command.id.to_string());
        self.correlation_id = Some(commit.correlation_id().to_owned());
        self.causation_id = Some(commit.causation_id().to_owned());
        let occurred: Vec<_> = commit
            .events
            .iter()
            .map(|e| commit.occurred_at(e))
            .collect();
        let events = commit.events.into_iter().zip(occurred);
        let first = commit.from_version + 1;
        self.events = (first..)
            .zip(events)
            .map(|(version, (event, occurred_at))| WaitingEvent {
                type_name: event.type_name,
                schema: event.schema,
                version,
                occurred_at,
                data: event.data,
            })
            .collect();
        self.actor = commit.actor;
        self.traceparent = commit.trace;
        self.command = Some(commit.command.type_name);
        self.refusal = commit.rejection.map(|rejection| rejection.code.to_string());
    }
}

fn read(parked: &ParkedCommit, record: Option<&Record>) -> Result<Commit, String> {
    let record = record.ok_or("the record is gone")?;
    if record_hash(record) != parked.record_hash {
        return Err("another record stands where it was parked".to_owned());
    }
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    Commit::read(key, value).map_err(|error| error.to_string())
}
