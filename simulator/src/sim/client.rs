//! Clients of the simulated world: they send batches of commands, and repeat them under the same
//! ids until every line has a final answer.
//!
//! Invariant: a client sends its open lines in their first order, and nothing after them; every
//! answer is checked against the log.

use std::collections::{BTreeMap, BTreeSet};

use engine::command::{Decision, Reply, Request, SubmitError};
use kernel::{TenantId, Timestamp};
use serde_json::value::RawValue;

use super::book::{CATEGORY, COMMAND, FAILING, FAILS_IF_BROKEN, Post, UNREADABLE};
use super::event::Line;
use super::history::{Asked, CommandKey};
use super::random::Random;
use super::trace::Who;
use super::violation::Invariant;
use super::world::World;

/// How many lines a batch has at most.
const LINES_MAX: u64 = 6;

/// A command that has no final answer yet.
pub struct Open {
    line: Line,
    key: CommandKey,
    /// Whether its id is that of another command.
    reuses: bool,
    /// The amount on which the rules fail, if it has one.
    fails: Option<i64>,
    /// Whether an earlier sending of it may have been attempted.
    uncertain: bool,
    settled: bool,
}

#[derive(Default)]
pub struct Client {
    pub open: Vec<Open>,
    /// The connection on which the client waits, and the lines without an answer there.
    connection: Option<(u64, BTreeSet<u64>)>,
    /// The stream versions that the client knows.
    versions: BTreeMap<String, u64>,
    /// Answered commands, whose ids may be used again.
    done: Vec<CommandKey>,
    /// Whether its batch is the last one, sent after the faults ended.
    is_last: bool,
}

impl Client {
    pub fn has_finished(&self) -> bool {
        self.is_last && self.open.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was refused: nothing was sent.
    Refused,
    /// It broke, or nothing came in time.
    Broken,
}

pub struct Connection {
    pub client: usize,
    pub node: usize,
    /// When the last answer arrives.
    pub last_us: u64,
}

impl World {
    /// An answer to a line reaches the client.
    pub(super) fn answered(&mut self, client: usize, connection: u64, line: u64, result: Reply) {
        let current = &mut self.clients[client].connection;
        let current = current.as_mut().filter(|(open, _)| *open == connection);
        if !current.is_some_and(|(_, waiting)| waiting.remove(&line)) {
            return;
        }
        self.take_answer(client, line, result);
        // The client goes on once every line that it sent is answered.
        let current = &mut self.clients[client].connection;
        if current.take_if(|(_, waiting)| waiting.is_empty()).is_some() {
            self.connections.remove(&connection);
            self.again(client);
        }
    }

    /// A connection was lost, or was never made.
    pub(super) fn lost(&mut self, client: usize, connection: u64, loss: Loss) {
        let current = &mut self.clients[client].connection;
        let Some((_, waiting)) = current.take_if(|(open, _)| *open == connection) else {
            return;
        };
        let said = || format!("{loss:?}, {} lines open", waiting.len());
        self.say(Who::Client(client), "lost a connection", said);
        for open in &mut self.clients[client].open {
            open.uncertain |= loss == Loss::Broken && waiting.contains(&open.line.number);
        }
        if let Some(lost) = self.connections.remove(&connection)
            && loss == Loss::Broken
        {
            let at_us = self.now_us + self.random.below(300_000);
            self.tell_node(at_us, lost.node, move |world, node| {
                world.disconnected(node, connection);
            });
        }
        self.again(client);
    }

    fn again(&mut self, client: usize) {
        self.clients[client].open.retain(|open| !open.settled);
        if self.clients[client].has_finished() {
            return;
        }
        let done = self.clients[client].open.is_empty();
        let most_us = match (done, self.quiet) {
            (true, false) => self.plan.think_us,
            _ => 150_000,
        };
        let at_us = self.now_us + self.random.between(100, most_us);
        self.schedule.at(at_us, move |world| world.go(client));
    }

    fn is_there(&self, key: &CommandKey) -> bool {
        self.histories[self.partition_of(&key.0)].has(key)
    }

