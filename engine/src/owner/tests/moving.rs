//! Partitions that change hands: standing by, being asked to hand over, being deposed.

use event_log::claim::Claim;

use super::failing_store::{Frail, forgetful};
use super::*;

/// A world whose owner was told that another node should own, and has read everything.
fn standing_by() -> World {
    let mut world = World::owning();
    let now = world.now();
    world.owner = owner(2);
    world.owner.want(false, now);
    world.owner.start(Offset(0));
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
    world
}

impl World {
    /// Another writer claims after everything that is in the log.
    pub(super) fn foreign_claim(&mut self) {
        self.foreign_claim_with("{}".into());
    }

    /// The same; the claim names its node and address.
    pub(super) fn foreign_claim_of(&mut self, node: &str, address: &str) {
        let claim = Claim {
            node: node.to_owned(),
            address: Some(address.to_owned()),
            idempotency_window_ms: 1_000_000,
            acknowledged: None,
            copied: None,
        };
        self.foreign_claim_with(claim.to_value());
    }

    fn foreign_claim_with(&mut self, value: bytes::Bytes) {
        let claim = ClaimHeaders {
            term: Term(self.owner.chain().term.0 + 1),
            writer: WriterId(Uuid::from_u128(99)),
            log: log_id(),
            version: RECORD_VERSION,
        };
        let offset = self.end();
        self.records.push(Record::at(offset, claim.record(value)));
    }

    fn want(&mut self, wanted: bool) {
        let now = self.now();
        self.owner.want(wanted, now);
        self.perform();
    }

    fn hand_over(&mut self) {
        let now = self.now();
        self.owner.hand_over(now);
        self.perform();
    }
}

#[test]
fn a_standby_reads_on_without_claiming_and_asks_the_owner_before_it_claims() {
    let mut world = standing_by();
    let claims = world.records.len();
    world.foreign_claim();
    world.pass(5_000);
    assert_eq!(world.owner.chain().term, Term(2), "it has read the claim");
    assert_eq!((world.records.len(), world.asked), (claims + 1, 1));
    world.want(true);
    assert_eq!(world.asked, 2, "it asked once more than its predecessor");
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.owner.chain().term, Term(3));
}

#[test]
fn a_standby_that_is_started_again_knows_who_owns() {
    let store = Frail::default();
    let mut world = World::owning_with(forgetful(1, &store));
    world.foreign_claim_of("there", "http://there");
    world.send("one", "a", 1);
    world.settle();
    world.owner.save();
    assert_eq!(world.owner.held_term(), None);
    let holder = world.owner.holder().cloned();
    assert_eq!(
        holder.as_ref().map(|hint| hint.node.as_str()),
        Some("there")
    );
    world.owner = forgetful(2, &store);
    let now = world.now();
    world.owner.want(false, now);
    world.owner.start(Offset(0));
    world.settle();
    assert_eq!(world.owner.holder(), holder.as_ref());
}

#[test]
fn an_owner_that_does_not_answer_is_deposed_all_the_same() {
    let mut world = standing_by();
    let now = world.now();
    world.owner.want(true, now);
    // Proofs and reads are performed; the request to hand over stays unanswered.
    world.deaf = true;
    world.perform();
    assert!(matches!(world.owner.phase(), Phase::Asking { .. }));
    world.pass(900);
    assert!(matches!(world.owner.phase(), Phase::Asking { .. }));
    world.pass(200);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
}

#[test]
fn whoever_lost_the_partition_in_the_group_goes_on_deciding_until_asked() {
    let mut world = World::owning();
    world.want(false);
    world.send("one", "a", 1);
    world.settle();
    assert_eq!(world.version("one"), 1);
    world.foreign_claim();
    world.send("two", "b", 1);
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
    assert_eq!(world.released.len(), 1, "the command is for the new owner");
    world.pass(60_000);
    world.settle();
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
}

#[test]
fn an_idle_owner_notices_that_another_has_claimed() {
    let mut world = World::owning();
    world.foreign_claim();
    world.pass(1_000);
    assert_eq!(world.owner.phase(), &Phase::Owning, "it has not looked yet");
    world.pass(1_500);
    assert_eq!(world.owner.held_term(), None);
}

