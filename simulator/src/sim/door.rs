//! A node's door for clients: connections, waiting commands and deadlines, kept as the engine
//! (`Engine::submit`, `Batch`) keeps them.
//!
//! Invariant: each line that was taken gets one answer. If an answer is not final, the guard is
//! closed before anybody learns of the answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use engine::command::{Reply, SubmitError, TurnedAway, turned_away};
use engine::owner::Submission;
use engine::seat::{Client, Guard, Place, Sender, Waiter};

use super::event::Line;
use super::trace::Who;
use super::violation::Invariant;
use super::world::World;

/// A client's command, as a seat holds it.
pub struct SimClient {
    /// Identifies the waiting command at this node.
    pub ticket: u64,
    /// When the client stops waiting, in microseconds.
    pub deadline_us: u64,
    waiter: Arc<Waiter>,
}

impl Client for SimClient {
    fn waiter(&self) -> &Waiter {
        &self.waiter
    }
}

/// A command at a node for whose answer a client waits.
pub struct Waiting {
    connection: u64,
    line: u64,
    waiter: Arc<Waiter>,
    partition: usize,
    /// The command's place in the queue, until it is taken out.
    place: Place,
}

/// The state of serving one connection.
pub struct Handler {
    lines: VecDeque<Line>,
    /// The guards of a batch's streams; `None`: a single command, which does not wait for room.
    guards: Option<BTreeMap<String, Arc<Guard>>>,
    /// The partition whose queue has no room for the first line.
    blocked_on: Option<usize>,
}

impl World {
    /// Takes the lines of a client.
    pub(super) fn take_lines(&mut self, node: usize, connection: u64, lines: Vec<Line>) {
        let handler = Handler {
            guards: (lines.len() > 1 || self.random.chance(500)).then(BTreeMap::new),
            lines: lines.into(),
            blocked_on: None,
        };
        self.nodes[node].handlers.insert(connection, handler);
        self.go_on_with(node, connection);
    }

    /// Queues the lines of a connection as far as there is room.
    fn go_on_with(&mut self, node: usize, connection: u64) {
        loop {
            let Some(handler) = self.nodes[node].handlers.get_mut(&connection) else {
                return;
            };
            handler.blocked_on = None;
            let Some(line) = handler.lines.pop_front() else {
                self.nodes[node].handlers.remove(&connection);
                return;
            };
            let stream = line.request.stream.as_str().to_owned();
            let guards = handler.guards.as_mut();
            let guard = guards.map(|of| Arc::clone(of.entry(stream.clone()).or_default()));
            if guard.as_ref().is_some_and(|guard| guard.is_closed()) {
                let error = turned_away(TurnedAway::AfterUnanswered);
                self.tell(node, connection, line.number, Err(error));
                continue;
            }
            let partition = self.partition_of(&stream);
            let task = self.task(node, partition);
            let has_room = task.queues.commands.has_room_for(Sender(connection));
            if task.ended {
                self.refuse(node, connection, line.number, guard, TurnedAway::Stopping);
            } else if has_room {
                self.queue(node, partition, connection, &line, guard);
            } else if guard.is_none() {
                self.refuse(node, connection, line.number, guard, TurnedAway::Overloaded);
            } else {
                let (deadline_us, number) = (self.now_us + line.timeout_us, line.number);
                let handler = self.nodes[node].handlers.get_mut(&connection);
                let handler = handler.expect("it was looked at");
                handler.blocked_on = Some(partition);
                handler.lines.push_front(line);
                return self.tell_node(deadline_us, node, move |world, node| {
                    world.line_late(node, connection, number);
                });
            }
        }
    }

    fn refuse(
        &mut self,
        node: usize,
        connection: u64,
        line: u64,
        guard: Option<Arc<Guard>>,
        reason: TurnedAway,
    ) {
        guard.iter().for_each(|guard| guard.close());
        self.tell(node, connection, line, Err(turned_away(reason)));
    }

    fn queue(
        &mut self,
        node: usize,
        partition: usize,
        connection: u64,
        line: &Line,
        guard: Option<Arc<Guard>>,
    ) {
        let ticket = self.number();
        let deadline_us = self.now_us + line.timeout_us;
        let waiter = Waiter::new(guard);
        let client = SimClient {
            ticket,
            deadline_us,
            waiter: Arc::clone(&waiter),
        };
        let submission = self.submission(line.request.clone());
        let (tenant, bytes) = (submission.request.tenant.clone(), submission.size());
        let commands = &mut self.task(node, partition).queues.commands;
        let queued = commands.push(Sender(connection), &tenant, bytes, (submission, client));
        let Ok(place) = queued else {
            return self.break_off(Invariant::Bounded, "there was room in a queue".to_owned());
        };
        let waiting = Waiting {
            connection,
            line: line.number,
            waiter,
            partition,
            place,
        };
        self.nodes[node].waiting.insert(ticket, waiting);
        self.wake(node, partition);
        self.tell_node(deadline_us, node, move |world, node| {
            world.deadline(node, ticket)
        });
    }

