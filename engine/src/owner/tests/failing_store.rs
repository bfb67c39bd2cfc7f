//! A local store that fails: if something cannot be read, nothing is decided on it, and nothing is
//! called damaged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::*;
use crate::owner::store::{SaveBatch, Saved, StateStore, StoreError, StoredId, StoredState};

#[derive(Default)]
struct Content {
    saved: Option<Saved>,
    states: HashMap<Bytes, StoredState>,
    ids: HashMap<Bytes, StoredId>,
}

/// A store whose disk can fail.
#[derive(Clone, Default)]
pub(crate) struct Frail {
    content: Arc<Mutex<Content>>,
    fails: Arc<Mutex<Fails>>,
    is_closed: Arc<AtomicBool>,
}

/// The operations that the disk refuses.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fails {
    #[default]
    Nothing,
    ReadingIds,
    ReadingStates,
    /// A full disk: the store can be opened and cleared, but takes nothing, and a failed write
    /// closes it.
    Saving,
    /// The store takes trial writes, but no save.
    OneRow,
    Everything,
}

impl Frail {
    fn content(&self) -> Result<MutexGuard<'_, Content>, StoreError> {
        match *self.fails.lock().unwrap() {
            Fails::Everything => Err(StoreError::Closed),
            Fails::Saving if self.is_closed.load(Ordering::SeqCst) => Err(StoreError::Closed),
            _ => Ok(self.content.lock().unwrap()),
        }
    }

    /// Fails with an error that does not pass, if `what` is to fail.
    fn refuse(&self, what: Fails) -> Result<(), StoreError> {
        if *self.fails.lock().unwrap() != what {
            return Ok(());
        }
        let spoiled = serde_json::from_str::<()>("spoiled").unwrap_err();
        Err(spoiled.into())
    }

    /// The place of the checkpoint.
    pub(crate) fn saved_at(&self) -> Option<Offset> {
        let content = self.content.lock().unwrap();
        content
            .saved
            .as_ref()
            .map(|saved| saved.place.checkpoint.offset)
    }

    /// How many streams are stored with the id with which they begin.
    pub(crate) fn firsts(&self) -> usize {
        let content = self.content.lock().unwrap();
        let states = content.states.values();
        states.filter(|state| state.first.is_some()).count()
    }

    pub(crate) fn fail(&self, fails: Fails) {
        *self.fails.lock().unwrap() = fails;
    }
}

impl StateStore for Frail {
    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        Ok(self.content()?.saved.clone())
    }

    fn state(&self, key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        self.refuse(Fails::ReadingStates)?;
        Ok(self.content()?.states.get(key).cloned())
    }

    fn id(&self, key: &[u8]) -> Result<Option<StoredId>, StoreError> {
        self.refuse(Fails::ReadingIds)?;
        Ok(self.content()?.ids.get(key).cloned())
    }

    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError> {
        self.refuse(Fails::OneRow)?;
        if *self.fails.lock().unwrap() == Fails::Saving {
            self.is_closed.store(true, Ordering::SeqCst);
        }
        let mut content = self.content()?;
        content.saved = Some(saved.clone());
        content.states.extend(batch.states.iter().cloned());
        let ids = batch.ids.iter();
        content
            .ids
            .extend(ids.map(|(key, id)| (key.clone(), id.clone())));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        // The store is opened again for this.
        self.is_closed.store(false, Ordering::SeqCst);
        *self.content()? = Content::default();
        Ok(())
    }

    fn try_out(&mut self, _: usize) -> Result<(), StoreError> {
        drop(self.content()?);
        match *self.fails.lock().unwrap() {
            Fails::Saving => Err(StoreError::Closed),
            _ => Ok(()),
        }
    }

    fn keeps(&self) -> bool {
        true
    }
}

/// An owner that keeps nothing in memory that the store has.
pub(crate) fn forgetful<T>(seed: u128, store: &Frail) -> Owner<T> {
    let settings = OwnerSettings {
        states_bytes_max: 0,
        save_every_commits: 1,
        ..OwnerSettings::default()
    };
    let mut owner = Owner::new(
        Partition(0),
        Registry::new().with::<Counter>(),
        settings,
        Box::new(store.clone()),
        Box::new(Counting(seed << 64)),
    );
    owner.new_log = Some(log_id());
    owner
}

