//! Folds batches of commits into the row changes of each projection, in memory.
//!
//! Invariant: a projection takes up exactly the commits after its own checkpoint; a failing
//! projection does not affect the others. Deliberately absent: I/O.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use event_log::checkpoint::Checkpoint;
use event_log::subscription::{Batch, Placed};
use position::Partition;

use crate::declare::entry::{Entry, ProjectError};
use crate::error::{StoppedProjection, explain_project};
use crate::fold::changes::Changes;
use crate::store::checkpoint::Move;
use crate::store::generation::Generation;
use crate::store::write::Folded;

/// A checkpoint for each partition.
pub(crate) type Places = BTreeMap<Partition, Checkpoint>;

/// How far a generation has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// Up to here commits were folded; their rows are durable or being written.
    pub(crate) taken_up: Places,
    /// Up to here rows and checkpoints are durable.
    pub(crate) durable: Places,
    /// How far it may go, if it is being built beside a live one that it is compared with.
    pub(crate) ceiling: Option<Places>,
}

impl Progress {
    /// Whether the generation has not taken up all of `batch` that it may.
    pub(crate) fn wants(&self, batch: &Batch) -> bool {
        let at = self.taken_up.get(&batch.partition);
        let after = self.after(batch);
        after.is_some_and(|after| at.is_none_or(|at| at.offset < after.offset))
    }

    /// Whether it has not taken up this commit, which comes before or at `after`.
    fn wants_commit(&self, placed: &Placed, after: &Checkpoint) -> bool {
        let at = self.taken_up.get(&placed.partition);
        at.is_none_or(|at| at.offset < placed.record.offset) && placed.record.offset <= after.offset
    }

    /// Where it is once it has taken up what it may of `batch`; absent if it may take up nothing.
    fn after<'a>(&'a self, batch: &'a Batch) -> Option<&'a Checkpoint> {
        let Some(ceiling) = &self.ceiling else {
            return Some(&batch.after);
        };
        let ceiling = ceiling.get(&batch.partition)?;
        Some(if ceiling.offset < batch.after.offset {
            ceiling
        } else {
            &batch.after
        })
    }

    /// Whether it has gone as far as it may in each of `partitions`.
    pub(crate) fn is_at_ceiling(&self, partitions: &[Partition]) -> bool {
        let Some(ceiling) = &self.ceiling else {
            return false;
        };
        let is_there = |partition: &Partition| {
            let offset = |places: &Places| places.get(partition).map(|place| place.offset);
            offset(&self.durable) >= offset(ceiling)
        };
        partitions.iter().all(is_there)
    }
}

/// Folds batches for all generations that want them.
///
/// # Errors
/// If a projection fails at a commit: its index, and the place and the reason of its failure.
pub(crate) fn fold(
    generations: &[Generation],
    progress: &[Progress],
    batches: &[Batch],
) -> Result<Vec<Folded>, (usize, StoppedProjection)> {
    let mut folds: Vec<Folded> = Vec::new();
    for (index, generation) in generations.iter().enumerate() {
        let step = |batch| step(generation, &progress[index], batch);
        let moves: Vec<Move> = batches.iter().filter_map(step).collect();
        if !moves.is_empty() {
            let changes = Changes::new(generation.projection.tables());
            folds.push(Folded {
                index,
                changes,
                moves,
            });
        }
    }
    for batch in batches {
        let mut wanting: Vec<(&mut Folded, &Checkpoint)> = Vec::new();
        for fold in &mut folds {
            let progress = &progress[fold.index];
            if let Some(after) = progress.after(batch).filter(|_| progress.wants(batch)) {
                wanting.push((fold, after));
            }
        }
        for placed in &batch.commits {
            let entry = Entry::new(placed);
            for (fold, after) in &mut wanting {
                if progress[fold.index].wants_commit(placed, after) {
                    project(generations, fold, &entry)?;
                }
            }
        }
    }
    Ok(folds)
}

fn project(
    generations: &[Generation],
    fold: &mut Folded,
    entry: &Entry<'_>,
) -> Result<(), (usize, StoppedProjection)> {
    let projection = &*generations[fold.index].projection;
    fold.changes.begin(entry.placed());
    let project = || projection.project(entry, &mut fold.changes);
    let outcome = catch_unwind(AssertUnwindSafe(project)).unwrap_or(Err(ProjectError::Panicked));
    outcome.map_err(|error| {
        let failure = StoppedProjection {
            projection: projection.name().to_owned(),
            partition: Some(entry.partition()),
            offset: Some(entry.offset()),
            reason: explain_project(&error),
        };
        (fold.index, failure)
    })
}

fn step(generation: &Generation, progress: &Progress, batch: &Batch) -> Option<Move> {
    if !progress.wants(batch) {
        return None;
    }
    let projection = &generation.projection;
    Some(Move {
        projection: projection.name(),
        version: i32::try_from(projection.version()).expect("versions are small numbers"),
        generation: generation.number,
        partition: batch.partition,
        before: progress.taken_up.get(&batch.partition).cloned(),
        after: progress.after(batch)?.clone(),
    })
}
