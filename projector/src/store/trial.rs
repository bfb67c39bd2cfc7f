//! What only Postgres can judge of declarations: the conditions, joins and computed columns of views.
//! All tables and views are made in a transaction that is rolled back.
//!
//! Invariant: nothing stays. A fault of a declaration is told from a Postgres that does not answer or
//! that was not migrated yet. Deliberately absent: what can be found without Postgres
//! (`declare::check`).

use std::sync::Arc;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::declare::check::{DeclarationFault, DeclarationFaults};
use crate::declare::model::{Model, ModelColumn, Source, models_of};
use crate::declare::own_sql::with_names;
use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::projector::connect_options;
use crate::store::sql::{create_table, create_view_as, physical_name, qualified_table};

/// No generation has this number.
const TRIAL: i32 = 0;

/// Lets the Postgres at `url` judge the declarations of all projections. A schema that was not
/// migrated yet, or a user who may not make tables, leaves the judgement to the projector.
///
/// # Errors
/// `Declared`, with all faults; `Postgres` if it does not answer.
pub async fn try_declarations(
    url: &str,
    projections: &[Arc<dyn Projection>],
) -> Result<(), RuntimeError> {
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    let outcome = judge(&mut connection, projections).await;
    let _ = connection.close().await;
    outcome
}

/// The same, on a connection.
pub(crate) async fn judge(
    connection: &mut PgConnection,
    projections: &[Arc<dyn Projection>],
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("try the declarations of the read models");
    let mut faults = Vec::new();
    let mut tx = connection.begin().await.map_err(failed())?;
    for projection in projections {
        match judge_one(&mut tx, &**projection, &mut faults).await {
            Ok(()) => {}
            Err(error) if is_not_prepared(&error) => return Ok(()),
            Err(error) => return Err(failed()(error)),
        }
    }
    tx.rollback().await.map_err(failed())?;
    match faults.is_empty() {
        true => Ok(()),
        false => Err(RuntimeError::Declared(DeclarationFaults(faults))),
    }
}

async fn judge_one(
    tx: &mut PgConnection,
    projection: &dyn Projection,
    faults: &mut Vec<DeclarationFault>,
) -> Result<(), sqlx::Error> {
    let fault = |table, column, reason| DeclarationFault {
        projection: projection.name(),
        table: Some(table),
        column,
        reason,
    };
    let physical = |table: &str| physical_name(table, projection.version(), TRIAL);
    let mut is_whole = true;
    for table in projection.tables() {
        let create = create_table(table, &physical(table.name));
        if let Some(reason) = refused(tx, create).await? {
            faults.push(fault(table.name, None, reason));
            is_whole = false;
        }
    }
    if !is_whole || !is_prepared(tx, projection, &physical, faults).await? {
        return Ok(());
    }
    for model in models_of(projection) {
        let name = physical(model.name);
        let create = |model: &Model| create_view_as(&name, model, &physical);
        let Some(reason) = refused(tx, create(&model)).await? else {
            for (column, found) in other_types(tx, &name, &model).await? {
                let reason = other_type(&column, &found);
                faults.push(fault(model.name, Some(column.name), reason));
            }
            continue;
        };
        let mut single = Vec::new();
        for (column, part) in parts(&model) {
            // Each alone: a view with other columns cannot replace this one.
            let mut alone = tx.begin().await?;
            let mut refused = refused(&mut alone, create(&part)).await?;
            if refused.is_none() {
                let other = other_types(&mut alone, &name, &part).await?.pop();
                refused = other.map(|(column, found)| other_type(&column, &found));
            }
            alone.rollback().await?;
            if let Some(reason) = refused {
                let is_all =
                    part.columns.is_empty() && part.sql_only.is_empty() && part.filter.is_none();
                single.push(fault(model.name, column, reason));
                if is_all {
                    break;
                }
            }
        }
        if single.is_empty() {
            single.push(fault(model.name, None, reason));
        }
        faults.append(&mut single);
    }
    Ok(())
}

