//! The AsyncAPI 3 document of the topic: its records with their headers, keys and values, and the
//! settings of the topic.
//!
//! Invariant: headers have the names and sizes that the program writes. The values' schemas use only
//! keywords that mean the same in draft 7, which AsyncAPI builds on, and in 2020-12. Deliberately
//! absent: brokers, which are the operator's.

use event_log::log::TOPIC_SETTINGS;
use event_log::record::{ClaimHeaders, CommitHeaders, NewRecord, RECORD_VERSION};
use position::{ChainHash, LogId, Position, Term, WriterId};
use serde_json::{Map, Value, json};

use super::topic::{self, Values};
use crate::Domain;

/// Where the definitions stand in the document.
const DEFINITIONS: &str = "/components/schemas/";
/// The version of the bindings for Kafka.
const BINDING: &str = "0.5.0";

/// The document of a domain's topic.
pub(super) fn document(domain: &Domain) -> Value {
    let Values {
        commit,
        claim,
        definitions: mut schemas,
        ..
    } = topic::values(domain, DEFINITIONS);
    schemas.insert("Commit".to_owned(), commit);
    schemas.insert("Claim".to_owned(), claim);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Annals: the topic",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "contact": {"name": "The operator of this log"},
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": "log", "description": "The log of a bounded context."}],
        },
        "defaultContentType": "application/json",
        "channels": {"log": channel()},
        "operations": {
            "append": {
                "action": "send",
                "summary": "Annals appends a commit for each command, and a claim for each change of owner.",
                "channel": {"$ref": "#/channels/log"},
            },
        },
        "components": {
            "messages": {"commit": commit_message(), "claim": claim_message()},
            "schemas": schemas,
        },
    })
}

/// What a reader of the document should know before any record.
const ABOUT: &str = "\
What a log writes into its Kafka topic. A record in the topic does not count by being there: consumers \
must apply the acceptance rule, which docs/reading-the-topic.md describes. A record without exactly these \
headers, in this order, is not of the log.";

fn channel() -> Value {
    let settings = TOPIC_SETTINGS.iter().filter_map(|(name, value)| {
        let value = match *name {
            "cleanup.policy" => json!([value]),
            "retention.ms" | "retention.bytes" => json!(value.parse::<i64>().ok()?),
            _ => return None,
        };
        Some(((*name).to_owned(), value))
    });
    json!({
        "address": "{topic}",
        "title": "The log",
        "description": "One topic holds one log. A stream's commits always stand in the same partition, \
                        in order; there is no order between partitions.",
        "parameters": {"topic": {"description": "The name of the topic."}},
        "messages": {
            "commit": {"$ref": "#/components/messages/commit"},
            "claim": {"$ref": "#/components/messages/claim"},
        },
        "bindings": {"kafka": {
            "topicConfiguration": settings.collect::<Map<_, _>>(),
            "bindingVersion": BINDING,
        }},
    })
}

fn commit_message() -> Value {
    let record = CommitHeaders {
        term: Term(0),
        writer: WriterId::default(),
        position: Position(0),
        previous: ChainHash::default(),
    };
    let mut message = json!({
        "name": "commit",
        "title": "A commit",
        "summary": "All that one command left: its events, or its recorded refusal.",
        "contentType": "application/json",
        "payload": {"$ref": format!("#{DEFINITIONS}Commit")},
        "bindings": {"kafka": {
            "key": {"type": "string", "pattern": "^[a-z0-9-]{1,63}/.+$",
                    "description": "The tenant and the stream in UTF-8, as in `main/order-1`."},
            "bindingVersion": BINDING,
        }},
    });
    message["headers"] = headers(&record.record(Default::default(), Default::default()));
    message
}

fn claim_message() -> Value {
    let record = ClaimHeaders {
        term: Term(0),
        writer: WriterId::default(),
        log: LogId::default(),
        version: RECORD_VERSION,
    };
    let mut message = json!({
        "name": "claim",
        "title": "A claim",
        "summary": "A writer takes the partition. It holds no event, and has no key.",
        "contentType": "application/json",
        "payload": {"$ref": format!("#{DEFINITIONS}Claim")},
    });
    message["headers"] = headers(&record.record(Default::default()));
    message
}

/// The headers of a record, with their sizes.
fn headers(record: &NewRecord) -> Value {
    let mut members = Map::new();
    for (name, value) in record.headers.iter() {
        let name = String::from_utf8_lossy(name).into_owned();
        let value = value.unwrap_or_default();
        let member = if name == "annals-kind" {
            json!({"type": "string", "enum": [String::from_utf8_lossy(value)],
                   "description": "The kind of record."})
        } else {
            let about = meaning(&name);
            json!({"type": "string", "minLength": value.len(), "maxLength": value.len(),
                   "description": format!("{about}: {} bytes.", value.len())})
        };
        members.insert(name, member);
    }
    let names: Vec<_> = members.keys().cloned().collect();
    json!({"type": "object", "description": "The values are bytes.", "properties": members,
           "required": names, "additionalProperties": false})
}

fn meaning(header: &str) -> &'static str {
    match header {
        "annals-term" => "The number of the claim, as a big-endian integer",
        "annals-writer" => "The id of the claim's writer",
        "annals-log" => "The id of the log",
        "annals-version" => "The record format, as a big-endian integer",
        "annals-position" => {
            "The commit's place among the accepted records, as a big-endian integer"
        }
        "annals-previous" => "The chain hash of the accepted record before it",
        _ => "A value",
    }
}
