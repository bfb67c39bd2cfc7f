//! The checks of the promises, during a run and at its end.
//!
//! Invariant: the log is read with `history`, never with the engine.

use engine::command::{Answer, Decision};
use engine::owner::Phase;
use engine::seat::Seat;
use event_log::commit::{Commit, Outcome};
use event_log::record::NewRecord;

use super::door::SimClient;
use super::history::{Broken, CommandKey, key_of};
use super::net::SimPeer;
use super::node::{Node, Task};
use super::trace::Who;
use super::violation::Invariant;
use super::world::{RECOVERY_US, World};

/// How many commands may wait in a seat: one batch of inputs, what an owner gave back, and what was
/// open on a link.
const WAITING_MAX: usize = 256 + 1_024 + 1_024;
/// How often the promises that need time are checked, in microseconds.
const PROBE_EVERY_US: u64 = 100_000;
/// When everything is started once more after a cut (at a check), and when the result is looked at,
/// in microseconds.
const CUT_RESTART_US: u64 = 20 * PROBE_EVERY_US;
const CUT_LOOK_US: u64 = 5_000_000;

/// A node's task in a partition, if the node is up.
fn task_of(node: &Node, partition: usize) -> Option<&Task> {
    node.tasks.get(partition).and_then(Option::as_ref)
}

impl World {
    /// Checks an answer against the log at the moment when it is given.
    pub(super) fn check_answer(&mut self, answer: &Answer) {
        if self.was_cut {
            return;
        }
        let key = key_of(&answer.stream, &answer.command_id);
        if let Some((invariant, what)) = self.held_against_log(&key, answer) {
            self.break_off(invariant, what);
        }
    }

    /// How an answer to a command differs from the log, if it does.
    pub(super) fn held_against_log(&self, key: &CommandKey, answer: &Answer) -> Option<Broken> {
        let (stream, id) = key;
        let history = &self.histories[self.partition_of(stream)];
        let position = answer.position.positions.get(&history.partition);
        let counted = history.of(key).find(|c| position == Some(&c.position));
        let commit = counted.map(|counted| &counted.commit);
        let commit = commit.filter(|commit| commit.version() == answer.version);
        let agrees = |commit: &Commit| match &answer.decision {
            Decision::Accepted(events) => {
                let ids = commit.events.iter().map(|event| event.id);
                commit.outcome == Outcome::Accepted && events.iter().map(|e| e.id).eq(ids)
            }
            Decision::Rejected(rejection) => commit.rejection.as_ref() == Some(rejection),
        };
        let differs = match commit {
            _ if answer.command_id.as_str() != id => {
                format!("the answer is of {}", answer.command_id.as_str())
            }
            _ if !history.has(key) => "is not in the log".to_owned(),
            None => "stands elsewhere".to_owned(),
            Some(commit) if !agrees(commit) => "the log says otherwise".to_owned(),
            Some(_) => return None,
        };
        let what = format!("{id} of {stream} was answered, and {differs}");
        Some((Invariant::AnsweredIsThere, what))
    }

    /// Checks that the owner's state allows the append that is handed to the log.
    pub(super) fn check_sending(
        &mut self,
        node: usize,
        seat: &Seat<SimClient, SimPeer>,
        record: &NewRecord,
    ) {
        let phase = seat.owner().phase();
        if record.key.is_some() && *phase != Phase::Owning {
            let what = format!("node {node} sends a commit while it is {phase:?}");
            self.break_off(Invariant::SilentAfterDoubt, what);
        }
    }

    pub(super) fn look_at(&mut self, node: usize, partition: usize, task: &Task) {
        if self.was_cut {
            return;
        }
        let (seat, owner) = (task.seat(), task.seat().owner());
        let position = owner.chain().position;
        let (in_flight, frozen) = (owner.in_flight(), owner.frozen_streams());
        let waits = seat.waiting() + seat.forwarded_waiting();
        if let Phase::Stopped(stop) = owner.phase() {
            self.break_off(Invariant::NoFalseAlarm, format!("node {node}: {stop}"));
        } else if self.histories[partition].head_at(position) != Some(owner.chain().head) {
            let what = format!("node {node} at position {position} of partition {partition}");
            self.break_off(Invariant::ReadersAgree, what);
        } else if frozen > 0 && !self.nodes[node].is_broken {
            let what =
                format!("node {node} has {frozen} frozen streams, and its rules do not fail");
            self.break_off(Invariant::FailuresStayAlone, what);
        } else if in_flight > self.plan.settings.in_flight_max || waits > WAITING_MAX {
            let what = format!("node {node} has {in_flight} in flight, and {waits} wait");
            self.break_off(Invariant::Bounded, what);
        }
    }

