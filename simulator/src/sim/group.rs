//! The group, which says which node should own a partition, and the directory, which says which
//! node does own it.
//!
//! Invariant: both only give wishes and hints; while faults last, these may be late, repeated,
//! lost, or wrong.

use event_log::directory::Hint;

use super::event::Process;
use super::trace::Who;
use super::world::World;

/// How long the group takes to notice that a process is gone, at most, in microseconds.
const SESSION_US: u64 = 1_500_000;

pub struct Group {
    /// The process of each node that the group knows.
    members: Vec<Option<Process>>,
    /// The nodes that should own each partition: one, none, or two.
    assigned: Vec<Vec<usize>>,
    /// The supposed owner of each partition.
    pub directory: Vec<Option<Hint>>,
}

impl Group {
    pub(super) fn new(nodes: usize, partitions: usize) -> Self {
        Self {
            members: vec![None; nodes],
            assigned: vec![Vec::new(); partitions],
            directory: vec![None; partitions],
        }
    }
}

impl World {
    /// Schedules the moment at which the group learns that a process is up.
    pub(super) fn join_at(&mut self, at_us: u64, process: Process) {
        self.schedule.at(at_us, move |world| {
            if world.runs(process) && world.nodes[process.node].leaving.is_none() {
                world.group.members[process.node] = Some(process);
                world.share();
            }
        });
    }

    /// The group notices that a process is gone or silent.
    fn gone(&mut self, process: Process) {
        let node = process.node;
        if self.group.members[node] != Some(process) {
            return;
        }
        let there = self.runs(process);
        if there && self.nodes[node].paused_until_us == 0 {
            return;
        }
        self.leave_group(node);
        if there {
            // The node joins again once it continues.
            let at_us = self.nodes[node].paused_until_us + self.random.below(SESSION_US);
            self.join_at(at_us, process);
        }
    }

    /// Schedules the moment at which the group notices that a process is gone.
    pub(super) fn notice_gone(&mut self, node: usize) {
        let process = self.process_of(node);
        let at_us = self.now_us + self.random.between(SESSION_US / 3, SESSION_US);
        self.schedule.at(at_us, move |world| world.gone(process));
    }

    pub(super) fn leave_group(&mut self, node: usize) {
        self.group.members[node] = None;
        self.share();
    }

    /// Assigns the partitions to the members.
    pub(super) fn share(&mut self) {
        let nodes = 0..self.nodes.len();
        let there: Vec<usize> = nodes.filter(|&n| self.group.members[n].is_some()).collect();
        let shift = self.random.index(there.len().max(1));
        for partition in 0..self.logs.len() {
            let owner = (!there.is_empty()).then(|| there[(partition + shift) % there.len()]);
            let keeps = self.group.assigned[partition].first().copied();
            let keeps = keeps.filter(|node| there.contains(node) && self.random.chance(700));
            self.assign(partition, keeps.or(owner).into_iter().collect());
        }
    }

    /// Sets which nodes should own a partition; each node learns of it after a delay of its own.
    pub(super) fn assign(&mut self, partition: usize, nodes: Vec<usize>) {
        let before = std::mem::replace(&mut self.group.assigned[partition], nodes.clone());
        self.say(Who::Group, "assigns", || {
            format!("partition {partition} to {nodes:?}")
        });
        for node in 0..self.nodes.len() {
            let (was, is) = (before.contains(&node), nodes.contains(&node));
            // A new process does not know its assignment yet.
            if self.nodes[node].up && (is || was != is) {
                let most_us = if self.quiet { 50_000 } else { 400_000 };
                let at_us = self.now_us + self.random.below(most_us);
                // A node gets these events in order, and the latest one last.
                let at_us = at_us.max(self.nodes[node].told_us);
                self.nodes[node].told_us = at_us;
                self.tell_node(at_us, node, move |world, node| {
                    world.task(node, partition).assigned = Some(is);
                    world.wake(node, partition);
                });
            }
        }
    }

    /// Puts a hint into the directory; each node learns of it after a delay of its own, or never.
    pub(super) fn say_owner(&mut self, partition: usize, hint: Hint) {
        if !self.quiet && self.random.chance(100) {
            return;
        }
        self.group.directory[partition] = Some(hint.clone());
        for node in 0..self.nodes.len() {
            let late_us = match self.random.chance(200) {
                true => 500_000,
                false => 20_000,
            };
            let lost = !self.quiet && self.random.chance(100);
            if self.nodes[node].up && !lost {
                let at_us = self.now_us + self.random.below(late_us);
                self.tell_hint(at_us, node, partition, hint.clone());
            }
        }
    }

    /// Schedules the moment at which a node learns from the directory who owns a partition.
    pub(super) fn tell_hint(&mut self, at_us: u64, node: usize, partition: usize, hint: Hint) {
        self.tell_node(at_us, node, move |world, node| {
            world.task(node, partition).hint = Some(hint);
            world.wake(node, partition);
        });
    }
}
