//! A new version of a rule is built beside the live one by itself: how that begins, and which rules
//! operators declined.
//!
//! Invariant: a building begins under the lock of all who make tables, and is judged there once more,
//! so that of two processes that start at once one begins it. A rule that was cancelled or rolled
//! back begins again only when an operator asks for it. Deliberately absent: the judgement
//! (`run::upgrade`).

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::rebuild::Purpose;
use crate::run::upgrade::{Upgrade, judge};
use crate::store::control::{Actor, note};
use crate::store::generation::{self, lock_making, rule_of};
use crate::store::{members, purpose};

/// What came of the try to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The number of the generation that is built now.
    Building(i32),
    /// An operator cancelled this rule, or rolled it back.
    Declined,
    /// Somebody else was faster.
    NotDue,
}

/// Begins the building of a projection's new version, if it is still due.
///
/// # Errors
/// `InTheWay`, `OtherOwner`, `Declared`, `Postgres`.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    purpose: Purpose,
    by: &str,
) -> Result<Begun, RuntimeError> {
    let failed = || RuntimeError::postgres("begin the building of a new version");
    let mut tx = connection.begin().await.map_err(failed())?;
    let begun = begin_in(&mut tx, projection, purpose, by).await;
    // At once: a transaction that is only dropped keeps the lock until the connection is used again.
    match begun {
        Ok(Begun::Building(_)) => tx.commit().await.map_err(failed())?,
        Ok(Begun::Declined | Begun::NotDue) | Err(_) => tx.rollback().await.map_err(failed())?,
    }
    begun
}

async fn begin_in(
    tx: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    purpose: Purpose,
    by: &str,
) -> Result<Begun, RuntimeError> {
    lock_making(tx).await?;
    let look = members::look(tx).await?;
    let Upgrade::Due { live } = judge(&**projection, &look) else {
        return Ok(Begun::NotDue);
    };
    if is_declined(tx, &**projection).await? {
        return Ok(Begun::Declined);
    }
    let building = generation::make_building(tx, projection).await?;
    purpose::set(tx, &building.id(), purpose, true).await?;
    let reason = format!(
        "new version {}; version {live} is live",
        projection.version()
    );
    let actor = Actor {
        name: by,
        reason: &reason,
    };
    let detail = format!("generation {}", building.number);
    note(tx, projection.name(), "rebuild", actor, Some(&detail)).await?;
    Ok(Begun::Building(building.number))
}

/// Notes that what is being built, or ready, is not to be built again by itself.
pub(crate) async fn decline_buildings(
    tx: &mut PgConnection,
    projection: &str,
) -> Result<(), RuntimeError> {
    let insert = "INSERT INTO annals.declined (projection, rule) \
                  SELECT DISTINCT g.projection, g.rule FROM annals.generation AS g \
                  WHERE g.projection = $1 AND g.state IN ('building', 'ready') \
                  ON CONFLICT DO NOTHING";
    sqlx::query(insert)
        .bind(projection)
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("note what was declined"))?;
    Ok(())
}

/// Notes that versions higher than a projection's, which are being built or ready and give way to it, are
/// not to be built again by themselves.
pub(crate) async fn decline_newer(
    tx: &mut PgConnection,
    projection: &dyn Projection,
) -> Result<(), RuntimeError> {
    let insert = "INSERT INTO annals.declined (projection, rule) \
                  SELECT DISTINCT g.projection, g.rule FROM annals.generation AS g \
                  WHERE g.projection = $1 AND g.state IN ('building', 'ready') \
                      AND g.version > $2 AND g.rule <> $3 \
                  ON CONFLICT DO NOTHING";
    sqlx::query(insert)
        .bind(projection.name())
        .bind(generation::version_of(projection))
        .bind(rule_of(projection))
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("note what was declined"))?;
    Ok(())
}

/// Notes that the live rule is not to be built again by itself, if one of a lower `version` is about
/// to take its place.
pub(crate) async fn decline_live(
    tx: &mut PgConnection,
    projection: &str,
    version: i32,
) -> Result<(), RuntimeError> {
    let insert = "INSERT INTO annals.declined (projection, rule) \
                  SELECT g.projection, g.rule FROM annals.generation AS g \
                  WHERE g.projection = $1 AND g.state = 'live' AND g.version > $2 \
                  ON CONFLICT DO NOTHING";
    sqlx::query(insert)
        .bind(projection)
        .bind(version)
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("note what was declined"))?;
    Ok(())
}

/// Forgets that a rule was declined: an operator wants it now.
pub(crate) async fn accept(
    tx: &mut PgConnection,
    projection: &dyn Projection,
) -> Result<(), RuntimeError> {
    sqlx::query("DELETE FROM annals.declined WHERE projection = $1 AND rule = $2")
        .bind(projection.name())
        .bind(rule_of(projection))
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("forget what was declined"))?;
    Ok(())
}

/// Refuses a comparison that would drop what a rebuild has built, or is building.
pub(crate) async fn require_nothing_built(
    tx: &mut PgConnection,
    projection: &str,
) -> Result<(), RuntimeError> {
    lock_making(tx).await?;
    let select = "SELECT EXISTS (SELECT FROM annals.generation WHERE projection = $1 \
                  AND state IN ('building', 'ready') AND purpose <> 'verify')";
    let is_built: bool = sqlx::query_scalar(select)
        .bind(projection)
        .fetch_one(tx)
        .await
        .map_err(RuntimeError::postgres("find a generation"))?;
    if !is_built {
        return Ok(());
    }
    Err(RuntimeError::NotVerified {
        projection: projection.to_owned(),
        reason: format!(
            "a rebuild of it is under way or waits; end it first: annals projections switch \
             {projection}, or annals projections cancel {projection}"
        ),
    })
}

async fn is_declined(
    tx: &mut PgConnection,
    projection: &dyn Projection,
) -> Result<bool, RuntimeError> {
    let select = "SELECT EXISTS (SELECT FROM annals.declined WHERE projection = $1 AND rule = $2)";
    sqlx::query_scalar(select)
        .bind(projection.name())
        .bind(rule_of(projection))
        .fetch_one(tx)
        .await
        .map_err(RuntimeError::postgres("read what was declined"))
}