    /// Ends the faults: everything that is broken is repaired.
    pub(super) fn end_faults(&mut self) {
        self.say(Who::Fault, "the faults end", String::new);
        self.quiet = true;
        self.duplicate_next = false;
        self.imitate_next = false;
        for node in 0..self.nodes.len() {
            self.nodes[node].clock_off_us = 0;
            if self.nodes[node].up && self.nodes[node].is_broken {
                // The node starts with a program whose rules are correct.
                self.end_process(node);
            }
            self.start_node(node);
        }
        self.projectors[1].up = false;
        if !self.projectors[0].up {
            self.start_projector(0);
        }
        self.share();
        self.probe_later();
    }

    fn probe_later(&mut self) {
        self.schedule.at(self.now_us + PROBE_EVERY_US, |world| {
            world.probe();
            world.probe_later();
        });
    }

    /// Checks whether everything that should work again does.
    fn probe(&mut self) {
        let since_us = self.now_us - self.plan.quiet_from_us;
        if self.was_cut {
            return self.probe_after_cut(since_us);
        }
        match self.what_stands_still() {
            None => self.finish(),
            Some(what) if since_us >= RECOVERY_US => {
                self.break_off(Invariant::MovesAgain, what);
            }
            Some(_) => {}
        }
    }

    fn what_stands_still(&self) -> Option<String> {
        for (partition, history) in self.histories.iter().enumerate() {
            let owns = |task: &Task| {
                let current = task.seat().owner().held_term() == Some(history.term);
                current && task.seat().not_owning().is_none()
            };
            let mut tasks = self.nodes.iter().map(|node| task_of(node, partition));
            if !tasks.any(|task| task.is_some_and(owns)) {
                let said = self.nodes.iter().enumerate().map(|(number, node)| {
                    let phase = task_of(node, partition).map(|task| task.seat().owner().phase());
                    format!("node {number}: {phase:?}")
                });
                let said = said.collect::<Vec<_>>().join("; ");
                return Some(format!("nobody owns partition {partition}; {said}"));
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            for (partition, task) in node.tasks.iter().enumerate() {
                // A node that believes in an owner whom the log does not know. A node that knows
                // only a former owner is no problem: each node that it asks corrects it.
                if let Some(hint) = task.as_ref().and_then(|task| task.seat().target())
                    && hint.term > self.histories[partition].term
                {
                    let (owner, term) = (&hint.node, hint.term);
                    return Some(format!(
                        "node {number} takes {owner} for the owner of partition {partition} in \
                         term {term}"
                    ));
                }
            }
        }
        if let Some(number) = self.clients.iter().position(|c| !c.has_finished()) {
            let open = self.clients[number].open.len();
            return Some(format!("client {number} waits for {open} commands"));
        }
        for (partition, history) in self.histories.iter().enumerate() {
            let reached = self.database[partition].checkpoint.as_ref();
            let reached = reached.map(|checkpoint| checkpoint.position);
            let (at, end) = (reached.unwrap_or_default(), history.position());
            if reached != Some(end) {
                return Some(format!(
                    "rows of partition {partition} are at {at} of {end}"
                ));
            }
        }
        None
    }

    /// The end of a run without a cut: checks every promise once more.
    fn finish(&mut self) {
        self.finished = true;
        for partition in 0..self.logs.len() {
            // Reading the whole log again must give what was found record by record.
            let (records, found) = (&self.logs[partition].records, &self.histories[partition]);
            let again = found.read_again(records, &self.asked);
            let position = again.position();
            if (position, again.head_at(position)) != (found.position(), found.head_at(position)) {
                let what = format!("partition {partition} read once more");
                self.break_off(Invariant::ReadersAgree, what);
            }
            self.check_rows(partition);
        }
    }

    /// After a cut: all nodes are started once more, and every node that continues must continue
    /// from the log as it is now.
    fn probe_after_cut(&mut self, since_us: u64) {
        if since_us == CUT_RESTART_US {
            for node in 0..self.nodes.len() {
                if self.nodes[node].up {
                    self.end_process(node);
                }
            }
            self.start_projector(0);
        }
        if since_us < CUT_LOOK_US {
            return;
        }
        for partition in 0..self.logs.len() {
            let history = &self.histories[partition];
            for (number, node) in self.nodes.iter().enumerate() {
                let Some(task) = task_of(node, partition) else {
                    continue;
                };
                let owner = task.seat().owner();
                let chain = owner.chain();
                // A node that stands by proves before it continues.
                let stopped = matches!(owner.phase(), Phase::Stopped(_) | Phase::Standby { .. });
                if !stopped && history.head_at(chain.position) != Some(chain.head) {
                    let what = format!("node {number} goes on in partition {partition}");
                    return self.break_off(Invariant::CutIsNoticed, what);
                }
            }
            let reader = &self.projectors[0].readers[partition];
            let tables = &self.database[partition];
            if let Some(checkpoint) = &tables.checkpoint
                && reader.stopped.is_none()
                && (history.head_at(checkpoint.position) != Some(checkpoint.head)
                    || history.rows_at(checkpoint.position) != tables.rows)
            {
                let what = format!("a projector goes on in partition {partition}");
                return self.break_off(Invariant::CutIsNoticed, what);
            }
        }
        self.finished = true;
    }
}
