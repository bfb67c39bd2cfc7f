//! A seat without any I/O: what it keeps in order while a partition moves.

use std::collections::VecDeque;

use kernel::Timestamp;

use super::*;
use crate::owner::OwnerSettings;
use crate::owner::tests::{owner_with, submission};
use crate::record::NewRecord;

const HERE: &str = "http://here";
const THERE: &str = "http://there";

/// A client that waits for ever.
#[derive(Debug)]
struct Patient(bool);

impl Client for Patient {
    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        self.0 = true;
        Ok(())
    }

    fn was_attempted(&self) -> bool {
        self.0
    }

    fn settle(&mut self, _: &Result<Answer, SubmitError>) {}
}

/// Another node that waits for ever.
#[derive(Debug)]
struct PatientPeer;

impl Peer for PatientPeer {
    fn hindrance(&self) -> Option<Hindrance> {
        None
    }

    fn settle(&mut self, _: &LinkAnswer) {}
}

/// A seat over a log in memory whose appends land when a test says so.
struct World {
    seat: Seat<Patient, PatientPeer>,
    records: Vec<Record>,
    appended: VecDeque<(u64, NewRecord)>,
    /// Ids of commands in the order in which they were sent over a link.
    forwarded: Vec<String>,
    links: Vec<LinkId>,
    answers: Vec<Result<Answer, SubmitError>>,
    time_ms: u64,
}

impl World {
    /// A node that owns and may have so many records in flight.
    fn owning(in_flight_max: usize) -> Self {
        let settings = OwnerSettings {
            in_flight_max,
            address: Some(HERE.to_owned()),
            ..OwnerSettings::default()
        };
        let identity = Identity {
            node: "here".to_owned(),
            address: settings.address.clone(),
        };
        let mut world = Self {
            seat: Seat::new(owner_with(1, settings), identity),
            records: Vec::new(),
            appended: VecDeque::new(),
            forwarded: Vec::new(),
            links: Vec::new(),
            answers: Vec::new(),
            time_ms: 1_000,
        };
        world.seat.start(Offset(0), true, world.now());
        world.perform();
        world.land();
        assert_eq!(world.seat.not_owning(), None);
        world
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::from_micros(1_000 * self.time_ms.cast_signed()).unwrap(),
            monotonic_ms: self.time_ms,
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
                    SeatAction::Append {
                        sequence, record, ..
                    } => self.appended.push_back((sequence, record)),
                    SeatAction::Read { from } => {
                        let records = self.records.iter().filter(|r| r.offset >= from);
                        let chunk = Chunk {
                            partition: Partition(0),
                            records: records.cloned().collect(),
                            next: self.end(),
                            at_end: true,
                        };
                        self.seat.read(chunk, now);
                    }
                    SeatAction::Prove { offset } => {
                        let found = self.records.iter().find(|r| r.offset == offset);
                        self.seat.proven(self.end(), found);
                    }
                    SeatAction::Peek => self.seat.peeked(Some(self.end()), now),
                    SeatAction::Answer(_, answer) => self.answers.push(answer),
                    SeatAction::AskOwner { .. } => self.seat.owner_answered(now),
                    SeatAction::Open(link, _) => self.links.push(link),
                    SeatAction::Send(_, sequence) => {
                        let command = self.seat.sent(sequence).expect("it was just sent");
                        let id = command.submission.request.id.as_str();
                        self.forwarded.push(id.to_owned());
                    }
                    SeatAction::AnswerPeer(..)
                    | SeatAction::Close(_)
                    | SeatAction::SayOwner(_)
                    | SeatAction::LetGo
                    | SeatAction::TookOver => {}
                }
            }
        }
    }

    fn command(&mut self, id: &str) {
        self.seat.command(submission(id, 1, None), Patient(false));
        self.perform();
    }

    /// Lets the oldest append land and be acknowledged.
    fn land(&mut self) {
        let (sequence, record) = self.appended.pop_front().expect("something was appended");
        let offset = self.end();
        self.records.push(Record::at(offset, record));
        let appended = Appended {
            offset: Some(offset),
            appended_at_ms: None,
        };
        let now = self.now();
        self.seat.appended(sequence, Some(appended), now);
        self.perform();
    }

    fn hand_over(&mut self) {
        let successor = Hint {
            term: Term(2),
            node: "there".to_owned(),
            address: THERE.to_owned(),
        };
        let now = self.now();
        assert!(self.seat.hand_over(successor, now));
        self.perform();
    }
}

#[test]
fn what_waits_is_not_forwarded_before_what_is_in_flight_is_settled() {
    let mut world = World::owning(1);
    world.command("first");
    world.command("second");
    // The first is in flight; should it become an orphan, it goes to the new owner too, and the
    // second must not be there before it.
    world.hand_over();
    assert_eq!(world.forwarded, [""; 0]);
    world.land();
    assert_eq!(
        (world.answers.len(), world.forwarded.as_slice()),
        (1, ["second".to_owned()].as_slice())
    );
}
