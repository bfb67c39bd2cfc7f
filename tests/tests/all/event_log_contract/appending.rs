//! Acknowledgements, sessions, and the right to append.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use event_log::log::{self, AppendSession, Appended, EventLog, LogAddress, LogError};
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition};
use sqlx::{Connection, Executor};
use tests::harness::logs::Kind;
use tests::harness::process::Process;
use tokio::sync::mpsc;

use super::{PATIENCE, each_kind, numbered, numbers, offsets, until};
use crate::raw_log::{RawLog, again, append, edit, read_all};

#[tokio::test]
async fn appends_are_acknowledged_in_order_and_offsets_have_no_gaps() {
    const EACH: u64 = 2_500;
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 3).await;
        let appender = raw.log.appender().await.unwrap();
        let session = appender.session().unwrap();
        let (sender, mut results) = mpsc::unbounded_channel();
        for number in 0..3 * EACH {
            let (partition, sender) = (Partition((number % 3) as u32), sender.clone());
            let done = Box::new(move |result: Result<Appended, LogError>| {
                sender.send((partition, number, result.unwrap())).unwrap();
            });
            session.append(partition, &numbered(number), done).unwrap();
        }
        drop(sender);
        appender.flush(PATIENCE).await;
        let mut acknowledged: BTreeMap<Partition, Vec<(u64, Offset)>> = BTreeMap::new();
        let mut count = 0;
        // After the flush, every append has its answer.
        while let Ok((partition, number, appended)) = results.try_recv() {
            assert!(
                appended
                    .appended_at_ms
                    .is_some_and(|ms| ms > 1_700_000_000_000)
            );
            let place = (number, appended.offset.unwrap());
            acknowledged.entry(partition).or_default().push(place);
            count += 1;
        }
        assert_eq!(count, 3 * EACH, "{kind:?}");
        for (partition, places) in acknowledged {
            let first = u64::from(partition.0);
            let expected: Vec<_> = (0..EACH).map(|n| (first + 3 * n, Offset(n))).collect();
            assert_eq!(places, expected, "{kind:?}");
            let records = read_all(&*raw.log, partition).await;
            let held: Vec<NewRecord> = records.iter().map(again).collect();
            let sent: Vec<NewRecord> = (0..EACH).map(|n| numbered(first + 3 * n)).collect();
            assert!(held == sent, "{kind:?} {partition}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_acknowledged_record_is_there_for_every_reader_at_once() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 1).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        let other = log::open(&raw.address).await.unwrap();
        for number in 0..50 {
            let offset = append(&*session, Partition(0), &[numbered(number)]).await[0];
            for log in [&raw.log, &other] {
                let bounds = log.bounds(Partition(0)).await.unwrap();
                assert_eq!(bounds.end, offset.next(), "{kind:?}");
                let found = log.read_at(Partition(0), &[offset]).await.unwrap();
                let found = found[0].as_ref().map(again);
                assert_eq!(found, Some(numbered(number)), "{kind:?}");
            }
        }
    })
    .await;
}

/// Makes an append fail, and with it the session; returns the answer.
async fn spoil(raw: &RawLog, session: &dyn AppendSession) -> Result<Appended, LogError> {
    let (done, answer) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| {
        let _ = done.send(result);
    });
    let poison = match raw.kind {
        // The value exceeds the client's largest record.
        Kind::Kafka => NewRecord {
            value: Some(vec![0; 1_200_000].into()),
            ..numbered(0)
        },
        Kind::Sqlite => NewRecord {
            value: Some("poison".into()),
            ..numbered(0)
        },
    };
    session.append(Partition(0), &poison, done)?;
    answer.await.unwrap()
}

#[tokio::test]
async fn a_session_that_failed_takes_nothing_more_and_a_new_one_does() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 1).await;
        if let LogAddress::Sqlite { path } = &raw.address {
            let trigger = "CREATE TRIGGER t BEFORE INSERT ON record \
                           WHEN new.value = CAST('poison' AS BLOB) \
                           BEGIN SELECT raise(ABORT, 'poisoned'); END";
            edit(path).await.execute(trigger).await.unwrap();
        }
        let appender = raw.log.appender().await.unwrap();
        let session = appender.session().unwrap();
        let same = Arc::clone(&session);
        append(&*session, Partition(0), &numbers(0..3)).await;
        let spoiled = spoil(&raw, &*session).await;
        assert!(spoiled.is_err(), "{kind:?}");
        // Nothing may follow the lost record, or the log would be damaged for good.
        for session in [&session, &same] {
            let (sender, mut results) = mpsc::unbounded_channel();
            let taken = session.append(
                Partition(0),
                &numbered(3),
                Box::new(move |result| {
                    let _ = sender.send(result);
                }),
            );
            if taken.is_ok() {
                let error = results.recv().await.unwrap().unwrap_err();
                assert!(matches!(error, LogError::Closed), "{kind:?} {error}");
            }
        }
        let fresh = appender.session().unwrap();
        let places = append(&*fresh, Partition(0), &numbers(3..6)).await;
        assert_eq!(places, offsets(3..6), "{kind:?}");
        let held: Vec<_> = read_all(&*raw.log, Partition(0)).await;
        assert!(held.iter().map(again).eq(numbers(0..6)), "{kind:?}");
    })
    .await;
}

