//! The checks of the promises, during a run and at its end.
//!
//! Invariant: the log is read with `history`, never with the engine.

use engine::command::{Answer, Decision};
use engine::owner::Phase;
use engine::seat::Seat;
use event_log::commit::Outcome;
use event_log::record::NewRecord;

use super::door::SimClient;
use super::history::CommandKey;
use super::net::SimPeer;
use super::node::Task;
use super::trace::Who;
use super::violation::Invariant;
use super::world::{RECOVERY_US, World};

/// How many commands may wait in a seat: one batch of inputs, what an owner gave back, and what was
/// open on a link.
const WAITING_MAX: usize = 256 + 1_024 + 1_024;
/// When everything is started once more after a cut, and when the result is checked, in
/// microseconds.
const CUT_RESTART_US: u64 = 2_000_000;
const CUT_LOOK_US: u64 = 5_000_000;

impl World {
    /// Checks an answer against the log at the moment when it is given.
    pub(super) fn check_answer(&mut self, answer: &Answer) {
        if self.was_cut {
            return;
        }
        let key = (
            answer.stream.as_str().to_owned(),
            answer.command_id.as_str().to_owned(),
        );
        let partition = self.partition_of(&key.0);
        if let Some((invariant, what)) = self.held_against_log(partition, &key, answer) {
            self.break_off(invariant, what);
        }
    }

