//! Generations of a projection's tables. One generation is live.
//!
//! Invariant: at most one generation of a projection is live, and the views in `read` show it. A
//! live generation was made from exactly the declarations of this program; otherwise the projection
//! stops until it is rebuilt. Deliberately absent: checkpoints (`checkpoint`) and rows (`write`).

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::copy::Copy;
use super::error::{RuntimeError, StoppedProjection};
use super::model::models_of;
use super::projection::Projection;
use super::sql::{self, Upsert, create_table, create_view, physical_name};
use super::table::Table;

/// The advisory lock under which all processes create generations, one at a time.
const MAKING: &str = "annals.generation";

#[derive(Clone)]
pub(crate) struct Generation {
    pub(crate) projection: Arc<dyn Projection>,
    pub(crate) number: i32,
    /// The upsert of each of the projection's tables, in order.
    pub(crate) upserts: Vec<Upsert>,
    /// The COPY of each table, for rows that the table does not have yet.
    pub(crate) copies: Vec<Copy>,
}

impl Generation {
    fn new(projection: &Arc<dyn Projection>, number: i32) -> Self {
        let tables = || projection.tables().iter();
        let name = |table: &Table| name_in(&**projection, number, table.name);
        Self {
            projection: Arc::clone(projection),
            number,
            upserts: tables().map(|t| Upsert::new(t, &name(t))).collect(),
            copies: tables().map(|t| Copy::new(&name(t))).collect(),
        }
    }
}

fn name_in(projection: &dyn Projection, number: i32, table: &str) -> String {
    physical_name(table, projection.version(), number)
}

fn version_of(projection: &dyn Projection) -> i32 {
    i32::try_from(projection.version()).expect("versions are small numbers")
}

/// The declarations of a projection as text, without the number of a generation.
fn declaration(projection: &dyn Projection) -> String {
    let tables = projection.tables().iter().map(|t| create_table(t, t.name));
    let plain = |table: &str| table.to_owned();
    let models = models_of(projection);
    let views = models.iter().map(|m| create_view(m, &plain));
    tables.chain(views).collect::<Vec<_>>().join(";\n")
}

/// A live generation as stored in Postgres.
pub(crate) struct Live {
    pub(crate) number: i32,
    pub(crate) version: i32,
    pub(crate) tables: Vec<String>,
    pub(crate) views: Vec<String>,
    declaration: String,
}

impl Live {
    /// Why this program must not write the generation; absent if it may.
    pub(crate) fn differs(&self, projection: &dyn Projection) -> Option<String> {
        let (name, version) = (projection.name(), projection.version());
        if self.version != version_of(projection) {
            return Some(format!(
                "the live tables have version {}, and this program has version {version}; rebuild \
                 them with the --log and --postgres of this process: annals projections rebuild \
                 {name}",
                self.version
            ));
        }
        (self.declaration != declaration(projection)).then(|| {
            format!(
                "the projection's declarations changed, but its version did not; rebuild it with \
                 the --log and --postgres of this process: annals projections rebuild {name}"
            )
        })
    }
}

/// The live generation of a projection, if it has one.
pub(crate) async fn live(
    connection: &mut PgConnection,
    projection: &str,
) -> Result<Option<Live>, RuntimeError> {
    let select = "SELECT generation, version, declaration, tables, views \
                  FROM annals.generation WHERE projection = $1 AND state = 'live'";
    let failed = || RuntimeError::postgres("find a projection's live tables");
    let row = sqlx::query(select)
        .bind(projection)
        .fetch_optional(connection)
        .await
        .map_err(failed())?;
    let Some(row) = row else { return Ok(None) };
    let read = || -> Result<Live, sqlx::Error> {
        Ok(Live {
            number: row.try_get("generation")?,
            version: row.try_get("version")?,
            declaration: row.try_get("declaration")?,
            tables: row.try_get("tables")?,
            views: row.try_get("views")?,
        })
    };
    Ok(Some(read().map_err(failed())?))
}

/// The live generation of each of `projections`; it is created if there is none. Also returns the
/// projections that must be rebuilt first, with the numbers of their generations.
pub(crate) async fn ensure_live(
    connection: &mut PgConnection,
    projections: &[Arc<dyn Projection>],
) -> Result<(Vec<Generation>, Vec<(StoppedProjection, i32)>), RuntimeError> {
    let (mut generations, mut stopped) = (Vec::new(), Vec::new());
    for projection in projections {
        let mut found = live(connection, projection.name()).await?;
        if found.is_none() {
            make_first(connection, projection).await?;
            found = live(connection, projection.name()).await?;
        }
        let Some(found) = found else {
            return Err(RuntimeError::Replaced);
        };
        match found.differs(&**projection) {
            None => generations.push(Generation::new(projection, found.number)),
            Some(reason) => {
                let stop = StoppedProjection {
                    projection: projection.name(),
                    partition: None,
                    offset: None,
                    reason,
                };
                stopped.push((stop, found.number));
            }
        }
    }
    Ok((generations, stopped))
}

