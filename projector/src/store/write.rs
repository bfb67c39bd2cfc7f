//! The one transaction of a batch: it writes all checkpoints and rows, or nothing.
//!
//! Invariant: nothing becomes durable unless each checkpoint was exactly the one that the batch
//! continues. Tables are written in the order of the projections, rows in the order of their keys,
//! so that transactions of parallel tasks cannot deadlock.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::declare::table::Table;
use crate::error::RuntimeError;
use crate::fold::batch::{Cause, Failure};
use crate::fold::changes::Changes;
use crate::fold::parked::{Park, ParkedCommit};
use crate::run::writing::Work;
use crate::store::checkpoint::{self, Move};
use crate::store::generation::Generation;
use crate::store::history::Order;
use crate::store::own_sql::{self, Chosen};
use crate::store::parked;
use crate::store::rows::{self, RowsError};

/// How long a transaction may take; after that its outcome counts as unknown.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// The row changes and checkpoint moves of one projection for a batch.
pub(crate) struct Folded {
    /// The index of its generation.
    pub(crate) index: usize,
    pub(crate) changes: Changes,
    /// The commits that its own SQL writes, if it has such.
    pub(crate) own: Option<Chosen>,
    pub(crate) moves: Vec<Move>,
    /// The streams that are parked from a commit of the batch on.
    pub(crate) parks: Vec<Park>,
    /// The commits of parked streams in the batch.
    pub(crate) parked: Vec<ParkedCommit>,
}

/// How rows get into their tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Merged with the rows that the table has.
    Merge,
    /// Copied as new rows, which is less work: for tables that a rebuild is filling.
    Copy,
}

/// Why a batch was not written.
pub(crate) enum WriteError {
    /// The rows of one generation cannot be stored; every retry would fail.
    Refused {
        index: usize,
        reason: String,
        /// Whether the refused row belongs to one stream.
        is_owned: bool,
    },
    /// The own SQL of one generation cannot take up a commit; every retry would fail.
    Failed(Failure),
    /// The rows of one generation cannot be stored now, through no fault of the others.
    Blocked {
        index: usize,
        reason: String,
    },
    /// The table already has some of the rows, so they cannot be copied.
    Repeated,
    Runtime(RuntimeError),
}

impl From<RuntimeError> for WriteError {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

/// How often and how long a transaction waits for a generation that a switch holds.
const HELD_TRIES: u32 = 10;
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// Writes rows and checkpoints in one transaction.
///
/// After any error, load the checkpoints again: the outcome of a commit may be unknown.
pub(crate) async fn write(
    connection: &mut PgConnection,
    generations: &[Generation],
    work: &Work,
    way: Way,
) -> Result<(), WriteError> {
    let transaction = transaction(connection, generations, work, way);
    match tokio::time::timeout(TRANSACTION_LIMIT, transaction).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(RuntimeError::PostgresSilent {
            seconds: TRANSACTION_LIMIT.as_secs(),
        }
        .into()),
    }
}

async fn transaction(
    connection: &mut PgConnection,
    generations: &[Generation],
    work: &Work,
    way: Way,
) -> Result<(), WriteError> {
    let folds = &work.folds;
    let begin = RuntimeError::postgres("begin a transaction");
    let mut tx = connection.begin().await.map_err(begin)?;
    let indices: Vec<usize> = folds.iter().map(|fold| fold.index).collect();
    hold(&mut tx, generations, &indices).await?;
    let moves: Vec<&Move> = folds.iter().flat_map(|fold| &fold.moves).collect();
    checkpoint::compare_and_set(&mut tx, &moves).await?;
    for fold in folds {
        let generation = &generations[fold.index];
        match &fold.own {
            Some(own) => {
                own_sql::write(&mut tx, generation, fold.index, &work.batches, own).await?
            }
            None => {
                let changes = &fold.changes;
                write_rows(&mut tx, generation, fold.index, changes, way, Order::Behind).await?;
            }
        }
        parked::store(&mut tx, &generation.id(), &fold.parks, &fold.parked).await?;
    }
    let commit = RuntimeError::postgres("commit rows and checkpoints");
    tx.commit().await.map_err(commit)?;
    Ok(())
}

/// Writes the rows of one generation.
pub(crate) async fn write_rows(
    tx: &mut PgConnection,
    generation: &Generation,
    index: usize,
    changes: &Changes,
    way: Way,
    order: Order,
) -> Result<(), WriteError> {
    let statements = generation.upserts.iter().zip(&generation.copies);
    for (number, (table, (upsert, copy))) in changes.tables().iter().zip(statements).enumerate() {
        if table.is_empty() {
            continue;
        }
        if let (Some(versions), Some(sql)) = (&table.versions, generation.histories.get(number)) {
            let written = sql.write(tx, table.table, versions, order).await;
            written.map_err(|error| classify(error, index, table.table))?;
        }
        match rows::write(tx, table, upsert, copy, way).await {
            Ok(()) => {}
            Err(RowsError::Sql(error)) if way == Way::Copy && is_repeated(&error) => {
                return Err(WriteError::Repeated);
            }
            Err(RowsError::Sql(error)) => return Err(classify(error, index, table.table)),
            // The projection is wrong, and not the stream.
            Err(RowsError::Foreign(reason)) => {
                return Err(WriteError::Refused {
                    index,
                    reason,
                    is_owned: false,
                });
            }
        }
    }
    Ok(())
}

