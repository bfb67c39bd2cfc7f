//! What operators ask for: pauses, rebuilds, switches, wishes for parked streams; and the record of
//! who did what.
//!
//! Invariant: whatever an operator changes is recorded in the same transaction. Deliberately
//! absent: the work itself; running projectors see what was asked for.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use event_log::log::EventLog;
use kernel::Timestamp;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::fold::parked::{ParkedCommit, StreamId};
use crate::models::density::{Density, density};
use crate::run::projector::connect_options;
use crate::run::rebuild::Purpose;
use crate::run::report::{self, Report};
use crate::store::generation::{self, Generation};
use crate::store::members::GenerationId;
use crate::store::operators::Held;
use crate::store::{in_place, new_version, parked, purpose, sql, switch};

/// Who asks for something, and why.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Who.
    pub name: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Records what was done.
pub(crate) async fn note(
    tx: &mut PgConnection,
    projection: &str,
    action: &str,
    actor: Actor<'_>,
    detail: Option<&str>,
) -> Result<(), RuntimeError> {
    let insert = "INSERT INTO annals.control (projection, action, actor, reason, detail) \
                  VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(insert)
        .bind(projection)
        .bind(action)
        .bind(actor.name)
        .bind(actor.reason)
        .bind(detail)
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("record what an operator did"))?;
    Ok(())
}

/// Begins a building, or goes on with one, or empties what is filled in place, and records who asked
/// for it.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    purpose: Purpose,
    actor: Option<Actor<'_>>,
) -> Result<Generation, RuntimeError> {
    let failed = || RuntimeError::postgres("begin a rebuild");
    let mut tx = connection.begin().await.map_err(failed())?;
    if purpose == Purpose::Verify {
        new_version::require_nothing_built(&mut tx, projection.name()).await?;
    }
    let building = if in_place::is_filled(&**projection) {
        in_place::begin(&mut tx, projection, purpose).await?
    } else {
        if purpose != Purpose::Verify {
            // What gives way to an operator's wish does not come back by itself.
            generation::lock_making(&mut tx).await?;
            new_version::decline_newer(&mut tx, &**projection).await?;
        }
        let building = generation::make_building(&mut tx, projection).await?;
        purpose::set(&mut tx, &building.id(), purpose, false).await?;
        building
    };
    if purpose != Purpose::Verify {
        new_version::accept(&mut tx, &**projection).await?;
    }
    if let Some(actor) = actor {
        let detail = format!("generation {}", building.number);
        let action = match purpose {
            Purpose::Switch { .. } | Purpose::Wait => "rebuild",
            Purpose::Verify => "verify",
        };
        note(&mut tx, projection.name(), action, actor, Some(&detail)).await?;
    }
    tx.commit().await.map_err(failed())?;
    Ok(building)
}

/// A parked stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedStream {
    /// The projection that parked it.
    pub projection: String,
    /// Its tenant.
    pub tenant: String,
    /// The stream.
    pub stream: String,
    /// Its partition.
    pub partition: u32,
    /// The position of the commit that could not be taken up.
    pub position: u64,
    /// The type of that commit's first event.
    pub event_type: Option<String>,
    /// How many commits wait.
    pub commits: i64,
    /// Why.
    pub reason: String,
    /// Since when.
    pub parked_at: Timestamp,
    /// How often it was tried.
    pub attempts: i32,
    /// What an operator asked for, until it is done.
    pub wish: Option<String>,
}

/// A process that runs projections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id; a new one at each start.
    pub id: String,
    /// Its machine and process id.
    pub name: String,
    /// When it joined the others.
    pub started_at: Timestamp,
    /// When it last said that it is alive.
    pub seen_at: Timestamp,
    /// How many partitions of generations it holds.
    pub leases: i64,
}

/// What an operator wants with a parked stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedWish {
    /// Take the stream up again.
    Retry,
    /// Leave its first parked commit out for ever: each generation of the projection does so.
    Discard,
}

fn moment(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_utc(row.try_get::<DateTime<Utc>, _>(column)?)
        .map_err(|_| sqlx::Error::Decode("a moment of the years 1 to 9999".into()))
}

/// What depends on something that was to be dropped, if Postgres refused it for that reason.
fn dependents(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let is_needed = error.code().as_deref() == Some("2BP01");
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    let detail = error.and_then(|error| error.detail()).unwrap_or_default();
    is_needed.then(|| detail.replace('\n', "; "))
}

/// The parked streams of live read models.
const PARKED: &str = "SELECT p.*, (SELECT count(*) FROM annals.parked_commit AS c \
        WHERE c.projection = p.projection AND c.generation = p.generation \
        AND c.tenant = p.tenant AND c.stream = p.stream) AS commits \
    FROM annals.parked AS p JOIN annals.generation AS g USING (projection, generation) \
    WHERE g.state = 'live'";

