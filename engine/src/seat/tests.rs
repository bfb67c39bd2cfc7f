//! Tests of a seat without any I/O: the order that it keeps while a partition moves.

use std::collections::VecDeque;

use event_log::claim::Claim;
use event_log::log::{Appended, Chunk, LogError};
use event_log::record::{ClaimHeaders, NewRecord, RECORD_VERSION, Record};
use kernel::Timestamp;
use position::WriterId;
use uuid::Uuid;

use super::*;
use crate::command::TurnedAway;
use crate::owner::tests::failing_store::{Fails, Frail, forgetful};
use crate::owner::tests::{owner_with, submission};
use crate::owner::{LogAction, OwnerSettings};
use crate::peers::LinkEvent;

const HERE: &str = "http://here";
const THERE: &str = "http://there";

/// A client that waits for ever.
#[derive(Debug, Default)]
struct Patient(Waiter);

impl Client for Patient {
    fn waiter(&self) -> &Waiter {
        &self.0
    }
}

/// Another node that waits for ever.
#[derive(Debug, Default)]
struct PatientPeer(Waiter);

impl Peer for PatientPeer {
    fn waiter(&self) -> &Waiter {
        &self.0
    }

    fn is_late(&self) -> bool {
        false
    }
}

fn log_id() -> LogId {
    LogId(Uuid::from_u128(77))
}

fn there(term: u64) -> Hint {
    Hint {
        log: log_id(),
        term: Term(term),
        node: "there".to_owned(),
        address: THERE.to_owned(),
    }
}

/// A seat on a log in memory; appends land when a test says so.
struct World {
    seat: Seat<Patient, PatientPeer>,
    records: Vec<Record>,
    appended: VecDeque<(u64, NewRecord)>,
    /// Ids of commands in the order in which they were sent over a link.
    forwarded: Vec<String>,
    links: Vec<LinkId>,
    answers: Vec<Reply>,
    answered_peers: usize,
    /// Whether reads stay unanswered.
    holds_reads: bool,
    /// How often this node announced that it owns.
    said: usize,
    time_ms: u64,
}

impl World {
    /// A node on an empty log.
    fn not_started(settings: OwnerSettings) -> Self {
        Self::not_started_with(owner_with(1, settings))
    }

    fn not_started_with(owner: Owner<Ticket<Patient, PatientPeer>>) -> Self {
        let identity = Identity {
            node: "here".to_owned(),
            address: Some(HERE.to_owned()),
            log: log_id(),
        };
        Self {
            seat: Seat::new(owner, identity),
            records: Vec::new(),
            appended: VecDeque::new(),
            forwarded: Vec::new(),
            links: Vec::new(),
            answers: Vec::new(),
            answered_peers: 0,
            holds_reads: false,
            said: 0,
            time_ms: 1_000,
        }
    }

    /// A node that owns, with at most `in_flight_max` records in flight.
    fn owning(in_flight_max: usize) -> Self {
        let world = Self::not_started(OwnerSettings {
            in_flight_max,
            address: Some(HERE.to_owned()),
            ..OwnerSettings::default()
        });
        world.started()
    }

    fn started(self) -> Self {
        let mut world = self;
        world.seat.start(Offset(0), true, world.now());
        world.perform();
        world.land();
        assert_eq!(world.seat.not_owning(), None);
        world
    }

    /// A node that still owns although another node should, and that reads all it knows from
    /// `store`.
    fn owning_until_asked(store: &Frail) -> Self {
        let mut world = Self::not_started_with(forgetful(1, store)).started();
        world.command("known");
        world.land();
        world.seat.owner.save();
        let now = world.now();
        world.seat.assign(false, now);
        world.seat.expect(there(2), now);
        world.perform();
        world
    }

    /// A node that should not own and has no standby; in its log, `THERE` owns in this term.
    fn elsewhere(term: u64) -> Self {
        let mut world = Self::not_started(OwnerSettings {
            standby_read_every_ms: None,
            ..OwnerSettings::default()
        });
        for term in 1..=term {
            let headers = ClaimHeaders {
                term: Term(term),
                writer: WriterId(Uuid::from_u128(term.into())),
                log: log_id(),
                version: RECORD_VERSION,
            };
            let claim = Claim {
                node: "there".to_owned(),
                address: Some(THERE.to_owned()),
                idempotency_window_ms: 1_000,
                acknowledged: None,
                copied: None,
            };
            let offset = world.end();
            let record = Record::at(offset, headers.record(claim.to_value()));
            world.records.push(record);
        }
        world.seat.start(Offset(0), false, world.now());
        world.perform();
        world
    }

    /// The same node, but its standby has read everything.
    fn standing_by(self) -> Self {
        let mut world = self;
        world.seat.owner.look();
        world.perform();
        world
    }

