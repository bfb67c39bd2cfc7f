//! Followers get every record once, in order, until they are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::{self, LogAddress, LogReader};
use event_log::record::NewRecord;
use event_log::subscription::{Subscription, SubscriptionError};
use position::{Offset, Partition};
use tests::harness::kafka::Kafka;

use super::{PATIENCE, each_kind, numbers, until};
use crate::history::Scribe;
use crate::raw_log::{RawLog, again, append};

/// What a follower delivered, by partition, in the order of delivery.
#[derive(Default)]
struct Seen {
    records: BTreeMap<Partition, Vec<(Offset, NewRecord)>>,
}

impl Seen {
    async fn take(&mut self, reader: &mut dyn LogReader, wait: Duration) {
        for chunk in reader.next(wait).await.unwrap() {
            let seen = self.records.entry(chunk.partition).or_default();
            assert!(!chunk.records.is_empty());
            for record in &chunk.records {
                seen.push((record.offset, again(record)));
            }
            assert_eq!(chunk.next, seen.last().unwrap().0.next());
        }
    }

    fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    #[track_caller]
    fn assert_is(&self, partition: u32, range: std::ops::Range<u64>) {
        let seen = &self.records[&Partition(partition)];
        let offsets = seen.iter().map(|(offset, _)| offset.0);
        assert!(offsets.eq(range.clone()), "partition {partition}");
        let records = seen.iter().map(|(_, record)| record.clone());
        assert!(records.eq(numbers(range)), "partition {partition}");
    }
}

#[tokio::test]
async fn a_follower_gets_everything_from_where_it_began_and_what_comes_later() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 4).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        for partition in 0..3 {
            append(&*session, Partition(partition), &numbers(0..2_500)).await;
        }
        // Start at the beginning, near the end, and in an empty partition; partition 1 is not
        // followed.
        let from = [(0, 0), (2, 2_400), (3, 0)].map(|(p, o)| (Partition(p), Offset(o)));
        let mut reader = raw.log.follow(&from).unwrap();
        let mut seen = Seen::default();
        while seen.count() < 2_600 {
            seen.take(&mut *reader, PATIENCE).await;
        }
        for round in 0..20 {
            for partition in 0..4 {
                let first = if partition == 3 { 0 } else { 2_500 } + round * 5;
                append(&*session, Partition(partition), &numbers(first..first + 5)).await;
            }
            while seen.count() < 2_600 + (round as usize + 1) * 15 {
                seen.take(&mut *reader, Duration::from_millis(1)).await;
            }
        }
        seen.assert_is(0, 0..2_600);
        seen.assert_is(2, 2_400..2_600);
        seen.assert_is(3, 0..100);
        assert_eq!(seen.records.len(), 3, "{kind:?}");
    })
    .await;
}

#[tokio::test]
async fn a_follower_is_told_of_the_end_only_at_the_end() {
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..9_000)).await;
        let mut reader = raw.log.follow(&[(Partition(0), Offset(0))]).unwrap();
        let mut next = Offset(0);
        while next < Offset(9_000) {
            for chunk in reader.next(PATIENCE).await.unwrap() {
                next = chunk.next;
                assert!(!chunk.at_end || next == Offset(9_000), "{kind:?} at {next}");
            }
        }
        let nothing = reader.next(Duration::from_millis(20)).await.unwrap();
        assert!(
            nothing.iter().all(|chunk| chunk.records.is_empty()),
            "{kind:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_follower_sees_what_another_process_writes() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 2).await;
        // A second handle on the log, as another process would have.
        let other = log::open(&raw.address).await.unwrap();
        let from = [(Partition(0), Offset(0)), (Partition(1), Offset(0))];
        let mut reader = other.follow(&from).unwrap();
        let mut seen = Seen::default();
        seen.take(&mut *reader, Duration::from_millis(1)).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        for number in 0..30 {
            append(&*session, Partition(1), &numbers(number..number + 1)).await;
            while seen.count() <= number as usize {
                seen.take(&mut *reader, PATIENCE).await;
            }
        }
        seen.assert_is(1, 0..30);
    })
    .await;
}

#[tokio::test]
async fn followers_do_not_disturb_each_other_or_the_writer() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 2).await;
        let mut tasks = Vec::new();
        for start in [0, 0, 500, 999] {
            let reader = raw
                .log
                .follow(&[(Partition(0), Offset(0)), (Partition(1), Offset(0))]);
            let mut reader = reader.unwrap();
            tasks.push(tokio::spawn(async move {
                let mut seen = Seen::default();
                while seen.count() < 2_000 {
                    // A slow reader delays nobody else.
                    seen.take(&mut *reader, Duration::from_micros(start)).await;
                }
                seen.assert_is(0, 0..1_000);
                seen.assert_is(1, 0..1_000);
            }));
        }
        let session = raw.log.appender().await.unwrap().session().unwrap();
        for first in (0..1_000).step_by(50) {
            append(&*session, Partition(0), &numbers(first..first + 50)).await;
            append(&*session, Partition(1), &numbers(first..first + 50)).await;
        }
        for task in tasks {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    })
    .await;
}

