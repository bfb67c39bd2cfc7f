//! An owner whose clock is wrong, whose machine slept, or whose log is ahead.

use super::*;
use crate::clock::Reference;
use crate::owner::NotOwning;

const DAY_MS: u64 = 86_400_000;

/// An owner that compares its clock with what the clock showed at the start.
fn owning() -> World {
    let mut world = World::owning();
    let now = world.now();
    world.owner.set_reference(Reference::at_start(now));
    world
}

fn is_off(world: &World) -> bool {
    matches!(world.owner.not_owning(), Some(NotOwning::Clock(_)))
}

#[test]
fn an_idle_owner_whose_clock_jumps_a_day_appends_nothing_and_forgets_no_id() {
    for days in [-1, 1] {
        let mut world = owning();
        world.send("first", "a", 1);
        world.settle();
        world.pass(2_000);
        let records = world.records.len();
        // Nobody has told the owner yet: no tick has passed.
        world.wall_ahead_ms = days * DAY_MS.cast_signed();
        world.send("during", "b", 1);
        assert!(world.appended.is_empty() && is_off(&world), "{days}");
        assert_eq!(world.released.len(), 1, "it is for whoever owns next");
        for _ in 0..100 {
            world.pass(1_000);
        }
        assert!(
            world.appended.is_empty() && is_off(&world),
            "nor does it claim"
        );
        assert_eq!(world.records.len(), records);
        world.wall_ahead_ms = 0;
        world.pass(50);
        world.settle();
        assert_eq!(world.owner.not_owning(), None, "{days}");
        world.send("again", "a", 1);
        world.settle();
        assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
        assert_eq!(world.version("during"), 2);
        assert_eq!(world.accepted(), ["a", "b"]);
    }
}

#[test]
fn what_was_in_flight_when_the_clock_jumped_is_answered_and_nothing_more_is_sent() {
    let mut world = owning();
    world.send("one", "a", 1);
    world.wall_ahead_ms = DAY_MS.cast_signed();
    world.pass(50);
    assert!(is_off(&world) && !world.owner.takes_commands());
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    assert_eq!(world.version("one"), 1);
    world.pass(60_000);
    assert!(world.appended.is_empty() && world.owner.is_drained());
}

#[test]
fn in_doubt_with_a_wrong_clock_it_waits_with_its_next_claim() {
    let mut world = owning();
    world.send("one", "a", 1);
    let (sequence, _) = world.appended.pop_front().unwrap();
    world.wall_ahead_ms = DAY_MS.cast_signed();
    let now = world.now();
    world.owner.append_failed(sequence, now);
    world.perform();
    for _ in 0..20 {
        world.pass(1_000);
    }
    assert!(world.appended.is_empty() && is_off(&world));
    world.wall_ahead_ms = 0;
    world.pass(3_000);
    world.pass(3_000);
    world.settle();
    world.pass(3_000);
    world.settle();
    assert_eq!(world.version("one"), 1);
    assert_eq!(world.accepted(), ["a"]);
}

#[test]
fn a_machine_that_slept_goes_on_at_once() {
    let mut world = owning();
    world.send("one", "a", 1);
    world.settle();
    world.slept_ms = 3 * DAY_MS;
    world.pass(50);
    assert_eq!(world.owner.not_owning(), None);
    world.send("two", "b", 1);
    world.settle();
    assert_eq!(world.version("two"), 2);
}

#[test]
fn who_differs_from_the_broker_that_it_writes_to_leaves_and_tries_again_ever_less_often() {
    let mut world = World::owning();
    let appended = |world: &World, offset| Appended {
        offset: Some(offset),
        appended_at_ms: Some(world.now().wall.micros() / 1_000 + 120_000),
    };
    world.send("one", "a", 1);
    let (sequence, offset) = world.land();
    let (result, now) = (appended(&world, offset), world.now());
    world.owner.acknowledged(sequence, result, now);
    world.perform();
    assert_eq!(world.version("one"), 1, "what the log has is answered");
    assert!(is_off(&world) && world.appended.is_empty());
    let mut claimed_at = Vec::new();
    while world.time_ms < 400_000 {
        world.pass(250);
        if !world.appended.is_empty() {
            claimed_at.push(world.time_ms);
            let (sequence, offset) = world.land();
            let (result, now) = (appended(&world, offset), world.now());
            world.owner.acknowledged(sequence, result, now);
            world.perform();
            assert!(is_off(&world));
        }
    }
    let pauses: Vec<u64> = claimed_at.windows(2).map(|two| two[1] - two[0]).collect();
    assert!((4..=8).contains(&claimed_at.len()), "{claimed_at:?}");
    assert!(
        pauses.is_sorted_by(|a, b| a < b || *a > 90_000),
        "{pauses:?}"
    );
}

/// An acknowledgement has no time, for example, if the client library sent the append twice.
#[test]
fn what_was_acknowledged_without_a_time_is_held_against_the_time_that_its_record_has() {
    for days in [-1, 1] {
        let mut world = World::starting_with(owner(1));
        // The owner began with a wrong clock, and nobody has told it the time.
        world.wall_ahead_ms = days * DAY_MS.cast_signed();
        let now = world.now();
        world.owner.set_reference(Reference::at_start(now));
        world.perform();
        let (claim, _) = world.land();
        world.acknowledge(claim, None);
        assert!(is_off(&world) && !world.owner.takes_commands(), "{days}");
        assert!(world.appended.is_empty());

        // The same if reading takes long after that.
        let mut world = World::starting_with(owner(1));
        world.wall_ahead_ms = days * DAY_MS.cast_signed();
        world.perform();
        let (claim, _) = world.land();
        let foreign = event_log::record::NewRecord {
            key: None,
            value: None,
            headers: event_log::record::Headers::default(),
        };
        world.records.push(Record::at(world.end(), foreign));
        world.holds_reads = true;
        world.acknowledge(claim, None);
        world.serve_read(1);
        world.pass(60_000);
        world.serve_read(usize::MAX);
        assert!(is_off(&world) && !world.owner.takes_commands(), "{days}");

        // The same with a commit instead of a claim.
        let mut world = World::owning();
        world.wall_ahead_ms = days * DAY_MS.cast_signed();
        world.send("one", "a", 1);
        let (commit, _) = world.land();
        world.acknowledge(commit, None);
        assert_eq!(world.version("one"), 1, "what the log has is answered");
        assert!(is_off(&world) && !world.owner.takes_commands(), "{days}");
    }
}

#[test]
fn a_log_that_is_ahead_of_a_right_clock_stops_nobody() {
    let mut world = owning();
    world.wall_ahead_ms = 50_000;
    world.send("ahead", "a", 1);
    world.settle();
    world.wall_ahead_ms = 0;
    world.pass(50);
    world.send("right", "b", 1);
    world.settle();
    assert_eq!(world.version("right"), 2);
    assert_eq!(world.owner.not_owning(), None);
}
