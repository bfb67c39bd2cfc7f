//! The directory on a real broker: each node learns what the others write, whatever else is in the
//! topic and whatever happens to the topic.

use std::sync::Arc;
use std::time::Duration;

use event_log::directory::{Directory, DirectoryEntries, Hint, NodeEntry};
use event_log::log::{self, LogAddress};
use event_log::record::{Headers, NewRecord};
use kernel::Timestamp;
use position::{LogId, Partition, Term};
use rdkafka::admin::AdminOptions;
use tests::harness::kafka::Kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::unique_name;
use tokio::sync::watch;
use uuid::Uuid;

use crate::raw_log::{self, RawLog};

const PATIENCE: Duration = Duration::from_secs(60);

/// The id of the log to which the nodes of these tests belong.
fn log_id() -> LogId {
    LogId(Uuid::from_u128(7))
}

fn hint(term: u64, node: &str) -> Hint {
    Hint {
        log: log_id(),
        term: Term(term),
        node: node.to_owned(),
        address: format!("http://{node}.example:8080"),
    }
}

fn json(hint: &Hint) -> Vec<u8> {
    serde_json::to_vec(hint).unwrap()
}

fn entry(node: &str, seen_at: i64) -> NodeEntry {
    NodeEntry {
        decides: true,
        node: node.to_owned(),
        address: format!("http://{node}.example:8080"),
        reads_record_version: 1,
        program: "test".to_owned(),
        acknowledged: None,
        seen_at: Timestamp::from_micros(seen_at).unwrap(),
    }
}

/// Opens the directory a second time, as another node would.
async fn listen(address: &LogAddress) -> (Arc<dyn Directory>, watch::Receiver<DirectoryEntries>) {
    let log = log::open(address).await.unwrap();
    let directory = log.directory(log_id()).await.unwrap();
    let known = directory.known();
    (directory, known)
}

async fn until(
    what: &str,
    known: &mut watch::Receiver<DirectoryEntries>,
    holds: impl Fn(&DirectoryEntries) -> bool,
) {
    let waiting = known.wait_for(|known| holds(known));
    let is_so = match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found.is_ok(),
        Err(_elapsed) => false,
    };
    let known = known.borrow();
    assert!(
        is_so,
        "did not become true in {PATIENCE:?}: {what}; known is {known:?}"
    );
}

fn owner_is(partition: u32, hint: &Hint) -> impl Fn(&DirectoryEntries) -> bool {
    move |known| known.owners.get(&Partition(partition)) == Some(hint)
}

fn owners_of(address: &LogAddress) -> (String, LogAddress) {
    let LogAddress::Kafka { brokers, topic } = address else {
        panic!("{address} has no topic")
    };
    let topic = format!("{topic}.owners");
    let brokers = brokers.clone();
    (topic.clone(), LogAddress::Kafka { brokers, topic })
}

/// The topic of the directory, for records that no node writes.
async fn raw(address: &LogAddress) -> RawLog {
    let address = owners_of(address).1;
    RawLog {
        kind: Kind::Kafka,
        log: log::open(&address).await.unwrap(),
        address,
        folder: tempfile::tempdir().unwrap(),
    }
}

/// The key is required: a compacted topic accepts no record without one.
fn record(key: &[u8], value: Option<&[u8]>) -> NewRecord {
    NewRecord {
        key: Some(key.to_vec().into()),
        value: value.map(|value| value.to_vec().into()),
        headers: Headers::default(),
    }
}

