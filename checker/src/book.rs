//! What is known of each command: what its clients sent and heard, and its commits in the log.
//!
//! Invariant: each name is stored once and has a number; payloads are stored as digests. So half a
//! million commands fit into a few hundred megabytes. Deliberately absent: judging.

use std::collections::HashMap;
use std::rc::Rc;

use crate::canonical::{self, Digest};
use crate::history::{Accepted, Entry, EventRef, Invoke, Refused, What};
use crate::report::{Evidence, Kind, Violation};
use crate::value::Moment;

/// Texts by number.
#[derive(Default)]
pub(crate) struct Names {
    texts: Vec<Rc<str>>,
    numbers: HashMap<Rc<str>, u32>,
}

impl Names {
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("4 billion names do not fit memory");
        let text: Rc<str> = text.into();
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }
}

/// When and where a client did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) at_ms: u64,
    pub(crate) client: u32,
    pub(crate) file: u32,
    pub(crate) line: u64,
}

impl When {
    /// Whether this certainly came before `other`: by line for one client, by time for two clients.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        if (self.client, self.file) == (other.client, other.file) {
            self.line < other.line
        } else {
            self.at_ms < other.at_ms
        }
    }
}

/// What must be equal in two commands that share an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) command: u32,
    /// Absent if the log keeps only a digest of the data.
    pub(crate) data: Option<Digest>,
    pub(crate) expected_version: Option<u64>,
}

impl Content {
    /// Whether both are equal, as far as both are known.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let data = self.data.zip(other.data).is_none_or(|(a, b)| a == b);
        let rest = |content: &Self| (content.command, content.expected_version);
        data && rest(self) == rest(other)
    }
}

/// One event by its id, type and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventNote {
    pub(crate) id: Digest,
    pub(crate) type_name: u32,
    pub(crate) version: u64,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Accepted {
        version: u64,
        events: Box<[EventNote]>,
    },
    Refused {
        code: u32,
        version: Option<u64>,
        /// The facts `expected_version` and `current_version`.
        versions: (Option<u64>, Option<u64>),
    },
    TurnedAway,
    Failed,
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) at: When,
    pub(crate) said: Said,
    /// A digest of the position token.
    pub(crate) position: Option<Digest>,
}

/// One sending of a command, with its answer if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) sent: When,
    pub(crate) content: Content,
    pub(crate) batch: Option<(u32, u64)>,
    pub(crate) answer: Option<Answer>,
}

impl Attempt {
    /// What the client was told; without an answer, this is *unknown*.
    pub(crate) fn said(&self) -> &Said {
        self.answer.as_ref().map_or(&Said::Unknown, |a| &a.said)
    }

    /// The answer, if the log gave it.
    pub(crate) fn of_the_log(&self) -> Option<&Answer> {
        let is = |answer: &&Answer| match answer.said {
            Said::Accepted { .. } | Said::Refused { .. } => true,
            Said::TurnedAway | Said::Failed | Said::Unknown => false,
        };
        self.answer.as_ref().filter(is)
    }

    /// The answer, if it is final.
    pub(crate) fn settled(&self) -> Option<&Answer> {
        let is = |answer: &&Answer| match answer.said {
            Said::Accepted { .. } | Said::Refused { .. } | Said::Failed => true,
            Said::TurnedAway | Said::Unknown => false,
        };
        self.answer.as_ref().filter(is)
    }
}

/// The outcome of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Accepted(Box<[EventNote]>),
    Refused { code: u32 },
}

/// A commit of the accepted history.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) from_version: u64,
    pub(crate) recorded_at: Moment,
    pub(crate) content: Content,
    pub(crate) came: Came,
}

impl Found {
    /// The stream's version after the commit.
    pub(crate) fn version(&self) -> u64 {
        match &self.came {
            Came::Accepted(events) => self.from_version + events.len() as u64,
            Came::Refused { .. } => self.from_version,
        }
    }

    pub(crate) fn evidence(&self) -> Evidence {
        Evidence::Log {
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// One command id of one stream, with all its sendings and commits.
pub(crate) struct Command {
    pub(crate) stream: u32,
    pub(crate) id: Rc<str>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) commits: Vec<Found>,
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) names: Names,
    pub(crate) commands: Vec<Command>,
    index: HashMap<(u32, Rc<str>), u32>,
    files: Vec<String>,
}

impl Book {
    /// The index of the command with this id; creates the command if it is new.
    pub(crate) fn command(&mut self, stream: &str, id: &str) -> usize {
        let stream = self.names.number(stream);
        let id: Rc<str> = id.into();
        if let Some(index) = self.index.get(&(stream, Rc::clone(&id))) {
            return *index as usize;
        }
        let index = self.commands.len();
        let number = u32::try_from(index).expect("4 billion commands do not fit memory");
        self.index.insert((stream, Rc::clone(&id)), number);
        self.commands.push(Command {
            stream,
            id,
            attempts: Vec::new(),
            commits: Vec::new(),
        });
        index
    }

