//! Generations of a projection's tables. One generation is live.
//!
//! Invariant: at most one generation of a projection is live, and the views in `read` show it. A
//! live generation was made from exactly the declarations of this program; otherwise the projection
//! stops until it is rebuilt. Deliberately absent: checkpoints (`checkpoint`) and rows (`write`).

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::declare::history::History;
use crate::declare::model::models_of;
use crate::declare::projection::Projection;
use crate::declare::table::Table;
use crate::error::RuntimeError;
use crate::fold::changes::Changes;
use crate::store::compare::Comparison;
use crate::store::copy::Copy;
use crate::store::describe;
use crate::store::drift::Declaration;
use crate::store::history::{self, HistorySql};
use crate::store::in_place;
use crate::store::in_the_way;
use crate::store::indexes;
use crate::store::members::GenerationId;
use crate::store::own_sql;
use crate::store::sql::{self, create_table, physical_name};
use crate::store::switch;
use crate::store::trial;
use crate::store::upsert::Upsert;

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
    /// The statements on the versions of the rows of each table; empty if none are kept.
    pub(crate) histories: Vec<HistorySql>,
    /// The schema of its tables, if they stand apart from those that are registered (`apart`).
    pub(super) schema: Option<Arc<str>>,
}

impl Generation {
    pub(crate) fn new(projection: &Arc<dyn Projection>, number: i32) -> Self {
        let name = |table: &Table| name_in(&**projection, number, table.name);
        Self {
            histories: match projection.history() {
                History::Off => Vec::new(),
                history => (projection.tables().iter())
                    .map(|t| HistorySql::new(t, &name(t), history))
                    .collect(),
            },
            ..Self::without_history(projection, number, &name)
        }
    }

    /// Tables whose past is not kept.
    pub(super) fn without_history(
        projection: &Arc<dyn Projection>,
        number: i32,
        name: &dyn Fn(&Table) -> String,
    ) -> Self {
        let tables = || projection.tables().iter();
        Self {
            projection: Arc::clone(projection),
            number,
            upserts: tables().map(|t| Upsert::new(t, &name(t))).collect(),
            copies: tables().map(|t| Copy::new(&name(t))).collect(),
            histories: Vec::new(),
            schema: None,
        }
    }

    pub(crate) fn id(&self) -> GenerationId {
        GenerationId {
            projection: self.projection.name().to_owned(),
            number: self.number,
        }
    }

    /// No changes to its tables.
    pub(crate) fn changes(&self) -> Changes {
        let history = match self.schema {
            None => self.projection.history(),
            Some(_) => History::Off,
        };
        Changes::with_history(self.projection.tables(), history)
    }

    pub(crate) fn lock_key(&self) -> String {
        lock_key(self.projection.name(), self.number)
    }

    /// The physical name of one of its tables.
    pub(crate) fn table_name(&self, table: &str) -> String {
        let name = name_in(&*self.projection, self.number, table);
        match &self.schema {
            None => name,
            Some(schema) => format!("{schema}.{name}"),
        }
    }
}

pub(super) fn name_in(projection: &dyn Projection, number: i32, table: &str) -> String {
    physical_name(table, projection.version(), number)
}

pub(crate) fn version_of(projection: &dyn Projection) -> i32 {
    i32::try_from(projection.version()).expect("versions are small numbers")
}

/// The advisory lock that transactions on a generation's rows share, and that a switch has alone.
pub(crate) fn lock_key(projection: &str, number: i32) -> String {
    format!("annals.generation/{projection}/{number}")
}

/// What a program must have to write a generation: the projection's name, its version and a digest
/// of its declarations.
pub(crate) fn rule_of(projection: &dyn Projection) -> String {
    let digest = Sha256::digest(Declaration::of(projection).to_text());
    let (name, version) = (projection.name(), projection.version());
    format!("{name} v{version} {}", hex::encode(&digest[..8]))
}

/// A live generation as stored in Postgres.
pub(crate) struct Live {
    pub(crate) number: i32,
    pub(crate) version: i32,
    pub(crate) tables: Vec<String>,
    pub(crate) views: Vec<String>,
    declaration: String,
    /// What its projection's own SQL added to the tables (`in_the_way`).
    pub(crate) prepared: Vec<String>,
    /// The descriptions that it gave its views and their columns; absent if an older program made
    /// it, which did not store them.
    comments: Option<BTreeMap<String, String>>,
}

impl Live {
    /// The name that it gave a table.
    pub(crate) fn table_name(&self, table: &str) -> String {
        format!("{table}_v{}_g{}", self.version, self.number)
    }

