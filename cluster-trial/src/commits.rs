//! The records of the trial: claims and commits as owners write them, readable by every reader.
//!
//! Invariant: each claim has a stream of its own, so that stream versions have no gaps, whatever
//! happened to the commits of earlier claims.

use bytes::Bytes;
use event_log::claim::{Claim, IDEMPOTENCY_WINDOW_MS};
use event_log::commit::{CommandPart, Commit, EventPart, Outcome};
use event_log::record::{NewRecord, Record, record_hash};
use kernel::{CommandId, StreamName, TenantId, Timestamp};
use position::{Offset, RecordHash, WriterId};
use rand::RngExt as _;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A record's content without its offset: two records with the same content are the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(RecordHash);

impl Content {
    pub(super) fn of(record: &NewRecord) -> Self {
        Self(record_hash(&Record::at(Offset(0), record.clone())))
    }

    pub(super) fn of_read(record: &Record) -> Self {
        let anywhere = Record {
            offset: Offset(0),
            ..record.clone()
        };
        Self(record_hash(&anywhere))
    }
}

/// The value of a claim.
pub(super) fn claim_value(node: &str) -> Bytes {
    let claim = Claim {
        node: node.to_owned(),
        address: None,
        idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
        acknowledged: None,
        copied: None,
    };
    claim.to_value()
}

/// The commits of one claim.
pub(super) struct Commits {
    stream: StreamName,
    version: u64,
}

impl Commits {
    pub(super) fn of(writer: WriterId) -> Self {
        let stream = format!("verify-{}", writer.0.simple());
        Self {
            stream: stream.parse().expect("letters and digits make a stream"),
            version: 0,
        }
    }

    /// The next commit: its key, and a value of `size` bytes (or slightly more, if a commit needs
    /// more). The filling is random, so that compression does not shrink it.
    pub(super) fn next(&mut self, now_ms: i64, size: usize) -> (Bytes, Bytes) {
        let empty = self.commit(now_ms, String::new());
        let value = empty.to_value().expect("a commit is plain data");
        let filling = filling(size.saturating_sub(value.len()));
        let commit = self.commit(now_ms, filling);
        self.version += 1;
        let value = commit.to_value().expect("a commit is plain data");
        (commit.key(), value)
    }

    /// Undoes [`Self::next`] for a commit that was not sent and will be made again.
    pub(super) fn take_back(&mut self) {
        self.version -= 1;
    }

    fn commit(&self, now_ms: i64, filling: String) -> Commit {
        let number = self.version + 1;
        let id = format!("{}-{number}", self.stream);
        let data = |json: String| RawValue::from_string(json).expect("it is written as JSON");
        Commit {
            commit: Uuid::now_v7(),
            tenant: TenantId::default(),
            stream: self.stream.clone(),
            from_version: self.version,
            recorded_at: Timestamp::from_micros(now_ms * 1_000)
                .expect("the present is within the range of times"),
            command: CommandPart {
                id: id.parse::<CommandId>().expect("letters and digits"),
                type_name: "Verify".into(),
                schema: Some(1),
                occurred_at: None,
                expected_version: None,
                data: data("{}".to_owned()),
            },
            actor: None,
            correlation_id: None,
            causation_id: None,
            trace: None,
            outcome: Outcome::Accepted,
            rejection: None,
            events: vec![EventPart {
                id: Uuid::now_v7(),
                type_name: "Verified".into(),
                schema: 1,
                occurred_at: None,
                data: data(format!("{{\"filling\":\"{filling}\"}}")),
            }],
        }
    }
}

fn filling(length: usize) -> String {
    let mut bytes = vec![0; length.div_ceil(2)];
    rand::rng().fill(&mut bytes[..]);
    let mut text = hex::encode(bytes);
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use event_log::commit::COMMIT_SIZE_MAX;

    use super::*;

    #[test]
    fn a_commit_of_the_trial_is_read_like_any_other_and_has_the_size_asked_for() {
        let mut commits = Commits::of(WriterId(Uuid::from_u128(7)));
        for (number, size) in [600, COMMIT_SIZE_MAX, 0].into_iter().enumerate() {
            let (key, value) = commits.next(1_800_000_000_000, size);
            let read = Commit::read(&key, &value).unwrap();
            assert_eq!(read.from_version, number as u64);
            assert!(size == 0 || value.len() == size, "{}", value.len());
        }
    }
}
