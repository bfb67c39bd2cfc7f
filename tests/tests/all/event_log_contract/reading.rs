//! Reads: chunks, single records, and the bounds of a partition.

use std::sync::Arc;

use bytes::Bytes;
use event_log::log::{self, Bounds, EventLog, LogAddress, LogError};
use event_log::record::{Headers, NewRecord, Record};
use position::{Offset, Partition};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use sqlx::Executor;
use tests::harness::logs::{self, Kind};

use super::{PATIENCE, each_kind, numbered, numbers};
use crate::raw_log::{RawLog, admin, again, append, edit, read_all};

fn random_bytes(random: &mut StdRng, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes);
    bytes.into()
}

/// Records of every shape.
fn shapes() -> Vec<NewRecord> {
    let mut random = StdRng::seed_from_u64(3);
    let parts = [
        None,
        Some(Bytes::new()),
        Some(Bytes::from_static(b"\0\xff\xfe text")),
    ];
    let mut shapes = Vec::new();
    for key in &parts {
        for value in &parts {
            shapes.push(NewRecord {
                key: key.clone(),
                value: value.clone(),
                headers: Headers::default(),
            });
        }
    }
    let name = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let header_lists = [
        parts
            .iter()
            .map(|part| (name(b"same"), part.clone()))
            .collect(),
        vec![(name(b""), Some(Bytes::from_static(b"x")))],
        vec![
            (name(b"\xff\xfe\x80"), Some(name(b"not a text"))),
            (name("Ünïcödé".as_bytes()), None),
        ],
        vec![(name(b"big"), Some(random_bytes(&mut random, 70_000)))],
        (0..300_u16)
            .map(|n| {
                (
                    Bytes::from(format!("h{n}")),
                    Some(Bytes::from(n.to_be_bytes().to_vec())),
                )
            })
            .collect(),
    ];
    for headers in header_lists {
        shapes.push(NewRecord {
            headers: headers.into_iter().collect(),
            ..numbered(1)
        });
    }
    for size in [900_000, 900_001, 1_000_000] {
        shapes.push(NewRecord {
            key: Some("tenant/stream".into()),
            value: Some(random_bytes(&mut random, size)),
            headers: numbered(2).headers,
        });
    }
    shapes.push(numbered(3));
    shapes
}

#[tokio::test]
async fn what_is_written_is_read_back_byte_for_byte() {
    each_kind(async |kind| {
        let shapes = shapes();
        let raw = RawLog::empty(kind, 2).await;
        raw.write(Partition(1), &shapes).await;
        let held = read_all(&*raw.log, Partition(1)).await;
        assert_eq!(held.len(), shapes.len());
        for (index, (record, shape)) in held.iter().zip(&shapes).enumerate() {
            assert_eq!(record.offset, Offset(index as u64));
            assert!(
                again(record) == *shape,
                "{kind:?}: read changed shape {index}"
            );
            let single = raw
                .log
                .read_at(Partition(1), &[record.offset])
                .await
                .unwrap();
            assert!(single == [Some(record.clone())], "{kind:?}: shape {index}");
        }
        let mut reader = raw.log.follow(&[(Partition(1), Offset(0))]).unwrap();
        let mut followed = Vec::new();
        while followed.len() < shapes.len() {
            for chunk in reader.next(PATIENCE).await.unwrap() {
                followed.extend(chunk.records);
            }
        }
        assert!(
            followed == held,
            "{kind:?}: a follower reads something else"
        );
    })
    .await;
}

#[tokio::test]
async fn the_appender_keeps_every_byte_of_what_it_takes() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 1).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        let is_text = |shape: &NewRecord| {
            let mut names = shape.headers.iter();
            names.all(|(name, _)| str::from_utf8(name).is_ok())
        };
        let shapes: Vec<NewRecord> = shapes().into_iter().filter(is_text).collect();
        append(&*session, Partition(0), &shapes).await;
        let held = read_all(&*raw.log, Partition(0)).await;
        for (index, (record, shape)) in held.iter().zip(&shapes).enumerate() {
            assert!(
                again(record) == *shape,
                "{kind:?}: shape {index} was changed"
            );
        }
        assert_eq!(held.len(), shapes.len());
    })
    .await;
}

/// Reads from an offset to the end, and compares what each chunk says about the end with the log's
/// end.
async fn read_on(log: &dyn EventLog, mut from: Offset, end: Offset) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let chunk = log.read(Partition(0), from).await.unwrap();
        assert_eq!(chunk.partition, Partition(0));
        assert_eq!(
            chunk.at_end,
            chunk.at_end && chunk.next == end,
            "not the end"
        );
        assert!(chunk.at_end || !chunk.records.is_empty(), "no step forward");
        let last = chunk.records.last();
        assert_eq!(chunk.next, last.map_or(from, |last| last.offset.next()));
        records.extend(chunk.records);
        if chunk.at_end {
            return records;
        }
        from = chunk.next;
    }
}

