//! A small handmade log with its clients: valid until a test spoils it.
//!
//! Records are chained only when the log is written, so a test may change, drop or repeat commits
//! as a faulty engine would; a test may also change the chained records, as a faulty store would.

use checker::dump::{DumpWriter, Header, PartitionBounds, RawRecord};
use checker::history::{Accepted, Coded, Entry, EventRef, Invoke, Refused, What};
use checker::rule::{ClaimHeaders, CommitHeaders, Hash, claim_hash, commit_hash, genesis};
use checker::rules::{Counter, Rules};
use checker::{Checker, Loss, Options, Report, Scope};
use serde_json::{Value, json};

pub const LOG: [u8; 16] = [7; 16];

/// A record before it is chained.
#[derive(Clone, Debug)]
pub enum Written {
    Claim {
        term: u64,
        writer: [u8; 16],
        log: [u8; 16],
        version: u16,
        value: Value,
    },
    Commit {
        key: String,
        value: Value,
    },
    Raw(RawRecord),
}

/// A log and its clients.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub partitions: Vec<Vec<Written>>,
    pub history: Vec<Entry>,
    pub clock_ms: u64,
}

/// The time `ms` milliseconds after the start of February 2024.
pub fn moment(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!(
        "2024-02-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z",
        days + 1
    )
}

pub fn claim(term: u64) -> Written {
    Written::Claim {
        term,
        writer: [u8::try_from(term % 200).unwrap(); 16],
        log: LOG,
        version: 1,
        value: json!({"node": "n", "idempotency_window_ms": 3_600_000}),
    }
}

/// The answer that a client hears.
pub fn ok(version: u64, events: &[(&str, &str, u64)]) -> What {
    let events = events.iter().map(|(id, name, version)| EventRef {
        id: (*id).to_owned(),
        type_name: (*name).to_owned(),
        version: *version,
    });
    What::Ok(Accepted {
        version,
        events: events.collect(),
        ..Accepted::default()
    })
}

pub fn refused(code: &str) -> What {
    What::Refused(Refused {
        code: code.to_owned(),
        ..Refused::default()
    })
}

fn coded(code: &str) -> Coded {
    Coded {
        code: code.to_owned(),
    }
}

pub fn unknown() -> What {
    What::Unknown(coded("deadline"))
}

pub fn turned_away() -> What {
    What::TurnedAway(coded("overloaded"))
}

pub fn failed() -> What {
    What::Failed(coded("too_large"))
}

impl World {
    /// A log of this many partitions, each claimed once.
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions: vec![vec![claim(1)]; partitions],
            history: Vec::new(),
            clock_ms: 0,
        }
    }

    /// A line of client `c1`, one millisecond after the line before.
    pub fn line(&mut self, stream: &str, id: &str, what: What) -> &mut Entry {
        self.line_of("c1", stream, id, what)
    }

    pub fn line_of(&mut self, client: &str, stream: &str, id: &str, what: What) -> &mut Entry {
        self.clock_ms += 1;
        self.history.push(Entry {
            at_ms: self.clock_ms,
            client: client.to_owned(),
            tenant: "main".to_owned(),
            stream: stream.to_owned(),
            id: id.to_owned(),
            batch: None,
            line: None,
            what,
        });
        self.history.last_mut().unwrap()
    }

    pub fn invoke(&mut self, stream: &str, id: &str, by: i64) -> &mut Entry {
        self.line(stream, id, add(by))
    }

    /// Adds the commit of `Add by` to partition 0; the id of its event is `<id>-e`.
    pub fn accept(&mut self, stream: &str, id: &str, from: u64, by: i64) {
        let total = self.total(stream) + by;
        let events = match by {
            0 => json!([]),
            _ => json!([{"id": format!("{id}-e"), "type": "Added", "schema": 1,
                         "data": {"by": by, "total": total}}]),
        };
        self.commit(
            0,
            stream,
            json!({
                "from_version": from,
                "command": {"id": id, "type": "Add", "schema": 1, "data": {"by": by}},
                "outcome": "accepted",
                "events": events,
            }),
        );
    }

    pub fn refuse(&mut self, stream: &str, id: &str, from: u64, by: i64, code: &str) {
        self.commit(
            0,
            stream,
            json!({
                "from_version": from,
                "command": {"id": id, "type": "Add", "schema": 1, "data": {"by": by}},
                "outcome": "rejected",
                "rejection": {"code": code, "detail": "no"},
            }),
        );
    }

    /// Adds a commit to a partition; sets its stream and its recorded time.
    pub fn commit(&mut self, partition: usize, stream: &str, mut value: Value) {
        self.clock_ms += 1;
        value["stream"] = json!(stream);
        value["recorded_at"] = json!(moment(self.clock_ms));
        value["commit"] = json!("018f3c5e-7a1b-7c2d-9e4f-5a6b7c8d9e10");
        self.partitions[partition].push(Written::Commit {
            key: format!("main/{stream}"),
            value,
        });
    }

    /// The sum of the events of a stream in partition 0.
    pub fn total(&self, stream: &str) -> i64 {
        let key = format!("main/{stream}");
        let mut total = 0;
        for written in &self.partitions[0] {
            if let Written::Commit { key: found, value } = written
                && *found == key
            {
                let events = value["events"].as_array().cloned().unwrap_or_default();
                total += events
                    .iter()
                    .map(|e| e["data"]["by"].as_i64().unwrap())
                    .sum::<i64>();
            }
        }
        total
    }

    /// A command that is sent, accepted with one event, and answered.
    pub fn add(&mut self, stream: &str, id: &str, from: u64, by: i64) {
        self.invoke(stream, id, by);
        self.accept(stream, id, from, by);
        let event = format!("{id}-e");
        self.line(stream, id, ok(from + 1, &[(&event, "Added", from + 1)]));
    }

    /// The value of the nth commit of partition 0, from 0.
    pub fn value(&mut self, nth: usize) -> &mut Value {
        let mut values = self.partitions[0]
            .iter_mut()
            .filter_map(|written| match written {
                Written::Commit { value, .. } => Some(value),
                Written::Claim { .. } | Written::Raw(_) => None,
            });
        values.nth(nth).unwrap()
    }

    /// The records, chained.
    pub fn records(&self) -> Vec<Vec<RawRecord>> {
        let partitions = self.partitions.iter().enumerate();
        partitions
            .map(|(number, written)| chained(number, written))
            .collect()
    }

    pub fn check(&self) -> Report {
        self.check_with(complete())
    }

    pub fn check_with(&self, options: Options) -> Report {
        self.check_records(&self.records(), options)
    }

    pub fn check_records(&self, records: &[Vec<RawRecord>], options: Options) -> Report {
        self.check_as(records, options, Box::new(Counter))
    }

    pub fn check_as(
        &self,
        records: &[Vec<RawRecord>],
        options: Options,
        rules: Box<dyn Rules>,
    ) -> Report {
        let mut history = Vec::new();
        for entry in &self.history {
            serde_json::to_writer(&mut history, entry).unwrap();
            history.push(b'\n');
        }
        let mut checker = Checker::with_rules(options, rules);
        checker.history("c1.jsonl", history.as_slice()).unwrap();
        checker.dump("log", dump(records).as_slice()).unwrap();
        checker.finish()
    }
}