async fn make_first(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("create a projection's tables");
    let mut tx = connection.begin().await.map_err(failed())?;
    lock_making(&mut tx).await?;
    if live(&mut tx, projection.name()).await?.is_none() {
        let generation = make_tables(&mut tx, projection, "live").await?;
        show(&mut tx, &generation).await?;
        tracing::info!(
            projection = projection.name(),
            version = projection.version(),
            generation = generation.number,
            "created the tables of a projection"
        );
    }
    tx.commit().await.map_err(failed())
}

async fn lock_making(connection: &mut PgConnection) -> Result<(), RuntimeError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(MAKING)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("wait for the lock to create tables"))?;
    Ok(())
}

/// Creates an empty generation beside the live one. Drops what an earlier rebuild left unfinished.
pub(crate) async fn make_building(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
) -> Result<Generation, RuntimeError> {
    let failed = || RuntimeError::postgres("create a projection's tables");
    let mut tx = connection.begin().await.map_err(failed())?;
    lock_making(&mut tx).await?;
    let left = "DELETE FROM annals.generation WHERE projection = $1 AND state = 'building' \
                RETURNING tables";
    let left: Vec<Vec<String>> = sqlx::query_scalar(left)
        .bind(projection.name())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed())?;
    drop_tables(&mut tx, &left.concat()).await?;
    let generation = make_tables(&mut tx, projection, "building").await?;
    tx.commit().await.map_err(failed())?;
    Ok(generation)
}

async fn make_tables(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    state: &'static str,
) -> Result<Generation, RuntimeError> {
    let failed = || RuntimeError::postgres("create a projection's tables");
    let number: i32 = sqlx::query_scalar(
        "SELECT coalesce(max(generation), 0) + 1 FROM annals.generation WHERE projection = $1",
    )
    .bind(projection.name())
    .fetch_one(&mut *connection)
    .await
    .map_err(failed())?;
    let mut tables = Vec::new();
    for table in projection.tables() {
        let name = name_in(&**projection, number, table.name);
        let create = AssertSqlSafe(create_table(table, &name));
        sqlx::raw_sql(create)
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
        tables.push(name);
    }
    let models = models_of(&**projection);
    let views: Vec<&str> = models.iter().map(|model| model.name).collect();
    let insert = "INSERT INTO annals.generation \
                  (projection, generation, version, state, declaration, tables, views) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(insert)
        .bind(projection.name())
        .bind(number)
        .bind(version_of(&**projection))
        .bind(state)
        .bind(declaration(&**projection))
        .bind(tables)
        .bind(views)
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(Generation::new(projection, number))
}

/// Makes the views show a generation.
async fn show(connection: &mut PgConnection, generation: &Generation) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("let the views show the new tables");
    let projection = &*generation.projection;
    let physical = |table: &str| name_in(projection, generation.number, table);
    for model in models_of(projection) {
        let create = create_view(&model, &physical);
        // Replacing a view keeps the objects that others built on it; it fails if the columns
        // changed.
        let mut attempt = connection.begin().await.map_err(failed())?;
        let replaced = sqlx::raw_sql(AssertSqlSafe(create.clone()))
            .execute(&mut *attempt)
            .await;
        if replaced.is_ok() {
            attempt.commit().await.map_err(failed())?;
        } else {
            attempt.rollback().await.map_err(failed())?;
            drop_views(connection, &[model.name.to_owned()]).await?;
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&mut *connection)
                .await
                .map_err(failed())?;
        }
        sqlx::raw_sql(AssertSqlSafe(sql::comments(&model)))
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
    }
    Ok(())
}

/// Makes `building` the live generation. Call this in a transaction that has locked the live one.
pub(crate) async fn switch(
    tx: &mut PgConnection,
    building: &Generation,
    live: Option<&Live>,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("switch to the new tables");
    let name = building.projection.name();
    sqlx::query("DELETE FROM annals.generation WHERE projection = $1 AND state = 'live'")
        .bind(name)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let update = "UPDATE annals.generation SET state = 'live' \
                  WHERE projection = $1 AND generation = $2 AND state = 'building'";
    let changed = sqlx::query(update)
        .bind(name)
        .bind(building.number)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    if changed.rows_affected() != 1 {
        return Err(RuntimeError::Replaced);
    }
    show(tx, building).await?;
    if let Some(live) = live {
        let models = models_of(&*building.projection);
        let is_shown = |view: &String| models.iter().any(|model| model.name == view);
        let gone: Vec<String> = live
            .views
            .iter()
            .filter(|v| !is_shown(v))
            .cloned()
            .collect();
        drop_views(tx, &gone).await?;
        drop_tables(tx, &live.tables).await?;
    }
    Ok(())
}

async fn drop_views(connection: &mut PgConnection, views: &[String]) -> Result<(), RuntimeError> {
    for view in views {
        let view = sql::identifier(view);
        let drop = AssertSqlSafe(format!("DROP VIEW IF EXISTS {}.{view}", sql::VIEW_SCHEMA));
        sqlx::raw_sql(drop)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("drop an old view"))?;
    }
    Ok(())
}

async fn drop_tables(connection: &mut PgConnection, tables: &[String]) -> Result<(), RuntimeError> {
    for table in tables {
        let table = sql::identifier(table);
        let drop = AssertSqlSafe(format!(
            "DROP TABLE IF EXISTS {}.{table}",
            sql::TABLE_SCHEMA
        ));
        sqlx::raw_sql(drop)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("drop an old table"))?;
    }
    Ok(())
}