/// Whether Postgres takes what a projection with SQL of its own adds to its tables, and drops it with
/// them.
async fn is_prepared(
    tx: &mut PgConnection,
    projection: &dyn Projection,
    physical: &(dyn Fn(&str) -> String + Sync),
    faults: &mut Vec<DeclarationFault>,
) -> Result<bool, sqlx::Error> {
    let prepare = projection.own_sql().map_or("", |own| own.prepare());
    if prepare.is_empty() {
        return Ok(true);
    }
    let tables = projection.tables();
    let name_of = |table: &str| qualified_table(&physical(table));
    let fault = |reason: String| DeclarationFault {
        projection: projection.name(),
        table: None,
        column: None,
        reason,
    };
    if let Some(reason) = refused(tx, with_names(prepare, tables, &name_of)).await? {
        faults.push(fault(format!("its `prepare`: {reason}")));
        return Ok(false);
    }
    let names: Vec<String> = tables.iter().map(|table| name_of(table.name)).collect();
    let mut attempt = tx.begin().await?;
    let drop = AssertSqlSafe(format!("DROP TABLE {}", names.join(", ")));
    let outcome = sqlx::raw_sql(drop).execute(&mut *attempt).await;
    attempt.rollback().await?;
    match outcome {
        Ok(_) => Ok(true),
        // 2BP01: something depends on the tables.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("2BP01") => {
            let reason = "its `prepare` makes something that does not go away with its tables";
            faults.push(fault(format!("{reason}: {}", error.message())));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn other_type(column: &ModelColumn, found: &str) -> String {
    let declared = column.column_type.sql();
    format!("it is declared as {declared}, and its SQL is {found}")
}

/// The view with its joins alone, and then with one column or its condition, to find which of them
/// Postgres refuses.
fn parts(model: &Model) -> Vec<(Option<&'static str>, Model)> {
    let joined = Model {
        columns: Vec::new(),
        sql_only: &[],
        filter: None,
        ..model.clone()
    };
    let mut parts = vec![(None, joined.clone())];
    for column in &model.columns {
        if is_sql(column) {
            let columns = vec![*column];
            parts.push((
                Some(column.name),
                Model {
                    columns,
                    ..joined.clone()
                },
            ));
        }
    }
    for column in model.sql_only {
        let sql_only = std::slice::from_ref(column);
        parts.push((
            Some(column.name),
            Model {
                sql_only,
                ..joined.clone()
            },
        ));
    }
    let filter = model.filter;
    if filter.is_some() {
        parts.push((None, Model { filter, ..joined }));
    }
    parts
}

fn is_sql(column: &ModelColumn) -> bool {
    match column.source {
        Source::Sql(_) | Source::Sum(_) => true,
        Source::Same | Source::OrZero | Source::TooLarge => false,
    }
}

/// Runs a statement. Returns why Postgres refuses it, if the statement is at fault.
async fn refused(tx: &mut PgConnection, statement: String) -> Result<Option<String>, sqlx::Error> {
    let mut attempt = tx.begin().await?;
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut *attempt)
        .await;
    match outcome {
        Ok(_) => {
            attempt.commit().await?;
            Ok(None)
        }
        Err(sqlx::Error::Database(error)) if is_at_fault(error.code().as_deref()) => {
            attempt.rollback().await?;
            Ok(Some(format!("Postgres says: {}", error.message())))
        }
        Err(error) => Err(error),
    }
}

/// Whether an error is the statement's own: what does not exist, does not fit, or cannot be read.
fn is_at_fault(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    let is_of = |class: &str| code.starts_with(class);
    ["0A", "22", "42", "54"].iter().any(|class| is_of(class)) && code != "42501"
}

/// Whether the schema is not migrated yet, or this user may not make tables.
fn is_not_prepared(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("3F000" | "42501"))
}

/// The columns of a view whose SQL has another type than declared, with that type.
async fn other_types(
    tx: &mut PgConnection,
    view: &str,
    model: &Model,
) -> Result<Vec<(ModelColumn, String)>, sqlx::Error> {
    let select = "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
                  WHERE attrelid = to_regclass($1) AND attnum > 0";
    let found: Vec<(String, String)> = sqlx::query_as(select)
        .bind(crate::store::sql::qualified_view(view))
        .fetch_all(tx)
        .await?;
    let type_of = |name: &str| {
        let (_, found) = found.iter().find(|(column, _)| column == name)?;
        // The long name of the same type.
        Some(match found.as_str() {
            "timestamp with time zone" => "timestamptz".to_owned(),
            found => found.to_owned(),
        })
    };
    let columns = model.columns.iter().filter(|column| is_sql(column));
    let columns = columns.filter_map(|column| {
        let found = type_of(column.name)?;
        (found != column.column_type.sql()).then_some((*column, found))
    });
    Ok(columns.collect())
}
