//! The aggregate of the simulated world: an account whose events state on which history they were
//! decided.
//!
//! Invariant: each event carries the number and the digest of all events before it, their times
//! included. So a fold of a stream shows at once whether an event was decided on another history.

use std::cell::Cell;

use kernel::schemars::JsonSchema;
use kernel::{Context, Decider, Rejection, Timestamp, messages};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

pub const CATEGORY: &str = "account";
/// An amount on which `decide` panics.
const FAILS_IN_DECIDE: i64 = 900;
/// An amount on which `evolve` panics.
const FAILS_IN_EVOLVE: i64 = 901;
/// An amount on which `evolve` panics in a broken program ([`set_broken`]).
pub const FAILS_IF_BROKEN: i64 = 902;
/// An amount that makes it impossible to write the state.
const FAILS_IN_WRITING: i64 = 1_000_000;
/// The amounts on which rules fail.
pub const FAILING: [i64; 4] = [
    FAILS_IN_DECIDE,
    FAILS_IN_EVOLVE,
    FAILS_IN_WRITING,
    FAILS_IF_BROKEN,
];

thread_local! {
    static IS_BROKEN: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether the program that runs from now on is broken: its rules fail on events that other
/// programs could apply.
pub fn set_broken(is_broken: bool) {
    IS_BROKEN.set(is_broken);
}

/// Panics without a message on stderr, because there are thousands of these panics.
fn fail(what: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(what))
}

fn write_balance<S: Serializer>(balance: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    if *balance >= FAILS_IN_WRITING / 2 {
        fail("told to fail in writing");
    }
    serializer.serialize_i64(*balance)
}

pub const COMMAND: &str = "Post";

/// Posts amounts, one event each; refused if the balance would fall below zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// Names the client's intent, whatever command id it travels under.
    pub intent: u64,
    pub amounts: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    pub intent: u64,
    #[serde(serialize_with = "written")]
    pub amount: i64,
    /// Whether the client gave the business time.
    pub is_time_given: bool,
    /// How many events there were before it.
    pub seen: u64,
    /// The digest of all of them.
    pub digest: u64,
}

/// An amount whose event is written in a form that nobody can read, as happens with some values of
/// floats or times.
pub const UNREADABLE: i64 = 444_444;

fn written<S: Serializer>(amount: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    match *amount {
        UNREADABLE => serializer.serialize_none(),
        amount => serializer.serialize_i64(amount),
    }
}

messages! {
    pub enum Command { Post }
}
messages! {
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
        let facts = [("seen", self.seen), ("digest", self.digest)];
        Map::from_iter(facts.map(|(name, fact)| (name.to_owned(), fact.into())))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How many events there were.
    pub count: u64,
    /// The digest of all of them.
    pub digest: u64,
    /// The sum of what was posted.
    #[serde(serialize_with = "write_balance")]
    pub balance: i64,
}

impl Account {
    /// Applies an event that occurred at `occurred_at`.
    pub fn take(&mut self, event: &Posted, occurred_at: Timestamp) {
        self.count += 1;
        let at = occurred_at.micros().cast_unsigned().rotate_left(41);
        let mixed = self.digest ^ event.intent.rotate_left(17) ^ event.amount.cast_unsigned() ^ at;
        self.digest = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.balance += event.amount;
    }
}

pub struct Accounts;

impl Decider for Accounts {
    const CATEGORY: &'static str = CATEGORY;
    type State = Account;
    type Command = Command;
    type Event = Event;
    type Rejection = Overdrawn;

    fn decide(state: &Account, command: &Command, ctx: &Context) -> Result<Vec<Event>, Overdrawn> {
        let Command::Post(post) = command;
        if post.amounts.contains(&FAILS_IN_DECIDE) {
            fail("told to fail in decide");
        }
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
        let is_broken = posted.amount == FAILS_IF_BROKEN && IS_BROKEN.get();
        if is_broken || posted.amount == FAILS_IN_EVOLVE {
            fail("told to fail in evolve");
        }
        state.take(posted, occurred_at);
    }
}