    /// A history file's number.
    pub(crate) fn file(&mut self, name: &str) -> u32 {
        self.files.push(name.to_owned());
        u32::try_from(self.files.len() - 1).expect("files are few")
    }

    pub(crate) fn evidence(&self, when: &When) -> Evidence {
        Evidence::History {
            file: self.files[when.file as usize].clone(),
            line: when.line,
        }
    }

    /// A violation about a command.
    pub(crate) fn about(
        &self,
        kind: Kind,
        command: &Command,
        detail: String,
        evidence: Vec<Evidence>,
    ) -> Violation {
        Violation {
            kind,
            detail,
            stream: Some(self.names.text(command.stream).to_owned()),
            id: Some(command.id.to_string()),
            evidence,
        }
    }

    /// Notes a line of a history. An answer without a sending is a violation.
    pub(crate) fn note(&mut self, file: u32, line: u64, entry: &Entry) -> Option<Violation> {
        let when = When {
            at_ms: entry.at_ms,
            client: self.names.number(&entry.client),
            file,
            line,
        };
        let stream = format!("{}/{}", entry.tenant, entry.stream);
        let index = self.command(&stream, &entry.id);
        let batch = entry.batch.as_ref().map(|name| self.names.number(name));
        let (said, position) = match &entry.what {
            What::Invoke(invoke) => {
                let attempt = Attempt {
                    sent: when,
                    content: self.content(invoke),
                    batch: batch.map(|batch| (batch, entry.line.unwrap_or(0))),
                    answer: None,
                };
                push_one(&mut self.commands[index].attempts, attempt);
                return None;
            }
            What::Ok(accepted) => (self.accepted(accepted), accepted.position.as_deref()),
            What::Refused(refused) => (self.refused(refused), refused.position.as_deref()),
            What::TurnedAway(_) => (Said::TurnedAway, None),
            What::Failed(_) => (Said::Failed, None),
            What::Unknown(_) => (Said::Unknown, None),
        };
        let answer = Answer {
            at: when,
            said,
            position: position.map(canonical::of_text),
        };
        let is_its = |attempt: &&mut Attempt| {
            let same_batch = batch.is_none_or(|batch| attempt.batch.is_some_and(|b| b.0 == batch));
            attempt.answer.is_none() && attempt.sent.client == when.client && same_batch
        };
        match self.commands[index].attempts.iter_mut().find(is_its) {
            Some(attempt) => {
                attempt.answer = Some(answer);
                None
            }
            None => Some(self.about(
                Kind::AnswerWithoutInvoke,
                &self.commands[index],
                "its client has no open invocation of it".to_owned(),
                vec![self.evidence(&when)],
            )),
        }
    }

    fn content(&mut self, invoke: &Invoke) -> Content {
        Content {
            command: self.names.number(&invoke.command),
            data: Some(canonical::digest(&invoke.data)),
            expected_version: invoke.expected_version,
        }
    }

    fn accepted(&mut self, accepted: &Accepted) -> Said {
        let note = |event: &EventRef| EventNote {
            id: event_id(&event.id),
            type_name: self.names.number(&event.type_name),
            version: event.version,
        };
        Said::Accepted {
            version: accepted.version,
            events: accepted.events.iter().map(note).collect(),
        }
    }

    fn refused(&mut self, refused: &Refused) -> Said {
        let fact = |name: &str| refused.facts.get(name).and_then(serde_json::Value::as_u64);
        Said::Refused {
            code: self.names.number(&refused.code),
            version: refused.version,
            versions: (fact("expected_version"), fact("current_version")),
        }
    }
}

/// Appends to a list that nearly always holds one element; the usual room for four is too much.
pub(crate) fn push_one<T>(list: &mut Vec<T>, one: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(one);
}

/// An event's id in 16 bytes: a UUID as it is, anything else as a digest.
pub(crate) fn event_id(text: &str) -> Digest {
    let is_uuid = text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
    let uuid = is_uuid.then(|| u128::from_str_radix(&text.replace('-', ""), 16).ok());
    uuid.flatten()
        .map_or_else(|| canonical::of_text(text), u128::to_be_bytes)
}
