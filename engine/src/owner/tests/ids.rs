//! Command ids: repeated, used again for another command, found again at a take-over, forgotten.

use super::*;

#[test]
fn an_id_is_forgotten_when_the_window_of_recorded_time_is_over() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.time_ms += crate::claim::IDEMPOTENCY_WINDOW_MS;
    world.send("within", "a", 1);
    assert!(world.answer("within").unwrap().as_ref().unwrap().repeated);
    world.send("tick", "b", 1);
    world.settle();
    world.send("after", "a", 1);
    world.settle();
    assert_eq!(world.version("after"), 3, "a new command");
}

#[test]
fn ids_and_states_are_rebuilt_from_the_log_at_a_take_over() {
    let mut world = World::owning();
    world.send("one", "a", 2);
    world.settle();
    world.owner = owner(2);
    world.answers.clear();
    world.owner.start(Offset(0));
    world.settle();
    world.send("again", "a", 2);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
    world.send("too many", "b", 2);
    world.settle();
    assert!(matches!(
        world.answer("too many").unwrap().as_ref().unwrap().decision,
        Decision::Rejected(_)
    ));
}

#[test]
fn the_same_id_waits_for_the_first_and_another_payload_is_refused() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.send("same", "a", 1);
    world.send("other", "a", 2);
    assert_eq!(world.answer("other"), Some(&Err(SubmitError::IdReused)));
    world.settle();
    assert_eq!((world.version("one"), world.version("same")), (1, 1));
    let same = world.answer("same").unwrap().as_ref().unwrap();
    assert!(same.repeated && !world.answer("one").unwrap().as_ref().unwrap().repeated);
    world.send("later", "a", 1);
    assert!(world.answer("later").unwrap().as_ref().unwrap().repeated);
    assert_eq!(world.accepted(), ["a"]);
}
