//! The owner without I/O: a log in memory whose acknowledgements come late, get lost or are wrong,
//! and a second writer that claims in between.

use std::collections::VecDeque;

use event_log::commit::Commit;
use event_log::log::{Appended, Chunk};
use event_log::record::{ClaimHeaders, CommitHeaders, RECORD_VERSION, Record};
use kernel as _;
use kernel::registry::Registry;
use kernel::{CommandId, Context, Decider, Rejection, TenantId, Timestamp, messages, schemars};
use position::{LogId, Partition, Position, Term, WriterId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::*;
use crate::command::{Decision, Reply, SubmitError};

mod adopted;
mod clock;
mod damage;
pub(crate) mod failing_store;
mod gone;
mod ids;
mod imitated;
mod large;
mod moving;
mod panics;
mod sent;
mod times;

/// A counter that may not pass three.
struct Counter;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    amount: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Added {
    amount: u32,
}

messages! {
    /// Its commands.
    enum Command { Add }
}
messages! {
    /// Its events.
    enum Event { Added }
}

#[derive(Debug, thiserror::Error)]
#[error("three is enough")]
struct Enough;

impl Rejection for Enough {
    fn code(&self) -> &str {
        "enough"
    }

    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }
}

impl Decider for Counter {
    const CATEGORY: &'static str = "counter";
    type State = u32;
    type Command = Command;
    type Event = Event;
    type Rejection = Enough;

    fn decide(state: &u32, command: &Command, _: &Context) -> Result<Vec<Event>, Enough> {
        let Command::Add(add) = command;
        if state + add.amount > 3 {
            return Err(Enough);
        }
        if add.amount == 0 {
            return Ok(Vec::new());
        }
        Ok(vec![Added { amount: add.amount }.into()])
    }

    fn evolve(state: &mut u32, event: &Event, _: Timestamp) {
        let Event::Added(added) = event;
        *state += added.amount;
    }
}

struct Counting(u128);

impl Entropy for Counting {
    fn bytes(&mut self) -> [u8; 16] {
        self.0 += 1;
        self.0.to_be_bytes()
    }
}