#[tokio::test]
async fn each_node_learns_what_the_others_write_whenever_it_starts() {
    let new = NewLog::make(Kind::Kafka, 4).await;
    let (one, _) = listen(&new.address).await;
    let (_other, mut known) = listen(&new.address).await;
    assert_eq!(*known.borrow(), DirectoryEntries::default());
    one.say_owner(Partition(2), &hint(7, "one")).await;
    one.say_node(&entry("one", 1)).await;
    until(
        "the owner is known",
        &mut known,
        owner_is(2, &hint(7, "one")),
    )
    .await;
    until("the node is known", &mut known, |known| {
        known.nodes.get("one") == Some(&entry("one", 1))
    })
    .await;

    let (_late, mut late) = listen(&new.address).await;
    until("a late one knows all", &mut late, |late| {
        owner_is(2, &hint(7, "one"))(late) && late.nodes.contains_key("one")
    })
    .await;

    one.say_node(&entry("one", 2)).await;
    until("it is seen again", &mut known, |known| {
        known.nodes.get("one") == Some(&entry("one", 2))
    })
    .await;
    one.say_gone("one").await;
    until("it is gone", &mut known, |known| known.nodes.is_empty()).await;
    let (_last, mut last) = listen(&new.address).await;
    until(
        "the last one knows",
        &mut last,
        owner_is(2, &hint(7, "one")),
    )
    .await;
    assert!(last.borrow().nodes.is_empty());
}

