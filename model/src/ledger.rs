//! The aggregate of the model: a ledger whose entries say on which history they were decided.
//!
//! Invariant: an entry carries the number and the digest of all entries before it, and so does a
//! refusal. So a fold of the stream shows at once whether a decision was made on another history.
//! Deliberately absent: any business meaning.

use kernel::schemars::JsonSchema;
use kernel::{Context, Decider, Rejection, Timestamp, messages};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The stream that all commands of the model are for.
pub const STREAM: &str = "ledger-1";
/// The name of its only command.
pub const COMMAND: &str = "Write";

/// Writes an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// What is written.
    pub entry: u64,
    /// How many entries there may be before it; else it is refused.
    pub at_most: Option<u64>,
}

/// An entry was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// What was written.
    pub entry: u64,
    /// How many entries there were before it.
    pub seen: u64,
    /// The digest of all of them.
    pub digest: u64,
}

messages! {
    /// Its commands.
    pub enum Command {
        /// Writes an entry.
        Write
    }
}
messages! {
    /// Its events.
    pub enum Event {
        /// An entry was written.
        Written
    }
}

/// The ledger holds more entries than the command allows.
#[derive(Debug, thiserror::Error)]
#[error("the ledger holds more entries than the command allows")]
pub struct Full {
    seen: u64,
    digest: u64,
}

impl Rejection for Full {
    fn code(&self) -> &str {
        "full"
    }

    fn facts(&self) -> Map<String, Value> {
        match json!({"seen": self.seen, "digest": self.digest}) {
            Value::Object(facts) => facts,
            _ => Map::new(),
        }
    }
}

/// The state of a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// How many entries it has.
    pub seen: u64,
    /// The digest of all entries.
    pub digest: u64,
}

impl Ledger {
    /// Adds an entry.
    pub fn take(&mut self, entry: u64) {
        let mixed = self.digest.rotate_left(23) ^ (entry + 1);
        self.digest = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.seen += 1;
    }
}

/// The `Decider` of ledgers.
pub struct Ledgers;

impl Decider for Ledgers {
    const CATEGORY: &'static str = "ledger";
    type State = Ledger;
    type Command = Command;
    type Event = Event;
    type Rejection = Full;

    fn decide(state: &Ledger, command: &Command, _: &Context) -> Result<Vec<Event>, Full> {
        let Command::Write(write) = command;
        let Ledger { seen, digest } = *state;
        if write.at_most.is_some_and(|at_most| seen > at_most) {
            return Err(Full { seen, digest });
        }
        let entry = write.entry;
        Ok(vec![
            Written {
                entry,
                seen,
                digest,
            }
            .into(),
        ])
    }

    fn evolve(state: &mut Ledger, event: &Event, _: Timestamp) {
        let Event::Written(written) = event;
        state.take(written.entry);
    }
}
