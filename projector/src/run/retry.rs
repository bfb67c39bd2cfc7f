//! Does what an operator asked for with a parked stream: takes its commits up, or leaves the first
//! one out for ever.
//!
//! Invariant: rows and the list of parked commits change in one transaction. Commits are read from
//! the log and must be the ones that were parked, by their hash. Deliberately absent: who asks
//! (`control`), and the lane that is quiet meanwhile (`lane`).

use event_log::commit::Commit;
use event_log::damage::{Damage, DamageKind};
use event_log::log::EventLog;
use event_log::record::record_hash;
use event_log::subscription::Placed;
use kernel::explained;
use position::{Offset, Partition};
use sqlx::{Connection as _, PgConnection};

use crate::declare::entry::Entry;
use crate::error::RuntimeError;
use crate::fold::batch;
use crate::fold::changes::Changes;
use crate::fold::parked::ParkedCommit;
use crate::store::control;
use crate::store::generation::Generation;
use crate::store::parked::{self, Wish, Wished};
use crate::store::write::{self, Way, WriteError};

/// How many parked commits one transaction takes up.
const COMMITS_MAX: i64 = 500;

/// How far one transaction came.
enum Step {
    /// The stream is no longer parked.
    Released,
    /// More commits are parked.
    More,
    /// The stream stays parked.
    Stays,
    /// Postgres refused rows: fewer commits must be tried at once.
    Refused { reason: String },
}

/// Fulfils a wish. The lane of the generation must not write meanwhile.
///
/// # Errors
/// `Postgres` or `Log` if they do not answer; the wish stays.
pub(crate) async fn fulfil(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    generation: &Generation,
    wished: &Wished,
) -> Result<(), RuntimeError> {
    let mut limit = COMMITS_MAX;
    loop {
        let reason = match step(log, connection, generation, wished, limit).await {
            Ok(Step::Released | Step::Stays) => return Ok(()),
            Ok(Step::More) => continue,
            Ok(Step::Refused { .. }) if limit > 1 => {
                limit = 1;
                continue;
            }
            Ok(Step::Refused { reason }) => reason,
            // What is wrong with this stream or its tables must not hold up the lane.
            Err(error @ (RuntimeError::Stop(_) | RuntimeError::Blocked { .. })) => {
                explained(&error)
            }
            Err(error) => return Err(error),
        };
        return parked::set_reason(connection, &generation.id(), &wished.stream, None, &reason)
            .await;
    }
}

async fn step(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    generation: &Generation,
    wished: &Wished,
    limit: i64,
) -> Result<Step, RuntimeError> {
    let failed = || RuntimeError::postgres("take up a parked stream");
    let (id, stream) = (generation.id(), &wished.stream);
    let mut tx = connection.begin().await.map_err(failed())?;
    match write::hold(&mut tx, std::slice::from_ref(generation), &[0]).await {
        Ok(()) => {}
        Err(WriteError::Runtime(error)) => return Err(error),
        Err(_) => return Err(RuntimeError::Replaced),
    }
    let commits = parked::first_commits(&mut tx, &id, stream, limit).await?;
    let step = match (wished.wish, commits.first()) {
        (_, None) => {
            parked::remove(&mut tx, &id, stream, &[]).await?;
            Step::Released
        }
        (Wish::Discard, Some(first)) => {
            parked::discard(&mut tx, &id.projection, wished, first).await?;
            let discarded = std::slice::from_ref(first);
            let is_parked = parked::remove(&mut tx, &id, stream, discarded).await?;
            let reason = "a commit before it was discarded: retry the stream to take it up";
            parked::set_reason(&mut tx, &id, stream, commits.get(1), reason).await?;
            match is_parked {
                true => Step::Stays,
                false => Step::Released,
            }
        }
        (Wish::Retry, Some(_)) => {
            let placed = read(log, wished.partition, &commits).await?;
            let (changes, failure) = fold(generation, &placed);
            let count = failure.as_ref().map_or(placed.len(), |(index, _)| *index);
            match write::write_rows(&mut tx, generation, 0, &changes, Way::Merge).await {
                Ok(()) => {}
                Err(WriteError::Refused { reason, .. }) => {
                    tx.rollback().await.map_err(failed())?;
                    return Ok(Step::Refused { reason });
                }
                Err(WriteError::Blocked { reason, .. }) => {
                    return Err(RuntimeError::Blocked { reason });
                }
                Err(WriteError::Runtime(error)) => return Err(error),
                Err(WriteError::Repeated | WriteError::Failed(_)) => {
                    unreachable!("rows are merged")
                }
            }
            let is_parked = parked::remove(&mut tx, &id, stream, &commits[..count]).await?;
            match failure {
                Some((index, reason)) => {
                    let at = commits.get(index);
                    parked::set_reason(&mut tx, &id, stream, at, &reason).await?;
                    Step::Stays
                }
                None if is_parked => Step::More,
                None => Step::Released,
            }
        }
    };
    if !matches!(step, Step::More) {
        let what = match (&step, wished.wish) {
            (Step::Released, _) => "the stream is taken up again",
            (_, Wish::Discard) => "its first commit was discarded; the rest stays parked",
            (_, Wish::Retry) => "it stays parked",
        };
        let detail = format!("{}/{}: {what}", stream.tenant, stream.stream);
        let action = match wished.wish {
            Wish::Retry => "retry",
            Wish::Discard => "discard",
        };
        let actor = control::Actor {
            name: &wished.by,
            reason: &wished.why,
        };
        control::note(&mut tx, &id.projection, action, actor, Some(&detail)).await?;
    }
    tx.commit().await.map_err(failed())?;
    Ok(step)
}

/// Contributes commits up to the first that cannot be taken up; its index and the reason are
/// returned, too.
fn fold(generation: &Generation, placed: &[Placed]) -> (Changes, Option<(usize, String)>) {
    let mut count = placed.len();
    let mut failure = None;
    loop {
        let mut changes = Changes::new(generation.projection.tables());
        let project = |one: &Placed| batch::project(generation, &mut changes, &Entry::new(one));
        let failed = placed[..count].iter().map(project).position(|outcome| {
            outcome
                .map_err(|found| failure = Some(found.reason))
                .is_err()
        });
        match failed {
            // What the failing commit contributed in part is left out.
            Some(index) => count = index,
            None => return (changes, failure.map(|reason| (count, reason))),
        }
    }
}

async fn read(
    log: &dyn EventLog,
    partition: Partition,
    commits: &[ParkedCommit],
) -> Result<Vec<Placed>, RuntimeError> {
    let offsets: Vec<Offset> = commits.iter().map(|commit| commit.offset).collect();
    let records = log.read_at(partition, &offsets).await?;
    let mut placed = Vec::with_capacity(commits.len());
    for (parked, record) in commits.iter().zip(records) {
        let damaged = |why: &str| {
            let damage = Damage {
                partition,
                offset: parked.offset,
                kind: DamageKind::Unreadable(why.to_owned()),
            };
            RuntimeError::Stop(damage.into())
        };
        let record = record.ok_or_else(|| damaged("the record of a parked commit is gone"))?;
        if record_hash(&record) != parked.record_hash {
            return Err(damaged("another record stands where one was parked"));
        }
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let commit = Commit::read(key, value).map_err(|error| damaged(&error.to_string()))?;
        placed.push(Placed {
            partition,
            position: parked.position,
            record,
            commit,
            is_checked: true,
        });
    }
    Ok(placed)
}