    /// The descriptions that it gave a view, under the names of its columns; the view's own under
    /// the empty name.
    pub(crate) fn comments_of(&self, view: &str) -> Option<BTreeMap<String, String>> {
        let of_view = |(name, text): (&String, &String)| {
            let (of, column) = name.split_once('.').unwrap_or((name, ""));
            (of == view).then(|| (column.to_owned(), text.clone()))
        };
        let all = self.comments.as_ref()?;
        Some(all.iter().filter_map(of_view).collect())
    }

    /// Why this program must not write the generation; absent if it may.
    pub(crate) fn differs(&self, projection: &dyn Projection) -> Option<String> {
        let (name, version) = (projection.name(), projection.version());
        if self.version > version_of(projection) {
            return Some(format!(
                "the live tables have version {}, and this program has version {version}: start a \
                 newer program; or build those of version {version} again, with the --log and \
                 --postgres of this process: annals projections rebuild {name}; as long as they are \
                 kept, projections rollback shows them at once",
                self.version
            ));
        }
        if self.version < version_of(projection) && in_place::is_filled(projection) {
            return Some(format!(
                "the live tables have version {}, and this program has version {version}: empty them \
                 and fill them again with the --log and --postgres of this process: annals \
                 projections rebuild {name}",
                self.version
            ));
        }
        if self.version < version_of(projection) {
            return Some(format!(
                "the live tables have version {}, and this program has version {version}: a running \
                 projector builds those beside them; or rebuild them with the --log and --postgres \
                 of this process: annals projections rebuild {name}",
                self.version
            ));
        }
        let difference = Declaration::difference(&self.declaration, &Declaration::of(projection))?;
        Some(format!(
            "the projection's declarations changed, but its version did not: {difference}; raise \
             the version and rebuild it with the --log and --postgres of this process: annals \
             projections rebuild {name}"
        ))
    }
}

/// The live generation of a projection, if it has one.
pub(crate) async fn live(
    connection: &mut PgConnection,
    projection: &str,
) -> Result<Option<Live>, RuntimeError> {
    let select = "SELECT generation, version, declaration, tables, views, prepared, \
                      ARRAY(SELECT key FROM jsonb_each_text(comments) ORDER BY key) AS names, \
                      ARRAY(SELECT value FROM jsonb_each_text(comments) ORDER BY key) AS texts, \
                      comments IS NOT NULL AS has_comments \
                  FROM annals.generation WHERE projection = $1 AND state = 'live'";
    let failed = || RuntimeError::postgres("find a projection's live tables");
    let row = sqlx::query(select)
        .bind(projection)
        .fetch_optional(connection)
        .await
        .map_err(failed())?;
    let Some(row) = row else { return Ok(None) };
    let read = || -> Result<Live, sqlx::Error> {
        let names: Vec<String> = row.try_get("names")?;
        let texts: Vec<String> = row.try_get("texts")?;
        let has_comments: bool = row.try_get("has_comments")?;
        Ok(Live {
            comments: has_comments.then(|| names.into_iter().zip(texts).collect()),
            number: row.try_get("generation")?,
            version: row.try_get("version")?,
            declaration: row.try_get("declaration")?,
            tables: row.try_get("tables")?,
            views: row.try_get("views")?,
            prepared: row.try_get("prepared")?,
        })
    };
    Ok(Some(read().map_err(failed())?))
}

/// The live generation of a projection, if there is one that this program may write.
pub(crate) async fn of_live(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
) -> Result<Option<Generation>, RuntimeError> {
    let live = live(connection, projection.name()).await?;
    let live = live.filter(|live| live.differs(&**projection).is_none());
    Ok(live.map(|live| Generation::new(projection, live.number)))
}

/// Creates the first generation of each of `projections` that has none.
pub(crate) async fn ensure_live(
    connection: &mut PgConnection,
    projections: &[Arc<dyn Projection>],
) -> Result<(), RuntimeError> {
    let select = "SELECT projection FROM annals.generation WHERE state = 'live'";
    let live: Vec<String> = sqlx::query_scalar(select)
        .fetch_all(&mut *connection)
        .await
        .map_err(RuntimeError::postgres("find the projections' live tables"))?;
    for projection in projections {
        if live.iter().any(|name| name == projection.name()) {
            continue;
        }
        if let Err(error) = make_first(connection, projection).await {
            trial::judge(connection, std::slice::from_ref(projection)).await?;
            return Err(error);
        }
    }
    Ok(())
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
        indexes::make_all(&mut tx, &generation).await?;
        switch::show(&mut tx, &generation, None).await?;
        tracing::info!(
            projection = projection.name(),
            version = projection.version(),
            generation = generation.number,
            "created the tables of a projection"
        );
    }
    tx.commit().await.map_err(failed())
}

