//! The rows of one table, written in a transaction: what goes away, what becomes empty, what is merged
//! or copied.
//!
//! Deliberately absent: checkpoints, and the order of tables (`write`).

use sqlx::PgConnection;

use crate::fold::cell::Cell;
use crate::fold::changes::{Remaining, TableFold};
use crate::store::copy::Copy;
use crate::store::upsert::Upsert;
use crate::store::write::Way;

/// Why the rows of a table were not written.
pub(crate) enum RowsError {
    Sql(sqlx::Error),
    /// A row belongs to another stream than the one that changes it.
    Foreign(String),
}

impl From<sqlx::Error> for RowsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Writes the rows of `fold`.
pub(crate) async fn write(
    tx: &mut PgConnection,
    fold: &TableFold,
    upsert: &Upsert,
    copy: &Copy,
    way: Way,
) -> Result<(), RowsError> {
    let table = fold.table.name;
    if let Some(removal) = &upsert.removal
        && let Some(foreign) = removal.run(tx, fold).await?
    {
        return Err(RowsError::Foreign(foreign.explained(table)));
    }
    let rows = fold.remaining();
    if rows.is_empty() {
        return Ok(());
    }
    if way == Way::Copy {
        return Ok(copy.run(tx, fold.table, &rows).await?);
    }
    for (index, emptying) in upsert.emptyings.iter().enumerate() {
        let Some(emptying) = emptying else { continue };
        let is_emptied = |row: &&Remaining<'_>| row.cells[index] == Cell::Emptied;
        let emptied: Vec<Remaining<'_>> = rows.iter().filter(is_emptied).copied().collect();
        if !emptied.is_empty() {
            emptying
                .query(fold.table, &emptied)
                .execute(&mut *tx)
                .await?;
        }
    }
    let written = upsert.query(fold.table, &rows).execute(&mut *tx).await?;
    let Some(removal) = &upsert.removal else {
        return Ok(());
    };
    if written.rows_affected() == u64::try_from(rows.len()).unwrap_or(u64::MAX) {
        return Ok(());
    }
    match removal.foreign(tx, fold.table, &rows).await? {
        Some(foreign) => Err(RowsError::Foreign(foreign.explained(table))),
        None => Err(RowsError::Foreign(format!(
            "rows of {table} changed while they were written"
        ))),
    }
}