    /// Decodes a request's data, as a door does.
    pub(super) fn submission(&self, request: engine::command::Request) -> Submission {
        let aggregate = self.registry.get(request.stream.category());
        let aggregate = aggregate.expect("clients write only what is registered");
        let command = aggregate
            .decode_command(&request.command, request.schema, request.data.get())
            .expect("clients write only what can be read");
        Submission { request, command }
    }

    /// Continues the connections that waited for room.
    pub(super) fn feed(&mut self, node: usize, partition: usize) {
        let handlers = self.nodes[node].handlers.iter();
        let blocked: Vec<u64> = handlers
            .filter(|(_, handler)| handler.blocked_on == Some(partition))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in blocked {
            let task = self.task(node, partition);
            if task.queues.commands.has_room_for(Sender(connection)) || task.ended {
                self.go_on_with(node, connection);
            }
        }
    }

    /// A line has waited too long for room.
    fn line_late(&mut self, node: usize, connection: u64, number: u64) {
        let handler = self.nodes[node].handlers.get_mut(&connection);
        let Some(handler) = handler.filter(|handler| handler.blocked_on.is_some()) else {
            return;
        };
        let is_late = |line: &mut Line| line.number == number;
        let Some(line) = handler.lines.pop_front_if(is_late) else {
            return;
        };
        let guards = handler.guards.as_ref();
        let guard = guards.and_then(|of| of.get(line.request.stream.as_str()).cloned());
        self.refuse(node, connection, number, guard, TurnedAway::Overloaded);
        self.go_on_with(node, connection);
    }

    /// A command's deadline has come: a client that still waits gets its answer.
    fn deadline(&mut self, node: usize, ticket: u64) {
        if let Some(waiting) = self.nodes[node].waiting.remove(&ticket) {
            let error = self.give_up(node, &waiting);
            self.tell(node, waiting.connection, waiting.line, Err(error));
        }
    }

    /// Gives up a command for which nobody waits any more, and frees its place.
    fn give_up(&mut self, node: usize, waiting: &Waiting) -> SubmitError {
        let error = waiting.waiter.give_up();
        let task = self.task(node, waiting.partition);
        task.queues.given_up |= task.queues.commands.remove(&waiting.place).is_none();
        self.wake(node, waiting.partition);
        error
    }

    /// A client's connection is gone: its unqueued lines are never queued, and the waiting for its
    /// queued lines ends, one after the other.
    pub(super) fn disconnected(&mut self, node: usize, connection: u64) {
        self.nodes[node].handlers.remove(&connection);
        let waiting = self.nodes[node].waiting.iter();
        let tickets: Vec<u64> = waiting
            .filter(|(_, waiting)| waiting.connection == connection)
            .map(|(ticket, _)| *ticket)
            .collect();
        let mut at_us = self.now_us;
        for ticket in tickets {
            at_us += self.random.below(50);
            self.tell_node(at_us, node, move |world, node| {
                world.abandoned(node, ticket)
            });
        }
    }

    /// The client that waited for a command is gone.
    fn abandoned(&mut self, node: usize, ticket: u64) {
        if let Some(waiting) = self.nodes[node].waiting.remove(&ticket) {
            self.give_up(node, &waiting);
            let said = || format!("line {}", waiting.line);
            self.say(Who::Node(node), "abandons", said);
        }
    }

    /// Answers the client that waits for a command.
    pub(super) fn answer_client(&mut self, node: usize, ticket: u64, answer: Reply) {
        if let Ok(answer) = &answer {
            self.check_answer(answer);
        }
        if let Some(waiting) = self.nodes[node].waiting.remove(&ticket) {
            self.tell(node, waiting.connection, waiting.line, answer);
        }
    }

    /// Sends an answer to a client, after all earlier answers.
    fn tell(&mut self, node: usize, connection: u64, line: u64, answer: Reply) {
        let at_us = self.now_us + self.delay_us();
        let Some(open) = self.connections.get_mut(&connection) else {
            return;
        };
        open.last_us = open.last_us.max(at_us);
        let (client, at_us) = (open.client, open.last_us);
        let said = || match &answer {
            Ok(answer) => format!("line {line}: version {}", answer.version),
            Err(error) => format!("line {line}: {error}"),
        };
        self.say(Who::Node(node), "answers", said);
        self.schedule.at(at_us, move |world| {
            world.answered(client, connection, line, answer);
        });
    }
}