/// An owner that has decided once and keeps the result only in `store`.
fn decided_once(store: &Frail) -> World {
    let mut world = World::owning_with(forgetful(1, store));
    // The owner sees its claim in the log.
    world.pass(2_500);
    world.send("one", "a", 2);
    world.settle();
    world.owner.save();
    world
}

/// Longer than an owner waits for a store.
fn wait_long(world: &mut World) {
    for _ in 0..100 {
        world.pass(250);
        world.settle();
    }
}

#[test]
fn a_store_that_fails_for_a_moment_is_gone_on_from_and_the_log_is_not_folded_anew() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    let saved = world.end();
    store.fail(Fails::Everything);
    world.send("waits", "x", 1);
    world.settle();
    world.pass(250);
    assert_eq!(world.owner.not_owning(), Some(NotOwning::StoreAway));
    assert_eq!(world.answer("waits"), None);
    world.pass(250);
    store.fail(Fails::Nothing);
    world.reads.clear();
    world.pass(250);
    world.pass(250);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    let first = world.reads.first().copied().unwrap();
    assert!(first >= saved, "{first} is before {saved}");
    world.send("again", "a", 2);
    let again = world.answer("again").unwrap().as_ref().unwrap();
    assert!(again.repeated);
}

#[test]
fn a_state_that_cannot_be_read_is_not_taken_for_a_new_stream() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    store.fail(Fails::ReadingStates);
    world.send("two", "b", 1);
    world.settle();
    wait_long(&mut world);
    // The owner has folded again what it could not read, and decides on that.
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.version("two"), world.version("one") + 1);
    assert_eq!(world.accepted(), ["a", "b"]);
}

#[test]
fn an_id_that_cannot_be_read_is_not_taken_for_a_new_command() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    store.fail(Fails::ReadingIds);
    world.send("again", "a", 2);
    world.settle();
    wait_long(&mut world);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
    world.send("once more", "a", 2);
    assert!(
        world
            .answer("once more")
            .unwrap()
            .as_ref()
            .unwrap()
            .repeated
    );
    assert_eq!(world.accepted(), ["a"]);
}

#[test]
fn what_the_store_kept_from_being_decided_is_decided_before_what_came_behind_it() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.send("before", "b", 1);
    store.fail(Fails::ReadingIds);
    world.send("first", "c", 0);
    // An error reply would let the next command run first, here or at another node.
    assert_eq!(world.answer("first"), None);
    assert!(!world.owner.takes_commands() && !world.owner.is_drained());
    store.fail(Fails::Nothing);
    wait_long(&mut world);
    world.send("second", "d", 0);
    world.settle();
    assert_eq!(world.accepted(), ["a", "b", "c", "d"]);
}

#[test]
fn what_is_still_being_read_when_an_owner_goes_back_is_not_taken_for_a_gap() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.send("two", "b", 1);
    world.settle();
    world.holds_reads = true;
    world.pass(2_500);
    let from = *world.reads.last().unwrap();
    assert_eq!(from, world.end(), "it looks on");
    world.send("three", "c", 0);
    let (sequence, offset) = world.land();
    store.fail(Fails::Everything);
    world.send("four", "d", 0);
    store.fail(Fails::Nothing);
    world.pass(250);
    world.pass(250);
    // By now, the owner has gone back to before "two". Now the chunk arrives that it requested from
    // an offset after "two".
    world.holds_reads = false;
    world.give(from, usize::MAX);
    world.perform();
    world.acknowledge(sequence, Some(offset));
    wait_long(&mut world);
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.accepted(), ["a", "b", "c", "d"]);
}

#[test]
fn what_waits_for_the_store_is_given_back_once_it_is_for_others() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    store.fail(Fails::Everything);
    world.send("first", "b", 1);
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::StoreAway));
    assert!(world.released.is_empty(), "it is to own again");
    let now = world.now();
    world.owner.hand_over(now);
    world.settle();
    assert_eq!(world.released.len(), 1);
    assert!(world.owner.is_drained() && !world.owner.may_own_soon());
}

#[test]
fn a_store_that_works_again_takes_everything_that_memory_kept() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    store.fail(Fails::Everything);
    world.send("two", "b", 1);
    world.settle();
    wait_long(&mut world);
    world.send("three", "c", 1);
    world.settle();
    world.owner.save();
    store.fail(Fails::Nothing);
    world.send("four", "d", 1);
    world.settle();
    world.owner.save();
    let firsts = store.firsts();
    let content = store.content.lock().unwrap();
    assert_eq!(firsts + content.ids.len(), world.accepted().len());
    let versions: Vec<u64> = content.states.values().map(|state| state.version).collect();
    assert_eq!(versions, [world.version("three")]);
}