    /// How an answer differs from the log, if it does.
    pub(super) fn held_against_log(
        &self,
        partition: usize,
        key: &CommandKey,
        answer: &Answer,
    ) -> Option<(Invariant, String)> {
        let differs = |what: String| {
            let (stream, id) = key;
            let what = format!("{id} of {stream} was answered, and {what}");
            Some((Invariant::AnsweredIsThere, what))
        };
        let history = &self.histories[partition];
        if answer.command_id.as_str() != key.1 {
            return differs(format!("the answer is of {}", answer.command_id.as_str()));
        }
        if !history.has(key) {
            return differs("is not in the log".to_owned());
        }
        let position = answer.position.positions.get(&history.partition);
        let counted = history
            .of(key)
            .find(|counted| position == Some(&counted.position));
        let Some(commit) = counted.map(|counted| &counted.commit) else {
            return differs("stands elsewhere".to_owned());
        };
        if answer.version != commit.version() {
            return differs("stands elsewhere".to_owned());
        }
        let agrees = match &answer.decision {
            Decision::Accepted(events) => {
                let ids = commit.events.iter().map(|event| event.id);
                commit.outcome == Outcome::Accepted && events.iter().map(|e| e.id).eq(ids)
            }
            Decision::Rejected(rejection) => commit.rejection.as_ref() == Some(rejection),
        };
        if agrees {
            None
        } else {
            differs("the log says otherwise".to_owned())
        }
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

    /// Checks a task after it ran.
    pub(super) fn look_at(&mut self, node: usize, partition: usize, task: &Task) {
        let owner = task.seat().owner();
        let chain = owner.chain();
        if self.was_cut {
            return;
        }
        if let Phase::Stopped(stop) = owner.phase() {
            let what = format!("node {node}: {stop}");
            return self.break_off(Invariant::NoFalseAlarm, what);
        }
        if self.histories[partition].head_at(chain.position) != Some(chain.head) {
            let position = chain.position;
            let what = format!("node {node} at position {position} of partition {partition}");
            return self.break_off(Invariant::ReadersAgree, what);
        }
        if owner.frozen_streams() > 0 && !self.nodes[node].is_broken {
            let frozen = owner.frozen_streams();
            let what =
                format!("node {node} has {frozen} frozen streams, and its rules do not fail");
            return self.break_off(Invariant::FailuresStayAlone, what);
        }
        let most = self.plan.settings.in_flight_max;
        let waits = task.seat().waiting() + task.seat().forwarded_waiting();
        if owner.in_flight() > most || waits > WAITING_MAX {
            let what = format!(
                "node {node} has {} in flight, and {waits} wait",
                owner.in_flight()
            );
            self.break_off(Invariant::Bounded, what);
        }
    }

    /// Ends the faults: everything that is broken is repaired.
    pub(super) fn end_faults(&mut self) {
        self.say(Who::Fault, "the faults end", String::new);
        self.quiet = true;
        self.disconnects = false;
        self.duplicate_next = false;
        self.imitate_next = false;
        let nodes = self.nodes.len();
        self.blocked = vec![vec![0; nodes]; nodes];
        for node in 0..nodes {
            self.nodes[node].clock_off_us = 0;
            if self.nodes[node].up && self.nodes[node].is_broken {
                // The node starts with a program whose rules are correct.
                self.end_process(node);
            }
            self.start_node(node);
        }
        self.stop_projector(1);
        if !self.projectors[0].up {
            self.start_projector(0);
        }
        self.share();
        self.begin_probes();
    }

    /// Checks whether everything that should work again does.
    pub(super) fn probe(&mut self) {
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

    /// A node that believes in an owner whom the log does not know. A node that knows only a former
    /// owner is no problem: each node that it asks corrects it.
    fn who_is_led_astray(&self) -> Option<String> {
        for (number, node) in self.nodes.iter().enumerate() {
            for (partition, task) in node.tasks.iter().enumerate() {
                let target = task.as_ref().and_then(|task| task.seat().target());
                if let Some(hint) = target
                    && hint.term > self.histories[partition].term
                {
                    return Some(format!(
                        "node {number} takes {} for the owner of partition {partition} in term {}",
                        hint.node, hint.term
                    ));
                }
            }
        }
        None
    }

    fn what_stands_still(&self) -> Option<String> {
        for partition in 0..self.logs.len() {
            let owns = |node: &super::node::Node| {
                let task = node.tasks.get(partition).and_then(Option::as_ref);
                task.is_some_and(|task| {
                    let term = task.seat().owner().held_term();
                    let current = term == Some(self.histories[partition].term);
                    current && task.seat().not_owning().is_none()
                })
            };
            if !self.nodes.iter().any(owns) {
                let said = self.nodes.iter().enumerate().map(|(number, node)| {
                    let task = node.tasks.get(partition).and_then(Option::as_ref);
                    let phase = task.map(|task| task.seat().owner().phase().clone());
                    format!("node {number}: {phase:?}")
                });
                let said: Vec<String> = said.collect();
                return Some(format!(
                    "nobody owns partition {partition}; {}",
                    said.join("; ")
                ));
            }
        }
        if let Some(what) = self.who_is_led_astray() {
            return Some(what);
        }
        for (number, client) in self.clients.iter().enumerate() {
            if !client.finished {
                let open = client.open.len();
                return Some(format!("client {number} waits for {open} commands"));
            }
        }
        for (partition, history) in self.histories.iter().enumerate() {
            let reached = self.database[partition].checkpoint.as_ref();
            let reached = reached.map(|checkpoint| checkpoint.position);
            if reached != Some(history.position()) {
                let (at, end) = (reached.unwrap_or_default(), history.position());
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
            let records = self.logs[partition].records();
            let again = self.histories[partition].read_again(records, &self.asked);
            let position = again.position();
            if again.head_at(position) != self.histories[partition].head_at(position)
                || position != self.histories[partition].position()
            {
                let what = format!("partition {partition} read once more");
                self.break_off(Invariant::ReadersAgree, what);
            }
            self.check_rows(partition);
        }
    }

    /// After a cut: all nodes are started once more, and every node that continues must continue
    /// from the log as it is now.
    fn probe_after_cut(&mut self, since_us: u64) {
        if since_us >= CUT_RESTART_US && !self.started_again {
            self.started_again = true;
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
            for node in 0..self.nodes.len() {
                let task = self.nodes[node]
                    .tasks
                    .get(partition)
                    .and_then(Option::as_ref);
                let Some(task) = task else { continue };
                let chain = task.seat().owner().chain();
                // A node that stands by proves before it continues.
                let stopped = matches!(
                    task.seat().owner().phase(),
                    Phase::Stopped(_) | Phase::StandingBy { .. }
                );
                let head = self.histories[partition].head_at(chain.position);
                if !stopped && head != Some(chain.head) {
                    let what = format!("node {node} goes on in partition {partition}");
                    return self.break_off(Invariant::CutIsNoticed, what);
                }
            }
            let stopped = self.projectors[0].readers[partition].stopped.is_some();
            let tables = &self.database[partition];
            let Some(checkpoint) = &tables.checkpoint else {
                continue;
            };
            let history = &self.histories[partition];
            let continues = history.head_at(checkpoint.position) == Some(checkpoint.head)
                && history.rows_at(checkpoint.position) == tables.rows;
            if !stopped && !continues {
                let what = format!("a projector goes on in partition {partition}");
                return self.break_off(Invariant::CutIsNoticed, what);
            }
        }
        self.finished = true;
    }
}