fn parked_of(row: &PgRow) -> Result<ParkedStream, sqlx::Error> {
    Ok(ParkedStream {
        projection: row.try_get("projection")?,
        tenant: row.try_get("tenant")?,
        stream: row.try_get("stream")?,
        partition: row.try_get::<i32, _>("partition")?.cast_unsigned(),
        position: row.try_get::<i64, _>("position")?.cast_unsigned(),
        event_type: row.try_get("event_type")?,
        commits: row.try_get("commits")?,
        reason: row.try_get("reason")?,
        parked_at: moment(row, "parked_at")?,
        attempts: row.try_get("attempts")?,
        wish: row.try_get("wish")?,
    })
}

/// An operator's connection to the read models.
pub struct Operator {
    connection: Held,
    projections: Vec<Arc<dyn Projection>>,
}

impl Operator {
    /// Connects to the Postgres at `url`. `projections` are those of this program.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn connect(
        url: &str,
        projections: &[Arc<dyn Projection>],
    ) -> Result<Self, RuntimeError> {
        let connect = RuntimeError::postgres("connect to Postgres");
        let connection = connect_options(url)?.connect().await.map_err(connect)?;
        let connection = Held::Own(Box::new(connection));
        Ok(Self::over(connection, projections.to_vec()))
    }

    pub(crate) fn over(connection: Held, projections: Vec<Arc<dyn Projection>>) -> Self {
        Self {
            connection,
            projections,
        }
    }

    /// How every projection of this program, and every one that Postgres has, is doing.
    ///
    /// # Errors
    /// `Postgres`, `Log`, `OtherLog`.
    pub async fn report(
        &mut self,
        log: Option<&dyn EventLog>,
    ) -> Result<Vec<Report>, RuntimeError> {
        report::report_over(&mut self.connection, log, &self.projections).await
    }

    fn declared(&self, name: &str) -> Result<Arc<dyn Projection>, RuntimeError> {
        let found = self.projections.iter().find(|p| p.name() == name);
        found
            .cloned()
            .ok_or_else(|| RuntimeError::unknown(&self.projections, name))
    }

    /// How densely the commits lie in time that concern a projection; absent if there are none, or no
    /// read model tells.
    ///
    /// # Errors
    /// `Unknown`, `Postgres`.
    pub async fn density(&mut self, name: &str) -> Result<Option<Density>, RuntimeError> {
        let projection = self.declared(name)?;
        density(&mut self.connection, &*projection).await
    }

    /// Pauses a projection: none of its generations moves until it is resumed.
    ///
    /// # Errors
    /// `Unknown`, `Postgres`.
    pub async fn pause(&mut self, name: &str, actor: Actor<'_>) -> Result<(), RuntimeError> {
        self.declared(name)?;
        let failed = || RuntimeError::postgres("pause a projection");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        let insert = "INSERT INTO annals.pause (projection, paused_by, reason) \
                      VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        sqlx::query(insert)
            .bind(name)
            .bind(actor.name)
            .bind(actor.reason)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        note(&mut tx, name, "pause", actor, None).await?;
        tx.commit().await.map_err(failed())
    }

    /// Lets a paused or stopped projection go on; a running projector notices within a second.
    /// Returns the number of partitions in which it had stopped.
    ///
    /// # Errors
    /// `Unknown`, `Postgres`.
    pub async fn resume(&mut self, name: &str, actor: Actor<'_>) -> Result<u64, RuntimeError> {
        self.declared(name)?;
        let failed = || RuntimeError::postgres("resume a projection");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        sqlx::query("DELETE FROM annals.pause WHERE projection = $1")
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        let stops = sqlx::query("DELETE FROM annals.stop WHERE projection = $1")
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        note(&mut tx, name, "resume", actor, None).await?;
        tx.commit().await.map_err(failed())?;
        Ok(stops.rows_affected())
    }

    /// Asks the running projectors to build a projection again.
    ///
    /// # Errors
    /// `Unknown`, `InTheWay`, `OtherOwner`, `Postgres`.
    pub async fn rebuild(
        &mut self,
        name: &str,
        purpose: Purpose,
        actor: Actor<'_>,
    ) -> Result<i32, RuntimeError> {
        let projection = self.declared(name)?;
        let building = begin(&mut self.connection, &projection, purpose, Some(actor)).await?;
        Ok(building.number)
    }

    /// Drops what a rebuild is building or has built. Returns how many generations were dropped. A new
    /// version is then not built again by itself until somebody asks for it with [`Self::rebuild`].
    ///
    /// # Errors
    /// `Unknown`, `Postgres`.
    pub async fn cancel(&mut self, name: &str, actor: Actor<'_>) -> Result<usize, RuntimeError> {
        self.declared(name)?;
        let failed = || RuntimeError::postgres("cancel a rebuild");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        new_version::decline_buildings(&mut tx, name).await?;
        let dropped = generation::drop_buildings(&mut tx, name).await?;
        note(&mut tx, name, "cancel", actor, None).await?;
        tx.commit().await.map_err(failed())?;
        Ok(dropped)
    }

    /// Lets the views show the generation that is ready; the live one is kept for `keep`.
    ///
    /// # Errors
    /// `NotReady`, `InTheWay`, `Postgres`.
    pub async fn switch(
        &mut self,
        name: &str,
        keep: Duration,
        actor: Actor<'_>,
    ) -> Result<i32, RuntimeError> {
        self.exchange(name, "ready", "switch", keep, actor).await
    }

    /// Lets the views show the generation again that was live before; the live one is kept for
    /// `keep`.
    ///
    /// # Errors
    /// `NotReady` if there is none, or if it is behind the live one; `InTheWay`, `Postgres`.
    pub async fn roll_back(
        &mut self,
        name: &str,
        keep: Duration,
        actor: Actor<'_>,
    ) -> Result<i32, RuntimeError> {
        self.exchange(name, "retired", "roll back", keep, actor)
            .await
    }

    async fn exchange(
        &mut self,
        name: &str,
        state: &'static str,
        action: &'static str,
        keep: Duration,
        actor: Actor<'_>,
    ) -> Result<i32, RuntimeError> {
        let projection = self.declared(name)?;
        let not_ready = |reason: String| RuntimeError::NotReady {
            projection: name.to_owned(),
            reason,
        };
        let select = "SELECT generation, rule FROM annals.generation \
                      WHERE projection = $1 AND state = $2 ORDER BY generation DESC LIMIT 1";
        let found: Option<(i32, String)> = sqlx::query_as(select)
            .bind(name)
            .bind(state)
            .fetch_optional(&mut *self.connection)
            .await
            .map_err(RuntimeError::postgres("find a generation"))?;
        let Some((number, rule)) = found else {
            return Err(not_ready(format!("there is no generation that is {state}")));
        };
        if rule != generation::rule_of(&*projection) {
            return Err(not_ready(format!(
                "generation {number} was made by the rule {rule}, which this program does not have; ask \
                 with the program that has it"
            )));
        }
        let generation = Generation::new(&projection, number);
        let failed = || RuntimeError::postgres("switch to other tables");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        if !switch::switch(&mut tx, &generation, keep).await? {
            return Err(not_ready(format!(
                "generation {number} is behind the live one: a running projector of its version takes \
                 up the rest; start one if there is none, wait until it has caught up, and ask again"
            )));
        }
        let detail = format!("generation {number}");
        note(&mut tx, name, action, actor, Some(&detail)).await?;
        tx.commit().await.map_err(failed())?;
        Ok(number)
    }

    /// Drops everything of a projection that this program does not have any more.
    ///
    /// # Errors
    /// `InUse` if this program still has it; `Needed`, `Postgres`.
    pub async fn drop_projection(
        &mut self,
        name: &str,
        actor: Actor<'_>,
    ) -> Result<usize, RuntimeError> {
        if self.declared(name).is_ok() {
            return Err(RuntimeError::InUse {
                projection: name.to_owned(),
            });
        }
        let failed = || RuntimeError::postgres("drop a projection");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        generation::limit_lock_waits(&mut tx).await?;
        let rows = "DELETE FROM annals.generation WHERE projection = $1 RETURNING tables, views";
        let rows = sqlx::query(rows)
            .bind(name)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let mut statements = Vec::new();
        for row in &rows {
            let views: Vec<String> = row.try_get("views").map_err(failed())?;
            let tables: Vec<String> = row.try_get("tables").map_err(failed())?;
            let view = |view: &String| {
                let drop = |schema| format!("DROP VIEW IF EXISTS {}", sql::view_in(schema, view));
                sql::VIEW_SCHEMAS.map(drop).join("; ")
            };
            let table =
                |table: &String| format!("DROP TABLE IF EXISTS {}", sql::qualified_table(table));
            statements.extend(views.iter().map(view));
            statements.extend(tables.iter().map(table));
        }
        for statement in statements {
            let dropped = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx);
            dropped.await.map_err(|error| match dependents(&error) {
                Some(objects) => RuntimeError::Needed {
                    projection: name.to_owned(),
                    objects,
                },
                None => failed()(error),
            })?;
        }
        for table in ["pause", "discarded", "declined"] {
            let delete = format!("DELETE FROM annals.{table} WHERE projection = $1");
            sqlx::query(AssertSqlSafe(delete))
                .bind(name)
                .execute(&mut *tx)
                .await
                .map_err(failed())?;
        }
        if !rows.is_empty() {
            note(&mut tx, name, "drop", actor, None).await?;
        }
        tx.commit().await.map_err(failed())?;
        Ok(rows.len())
    }

    /// The processes that run projections, the eldest first.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn processes(&mut self) -> Result<Vec<Process>, RuntimeError> {
        let failed = || RuntimeError::postgres("list the processes that run projections");
        let select = "SELECT m.member::text AS id, m.name, m.started_at, m.seen_at, \
                (SELECT count(*) FROM annals.lease AS l WHERE l.member = m.member) AS leases \
            FROM annals.member AS m ORDER BY m.started_at, m.member";
        let rows = sqlx::query(select)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(failed())?;
        let process = |row: &PgRow| -> Result<Process, sqlx::Error> {
            Ok(Process {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                started_at: moment(row, "started_at")?,
                seen_at: moment(row, "seen_at")?,
                leases: row.try_get("leases")?,
            })
        };
        let processes = rows.iter().map(process).collect::<Result<_, _>>();
        processes.map_err(failed())
    }

    /// The parked streams of live read models, of one projection or of all, in the order of
    /// projection, tenant and stream, after `after` and at most `limit` of them.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn parked(
        &mut self,
        projection: Option<&str>,
        after: Option<(&str, &str, &str)>,
        limit: i64,
    ) -> Result<Vec<ParkedStream>, RuntimeError> {
        let failed = || RuntimeError::postgres("list the parked streams");
        let select = format!(
            "{PARKED} AND ($1::text IS NULL OR p.projection = $1) \
             AND ($2::text IS NULL OR (p.projection, p.tenant, p.stream) > ($2, $3, $4)) \
             ORDER BY p.projection, p.tenant, p.stream LIMIT $5"
        );
        let rows = sqlx::query(AssertSqlSafe(select))
            .bind(projection)
            .bind(after.map(|after| after.0))
            .bind(after.map(|after| after.1))
            .bind(after.map(|after| after.2))
            .bind(limit)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(failed())?;
        let parked = rows.iter().map(parked_of).collect::<Result<_, _>>();
        parked.map_err(failed())
    }

    /// A parked stream of a live read model, with its first commits; absent if it is not parked.
    pub(crate) async fn parked_commits(
        &mut self,
        projection: &str,
        stream: &StreamId,
        limit: i64,
    ) -> Result<Option<(ParkedStream, Vec<ParkedCommit>)>, RuntimeError> {
        let failed = || RuntimeError::postgres("read what a parked stream waits with");
        let mut tx = self.connection.begin().await.map_err(failed())?;
        let select = format!("{PARKED} AND p.projection = $1 AND p.tenant = $2 AND p.stream = $3");
        let row = sqlx::query(AssertSqlSafe(select))
            .bind(projection)
            .bind(&stream.tenant)
            .bind(&stream.stream)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?;
        let Some(row) = row else { return Ok(None) };
        let id = GenerationId {
            projection: projection.to_owned(),
            number: row.try_get("generation").map_err(failed())?,
        };
        let commits = parked::waiting(&mut tx, &id, stream, limit).await?;
        tx.commit().await.map_err(failed())?;
        Ok(Some((parked_of(&row).map_err(failed())?, commits)))
    }

    /// Asks the running projector to take a parked stream up again, or to discard its first parked
    /// commit. Returns whether the stream is parked.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn wish(
        &mut self,
        projection: &str,
        tenant: &str,
        stream: &str,
        wish: ParkedWish,
        actor: Actor<'_>,
    ) -> Result<bool, RuntimeError> {
        let update = "UPDATE annals.parked AS p SET wish = $4, wished_by = $5, wished_why = $6 \
            FROM annals.generation AS g WHERE g.projection = p.projection \
            AND g.generation = p.generation AND g.state = 'live' AND p.projection = $1 \
            AND p.tenant = $2 AND p.stream = $3";
        let changed = sqlx::query(update)
            .bind(projection)
            .bind(tenant)
            .bind(stream)
            .bind(match wish {
                ParkedWish::Retry => "retry",
                ParkedWish::Discard => "discard",
            })
            .bind(actor.name)
            .bind(actor.reason)
            .execute(&mut *self.connection)
            .await
            .map_err(RuntimeError::postgres("ask for a parked stream"))?;
        Ok(changed.rows_affected() > 0)
    }
}