#[test]
fn a_disk_that_stays_full_is_done_without() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    store.fail(Fails::Saving);
    for (ticket, id) in [("two", "b"), ("three", "c"), ("four", "d")] {
        world.send(ticket, id, 1);
        world.settle();
        world.owner.save();
        wait_long(&mut world);
    }
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.reads.clear();
    for (ticket, id) in [("five", "e"), ("six", "f")] {
        world.send(ticket, id, 1);
        world.settle();
        world.owner.save();
        wait_long(&mut world);
        assert!(world.answer(ticket).unwrap().is_ok(), "{ticket}");
    }
    // Nothing is folded again: memory holds everything.
    let first = world.reads.first().copied().unwrap_or(Offset(u64::MAX));
    assert!(first > Offset(3), "{first}");
    world.send("again", "a", 2);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
}

#[test]
fn what_neither_disk_nor_memory_has_room_for_is_given_up_until_the_disk_has() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.owner.settings.unsaved_bytes_max = 10_000;
    store.fail(Fails::Saving);
    let ids: Vec<String> = (0..100).map(|number| format!("full-{number}")).collect();
    for id in &ids {
        if world.owner.takes_commands() {
            world.send("more", id, 1);
            world.settle();
        }
        world.owner.save();
        wait_long(&mut world);
        assert!(world.owner.memory.unsaved_bytes() < 12_000);
    }
    let had_room = world.accepted().len();
    assert!((5..50).contains(&had_room), "{had_room}");
    assert_eq!(world.owner.not_owning(), Some(NotOwning::NoRoom));
    assert!(!world.owner.may_own_soon(), "commands are for others");
    assert_eq!(world.owner.memory.unsaved_bytes(), 0);

    store.fail(Fails::Nothing);
    wait_long(&mut world);
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.send("again", "full-0", 1);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
    world.send("new", "new", 1);
    world.settle();
    assert!(!world.answer("new").unwrap().as_ref().unwrap().repeated);
    assert_eq!(world.accepted().len(), had_room + 1);
}

#[test]
fn what_is_in_flight_is_answered_before_a_partition_is_given_up() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.owner.settings.unsaved_bytes_max = 0;
    store.fail(Fails::Saving);
    world.send("one more", "b", 1);
    world.settle();
    world.send("in flight", "c", 1);
    world.owner.save();
    assert!(!world.owner.takes_commands());
    assert_eq!(world.answer("in flight"), None, "the log has not said so");
    world.settle();
    assert!(world.answer("in flight").unwrap().is_ok());
    world.pass(1);
    assert_eq!(world.owner.not_owning(), Some(NotOwning::NoRoom));
}

#[test]
fn a_fold_that_cannot_read_the_store_starts_over_instead_of_crying_damage() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.send("two", "b", 1);
    // The record is in the log. Another owner takes over from the store, which fails when the
    // record is folded.
    world.settle();
    world.owner = forgetful(2, &store);
    world.owner.start(Offset(0));
    store.fail(Fails::Everything);
    world.settle();
    wait_long(&mut world);
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.send("again", "b", 1);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
}

#[test]
fn a_save_that_can_never_succeed_ends_in_a_state_that_says_so_and_stays() {
    let store = Frail::default();
    let mut world = decided_once(&store);
    world.owner.settings.unsaved_bytes_max = 1_000;
    store.fail(Fails::OneRow);
    let claims = |world: &World| world.owner.chain().term;
    for number in 0..200 {
        if world.owner.takes_commands() {
            world.send("more", &format!("refused-{number}"), 0);
            world.settle();
        }
        world.owner.save();
        wait_long(&mut world);
    }
    let reason = world.owner.not_owning();
    assert!(
        matches!(reason, Some(NotOwning::StoreRefuses(_))),
        "{reason:?}"
    );
    assert_eq!(world.owner.memory.unsaved_bytes(), 0);
    let (term, records) = (claims(&world), world.records.len());
    assert!(
        term <= Term(4),
        "it does not take over for ever: term {term}"
    );
    for _ in 0..100 {
        world.owner.save();
        wait_long(&mut world);
    }
    assert_eq!((claims(&world), world.records.len()), (term, records));
    assert_eq!(world.owner.not_owning(), reason);
}
