//! Projectors of the simulated world: the engine's follower with a tiny database, whose
//! transactions compare and set the checkpoint.
//!
//! Invariant: reads, proofs and batches come in the same order as in `subscription::Subscription`.
//! After every transaction, the rows are compared with an independent fold.

use std::collections::{BTreeMap, VecDeque};

use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::log::Chunk;
use event_log::record::Record;
use event_log::subscription::{Batch, Follower, ProofNeed};
use position::Offset;

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

/// What the database that all projectors write holds of one partition.
#[derive(Default)]
pub struct Tables {
    pub checkpoint: Option<Checkpoint>,
    pub rows: BTreeMap<String, Row>,
}

/// What a look for a proof in one partition found: the log's end, and the record; `None`: no log.
type Look = (usize, Option<(Offset, Option<Record>)>);

#[derive(Default)]
pub struct Projector {
    pub up: bool,
    life: u32,
    /// The state of its reading of each partition.
    pub readers: Vec<Reader>,
    /// Whether the log is open for it; opening it needs a proof first.
    is_open: bool,
    batches: VecDeque<Batch>,
}

pub struct Reader {
    follower: Follower,
    /// Why the follower goes no further.
    pub stopped: Option<Stop>,
    proved_us: Option<u64>,
}

impl World {
    /// Schedules an event for this life of a projector. It happens if the projector still runs then.
    fn tell_projector(
        &mut self,
        after_us: u64,
        number: usize,
        event: impl FnOnce(&mut Self, usize) + 'static,
    ) {
        let life = self.projectors[number].life;
        self.schedule.at(self.now_us + after_us, move |world| {
            let projector = &world.projectors[number];
            if projector.up && projector.life == life {
                event(world, number);
            }
        });
    }

    /// Schedules the start of a projector. Once the faults have ended, only the first one starts.
    pub(super) fn start_projector_at(&mut self, at_us: u64, number: usize) {
        self.schedule.at(at_us, move |world| {
            if !world.projectors[number].up && (!world.quiet || number == 0) {
                world.start_projector(number);
            }
        });
    }

    pub(super) fn start_projector(&mut self, number: usize) {
        let partitions = self.histories.iter().map(|history| history.partition);
        let readers = partitions.zip(&self.database).map(|(partition, tables)| {
            let follower = Follower::new(partition, tables.checkpoint.clone());
            Reader {
                follower: follower.flawed(self.plan.flaw),
                stopped: None,
                proved_us: None,
            }
        });
        self.projectors[number] = Projector {
            up: true,
            life: self.projectors[number].life + 1,
            readers: readers.collect(),
            ..Projector::default()
        };
        self.say(Who::Projector(number), "starts", String::new);
        self.tell_projector(0, number, Self::read_log);
    }

    fn interrupted(&mut self, number: usize) {
        let projector = &mut self.projectors[number];
        projector.is_open = false;
        for reader in &mut projector.readers {
            reader.follower.interrupted();
        }
        self.tell_projector(RETRY_AFTER_US, number, Self::read_log);
    }

    fn read_log(&mut self, number: usize) {
        if !self.projectors[number].is_open {
            return self.look_where_due(number);
        }
        let mut chunks = Vec::new();
        for (place, log) in self.logs.iter().enumerate() {
            if log.away_until_us > self.now_us {
                return self.interrupted(number);
            }
            let partition = self.histories[place].partition;
            let follower = &self.projectors[number].readers[place].follower;
            let from = follower.next_offset();
            chunks.push(log.read(partition, from, PROJECTOR_READ_MAX));
        }
        let delay_us = self.delay_us();
        self.tell_projector(delay_us, number, |world, number| {
            world.take_chunks(number, chunks);
        });
    }

    fn take_chunks(&mut self, number: usize, chunks: Vec<Chunk>) {
        for chunk in chunks {
            let place = chunk.partition.0 as usize;
            let reader = &mut self.projectors[number].readers[place];
            let mut records = chunk.records.into_iter();
            if let Err(stop) = records.try_for_each(|record| reader.follower.take(record)) {
                reader.stopped = Some(stop);
            }
        }
        self.look_where_due(number);
    }

