//! The one transaction of a batch: it writes all checkpoints and rows, or nothing.
//!
//! Invariant: nothing becomes durable unless each checkpoint was exactly the one that the batch
//! continues. Tables are written in the order of the projections, rows in the order of their keys,
//! so that transactions of parallel tasks cannot deadlock.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::error::RuntimeError;
use crate::fold::changes::Changes;
use crate::store::checkpoint::{self, Move};
use crate::store::generation::Generation;

/// How long a transaction may take; after that its outcome counts as unknown.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// The row changes and checkpoint moves of one projection for a batch.
pub(crate) struct Folded {
    /// The index of its generation.
    pub(crate) index: usize,
    pub(crate) changes: Changes,
    pub(crate) moves: Vec<Move>,
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
    /// The rows of one projection cannot be stored; every retry would fail.
    Data {
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

/// Writes rows and checkpoints in one transaction.
///
/// After any error except `Data`, close the connection and load the checkpoints again: the outcome
/// of a commit may be unknown.
pub(crate) async fn write(
    connection: &mut PgConnection,
    generations: &[Generation],
    folds: &[Folded],
    way: Way,
) -> Result<(), WriteError> {
    let transaction = transaction(connection, generations, folds, way);
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
    folds: &[Folded],
    way: Way,
) -> Result<(), WriteError> {
    let begin = RuntimeError::postgres("begin a transaction");
    let mut tx = connection.begin().await.map_err(begin)?;
    hold(&mut tx, generations, folds).await?;
    let moves: Vec<&Move> = folds.iter().flat_map(|fold| &fold.moves).collect();
    checkpoint::compare_and_set(&mut tx, &moves).await?;
    for fold in folds {
        let generation = &generations[fold.index];
        let statements = generation.upserts.iter().zip(&generation.copies);
        for (table, (upsert, copy)) in fold.changes.tables().iter().zip(statements) {
            if table.rows.is_empty() {
                continue;
            }
            let written = match way {
                Way::Merge => upsert.query(table).execute(&mut *tx).await.map(drop),
                Way::Copy => copy.run(&mut tx, table).await,
            };
            match written {
                Ok(()) => {}
                Err(error) if way == Way::Copy && is_repeated(&error) => {
                    return Err(WriteError::Repeated);
                }
                Err(error) => return Err(classify(error, fold.index, table.table.name)),
            }
        }
    }
    let commit = RuntimeError::postgres("commit rows and checkpoints");
    tx.commit().await.map_err(commit)?;
    Ok(())
}

/// Locks the generations until the end of the transaction, so that none is replaced meanwhile.
async fn hold(
    tx: &mut PgConnection,
    generations: &[Generation],
    folds: &[Folded],
) -> Result<(), RuntimeError> {
    let held = || folds.iter().map(|fold| &generations[fold.index]);
    let names: Vec<&str> = held().map(|g| g.projection.name()).collect();
    let numbers: Vec<i32> = held().map(|g| g.number).collect();
    let select = "SELECT g.generation FROM annals.generation AS g \
                  JOIN UNNEST($1::text[], $2::int[]) AS n(projection, generation) \
                  ON g.projection = n.projection AND g.generation = n.generation \
                  ORDER BY g.projection FOR SHARE OF g";
    let rows = sqlx::query(select)
        .bind(names)
        .bind(numbers)
        .fetch_all(tx)
        .await
        .map_err(RuntimeError::postgres("lock the live tables"))?;
    if rows.len() == folds.len() {
        Ok(())
    } else {
        Err(RuntimeError::Replaced)
    }
}

fn is_repeated(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// These errors return at every retry: data exceptions (class 22: a sum out of range, text that
/// cannot be stored), violated constraints (23) and exceeded limits (54: a key too large for its
/// index).
fn classify(error: sqlx::Error, index: usize, table: &str) -> WriteError {
    let code = error.as_database_error().and_then(|e| e.code());
    let is_data = code.is_some_and(|code| {
        ["22", "23", "54"]
            .iter()
            .any(|class| code.starts_with(class))
    });
    if is_data {
        let reason = format!("the projection's rows cannot be stored in {table}: {error}");
        return WriteError::Data { index, reason };
    }
    RuntimeError::postgres("write rows")(error).into()
}
