//! The views of a generation's read models: of the present rows, and of the past.
//!
//! Deliberately absent: their SQL (`sql`, `as_of`), and when they change (`switch`).

use sqlx::{AssertSqlSafe, PgConnection};

use crate::declare::model::Model;
use crate::error::RuntimeError;
use crate::store::as_of;
use crate::store::generation::Generation;
use crate::store::sql;

impl Generation {
    /// The schemas in which its read models have views.
    pub(crate) fn view_schemas(&self) -> &'static [&'static str] {
        match self.projection.history().is_kept() {
            true => &sql::VIEW_SCHEMAS,
            false => &sql::VIEW_SCHEMAS[..1],
        }
    }

    /// The statement that creates or replaces one of the views of a read model, under a name.
    pub(crate) fn create_view(&self, schema: &'static str, name: &str, model: &Model) -> String {
        let physical = |table: &str| self.table_name(table);
        if schema == sql::VIEW_SCHEMA {
            return sql::create_view_as(name, model, &physical);
        }
        let table = |name: &str| {
            let mut tables = self.projection.tables().iter();
            let table = tables.find(|table| table.name == name);
            table.expect("declarations are checked")
        };
        as_of::create_view(schema, name, model, &table, &physical)
    }
}

pub(crate) async fn drop_views(
    connection: &mut PgConnection,
    views: &[String],
) -> Result<(), RuntimeError> {
    for view in views {
        drop_past_views(connection, view).await?;
        let view = sql::qualified_view(view);
        let drop = AssertSqlSafe(format!("DROP VIEW IF EXISTS {view}"));
        sqlx::raw_sql(drop)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("drop an old view"))?;
    }
    Ok(())
}

/// Drops the views that show a read model as it was.
pub(crate) async fn drop_past_views(
    connection: &mut PgConnection,
    view: &str,
) -> Result<(), RuntimeError> {
    for schema in &sql::VIEW_SCHEMAS[1..] {
        let drop = format!("DROP VIEW IF EXISTS {}", sql::view_in(schema, view));
        sqlx::raw_sql(AssertSqlSafe(drop))
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("drop an old view"))?;
    }
    Ok(())
}
