//! What no owner goes past: damage, and a log that was cut.

use super::failing_store::{Frail, forgetful};
use super::*;
use crate::record::Headers;

#[test]
fn an_acknowledgement_at_an_offset_read_before_is_damage() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    let (sequence, _) = world.appended.pop_front().unwrap();
    world.acknowledge(sequence, Some(Offset(0)));
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
    assert_eq!(world.answer("one"), Some(&Err(SubmitError::Unknown)));
}

#[test]
fn a_truncated_log_is_damage_for_who_owned_it() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.foreign_claim();
    world.send("two", "b", 1);
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    world.records.truncate(1);
    world.pass(1_000);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

#[test]
fn the_position_of_an_unlinked_record_is_damage_for_every_reader() {
    let mut world = World::owning();
    let chain = world.owner.chain().clone();
    let unlinked = CommitHeaders {
        term: chain.term,
        writer: chain.writer,
        position: Position(9),
        previous: chain.head,
    };
    let offset = world.end();
    world.records.push(Record::at(
        offset,
        unlinked.record("main/x".into(), "{}".into()),
    ));
    world.send("one", "a", 1);
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

#[test]
fn an_owner_notices_that_another_record_took_the_place_of_its_last() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    // The log lost it, and somebody else's stands there: the next append would land where it should.
    let lost = world.records.pop().unwrap();
    let foreign = crate::record::NewRecord {
        key: None,
        value: Some("of somebody else".into()),
        headers: Headers::default(),
    };
    world.records.push(Record::at(lost.offset, foreign));
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

/// A log that lost the record of "one" when its leader changed, and has another of the owner's own in
/// its place before the owner's next claim lands right behind what it had folded.
fn with_a_gap_that_was_filled(owner: Owner<&'static str>) -> World {
    let mut world = World::owning_with(owner);
    world.pass(2_500);
    world.send("one", "a", 1);
    world.settle();
    world.send("two", "b", 1);
    let (now, sequence) = (world.now(), world.appended[0].0);
    world.owner.append_failed(sequence, now);
    world.perform();
    assert!(matches!(world.owner.phase(), Phase::Claiming { .. }));
    world.records.pop();
    world.leader_epoch = 1;
    let _ = world.land();
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world
}

#[test]
fn an_owner_notices_that_its_own_records_filled_the_gap_of_what_was_lost() {
    let mut world = with_a_gap_that_was_filled(owner(1));
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

#[test]
fn who_comes_back_notices_that_its_records_filled_a_gap_before() {
    let store = Frail::default();
    let mut world = with_a_gap_that_was_filled(forgetful(1, &store));
    world.owner.save();
    let mut next = forgetful(2, &store);
    next.start(Offset(0));
    world.owner = next;
    world.perform();
    // It does not go on from a place that the log never had, and folds again.
    assert_eq!(world.reads.last(), Some(&Offset(0)));
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

#[test]
fn what_was_acknowledged_by_two_leaders_is_read_again_and_counts() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.pass(2_500);
    let seen = world.end();
    world.send("two", "b", 1);
    world.settle();
    world.leader_epoch = 1;
    world.send("three", "c", 1);
    world.settle();
    world.reads.clear();
    world.pass(2_500);
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.reads, [world.end(), Offset(seen.0 - 1)]);
    world.reads.clear();
    world.pass(2_500);
    assert_eq!(world.reads, [world.end()], "once");
}

#[test]
fn a_proof_that_was_asked_for_before_a_suspicion_does_not_dispel_it() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.time_ms += 2_500;
    let now = world.now();
    world.owner.tick(now);
    world.give(world.end(), usize::MAX);
    let asked = world.owner.take_actions();
    let place = Offset(world.end().0 - 1);
    let is_proof =
        |action: &&Action<_>| matches!(action, Action::Prove { offset } if *offset == place);
    assert_eq!(asked.iter().filter(is_proof).count(), 1);
    // The log finds it, and loses it before the answer is there.
    let found = world.records.pop();
    let end = place.next();
    world.owner.read_failed();
    world.owner.hand_over(now);
    world.owner.proven(place, end, found.as_ref());
    world.perform();
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}
