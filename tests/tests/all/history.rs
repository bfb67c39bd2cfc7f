//! A writer without an engine: makes the records that an owner would write, and records that no
//! owner would write.
//!
//! The same calls give the same bytes, so a test can write a history twice, or with one difference.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_log::chain::{Chain, Verdict};
use event_log::checkpoint::Checkpoint;
use event_log::claim::{Claim, IDEMPOTENCY_WINDOW_MS};
use event_log::commit::{CommandPart, Commit, EventPart, Outcome};
use event_log::record::{ClaimHeaders, CommitHeaders, NewRecord, RECORD_VERSION, Record};
use kernel::{TenantId, Timestamp};
use position::{ChainHash, LogId, Offset, Partition, Position, Term, WriterId};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The id of the logs that are written here.
pub(crate) fn log_id() -> LogId {
    LogId(Uuid::from_u128(0x1095))
}

/// The writer of one partition.
#[derive(Clone)]
pub(crate) struct Scribe {
    chain: Chain,
    log: LogId,
    versions: BTreeMap<String, u64>,
    records: Vec<NewRecord>,
    /// The number from which ids are made; scribes of different partitions never use the same one.
    number: u128,
}

impl Scribe {
    /// The writer of an empty partition 0.
    pub(crate) fn new() -> Self {
        Self::of(Partition(0), log_id())
    }

    /// The writer of an empty partition.
    pub(crate) fn of(partition: Partition, log: LogId) -> Self {
        Self {
            chain: Chain::genesis(partition),
            log,
            versions: BTreeMap::new(),
            records: Vec::new(),
            number: u128::from(partition.0) << 64,
        }
    }

    /// The same writer, but all of its next ids are different.
    pub(crate) fn otherwise(mut self) -> Self {
        self.number += 1 << 32;
        self
    }

    /// All records so far.
    pub(crate) fn records(&self) -> &[NewRecord] {
        &self.records
    }

    /// The chain after these records.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// A writer that continues after these records.
    pub(crate) fn behind(records: &[NewRecord]) -> Self {
        let mut scribe = Self::new();
        for record in records {
            scribe.add(record.clone());
        }
        scribe.otherwise()
    }

    /// Adds a record of any kind; the chain judges it as a reader would.
    pub(crate) fn add(&mut self, record: NewRecord) -> &mut Self {
        let offset = Offset(self.records.len() as u64);
        // A reader may have to stop here; the writer goes on.
        let verdict = self.chain.judge(&Record::at(offset, record.clone()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        if let Ok(Verdict::Commit(_)) = verdict
            && let Ok(commit) = Commit::read(key.unwrap_or_default(), value.unwrap_or_default())
        {
            let stream = commit.stream.as_str().to_owned();
            self.versions.insert(stream, commit.version());
        }
        self.records.push(record);
        self
    }

    /// Adds a claim that counts.
    pub(crate) fn claim(&mut self) -> &mut Self {
        let claim = self.claim_of(1, self.log, RECORD_VERSION);
        self.add(claim)
    }

    /// Adds commits that count, one event each.
    pub(crate) fn commits(&mut self, streams: &[&str]) -> &mut Self {
        for stream in streams {
            let commit = self.commit_of(stream, |_| {});
            self.add(commit);
        }
        self
    }

    /// A claim whose term is `terms` above the current one.
    pub(crate) fn claim_of(&mut self, terms: u64, log: LogId, version: u16) -> NewRecord {
        let headers = ClaimHeaders {
            term: Term(self.chain.term.0 + terms),
            writer: WriterId(self.id()),
            log,
            version,
        };
        let value = Claim {
            node: "scribe".to_owned(),
            address: None,
            idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
            acknowledged: None,
            copied: None,
        };
        headers.record(value.to_value())
    }

    /// The next commit of a stream; `change` may change its headers.
    pub(crate) fn commit_of(
        &mut self,
        stream: &str,
        change: impl FnOnce(&mut CommitHeaders),
    ) -> NewRecord {
        let from_version = self.versions.get(stream).copied().unwrap_or_default();
        let value = self.value(stream, from_version);
        self.record_of(&format!("main/{stream}"), value, change)
    }

    /// A commit with any key and value; unless `change` changes it, it is linked to the chain.
    pub(crate) fn record_of(
        &self,
        key: &str,
        value: Bytes,
        change: impl FnOnce(&mut CommitHeaders),
    ) -> NewRecord {
        let mut headers = CommitHeaders {
            term: self.chain.term,
            writer: self.chain.writer,
            position: self.chain.position.next(),
            previous: self.chain.head,
        };
        change(&mut headers);
        headers.record(Bytes::from(key.to_owned()), value)
    }

    /// The value of a commit of one event.
    pub(crate) fn value(&mut self, stream: &str, from_version: u64) -> Bytes {
        let data = RawValue::from_string(format!("{{\"number\":{}}}", self.number)).unwrap();
        let commit = Commit {
            commit: self.id(),
            tenant: TenantId::default(),
            stream: stream.parse().unwrap(),
            from_version,
            recorded_at: Timestamp::from_micros(1_700_000_000_000_000).unwrap(),
            command: CommandPart {
                id: format!("c{}", self.number).parse().unwrap(),
                type_name: "Do".into(),
                schema: Some(1),
                occurred_at: None,
                expected_version: None,
                data: data.clone(),
            },
            actor: None,
            correlation_id: None,
            causation_id: None,
            trace: None,
            outcome: Outcome::Accepted,
            rejection: None,
            events: vec![EventPart {
                id: self.id(),
                type_name: "Done".into(),
                schema: 1,
                occurred_at: None,
                data,
            }],
        };
        commit.to_value().unwrap()
    }

    fn id(&mut self) -> Uuid {
        self.number += 1;
        Uuid::from_u128(self.number)
    }
}

/// The checkpoint of a reader whose last record was the one at `offset`.
pub(crate) fn checkpoint_at(records: &[NewRecord], offset: u64) -> Checkpoint {
    let until = &records[..=usize::try_from(offset).unwrap()];
    let last = Record::at(Offset(offset), until.last().unwrap().clone());
    Checkpoint::new(Scribe::behind(until).chain(), &last, None)
}

/// Changes of headers, for records that do not count.
pub(crate) mod but {
    use super::{ChainHash, CommitHeaders, Position, Term, Uuid, WriterId};

    pub(crate) fn of_an_earlier_term(headers: &mut CommitHeaders) {
        headers.term = Term(headers.term.0 - 1);
    }

    pub(crate) fn of_a_later_term(headers: &mut CommitHeaders) {
        headers.term = Term(headers.term.0 + 1);
    }

    pub(crate) fn of_another_writer(headers: &mut CommitHeaders) {
        headers.writer = WriterId(Uuid::from_u128(0xbad));
    }

    pub(crate) fn at_a_taken_position(headers: &mut CommitHeaders) {
        headers.position = Position(headers.position.0 - 1);
    }

    pub(crate) fn at_a_later_position(headers: &mut CommitHeaders) {
        headers.position = headers.position.next();
    }

    pub(crate) fn linked_elsewhere(headers: &mut CommitHeaders) {
        headers.previous = ChainHash([0x5a; 32]);
    }
}
