//! What no owner goes past: damage, and a log that was cut.

use super::*;

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
        headers: Vec::new(),
    };
    world.records.push(Record::at(lost.offset, foreign));
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}
