//! The lines that are not done, in the order in which they must be decided.
//!
//! Invariant: until a line is done, it is in exactly one of three places (to be sent again, in
//! flight, turned away). A new line is taken only while no line waits to be sent again.
//! Deliberately absent: connections.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::answer::Answer;
use super::line::CommandLine;
use super::{OPEN_SIZE_MAX, Observer, Said};

/// A line with its place in the order of all lines.
struct Entry {
    place: u64,
    line: CommandLine,
}

/// What is left to do.
pub(super) struct Backlog {
    open_max: usize,
    next_place: u64,
    again: VecDeque<Entry>,
    in_flight: VecDeque<Entry>,
    turned_away: Vec<Entry>,
    done_count: u64,
    open_size: usize,
    waiting_since: Instant,
}

/// What an answer meant for the connection.
pub(super) enum Effect {
    /// The line is done.
    Done,
    /// The line was turned away, so the door turns away later lines of its stream, too.
    TurnedAway(String, Option<std::time::Duration>),
    /// An answer came, but no line waits for one.
    Unasked,
}

impl Backlog {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            open_max: open_max.max(1),
            next_place: 0,
            again: VecDeque::new(),
            in_flight: VecDeque::new(),
            turned_away: Vec::new(),
            done_count: 0,
            open_size: 0,
            waiting_since: Instant::now(),
        }
    }

    /// Lines whose outcome is not known.
    pub(super) fn open_count(&self) -> usize {
        self.again.len() + self.in_flight.len() + self.turned_away.len()
    }

    pub(super) fn done_count(&self) -> u64 {
        self.done_count
    }

    /// Since when no line got done although there were lines to do.
    pub(super) fn waiting_since(&self) -> Instant {
        self.waiting_since
    }

    /// Whether lines wait for answers on this connection.
    pub(super) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether lines wait to be sent again.
    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Whether a new line may be taken.
    pub(super) fn takes_new(&self) -> bool {
        let has_room = self.open_count() < self.open_max && self.open_size < OPEN_SIZE_MAX;
        self.again.is_empty() && self.turned_away.is_empty() && has_room
    }

    /// Puts the next line that is sent again in flight, and returns its text.
    pub(super) fn send_again(&mut self) -> Option<&str> {
        let entry = self.again.pop_front()?;
        self.in_flight.push_back(entry);
        self.in_flight.back().map(|entry| entry.line.json.as_str())
    }

    /// Puts a new line in flight.
    pub(super) fn send_new(&mut self, line: CommandLine) {
        if self.open_count() == 0 {
            self.waiting_since = Instant::now();
        }
        let place = self.next_place;
        self.next_place += 1;
        self.open_size += line.json.len();
        self.in_flight.push_back(Entry { place, line });
    }

    /// Takes the answer to the oldest line in flight.
    pub(super) fn answered(&mut self, answer: Answer, observer: &mut impl Observer) -> Effect {
        let Some(entry) = self.in_flight.pop_front() else {
            return Effect::Unasked;
        };
        match answer {
            Answer::Done(said) => {
                self.done(&entry, said, observer);
                Effect::Done
            }
            Answer::TurnedAway { code, after } => {
                self.turned_away.push(entry);
                Effect::TurnedAway(code, after)
            }
        }
    }

    fn done(&mut self, entry: &Entry, said: Said, observer: &mut impl Observer) {
        self.done_count += 1;
        self.open_size -= entry.line.json.len();
        self.waiting_since = Instant::now();
        observer.done(&entry.line, said);
    }

    /// The connection has ended: every line that is not done is sent again, in the original order.
    pub(super) fn settle(&mut self) {
        let mut open: Vec<Entry> = self.turned_away.drain(..).collect();
        open.extend(self.in_flight.drain(..));
        open.extend(self.again.drain(..));
        open.sort_by_key(|entry| entry.place);
        self.again = open.into();
    }
}
