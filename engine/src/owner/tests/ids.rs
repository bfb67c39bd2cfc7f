//! Command ids: repeated, used again for another command, found again at a take-over, forgotten.

use event_log::commit::REFUSED_DATA_SIZE_MAX;
use serde_json::json;
use serde_json::value::RawValue;

use super::failing_store::{Frail, forgetful};
use super::*;

#[test]
fn an_id_is_forgotten_when_the_window_of_recorded_time_is_over() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.settle();
    world.time_ms += event_log::claim::IDEMPOTENCY_WINDOW_MS;
    world.send("within", "a", 1);
    assert!(world.answer("within").unwrap().as_ref().unwrap().repeated);
    world.send("tick", "b", 1);
    world.settle();
    world.send("after", "a", 1);
    world.settle();
    assert_eq!(world.version("after"), 3, "a new command");
}

/// Sends a command, and returns whether it is recognised as a repetition.
fn is_repeated(world: &mut World, ticket: &'static str, id: &str) -> bool {
    world.send(ticket, id, 1);
    world.settle();
    world.owner.save();
    world.answer(ticket).unwrap().as_ref().unwrap().repeated
}

fn is_known(world: &World, id: &str) -> bool {
    let submission = submission(id, 1, None);
    let inquiry = Inquiry {
        tenant: submission.request.tenant,
        stream: submission.request.stream,
        id: submission.request.id,
    };
    matches!(world.owner.inquire(&inquiry), Inquired::Known(_))
}

#[test]
fn the_id_that_a_stream_begins_with_is_recognised_as_long_as_any() {
    let store = Frail::default();
    let mut world = World::owning_with(forgetful(1, &store));
    // The owner sees its claim in the log. From now on, nothing that is saved stays in memory.
    world.pass(2_500);
    assert!(!is_repeated(&mut world, "a", "a") && !is_repeated(&mut world, "b", "b"));
    assert!(is_repeated(&mut world, "a again", "a") && is_repeated(&mut world, "b again", "b"));
    for seed in [2, 3] {
        world.owner = forgetful(seed, &store);
        world.owner.start(Offset(0));
        world.settle();
        assert!(is_known(&world, "a") && is_known(&world, "b") && !is_known(&world, "c"));
        world.answers.clear();
        assert!(is_repeated(&mut world, "a", "a") && is_repeated(&mut world, "b", "b"));
    }
    assert_eq!(world.accepted(), ["a", "b"]);

    world.time_ms += event_log::claim::IDEMPOTENCY_WINDOW_MS;
    assert!(!is_repeated(&mut world, "tick", "c"));
    // The stream was saved again, without the id.
    assert!(!is_known(&world, "a"));
    assert!(!is_repeated(&mut world, "a anew", "a") && is_repeated(&mut world, "a last", "a"));
    assert_eq!(world.accepted(), ["a", "b", "c", "a"]);
    assert_eq!(store.firsts(), 0, "what is too old is not kept for ever");
}

#[test]
fn an_id_that_a_stream_begins_with_and_that_came_anew_counts_as_the_newer() {
    let mut world = World::owning();
    world.send("a", "a", 1);
    world.settle();
    world.time_ms += event_log::claim::IDEMPOTENCY_WINDOW_MS;
    assert!(!is_repeated(&mut world, "tick", "c"));
    assert!(!is_repeated(&mut world, "a anew", "a"));
    let first = world.version("a anew");
    assert!(is_repeated(&mut world, "a last", "a"));
    assert_eq!(world.version("a last"), first);
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

/// A command whose data has this many bytes.
fn of_size(id: &str, amount: u32, bytes: usize, filled_with: char) -> Submission {
    let mut submission = submission(id, amount, None);
    let around = json!({"amount": amount, "note": ""}).to_string().len();
    let note: String = std::iter::repeat_n(filled_with, bytes - around).collect();
    let data = json!({"amount": amount, "note": note}).to_string();
    assert_eq!(data.len(), bytes);
    submission.command.data = RawValue::from_string(data).unwrap();
    submission
}

#[test]
fn after_a_take_over_data_of_any_size_is_recognised_kept_or_not() {
    for (amount, is_refused) in [(1, false), (9, true)] {
        for bytes in [100, REFUSED_DATA_SIZE_MAX, REFUSED_DATA_SIZE_MAX + 1] {
            let mut world = World::owning();
            let now = world.now();
            let first = of_size("a", amount, bytes, 'x');
            world.owner.command(first, "first", now);
            world.settle();
            let value = world.records.last().unwrap().value.clone().unwrap();
            let is_kept = value.len() > bytes;
            assert_eq!(is_kept, !is_refused || bytes <= REFUSED_DATA_SIZE_MAX);

            world.owner = owner(2);
            world.owner.start(Offset(0));
            world.settle();
            let again = of_size("a", amount, bytes, 'x');
            world.owner.command(again, "again", now);
            let other = of_size("a", amount, bytes, 'y');
            world.owner.command(other, "other", now);
            world.settle();
            let again = world.answer("again").unwrap().as_ref().unwrap();
            assert!(again.repeated, "{bytes} bytes");
            assert_eq!(matches!(again.decision, Decision::Rejected(_)), is_refused);
            assert_eq!(world.answer("other"), Some(&Err(SubmitError::IdReused)));
        }
    }
}