#[tokio::test]
async fn reading_begins_anywhere_and_crosses_the_borders_of_pieces() {
    // A chunk holds at most 2,000 records: some of these logs end at such a border, and some do
    // not.
    each_kind(async |kind| {
        for count in [0, 1, 2_000, 4_000, 4_567] {
            let raw = RawLog::holding(kind, &numbers(0..count)).await;
            for from in [0, 1, 1_999, 2_000, 2_001, 3_999, 4_000, 4_566, 4_567] {
                if from > count {
                    continue;
                }
                let read = read_on(&*raw.log, Offset(from), Offset(count)).await;
                let held = read.iter().map(again);
                assert!(held.eq(numbers(from..count)), "{kind:?} {from}..{count}");
                let at = read.iter().map(|record| record.offset.0);
                assert!(at.eq(from..count), "{kind:?} {from}..{count}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_reports_the_present_end_and_not_an_earlier_one() {
    // A reader that fetches ahead may hold an old end, after which other records have come.
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..2_000)).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        let mut end = 2_000;
        for round in 0..20 {
            let first = raw.log.read(Partition(0), Offset(0)).await.unwrap();
            assert_eq!(first.next, Offset(2_000));
            append(&*session, Partition(0), &numbers(end..end + 3)).await;
            end += 3;
            let rest = read_on(&*raw.log, first.next, Offset(end)).await;
            assert_eq!(rest.len() as u64, end - 2_000, "{kind:?}, round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_piece_is_bounded_in_bytes_however_large_its_records_are() {
    each_kind(async |kind| {
        let large = |number| NewRecord {
            value: Some(vec![b'x'; 900_000].into()),
            ..numbered(number)
        };
        let records: Vec<NewRecord> = (0..20).map(large).collect();
        let raw = RawLog::holding(kind, &records).await;
        let mut reader = raw.log.follow(&[(Partition(0), Offset(0))]).unwrap();
        let (mut from, mut read, mut followed) = (Offset(0), 0, 0);
        while read < 20 {
            let chunk = raw.log.read(Partition(0), from).await.unwrap();
            let bytes: usize = chunk.records.iter().map(Record::size).sum();
            assert!(bytes <= 6 << 20, "{kind:?}: one piece of {bytes} bytes");
            read += chunk.records.len();
            from = chunk.next;
        }
        while followed < 20 {
            for chunk in reader.next(PATIENCE).await.unwrap() {
                let bytes: usize = chunk.records.iter().map(Record::size).sum();
                assert!(bytes <= 6 << 20, "{kind:?}: one piece of {bytes} bytes");
                followed += chunk.records.len();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn single_records_are_found_where_they_are_and_nowhere_else() {
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..100)).await;
        let asked = [7, 8, 9, 99, 0, 100, 50, 7, 1_000_000, 98].map(Offset);
        let found = raw.log.read_at(Partition(0), &asked).await.unwrap();
        assert_eq!(found.len(), asked.len());
        for (offset, record) in asked.iter().zip(found) {
            let expected = (offset.0 < 100).then(|| numbered(offset.0));
            assert_eq!(record.as_ref().map(again), expected, "{kind:?} {offset}");
            assert!(record.is_none_or(|record| record.offset == *offset));
        }
        assert!(raw.log.read_at(Partition(0), &[]).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn each_partition_has_bounds_of_its_own() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 3).await;
        raw.write(Partition(2), &numbers(0..5)).await;
        raw.write(Partition(0), &numbers(0..1)).await;
        assert_eq!(raw.log.partition_count(), 3);
        assert_eq!(raw.log.address(), &raw.address);
        for (partition, end) in [(0, 1), (1, 0), (2, 5)] {
            let bounds = raw.log.bounds(Partition(partition)).await.unwrap();
            let expected = Bounds {
                first: Offset(0),
                end: Offset(end),
            };
            assert_eq!(bounds, expected, "{kind:?}");
        }
    })
    .await;
}

/// Deletes the first records, as retention does.
pub(crate) async fn cut_head(raw: &RawLog, first: i64) {
    match &raw.address {
        LogAddress::Sqlite { path } => {
            let delete = format!("DELETE FROM record WHERE id < {first}");
            let delete = sqlx::AssertSqlSafe(delete);
            edit(path).await.execute(delete).await.unwrap();
        }
        LogAddress::Kafka { brokers, topic } => {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, 0, KafkaOffset::Offset(first))
                .unwrap();
            let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
            let deleted = admin(brokers)
                .delete_records(&list, &options)
                .await
                .unwrap();
            deleted.elements()[0].error().unwrap();
        }
    }
}

#[tokio::test]
async fn an_offset_that_is_not_kept_is_an_error_of_its_own() {
    each_kind(async |kind| {
        let raw = RawLog::holding(kind, &numbers(0..20)).await;
        let gone = async |log: &dyn EventLog, from| {
            let read = log.read(Partition(0), Offset(from)).await;
            match read {
                Err(LogError::OffsetGone { partition, offset }) => {
                    assert_eq!((partition, offset), (Partition(0), Offset(from)));
                    true
                }
                Err(error) => panic!("{kind:?}: {error}"),
                Ok(_) => false,
            }
        };
        assert!(
            gone(&*raw.log, 21).await && gone(&*raw.log, 1_000).await,
            "{kind:?}"
        );
        assert!(
            !gone(&*raw.log, 20).await && !gone(&*raw.log, 0).await,
            "{kind:?}"
        );
        let mut reader = raw.log.follow(&[(Partition(0), Offset(21))]).unwrap();
        assert!(
            reader.next(PATIENCE).await.is_err(),
            "{kind:?}: behind the end"
        );

        cut_head(&raw, 5).await;
        assert_eq!(raw.log.bounds(Partition(0)).await.unwrap().first, Offset(5));
        assert!(
            gone(&*raw.log, 0).await && gone(&*raw.log, 4).await,
            "{kind:?}"
        );
        let read = read_on(&*raw.log, Offset(5), Offset(20)).await;
        assert!(read.iter().map(again).eq(numbers(5..20)), "{kind:?}");
        let found = raw
            .log
            .read_at(Partition(0), &[Offset(4), Offset(5)])
            .await
            .unwrap();
        assert!(found[0].is_none() && found[1].is_some(), "{kind:?}");
        let mut reader = raw.log.follow(&[(Partition(0), Offset(4))]).unwrap();
        assert!(
            reader.next(PATIENCE).await.is_err(),
            "{kind:?}: before the first"
        );
    })
    .await;
}

#[tokio::test]
async fn there_is_no_log_where_none_was_made() {
    each_kind(async |kind| {
        let folder = tempfile::tempdir().unwrap();
        let address = logs::address(kind, &folder);
        let Err(error) = log::open(&address).await else {
            panic!("{kind:?}: opening made a log")
        };
        assert!(matches!(error, LogError::Missing(_)), "{kind:?}: {error}");
        let command = format!("annals log create --log {address}");
        assert!(error.to_string().contains(&command), "{error}");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    })
    .await;
}

#[tokio::test]
async fn many_read_while_one_writes_and_all_see_the_same() {
    const ALL: u64 = 3_000;
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 1).await;
        let session = raw.log.appender().await.unwrap().session().unwrap();
        let mut readers = Vec::new();
        for number in 0..6 {
            let log = if number % 2 == 0 {
                Arc::clone(&raw.log)
            } else {
                log::open(&raw.address).await.unwrap()
            };
            readers.push(tokio::spawn(async move {
                let (mut seen, mut from) = (Vec::new(), Offset(0));
                while seen.len() < ALL as usize {
                    let chunk = log.read(Partition(0), from).await.unwrap();
                    seen.extend(chunk.records.iter().map(again));
                    from = chunk.next;
                    tokio::task::yield_now().await;
                }
                seen
            }));
        }
        for first in (0..ALL).step_by(100) {
            append(&*session, Partition(0), &numbers(first..first + 100)).await;
        }
        for reader in readers {
            let seen = tokio::time::timeout(PATIENCE, reader)
                .await
                .unwrap()
                .unwrap();
            assert!(seen == numbers(0..ALL), "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_with_a_hole_is_read_around_it() {
    let raw = RawLog::holding(Kind::Sqlite, &numbers(0..10)).await;
    let LogAddress::Sqlite { path } = &raw.address else {
        unreachable!("it was made as a file")
    };
    let delete = "DELETE FROM record WHERE id IN (3, 4)";
    edit(path).await.execute(delete).await.unwrap();
    let read = read_on(&*raw.log, Offset(3), Offset(10)).await;
    assert!(read.iter().map(|record| record.offset.0).eq(5..10));
    assert_eq!(read_on(&*raw.log, Offset(0), Offset(10)).await.len(), 8);
}
