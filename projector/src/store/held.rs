//! The log that a database belongs to.
//!
//! Invariant: a database belongs to the log that first wrote to it; no process writes it or shows
//! it for another log. Deliberately absent: when this is checked (`task`, `rebuild`, `list`, the
//! query door, `cli`).

use event_log::create::first_claim;
use event_log::log::EventLog;
use position::{LogId, Partition};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::error::RuntimeError;
use crate::run::projector::connect_options;

/// A log and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLog {
    /// Its identity.
    pub id: LogId,
    /// Its address.
    pub address: String,
}

impl NamedLog {
    /// The log that is read; absent until a writer has claimed it.
    ///
    /// # Errors
    /// `Log`.
    pub async fn of(log: &dyn EventLog) -> Result<Option<Self>, RuntimeError> {
        let claim = first_claim(log, Partition(0)).await?;
        Ok(claim.map(|claim| Self {
            id: claim.log,
            address: log.address().to_string(),
        }))
    }
}

/// Refuses a database that holds the read models of another log. A database without read models, or
/// one that was not migrated yet, is accepted for any log.
///
/// # Errors
/// `OtherLog`; `Log` or `Postgres` if the log or Postgres does not answer.
pub async fn require_log(log: &dyn EventLog, url: &str) -> Result<(), RuntimeError> {
    let Some(named) = NamedLog::of(log).await? else {
        return Ok(());
    };
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    let required = require(&mut connection, &named).await;
    let _ = connection.close().await;
    required
}

/// As [`require_log`], on a connection.
///
/// # Errors
/// As [`require_log`].
pub async fn require(connection: &mut PgConnection, log: &NamedLog) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("read which log the read models belong to");
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('annals.log') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    if !is_there {
        return Ok(());
    }
    let row = sqlx::query("SELECT log, address FROM annals.log")
        .fetch_optional(connection)
        .await
        .map_err(failed())?;
    let Some(row) = row else { return Ok(()) };
    let id: Uuid = row.try_get("log").map_err(failed())?;
    if LogId(id) == log.id {
        return Ok(());
    }
    Err(RuntimeError::OtherLog {
        held: LogId(id),
        held_address: row.try_get("address").map_err(failed())?,
        log: log.id,
        address: log.address.clone(),
    })
}

/// Assigns a database to this log, unless it belongs to another. Call this before anything is
/// written.
///
/// # Errors
/// `OtherLog`; `Log` or `Postgres` if the log or Postgres does not answer.
pub(crate) async fn take(
    connection: &mut PgConnection,
    log: &dyn EventLog,
) -> Result<(), RuntimeError> {
    let Some(named) = NamedLog::of(log).await? else {
        return Ok(());
    };
    let note = "INSERT INTO annals.log (log, address) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    sqlx::query(note)
        .bind(named.id.0)
        .bind(&named.address)
        .execute(&mut *connection)
        .await
        .map_err(RuntimeError::postgres(
            "record which log the read models belong to",
        ))?;
    require(connection, &named).await
}
