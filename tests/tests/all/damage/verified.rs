//! What an audit of the whole log finds.

use bytes::Bytes;
use event_log::chain::Orphan;
use event_log::checkpoint::Checkpoint;
use event_log::log::{EventLog, LogAddress};
use event_log::record::{NewRecord, RECORD_VERSION};
use event_log::verify::{HeldCheckpoint, Report, verify};
use position::{LogId, Offset, Partition};
use sqlx::Executor;
use tests::harness::logs::Kind;
use uuid::Uuid;

use super::{HISTORY, each_kind, history};
use crate::history::{Scribe, but, checkpoint_at};
use crate::raw_log::{RawLog, change_headers, edit, foreign};
use crate::write_side::shop;

async fn audit(log: &dyn EventLog, known: &[HeldCheckpoint]) -> Report {
    verify(log, &shop(), known, |_, _| {}).await.unwrap()
}

fn known(checkpoint: Checkpoint) -> HeldCheckpoint {
    HeldCheckpoint {
        source: "a projection".to_owned(),
        partition: Partition(0),
        checkpoint,
    }
}

/// Replaces some bytes of a value without a change of its length.
fn spoil(record: &mut NewRecord, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let value = String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap();
    assert!(value.contains(from), "{value}");
    record.value = Some(value.replacen(from, to, 1).into());
}

/// An edit of the history: its name, the edit, the offset at which the audit finds it, and the
/// message.
type Edit = (&'static str, fn(&mut Vec<NewRecord>), u64, &'static str);

const EDITS: [Edit; 18] = [
    (
        "another value that can be read",
        |r| spoil(&mut r[3], "\"schema\":1", "\"schema\":2"),
        4,
        "unlinked",
    ),
    (
        "a value that cannot be read",
        |r| spoil(&mut r[3], "{", "["),
        3,
        "unreadable",
    ),
    (
        "a value cut short",
        |r| {
            let value = r[3].value.as_mut().unwrap();
            value.truncate(value.len() - 1);
        },
        3,
        "unreadable",
    ),
    (
        "another key",
        |r| r[3].key = Some(Bytes::from_static(b"main/thing-x")),
        3,
        "unreadable",
    ),
    (
        "another previous hash",
        |r| change_headers(&mut r[3], |headers| headers[4].1 = Some(&[7; 32])),
        3,
        "unlinked",
    ),
    (
        "a later position",
        |r| {
            change_headers(&mut r[3], |headers| {
                headers[3].1 = Some(&[0, 0, 0, 0, 0, 0, 0, 9])
            })
        },
        3,
        "unlinked",
    ),
    (
        "a header that is not ours",
        |r| change_headers(&mut r[3], |headers| headers.push((b"more", None))),
        4,
        "unlinked",
    ),
    (
        "a claim by another node",
        |r| spoil(&mut r[6], "scribe", "Scribe"),
        7,
        "unlinked",
    ),
    (
        "a claim of a later term",
        |r| {
            change_headers(&mut r[6], |headers| {
                headers[1].1 = Some(&[0, 0, 0, 0, 0, 0, 0, 3])
            })
        },
        7,
        "", // The commits after it are late: their content is lost.
    ),
    ("a commit removed", |r| drop(r.remove(3)), 3, "unlinked"),
    (
        "the last commit before a claim removed",
        |r| drop(r.remove(5)),
        6,
        "unlinked",
    ),
    ("a claim removed", |r| drop(r.remove(6)), 6, "unclaimed"),
    ("two swapped", |r| r.swap(3, 4), 3, "unlinked"),
    (
        "a claim swapped with the commit before it",
        |r| r.swap(5, 6),
        7,
        "unlinked",
    ),
    (
        "an unlinked commit inserted",
        |r| {
            let inserted = Scribe::behind(&r[..3]).commit_of("thing-a", but::linked_elsewhere);
            r.insert(3, inserted);
        },
        3,
        "unlinked",
    ),
    (
        "a commit of no claim inserted",
        |r| {
            let inserted = Scribe::behind(&r[..3]).commit_of("thing-a", but::of_a_later_term);
            r.insert(3, inserted);
        },
        3,
        "unclaimed",
    ),
    (
        "a commit inserted that links to the one before",
        |r| {
            let inserted = Scribe::behind(&r[..3]).commit_of("thing-d", |_| {});
            r.insert(3, inserted);
        },
        5,
        "unlinked",
    ),
    (
        "a stream decided upon a version that it did not have",
        |r| {
            let mut scribe = Scribe::behind(r);
            let value = scribe.value("thing-a", 2);
            r.push(scribe.record_of("main/thing-a", value, |_| {}));
        },
        HISTORY,
        "version gap",
    ),
];

