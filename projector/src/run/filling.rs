//! Writes folded work into tables apart, and finds the commits that cannot be taken up.
//!
//! Invariant: a commit that cannot be taken up leaves nothing, and keeps no other stream back. Deliberately
//! absent: which commits there are (`run::uptake`), and what a transaction writes (`store::apart`).

use event_log::subscription::Placed;

use crate::error::RuntimeError;
use crate::fold::batch::{Cause, Failure, takes_up};
use crate::fold::parked::Park;
use crate::run::refused;
use crate::run::uptake::Work;
use crate::store::apart::{Apart, Portion, Unwritten};
use crate::store::generation::Generation;
use crate::store::own_sql;

/// At most so many refused commits are looked for at a time.
const FOUND_MAX: usize = 100;

impl Work {
    /// What is to be written of it.
    pub(crate) fn portion(&self, generation: &Generation) -> Portion<'_> {
        match generation.projection.own_sql() {
            Some(_) => Portion::Commits(&self.commits),
            None => Portion::Changes(&self.changes),
        }
    }
}

/// What turned out not to be taken up.
#[derive(Default)]
pub(crate) struct Left {
    /// The commits at which streams, or the projection, stopped.
    pub(crate) parks: Vec<Park>,
    /// All commits that were folded, and are not in the rows.
    pub(crate) commits: Vec<Placed>,
}

/// Writes work in a transaction of its own, but for what cannot be taken up.
pub(crate) async fn write(apart: &mut Apart, mut work: Work) -> Result<Left, RuntimeError> {
    let mut left = Left::default();
    loop {
        let portion = work.portion(apart.generation());
        match apart.write(portion, &work.standing).await {
            Ok(()) => return Ok(left),
            Err(unwritten) => {
                let parks = find(apart, &work.commits, unwritten).await?;
                let commits = work.leave_out(apart.generation(), &parks);
                if commits.is_empty() {
                    let reason = "rows are refused, and not those of any commit".to_owned();
                    return Err(RuntimeError::Blocked { reason });
                }
                left.parks.extend(parks);
                left.commits.extend(commits);
            }
        }
    }
}

/// Of commits that were not written, those that cannot be taken up; at least one. Their transaction was
/// rolled back.
pub(crate) async fn find(
    apart: &mut Apart,
    commits: &[Placed],
    unwritten: Unwritten,
) -> Result<Vec<Park>, RuntimeError> {
    let (connection, generation) = apart.parts();
    match unwritten {
        Unwritten::Runtime(error) => Err(error),
        Unwritten::Repeated => unreachable!("rows are merged then"),
        Unwritten::Failed(failure) => {
            let mine = commits.iter().filter(|placed| takes_up(generation, placed));
            let mine: Vec<&Placed> = mine.collect();
            let found = own_sql::find_failing(connection, generation, &mine).await?;
            // If each can be taken up alone, what fails is how they are taken up together.
            let first = mine.first().map(|placed| (*placed, failure));
            let found = found.or(first).into_iter();
            Ok(found
                .map(|(placed, failure)| Park::at(placed, failure))
                .collect())
        }
        Unwritten::Refused { reason } => {
            let all: Vec<&Placed> = commits.iter().collect();
            let mut found = refused::find(connection, generation, &all, FOUND_MAX).await?;
            if found.is_empty() {
                // Nothing is refused any more; or something is, in a way that is not found.
                return Err(RuntimeError::Blocked { reason });
            }
            let place = |placed: &Placed| (placed.at, placed.partition, placed.position);
            found.sort_by_key(|refused| place(refused.placed));
            let park = |refused: refused::Refused<'_>| {
                let failure = Failure {
                    reason: refused.reason,
                    cause: match refused.is_owned {
                        true => Cause::Commit,
                        false => Cause::Rule,
                    },
                };
                Park::at(refused.placed, failure)
            };
            Ok(found.into_iter().map(park).collect())
        }
    }
}
