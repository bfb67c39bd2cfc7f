//! Tables in a real Postgres to which row changes are written as a projector writes them: for the
//! tests of the runtime itself.
//!
//! Deliberately absent: checkpoints, generations and views.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::declare::table::Table;
use crate::fold::changes::Changes;
use crate::store::copy::Copy;
use crate::store::rows::{self, RowsError};
use crate::store::sql::create_table;
use crate::store::upsert::Upsert;
use crate::store::write::Way;

/// Tables in the schema `projection`, under their declared names.
pub struct Tables {
    statements: Vec<(Upsert, Copy)>,
}

impl Tables {
    /// Creates the tables.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn create(
        connection: &mut PgConnection,
        tables: &'static [Table],
    ) -> Result<Self, sqlx::Error> {
        for table in tables {
            let create = create_table(table, table.name);
            let create = sqlx::raw_sql(AssertSqlSafe(create));
            create.execute(&mut *connection).await?;
        }
        let of = |table: &Table| (Upsert::new(table, table.name), Copy::new(table.name));
        Ok(Self {
            statements: tables.iter().map(of).collect(),
        })
    }

    /// Writes what a batch changes, copying rows if `is_new` says that no row was written yet.
    ///
    /// # Errors
    /// What Postgres says, or that a row belongs to another stream.
    pub async fn write(
        &self,
        connection: &mut PgConnection,
        changes: &Changes,
        is_new: bool,
    ) -> Result<(), String> {
        let way = if is_new { Way::Copy } else { Way::Merge };
        for (fold, (upsert, copy)) in changes.tables().iter().zip(&self.statements) {
            match rows::write(connection, fold, upsert, copy, way).await {
                Ok(()) => {}
                Err(RowsError::Sql(error)) => return Err(error.to_string()),
                Err(RowsError::Foreign(reason)) => return Err(reason),
            }
        }
        Ok(())
    }
}