/// Holds the generations until the end of the transaction, so that a switch waits for it. One that
/// a switch holds is not waited for long: the others go on without it.
///
/// A waiting switch comes before later transactions, which share locks of rows would not give.
pub(crate) async fn hold(
    tx: &mut PgConnection,
    generations: &[Generation],
    indices: &[usize],
) -> Result<(), WriteError> {
    let keys = indices.iter().map(|index| generations[*index].lock_key());
    let keys: Vec<String> = keys.collect();
    let take = "SELECT coalesce(min(n.place), 0) \
                FROM UNNEST($1::text[]) WITH ORDINALITY AS n(key, place) \
                WHERE NOT pg_try_advisory_xact_lock_shared(hashtextextended(n.key, 0))";
    let mut held: i64 = 0;
    for _ in 0..HELD_TRIES {
        held = sqlx::query_scalar(take)
            .bind(&keys)
            .fetch_one(&mut *tx)
            .await
            .map_err(RuntimeError::postgres("hold the generations"))?;
        if held == 0 {
            return Ok(());
        }
        tokio::time::sleep(HELD_PAUSE).await;
    }
    let held = usize::try_from(held - 1).unwrap_or_default();
    Err(WriteError::Blocked {
        index: indices[held],
        reason: "its tables are being switched".to_owned(),
    })
}

/// The code for a full disk. A table may have a tablespace of its own.
const DISK_FULL: &str = "53100";

fn is_repeated(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// What an error of a statement on the rows of one generation means.
fn classify(error: sqlx::Error, index: usize, table: &Table) -> WriteError {
    match judge(error, &format!("in {}", table.name)) {
        Judged::Final(reason) => WriteError::Refused {
            index,
            reason,
            is_owned: table.is_of_streams(),
        },
        Judged::Now(reason) => WriteError::Blocked { index, reason },
        Judged::Postgres(error) => RuntimeError::postgres("write rows")(error).into(),
    }
}

/// What an error of a projection's own SQL means.
pub(crate) fn classify_own(error: sqlx::Error, index: usize) -> WriteError {
    use sqlx::Error as E;
    let fails = |reason: String| {
        WriteError::Failed(Failure {
            reason,
            cause: Cause::Commit,
        })
    };
    // Not of the connection: what the projection asked for, or made of the answer.
    let is_its_own = matches!(
        error,
        E::RowNotFound
            | E::TypeNotFound { .. }
            | E::ColumnIndexOutOfBounds { .. }
            | E::ColumnNotFound(_)
            | E::ColumnDecode { .. }
            | E::Encode(_)
            | E::Decode(_)
            | E::InvalidArgument(_)
    );
    if is_its_own {
        return fails(format!("its SQL failed: {error}"));
    }
    match judge(error, "by its own SQL") {
        Judged::Final(reason) => fails(reason),
        Judged::Now(reason) => WriteError::Blocked { index, reason },
        Judged::Postgres(error) => RuntimeError::postgres("write rows")(error).into(),
    }
}

/// Whether an error of a statement comes again.
enum Judged {
    /// At every retry.
    Final(String),
    /// Perhaps not, and it concerns these rows only.
    Now(String),
    /// It concerns every table.
    Postgres(sqlx::Error),
}

fn judge(error: sqlx::Error, place: &str) -> Judged {
    let said = error.as_database_error();
    let Some((code, said)) = said.and_then(|said| Some((said.code()?, said.message()))) else {
        return Judged::Postgres(error);
    };
    let is_of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    let reason =
        |what: &str| format!("the projection's rows cannot be stored {what}{place}: {said}");
    // Data exceptions (22: a sum out of range, text that cannot be stored), violated constraints
    // (23) and exceeded limits (54: a key too large for its index) return at every retry.
    if is_of(&["22", "23", "54"]) {
        return Judged::Final(reason(""));
    }
    // The connection (08), memory and connections (53, but for the disk), an operator's shutdown (57P)
    // and the server's configuration (F0) concern every table.
    if is_of(&["08", "53", "57P", "F0"]) && code != DISK_FULL {
        return Judged::Postgres(error);
    }
    // A lock of somebody else, a deadlock, a right that was revoked, a table that was changed, a
    // statement that was cancelled or took too long; and what may concern only this table's files: a
    // full tablespace, a disk that fails (58), a damaged table or index (XX).
    Judged::Now(reason("now "))
}