/// Whether the report has this place and this message. With an empty message, the orphans must show
/// what was lost.
fn found(report: &Report, offset: u64, what: &str) -> bool {
    let part = &report.partitions[0];
    if what.is_empty() {
        return !part.orphans.is_empty()
            && part.orphan_places.iter().any(|p| p.0 == Offset(offset));
    }
    let said = part.damage.as_deref().unwrap_or_default();
    let place = format!("partition 0 at offset {offset}");
    part.damage_offset == Some(Offset(offset)) && said.contains(what) && said.contains(&place)
}

#[tokio::test]
async fn every_edit_of_the_log_is_found_at_its_place() {
    each_kind(async |kind| {
        let clean = RawLog::holding(kind, history().records()).await;
        let report = audit(&*clean.log, &[]).await;
        assert!(report.is_clean(), "{report:?}");
        for (name, change, offset, what) in EDITS {
            let mut records = history().records().to_vec();
            change(&mut records);
            let raw = RawLog::holding(kind, &records).await;
            let report = audit(&*raw.log, &[]).await;
            let said = &report.partitions[0];
            assert!(found(&report, offset, what), "{kind:?}: {name}: {said:?}");
            assert_eq!(report.is_clean(), what.is_empty(), "{kind:?}: {name}");
        }
    })
    .await;
}

#[tokio::test]
async fn orphans_are_counted_with_their_places_and_are_no_damage() {
    each_kind(async |kind| {
        let mut scribe = history();
        let other_log = LogId(Uuid::from_u128(9));
        let orphans = [
            (foreign("junk"), Orphan::Foreign),
            (
                scribe.commit_of("thing-a", but::of_an_earlier_term),
                Orphan::Late,
            ),
            (
                scribe.commit_of("thing-a", but::of_another_writer),
                Orphan::Late,
            ),
            (scribe.records()[11].clone(), Orphan::Duplicate),
            (scribe.records()[1].clone(), Orphan::Late),
            (
                scribe.commit_of("thing-a", but::at_a_taken_position),
                Orphan::Duplicate,
            ),
            (scribe.records()[6].clone(), Orphan::Losing),
            (
                scribe.claim_of(1, other_log, RECORD_VERSION),
                Orphan::Losing,
            ),
            (
                scribe.claim_of(1_001, crate::history::log_id(), RECORD_VERSION),
                Orphan::Losing,
            ),
            (
                scribe.claim_of(1_001, crate::history::log_id(), 9),
                Orphan::Losing,
            ),
        ];
        let mut expected = Vec::new();
        for (number, (record, reason)) in (0..).zip(orphans) {
            expected.push((Offset(HISTORY + 2 * number), reason));
            scribe.add(record).commits(&["thing-a"]);
        }
        let raw = RawLog::holding(kind, scribe.records()).await;
        let report = audit(&*raw.log, &[]).await;
        assert!(report.is_clean(), "{report:?}");
        let part = &report.partitions[0];
        assert_eq!(part.orphan_places, expected, "{kind:?}");
        let counts = [
            Orphan::Late,
            Orphan::Losing,
            Orphan::Duplicate,
            Orphan::Foreign,
        ]
        .map(|reason| part.orphans.get(&reason).copied());
        assert_eq!(counts, [Some(3), Some(4), Some(2), Some(1)]);
        assert_eq!((part.claims, part.accepted, part.position.0), (2, 20, 22));
        assert_eq!((part.head, part.end_offset.0), (scribe.chain().head, 32));
    })
    .await;
}

