//! Folds batches of commits into the row changes of each projection, in memory.
//!
//! Invariant: a projection takes up exactly the commits after its own checkpoint; a failing
//! projection does not affect the others. Deliberately absent: I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use event_log::checkpoint::Checkpoint;
use event_log::record::record_hash;
use event_log::subscription::{Batch, Placed};
use position::{Partition, Position};

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::own_sql::SqlCommit;
use crate::error::explain_project;
use crate::fold::changes::Changes;
use crate::fold::parked::{Park, ParkedCommit, StreamId};
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
    /// Its parked streams.
    pub(crate) parked: BTreeSet<StreamId>,
    /// Streams that are parked once the transaction that passes their commits is durable.
    pub(crate) parking: BTreeMap<StreamId, Park>,
    /// Commits that operators discarded, with the hashes of their records.
    pub(crate) discarded: BTreeMap<(Partition, Position), Vec<u8>>,
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

    /// Whether a commit is to be taken up, and its rows are not durable.
    pub(crate) fn lacks(&self, placed: &Placed) -> bool {
        let at = self.durable.get(&placed.partition);
        let is_within = self.ceiling.as_ref().is_none_or(|ceiling| {
            let ceiling = ceiling.get(&placed.partition);
            ceiling.is_some_and(|ceiling| placed.record.offset <= ceiling.offset)
        });
        at.is_none_or(|at| at.offset < placed.record.offset)
            && is_within
            && self.sets_aside(placed).is_none()
    }

    /// Whether the fold sets a commit aside: `true` if it is parked, `false` if it was discarded;
    /// absent if it is to be taken up.
    fn sets_aside(&self, placed: &Placed) -> Option<bool> {
        if !self.parked.is_empty() || !self.parking.is_empty() {
            let stream = StreamId::of(placed);
            let park = self.parking.get(&stream);
            let is_behind = |park: &Park| park.position <= placed.position;
            if self.parked.contains(&stream) || park.is_some_and(is_behind) {
                return Some(true);
            }
        }
        let place = (placed.partition, placed.position);
        let discarded = self.discarded.get(&place)?;
        (**discarded == record_hash(&placed.record).0).then_some(false)
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
/// If a projection fails at a commit: its index, and its stream with the place and the reason.
pub(crate) fn fold(
    generations: &[Generation],
    progress: &[Progress],
    batches: &[Batch],
) -> Result<Vec<Folded>, Box<(usize, Park)>> {
    let mut folds: Vec<Folded> = Vec::new();
    for (index, generation) in generations.iter().enumerate() {
        let step = |batch| step(generation, &progress[index], batch);
        let moves: Vec<Move> = batches.iter().filter_map(step).collect();
        if !moves.is_empty() {
            let changes = generation.changes();
            folds.push(Folded {
                index,
                changes,
                own: generation.projection.own_sql().map(|_| Vec::new()),
                moves,
                parks: Vec::new(),
                parked: Vec::new(),
            });
        }
    }
    for (of_batch, batch) in batches.iter().enumerate() {
        let mut wanting: Vec<(&mut Folded, &Checkpoint)> = Vec::new();
        for fold in &mut folds {
            let progress = &progress[fold.index];
            if let Some(after) = progress.after(batch).filter(|_| progress.wants(batch)) {
                wanting.push((fold, after));
            }
        }
        for (of_commit, placed) in batch.commits.iter().enumerate() {
            let entry = Entry::new(placed);
            for (fold, after) in &mut wanting {
                let progress = &progress[fold.index];
                if !progress.wants_commit(placed, after) {
                    continue;
                }
                match progress.sets_aside(placed) {
                    None => {
                        let generation = &generations[fold.index];
                        if let Some(own) = &mut fold.own {
                            if takes_up(generation, placed) {
                                own.push((of_batch, of_commit));
                            }
                            continue;
                        }
                        project(generation, &mut fold.changes, &entry)
                            .map_err(|failure| Box::new((fold.index, Park::at(placed, failure))))?;
                    }
                    Some(true) => {
                        let commit = ParkedCommit::of(placed);
                        let park = progress.parking.get(&commit.stream);
                        let begins = |park: &&Park| park.position == placed.position;
                        fold.parks.extend(park.filter(begins).cloned());
                        fold.parked.push(commit);
                    }
                    Some(false) => {}
                }
            }
        }
    }
    Ok(folds)
}

/// Whether a projection with SQL of its own takes a commit up.
pub(crate) fn takes_up(generation: &Generation, placed: &Placed) -> bool {
    let own = generation.projection.own_sql();
    own.is_some_and(|own| own.takes_up(&SqlCommit::new(placed)))
}

/// Why a commit cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) cause: Cause,
}

/// What is wrong if a commit cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The commit, or the rule at this commit.
    Commit,
    /// The rule, whatever the commit: the projection stops.
    Rule,
    /// The program: it is too old for an event. A newer one takes the commit up.
    Program,
}

/// Contributes one commit.
///
/// # Errors
/// Why it cannot be taken up. `changes` then holds a part of its contributions.
pub(crate) fn project(
    generation: &Generation,
    changes: &mut Changes,
    entry: &Entry<'_>,
) -> Result<(), Failure> {
    let projection = &*generation.projection;
    changes.begin(entry.placed());
    let project = || {
        projection.project(entry, changes)?;
        changes.end()
    };
    let outcome = catch_unwind(AssertUnwindSafe(project)).unwrap_or(Err(ProjectError::Panicked));
    outcome.map_err(|error| Failure::of(&error))
}

impl Failure {
    pub(crate) fn of(error: &ProjectError) -> Self {
        Self {
            cause: match error {
                ProjectError::OtherStream { .. } => Cause::Rule,
                ProjectError::Event { source, .. } if source.is_newer() => Cause::Program,
                ProjectError::Event { .. } | ProjectError::Panicked => Cause::Commit,
            },
            reason: explain_project(error),
        }
    }
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
