//! Appending in the simulated world: each node's process has a producer, with a pipe to each
//! partition.
//!
//! Invariant: a pipe keeps its order and has no gaps. When a producer fails, the end of each pipe
//! is lost, and everything before that lands, now or later. The acknowledgements of a pipe keep its
//! order.

use std::collections::{BTreeSet, VecDeque};

use engine::seat::Input;
use event_log::commit::{Commit, Outcome};
use event_log::log::Appended;
use event_log::record::{Kind, NewRecord, Record, record_hash};
use position::Offset;

use super::book::Post;
use super::event::Process;
use super::history::{Asked, key_of};
use super::node::away;
use super::trace::Who;
use super::world::World;

/// How many records a producer holds for one partition before its queue is full.
const PIPE_MAX: usize = 12;

/// The records on their way to one partition.
#[derive(Default)]
pub struct Pipe {
    queue: VecDeque<(u64, NewRecord)>,
    is_landing: bool,
    last_acknowledged_us: u64,
    /// Records that landed and are not acknowledged yet.
    unacknowledged: BTreeSet<u64>,
}

pub struct Producer {
    process: Process,
    /// Whether it accepts nothing more.
    pub failed: bool,
    pipes: Vec<Pipe>,
}

impl World {
    pub(super) fn new_producer(&mut self, node: usize) -> usize {
        let pipes = (0..self.plan.partitions).map(|_| Pipe::default());
        self.producers.push(Producer {
            process: self.process_of(node),
            failed: false,
            pipes: pipes.collect(),
        });
        self.producers.len() - 1
    }

    /// Hands a record over; returns it if there is no room.
    pub(super) fn produce(
        &mut self,
        producer: usize,
        partition: usize,
        sequence: u64,
        record: NewRecord,
    ) -> Option<NewRecord> {
        let node = self.producers[producer].process.node;
        let full = self.nodes[node].queue_full_until_us > self.now_us;
        let pipe = &mut self.producers[producer].pipes[partition];
        if full || pipe.queue.len() >= PIPE_MAX {
            return Some(record);
        }
        pipe.queue.push_back((sequence, record));
        if !std::mem::replace(&mut pipe.is_landing, true) {
            let at_us = self.now_us + self.delay_us();
            self.land_at(at_us, producer, partition);
        }
        None
    }

    fn land_at(&mut self, at_us: u64, producer: usize, partition: usize) {
        let land = move |world: &mut Self| world.land(producer, partition);
        self.schedule.at(at_us, land);
    }

    /// Lets the next records of a pipe land in the log.
    fn land(&mut self, producer: usize, partition: usize) {
        let Producer {
            process, failed, ..
        } = self.producers[producer];
        let held_until_us = self.nodes[process.node].appends_held_until_us;
        let slow_until_us = self.logs[partition].slow_until_us.max(held_until_us);
        if slow_until_us > self.now_us {
            let at_us = slow_until_us + self.random.below(1_000);
            return self.land_at(at_us, producer, partition);
        }
        let length = self.producers[producer].pipes[partition].queue.len();
        let count = 1 + self.random.index(length.max(1));
        for _ in 0..count {
            let pipe = &mut self.producers[producer].pipes[partition];
            let Some((sequence, record)) = pipe.queue.pop_front() else {
                break;
            };
            if !failed {
                pipe.unacknowledged.insert(sequence);
            }
            if self.is_to_be_imitated(producer, partition, &record) {
                self.imitate(partition, &record);
                self.append_to_log(partition, record);
                // A later record under the same claim would be linked to nothing.
                return self.fail_producer(producer, 0);
            }
            let twice = std::mem::take(&mut self.duplicate_next);
            let offset = self.append_to_log(partition, record.clone());
            if twice {
                self.append_to_log(partition, record);
            }
            if !failed {
                self.acknowledge(producer, partition, sequence, offset);
            }
        }
        let pipe = &mut self.producers[producer].pipes[partition];
        pipe.is_landing = !pipe.queue.is_empty();
        if pipe.is_landing {
            let at_us = self.now_us + self.delay_us();
            self.land_at(at_us, producer, partition);
        }
    }

    /// Whether a stranger's record with these headers may land before this record: only if it would
    /// count, and no record follows in the pipe.
    fn is_to_be_imitated(&mut self, producer: usize, partition: usize, record: &NewRecord) -> bool {
        let producer = &self.producers[producer];
        let is_last = !producer.failed && producer.pipes[partition].queue.is_empty();
        let record = Record::at(self.logs[partition].end(), record.clone());
        let Kind::Commit(commit) = Kind::of(&record) else {
            return false;
        };
        let counts = self.histories[partition].is_continued_by(&commit);
        is_last && counts && std::mem::take(&mut self.imitate_next)
    }

