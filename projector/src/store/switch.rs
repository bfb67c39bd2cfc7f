//! Which generation the views show: the first one, and later switches.
//!
//! Invariant: at most one generation of a projection is live, and the views show it; rights and
//! descriptions that users gave stay. Deliberately absent: when a switch may happen
//! (`run::conduct`).

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::declare::model::{Model, models_of};
use crate::error::RuntimeError;
use crate::store::generation::{
    Generation, Live, limit_lock_waits, live, lock_key, lock_making, version_of,
};
use crate::store::reader::show_to_reader;
use crate::store::sql;
use crate::store::views::{drop_past_views, drop_views};
use crate::store::{checkpoint, describe, in_the_way, kept, new_version};

/// SQLSTATE 55P03: a lock could not be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Makes the views show a generation, in place of `live` if there is one.
pub(crate) async fn show(
    connection: &mut PgConnection,
    generation: &Generation,
    live: Option<&Live>,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("let the views show the new tables");
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for model in models_of(&*generation.projection) {
        let given = live.and_then(|live| live.comments_of(model.name));
        for schema in generation.view_schemas() {
            let view = sql::view_in(schema, model.name);
            let present = kept::descriptions(connection, &view).await?;
            show_one(connection, generation, live, &model, schema).await?;
            for declared in describe::comments(&model, schema) {
                let comment = kept::description(&declared, &present, given.as_ref());
                sqlx::raw_sql(AssertSqlSafe(comment.on_view(schema, model.name)))
                    .execute(&mut *connection)
                    .await
                    .map_err(failed())?;
            }
        }
        for declared in describe::comments(&model, sql::VIEW_SCHEMA) {
            let column = declared.column.map(|column| format!(".{column}"));
            names.push(format!("{}{}", model.name, column.unwrap_or_default()));
            texts.push(declared.text);
        }
        if !generation.projection.history().is_kept() {
            drop_past_views(connection, model.name).await?;
        }
    }
    let note = "UPDATE annals.generation SET comments = jsonb_object($3::text[], $4::text[]) \
                WHERE projection = $1 AND generation = $2";
    sqlx::query(note)
        .bind(generation.projection.name())
        .bind(generation.number)
        .bind(names)
        .bind(texts)
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(())
}

/// Makes one view show a generation. The view keeps its rights and, if its columns stay, what
/// others built on it.
async fn show_one(
    connection: &mut PgConnection,
    generation: &Generation,
    live: Option<&Live>,
    model: &Model,
    schema: &'static str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("let the views show the new tables");
    let view = sql::view_in(schema, model.name);
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&view)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    let create = generation.create_view(schema, model.name, model);
    let options = kept::options(connection, &view).await?;
    // Replacing fails if the columns changed.
    let mut attempt = connection.begin().await.map_err(failed())?;
    let replaced = sqlx::raw_sql(AssertSqlSafe(create.clone()))
        .execute(&mut *attempt)
        .await;
    let is_locked = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| code == LOCK_NOT_AVAILABLE)
    };
    match replaced {
        Ok(_) => {
            kept::set_options(&mut attempt, &view, &options).await?;
            attempt.commit().await.map_err(failed())?;
        }
        Err(error) if is_locked(&error) => return Err(failed()(error)),
        Err(_) => {
            attempt.rollback().await.map_err(failed())?;
            // The old view steps aside until the new one has its rights.
            let aside = match live {
                Some(live) => live.table_name(model.name),
                None => generation.table_name(model.name),
            };
            let rename = format!("ALTER VIEW {view} RENAME TO {}", sql::identifier(&aside));
            sqlx::raw_sql(AssertSqlSafe(format!("{rename};\n{create}")))
                .execute(&mut *connection)
                .await
                .map_err(failed())?;
            let aside = sql::view_in(schema, &aside);
            kept::hand_on(connection, &aside, &view).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP VIEW {aside}")))
                .execute(&mut *connection)
                .await
                .map_err(failed())?;
        }
    }
    if !is_there {
        show_to_reader(connection, &view).await?;
    }
    Ok(())
}

/// Makes `building` the live generation, in one transaction; the live one is retired and kept for
/// `keep`. Changes nothing and returns `false` if `building` is behind the live one.
///
/// Nobody waits long for the transaction: if somebody reads the views for long, it fails.
///
/// # Errors
/// `Postgres` if a lock cannot be had within 300 ms; another try may succeed.
pub(crate) async fn switch(
    connection: &mut PgConnection,
    building: &Generation,
    keep: Duration,
) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("switch to the new tables");
    let mut tx = connection.begin().await.map_err(failed())?;
    let switched = switch_in(&mut tx, building, keep).await;
    // At once: a transaction that is only dropped keeps its locks until the connection is used again.
    match switched {
        Ok(true) => tx.commit().await.map_err(failed())?,
        Ok(false) | Err(_) => tx.rollback().await.map_err(failed())?,
    }
    switched
}

async fn switch_in(
    tx: &mut PgConnection,
    building: &Generation,
    keep: Duration,
) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("switch to the new tables");
    let name = building.projection.name();
    limit_lock_waits(tx).await?;
    lock_making(tx).await?;
    let live = live(tx, name).await?;
    if let Some(live) = &live {
        // Again: somebody may have built on the live tables meanwhile.
        in_the_way::require_nothing(tx, live, building).await?;
    }
    // The views first: whoever reads them for long must not hold up those who write.
    show(tx, building, live.as_ref()).await?;
    if let Some(live) = &live {
        let models = models_of(&*building.projection);
        let is_shown = |view: &&String| models.iter().any(|model| model.name == **view);
        let gone = live.views.iter().filter(|view| !is_shown(view));
        drop_views(tx, &gone.cloned().collect::<Vec<_>>()).await?;
        hand_on_tables(tx, live, building).await?;
        // From here on nobody writes the live tables.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(lock_key(name, live.number))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        let reached = checkpoint::load(tx, name, live.number).await?;
        let own = checkpoint::load(tx, name, building.number).await?;
        if checkpoint::is_behind(&own, &reached) {
            return Ok(false);
        }
    }
    new_version::accept(tx, &*building.projection).await?;
    new_version::decline_live(tx, name, version_of(&*building.projection)).await?;
    let retire = "UPDATE annals.generation SET state = 'retired', epoch = epoch + 1, \
                      keep_until = now() + make_interval(secs => $2) \
                  WHERE projection = $1 AND state = 'live'";
    sqlx::query(retire)
        .bind(name)
        .bind(keep.as_secs_f64())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let update = "UPDATE annals.generation \
                  SET state = 'live', epoch = epoch + 1, keep_until = NULL, has_ceiling = false \
                  WHERE projection = $1 AND generation = $2 AND state <> 'live'";
    let changed = sqlx::query(update)
        .bind(name)
        .bind(building.number)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    if changed.rows_affected() != 1 {
        return Err(RuntimeError::Replaced);
    }
    Ok(true)
}

/// Gives the new tables the rights of the live ones.
async fn hand_on_tables(
    tx: &mut PgConnection,
    live: &Live,
    building: &Generation,
) -> Result<(), RuntimeError> {
    for table in building.projection.tables() {
        let (old, new) = (live.table_name(table.name), building.table_name(table.name));
        if live.tables.contains(&old) {
            let (old, new) = (sql::qualified_table(&old), sql::qualified_table(&new));
            kept::hand_on(tx, &old, &new).await?;
        }
    }
    Ok(())
}
