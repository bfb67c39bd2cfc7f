//! Does what an operator asked for with a parked stream: takes its commits up, or leaves the first
//! one out for ever.
//!
//! Invariant: rows, the list of parked commits and the note of what an operator did change in one
//! transaction. Commits are read from the log before it, and must be the ones that are parked, by
//! their hash. Deliberately absent: who asks (`control`), and the lane that is quiet meanwhile
//! (`lane`).

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
use crate::store::history::Order;
use crate::store::members::GenerationId;
use crate::store::parked::{self, Wish, Wished};
use crate::store::write::{self, Way, WriteError};

/// How many parked commits are read at once, and taken up in one transaction. It bounds the memory:
/// a commit has up to 900 kB.
const COMMITS_MAX: i64 = 64;

/// How far one transaction came.
enum Step {
    /// The stream is no longer parked.
    Released,
    /// More commits are parked.
    More,
    /// The stream stays parked.
    Stays,
    /// Other commits are parked than those that were read.
    Changed,
    /// Postgres refused rows: fewer commits must be tried at once.
    Refused { reason: String },
}

/// What parked commits give.
struct Folded {
    changes: Changes,
    /// How many of them could be taken up.
    count: usize,
    /// Why the next one could not.
    failure: Option<String>,
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
            Ok(Step::More | Step::Changed) => continue,
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
        return stay(connection, &generation.id(), wished, &reason).await;
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
    // Before the transaction: Postgres ends one that waits for a slow log.
    let waiting = parked::waiting(connection, &id, stream, limit).await?;
    let folded = match wished.wish {
        Wish::Retry => Some(fold(
            generation,
            &read(log, wished.partition, &waiting).await?,
        )),
        Wish::Discard => None,
    };
    let mut tx = connection.begin().await.map_err(failed())?;
    match write::hold(&mut tx, std::slice::from_ref(generation), &[0]).await {
        Ok(()) => {}
        Err(WriteError::Runtime(error)) => return Err(error),
        Err(_) => return Err(RuntimeError::Replaced),
    }
    let commits = parked::first_commits(&mut tx, &id, stream, limit).await?;
    if commits != waiting {
        tx.rollback().await.map_err(failed())?;
        return Ok(Step::Changed);
    }
    let step = match (folded, commits.first()) {
        (_, None) => {
            parked::remove(&mut tx, &id, stream, &[]).await?;
            note(&mut tx, &id, wished, RELEASED).await?;
            Step::Released
        }
        (None, Some(first)) => discard(&mut tx, &id, wished, first, commits.get(1)).await?,
        (Some(folded), Some(_)) => {
            match take_up(&mut tx, generation, wished, &commits, folded).await? {
                Step::Refused { reason } => {
                    tx.rollback().await.map_err(failed())?;
                    return Ok(Step::Refused { reason });
                }
                step => step,
            }
        }
    };
    tx.commit().await.map_err(failed())?;
    Ok(step)
}

/// Takes up the first parked commits of a stream.
async fn take_up(
    tx: &mut PgConnection,
    generation: &Generation,
    wished: &Wished,
    commits: &[ParkedCommit],
    folded: Folded,
) -> Result<Step, RuntimeError> {
    let Folded {
        changes,
        count,
        failure,
    } = folded;
    match write::write_rows(tx, generation, 0, &changes, Way::Merge, Order::Among).await {
        Ok(()) => {}
        Err(WriteError::Refused { reason, .. }) => return Ok(Step::Refused { reason }),
        Err(WriteError::Blocked { reason, .. }) => return Err(RuntimeError::Blocked { reason }),
        Err(WriteError::Runtime(error)) => return Err(error),
        Err(WriteError::Repeated | WriteError::Failed(_)) => unreachable!("rows are merged"),
    }
    let (id, stream) = (generation.id(), &wished.stream);
    let is_parked = parked::remove(tx, &id, stream, &commits[..count]).await?;
    let taken_up = match count {
        1 => "1 commit was taken up".to_owned(),
        _ => format!("{count} commits were taken up"),
    };
    let (step, what) = match failure {
        Some(reason) => {
            parked::set_reason(tx, &id, stream, commits.get(count), &reason).await?;
            let what = match count {
                0 => stays(&reason),
                _ => format!("{taken_up}; {}", stays(&reason)),
            };
            (Step::Stays, what)
        }
        None if is_parked => (Step::More, taken_up),
        None => (Step::Released, RELEASED.to_owned()),
    };
    note(tx, &id, wished, &what).await?;
    Ok(step)
}

/// Leaves the first parked commit of a stream out for ever.
async fn discard(
    tx: &mut PgConnection,
    id: &GenerationId,
    wished: &Wished,
    first: &ParkedCommit,
    second: Option<&ParkedCommit>,
) -> Result<Step, RuntimeError> {
    let stream = &wished.stream;
    parked::discard(tx, &id.projection, wished, first).await?;
    let is_parked = parked::remove(tx, id, stream, std::slice::from_ref(first)).await?;
    if !is_parked {
        note(tx, id, wished, RELEASED).await?;
        return Ok(Step::Released);
    }
    let reason = "a commit before it was discarded: retry the stream to take it up";
    parked::set_reason(tx, id, stream, second, reason).await?;
    let what = "its first commit was discarded; the rest stays parked";
    note(tx, id, wished, what).await?;
    Ok(Step::Stays)
}

/// Notes that a wish came to nothing more, and why: the stream stays parked.
async fn stay(
    connection: &mut PgConnection,
    id: &GenerationId,
    wished: &Wished,
    reason: &str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("note why a stream stays parked");
    let mut tx = connection.begin().await.map_err(failed())?;
    note(&mut tx, id, wished, &stays(reason)).await?;
    parked::set_reason(&mut tx, id, &wished.stream, None, reason).await?;
    tx.commit().await.map_err(failed())
}

const RELEASED: &str = "the stream is taken up again";

fn stays(reason: &str) -> String {
    format!("it stays parked: {reason}")
}

/// Records what an operator's wish did to a stream.
async fn note(
    tx: &mut PgConnection,
    id: &GenerationId,
    wished: &Wished,
    what: &str,
) -> Result<(), RuntimeError> {
    let stream = &wished.stream;
    let detail = format!("{}/{}: {what}", stream.tenant, stream.stream);
    let action = match wished.wish {
        Wish::Retry => "retry",
        Wish::Discard => "discard",
    };
    let actor = control::Actor {
        name: &wished.by,
        reason: &wished.why,
    };
    control::note(tx, &id.projection, action, actor, Some(&detail)).await
}

/// Folds commits up to the first that cannot be taken up.
fn fold(generation: &Generation, placed: &[Placed]) -> Folded {
    let mut count = placed.len();
    let mut failure = None;
    loop {
        let mut changes = generation.changes();
        let project = |one: &Placed| batch::project(generation, &mut changes, &Entry::new(one));
        let failed = placed[..count].iter().map(project).position(|outcome| {
            outcome
                .map_err(|found| failure = Some(found.reason))
                .is_err()
        });
        match failed {
            // What the failing commit contributed in part is left out.
            Some(index) => count = index,
            None => {
                return Folded {
                    changes,
                    count,
                    failure,
                };
            }
        }
    }
}

async fn read(
    log: &dyn EventLog,
    partition: Partition,
    commits: &[ParkedCommit],
) -> Result<Vec<Placed>, RuntimeError> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
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
            at: parked.at,
            record,
            commit,
            is_checked: true,
        });
    }
    Ok(placed)
}
