//! Projectors of the simulated world: the engine's follower with a tiny database, whose
//! transactions compare and set the checkpoint.
//!
//! Invariant: reads, proofs and batches come in the same order as in `subscription::Subscription`.
//! After every transaction, the rows are compared with an independent fold.

use std::collections::{BTreeMap, VecDeque};

use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::log::Chunk;
use event_log::subscription::{Batch, Follower, ProofNeed};
use position::Partition;

use super::event::{Event, Look, ProjectorEvent};
use super::history::{Row, take};
use super::plan::Mistake;
use super::trace::Who;
use super::violation::Invariant;
use super::world::World;

/// How many records a projector reads at once: enough to keep up with the busiest run. Smaller
/// pieces would change nothing, because a projector decides nothing between them.
const PROJECTOR_READ_MAX: usize = 256;
/// The shortest time between two proofs that only foreign records require, in microseconds.
const FOREIGN_PROOF_EVERY_US: u64 = 1_000_000;
/// The pause after a failure, in microseconds.
const RETRY_AFTER_US: u64 = 200_000;

/// The database that all projectors write.
pub struct Database {
    /// The checkpoint of each partition.
    pub checkpoints: Vec<Option<Checkpoint>>,
    /// The rows of each partition, by stream.
    pub rows: Vec<BTreeMap<String, Row>>,
}

#[derive(Default)]
pub struct Projector {
    pub up: bool,
    life: u32,
    followers: Vec<Follower>,
    /// Why a partition's follower goes no further.
    pub stopped: Vec<Option<Stop>>,
    /// Whether a reader is open; opening one needs a proof first.
    is_open: bool,
    proved_us: Vec<Option<u64>>,
    batches: VecDeque<Batch>,
}

impl Database {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            checkpoints: vec![None; partitions],
            rows: vec![BTreeMap::new(); partitions],
        }
    }
}

impl World {
    fn tell_projector(&mut self, after_us: u64, projector: usize, event: ProjectorEvent) {
        let life = self.projectors[projector].life;
        self.schedule.at(
            self.now_us + after_us,
            Event::Projector {
                projector,
                life,
                event,
            },
        );
    }

    /// Starts a projector, or restarts it.
    pub(super) fn start_projector(&mut self, number: usize) {
        let flaw = self.plan.flaw;
        let followers = self.database.checkpoints.iter().enumerate();
        let followers = followers.map(|(partition, durable)| {
            let partition = u32::try_from(partition).expect("there are few");
            Follower::new(Partition(partition), durable.clone()).flawed(flaw)
        });
        let followers: Vec<Follower> = followers.collect();
        let projector = &mut self.projectors[number];
        projector.up = true;
        projector.life += 1;
        projector.stopped = vec![None; followers.len()];
        projector.proved_us = vec![None; followers.len()];
        projector.followers = followers;
        projector.is_open = false;
        projector.batches.clear();
        self.trace
            .say(self.now_us, Who::Projector(number), "starts", String::new);
        self.tell_projector(0, number, ProjectorEvent::Read);
    }

    pub(super) fn stop_projector(&mut self, number: usize) {
        self.projectors[number].up = false;
        self.projectors[number].life += 1;
    }

    pub(super) fn projector_event(&mut self, number: usize, life: u32, event: ProjectorEvent) {
        if !self.projectors[number].up || self.projectors[number].life != life {
            return;
        }
        match event {
            ProjectorEvent::Read if !self.projectors[number].is_open => self.look_where_due(number),
            ProjectorEvent::Read => self.read_log(number),
            ProjectorEvent::Took(chunks) => self.take_chunks(number, chunks),
            ProjectorEvent::Looked(looks) => self.take_looks(number, looks),
            ProjectorEvent::Commit(partition) => self.commit_batch(number, partition),
            ProjectorEvent::Committed(partition, done) => self.committed(number, partition, done),
        }
    }

    fn interrupted(&mut self, number: usize) {
        let projector = &mut self.projectors[number];
        projector.is_open = false;
        projector
            .followers
            .iter_mut()
            .for_each(Follower::interrupted);
        self.tell_projector(RETRY_AFTER_US, number, ProjectorEvent::Read);
    }

    fn read_log(&mut self, number: usize) {
        let mut chunks = Vec::new();
        for (place, log) in self.logs.iter().enumerate() {
            if log.away_until_us > self.now_us {
                return self.interrupted(number);
            }
            let partition = self.histories[place].partition;
            let from = self.projectors[number].followers[place].next_offset();
            chunks.push(log.read(partition, from, PROJECTOR_READ_MAX));
        }
        let delay_us = self.delay_us();
        self.tell_projector(delay_us, number, ProjectorEvent::Took(chunks));
    }

    fn take_chunks(&mut self, number: usize, chunks: Vec<Chunk>) {
        let projector = &mut self.projectors[number];
        for chunk in chunks {
            let place = chunk.partition.0 as usize;
            let follower = &mut projector.followers[place];
            for record in chunk.records {
                if let Err(stop) = follower.take(record) {
                    projector.stopped[place] = Some(stop);
                    break;
                }
            }
            follower.set_at_end(chunk.at_end);
        }
        self.look_where_due(number);
    }