/// One partition in memory, and the owner over it.
struct World {
    owner: Owner<&'static str>,
    records: Vec<Record>,
    /// The leader of the log.
    leader_epoch: i32,
    appended: VecDeque<(u64, event_log::record::NewRecord)>,
    answers: Vec<(&'static str, Reply)>,
    /// What the owner gave back; it is offered again as soon as it takes commands.
    released: VecDeque<(Submission, Vec<(&'static str, bool)>)>,
    /// How often the owner asked to be handed the partition.
    asked: usize,
    /// Whether nobody answers this request.
    deaf: bool,
    /// The offsets from which the owner read.
    reads: Vec<Offset>,
    /// Whether reads wait for [`World::serve_read`].
    holds_reads: bool,
    time_ms: u64,
    /// How far the wall clock is ahead.
    wall_ahead_ms: i64,
    /// How long the machine was suspended.
    slept_ms: u64,
}

fn log_id() -> LogId {
    LogId(Uuid::from_u128(77))
}

fn owner(seed: u128) -> Owner<&'static str> {
    owner_with(seed, OwnerSettings::default())
}

/// An owner of counters, for any type of ticket.
pub(crate) fn owner_with<T>(seed: u128, settings: OwnerSettings) -> Owner<T> {
    let mut owner = Owner::new(
        Partition(0),
        Registry::new().with::<Counter>(),
        settings,
        Box::new(NoStore),
        Box::new(Counting(seed << 64)),
    );
    owner.new_log = Some(log_id());
    owner
}

/// A command of a counter.
pub(crate) fn submission(id: &str, amount: u32, expected: Option<u64>) -> Submission {
    let data = serde_json::value::to_raw_value(&Add { amount }).unwrap();
    let registry = Registry::new().with::<Counter>();
    let aggregate = registry.get("counter").unwrap();
    let command = aggregate.decode_command("Add", None, data.get()).unwrap();
    let request = Request {
        tenant: TenantId::default(),
        stream: "counter-1".parse().unwrap(),
        command: "Add".into(),
        schema: None,
        id: id.parse::<CommandId>().unwrap(),
        occurred_at: None,
        expected_version: expected,
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data,
    };
    Submission { request, command }
}

impl World {
    /// A world whose owner owns.
    fn owning() -> Self {
        Self::owning_with(owner(1))
    }

    fn owning_with(owner: Owner<&'static str>) -> Self {
        let mut world = Self::starting_with(owner);
        world.settle();
        assert_eq!(world.owner.phase(), &Phase::Owning);
        world
    }

    fn starting_with(owner: Owner<&'static str>) -> Self {
        let mut world = Self {
            owner,
            records: Vec::new(),
            leader_epoch: 0,
            appended: VecDeque::new(),
            answers: Vec::new(),
            released: VecDeque::new(),
            asked: 0,
            deaf: false,
            reads: Vec::new(),
            holds_reads: false,
            time_ms: 1_000,
            wall_ahead_ms: 0,
            slept_ms: 0,
        };
        world.owner.start(Offset(0));
        world
    }

    fn now(&self) -> Now {
        let boottime_ms = self.time_ms + self.slept_ms;
        let wall_ms = boottime_ms.cast_signed() + self.wall_ahead_ms;
        Now {
            wall: Timestamp::from_micros(1_000 * wall_ms).unwrap(),
            monotonic_ms: self.time_ms,
            boottime_ms,
        }
    }

    /// Performs reads and proofs, and gathers appends and answers.
    fn perform(&mut self) {
        loop {
            let actions = self.owner.take_actions();
            if actions.is_empty() {
                let now = self.now();
                match self.released.pop_front() {
                    Some((submission, waiters)) if self.owner.takes_commands() => {
                        self.owner.decide(submission, waiters, now);
                        continue;
                    }
                    Some(released) => self.released.push_front(released),
                    None => {}
                }
                return;
            }
            for action in actions {
                match action {
                    Action::Log(LogAction::Append {
                        sequence, record, ..
                    }) => {
                        self.appended.push_back((sequence, record));
                    }
                    Action::Answer { ticket, answer } => self.answers.push((ticket, answer)),
                    Action::AskOwner => {
                        self.asked += 1;
                        if !self.deaf {
                            let now = self.now();
                            self.owner.owner_answered(now);
                        }
                    }
                    Action::Release {
                        submission,
                        waiters,
                    } => self.released.push_back((submission, waiters)),
                    Action::Log(LogAction::Read { from }) => {
                        self.reads.push(from);
                        if !self.holds_reads {
                            self.give(from, usize::MAX);
                        }
                    }
                    Action::Log(LogAction::Peek) => {
                        let (end, now) = (self.end(), self.now());
                        self.owner.peeked(Some(end), now);
                    }
                    Action::Log(LogAction::Prove { offset }) => {
                        let end = self.end();
                        let found = self.records.iter().find(|r| r.offset == offset).cloned();
                        self.owner.proven(offset, Ok((end, found)));
                    }
                }
            }
        }
    }

    /// Answers the last read with at most `records_max` records.
    fn serve_read(&mut self, records_max: usize) {
        let from = *self.reads.last().expect("something is to be read");
        self.give(from, records_max);
        self.perform();
    }

    fn give(&mut self, from: Offset, records_max: usize) {
        let rest = self.records.iter().filter(|r| r.offset >= from);
        let records: Vec<_> = rest.clone().take(records_max).cloned().collect();
        let chunk = Chunk {
            partition: Partition(0),
            next: records.last().map_or(from, |last| last.offset.next()),
            at_end: records.len() == rest.count(),
            records,
        };
        let now = self.now();
        self.owner.read(Ok(chunk), now);
    }

    fn end(&self) -> Offset {
        self.records
            .last()
            .map_or(Offset(0), |last| last.offset.next())
    }

    /// Puts the oldest append into the log without telling anybody.
    fn land(&mut self) -> (u64, Offset) {
        let (sequence, record) = self.appended.pop_front().expect("something was appended");
        let offset = self.end();
        let true_ms = self.time_ms + self.slept_ms;
        self.records.push(Record {
            leader_epoch: Some(self.leader_epoch),
            appended_at_ms: Some(true_ms.cast_signed()),
            ..Record::at(offset, record)
        });
        (sequence, offset)
    }

    fn acknowledge(&mut self, sequence: u64, offset: Option<Offset>) {
        let now = self.now();
        self.owner.acknowledged(
            sequence,
            Appended {
                offset,
                appended_at_ms: None,
            },
            now,
        );
        self.perform();
    }

    /// Puts every append into the log and acknowledges it, until nothing is left to do.
    fn settle(&mut self) {
        self.perform();
        while !self.appended.is_empty() {
            let (sequence, offset) = self.land();
            self.acknowledge(sequence, Some(offset));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.time_ms += ms;
        let now = self.now();
        self.owner.tick(now);
        self.perform();
    }

    fn send(&mut self, ticket: &'static str, id: &str, amount: u32) {
        self.send_expecting(ticket, id, amount, None);
    }

    fn send_expecting(
        &mut self,
        ticket: &'static str,
        id: &str,
        amount: u32,
        expected: Option<u64>,
    ) {
        let now = self.now();
        assert!(self.owner.takes_commands());
        self.owner
            .command(submission(id, amount, expected), ticket, now);
        self.perform();
    }

    fn answer(&self, ticket: &str) -> Option<&Reply> {
        self.answers
            .iter()
            .find(|(name, _)| *name == ticket)
            .map(|(_, answer)| answer)
    }

    fn version(&self, ticket: &str) -> u64 {
        self.answer(ticket)
            .expect("an answer")
            .as_ref()
            .expect("from the log")
            .version
    }

    /// The ids of the commands that count, in order, as any reader finds them.
    fn accepted(&self) -> Vec<String> {
        let mut chain = event_log::chain::Chain::genesis(Partition(0));
        let mut ids = Vec::new();
        for record in &self.records {
            if let event_log::chain::Verdict::Commit(_) = chain.judge(record).expect("no damage") {
                let value = record.value.as_deref().unwrap();
                let commit = Commit::read(record.key.as_deref().unwrap(), value).unwrap();
                ids.push(commit.command.id.as_str().to_owned());
            }
        }
        ids
    }
}

#[test]
fn answers_only_when_the_log_has_the_record_and_in_order() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.send("two", "b", 1);
    assert!(world.answers.is_empty());
    let first = world.land();
    let second = world.land();
    // The second acknowledgement alone makes the owner read, and the log confirms both commands.
    world.acknowledge(second.0, Some(second.1));
    assert_eq!((world.version("one"), world.version("two")), (1, 2));
    world.acknowledge(first.0, Some(first.1));
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.accepted(), ["a", "b"]);
}

#[test]
fn a_claim_in_the_gap_deposes_although_the_append_was_acknowledged() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.foreign_claim();
    let (sequence, offset) = world.land();
    world.acknowledge(sequence, Some(offset));
    assert!(world.answer("one").is_none(), "an orphan is not accepted");
    assert_eq!(world.owner.not_owning(), Some(NotOwning::Deposed));
    // The owner claims again after a pause, and decides the command again under the same id.
    world.pass(1_000);
    world.settle();
    assert_eq!(world.version("one"), 1);
    assert_eq!(world.accepted(), ["a"]);
}