    /// Serves the read that is under way.
    fn read_again(&mut self) {
        let now = self.now();
        self.seat.owner.read(Err(LogError::Closed), now);
        self.seat.tick(now);
        self.perform();
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.time_ms += 50;
            let now = self.now();
            self.seat.tick(now);
            self.perform();
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::from_micros(1_000 * self.time_ms.cast_signed()).unwrap(),
            monotonic_ms: self.time_ms,
            boottime_ms: self.time_ms,
        }
    }

    fn end(&self) -> Offset {
        Offset(self.records.len() as u64)
    }

    fn perform(&mut self) {
        loop {
            let now = self.now();
            let actions = self.seat.take_actions(now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    SeatAction::Log(LogAction::Append {
                        sequence, record, ..
                    }) => self.appended.push_back((sequence, record)),
                    SeatAction::Log(LogAction::Read { .. }) if self.holds_reads => {}
                    SeatAction::Log(LogAction::Read { from }) => {
                        let records = self.records.iter().filter(|r| r.offset >= from);
                        let chunk = Chunk {
                            partition: Partition(0),
                            records: records.cloned().collect(),
                            next: self.end(),
                            at_end: true,
                        };
                        self.seat.owner.read(Ok(chunk), now);
                    }
                    SeatAction::Log(LogAction::Prove { offset }) => {
                        let found = self.records.iter().find(|r| r.offset == offset);
                        let found = (self.end(), found.cloned());
                        self.seat.owner.proven(offset, Ok(found));
                    }
                    SeatAction::Log(LogAction::Peek) => {
                        self.seat.owner.peeked(Some(self.end()), now)
                    }
                    SeatAction::Answer(_, answer) => self.answers.push(answer),
                    SeatAction::AskOwner { .. } => self.seat.owner.owner_answered(now),
                    SeatAction::Open(link, _) => self.links.push(link),
                    SeatAction::Send(_, sequence) => {
                        let command = self.seat.sent(sequence).expect("it was just sent");
                        let id = command.submission.request.id.as_str();
                        self.forwarded.push(id.to_owned());
                    }
                    SeatAction::AnswerPeer(..) => self.answered_peers += 1,
                    SeatAction::SayOwner(_) => self.said += 1,
                    SeatAction::Close(_) | SeatAction::LetGo | SeatAction::TookOver => {}
                }
            }
        }
    }

    fn peer_command(&mut self, id: &str) {
        self.seat
            .forwarded(submission(id, 1, None), PatientPeer::default());
        self.perform();
    }

    fn command(&mut self, id: &str) {
        self.seat
            .command(submission(id, 1, None), Patient::default());
        self.perform();
    }

    /// Appends the oldest record, and acknowledges it.
    fn land(&mut self) {
        let (sequence, record) = self.appended.pop_front().expect("something was appended");
        let offset = self.end();
        self.records.push(Record::at(offset, record));
        let appended = Appended {
            offset: Some(offset),
            appended_at_ms: None,
        };
        let now = self.now();
        self.seat.owner.acknowledged(sequence, appended, now);
        self.perform();
    }

    /// Answers a command as the owner elsewhere would.
    fn answer_link(&mut self, sequence: u64, error: SubmitError) {
        let link = *self.links.last().expect("a link was opened");
        let answer = LinkAnswer::Answered(Err(error));
        let now = self.now();
        self.seat
            .link_event(link, LinkEvent::Answer(sequence, answer), now);
        self.perform();
    }

    /// Takes the hint that the node at this address owns in this term.
    fn learn(&mut self, address: &str, term: u64) {
        let hint = Hint {
            log: log_id(),
            term: Term(term),
            node: address.to_owned(),
            address: address.to_owned(),
        };
        let now = self.now();
        self.seat.learn(hint, now);
        self.perform();
    }

    fn target(&self) -> Option<&str> {
        self.seat.target().map(|hint| hint.address.as_str())
    }

    fn hand_over(&mut self) {
        let now = self.now();
        assert!(self.seat.hand_over(there(2), now));
        self.perform();
    }
}

#[test]
fn what_waits_is_not_forwarded_before_what_is_in_flight_is_settled() {
    let mut world = World::owning(1);
    world.command("first");
    world.command("second");
    // The first is in flight. Should it become an orphan, it goes to the new owner too; the second
    // must not arrive there before it.
    world.hand_over();
    assert_eq!(world.forwarded, [""; 0]);
    world.land();
    assert_eq!(
        (world.answers.len(), world.forwarded.as_slice()),
        (1, ["second".to_owned()].as_slice())
    );
}

#[test]
fn what_the_owner_gives_back_goes_before_what_comes_behind_it() {
    let store = Frail::default();
    let mut world = World::owning_until_asked(&store);
    store.fail(Fails::Everything);
    for id in ["first", "second", "third"] {
        world
            .seat
            .command(submission(id, 0, None), Patient::default());
    }
    world.perform();
    world.pass(500);
    assert_eq!(world.forwarded, ["first", "second", "third"]);
    assert_eq!(world.answers.len(), 1, "none but what was known");
}