/// Set, to the log's address, in the copy of this test binary whose threads are counted.
const COUNTED: &str = "ANNALS_TESTS_COUNTED";

#[tokio::test]
async fn a_follower_that_is_dropped_frees_its_thread() {
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..20_000)).await;
        // Count in a process of its own, in which no other test starts threads.
        let name = "event_log_contract::following::counted_by_the_test_above";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(COUNTED, raw.address.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind:?}: {said}");
        assert!(said.contains("all threads are gone"), "{kind:?}: {said}");
    })
    .await;
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Not a test by itself: it runs in a copy of this binary that the test above starts.
#[tokio::test]
async fn counted_by_the_test_above() {
    let Ok(address) = std::env::var(COUNTED) else {
        return;
    };
    let log = log::open(&address.parse().unwrap()).await.unwrap();
    log.bounds(Partition(0)).await.unwrap();
    until("the threads of the start are there", async || {
        let before = threads();
        tokio::time::sleep(Duration::from_millis(200)).await;
        threads() == before
    })
    .await;
    let before = threads();
    let mut readers = Vec::new();
    let end = log.bounds(Partition(0)).await.unwrap().end;
    for number in 0..9 {
        // Some followers wait at the end, some never read, so that their threads wait for room, and
        // some read.
        let from = if number % 3 == 0 { end } else { Offset(0) };
        let mut reader = log.follow(&[(Partition(0), from)]).unwrap();
        if number % 3 == 1 {
            reader.next(PATIENCE).await.unwrap();
        }
        readers.push(reader);
    }
    assert!(threads() > before, "followers need threads");
    drop(readers);
    until("every thread is gone", async || threads() <= before).await;
    println!("all threads are gone");
}

#[tokio::test]
async fn a_subscription_goes_on_when_the_broker_was_killed_and_came_back() {
    let mut broker = Kafka::start();
    let address = LogAddress::Kafka {
        brokers: broker.bootstrap().to_owned(),
        topic: "log".to_owned(),
    };
    let raw = RawLog::at(address, 1).await;
    let mut scribe = Scribe::new();
    scribe.claim().commits(&["thing-a"; 20]);
    raw.write(Partition(0), scribe.records()).await;
    let from = vec![(Partition(0), None)];
    let mut subscription = Subscription::new(Arc::clone(&raw.log), from);
    let (mut offsets, mut epochs) = (Vec::new(), BTreeSet::new());
    let mut read_to = async |subscription: &mut Subscription, count| {
        let deadline = Instant::now() + PATIENCE;
        while offsets.len() < count {
            assert!(
                Instant::now() < deadline,
                "the subscription stays at {:?}",
                offsets.last()
            );
            let batches = match subscription.next(Duration::from_millis(100)).await {
                Ok(batches) => batches,
                Err(SubscriptionError::Log(_)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(SubscriptionError::Stop(stop)) => panic!("{stop}"),
            };
            for batch in batches {
                offsets.extend(batch.commits.iter().map(|placed| placed.record.offset.0));
                epochs.insert(batch.after.leader_epoch);
            }
        }
        epochs.len()
    };
    assert_eq!(read_to(&mut subscription, 20).await, 1);
    broker.kill9();
    let error = subscription.next(Duration::from_millis(500)).await;
    assert!(
        !matches!(error, Err(SubscriptionError::Stop(_))),
        "{error:?}"
    );
    broker.restart();
    let before = scribe.records().len();
    scribe.commits(&["thing-b"; 20]);
    raw.write(Partition(0), &scribe.records()[before..]).await;
    let epochs = read_to(&mut subscription, 40).await;
    assert_eq!(epochs, 2, "another leader served them");
    assert!(offsets.into_iter().eq(1..=40));
}

#[tokio::test]
async fn waiting_ends_when_a_record_comes_and_not_before_the_time_is_over() {
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..1)).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        let mut reader = raw.log.follow(&[(Partition(0), Offset(1))]).unwrap();
        let wait = Duration::from_millis(150);
        let began = std::time::Instant::now();
        assert!(reader.next(wait).await.unwrap().is_empty(), "{kind:?}");
        assert!(began.elapsed() >= wait, "{kind:?}");
        let (read, _) = tokio::join!(reader.next(PATIENCE), async {
            append(&*session, Partition(0), &numbers(1..2)).await
        });
        assert_eq!(read.unwrap()[0].records.len(), 1);
        assert!(
            began.elapsed() < PATIENCE / 2,
            "{kind:?}: a record did not end the wait"
        );
    })
    .await;
}