#[test]
fn after_a_failed_append_the_log_is_asked_and_claimed_again() {
    for landed in [true, false] {
        let mut world = World::owning();
        world.send("one", "a", 1);
        world.send("two", "b", 1);
        let sequence = if landed {
            world.land().0
        } else {
            world.appended.pop_front().unwrap().0
        };
        let late = world.appended.pop_front().unwrap();
        let now = world.now();
        world.owner.append_failed(sequence, now);
        world.settle();
        assert_eq!(
            (world.version("one"), world.version("two")),
            (1, 2),
            "landed: {landed}"
        );
        // The second record gets into the log after the new claim: a late orphan that harms nobody.
        let offset = world.end();
        world.records.push(Record::at(offset, late.1));
        world.send("three", "c", 1);
        world.settle();
        assert_eq!(world.version("three"), 3);
        assert_eq!(world.accepted(), ["a", "b", "c"]);
    }
}

#[test]
fn without_any_acknowledgement_everything_in_flight_is_in_doubt() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    world.land();
    world.pass(29_000);
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.pass(2_000);
    assert_eq!(world.version("one"), 1, "the log had it all along");
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    assert_eq!(world.accepted(), ["a"]);
}

#[test]
fn an_acknowledgement_without_an_offset_is_looked_up() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    let (sequence, _) = world.land();
    world.acknowledge(sequence, None);
    assert_eq!(world.version("one"), 1);
    world.send("two", "b", 1);
    // Acknowledged, but not in the log: the owner is in doubt, claims again and tries again.
    let (sequence, _) = world.appended.pop_front().unwrap();
    world.acknowledge(sequence, None);
    world.settle();
    assert_eq!(world.version("two"), 2);
    assert_eq!(world.accepted(), ["a", "b"]);
}

#[test]
fn a_duplicate_that_the_producer_left_is_an_orphan() {
    let mut world = World::owning();
    world.send("one", "a", 1);
    let (sequence, offset) = world.land();
    let twin = Record {
        offset: offset.next(),
        ..world.records.last().unwrap().clone()
    };
    world.records.push(twin);
    world.acknowledge(sequence, Some(offset.next()));
    assert_eq!(world.version("one"), 1);
    world.send("two", "b", 1);
    world.settle();
    assert_eq!(world.accepted(), ["a", "b"]);
}

#[test]
fn refusals_and_held_intents_are_commits_too() {
    let mut world = World::owning();
    world.send("too many", "a", 4);
    world.send("nothing", "b", 0);
    world.send_expecting("stale", "c", 1, Some(7));
    assert!(world.answers.is_empty(), "only the log can refuse");
    world.settle();
    let code = |ticket| match &world.answer(ticket).unwrap().as_ref().unwrap().decision {
        Decision::Rejected(rejection) => rejection.code.clone(),
        Decision::Accepted(events) => format!("{} events", events.len()),
    };
    assert_eq!(
        (code("too many"), code("nothing"), code("stale")),
        (
            "enough".to_owned(),
            "0 events".to_owned(),
            "version_conflict".to_owned()
        )
    );
    assert_eq!(world.accepted(), ["a", "b", "c"]);
}

#[test]
fn a_claim_that_nobody_acknowledges_is_given_up_and_made_again() {
    for landed in [true, false] {
        let mut world = World::owning();
        world.send("one", "a", 1);
        let (sequence, _) = world.appended.pop_front().unwrap();
        let now = world.now();
        world.owner.append_failed(sequence, now);
        world.perform();
        assert!(matches!(world.owner.phase(), Phase::Claiming { .. }));
        if landed {
            world.land();
        } else {
            world.appended.pop_front().unwrap();
        }
        world.pass(31_000);
        world.pass(1_000);
        world.settle();
        assert_eq!(world.owner.phase(), &Phase::Owning, "landed: {landed}");
        assert_eq!(world.version("one"), 1);
        assert_eq!(world.accepted(), ["a"]);
    }
}