#[tokio::test]
async fn a_hint_of_a_lower_term_does_not_stay_the_last_word() {
    let new = NewLog::make(Kind::Kafka, 4).await;
    let (owner, mut own) = listen(&new.address).await;
    owner.say_owner(Partition(1), &hint(5, "owner")).await;
    until(
        "its own hint came back",
        &mut own,
        owner_is(1, &hint(5, "owner")),
    )
    .await;

    let (late, mut known) = listen(&new.address).await;
    late.say_owner(Partition(1), &hint(4, "late")).await;
    late.say_owner(Partition(3), &hint(1, "late")).await;
    until(
        "what came behind is known",
        &mut known,
        owner_is(3, &hint(1, "late")),
    )
    .await;
    until(
        "the owner has said so again",
        &mut known,
        owner_is(1, &hint(5, "owner")),
    )
    .await;

    // Compaction keeps the last record of a key, so the owner writes its own record after the other
    // one.
    let topic = raw(&new.address).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let records = raw_log::read_all(&*topic.log, Partition(0)).await;
        let last = records
            .iter()
            .rfind(|record| record.key.as_deref() == Some(b"owner/1"))
            .unwrap();
        let last: Hint = serde_json::from_slice(last.value.as_deref().unwrap()).unwrap();
        if last == hint(5, "owner") {
            // The two nodes did not correct each other again and again.
            assert!(records.len() <= 4, "{records:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{records:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The topic holds a hint of an earlier log, and a hint that is a lie.
#[tokio::test]
async fn hints_of_another_log_are_ignored_and_a_later_hint_replaces_a_lie() {
    let new = NewLog::make(Kind::Kafka, 4).await;
    let left_behind = Hint {
        log: LogId(Uuid::from_u128(1)),
        ..hint(u64::MAX, "gone")
    };
    let (left_behind, lie) = (json(&left_behind), json(&hint(u64::MAX, "liar")));
    let topic = raw(&new.address).await;
    let records = [
        record(b"owner/0", Some(&left_behind)),
        record(b"owner/1", Some(&lie)),
    ];
    topic.write(Partition(0), &records).await;
    let (one, mut known) = listen(&new.address).await;
    until("the lie is known", &mut known, |known| {
        known.owners.len() == 1
    })
    .await;
    one.say_owner(Partition(0), &hint(1, "one")).await;
    one.say_owner(Partition(1), &hint(1, "one")).await;
    for partition in 0..2 {
        until(
            "it is outdone",
            &mut known,
            owner_is(partition, &hint(1, "one")),
        )
        .await;
    }
}

#[tokio::test]
async fn garbage_in_the_topic_is_skipped() {
    let new = NewLog::make(Kind::Kafka, 4).await;
    let good = serde_json::to_vec(&hint(9, "liar")).unwrap();
    let topic = raw(&new.address).await;
    let garbage = [
        record(b"", Some(&good)),
        record(b"\xff\xfe", Some(&good)),
        record(b"owner/4", Some(&good)),
        record(b"owner/-1", Some(&good)),
        record(b"owner/0", Some(b"\x00\x01")),
        record(b"owner/0", None),
        record(b"node/liar", Some(&good)),
        record(b"node/", Some(b"{}")),
        record(b"something else", Some(b"entirely")),
    ];
    topic.write(Partition(0), &garbage).await;
    let (one, mut known) = listen(&new.address).await;
    one.say_owner(Partition(0), &hint(1, "one")).await;
    until(
        "the only good one is known",
        &mut known,
        owner_is(0, &hint(1, "one")),
    )
    .await;
    topic.write(Partition(0), &garbage).await;
    one.say_owner(Partition(1), &hint(1, "one")).await;
    until("it goes on", &mut known, owner_is(1, &hint(1, "one"))).await;
    assert_eq!(known.borrow().owners.len(), 2);
    assert!(known.borrow().nodes.is_empty());
}

#[tokio::test]
async fn a_directory_whose_topic_was_deleted_is_made_again_and_filled() {
    let new = NewLog::make(Kind::Kafka, 4).await;
    let (one, mut known) = listen(&new.address).await;
    one.say_owner(Partition(0), &hint(3, "one")).await;
    one.say_node(&entry("one", 1)).await;
    let is_there = |known: &DirectoryEntries| {
        owner_is(0, &hint(3, "one"))(known) && known.nodes.contains_key("one")
    };
    until("it is known", &mut known, is_there).await;

    let (topic, owners) = owners_of(&new.address);
    let LogAddress::Kafka { brokers, .. } = &owners else {
        panic!("{owners} has no topic")
    };
    let admin = raw_log::admin(brokers);
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await;
    deleted.unwrap()[0].as_ref().unwrap();
    assert!(is_there(&known.borrow()), "known entries were forgotten");

    let deadline = tokio::time::Instant::now() + PATIENCE;
    while log::open(&owners).await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it was not made again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (other, mut others) = listen(&new.address).await;
    until("all of it was said again", &mut others, is_there).await;
    other.say_owner(Partition(1), &hint(1, "other")).await;
    until("it goes on", &mut known, owner_is(1, &hint(1, "other"))).await;
}

#[tokio::test]
async fn the_directory_of_a_log_that_has_none_yet_is_made_by_many_at_once() {
    let new = NewLog::make(Kind::Kafka, 2).await;
    let (topic, owners) = owners_of(&new.address);
    let LogAddress::Kafka { brokers, .. } = &owners else {
        panic!("{owners} has no topic")
    };
    let admin = raw_log::admin(brokers);
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await;
    deleted.unwrap()[0].as_ref().unwrap();
    let opening = (0..4).map(|_| new.log.directory(log_id()));
    for directory in futures::future::join_all(opening).await {
        let (directory, mut known) = {
            let directory = directory.unwrap();
            let known = directory.known();
            (directory, known)
        };
        let term = known.borrow().owners.len() as u64 + 1;
        directory.say_owner(Partition(0), &hint(term, "one")).await;
        until("it is known", &mut known, |known| !known.owners.is_empty()).await;
    }
}

#[tokio::test]
async fn the_directory_outlives_a_restart_and_a_pause_of_the_broker() {
    let mut kafka = Kafka::start();
    let address = LogAddress::Kafka {
        brokers: kafka.bootstrap().to_owned(),
        topic: unique_name("log"),
    };
    RawLog::at(address.clone(), 4).await;
    let (one, _) = listen(&address).await;
    let (_other, mut known) = listen(&address).await;
    one.say_owner(Partition(0), &hint(1, "one")).await;
    until("it is known", &mut known, owner_is(0, &hint(1, "one"))).await;
    kafka.kill9();
    one.say_owner(Partition(0), &hint(2, "one")).await;
    assert!(owner_is(0, &hint(1, "one"))(&known.borrow()));
    kafka.restart();
    one.say_owner(Partition(0), &hint(3, "one")).await;
    until("it goes on", &mut known, owner_is(0, &hint(3, "one"))).await;
    kafka.pause();
    one.say_owner(Partition(0), &hint(4, "one")).await;
    kafka.resume();
    until("and on", &mut known, owner_is(0, &hint(4, "one"))).await;
}