    /// Lands a stranger's record: the headers of one of the owner's records with a command of the
    /// stranger.
    fn imitate(&mut self, partition: usize, record: &NewRecord) {
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let Ok(mut commit) = Commit::read(key, value) else {
            return;
        };
        let (intent, amounts) = (self.number(), Vec::new());
        let post = Post { intent, amounts };
        let data = serde_json::value::to_raw_value(&post).expect("plain data");
        commit.command.id = format!("stranger-{intent}").parse().expect("an id");
        (commit.command.data, commit.command.expected_version) = (data, None);
        (commit.outcome, commit.rejection) = (Outcome::Accepted, None);
        commit.events.clear();
        let asked = Asked {
            intent,
            occurred_at: commit.command.occurred_at,
            after: None,
        };
        let key = key_of(&commit.stream, &commit.command.id);
        self.asked.entry(key).or_insert(asked);
        let value = commit.to_value().expect("a commit is plain data");
        let record = NewRecord {
            value: Some(value),
            ..record.clone()
        };
        self.append_to_log(partition, record);
    }

    fn acknowledge(&mut self, producer: usize, partition: usize, sequence: u64, offset: Offset) {
        let knows = self.no_offsets_until_us <= self.now_us;
        let appended = Appended {
            offset: knows.then_some(offset),
            appended_at_ms: knows.then(|| self.wall_ms()),
        };
        let least_us = (self.now_us + self.delay_us()).max(self.slow_acknowledgements_until_us);
        let pipe = &mut self.producers[producer].pipes[partition];
        pipe.last_acknowledged_us = pipe.last_acknowledged_us.max(least_us);
        let at_us = pipe.last_acknowledged_us;
        let process = self.producers[producer].process;
        self.schedule.tell(at_us, process, move |world, node| {
            // An acknowledgement counts no longer after its producer has failed.
            let pipe = &mut world.producers[producer].pipes[partition];
            if pipe.unacknowledged.remove(&sequence) {
                world.input(node, partition, Input::Appended(sequence, Ok(appended)));
            }
        });
    }

    /// Makes a producer fail. Each of its pipes loses everything from a random place on; the
    /// records before that place land late. No task learns the fate of its appends.
    pub(super) fn fail_producer(&mut self, producer: usize, late_us: u64) {
        if std::mem::replace(&mut self.producers[producer].failed, true) {
            return;
        }
        let process = self.producers[producer].process;
        for partition in 0..self.logs.len() {
            let pipe = &mut self.producers[producer].pipes[partition];
            let mut lost = Vec::from_iter(std::mem::take(&mut pipe.unacknowledged));
            lost.extend(pipe.queue.iter().map(|(sequence, _)| *sequence));
            let kept = self.random.index(pipe.queue.len() + 1);
            pipe.queue.truncate(kept);
            if kept > 0 {
                // If another landing is scheduled already, this one does no harm.
                let at_us = self.later_us(0, late_us);
                self.land_at(at_us, producer, partition);
            }
            for sequence in lost {
                let at_us = self.now_us + self.delay_us();
                self.schedule.tell(at_us, process, move |world, node| {
                    world.input(node, partition, Input::Appended(sequence, Err(away())));
                });
            }
        }
    }

    /// Appends a record to a partition, and checks it against all promises.
    pub(super) fn append_to_log(&mut self, partition: usize, record: NewRecord) -> Offset {
        let at_ms = self.wall_ms();
        let record = self.logs[partition].append(record, at_ms);
        let offset = record.offset;
        self.trace.mix(record_hash(record).0[0].into());
        let judged = self.histories[partition].land(record, &self.asked);
        let described = || {
            let what = match &judged {
                Ok(kind) => (*kind).to_owned(),
                Err((invariant, _)) => format!("{invariant:?}"),
            };
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
            let term = self.histories[partition].term;
            format!("partition {partition} offset {offset} {what} {key} (term {term})")
        };
        self.trace.say(self.now_us, Who::Log, "record", described);
        // After a cut, records that were decided on lost records are linked to nothing.
        if let Err((invariant, what)) = judged
            && !self.was_cut
        {
            let number = self.histories[partition].partition;
            self.break_off(invariant, format!("{number}: {what}"));
        }
        offset
    }
}
