//! The topic as foreign programs read it: the reader in Python (`clients/topic`) on a real Kafka
//! agrees with `annals log verify` and `annals log dump --accepted`, whatever is in the topic.
//!
//! Each partition of one topic holds another history. Deliberately absent: how the tools came here
//! (`ops/setup`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use event_log::log::{self, LogAddress, StoreOptions};
use event_log::record::{NewRecord, RECORD_VERSION};
use position::{LogId, Partition};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tests::harness::kafka;
use tests::harness::unique_name;
use uuid::Uuid;

use crate::cli::program::{annals, folder};
use crate::contract::tool;
use crate::damage::hostile::{imitations, junk};
use crate::history::{Scribe, but, log_id};
use crate::one_verdict::{SEED, changed};
use crate::raw_log::{RawProducer, foreign};

/// How many partitions hold a history that was changed at random.
const RANDOM: u32 = 40;
/// The words by which both readers name a kind of damage.
const KINDS: [&str; 6] = [
    "unlinked",
    "unclaimed",
    "unreadable",
    "version gap",
    "format",
    "belongs to",
];
/// The members that both reports have, except the message.
const COMPARED: [&str; 12] = [
    "partition",
    "records",
    "position",
    "head",
    "term",
    "claims",
    "accepted",
    "rejected",
    "events",
    "streams",
    "orphans",
    "damage_offset",
];

fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/topic/annals_topic.py")
}