pub(crate) async fn lock_making(connection: &mut PgConnection) -> Result<(), RuntimeError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(MAKING)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("wait for the lock to create tables"))?;
    Ok(())
}

/// The generation that a rebuild fills beside the live one. Goes on with one that an earlier rebuild
/// with the same rule left unfinished; drops any other. Creates nothing if the live one cannot be
/// replaced without destroying what users built on it.
pub(crate) async fn make_building(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
) -> Result<Generation, RuntimeError> {
    trial::judge(connection, std::slice::from_ref(projection)).await?;
    let failed = || RuntimeError::postgres("create a projection's tables");
    let mut tx = connection.begin().await.map_err(failed())?;
    lock_making(&mut tx).await?;
    let left = "SELECT generation, rule FROM annals.generation \
                WHERE projection = $1 AND state IN ('building', 'ready') ORDER BY generation";
    let left: Vec<(i32, String)> = sqlx::query_as(left)
        .bind(projection.name())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed())?;
    let rule = rule_of(&**projection);
    let mut found = None;
    for (number, left_rule) in left {
        if left_rule == rule && found.is_none() {
            found = Some(Generation::new(projection, number));
        } else {
            drop_one(&mut tx, projection.name(), number).await?;
        }
    }
    let generation = match found {
        Some(generation) => {
            let again = "UPDATE annals.generation SET state = 'building', comparison = NULL \
                         WHERE projection = $1 AND generation = $2";
            sqlx::query(again)
                .bind(projection.name())
                .bind(generation.number)
                .execute(&mut *tx)
                .await
                .map_err(failed())?;
            generation
        }
        None => make_tables(&mut tx, projection, "building").await?,
    };
    if let Some(live) = live(&mut tx, projection.name()).await? {
        in_the_way::require_nothing(&mut tx, &live, &generation).await?;
    }
    tx.commit().await.map_err(failed())?;
    Ok(generation)
}

/// Drops a generation that is not live.
async fn drop_one(
    connection: &mut PgConnection,
    projection: &str,
    number: i32,
) -> Result<(), RuntimeError> {
    let delete = "DELETE FROM annals.generation \
                  WHERE projection = $1 AND generation = $2 AND state <> 'live' \
                  RETURNING tables";
    let tables: Option<Vec<String>> = sqlx::query_scalar(delete)
        .bind(projection)
        .bind(number)
        .fetch_optional(&mut *connection)
        .await
        .map_err(RuntimeError::postgres("drop a generation"))?;
    drop_tables(connection, &tables.unwrap_or_default()).await
}

/// Whether a generation was not dropped.
pub(crate) async fn exists(
    connection: &mut PgConnection,
    id: &GenerationId,
) -> Result<bool, RuntimeError> {
    let select = "SELECT EXISTS (SELECT FROM annals.generation \
                  WHERE projection = $1 AND generation = $2)";
    sqlx::query_scalar(select)
        .bind(&id.projection)
        .bind(id.number)
        .fetch_one(connection)
        .await
        .map_err(RuntimeError::postgres("find a generation"))
}

/// Drops what is being built or ready. Returns how many generations were dropped.
pub(crate) async fn drop_buildings(
    connection: &mut PgConnection,
    projection: &str,
) -> Result<usize, RuntimeError> {
    let buildings = "SELECT generation FROM annals.generation \
                     WHERE projection = $1 AND state IN ('building', 'ready')";
    let buildings: Vec<i32> = sqlx::query_scalar(buildings)
        .bind(projection)
        .fetch_all(&mut *connection)
        .await
        .map_err(RuntimeError::postgres("find a generation"))?;
    for number in &buildings {
        drop_one(connection, projection, *number).await?;
    }
    Ok(buildings.len())
}

/// Drops a generation that was built to be compared.
pub(crate) async fn drop_unused(
    connection: &mut PgConnection,
    id: &GenerationId,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("drop a generation");
    let mut tx = connection.begin().await.map_err(failed())?;
    drop_one(&mut tx, &id.projection, id.number).await?;
    tx.commit().await.map_err(failed())
}

/// Notes what a comparison of the live generation with the log found.
pub(crate) async fn set_verified(
    connection: &mut PgConnection,
    projection: &str,
    comparison: &Comparison,
) -> Result<(), RuntimeError> {
    let update = "UPDATE annals.generation SET verified_at = now(), verified = $2::jsonb \
                  WHERE projection = $1 AND state = 'live'";
    sqlx::query(update)
        .bind(projection)
        .bind(json_of(comparison))
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("note what a verification found"))?;
    Ok(())
}

