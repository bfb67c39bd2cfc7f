//! Runs a projection's own SQL in the transaction that moves its checkpoint.
//!
//! Invariant: a statement that ends the transaction is found before anything more is written, and a
//! panic stays in the projection. Deliberately absent: what follows from a failure (`run::lane`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use event_log::subscription::{Batch, Placed};
use futures::FutureExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::declare::entry::ProjectError;
use crate::declare::own_sql::{OwnSql, SqlCommit, SqlError, SqlTransaction, with_names};
use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::fold::batch::{Cause, Failure};
use crate::store::generation::Generation;
use crate::store::in_the_way;
use crate::store::sql::qualified_table;
use crate::store::write::{WriteError, classify_own};

/// The places of commits in batches: the batch, and the commit in it.
pub(crate) type Chosen = Vec<(usize, usize)>;

/// Writes the chosen commits, partition by partition.
pub(crate) async fn write(
    tx: &mut PgConnection,
    generation: &Generation,
    index: usize,
    batches: &[Batch],
    chosen: &Chosen,
) -> Result<(), WriteError> {
    let Some(own) = generation.projection.own_sql() else {
        return Ok(());
    };
    for of_batch in chosen.chunk_by(|one, next| one.0 == next.0) {
        let placed = |(batch, commit): &(usize, usize)| &batches[*batch].commits[*commit];
        let commits: Vec<SqlCommit<'_>> = of_batch.iter().map(placed).map(SqlCommit::new).collect();
        apply(tx, generation, own, index, &commits).await?;
    }
    Ok(())
}

/// The first of some commits that its SQL cannot take up, and why. Nothing is written. Absent if each
/// of them can be taken up now.
pub(crate) async fn find_failing<'a>(
    connection: &mut PgConnection,
    generation: &Generation,
    commits: &[&'a Placed],
) -> Result<Option<(&'a Placed, Failure)>, RuntimeError> {
    let Some(own) = generation.projection.own_sql() else {
        return Ok(None);
    };
    let failed = || RuntimeError::postgres("try the commits of a batch");
    let mut tx = connection.begin().await.map_err(failed())?;
    let mut found = None;
    for &placed in commits {
        match apply(&mut tx, generation, own, 0, &[SqlCommit::new(placed)]).await {
            Ok(()) => {}
            Err(WriteError::Failed(failure)) => {
                found = Some((placed, failure));
                break;
            }
            Err(WriteError::Blocked { reason, .. }) => {
                return Err(RuntimeError::Blocked { reason });
            }
            Err(WriteError::Runtime(error)) => return Err(error),
            Err(WriteError::Refused { .. } | WriteError::Repeated) => {
                unreachable!("its own SQL fails in other ways")
            }
        }
    }
    tx.rollback().await.map_err(failed())?;
    Ok(found)
}

/// Applies commits of one partition.
pub(crate) async fn apply(
    tx: &mut PgConnection,
    generation: &Generation,
    own: &dyn OwnSql,
    index: usize,
    commits: &[SqlCommit<'_>],
) -> Result<(), WriteError> {
    let failed = |reason: String, cause| WriteError::Failed(Failure { reason, cause });
    let began = transaction_id(tx).await?;
    let name_of = |table: &str| qualified_table(&generation.table_name(table));
    let mut transaction = SqlTransaction::new(tx, &name_of, generation.projection.tables());
    let applying = async { own.apply(commits, &mut transaction).await };
    let outcome = AssertUnwindSafe(applying).catch_unwind().await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(SqlError::Event(error))) => {
            return Err(WriteError::Failed(Failure::of(&error)));
        }
        Ok(Err(SqlError::Sql(error))) => return Err(classify_own(error, index)),
        Err(_panic) => return Err(failed(ProjectError::Panicked.to_string(), Cause::Commit)),
    }
    if transaction_id(tx).await? != began {
        let reason = "its SQL ended the transaction: the rows may now have effects twice; correct \
                      it, and rebuild";
        return Err(failed(reason.to_owned(), Cause::Rule));
    }
    Ok(())
}

async fn transaction_id(tx: &mut PgConnection) -> Result<String, WriteError> {
    let select = "SELECT pg_current_xact_id()::text";
    let id = sqlx::query_scalar(select).fetch_one(tx).await;
    Ok(id.map_err(RuntimeError::postgres("look at the transaction"))?)
}

/// Adds to a new generation's tables what their declarations cannot say, and empties the tables of
/// others that it fills. Returns the names of what was added.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    number: i32,
) -> Result<Vec<String>, RuntimeError> {
    let Some(own) = projection.own_sql() else {
        return Ok(Vec::new());
    };
    if let Some(reset) = own.reset() {
        sqlx::raw_sql(reset)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("empty the tables of a projection"))?;
    }
    let tables = projection.tables();
    let generation = Generation::new(projection, number);
    let name_of = |table: &str| qualified_table(&generation.table_name(table));
    let prepare = with_names(own.prepare(), tables, &name_of);
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .map_err(RuntimeError::postgres("prepare a projection's tables"))?;
    let names: Vec<String> = tables.iter().map(|table| name_of(table.name)).collect();
    let added = in_the_way::dependents(connection, &names, &names).await?;
    Ok(added.into_iter().map(|(_, identity)| identity).collect())
}
