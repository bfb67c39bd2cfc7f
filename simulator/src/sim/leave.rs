//! Planned stops, as `Engine::leave` and `Engine::drain` perform them: the node asks successors to
//! take over, leaves the group, answers the commands that it has taken, and ends its process.
//!
//! Deliberately absent: crashes (`nemesis`).

use std::collections::BTreeMap;

use super::trace::Who;
use super::world::World;

/// How long a node drains at most, in microseconds.
const DRAIN_US: u64 = 1_500_000;
/// How often a stopping node checks how far it is, in microseconds.
const LOOK_EVERY_US: u64 = 20_000;

/// The state of a node's planned stop.
#[derive(Default)]
pub struct Leaving {
    /// The partitions that wait for successors, each with the nodes still to be asked.
    moves: BTreeMap<usize, Vec<usize>>,
    /// When draining began; `None`: not yet.
    drains_from_us: Option<u64>,
}

impl World {
    /// Begins a planned stop.
    pub(super) fn begin_leave(&mut self, node: usize) {
        self.say(Who::Node(node), "stops in order", String::new);
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|other| *other != node && self.nodes[*other].up)
            .collect();
        let mut leaving = Leaving::default();
        for partition in 0..self.logs.len() {
            if self.task(node, partition).seat().not_owning().is_none() && !others.is_empty() {
                let mut candidates = others.clone();
                candidates.rotate_left(partition % others.len());
                candidates.reverse();
                leaving.moves.insert(partition, candidates);
            }
        }
        let partitions: Vec<usize> = leaving.moves.keys().copied().collect();
        self.nodes[node].leaving = Some(leaving);
        for partition in partitions {
            self.ask_next(node, partition);
        }
        self.tell_node(self.now_us, node, Self::leave_step);
    }

    fn ask_next(&mut self, node: usize, partition: usize) {
        while let Some(leaving) = &mut self.nodes[node].leaving {
            let candidate = leaving.moves.get_mut(&partition).and_then(Vec::pop);
            let Some(candidate) = candidate else {
                leaving.moves.remove(&partition);
                return;
            };
            if self.nodes[candidate].up {
                return self.ask_take_over(node, candidate, partition);
            }
        }
    }

    /// A successor took a partition over, or did not in time.
    pub(super) fn taken_over(&mut self, node: usize, partition: usize) {
        let owner = self.task(node, partition).seat().owner();
        if owner.held_term().is_some() {
            self.ask_next(node, partition);
        } else if let Some(leaving) = &mut self.nodes[node].leaving {
            leaving.moves.remove(&partition);
        }
    }

    /// Takes the next step of a planned stop.
    fn leave_step(&mut self, node: usize) {
        let now_us = self.now_us;
        let Some(leaving) = &mut self.nodes[node].leaving else {
            return;
        };
        match leaving.drains_from_us {
            None if leaving.moves.is_empty() => {
                leaving.drains_from_us = Some(now_us);
                self.leave_group(node);
                for partition in 0..self.logs.len() {
                    let task = self.task(node, partition);
                    task.driver.seat_mut().stop();
                    self.wake(node, partition);
                }
            }
            None => {}
            Some(since_us) => {
                let mut tasks = self.nodes[node].tasks.iter().flatten();
                if tasks.all(|task| task.ended) || now_us >= since_us + DRAIN_US {
                    for partition in 0..self.logs.len() {
                        let task = self.nodes[node].tasks[partition].take();
                        if let Some(mut task) = task.filter(|task| !task.ended) {
                            self.end_task(node, partition, &mut task);
                        }
                    }
                    return self.end_process(node);
                }
            }
        }
        self.tell_node(now_us + LOOK_EVERY_US, node, Self::leave_step);
    }
}