/// A log that is written anew without a break in its chain, and the message.
type Rewriting = (&'static str, fn(&mut Vec<NewRecord>), &'static str);

#[tokio::test]
async fn what_the_chain_cannot_show_is_found_with_checkpoints_that_others_hold() {
    each_kind(async |kind| {
        let whole = history().records().to_vec();
        let last = whole.len() - 1;
        let edits: [Rewriting; 6] = [
            (
                "the last record changed",
                |r| spoil(&mut r[11], "\"schema\":1", "\"schema\":2"),
                "another record stands",
            ),
            (
                "the last record cut",
                |r| r.truncate(11),
                "gone; the log ends at offset 11",
            ),
            (
                "a tail cut",
                |r| r.truncate(7),
                "gone; the log ends at offset 7",
            ),
            (
                "cut, and written on by another",
                |r| {
                    let mut scribe = Scribe::behind(&r[..9]);
                    scribe.claim().commits(&["thing-a", "thing-b", "thing-c"]);
                    *r = scribe.records().to_vec();
                },
                "another record stands",
            ),
            (
                "all of it written anew",
                |r| {
                    let mut scribe = Scribe::new().otherwise();
                    scribe.claim().commits(&["thing-a"; 11]);
                    *r = scribe.records().to_vec();
                },
                "another record stands",
            ),
            (
                "everything but the last record written anew",
                |r| {
                    let mut scribe = Scribe::new().otherwise();
                    scribe.claim().commits(&["thing-a"; 10]);
                    scribe.add(r[11].clone());
                    *r = scribe.records().to_vec();
                },
                "what precedes this record was changed",
            ),
        ];
        for (name, change, what) in edits {
            // The last record that a reader knows may be an orphan.
            let mut records = whole.clone();
            if name.starts_with("everything") {
                records[last] = foreign("junk");
            }
            let held = known(checkpoint_at(&records, HISTORY - 1));
            let raw = RawLog::holding(kind, &records).await;
            let report = audit(&*raw.log, std::slice::from_ref(&held)).await;
            assert!(report.is_clean(), "{kind:?}: {name}: {report:?}");
            change(&mut records);
            let raw = RawLog::holding(kind, &records).await;
            assert!(audit(&*raw.log, &[]).await.is_clean(), "{kind:?}: {name}");
            let report = audit(&*raw.log, &[held]).await;
            assert!(!report.is_clean(), "{kind:?}: {name}");
            let [mismatch] = &report.mismatches[..] else {
                panic!("{kind:?}: {name}: {report:?}")
            };
            assert_eq!(mismatch.partition, Partition(0));
            assert_eq!(mismatch.offset, Offset(HISTORY - 1));
            assert_eq!(mismatch.source, "a projection");
            assert!(
                mismatch.reason.contains(what),
                "{name}: {}",
                mismatch.reason
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_after_damage_is_reported_as_not_reached() {
    let mut records = history().records().to_vec();
    let held = [2, HISTORY - 1].map(|offset| known(checkpoint_at(&records, offset)));
    records.remove(4);
    let raw = RawLog::holding(Kind::Sqlite, &records).await;
    let report = audit(&*raw.log, &held).await;
    assert_eq!(report.mismatches.len(), 1, "{report:?}");
    assert_eq!(report.mismatches[0].offset, Offset(HISTORY - 1));
    assert!(
        report.mismatches[0]
            .reason
            .contains("could not be read up to")
    );
}

#[tokio::test]
async fn a_partition_of_another_log_is_found() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 3).await;
        let other = LogId(Uuid::from_u128(4));
        for (number, log) in [crate::history::log_id(), other, crate::history::log_id()]
            .into_iter()
            .enumerate()
        {
            let partition = Partition(u32::try_from(number).unwrap());
            let mut scribe = Scribe::of(partition, log);
            scribe.claim().commits(&["thing-a"]);
            raw.write(partition, scribe.records()).await;
        }
        let report = audit(&*raw.log, &[]).await;
        let damaged: Vec<bool> = report
            .partitions
            .iter()
            .map(|p| p.damage.is_some())
            .collect();
        assert_eq!(damaged, [false, true, false], "{report:?}");
        let said = report.partitions[1].damage.as_deref().unwrap();
        assert!(said.contains(&other.to_string()), "{said}");
    })
    .await;
}

/// Edits of the file by someone with a SQLite shell, with the offset and the message.
const STATEMENTS: [(&str, u64, &str); 6] = [
    (
        "UPDATE record SET value = CAST(replace(CAST(value AS TEXT), '\"schema\":1', \
         '\"schema\":2') AS BLOB) WHERE partition = 0 AND \"offset\" = 3",
        4,
        "unlinked",
    ),
    (
        "UPDATE record SET headers = zeroblob(3) WHERE id = 3",
        4,
        "unlinked",
    ),
    ("DELETE FROM record WHERE id = 3", 4, "unlinked"),
    (
        "DELETE FROM record WHERE id = 3; \
         UPDATE record SET id = -id WHERE id > 3; UPDATE record SET id = -id - 1 WHERE id < 0",
        3,
        "unlinked",
    ),
    (
        "UPDATE record SET id = -id WHERE id >= 3; UPDATE record SET id = -id + 1 WHERE id < 0; \
         INSERT INTO record (id, key, value, headers, appended_at_ms) \
         SELECT 3, key, value, headers, appended_at_ms FROM record WHERE id = 9",
        3,
        "unclaimed",
    ),
    (
        "UPDATE record SET id = -1 WHERE id = 3; UPDATE record SET id = 3 WHERE id = 4; \
         UPDATE record SET id = 4 WHERE id = -1",
        3,
        "unlinked",
    ),
];

#[tokio::test]
async fn an_edit_with_a_shell_is_found_at_its_place() {
    for (statements, offset, what) in STATEMENTS {
        let raw = RawLog::holding(Kind::Sqlite, history().records()).await;
        let LogAddress::Sqlite { path } = &raw.address else {
            unreachable!("it was made as a file")
        };
        edit(path).await.execute(statements).await.unwrap();
        let report = audit(&*raw.log, &[]).await;
        assert!(
            found(&report, offset, what),
            "{statements}: {:?}",
            report.partitions[0]
        );
    }
}

#[tokio::test]
async fn events_that_the_program_cannot_read_are_listed_and_the_log_is_whole() {
    // The scribe's events do not have the fields of a customer's event.
    let mut scribe = Scribe::new();
    scribe.claim();
    scribe.commits(&["customer-a", "thing-b", "customer-a"]);
    let raw = RawLog::holding(Kind::Sqlite, scribe.records()).await;
    let report = verify(&*raw.log, &shop(), &[], |_, _| {}).await.unwrap();
    let part = &report.partitions[0];
    let offsets: Vec<Offset> = part.unreadable_places.iter().map(|place| place.0).collect();
    assert_eq!((part.records, offsets), (4, vec![Offset(1), Offset(3)]));
    assert_eq!(part.unreadable_events, 2);
    assert!(report.is_whole() && !report.is_clean(), "{part:?}");
    // Without the rules of its aggregate, an event is only text.
    assert!(audit_without_rules(&raw).await.is_clean());
}

async fn audit_without_rules(raw: &RawLog) -> Report {
    let none = kernel::registry::Registry::new();
    verify(&*raw.log, &none, &[], |_, _| {}).await.unwrap()
}