pub fn add(by: i64) -> What {
    What::Invoke(Invoke {
        command: "Add".to_owned(),
        data: json!({"by": by}),
        expected_version: None,
    })
}

pub fn complete() -> Options {
    Options {
        scope: Scope::Complete,
        loss: Loss::Forbidden,
    }
}

/// The lines of a dump.
pub fn dump(records: &[Vec<RawRecord>]) -> Vec<u8> {
    let bounds = records
        .iter()
        .enumerate()
        .map(|(number, records)| PartitionBounds {
            partition: u32::try_from(number).unwrap(),
            first: 0,
            end: records.last().map_or(0, |last| last.offset + 1),
        });
    let mut file = Vec::new();
    let mut writer = DumpWriter::begin(&mut file, &Header::of(bounds.collect())).unwrap();
    for (number, records) in records.iter().enumerate() {
        for record in records {
            writer
                .record(u32::try_from(number).unwrap(), record)
                .unwrap();
        }
    }
    writer.finish().unwrap();
    file
}

/// Gives each record its offset, and each commit the headers with which it counts.
fn chained(number: usize, written: &[Written]) -> Vec<RawRecord> {
    let mut head: Hash = genesis(u32::try_from(number).unwrap());
    let (mut position, mut current) = (0, (0, [0; 16]));
    let mut records: Vec<RawRecord> = Vec::new();
    for written in written {
        let offset = records.len() as u64;
        let header = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), Some(value.to_vec()));
        records.push(match written {
            Written::Raw(record) => RawRecord {
                offset,
                ..record.clone()
            },
            Written::Claim {
                term,
                writer,
                log,
                version,
                value,
            } => {
                let value = serde_json::to_vec(value).unwrap();
                let headers = ClaimHeaders {
                    term: *term,
                    writer: *writer,
                    log: *log,
                    version: *version,
                };
                if *term > current.0 && *version == 1 {
                    position += 1;
                    current = (*term, *writer);
                    head = claim_hash(&head, &headers, position, &value);
                }
                RawRecord {
                    offset,
                    key: None,
                    value: Some(value),
                    headers: vec![
                        header("annals-kind", b"claim"),
                        header("annals-term", &term.to_be_bytes()),
                        header("annals-writer", writer),
                        header("annals-log", log),
                        header("annals-version", &version.to_be_bytes()),
                    ],
                }
            }
            Written::Commit { key, value } => {
                position += 1;
                let (key, value) = (key.clone().into_bytes(), serde_json::to_vec(value).unwrap());
                let headers = CommitHeaders {
                    term: current.0,
                    writer: current.1,
                    position,
                    previous: head,
                };
                head = commit_hash(&headers, &key, &value);
                RawRecord {
                    offset,
                    key: Some(key),
                    value: Some(value),
                    headers: vec![
                        header("annals-kind", b"commit"),
                        header("annals-term", &headers.term.to_be_bytes()),
                        header("annals-writer", &headers.writer),
                        header("annals-position", &headers.position.to_be_bytes()),
                        header("annals-previous", &headers.previous),
                    ],
                }
            }
        });
    }
    records
}