    pub(super) fn go(&mut self, client: usize) {
        let state = &self.clients[client];
        if state.connection.is_some() || state.has_finished() {
            return;
        }
        if self.clients[client].open.is_empty() {
            self.clients[client].is_last = self.quiet;
            self.new_batch(client);
        }
        let (timeout_us, now_us) = (self.random.between(20_000, 1_500_000), self.now_us);
        let lines = self.clients[client].open.iter_mut().map(|open| {
            open.line.timeout_us = timeout_us;
            open.line.clone()
        });
        let lines: Vec<Line> = lines.collect();
        let untouched = |open: &&Open| !open.uncertain && !open.reuses;
        let mut untouched = self.clients[client].open.iter().filter(untouched);
        if let Some(open) = untouched.find(|open| self.is_there(&open.key)) {
            let (stream, id) = &open.key;
            let what = format!("{id} of {stream}, said not to have been attempted, is there");
            return self.break_off(Invariant::RefusedLeftNothing, what);
        }
        let connection = self.number();
        let node = self.random.index(self.nodes.len());
        let waiting = lines.iter().map(|line| line.number).collect();
        self.clients[client].connection = Some((connection, waiting));
        if !self.nodes[node].up {
            let refused = move |world: &mut Self| world.lost(client, connection, Loss::Refused);
            return self.schedule.at(now_us + 1_000, refused);
        }
        let open = Connection {
            client,
            node,
            last_us: now_us,
        };
        self.connections.insert(connection, open);
        let count = lines.len() as u64;
        self.counts.sent += count;
        self.say(Who::Client(client), "sends", || {
            format!("{count} lines to node {node}")
        });
        let at_us = now_us + self.delay_us();
        self.tell_node(at_us, node, move |world, node| {
            world.take_lines(node, connection, lines);
        });
        // The time of each line starts at its turn.
        let gives_up_us = at_us + timeout_us * count.min(2) + 200_000;
        let lost = move |world: &mut Self| world.lost(client, connection, Loss::Broken);
        self.schedule.at(gives_up_us, lost);
        if !self.quiet && self.disconnects && self.random.chance(150) {
            let at_us = now_us + self.random.below(timeout_us);
            self.schedule.at(at_us, lost);
        }
    }

    fn new_batch(&mut self, client: usize) {
        let count = self.random.between(1, LINES_MAX);
        let mut last: BTreeMap<String, CommandKey> = BTreeMap::new();
        for _ in 0..count {
            let stream = format!("{CATEGORY}-{}", self.random.index(self.plan.streams));
            let intent = self.number();
            let amounts = (0..self.random.below(4)).map(|_| self.random.between(0, 9));
            let mut amounts: Vec<i64> = amounts.map(u64::cast_signed).collect();
            if self.random.chance(300) {
                amounts.iter_mut().for_each(|amount| *amount *= -2);
            }
            // Not random, so that runs without it stay the same.
            let is_unreadable = self.plan.unreadable && intent.is_multiple_of(7);
            let fails = self.failing(intent).or(is_unreadable.then_some(UNREADABLE));
            amounts.extend(fails);
            let done = self.clients[client].done.iter();
            let known: Vec<&CommandKey> = done.filter(|key| key.0 == stream).collect();
            let reuses = !known.is_empty() && !self.plan.nights && self.random.chance(40);
            let id = match reuses {
                true => known[self.random.index(known.len())].1.clone(),
                false => format!("c{client}-{intent}"),
            };
            let seen = self.clients[client].versions.get(&stream).copied();
            let expected_version = seen.filter(|_| self.random.chance(200));
            let occurred_at = given_time(intent);
            let post = serde_json::to_string(&Post { intent, amounts });
            let data = post.and_then(RawValue::from_string).expect("plain data");
            if fails == Some(FAILS_IF_BROKEN) {
                self.has_broken.insert(stream.clone());
            }
            let key = (stream.clone(), id.clone());
            if !reuses {
                // A command that cannot be recorded is no predecessor of a later command.
                let after = match fails.is_some() {
                    true => last.get(&stream).cloned(),
                    false => last.insert(stream.clone(), key.clone()),
                };
                let asked = Asked {
                    intent,
                    occurred_at,
                    after,
                };
                self.asked.entry(key.clone()).or_insert(asked);
            }
            let request = Request {
                tenant: TenantId::default(),
                stream: stream.parse().expect("a category and a number"),
                command: COMMAND.into(),
                schema: None,
                id: id.parse().expect("letters and digits"),
                occurred_at,
                expected_version,
                correlation_id: None,
                causation_id: None,
                actor: None,
                trace: None,
                data,
            };
            let line = Line {
                number: self.number(),
                request,
                timeout_us: 0,
            };
            self.clients[client].open.push(Open {
                line,
                key,
                reuses,
                fails: fails.filter(|_| !reuses),
                uncertain: false,
                settled: false,
            });
        }
    }