/// A topic with one history in each partition.
struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    async fn holding(histories: &[Vec<NewRecord>]) -> Self {
        let brokers = kafka::shared().bootstrap().to_owned();
        let name = unique_name("log");
        let topic = Self { brokers, name };
        let options = StoreOptions {
            partition_count: u32::try_from(histories.len()).unwrap(),
            replication: 1,
        };
        log::create_store(&topic.address(), options).await.unwrap();
        let producer = RawProducer::new(&topic.brokers, &[]);
        for (partition, records) in (0..).map(Partition).zip(histories) {
            producer.write(&topic.name, partition, records);
        }
        topic
    }

    fn address(&self) -> LogAddress {
        LogAddress::Kafka {
            brokers: self.brokers.clone(),
            topic: self.name.clone(),
        }
    }

    fn annals(&self, arguments: &[&str]) -> Output {
        let folder = folder();
        let mut command = annals(folder.path());
        command
            .args(arguments)
            .arg(format!("--log={}", self.address()));
        command.output().unwrap()
    }

    /// What `annals log verify` reports of each partition, and its exit code.
    fn verified(&self) -> (Vec<Value>, Option<i32>) {
        let output = self.annals(&["log", "verify", "--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let parts = report["partitions"].as_array().unwrap();
        let compared = |part| compared(part, part["damage"].as_str());
        (parts.iter().map(compared).collect(), output.status.code())
    }

    /// Runs the reader.
    fn read(&self, script: &Path, arguments: &[&str]) -> Output {
        let folder = folder();
        let mut python: Command = tool("python", folder.path());
        python
            .arg(script)
            .args(["--brokers", &self.brokers, "--topic", &self.name]);
        python.args(arguments).output().unwrap()
    }

    /// What the reader reports of each partition, and its exit code.
    fn summary(&self, script: &Path) -> (Vec<Value>, Option<i32>) {
        let output = self.read(script, &["--summary"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let parts = text.lines().map(|line| {
            let part: Value = serde_json::from_str(line).unwrap();
            compared(&part, part["damage"].as_str())
        });
        (parts.collect(), output.status.code())
    }
}

/// The members of a report that are compared, with the kind of the damage instead of its message.
fn compared(part: &Value, damage: Option<&str>) -> Value {
    let mut compared: serde_json::Map<String, Value> = COMPARED
        .iter()
        .map(|name| ((*name).to_owned(), part[*name].clone()))
        .collect();
    let kind = damage.map(|text| {
        let kind = KINDS.into_iter().find(|kind| text.contains(kind));
        kind.unwrap_or_else(|| panic!("of no kind: {text}"))
    });
    compared.insert("kind".to_owned(), kind.into());
    compared.into()
}

/// Two claims, each followed by some commits.
fn history(partition: Partition) -> Scribe {
    let mut scribe = Scribe::of(partition, log_id());
    scribe.claim();
    scribe.commits(&["thing-a", "thing-b", "thing-a", "thing-c"]);
    scribe.claim();
    scribe.commits(&["thing-b", "thing-a", "thing-c"]);
    scribe
}

/// A history among records of every kind that no reader accepts.
fn with_orphans(partition: Partition) -> Vec<NewRecord> {
    let mut scribe = history(partition);
    let mut others = junk();
    let last = scribe.records().last().unwrap().clone();
    others.extend(imitations(&event_log::record::Record::at(
        position::Offset(0),
        last,
    )));
    others.push(foreign("{\"commit\":1}"));
    others.push(scribe.records()[1].clone());
    others.push(scribe.records()[0].clone());
    others.push(scribe.commit_of("thing-a", but::of_an_earlier_term));
    others.push(scribe.commit_of("thing-a", but::of_another_writer));
    others.push(scribe.commit_of("thing-a", but::at_a_taken_position));
    others.push(scribe.claim_of(1, LogId(Uuid::from_u128(9)), RECORD_VERSION));
    others.push(scribe.claim_of(1_001, log_id(), RECORD_VERSION));
    others.push(scribe.claim_of(1_001, log_id(), 9));
    for other in others {
        scribe.add(other).commits(&["thing-a"]);
    }
    scribe.records().to_vec()
}

type Edit = fn(&mut Scribe, &mut Vec<NewRecord>);

/// One edit of a history for each kind of damage. The scribe stands after the whole history.
const EDITS: [Edit; 9] = [
    |_, records| drop(records.remove(3)),
    |_, records| records.swap(2, 3),
    |scribe, records| records.push(scribe.commit_of("thing-a", but::linked_elsewhere)),
    |scribe, records| records.push(scribe.commit_of("thing-a", but::at_a_later_position)),
    |scribe, records| records.push(scribe.commit_of("thing-a", but::of_a_later_term)),
    |scribe, records| {
        let value = Bytes::from_static(b"{}");
        records.push(scribe.record_of("main/thing-a", value, |_| {}));
    },
    |scribe, records| {
        let value = scribe.value("thing-a", 3);
        records.push(scribe.record_of("main/thing-b", value, |_| {}));
    },
    |scribe, records| {
        let value = scribe.value("thing-a", 2);
        records.push(scribe.record_of("main/thing-a", value, |_| {}));
    },
    |scribe, records| records.push(scribe.claim_of(1, log_id(), RECORD_VERSION + 1)),
];

/// Every history: with orphans, empty, of another log, edited, changed at random.
fn histories() -> Vec<Vec<NewRecord>> {
    let mut histories = vec![with_orphans(Partition(0)), Vec::new()];
    let next = |histories: &Vec<_>| Partition(u32::try_from(histories.len()).unwrap());
    let mut other = Scribe::of(next(&histories), LogId(Uuid::from_u128(4)));
    other.claim().commits(&["thing-a"]);
    histories.push(other.records().to_vec());
    for edit in EDITS {
        let mut scribe = history(next(&histories));
        let mut records = scribe.records().to_vec();
        edit(&mut scribe, &mut records);
        histories.push(records);
    }
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("seeds from {seed}; the same again: {SEED}={seed}");
    for number in 0..u64::from(RANDOM) {
        let mut random = StdRng::seed_from_u64(u64::wrapping_add(seed, number));
        histories.push(changed(next(&histories), &mut random));
    }
    histories
}

/// Somebody else's transactions: one aborted, one committed, and one that stays open. Offsets
/// without a record come at the end.
fn transact(topic: &Topic, partition: Partition) -> RawProducer {
    let transactional = || {
        let id = unique_name("stranger");
        let producer = RawProducer::new(&topic.brokers, &[("transactional.id", &id)]);
        producer.init_transactions();
        producer.begin_transaction();
        producer.write(&topic.name, partition, &[foreign("in a transaction")]);
        producer
    };
    let open = transactional();
    for commit in [false, true] {
        transactional().end_transaction(commit);
    }
    open
}

#[tokio::test]
async fn the_reader_in_python_agrees_with_the_audit_about_every_partition() {
    let topic = Topic::holding(&histories()).await;
    let open = transact(&topic, Partition(0));
    let (verified, code) = topic.verified();
    let (read, code_of_reader) = topic.summary(&reader());
    for (verified, read) in verified.iter().zip(&read) {
        assert_eq!(read, verified);
    }
    assert_eq!(
        (read.len(), code_of_reader, code),
        (verified.len(), Some(5), Some(5))
    );
    // The topic holds what it is for.
    let kinds: BTreeSet<_> = verified.iter().filter_map(|p| p["kind"].as_str()).collect();
    assert_eq!(kinds, KINDS.into_iter().collect());
    assert_eq!(verified[0]["damage_offset"], Value::Null);
    for reason in ["late", "losing", "duplicate", "foreign"] {
        let orphans = &verified[0]["orphans"];
        assert!(orphans[reason].as_u64() > Some(0), "{reason}: {orphans}");
    }
    // Both print the same commits, byte by byte.
    let dumped = topic.annals(&["log", "dump", "--accepted"]);
    let read = topic.read(&reader(), &[]);
    assert_eq!(
        String::from_utf8(read.stdout).unwrap(),
        String::from_utf8(dumped.stdout).unwrap()
    );
    assert_eq!(
        (read.status.code(), dumped.status.code()),
        (Some(5), Some(5))
    );
    drop(open);
}

#[tokio::test]
async fn the_reader_in_python_passes_acknowledged_damage_as_every_reader_does() {
    let mut scribe = history(Partition(0));
    for unread in ["main/thing-a", "main/thing-x"] {
        let poison = scribe.record_of(unread, Bytes::from_static(b"{}"), |_| {});
        scribe.add(poison).commits(&["thing-a", "thing-b"]);
    }
    let mut records = scribe.records().to_vec();
    records.remove(6);
    let topic = Topic::holding(&[records]).await;
    let mut passed: Vec<String> = Vec::new();
    loop {
        let list: Vec<_> = passed.iter().map(|place| format!("{place}=seen")).collect();
        let folder = folder();
        let mut verify = annals(folder.path());
        verify
            .args(["log", "verify", "--output", "json"])
            .arg(format!("--log={}", topic.address()));
        if !list.is_empty() {
            verify.env("ANNALS_ACKNOWLEDGED_DAMAGE", list.join(";"));
        }
        let report: Value = serde_json::from_slice(&verify.output().unwrap().stdout).unwrap();
        let verified = &report["partitions"][0];
        let mut arguments = vec!["--summary".to_owned()];
        arguments.extend(passed.iter().map(|place| format!("--acknowledge={place}")));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = topic.read(&reader(), &arguments);
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        let verified_kind = compared(verified, verified["damage"].as_str());
        assert_eq!(compared(&read, read["damage"].as_str()), verified_kind);
        match verified["damage_offset"].as_u64() {
            Some(offset) => passed.push(format!("0:{offset}")),
            None => break,
        }
    }
    assert_eq!(passed.len(), 3, "{passed:?}");
}

/// Changes that make the reader wrong: a line of the script, and what replaces it.
const MISTAKES: [(&str, &str); 9] = [
    ("previous == self.head", "True"),
    ("position == self.position + 1 and", ""),
    ("or writer != self.writer", ""),
    ("if position <= self.position:", "if False:"),
    ("if term > self.term:", "if False:"),
    ("<= self.term + TERM_STEP_MAX", "<= 2**64"),
    (" or self.log not in (None, values[3])", ""),
    ("if found != version:", "if False:"),
    (
        "\"isolation.level\": \"read_uncommitted\"",
        "\"isolation.level\": \"read_committed\"",
    ),
];

#[tokio::test]
async fn a_mistake_in_the_reader_is_noticed() {
    let mut histories = histories();
    histories.truncate(3 + EDITS.len());
    let topic = Topic::holding(&histories).await;
    let open = transact(&topic, Partition(0));
    let (verified, _) = topic.verified();
    let right = std::fs::read_to_string(reader()).unwrap();
    let folder = folder();
    for (line, instead) in MISTAKES {
        assert_eq!(right.matches(line).count(), 1, "{line}");
        let script = folder.path().join("wrong.py");
        std::fs::write(&script, right.replace(line, instead)).unwrap();
        let (read, _) = topic.summary(&script);
        assert!(read != verified, "nobody noticed: {line} -> {instead}");
    }
    drop(open);
}
