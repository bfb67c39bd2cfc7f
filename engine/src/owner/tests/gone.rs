//! An owner whose log is taken away or exchanged while it owns.

use event_log::chain::Stop;
use event_log::log::LogError;

use super::*;

/// The error of a log that has no record at the offset to be read.
fn nothing_there() -> LogError {
    LogError::OffsetGone {
        partition: Partition(0),
        offset: Offset(2),
    }
}

#[test]
fn an_idle_owner_whose_log_is_shorter_than_it_was_stops() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.records.truncate(1);
    world.holds_reads = true;
    world.pass(2_500);
    // The log reports that it has nothing at this offset, but not what else it has.
    let now = world.now();
    world.owner.read(Err(nothing_there()), now);
    world.perform();
    assert!(
        matches!(world.owner.phase(), Phase::Stopped(Stop::Damage(_))),
        "{:?}",
        world.owner.phase()
    );
}

#[test]
fn an_owner_that_is_told_so_of_a_log_that_is_whole_goes_on() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.holds_reads = true;
    world.pass(2_500);
    let now = world.now();
    world.owner.read(Err(nothing_there()), now);
    world.holds_reads = false;
    world.perform();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.send("two", "b", 1);
    world.settle();
    assert_eq!(world.version("two"), 2);
}

#[test]
fn an_owner_of_a_log_that_was_made_anew_stops_at_its_first_claim() {
    let mut owner = owner(1);
    owner.opened_log = Some(LogId(Uuid::from_u128(78)));
    let mut world = World::starting_with(owner);
    world.settle();
    assert!(
        matches!(world.owner.phase(), Phase::Stopped(Stop::Gone(_))),
        "{:?}",
        world.owner.phase()
    );
}
