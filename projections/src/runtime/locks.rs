//! The advisory locks that keep a second projector of the same waiting.

use sqlx::PgConnection;

use super::error::RuntimeError;

/// Takes all locks with these names, or none.
pub(super) async fn take(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("take the projector's locks");
    let take = "SELECT coalesce(bool_and(pg_try_advisory_lock(hashtextextended(n, 0))), true) \
                FROM UNNEST($1::text[]) AS n";
    let taken: bool = sqlx::query_scalar(take)
        .bind(names)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    if !taken {
        sqlx::query("SELECT pg_advisory_unlock_all()")
            .execute(connection)
            .await
            .map_err(failed())?;
    }
    Ok(taken)
}
