//! A running reader stops at damage, steps over orphans, and notices a cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::command::SubmitError;
use engine::{Engine, EngineOptions};
use event_log::chain::{Orphan, Stop};
use event_log::checkpoint::Checkpoint;
use event_log::damage::DamageKind;
use event_log::record::{NewRecord, RECORD_VERSION, Record};
use event_log::subscription::{Batch, Follower, ProofNeed, Subscription, SubscriptionError};
use position::{LogId, Offset, Partition};
use tests::harness::logs::{Kind, NewLog};
use uuid::Uuid;

use super::{HISTORY, PATIENCE, each_kind, history};
use crate::history::{Scribe, but, checkpoint_at, log_id};
use crate::raw_log::{RawLog, again, foreign, read_all};
use crate::write_side::{place as shop_place, request, shop, start};

const WAIT: Duration = Duration::from_millis(100);

/// Makes a record that follows a scribe's records.
type Made = fn(&mut Scribe) -> NewRecord;

/// A subscription of partition 0, with all batches that it has handed out.
struct Reader {
    subscription: Subscription,
    batches: Vec<Batch>,
}

impl Reader {
    fn new(raw: &RawLog, checkpoint: Option<Checkpoint>) -> Self {
        let from = vec![(Partition(0), checkpoint)];
        Self {
            subscription: Subscription::new(Arc::clone(&raw.log), from),
            batches: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<(), SubscriptionError> {
        self.batches.extend(self.subscription.next(WAIT).await?);
        Ok(())
    }

    /// Reads until the reader's place is the record at `offset`.
    async fn reach(&mut self, offset: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.place() != Some(offset) {
            assert!(
                Instant::now() < deadline,
                "the reader stays at {:?}",
                self.place()
            );
            self.next().await.unwrap();
        }
    }

    /// Reads until the subscription stops.
    async fn stop(&mut self) -> Stop {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next().await {
                Err(SubscriptionError::Stop(stop)) => return stop,
                Err(SubscriptionError::Log(_)) => tokio::time::sleep(WAIT).await,
                Ok(()) => {}
            }
            assert!(
                Instant::now() < deadline,
                "it goes on and on: {:?}",
                self.place()
            );
        }
    }

    fn place(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.after.offset.0)
    }

    fn commits(&self) -> Vec<u64> {
        let commits = self.batches.iter().flat_map(|batch| &batch.commits);
        commits.map(|placed| placed.record.offset.0).collect()
    }
}

#[track_caller]
fn assert_proof_failed(stop: &Stop, offset: u64, name: &str) {
    let Stop::Damage(damage) = stop else {
        panic!("{name}: {stop}")
    };
    let place = (damage.partition, damage.offset);
    assert_eq!(place, (Partition(0), Offset(offset)), "{name}: {damage}");
    assert!(
        matches!(damage.kind, DamageKind::ProofFailed(_)),
        "{name}: {damage}"
    );
}

