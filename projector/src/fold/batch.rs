//! Folds batches of commits into the row changes of each projection, in memory.
//!
//! Invariant: a projection takes up exactly the commits after its own checkpoint; a failing
//! projection does not affect the others. Deliberately absent: I/O.

use std::collections::{BTreeMap, BTreeSet};
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

/// How far a generation has come, and in which partitions it stopped.
#[derive(Default)]
pub(crate) struct Progress {
    /// Up to here commits were folded; their rows are durable or being written.
    pub(crate) taken_up: Places,
    /// Up to here rows and checkpoints are durable.
    pub(crate) durable: Places,
    pub(crate) stopped: BTreeSet<Partition>,
}

impl Progress {
    /// Whether the generation has not taken up all of `batch` yet.
    pub(crate) fn wants(&self, batch: &Batch) -> bool {
        let at = self.taken_up.get(&batch.partition);
        !self.stopped.contains(&batch.partition)
            && at.is_none_or(|checkpoint| checkpoint.offset < batch.after.offset)
    }

    fn wants_commit(&self, placed: &Placed) -> bool {
        let at = self.taken_up.get(&placed.partition);
        at.is_none_or(|checkpoint| checkpoint.offset < placed.record.offset)
    }
}

/// Folds batches for all generations that want them. If a projection fails at a commit, its failure
/// is returned, and its fold leaves out all of that commit's partition.
pub(crate) fn fold(
    generations: &[Generation],
    progress: &mut [Progress],
    batches: &[Batch],
) -> (Vec<Folded>, Vec<StoppedProjection>) {
    let mut stopped = Vec::new();
    loop {
        match try_fold(generations, progress, batches) {
            Ok(folds) => return (folds, stopped),
            Err((index, failure)) => {
                progress[index].stopped.extend(failure.partition);
                stopped.push(failure);
            }
        }
    }
}

fn try_fold(
    generations: &[Generation],
    progress: &[Progress],
    batches: &[Batch],
) -> Result<Vec<Folded>, (usize, StoppedProjection)> {
    let mut folds: Vec<Folded> = Vec::new();
    for (index, generation) in generations.iter().enumerate() {
        let wanted = batches.iter().filter(|batch| progress[index].wants(batch));
        let moves: Vec<Move> = wanted
            .map(|batch| step(generation, &progress[index], batch))
            .collect();
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
        for placed in &batch.commits {
            let entry = Entry::new(placed);
            for fold in &mut folds {
                let progress = &progress[fold.index];
                if !progress.wants(batch) || !progress.wants_commit(placed) {
                    continue;
                }
                let projection = &*generations[fold.index].projection;
                fold.changes.begin(placed);
                let project = || projection.project(&entry, &mut fold.changes);
                let outcome =
                    catch_unwind(AssertUnwindSafe(project)).unwrap_or(Err(ProjectError::Panicked));
                if let Err(error) = outcome {
                    let failure = StoppedProjection {
                        projection: projection.name(),
                        partition: Some(placed.partition),
                        offset: Some(placed.record.offset),
                        reason: explain_project(&error),
                    };
                    return Err((fold.index, failure));
                }
            }
        }
    }
    Ok(folds)
}

fn step(generation: &Generation, progress: &Progress, batch: &Batch) -> Move {
    let projection = &generation.projection;
    Move {
        projection: projection.name(),
        version: i32::try_from(projection.version()).expect("versions are small numbers"),
        generation: generation.number,
        partition: batch.partition,
        before: progress.taken_up.get(&batch.partition).cloned(),
        after: batch.after.clone(),
    }
}
