//! The aggregate of the simulated world: an account whose events say upon what they were decided.
//!
//! Invariant: each event carries the number and the digest of all events before it, their times
//! included, so that whoever folds a stream sees at once whether one was decided on another history.

use kernel::schemars::JsonSchema;
use kernel::{Context, Decider, Rejection, Timestamp, messages};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The category of its streams.
pub const CATEGORY: &str = "account";
/// The name of its only command.
pub const COMMAND: &str = "Post";

/// Posts amounts, one event each; refused if the balance would fall below zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// Names the client's intent, whatever command id it travels under.
    pub intent: u64,
    /// What is posted.
    pub amounts: Vec<i64>,
}

/// An amount was posted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    /// The intent of its command.
    pub intent: u64,
    /// What was posted.
    #[serde(serialize_with = "written")]
    pub amount: i64,
    /// Whether the client gave the business time.
    pub is_time_given: bool,
    /// How many events there were before it.
    pub seen: u64,
    /// The digest of all of them.
    pub digest: u64,
}

/// An amount whose event is written as what nobody can read, as some values of floats or times are.
pub const UNREADABLE: i64 = 7_777_777;

fn written<S: Serializer>(amount: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    match *amount {
        UNREADABLE => serializer.serialize_none(),
        amount => serializer.serialize_i64(amount),
    }
}

messages! {
    /// Its commands.
    pub enum Command { Post }
}
messages! {
    /// Its events.
    pub enum Event { Posted }
}

/// The balance would fall below zero.
#[derive(Debug, thiserror::Error)]
#[error("the balance would fall below zero")]
pub struct Overdrawn {
    seen: u64,
    digest: u64,
}

impl Rejection for Overdrawn {
    fn code(&self) -> &str {
        "overdrawn"
    }

    fn facts(&self) -> Map<String, Value> {
        match json!({"seen": self.seen, "digest": self.digest}) {
            Value::Object(facts) => facts,
            _ => Map::new(),
        }
    }
}

/// An account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How many events there were.
    pub count: u64,
    /// The digest of all of them.
    pub digest: u64,
    /// The sum of what was posted.
    pub balance: i64,
}

impl Account {
    /// Takes up an event that happened at `occurred_at`.
    pub fn take(&mut self, event: &Posted, occurred_at: Timestamp) {
        self.count += 1;
        let at = occurred_at.micros().cast_unsigned().rotate_left(41);
        let mixed = self.digest ^ event.intent.rotate_left(17) ^ event.amount.cast_unsigned() ^ at;
        self.digest = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.balance += event.amount;
    }
}

/// The decider of accounts.
pub struct Accounts;

impl Decider for Accounts {
    const CATEGORY: &'static str = CATEGORY;
    type State = Account;
    type Command = Command;
    type Event = Event;
    type Rejection = Overdrawn;

    fn decide(state: &Account, command: &Command, ctx: &Context) -> Result<Vec<Event>, Overdrawn> {
        let Command::Post(post) = command;
        if state.balance + post.amounts.iter().sum::<i64>() < 0 {
            let (seen, digest) = (state.count, state.digest);
            return Err(Overdrawn { seen, digest });
        }
        let mut account = *state;
        let events = post.amounts.iter().map(|&amount| {
            let event = Posted {
                intent: post.intent,
                amount,
                is_time_given: ctx.is_time_given,
                seen: account.count,
                digest: account.digest,
            };
            account.take(&event, ctx.occurred_at);
            event.into()
        });
        Ok(events.collect())
    }

    fn evolve(state: &mut Account, event: &Event, occurred_at: Timestamp) {
        let Event::Posted(posted) = event;
        state.take(posted, occurred_at);
    }
}