fn json_of(comparison: &Comparison) -> String {
    serde_json::to_string(comparison).expect("text and numbers can be written as JSON")
}

/// Notes that a building has reached the live one, and how the two compared.
pub(crate) async fn set_ready(
    connection: &mut PgConnection,
    id: &GenerationId,
    comparison: Option<&Comparison>,
) -> Result<(), RuntimeError> {
    let comparison = comparison.map(json_of);
    let update = "UPDATE annals.generation SET state = 'ready', comparison = $3::jsonb \
                  WHERE projection = $1 AND generation = $2 AND state = 'building'";
    let changed = sqlx::query(update)
        .bind(&id.projection)
        .bind(id.number)
        .bind(comparison)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("note that a rebuild is ready"))?;
    if changed.rows_affected() == 1 {
        Ok(())
    } else {
        Err(RuntimeError::Cancelled {
            projection: id.projection.clone(),
        })
    }
}

/// Drops the retired generations of a projection whose time is over. One whose tables somebody
/// reads at this moment is left for the next call.
pub(crate) async fn drop_retired(
    connection: &mut PgConnection,
    projection: &str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("drop a retired generation");
    let retired = "SELECT generation FROM annals.generation \
                   WHERE projection = $1 AND state = 'retired' AND keep_until <= now()";
    let retired: Vec<i32> = sqlx::query_scalar(retired)
        .bind(projection)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for number in retired {
        let mut tx = connection.begin().await.map_err(failed())?;
        limit_lock_waits(&mut tx).await?;
        match drop_one(&mut tx, projection, number).await {
            Ok(()) => tx.commit().await.map_err(failed())?,
            Err(error) => {
                tx.rollback().await.map_err(failed())?;
                let reason = kernel::explained(&error);
                tracing::info!(projection, number, reason, "a retired generation stays");
            }
        }
    }
    Ok(())
}

/// How long a change of views and tables waits for those who read them. Whoever comes behind it
/// waits as long.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '300ms'";

pub(crate) async fn limit_lock_waits(tx: &mut PgConnection) -> Result<(), RuntimeError> {
    sqlx::raw_sql(LOCK_WAIT)
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("limit the wait for locks"))?;
    Ok(())
}

pub(crate) async fn make_tables(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    state: &'static str,
) -> Result<Generation, RuntimeError> {
    let failed = || RuntimeError::postgres("create a projection's tables");
    // Never a number for the second time: a process may still write what was dropped.
    let number = "INSERT INTO annals.numbered AS n (projection, last) \
                  SELECT $1, coalesce(max(generation), 0) + 1 FROM annals.generation \
                  WHERE projection = $1 \
                  ON CONFLICT (projection) DO UPDATE SET last = n.last + 1 RETURNING last";
    let number: i32 = sqlx::query_scalar(number)
        .bind(projection.name())
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    let (mut tables, mut histories) = (Vec::new(), Vec::new());
    for table in projection.tables() {
        let name = name_in(&**projection, number, table.name);
        let describe = describe::describe_table(table, &name);
        let at_once = indexes::create_at_once(table, &name);
        let create = create_table(table, &name);
        let create = AssertSqlSafe(format!("{create};\n{at_once}\n{describe}"));
        sqlx::raw_sql(create)
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
        if projection.history().is_kept() {
            let create = AssertSqlSafe(history::create_versions(table, &name));
            sqlx::raw_sql(create)
                .execute(&mut *connection)
                .await
                .map_err(failed())?;
            histories.push(history::versions_of(&name));
        }
        tables.push(name);
    }
    tables.append(&mut histories);
    let prepared = own_sql::prepare(connection, projection, number).await?;
    let models = models_of(&**projection);
    let views: Vec<&str> = models.iter().map(|model| model.name).collect();
    let insert = "INSERT INTO annals.generation \
                  (projection, generation, version, state, declaration, tables, views, rule, \
                   prepared) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    sqlx::query(insert)
        .bind(projection.name())
        .bind(number)
        .bind(version_of(&**projection))
        .bind(state)
        .bind(Declaration::of(&**projection).to_text())
        .bind(tables)
        .bind(views)
        .bind(rule_of(&**projection))
        .bind(prepared)
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(Generation::new(projection, number))
}

async fn drop_tables(connection: &mut PgConnection, tables: &[String]) -> Result<(), RuntimeError> {
    for table in tables {
        let table = sql::qualified_table(table);
        let drop = AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}"));
        sqlx::raw_sql(drop)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("drop an old table"))?;
    }
    Ok(())
}
