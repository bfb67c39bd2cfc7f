//! Indexes of live tables that are declared otherwise than they are: made and dropped beside the
//! running projector, once after each start.
//!
//! Deliberately absent: what an index is (`store::indexes`); indexes of new tables (`generation`,
//! `rebuild`).

use std::sync::Arc;
use std::time::Duration;

use kernel::explained;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::watch;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::store::generation;
use crate::store::indexes;

/// The pause before a projection's tables are looked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// Brings the indexes of live tables up to date, and tries again until it has, or until the projector
/// is to stop.
pub(crate) async fn run(
    postgres: PgConnectOptions,
    projections: Vec<Arc<dyn Projection>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut left = projections;
    while !left.is_empty() {
        match bring_up_to_date(&postgres, &mut left).await {
            Ok(()) if left.is_empty() => return,
            Ok(()) => {}
            Err(error) => tracing::debug!(reason = explained(&error), "indexes must wait"),
        }
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(PAUSE, stopped).await.is_ok() {
            return;
        }
    }
}

/// Takes those projections out of `left` whose indexes are up to date, or will be with a rebuild.
async fn bring_up_to_date(
    postgres: &PgConnectOptions,
    left: &mut Vec<Arc<dyn Projection>>,
) -> Result<(), RuntimeError> {
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = postgres.connect().await.map_err(connect)?;
    let mut waiting = Vec::new();
    while let Some(projection) = left.pop() {
        let outcome = match generation::of_live(&mut connection, &projection).await {
            Ok(Some(generation)) => indexes::bring_up_to_date(&mut connection, &generation).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(None) => waiting.push(projection),
            Ok(Some((0, 0))) => {}
            Ok(Some((made, dropped))) => tracing::info!(
                projection = projection.name(),
                made,
                dropped,
                "brought indexes up to date"
            ),
            Err(error) => {
                left.push(projection);
                left.append(&mut waiting);
                return Err(error);
            }
        }
    }
    left.append(&mut waiting);
    let _ = connection.close().await;
    Ok(())
}