#[tokio::test]
async fn records_after_a_lost_record_are_not_in_the_log_either() {
    // On Kafka, the client refuses the record before it sends anything; on SQLite, a whole queue is
    // waiting.
    let raw = RawLog::empty(Kind::Sqlite, 2).await;
    let LogAddress::Sqlite { path } = &raw.address else {
        unreachable!("it was made as a file")
    };
    let mut file = edit(path).await;
    let trigger = "CREATE TRIGGER t BEFORE INSERT ON record \
                   WHEN new.value = CAST('poison' AS BLOB) \
                   BEGIN SELECT raise(ABORT, 'poisoned'); END";
    file.execute(trigger).await.unwrap();
    let appender = raw.log.appender().await.unwrap();
    let (failing, sound) = (appender.session().unwrap(), appender.session().unwrap());
    let (sender, mut results) = mpsc::unbounded_channel();
    let hand_over = |session: &dyn AppendSession, partition, number: u64| {
        let sender = sender.clone();
        let record = if number == 10 {
            NewRecord {
                value: Some("poison".into()),
                ..numbered(number)
            }
        } else {
            numbered(number)
        };
        let done = Box::new(move |result: Result<Appended, LogError>| {
            let _ = sender.send((partition, number, result));
        });
        // Once the failure is known, the session may also refuse at once.
        session.append(partition, &record, done)
    };
    // More records than one group commit takes, so that later ones wait when the failure comes.
    for number in 0..9_000 {
        let _ = hand_over(&*failing, Partition(0), number);
    }
    appender.flush(PATIENCE).await;
    hand_over(&*sound, Partition(1), 0).unwrap();
    appender.flush(PATIENCE).await;
    drop(sender);
    let mut good = Vec::new();
    while let Some((partition, number, result)) = results.recv().await {
        if result.is_ok() {
            good.push((partition, number));
        }
        if partition == Partition(1) {
            break;
        }
    }
    let held: Vec<Record> = read_all(&*raw.log, Partition(0)).await;
    assert!(held.len() < 11, "{} records follow a lost one", held.len());
    assert_eq!(good.len(), held.len() + 1);
    assert_eq!(good.last(), Some(&(Partition(1), 0)), "others go on");
}

async fn is_locked(log: &dyn EventLog) -> bool {
    match log.appender().await {
        Ok(_) => false,
        Err(LogError::Locked(address)) => {
            assert_eq!(&address, log.address());
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_file_has_one_writer_until_it_lets_go() {
    let raw = RawLog::empty(Kind::Sqlite, 1).await;
    let LogAddress::Sqlite { path } = &raw.address else {
        unreachable!("it was made as a file")
    };
    let link = raw.folder.path().join("another-name.db");
    std::os::unix::fs::symlink(path, &link).unwrap();
    let same = log::open(&raw.address).await.unwrap();
    let linked = log::open(&LogAddress::Sqlite { path: link }).await.unwrap();
    let appender = raw.log.appender().await.unwrap();
    assert!(is_locked(&*same).await);
    assert!(
        matches!(linked.appender().await, Err(LogError::Locked(_))),
        "by another name it is the same file"
    );
    let session = appender.session().unwrap();
    drop(appender);
    assert!(is_locked(&*same).await, "a session can still append");
    drop(session);
    assert!(!is_locked(&*same).await);
}

/// Set in the copy of this test binary that holds a log's write lock until it is killed.
const HOLDER: &str = "ANNALS_TESTS_HOLDER";

#[tokio::test]
async fn a_file_is_free_again_when_its_writer_was_killed() {
    let raw = RawLog::empty(Kind::Sqlite, 1).await;
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder
        .args([
            "--exact",
            "event_log_contract::appending::holder_of_the_test_above",
        ])
        .env(HOLDER, raw.address.to_string());
    let output = File::create(raw.folder.path().join("holder.out")).unwrap();
    let mut holder = Process::start(holder, output, raw.folder.path()).unwrap();
    until("the other process has written", async || {
        raw.log.bounds(Partition(0)).await.unwrap().end > Offset(0)
    })
    .await;
    assert!(is_locked(&*raw.log).await);
    holder.kill9();
    let session = raw.log.appender().await.unwrap().session().unwrap();
    let before = read_all(&*raw.log, Partition(0)).await.len() as u64;
    let place = append(&*session, Partition(0), &[numbered(before)]).await;
    assert_eq!(place, [Offset(before)]);
    let held = read_all(&*raw.log, Partition(0)).await;
    assert!(held.iter().map(again).eq(numbers(0..before + 1)));
    let checked: String = {
        let LogAddress::Sqlite { path } = &raw.address else {
            unreachable!("it was made as a file")
        };
        let mut file = edit(path).await;
        let integrity = sqlx::query_scalar("PRAGMA integrity_check");
        let checked = integrity.fetch_one(&mut file).await.unwrap();
        file.close().await.unwrap();
        checked
    };
    assert_eq!(checked, "ok");
}

/// Not a test by itself: it runs in the copy of this binary that the test above starts, and keeps
/// the log locked until it is killed.
#[tokio::test]
async fn holder_of_the_test_above() {
    let Ok(address) = std::env::var(HOLDER) else {
        return;
    };
    let log = log::open(&address.parse().unwrap()).await.unwrap();
    let session = log.appender().await.unwrap().session().unwrap();
    for number in 0.. {
        append(&*session, Partition(0), &[numbered(number)]).await;
    }
}
