//! Which deeds are imposed on which messages.
//!
//! Invariant: if several impositions match a message, the hardest deed counts: a loss before a
//! hold, a hold before a delay. Deliberately absent: carrying out the deeds (`pumps`).

use std::time::Duration;

use super::frames::Header;

/// A kind of request, by Kafka's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Appending records.
    pub const PRODUCE: Self = Self(0);
    /// Reading records.
    pub const FETCH: Self = Self(1);
    /// Asking which brokers and leaders there are.
    pub const METADATA: Self = Self(3);
    /// Telling a group that a member is alive.
    pub const HEARTBEAT: Self = Self(12);
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Requests,
    /// To the client.
    Answers,
}

/// A choice of messages.
#[derive(Clone, Debug)]
pub struct Messages {
    direction: Direction,
    /// Absent: every kind.
    key: Option<ApiKey>,
    /// The prefix of the client's name.
    client: String,
}

impl Messages {
    /// All messages in one direction.
    #[must_use]
    pub fn all(direction: Direction) -> Self {
        Self {
            direction,
            key: None,
            client: String::new(),
        }
    }

    /// Restricts the choice to one kind. An answer has its request's kind.
    #[must_use]
    pub fn of(self, key: ApiKey) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Restricts the choice to clients whose `client.id` begins with this prefix.
    #[must_use]
    pub fn by(self, client: &str) -> Self {
        Self {
            client: client.to_owned(),
            ..self
        }
    }

    fn fit(&self, direction: Direction, header: Option<&Header>) -> bool {
        let is_of = |key: ApiKey| header.is_some_and(|header| header.key == key);
        self.direction == direction
            && self.key.is_none_or(is_of)
            && header.map_or(self.client.is_empty(), |header| {
                header.client.starts_with(&self.client)
            })
    }
}

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// It passes after this time; messages behind it wait, too.
    Delay(Duration),
    /// It waits until the imposition is lifted; messages behind it wait, too.
    Hold,
    /// It is lost.
    Lose,
}

/// When a message arrived, counted in changes of the impositions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival(u64);

#[derive(Debug)]
struct Imposition {
    id: u64,
    messages: Messages,
    deed: Deed,
    /// Messages that arrived at this time or later are left alone.
    closed: Option<Arrival>,
}

/// All impositions on one proxy.
#[derive(Debug, Default)]
pub(super) struct Impositions {
    changes: u64,
    deeds: Vec<Imposition>,
    refusals: Vec<u64>,
}

impl Impositions {
    pub(super) fn impose(&mut self, messages: Messages, deed: Deed) -> u64 {
        self.changes += 1;
        self.deeds.push(Imposition {
            id: self.changes,
            messages,
            deed,
            closed: None,
        });
        self.changes
    }

    pub(super) fn refuse(&mut self) -> u64 {
        self.changes += 1;
        self.refusals.push(self.changes);
        self.changes
    }

    /// Leaves alone all messages that arrive from now on.
    pub(super) fn close(&mut self, id: u64) {
        self.changes += 1;
        let closed = Arrival(self.changes);
        let mut deeds = self.deeds.iter_mut();
        if let Some(imposition) = deeds.find(|imposition| imposition.id == id) {
            imposition.closed = Some(closed);
        }
    }

    pub(super) fn lift(&mut self, id: u64) {
        self.deeds.retain(|imposition| imposition.id != id);
        self.refusals.retain(|imposed| *imposed != id);
    }

    pub(super) fn refuses(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// The arrival of a message that comes now; the message keeps it.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival(self.changes)
    }

    /// The deed on a message; `None` lets it pass.
    pub(super) fn judge(
        &self,
        direction: Direction,
        header: Option<&Header>,
        arrival: Arrival,
    ) -> Option<Deed> {
        let fitting = self.deeds.iter().filter(|imposition| {
            imposition.messages.fit(direction, header)
                && imposition.closed.is_none_or(|closed| arrival < closed)
        });
        fitting.map(|imposition| imposition.deed).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_chosen_by_direction_kind_and_client_and_the_hardest_deed_counts() {
        let produce = Header {
            key: ApiKey::PRODUCE,
            client: "n1".to_owned(),
        };
        let (requests, answers) = (Direction::Requests, Direction::Answers);
        let mut impositions = Impositions::default();
        let judge = |impositions: &Impositions, direction, header: Option<&Header>| {
            impositions.judge(direction, header, impositions.arrival())
        };
        assert_eq!(judge(&impositions, requests, Some(&produce)), None);
        let held = impositions.impose(Messages::all(requests).of(ApiKey::PRODUCE), Deed::Hold);
        assert_eq!(
            judge(&impositions, requests, Some(&produce)),
            Some(Deed::Hold)
        );
        assert_eq!(judge(&impositions, answers, Some(&produce)), None);
        assert_eq!(judge(&impositions, requests, None), None);
        let delay = Deed::Delay(Duration::from_secs(9));
        let delayed = impositions.impose(Messages::all(requests).by("n1"), delay);
        assert_eq!(
            judge(&impositions, requests, Some(&produce)),
            Some(Deed::Hold)
        );
        impositions.lift(held);
        assert_eq!(judge(&impositions, requests, Some(&produce)), Some(delay));
        let other = Header {
            client: "n2".to_owned(),
            ..produce
        };
        assert_eq!(judge(&impositions, requests, Some(&other)), None);
        impositions.lift(delayed);
        assert!(!impositions.refuses());
        let refusal = impositions.refuse();
        assert!(impositions.refuses());
        impositions.lift(refusal);
        assert!(!impositions.refuses());
    }

    #[test]
    fn a_closed_imposition_keeps_what_it_has_and_takes_nothing_new() {
        let requests = Direction::Requests;
        let mut impositions = Impositions::default();
        let held = impositions.impose(Messages::all(requests), Deed::Hold);
        let early = impositions.arrival();
        impositions.close(held);
        let late = impositions.arrival();
        assert_eq!(impositions.judge(requests, None, early), Some(Deed::Hold));
        assert_eq!(impositions.judge(requests, None, late), None);
        impositions.lift(held);
        assert_eq!(impositions.judge(requests, None, early), None);
    }
}