#[test]
fn where_there_is_room_for_one_only_own_clients_and_other_nodes_have_it_by_turns() {
    let mut world = World::owning(1);
    for number in 0..4 {
        world.peer_command(&format!("forwarded-{number}"));
        world.command(&format!("own-{number}"));
    }
    for _ in 0..4 {
        world.land();
    }
    let answered = world.answers.len();
    assert_eq!((answered, world.answered_peers), (2, 2));
}

#[test]
fn while_a_node_reads_before_it_takes_over_whoever_owns_decides_on() {
    let mut world = World::elsewhere(1);
    world.command("first");
    world.pass(500);
    world.answer_link(1, SubmitError::Failed);
    world.holds_reads = true;
    let now = world.now();
    world.seat.assign(true, now);
    world.perform();
    world.command("second");
    assert_eq!(world.forwarded, ["first", "second"]);
    assert_eq!(world.answers.len(), 1);
    // A node that does not answer may be gone: commands do not wait for it.
    world.pass(300);
    world.command("third");
    assert_eq!(world.forwarded, ["first", "second"]);
}

#[test]
fn what_was_sent_once_and_never_answered_is_never_said_not_to_have_been_attempted() {
    let not_attempted = || turned_away(TurnedAway::Stopping);
    let mut world = World::elsewhere(1);
    world.command("answered");
    world.pass(500);
    world.answer_link(1, not_attempted());
    world.command("lost");
    let (link, now) = (*world.links.last().unwrap(), world.now());
    world
        .seat
        .link_event(link, LinkEvent::Broken("cut".into()), now);
    world.pass(500);
    assert_eq!(world.forwarded, ["answered", "lost", "lost"]);
    world.answer_link(3, not_attempted());
    let answers = [Err(not_attempted()), Err(SubmitError::Unknown)];
    assert_eq!(world.answers, answers);
}

#[test]
fn a_node_that_heard_of_no_owner_finds_it_in_the_log_once_commands_wait() {
    let mut world = World::elsewhere(1);
    world.pass(5_000);
    assert_eq!(world.seat.target(), None, "nobody asked: nothing is read");
    world.command("first");
    world.pass(500);
    assert_eq!(world.forwarded, ["first"]);
}

#[test]
fn a_node_whose_owner_is_gone_finds_the_next_one_in_the_log() {
    let mut world = World::elsewhere(2);
    world.learn("http://gone", 1);
    world.command("first");
    for _ in 0..20 {
        let now = world.now();
        if world
            .seat
            .target()
            .is_some_and(|hint| hint.address == THERE)
        {
            break;
        }
        let link = *world.links.last().expect("it tries");
        world
            .seat
            .link_event(link, LinkEvent::Broken("gone".into()), now);
        world.pass(100);
    }
    let target = world.seat.target().map(|hint| hint.address.as_str());
    assert_eq!(target, Some(THERE));
}

#[test]
fn a_hint_above_the_logs_term_is_held_against_its_end_and_dropped() {
    for mut world in [World::elsewhere(2), World::elsewhere(2).standing_by()] {
        world.holds_reads = true;
        world.learn("http://liar", u64::MAX);
        assert_eq!(world.target(), Some("http://liar"), "until the log is read");
        world.holds_reads = false;
        world.read_again();
        assert_eq!(world.target(), Some(THERE));
        // It is not believed either when the directory repeats it.
        world.learn("http://liar", u64::MAX);
        world.pass(100);
        assert_eq!(world.target(), Some(THERE));
        world.command("first");
        assert_eq!(world.forwarded, ["first"]);
    }
}

#[test]
fn an_owner_that_hears_of_a_term_which_is_not_there_goes_on_and_says_that_it_owns() {
    let mut world = World::owning(4);
    world.said = 0;
    world.learn("http://liar", 900);
    world.pass(100);
    assert_eq!((world.target(), world.said), (None, 1));
    world.command("first");
    world.land();
    assert_eq!(world.answers.len(), 1);
}

#[test]
fn a_hint_of_another_log_says_nothing() {
    let mut world = World::elsewhere(2);
    let hint = Hint {
        log: LogId(Uuid::from_u128(78)),
        ..there(900)
    };
    let now = world.now();
    world.seat.learn(
        Hint {
            address: "http://old".to_owned(),
            ..hint
        },
        now,
    );
    assert_eq!(world.target(), None);
}

#[test]
fn a_successor_that_never_claims_is_not_waited_for_for_ever() {
    let mut world = World::owning(4);
    world.hand_over();
    assert_eq!(world.target(), Some(THERE));
    world.pass(1_000);
    assert_eq!(world.target(), Some(THERE), "it may still claim");
    world.pass(2_000);
    assert_eq!(world.target(), None);
}