    /// An amount on which the rules fail, for one command of many.
    fn failing(&mut self, intent: u64) -> Option<i64> {
        if self.plan.failing_of == 0 || self.quiet {
            return None;
        }
        // A source of its own, so that no other draw changes.
        let mut random = Random::new(intent ^ self.plan.quiet_from_us);
        (random.below(self.plan.failing_of) == 0).then(|| FAILING[random.index(4)])
    }

    /// How an answer shows that a failure of the rules affected something else, if it does.
    fn failure_spreads(&self, stream: &str, fails: Option<i64>, result: &Reply) -> Option<String> {
        let must_fail = fails.is_some_and(|a| ![FAILS_IF_BROKEN, UNREADABLE].contains(&a));
        match result {
            Ok(answer) if must_fail && matches!(answer.decision, Decision::Accepted(_)) => {
                Some(format!("what the rules fail over is accepted in {stream}"))
            }
            Err(SubmitError::Failed) if fails.is_none() => {
                Some(format!("the rules fail in {stream} over what they do not"))
            }
            Err(SubmitError::Frozen(frozen)) if !self.has_broken.contains(stream) => {
                Some(format!("{stream} is frozen: {frozen}"))
            }
            _ => None,
        }
    }

    fn take_answer(&mut self, client: usize, line: u64, result: Reply) {
        let mut open = self.clients[client].open.iter();
        let place = open.position(|open| open.line.number == line);
        let place = place.expect("it waits for an answer");
        let open = &self.clients[client].open[place];
        let (key, reuses, uncertain) = (open.key.clone(), open.reuses, open.uncertain);
        let (stream, id) = &key;
        if let Some(what) = self.failure_spreads(stream, open.fails, &result)
            && !self.was_cut
        {
            return self.break_off(Invariant::FailuresStayAlone, what);
        }
        let is_left = !uncertain && !reuses && self.is_there(&key);
        let wrong = |invariant, how: &str| Some((invariant, format!("{id} of {stream}{how}")));
        let left = |how: &str| wrong(Invariant::RefusedLeftNothing, how);
        let broken = match &result {
            Ok(_) if reuses => left(" was used again and is answered"),
            Ok(answer) => self.held_against_log(&key, answer),
            Err(SubmitError::IdReused) if !reuses => wrong(
                Invariant::AnsweredIsThere,
                " is said to be of another command",
            ),
            Err(SubmitError::TurnedAway { reason, .. }) if is_left => {
                left(&format!(" is there, but was turned away: {reason}"))
            }
            Err(SubmitError::Failed) if is_left => left(" failed, and is there"),
            Err(error @ (SubmitError::TooLarge { .. } | SubmitError::StreamTooLarge { .. })) => {
                wrong(Invariant::MovesAgain, &format!(": {error}"))
            }
            Err(SubmitError::Damaged(damage)) => {
                wrong(Invariant::NoFalseAlarm, &format!(": {damage}"))
            }
            Err(_) => None,
        };
        self.counts.answered(&result);
        if let Some((invariant, what)) = broken
            && !self.was_cut
        {
            return self.break_off(invariant, what);
        }
        let open = &mut self.clients[client].open[place];
        match result {
            Ok(answer) => {
                open.settled = true;
                match answer.decision {
                    Decision::Accepted(_) => self.counts.accepted += 1,
                    Decision::Rejected(_) => self.counts.refused += 1,
                }
                let versions = &mut self.clients[client].versions;
                versions.insert(key.0.clone(), answer.version);
                self.clients[client].done.push(key);
            }
            Err(SubmitError::Unknown) => open.uncertain = true,
            // A node with another program's rules may apply it.
            Err(SubmitError::TurnedAway { .. } | SubmitError::Frozen(_)) => {}
            Err(_) => open.settled = true,
        }
    }
}

/// The business time that a client gives for an intent: for every third intent, a moment long ago.
fn given_time(intent: u64) -> Option<Timestamp> {
    let moment = Timestamp::from_micros(i64::try_from(intent).ok()?).ok()?;
    intent.is_multiple_of(3).then_some(moment)
}