    fn look_where_due(&mut self, number: usize) {
        let mut looks = Vec::new();
        for (place, reader) in self.projectors[number].readers.iter().enumerate() {
            let follower = &reader.follower;
            let due = match follower.proof_need() {
                ProofNeed::None => false,
                ProofNeed::Due => true,
                ProofNeed::Foreign => reader
                    .proved_us
                    .is_none_or(|at_us| self.now_us >= at_us + FOREIGN_PROOF_EVERY_US),
            };
            if due && reader.stopped.is_none() {
                let look = self.logs[place].reached(self.now_us).ok().map(|log| {
                    let place = follower.places_to_prove().first().copied();
                    let found = place.and_then(|offset| log.at(offset)).cloned();
                    (log.end(), found)
                });
                looks.push((place, look));
            }
        }
        let delay_us = self.delay_us();
        self.tell_projector(delay_us, number, |world, number| {
            world.take_looks(number, looks);
        });
    }

    fn take_looks(&mut self, number: usize, looks: Vec<Look>) {
        for (place, look) in looks {
            let Some((end, found)) = look else {
                return self.interrupted(number);
            };
            let reader = &mut self.projectors[number].readers[place];
            reader.proved_us = Some(self.now_us);
            if let Err(damage) = reader.follower.prove(end, found.as_ref()) {
                reader.stopped = Some(damage.into());
            }
        }
        let projector = &mut self.projectors[number];
        if !std::mem::replace(&mut projector.is_open, true) {
            return self.tell_projector(0, number, Self::read_log);
        }
        let going = projector.readers.iter_mut().filter(|r| r.stopped.is_none());
        projector.batches = going.filter_map(|r| r.follower.batch()).collect();
        self.next_batch(number);
    }

    fn next_batch(&mut self, number: usize) {
        if self.projectors[number].batches.is_empty() {
            let pause_us = self.random.between(5_000, 60_000);
            self.tell_projector(pause_us, number, Self::read_log);
        } else {
            let delay_us = self.delay_us();
            self.tell_projector(delay_us, number, Self::commit_batch);
        }
    }

    /// Runs the transaction: writes rows and checkpoint if the stored checkpoint is the one that
    /// the batch continues.
    fn commit_batch(&mut self, number: usize) {
        let mistake = self.plan.mistake;
        let batch = self.projectors[number].batches.front();
        let batch = batch.expect("a batch is due");
        let partition = batch.partition.0 as usize;
        let tables = &mut self.database[partition];
        let continues = tables.checkpoint == batch.before
            || mistake == Some(Mistake::ProjectorWithoutCompareAndSet);
        if continues {
            for placed in &batch.commits {
                let stream = placed.commit.stream.as_str().to_owned();
                let row = tables.rows.entry(stream).or_default();
                take(row, &placed.commit);
            }
            if mistake != Some(Mistake::ProjectorInTwoSteps) {
                tables.checkpoint = Some(batch.after.clone());
                self.check_rows(partition);
            }
        }
        let delay_us = self.delay_us();
        self.tell_projector(delay_us, number, move |world, number| {
            world.committed(number, continues);
        });
    }

    /// The projector learns whether its transaction was committed.
    fn committed(&mut self, number: usize, done: bool) {
        if !done {
            // Another projector is at work. This one stops, and later continues from the checkpoint
            // stored then.
            self.say(Who::Projector(number), "lost a checkpoint", String::new);
            self.projectors[number].up = false;
            let at_us = self.now_us + self.random.between(10_000, RETRY_AFTER_US);
            return self.start_projector_at(at_us, number);
        }
        let batch = self.projectors[number].batches.pop_front();
        let batch = batch.expect("it was written");
        let partition = batch.partition.0 as usize;
        if self.plan.mistake == Some(Mistake::ProjectorInTwoSteps) {
            self.database[partition].checkpoint = Some(batch.after.clone());
            self.check_rows(partition);
        }
        let position = batch.after.position;
        let said = || format!("partition {partition} at position {position}");
        self.say(Who::Projector(number), "has written", said);
        self.next_batch(number);
    }

    /// Compares the rows of a partition with an independent fold at their checkpoint.
    pub(super) fn check_rows(&mut self, partition: usize) {
        let tables = &self.database[partition];
        let Some(checkpoint) = tables.checkpoint.as_ref().filter(|_| !self.was_cut) else {
            return;
        };
        let history = &self.histories[partition];
        let position = checkpoint.position;
        let at = format!("at position {position} of partition {partition}");
        if history.head_at(position) != Some(checkpoint.head) {
            self.break_off(Invariant::ReadersAgree, format!("a projector's chain {at}"));
        } else if history.rows_at(position) != tables.rows {
            self.break_off(Invariant::RowsAreTheFold, format!("rows {at}"));
        }
    }
}