    fn look_where_due(&mut self, number: usize) {
        let mut looks = Vec::new();
        for place in 0..self.logs.len() {
            let projector = &self.projectors[number];
            let follower = &projector.followers[place];
            let lately = projector.proved_us[place]
                .is_some_and(|at_us| self.now_us < at_us + FOREIGN_PROOF_EVERY_US);
            let due = match follower.proof_need() {
                ProofNeed::None => false,
                ProofNeed::Due => true,
                ProofNeed::Foreign => !lately,
            };
            if due && projector.stopped[place].is_none() {
                let look = self.logs[place].reached(self.now_us).ok().map(|log| {
                    let place = follower.places_to_prove().first().copied();
                    let found = place.and_then(|offset| log.at(offset)).cloned();
                    (log.end(), found)
                });
                looks.push((place, look));
            }
        }
        let delay_us = self.delay_us();
        self.tell_projector(delay_us, number, ProjectorEvent::Looked(looks));
    }

    fn take_looks(&mut self, number: usize, looks: Vec<Look>) {
        for (place, look) in looks {
            let Some((end, found)) = look else {
                return self.interrupted(number);
            };
            let projector = &mut self.projectors[number];
            let follower = &mut projector.followers[place];
            projector.proved_us[place] = Some(self.now_us);
            if let Err(damage) = follower.prove(end, found.as_ref()) {
                projector.stopped[place] = Some(damage.into());
            }
        }
        let projector = &mut self.projectors[number];
        if !std::mem::replace(&mut projector.is_open, true) {
            return self.tell_projector(0, number, ProjectorEvent::Read);
        }
        let places = 0..projector.followers.len();
        let batches = places.filter_map(|place| {
            let going = projector.stopped[place].is_none();
            going.then(|| projector.followers[place].batch()).flatten()
        });
        projector.batches = batches.collect();
        self.next_batch(number);
    }

    fn next_batch(&mut self, number: usize) {
        let next = self.projectors[number].batches.front();
        match next.map(|batch| batch.partition.0 as usize) {
            Some(partition) => {
                let delay_us = self.delay_us();
                self.tell_projector(delay_us, number, ProjectorEvent::Commit(partition));
            }
            None => {
                let pause_us = self.random.between(5_000, 60_000);
                self.tell_projector(pause_us, number, ProjectorEvent::Read);
            }
        }
    }

    /// Runs the transaction: writes rows and checkpoint if the stored checkpoint is the one that
    /// the batch continues.
    fn commit_batch(&mut self, number: usize, partition: usize) {
        let mistake = self.plan.mistake;
        let Some(batch) = self.projectors[number].batches.front() else {
            return;
        };
        let continues = self.database.checkpoints[partition] == batch.before
            || mistake == Some(Mistake::ProjectorWithoutCompareAndSet);
        if continues {
            for placed in &batch.commits {
                let stream = placed.commit.stream.as_str().to_owned();
                let row = self.database.rows[partition].entry(stream).or_default();
                take(row, &placed.commit);
            }
            if mistake != Some(Mistake::ProjectorInTwoSteps) {
                self.database.checkpoints[partition] = Some(batch.after.clone());
                self.check_rows(partition);
            }
        }
        let delay_us = self.delay_us();
        let event = ProjectorEvent::Committed(partition, continues);
        self.tell_projector(delay_us, number, event);
    }

    fn committed(&mut self, number: usize, partition: usize, done: bool) {
        if !done {
            // Another projector is at work. This one stops, and later continues from the checkpoint
            // stored then.
            let who = Who::Projector(number);
            self.trace
                .say(self.now_us, who, "lost a checkpoint", String::new);
            self.stop_projector(number);
            let at_us = self.now_us + self.random.between(10_000, RETRY_AFTER_US);
            return self.schedule.at(at_us, Event::StartProjector(number));
        }
        let Some(batch) = self.projectors[number].batches.pop_front() else {
            return;
        };
        if self.plan.mistake == Some(Mistake::ProjectorInTwoSteps) {
            self.database.checkpoints[partition] = Some(batch.after.clone());
            self.check_rows(partition);
        }
        let position = batch.after.position;
        let said = || format!("partition {partition} at position {position}");
        self.trace
            .say(self.now_us, Who::Projector(number), "has written", said);
        self.next_batch(number);
    }

    /// Compares the rows of a partition with an independent fold at their checkpoint.
    pub(super) fn check_rows(&mut self, partition: usize) {
        let Some(checkpoint) = &self.database.checkpoints[partition] else {
            return;
        };
        if self.was_cut {
            return;
        }
        let history = &self.histories[partition];
        let position = checkpoint.position;
        let head = history.head_at(position);
        if head != Some(checkpoint.head) {
            let what =
                format!("a projector's chain at position {position} of partition {partition}");
            return self.break_off(Invariant::ReadersAgree, what);
        }
        if history.rows_at(position) != self.database.rows[partition] {
            let what = format!("rows at position {position} of partition {partition}");
            self.break_off(Invariant::RowsAreTheFold, what);
        }
    }
}
