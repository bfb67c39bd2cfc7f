//! Tables that others made, filled in place: they are emptied when a rebuild begins.
//!
//! Invariant: the tables are emptied and the checkpoints forgotten in one transaction, after which the
//! writers of the old generation find nothing to move. Deliberately absent: the SQL that empties them
//! (`own_sql`).

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::rebuild::Purpose;
use crate::store::generation::{Generation, live, lock_key, lock_making, make_tables};

/// How long emptying tables in place waits for a transaction that writes them, or for readers.
const IN_PLACE_WAIT: &str = "SET LOCAL lock_timeout = '10s'";

/// Whether a projection fills tables that others made: it has one generation, which is live.
pub(crate) fn is_filled(projection: &dyn Projection) -> bool {
    projection
        .own_sql()
        .is_some_and(|own| own.reset().is_some())
}

/// Empties the tables that a projection fills in place, and begins to fill them again.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    purpose: Purpose,
) -> Result<Generation, RuntimeError> {
    let name = projection.name();
    let cannot = |what| RuntimeError::InPlace {
        projection: name.to_owned(),
        what,
    };
    match purpose {
        Purpose::Switch { .. } => {}
        Purpose::Wait => return Err(cannot("built beside the live one")),
        Purpose::Verify => return Err(cannot("compared with the log")),
    }
    let failed = || RuntimeError::postgres("empty the tables of a projection");
    let mut tx = connection.begin().await.map_err(failed())?;
    sqlx::raw_sql(IN_PLACE_WAIT)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    lock_making(&mut tx).await?;
    if let Some(live) = live(&mut tx, name).await? {
        // From here on nobody writes the rows of the old generation.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(lock_key(name, live.number))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        sqlx::query("UPDATE annals.generation SET state = 'retired' WHERE projection = $1")
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
    }
    let again = make_tables(&mut tx, projection, "live").await?;
    let old = "DELETE FROM annals.generation WHERE projection = $1 AND generation <> $2";
    sqlx::query(old)
        .bind(name)
        .bind(again.number)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    tx.commit().await.map_err(failed())?;
    Ok(again)
}
