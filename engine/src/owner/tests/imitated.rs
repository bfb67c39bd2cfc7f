//! Strangers who write an owner's headers over a value of their own, and get into the log first.

use event_log::record::NewRecord;

use super::*;

/// What a stranger makes of an append that it saw: the same key and headers over another value.
fn imitation(of: &NewRecord, own: &str, strange: &str) -> NewRecord {
    let value = String::from_utf8(of.value.as_ref().unwrap().to_vec()).unwrap();
    let strange = value.replace(own, strange);
    assert_ne!(strange, value);
    NewRecord {
        value: Some(strange.into()),
        ..of.clone()
    }
}

impl World {
    /// Puts another value into the log under the headers of the next append, before that append.
    fn imitate(&mut self, own: &str, strange: &str) {
        let (_, next) = self.appended.front().expect("something was appended");
        let record = imitation(next, own, strange);
        let offset = self.end();
        self.records.push(Record::at(offset, record));
    }
}

#[test]
fn a_record_with_the_owners_headers_and_another_value_is_not_its_own() {
    for is_acknowledged in [true, false] {
        let mut world = World::owning();
        world.send("one", "mine", 1);
        world.imitate(r#""id":"mine""#, r#""id":"other""#);
        let (sequence, offset) = world.land();
        if is_acknowledged {
            world.acknowledge(sequence, Some(offset));
        } else {
            let now = world.now();
            world.owner.append_failed(sequence, now);
        }
        world.settle();
        assert_eq!(world.version("one"), 2, "acknowledged: {is_acknowledged}");
        assert_eq!(world.accepted(), ["other", "mine"]);
    }
}

#[test]
fn nothing_is_sent_behind_a_record_that_counts_in_an_owners_name() {
    let mut world = World::owning();
    world.send("one", "mine", 1);
    world.imitate(r#""id":"mine""#, r#""id":"other""#);
    let now = world.now();
    // The owner reads on by itself, before any of its own appends was acknowledged.
    world.time_ms += 3_000;
    world.owner.tick(Now {
        monotonic_ms: world.time_ms,
        ..now
    });
    world.perform();
    assert!(!world.owner.takes_commands());
    world.settle();
    assert_eq!(world.accepted(), ["other", "mine"]);
}

#[test]
fn a_command_that_a_stranger_wrote_in_the_owners_name_is_answered_as_the_log_has_it() {
    let mut world = World::owning();
    world.send("one", "mine", 1);
    world.imitate(r#""data":{"amount":1}}]"#, r#""data":{"amount":2}}]"#);
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    world.settle();
    assert_eq!(world.accepted(), ["mine"]);
    let answer = world.answer("one").unwrap().as_ref().unwrap();
    assert!(
        answer.repeated,
        "it is the answer to what stands in the log"
    );
    world.send("two", "more", 2);
    world.settle();
    let answer = world.answer("two").unwrap().as_ref().unwrap();
    assert!(
        matches!(answer.decision, Decision::Rejected(_)),
        "2 + 2 > 3"
    );
}

#[test]
fn a_claim_with_the_owners_headers_and_another_value_is_not_its_own() {
    let mut world = World::owning();
    world.owner = owner(2);
    world.owner.start(Offset(0));
    world.perform();
    world.imitate(r#""node":"annals""#, r#""node":"stranger""#);
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Deposed));
    world.pass(1_000);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.owner.chain().term, Term(3));
}
