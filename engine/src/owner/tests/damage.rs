//! Places in the log past which no owner goes: damage, and a log that was cut.

use event_log::chain::Acknowledged;
use event_log::log::LogError;
use event_log::record::Headers;

use super::failing_store::{Frail, forgetful};
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
    // The log lost the record and has another writer's in its place: the next append would get the
    // expected offset.
    let lost = world.records.pop().unwrap();
    let foreign = event_log::record::NewRecord {
        key: None,
        value: Some("of somebody else".into()),
        headers: Headers::default(),
    };
    world.records.push(Record::at(lost.offset, foreign));
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

/// A log that lost the record of "one" when its leader changed. Another record of the owner fills
/// the gap, and the owner's next claim stands right after what it had folded.
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
    // The owner does not go on from a place that the log never had, but folds again.
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
    let is_proof = |action: &&Action<_>| matches!(action, Action::Log(LogAction::Prove { offset }) if *offset == place);
    assert_eq!(asked.iter().filter(is_proof).count(), 1);
    // The log finds the record, and loses it before the answer arrives.
    let found = world.records.pop();
    let end = place.next();
    world.owner.read(Err(LogError::Closed), now);
    world.owner.hand_over(now);
    world.owner.proven(place, Ok((end, found)));
    world.perform();
    world.pass(2_500);
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

/// A world whose owner has read its own record and saved its state in `store`.
fn read_and_saved(store: &Frail) -> World {
    let mut world = World::owning_with(forgetful(1, store));
    world.pass(2_500);
    world.send("one", "a", 1);
    world.settle();
    world.pass(2_500);
    world.owner.save();
    assert!(store.saved_at().is_some());
    world
}

/// The phase of an owner that starts again with what `store` holds.
fn started_again(mut world: World, store: &Frail) -> Phase {
    let mut next = forgetful(2, store);
    next.start(Offset(0));
    world.owner = next;
    world.appended.clear();
    world.settle();
    world.owner.phase().clone()
}

#[test]
fn a_tail_that_was_changed_is_damage_to_its_owner_as_to_every_reader() {
    let store = Frail::default();
    let mut world = read_and_saved(&store);
    let last = world.records.last_mut().unwrap();
    let text = String::from_utf8(last.value.as_deref().unwrap().to_vec()).unwrap();
    last.value = Some(text.replace("\"amount\":1", "\"amount\":2").into());
    let place = last.offset;
    let phase = started_again(world, &store);
    assert!(
        matches!(&phase, Phase::Stopped(stop) if stop.place() == Some((Partition(0), place))),
        "{phase:?}"
    );
}

#[test]
fn a_folder_of_another_log_is_made_anew() {
    let store = Frail::default();
    let world = read_and_saved(&store);
    let mut other = owner_with(3, OwnerSettings::default());
    other.new_log = Some(LogId(Uuid::from_u128(78)));
    let other = World::owning_with(other);
    let world = World {
        records: other.records,
        ..world
    };
    assert_eq!(started_again(world, &store), Phase::Owning);
}

fn list(places: &[u64]) -> Acknowledged {
    let place = |offset: &u64| ((Partition(0), Offset(*offset)), "looked at".to_owned());
    places.iter().map(place).collect()
}

/// Appends a commit of this stream that counts but that nobody can read.
fn poison(world: &mut World, key: &'static str) -> Offset {
    let chain = world.owner.chain().clone();
    let headers = CommitHeaders {
        term: chain.term,
        writer: chain.writer,
        position: chain.position.next(),
        previous: chain.head,
    };
    let offset = world.end();
    let record = headers.record(key.into(), "{}".into());
    world.records.push(Record::at(offset, record));
    offset
}

#[test]
fn an_acknowledged_place_freezes_its_stream_alone_through_restarts_and_until_the_list_changes() {
    let store = Frail::default();
    let mut world = read_and_saved(&store);
    let place = poison(&mut world, "main/counter-1");
    let records = world.records.clone();
    for (round, ticket) in ["frozen", "still"].into_iter().enumerate() {
        let mut owner = forgetful(5 + round as u128, &store);
        owner.pass(list(&[place.0]));
        owner.start(Offset(0));
        world.owner = owner;
        world.settle();
        assert_eq!(world.owner.phase(), &Phase::Owning);
        world.send(ticket, ticket, 1);
        let Some(Err(SubmitError::Frozen(frozen))) = world.answer(ticket) else {
            panic!("{:?}", world.answer(ticket));
        };
        assert_eq!(frozen.offset, place);
        // An id that counted before still gets its answer.
        world.send("again", "a", 1);
        assert!(world.answer("again").unwrap().is_ok());
        world.answers.clear();
        world.pass(2_500);
        world.owner.save();
    }
    // Without the list, the place is damage again, whatever the store has kept.
    let mut owner = forgetful(9, &store);
    owner.start(Offset(0));
    let mut world = World {
        owner,
        records,
        ..world
    };
    world.settle();
    assert!(matches!(world.owner.phase(), Phase::Stopped(_)));
}

#[test]
fn who_acknowledges_other_places_than_those_that_own_does_not_own() {
    let world = World::owning();
    let mut second = owner(2);
    second.pass(list(&[7]));
    let mut world = World {
        owner: second,
        ..world
    };
    let now = world.now();
    // First nothing is known of other nodes; then the node that owns, whose list is empty.
    world.owner.set_lists(Lists::Unheard, now);
    world.owner.start(Offset(0));
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::OtherList));
    world.owner.set_lists(Lists::Of([None].into()), now);
    world.settle();
    world.pass(5_000);
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::OtherList));
    assert!(
        world.appended.is_empty() && world.records.len() == 1,
        "no claim"
    );
    // Once all other nodes have the same list or are gone, the owner takes over under its own list.
    world
        .owner
        .set_lists(Lists::Of([list(&[7]).digest()].into()), now);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    // A node that comes back with the old list must wait in turn.
    let mut world = World {
        owner: owner(3),
        ..world
    };
    world
        .owner
        .set_lists(Lists::Of([list(&[7]).digest(), None].into()), now);
    world.owner.start(Offset(0));
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::OtherList));
}
