//! What a rebuild is for, as it stands beside its generation.
//!
//! Deliberately absent: what follows from it (`run::conduct`).

use std::time::Duration;

use sqlx::PgConnection;

use crate::error::RuntimeError;
use crate::run::rebuild::Purpose;
use crate::store::members::GenerationId;

/// Notes what a building is for.
pub(crate) async fn set(
    connection: &mut PgConnection,
    id: &GenerationId,
    purpose: Purpose,
    by_itself: bool,
) -> Result<(), RuntimeError> {
    let (purpose, keep) = match purpose {
        Purpose::Switch { keep } => ("switch", keep),
        Purpose::Wait => ("wait", Duration::ZERO),
        Purpose::Verify => ("verify", Duration::ZERO),
    };
    let update = "UPDATE annals.generation SET purpose = $3, keep_seconds = $4, by_itself = $5 \
                  WHERE projection = $1 AND generation = $2";
    sqlx::query(update)
        .bind(&id.projection)
        .bind(id.number)
        .bind(purpose)
        .bind(i64::try_from(keep.as_secs()).unwrap_or(i64::MAX))
        .bind(by_itself)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("note what a rebuild is for"))?;
    Ok(())
}

/// What a building is for, and whether it is ready.
pub(crate) async fn of(
    connection: &mut PgConnection,
    id: &GenerationId,
) -> Result<Option<(Purpose, bool)>, RuntimeError> {
    let select = "SELECT purpose, keep_seconds, state = 'ready' FROM annals.generation \
                  WHERE projection = $1 AND generation = $2 AND state IN ('building', 'ready')";
    let found: Option<(String, i64, bool)> = sqlx::query_as(select)
        .bind(&id.projection)
        .bind(id.number)
        .fetch_optional(connection)
        .await
        .map_err(RuntimeError::postgres("read what a rebuild is for"))?;
    Ok(found.map(|(purpose, keep, is_ready)| {
        let purpose = match purpose.as_str() {
            "wait" => Purpose::Wait,
            "verify" => Purpose::Verify,
            _ => Purpose::Switch {
                keep: Duration::from_secs(keep.cast_unsigned()),
            },
        };
        (purpose, is_ready)
    }))
}
