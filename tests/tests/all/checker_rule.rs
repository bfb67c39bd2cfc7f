//! Compares the checker's acceptance rule with the engine's: for any records, both give the same
//! verdicts and end in the same state.
//!
//! The two were written independently. The records are made from the checker's state, with headers
//! that are right, nearly right or wrong, so that every branch of the rule is reached often.

use std::collections::BTreeSet;

use bytes::Bytes;
use checker::dump::RawRecord;
use checker::rule;
use event_log::chain::{Chain, Orphan, Stop, Verdict};
use event_log::damage::DamageKind;
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt, SeedableRng};

const SEQUENCES: u64 = 400;
const RECORDS: u64 = 60;
/// Replays the sequence of this seed instead of new ones.
const SEED: &str = "ANNALS_TESTS_SEED";

/// The engine's verdict, in the checker's words.
fn engines_word(verdict: &Result<Verdict, Stop>) -> &'static str {
    match verdict {
        Ok(Verdict::Claim(..)) => "claim",
        Ok(Verdict::Commit(_)) => "commit",
        Ok(Verdict::Orphan(Orphan::Acknowledged)) => "acknowledged",
        Ok(Verdict::Orphan(orphan)) => orphan.as_str(),
        Err(Stop::NewerFormat { .. }) => "newer format",
        Err(Stop::NewerEvent { .. }) => unreachable!("the rule looks into no value"),
        Err(Stop::Gone(_)) => "gone",
        Err(Stop::Damage(damage)) => match damage.kind {
            DamageKind::Unlinked { .. } => "unlinked",
            DamageKind::Unclaimed => "unclaimed",
            _ => "other damage",
        },
    }
}

fn checkers_word(verdict: rule::Verdict) -> &'static str {
    match verdict {
        rule::Verdict::Claim(_) => "claim",
        rule::Verdict::Commit(_) => "commit",
        rule::Verdict::Orphan(orphan) => orphan.as_str(),
        rule::Verdict::NewerFormat(_) => "newer format",
    }
}

fn id(random: &mut StdRng) -> [u8; 16] {
    [random.random_range(1..4); 16]
}

/// Mostly the current value, sometimes a value near it, rarely a far one.
fn around(random: &mut StdRng, current: u64, weights: [u32; 3]) -> u64 {
    let all: u32 = weights.iter().sum();
    match random.random_range(0..all) {
        n if n < weights[0] => current,
        n if n < weights[0] + weights[1] => {
            let near = [current.wrapping_sub(1), current + 1, current + 2];
            *near.choose(random).unwrap()
        }
        _ => {
            let far = [
                0,
                1,
                current + 999,
                current + 1_000,
                current + 1_001,
                u64::MAX,
            ];
            *far.choose(random).unwrap()
        }
    }
}

