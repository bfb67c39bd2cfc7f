//! The reader alone: chunks, proofs and failures come in any order.

use position::Partition;

use super::*;
use crate::record::Headers;

/// A record of nobody's that a leader served.
fn record(offset: u64, leader_epoch: i32) -> Record {
    Record {
        offset: Offset(offset),
        key: None,
        value: Some(format!("the one at {offset}").into()),
        headers: Headers::default(),
        leader_epoch: Some(leader_epoch),
        appended_at_ms: None,
    }
}

fn chunk(records: &[Record], at_end: bool) -> Chunk {
    let partition = Partition(0);
    let next = records.last().map_or(Offset(0), |last| last.offset.next());
    let records = records.to_vec();
    Chunk {
        partition,
        records,
        next,
        at_end,
    }
}

/// Folds what is handed out as its caller does, and says at which moment it was read.
fn fold(reader: &mut Reader<u8>, step: Step<u8>) -> (Option<Step<u8>>, u8) {
    let Step::Fold(chunk, moment) = step else {
        panic!("a chunk is folded");
    };
    let were_seen = reader.is_all_seen();
    for record in chunk.records {
        reader.last = Some(record);
    }
    reader.folded(chunk.at_end, were_seen);
    (reader.go_on(chunk.at_end), moment)
}

fn is_read(step: &Step<u8>, from: u64) -> bool {
    matches!(step, Step::Read(asked) if *asked == Offset(from))
}

fn is_proof(step: &Step<u8>, at: u64) -> bool {
    matches!(step, Step::Prove(asked) if *asked == Offset(at))
}

/// A reader that has read the records 0 and 1 of leader 3 to the log's end.
fn reader() -> Reader<u8> {
    let mut reader = Reader::new(Chain::genesis(Partition(0)));
    assert!(is_read(&reader.read_to(Goal::End), 0));
    let step = reader.read(chunk(&[record(0, 3), record(1, 3)], true), 1);
    assert!(fold(&mut reader, step).0.is_none(), "the goal is reached");
    assert_eq!((reader.reads, reader.end_was_read_by), (1, 1));
    assert!(reader.is_all_seen());
    reader
}

#[test]
fn a_chunk_of_another_leader_waits_for_a_proof_and_keeps_its_moment() {
    let mut reader = reader();
    assert!(is_read(&reader.read_to(Goal::Behind(Offset(2))), 2));
    assert!(is_proof(&reader.read(chunk(&[record(2, 4)], false), 7), 1));
    assert!(
        matches!(reader.read_to(Goal::End), Step::Wait),
        "one after the other"
    );
    let step = reader.proven(Offset(1), Offset(3), Some(&record(1, 3)));
    let (step, moment) = fold(&mut reader, step);
    assert_eq!(moment, 7);
    assert!(
        is_read(&step.unwrap(), 3),
        "the goal was set after that read"
    );
}

#[test]
fn a_log_that_is_too_short_or_has_another_record_is_disproven() {
    for (end, found) in [(1, None), (2, None), (2, Some(record(1, 4)))] {
        let mut reader = reader();
        assert!(is_proof(&reader.prove(), 1));
        let step = reader.proven(Offset(1), Offset(end), found.as_ref());
        assert!(matches!(step, Step::Disproven(_)));
    }
}

#[test]
fn an_offset_that_is_gone_is_read_again_only_after_a_proof() {
    let mut reader = reader();
    let _ = reader.read_to(Goal::End);
    assert!(is_proof(&reader.offset_gone(2), 1));
    let step = reader.proven(Offset(1), Offset(2), Some(&record(1, 3)));
    assert!(is_read(&fold(&mut reader, step).0.unwrap(), 2));
}

#[test]
fn an_answer_to_what_is_not_wanted_any_more_is_dropped() {
    let mut reader = reader();
    let _ = reader.read_to(Goal::End);
    assert!(is_proof(&reader.prove(), 1));
    assert!(matches!(reader.read(chunk(&[], true), 2), Step::Wait));
    // A proof that was asked for before another was wanted counts for nothing.
    assert!(matches!(reader.prove(), Step::Wait));
    let step = reader.proven(Offset(1), Offset(1), None);
    assert!(is_proof(&step, 1), "it is asked for again");
    let step = reader.proven(Offset(1), Offset(2), Some(&record(1, 3)));
    assert!(matches!(step, Step::Proven));
}

/// A reader that has folded record 2 from an acknowledgement and hears that it is of leader 4.
fn reading_again() -> Reader<u8> {
    let mut reader = reader();
    reader.last = Some(Record {
        leader_epoch: None,
        ..record(2, 4)
    });
    assert!(!reader.is_all_seen());
    assert!(is_proof(&reader.prove(), 2));
    let step = reader.proven(Offset(2), Offset(3), Some(&record(2, 4)));
    assert!(is_read(&step, 1), "from the last record that was seen");
    reader
}

#[test]
fn records_across_a_change_of_leader_are_read_again_however_they_come() {
    let mut reader = reading_again();
    assert!(is_read(&reader.read_failed(), 1));
    assert!(is_read(&reader.read(chunk(&[record(1, 3)], false), 2), 2));
    assert!(is_read(&reader.read_failed(), 2), "not from the beginning");
    let step = reader.read(chunk(&[record(2, 4)], true), 3);
    assert!(matches!(step, Step::Proven));
    assert!(reader.is_all_seen());
    assert_eq!(reader.reads, 1, "reads for a proof do not count");
}

#[test]
fn a_second_reading_that_ends_early_is_proven_again() {
    let mut reader = reading_again();
    let step = reader.read(chunk(&[record(1, 3)], true), 2);
    assert!(is_proof(&step, 2));
}

#[test]
fn a_second_reading_that_misses_a_record_is_disproven() {
    let mut reader = reading_again();
    let step = reader.read(chunk(&[record(1, 3), record(3, 4)], true), 2);
    assert!(matches!(step, Step::Disproven(_)));
}