#[tokio::test]
async fn a_reader_stops_at_damage_and_hands_out_nothing_behind_it_however_often_it_is_asked() {
    let damages: [(&str, Made); 7] = [
        ("unlinked", |s| {
            s.commit_of("thing-a", but::linked_elsewhere)
        }),
        ("unlinked", |s| {
            s.commit_of("thing-a", but::at_a_later_position)
        }),
        ("unclaimed", |s| {
            s.commit_of("thing-a", but::of_a_later_term)
        }),
        ("unreadable", |s| {
            s.record_of("main/thing-a", "nonsense".into(), |_| {})
        }),
        ("unreadable", |s| {
            let value = s.value("thing-b", 3);
            s.record_of("main/thing-a", value, |_| {})
        }),
        ("version gap", |s| {
            let value = s.value("thing-a", 3);
            s.record_of("main/thing-a", value, |_| {})
        }),
        ("record format 2", |s| {
            s.claim_of(1, log_id(), RECORD_VERSION + 1)
        }),
    ];
    each_kind(async |kind| {
        for (what, damage) in &damages {
            let mut scribe = history();
            let damage = damage(&mut scribe);
            scribe.add(damage).commits(&["thing-b", "thing-c"]);
            let raw = RawLog::holding(kind, &scribe.records()[..12]).await;
            // One reader is at the end when the damage comes, one starts in the middle, one at the
            // first record.
            let mut running = Reader::new(&raw, None);
            running.reach(HISTORY - 1).await;
            raw.write(Partition(0), &scribe.records()[12..]).await;
            let middle = Some(checkpoint_at(scribe.records(), 1));
            for mut reader in [running, Reader::new(&raw, middle), Reader::new(&raw, None)] {
                for _ in 0..3 {
                    let stop = reader.stop().await;
                    let said = stop.to_string();
                    assert!(said.contains(what), "{kind:?} {what}: {said}");
                    assert!(said.contains("partition 0"), "{said}");
                    assert!(said.contains(&format!("offset {HISTORY}")), "{said}");
                    assert!(reader.commits().iter().all(|offset| *offset < HISTORY));
                    assert!(reader.place().is_none_or(|offset| offset < HISTORY));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_steps_over_orphans_and_hands_out_every_commit_once() {
    each_kind(async |kind| {
        let mut scribe = history();
        let raw = RawLog::holding(kind, scribe.records()).await;
        let mut reader = Reader::new(&raw, None);
        reader.reach(HISTORY - 1).await;
        let orphans: [(Made, Orphan); 5] = [
            (
                |s| s.commit_of("thing-a", but::of_an_earlier_term),
                Orphan::Late,
            ),
            (
                |s| s.commit_of("thing-a", but::of_another_writer),
                Orphan::Late,
            ),
            (|s| s.records().last().unwrap().clone(), Orphan::Duplicate),
            (
                |s| s.claim_of(1, LogId(Uuid::from_u128(9)), RECORD_VERSION),
                Orphan::Losing,
            ),
            (|_| foreign("junk"), Orphan::Foreign),
        ];
        let mut accepted: Vec<u64> = (1..HISTORY).filter(|offset| *offset != 6).collect();
        for (orphan, reason) in orphans {
            // The orphan first comes alone, as the last record of a read, and then among commits.
            let before = scribe.records().len();
            scribe.commits(&["thing-b"]);
            accepted.push(before as u64);
            let orphan = orphan(&mut scribe);
            scribe.add(orphan.clone());
            raw.write(Partition(0), &scribe.records()[before..]).await;
            reader.reach(before as u64 + 1).await;
            scribe.add(orphan).commits(&["thing-a", "thing-c"]);
            accepted.extend([before as u64 + 3, before as u64 + 4]);
            raw.write(Partition(0), &scribe.records()[before + 2..])
                .await;
            reader.reach(before as u64 + 4).await;
            let mut counts = reader.batches.iter().map(|b| b.orphans.get(&reason));
            assert!(counts.any(|count| count.is_some()), "{kind:?} {reason:?}");
            // A reader that resumes at the orphan goes on as well.
            let at = checkpoint_at(scribe.records(), before as u64 + 1);
            let mut resumed = Reader::new(&raw, Some(at));
            resumed.reach(before as u64 + 4).await;
            assert_eq!(resumed.commits(), [before as u64 + 3, before as u64 + 4]);
        }
        assert_eq!(reader.commits(), accepted, "{kind:?}");
        let all = reader
            .batches
            .iter()
            .flat_map(|batch| batch.orphans.values());
        assert_eq!(all.sum::<u64>(), 10, "{kind:?}");
        let last = reader.batches.last().unwrap();
        assert_eq!(last.after.head, scribe.chain().head);
        assert_eq!(
            last.after,
            Reader::fresh(&raw).await,
            "from anywhere the same"
        );
    })
    .await;
}

impl Reader {
    /// The checkpoint of a reader that starts at the first record and reads to the end.
    async fn fresh(raw: &RawLog) -> Checkpoint {
        let mut reader = Self::new(raw, None);
        let end = raw.log.bounds(Partition(0)).await.unwrap().end;
        reader.reach(end.0 - 1).await;
        reader.batches.last().unwrap().after.clone()
    }
}

/// A log that differs from the one that was read up to [`HISTORY`].
type Cut = (&'static str, fn(&mut Scribe) -> Scribe);

fn cut(scribe: &Scribe, length: usize) -> Scribe {
    Scribe::behind(&scribe.records()[..length])
}

const CUTS: [Cut; 9] = [
    ("the last record", |s| cut(s, 11)),
    ("more than one record", |s| cut(s, 8)),
    ("everything", |_| Scribe::new()),
    ("the last record, and another came", |s| {
        let mut other = cut(s, 11);
        other.commits(&["thing-b"]);
        other
    }),
    (
        "with a claim, and it grew again under the claim before",
        |s| {
            let mut other = cut(s, 6);
            other.commits(&["thing-a"; 9]);
            other
        },
    ),
    ("and it grew again under a new claim", |s| {
        let mut other = cut(s, 8);
        other.claim().commits(&["thing-a"; 9]);
        other
    }),
    ("and it grew again, by records that count nowhere", |s| {
        let mut other = cut(s, 10);
        for _ in 0..9 {
            other.add(foreign("junk"));
        }
        other
    }),
    ("and late records came where the reader goes on", |s| {
        let mut other = cut(s, 10);
        let late = other.commit_of("thing-a", but::of_an_earlier_term);
        for _ in 0..9 {
            other.add(late.clone());
        }
        other
    }),
    ("and another log stands in its place", |_| {
        let mut other = Scribe::of(Partition(0), LogId(Uuid::from_u128(8))).otherwise();
        other.claim().commits(&["thing-a"; 14]);
        other
    }),
];

#[tokio::test]
async fn a_reader_that_resumes_finds_that_the_log_was_cut() {
    each_kind(async |kind| {
        for (name, change) in CUTS {
            let mut scribe = history();
            let checkpoint = checkpoint_at(scribe.records(), HISTORY - 1);
            let raw = RawLog::holding(kind, change(&mut scribe).records()).await;
            let mut reader = Reader::new(&raw, Some(checkpoint));
            let stop = reader.stop().await;
            assert_proof_failed(&stop, HISTORY - 1, &format!("{kind:?}: cut: {name}"));
            assert!(reader.batches.is_empty(), "{kind:?}: {name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_runs_finds_that_the_log_was_cut() {
    each_kind(async |kind| {
        for (name, change) in CUTS {
            let mut scribe = history();
            let raw = RawLog::holding(kind, scribe.records()).await;
            let mut reader = Reader::new(&raw, None);
            reader.reach(HISTORY - 1).await;
            let handed_out = reader.batches.len();
            raw.replace(change(&mut scribe).records()).await;
            if name.ends_with("and another came") {
                // If nothing follows the last read record, no broker reports the exchange; the next
                // record shows it.
                let mut other = change(&mut scribe);
                other.commits(&["thing-c"]);
                raw.replace(other.records()).await;
            }
            let stop = reader.stop().await;
            assert!(matches!(&stop, Stop::Damage(_)), "{kind:?}: {name}: {stop}");
            assert_eq!(reader.batches.len(), handed_out, "{kind:?}: {name}: {stop}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_is_found_where_the_last_record_read_was_an_orphan() {
    each_kind(async |kind| {
        let mut scribe = history();
        let orphans = [
            scribe.commit_of("thing-a", but::of_an_earlier_term),
            foreign("junk"),
            scribe.records()[6].clone(),
        ];
        for orphan in orphans {
            let mut read = history();
            read.add(orphan.clone());
            let checkpoint = checkpoint_at(read.records(), HISTORY);
            // The chain continues, but the last read record, an orphan, is no longer there.
            let mut written = history();
            written.commits(&["thing-a", "thing-b"]);
            let raw = RawLog::holding(kind, read.records()).await;
            let mut running = Reader::new(&raw, None);
            running.reach(HISTORY).await;
            raw.replace(written.records()).await;
            let stop = Reader::new(&raw, Some(checkpoint)).stop().await;
            assert_proof_failed(&stop, HISTORY, "resumed");
            let batches = running.batches.len();
            let stop = running.stop().await;
            assert!(matches!(stop, Stop::Damage(_)), "{kind:?}: {stop}");
            assert_eq!(running.batches.len(), batches, "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn foreign_records_delay_a_batch_by_about_a_second_and_not_by_the_callers_wait() {
    let mut scribe = history();
    let raw = RawLog::holding(Kind::Sqlite, scribe.records()).await;
    let mut reader = Reader::new(&raw, None);
    reader.reach(HISTORY - 1).await;
    let began = Instant::now();
    for round in 0..2 {
        scribe.commits(&["thing-a"]).add(foreign("junk"));
        let from = scribe.records().len() - 2;
        raw.write(Partition(0), &scribe.records()[from..]).await;
        // The first proof is made at once; a second one so soon must wait.
        let mut batches = Vec::new();
        while batches.is_empty() {
            batches = reader.subscription.next(PATIENCE).await.unwrap();
        }
        assert_eq!(batches[0].commits.len(), 1, "round {round}");
        assert!(batches[0].after.offset == Offset(HISTORY + 2 * round + 1));
    }
    assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_owner_stops_at_damage_says_so_and_decides_nothing() {
    each_kind(async |kind| {
        let mut scribe = history();
        let damage = scribe.commit_of("thing-a", but::linked_elsewhere);
        scribe.add(damage);
        let raw = RawLog::holding(kind, scribe.records()).await;
        let options = EngineOptions::alone(None);
        let engine = Engine::start(Arc::clone(&raw.log), shop(), options);
        let engine = engine.await.unwrap();
        let place = format!("damage in partition 0 at offset {HISTORY}");
        let deadline = Instant::now() + PATIENCE;
        while !engine.readiness().is_err_and(|why| why.contains(&place)) {
            assert!(Instant::now() < deadline, "{:?}", engine.readiness());
            tokio::time::sleep(WAIT).await;
        }
        let command = engine.prepare(request("order-1", "PlaceOrder", "a", &shop_place()));
        let answer = engine.submit(command.unwrap(), deadline).await;
        let Err(SubmitError::Damaged(damage)) = answer else {
            panic!("{kind:?}: {answer:?}")
        };
        assert_eq!(
            (damage.partition, damage.offset),
            (Partition(0), Offset(HISTORY))
        );
        engine.drain(PATIENCE).await;
        assert_eq!(
            read_all(&*raw.log, Partition(0)).await.len() as u64,
            HISTORY + 1
        );
    })
    .await;
}

#[tokio::test]
async fn an_owner_whose_log_was_cut_while_it_was_away_believes_the_log() {
    each_kind(async |kind| {
        let log = NewLog::make(kind, 1).await;
        let place = async |engine: &Engine, order: u32| {
            let stream = format!("order-{order}");
            let command = request(&stream, "PlaceOrder", "a", &shop_place());
            let command = engine.prepare(command).unwrap();
            let answer = engine
                .submit(command, Instant::now() + PATIENCE)
                .await
                .unwrap();
            (answer.version, answer.repeated)
        };
        let engine = start(&log).await;
        for order in 0..20 {
            assert_eq!(place(&engine, order).await, (1, false));
        }
        engine.drain(PATIENCE).await;
        drop(engine);
        let mut records: Vec<NewRecord> = read_all(&*log.log, Partition(0))
            .await
            .iter()
            .map(again)
            .collect();
        records.truncate(2 + 15);
        RawLog::of(&log).replace(&records).await;
        let log = NewLog {
            log: event_log::log::open(&log.address).await.unwrap(),
            ..log
        };
        let engine = start(&log).await;
        for order in 0..20 {
            // A commit that was cut is as if its command had never been sent.
            let answer = place(&engine, order).await;
            assert_eq!(answer, (1, order < 15), "{kind:?}: order {order}");
        }
        engine.drain(PATIENCE).await;
        let audit = event_log::verify::verify(&*log.log, &shop(), &[], |_, _| {})
            .await
            .unwrap();
        assert!(audit.is_clean(), "{kind:?}: {audit:?}");
    })
    .await;
}

#[test]
fn a_new_leader_an_error_and_an_orphan_each_require_a_proof() {
    let mut scribe = history();
    let late = scribe.commit_of("thing-a", but::of_an_earlier_term);
    scribe
        .commits(&["thing-a", "thing-b"])
        .add(late)
        .add(foreign("junk"));
    let record = |offset: u64, leader_epoch| Record {
        leader_epoch,
        ..Record::at(Offset(offset), scribe.records()[offset as usize].clone())
    };
    let last = record(HISTORY - 1, Some(4));
    let resumed = || {
        let checkpoint = Checkpoint {
            leader_epoch: Some(4),
            ..checkpoint_at(scribe.records(), HISTORY - 1)
        };
        let mut follower = Follower::new(Partition(0), Some(checkpoint));
        assert_eq!(follower.proof_need(), ProofNeed::Due);
        assert!(follower.batch().is_none());
        follower.prove(Offset(HISTORY + 4), Some(&last)).unwrap();
        assert_eq!(follower.proof_need(), ProofNeed::None);
        follower
    };
    let mut same = resumed();
    same.take(record(12, Some(4))).unwrap();
    assert_eq!(same.proof_need(), ProofNeed::None);
    assert_eq!(same.batch().unwrap().commits.len(), 1);

    for epoch in [Some(5), None] {
        let mut changed = resumed();
        changed.take(record(12, epoch)).unwrap();
        assert_eq!(changed.proof_need(), ProofNeed::Due);
        assert!(changed.batch().is_none());
        // Within one batch, too: the last record read under the old leader must still be there.
        let mut within = resumed();
        within.take(record(12, Some(4))).unwrap();
        within.take(record(13, epoch)).unwrap();
        assert!(within.batch().is_none());
        assert_eq!(within.places_to_prove(), [Offset(12)]);
        let read = record(12, Some(4));
        within.prove(Offset(HISTORY + 4), Some(&read)).unwrap();
        assert_eq!(within.batch().unwrap().commits.len(), 2);
    }

    // No checkpoint is durable yet, but records that were read may be gone all the same.
    let mut first = Follower::new(Partition(0), None);
    first.take(record(0, Some(4))).unwrap();
    assert_eq!(first.proof_need(), ProofNeed::None);
    first.take(record(1, Some(5))).unwrap();
    assert_eq!(first.places_to_prove(), [Offset(0)]);
    assert!(first.batch().is_none());
    first
        .prove(Offset(2), Some(&record(0, Some(5))))
        .unwrap_err();

    // A new topic counts its leaders from the start again. A later record of the same epoch proves
    // nothing about the record before the change.
    let mut anew = resumed();
    for offset in 12..=14 {
        let late = record(14, last.leader_epoch);
        let offset = Offset(offset);
        anew.take(Record { offset, ..late }).unwrap();
    }
    assert_eq!(anew.places_to_prove(), [Offset(HISTORY - 1), Offset(13)]);
    assert!(anew.batch().is_none());

    let mut interrupted = resumed();
    interrupted.interrupted();
    interrupted.take(record(12, Some(4))).unwrap();
    assert!(interrupted.batch().is_none());
    let other = record(HISTORY - 2, Some(4));
    let moved = Record {
        offset: Offset(HISTORY - 1),
        ..other.clone()
    };
    for (end, found) in [
        (HISTORY - 1, Some(&last)),
        (HISTORY, None),
        (HISTORY, Some(&other)),
        (HISTORY, Some(&moved)),
    ] {
        interrupted.prove(Offset(end), found).unwrap_err();
        assert!(interrupted.batch().is_none());
    }
    interrupted.prove(Offset(HISTORY), Some(&last)).unwrap();
    assert!(interrupted.batch().is_some());

    let mut orphans = resumed();
    orphans.take(record(12, Some(4))).unwrap();
    orphans.take(record(13, Some(4))).unwrap();
    orphans.take(record(15, Some(4))).unwrap();
    assert_eq!(orphans.proof_need(), ProofNeed::Foreign);
    let mut orphans = resumed();
    for offset in 12..16 {
        orphans.take(record(offset, Some(4))).unwrap();
    }
    assert_eq!(
        orphans.proof_need(),
        ProofNeed::Due,
        "a foreign one changes nothing"
    );
}