fn header(name: &str, value: impl AsRef<[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    (name.as_bytes().to_vec(), Some(value.as_ref().to_vec()))
}

fn claim(random: &mut StdRng, fold: &rule::Fold) -> RawRecord {
    let term = around(random, fold.term + 1, [6, 3, 1]);
    let version: u16 = *[1, 1, 1, 1, 1, 1, 0, 2].choose(random).unwrap();
    let log = match fold.log {
        Some(log) if random.random_bool(0.9) => log,
        _ => id(random),
    };
    RawRecord {
        offset: 0,
        key: None,
        value: Some(format!("{{\"n\":{}}}", random.random_range(0..9)).into_bytes()),
        headers: vec![
            header("annals-kind", "claim"),
            header("annals-term", term.to_be_bytes()),
            header("annals-writer", id(random)),
            header("annals-log", log),
            header("annals-version", version.to_be_bytes()),
        ],
    }
}

fn commit(random: &mut StdRng, fold: &rule::Fold) -> RawRecord {
    let term = around(random, fold.term, [12, 2, 1]);
    let writer = match fold.writer {
        Some(writer) if random.random_bool(0.9) => writer,
        None if random.random_bool(0.5) => [0; 16],
        _ => id(random),
    };
    let position = around(random, fold.position + 1, [10, 2, 1]);
    let mut previous = fold.head;
    previous[31] ^= u8::from(random.random_bool(0.05));
    let text = |random: &mut StdRng| vec![b'x'; random.random_range(0..3)];
    RawRecord {
        offset: 0,
        key: Some(text(random)),
        value: Some(text(random)),
        headers: vec![
            header("annals-kind", "commit"),
            header("annals-term", term.to_be_bytes()),
            header("annals-writer", writer),
            header("annals-position", position.to_be_bytes()),
            header("annals-previous", previous),
        ],
    }
}

/// Spoils one detail of a record's form.
fn spoil(random: &mut StdRng, record: &mut RawRecord) {
    let at = random.random_range(0..record.headers.len());
    match random.random_range(0..10) {
        0 => record.headers.swap(at, (at + 1) % 5),
        1 => record.headers.push(header("more", "x")),
        2 => drop(record.headers.remove(at)),
        3 => record.headers[at].1 = None,
        4 => record.headers[at]
            .1
            .iter_mut()
            .for_each(|value| value.push(0)),
        5 => record.headers[at].0 = vec![0xff, 0xfe],
        6 => record.headers[at].0.make_ascii_uppercase(),
        7 => record.value = None,
        8 => {
            record.key = match record.key {
                Some(_) => None,
                None => Some(Vec::new()),
            }
        }
        _ => record.headers = vec![record.headers[at].clone(); 5],
    }
}

fn next(random: &mut StdRng, fold: &rule::Fold, before: &[RawRecord]) -> RawRecord {
    let mut record = match random.random_range(0..10) {
        0..2 => claim(random, fold),
        2..9 => commit(random, fold),
        _ => match before.choose(random) {
            Some(again) => again.clone(),
            None => RawRecord::default(),
        },
    };
    if random.random_bool(0.08) && record.headers.len() == 5 {
        spoil(random, &mut record);
    }
    record.offset = before.len() as u64;
    record
}

fn of_engine(record: &RawRecord) -> Record {
    let bytes = |bytes: &Vec<u8>| Bytes::from(bytes.clone());
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| (bytes(name), value.as_ref().map(bytes)));
    let new = NewRecord {
        key: record.key.as_ref().map(bytes),
        value: record.value.as_ref().map(bytes),
        headers: headers.collect(),
    };
    Record::at(Offset(record.offset), new)
}

/// Judges one sequence by both rules; returns the checker's verdicts, and whether the two ever
/// disagreed.
fn judge_twice(seed: u64, mut spoiled: impl FnMut(&mut RawRecord)) -> (Vec<&'static str>, bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let partition = random.random_range(0..3);
    let mut chain = Chain::genesis(Partition(partition));
    let mut fold = rule::Fold::new(partition);
    let (mut said, mut records) = (Vec::new(), Vec::new());
    for _ in 0..RECORDS {
        let record = next(&mut random, &fold, &records);
        let engines = engines_word(&chain.judge(&of_engine(&record)));
        let mut seen = record.clone();
        spoiled(&mut seen);
        let checkers = checkers_word(fold.take(&seen));
        records.push(record);
        said.push(checkers);
        let state = (
            chain.log.map(|log| *log.0.as_bytes()),
            chain.version,
            chain.term.0,
        );
        let same = engines == checkers
            && state == (fold.log, fold.version, fold.term)
            && (chain.head.0, chain.position.0) == (fold.head, fold.position)
            && fold.writer.unwrap_or_default() == *chain.writer.0.as_bytes();
        if !same {
            return (said, false);
        }
    }
    (said, true)
}

#[test]
fn checker_and_engine_give_the_same_verdict_on_any_records() {
    let seeds = match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first: u64 = rand::random();
            println!("seeds from {first}; one of them again: {SEED}=…");
            (0..SEQUENCES).map(|n| first.wrapping_add(n)).collect()
        }
    };
    let mut met = BTreeSet::new();
    for seed in &seeds {
        let (said, same) = judge_twice(*seed, |_| {});
        assert!(same, "seed {seed}: the two rules differ after {said:?}");
        met.extend(said);
    }
    if seeds.len() > 1 {
        let all = [
            "claim",
            "commit",
            "duplicate",
            "foreign",
            "late",
            "losing",
            "newer format",
            "unclaimed",
            "unlinked",
        ];
        assert_eq!(met.into_iter().collect::<Vec<_>>(), all);
    }
}

#[test]
fn a_rule_that_overlooks_a_byte_would_be_noticed() {
    for at in 0..5 {
        let noticed = (0..50).filter(|seed| {
            let change = |record: &mut RawRecord| {
                let value = record
                    .headers
                    .get_mut(at)
                    .and_then(|header| header.1.as_mut());
                if let Some(last) = value.and_then(|value| value.last_mut()) {
                    *last ^= 1;
                }
            };
            !judge_twice(*seed, change).1
        });
        assert!(noticed.count() > 40, "header {at}");
    }
}