/// A broker may answer a read with any part of what follows.
#[test]
fn nothing_is_decided_once_another_claim_was_read_however_much_is_still_to_be_read() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.send("two", "b", 1);
    world.foreign_claim();
    let (sequence, offset) = world.land();
    world.land();
    world.holds_reads = true;
    world.acknowledge(sequence, Some(offset));
    world.serve_read(1);
    // It would write in the other writer's name.
    assert!(!world.owner.takes_commands());
}

#[test]
fn what_is_found_while_looking_on_is_answered_and_handed_over() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    let now = world.now();
    world.owner.hand_over(now);
    // The record is in the log, but its acknowledgement never comes.
    world.land();
    world.pass(2_500);
    assert_eq!(world.version("one"), 1);
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
}

#[test]
fn a_hand_over_waits_until_everything_in_flight_is_answered() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.send("two", "b", 1);
    world.hand_over();
    assert!(!world.owner.takes_commands() && world.owner.is_letting_go());
    assert!(!world.owner.may_own_soon(), "commands are for another node");
    world.settle();
    assert_eq!((world.version("one"), world.version("two")), (1, 2));
    assert!(!world.owner.is_letting_go());
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
    assert!(world.released.is_empty());
}

#[test]
fn a_hand_over_in_doubt_finds_out_first() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.send("two", "b", 1);
    let (sequence, _) = world.land();
    let lost = world.appended.pop_front().unwrap();
    world.hand_over();
    let now = world.now();
    world.owner.append_failed(sequence, now);
    world.perform();
    assert!(world.owner.is_letting_go(), "the log has not spoken yet");
    world.settle();
    assert_eq!((world.version("one"), world.version("two")), (1, 2));
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Standby));
    let offset = world.end();
    world.records.push(Record::at(offset, lost.1));
    assert_eq!(world.accepted(), ["a", "b"]);
}

/// The owner is asked to hand over while something is in flight. Another node does not wait and
/// claims, and then the owner is wanted again. When it owns once more, the old request to let go is
/// void.
#[test]
fn who_was_deposed_before_it_let_go_keeps_what_it_takes_over_later() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.hand_over();
    world.foreign_claim();
    world.want(true);
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    world.pass(5_000);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert!(!world.owner.is_letting_go());
    assert_eq!(world.owner.not_owning(), None);
}

/// The group gave the partition to another node, which asked for it and is gone before it claimed.
/// Meanwhile the group gives the partition back.
#[test]
fn who_is_wanted_again_while_it_lets_go_takes_over_again() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.hand_over();
    world.want(true);
    world.settle();
    assert_eq!(world.version("one"), 1);
    assert!(!world.owner.is_letting_go(), "whoever asked may claim");
    assert!(world.owner.not_owning().is_some());
    world.pass(5_000);
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
}

#[test]
fn commands_of_a_deposed_owner_are_given_back_in_order() {
    let mut world = World::owning();
    for (ticket, id) in [("one", "a"), ("two", "b"), ("three", "c")] {
        world.send(ticket, id, 1);
    }
    world.foreign_claim();
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    let given_back: Vec<&str> = world
        .released
        .iter()
        .map(|(submission, _)| submission.request.id.as_str())
        .collect();
    assert_eq!(given_back, ["a", "b", "c"]);
    assert!(world.answers.is_empty(), "none of them has an outcome");
}

#[test]
fn nodes_that_struggle_for_a_partition_pause_longer_each_time() {
    let mut world = World::owning();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        world.foreign_claim();
        world.send("one", "a", 0);
        let (sequence, offset) = world.land();
        world.acknowledge(sequence, Some(offset));
        let Phase::BackingOff { until_ms, .. } = *world.owner.phase() else {
            panic!("{:?}", world.owner.phase());
        };
        pauses.push(until_ms - world.time_ms);
        world.released.clear();
        world.pass(until_ms - world.time_ms);
        world.settle();
        assert_eq!(world.owner.phase(), &Phase::Owning);
    }
    assert!(
        pauses.is_sorted() && pauses[3] >= 4 * pauses[0],
        "{pauses:?}"
    );
}
