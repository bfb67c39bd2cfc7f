//! The records that writers leave in the log of the model of reading.

use bytes::Bytes;
use event_log::chain::Chain;
use event_log::claim::Claim;
use event_log::commit::{CommandPart, Commit, EventPart, Outcome};
use event_log::record::{ClaimHeaders, CommitHeaders, Headers, NewRecord, RECORD_VERSION};
use kernel::{CommandId, Timestamp};
use position::{LogId, Term, WriterId};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Kind;

/// The record with number `number` after `chain`; an accepted commit brings its stream to
/// `version`.
pub(super) fn record(kind: Kind, number: u64, chain: &Chain, version: u64) -> NewRecord {
    let writer = WriterId(Uuid::from_u128(number.into()));
    match kind {
        Kind::Claim => {
            let claim = ClaimHeaders {
                term: Term(chain.term.0 + 1),
                writer,
                log: LogId(Uuid::from_u128(1)),
                version: RECORD_VERSION,
            };
            let value = Claim {
                node: "model".to_owned(),
                address: None,
                idempotency_window_ms: 1,
                acknowledged: None,
                copied: None,
            };
            claim.record(value.to_value())
        }
        Kind::Commit => {
            let headers = CommitHeaders {
                term: chain.term,
                writer: chain.writer,
                position: chain.position.next(),
                previous: chain.head,
            };
            commit(headers, number, version - 1)
        }
        Kind::Late => {
            let headers = CommitHeaders {
                term: Term(0),
                writer,
                position: chain.position.next(),
                previous: chain.head,
            };
            commit(headers, number, version)
        }
        Kind::Foreign => NewRecord {
            key: None,
            value: Some(Bytes::from_static(b"alive")),
            headers: Headers::default(),
        },
    }
}

fn commit(headers: CommitHeaders, number: u64, from_version: u64) -> NewRecord {
    let data = |json: &str| RawValue::from_string(json.to_owned()).expect("it is JSON");
    let id = format!("command-{number}");
    let commit = Commit {
        commit: Uuid::from_u128(number.into()),
        tenant: kernel::TenantId::default(),
        stream: "ledger-1".parse().expect("a stream's name"),
        from_version,
        recorded_at: Timestamp::default(),
        command: CommandPart {
            id: id.parse::<CommandId>().expect("a command's id"),
            type_name: "Write".into(),
            schema: Some(1),
            occurred_at: None,
            expected_version: None,
            data: data("{}"),
        },
        actor: None,
        correlation_id: None,
        causation_id: None,
        trace: None,
        outcome: Outcome::Accepted,
        rejection: None,
        events: vec![EventPart {
            id: Uuid::from_u128(number.into()),
            type_name: "Written".into(),
            schema: 1,
            occurred_at: None,
            data: data("{}"),
        }],
    };
    let value = commit.to_value().expect("a commit is plain data");
    headers.record(commit.key(), value)
}
