//! The progress of every projection, for people and tools.
//!
//! Deliberately absent: any change of data.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_log::checkpoint::Checkpoint;
use event_log::log::{Bounds, EventLog};
use kernel::Timestamp;
use position::{Offset, Partition, Position};
use serde::Serialize;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::measure;
use crate::run::projector::connect_options;
use crate::store::checkpoint;
use crate::store::generation;
use crate::store::held::{self, NamedLog};
use crate::store::stops;

/// How far one generation of a projection has come in one partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// The projection.
    pub projection: String,
    /// Its version.
    pub version: i32,
    /// The number of the generation.
    pub generation: i32,
    /// The state of the generation.
    pub state: PlaceState,
    /// The partition.
    pub partition: Partition,
    /// The number of accepted records that it has taken up.
    pub position: Position,
    /// The offset of the last record read; absent: none.
    pub offset: Option<Offset>,
    /// The number of records between the checkpoint and the log's end; absent if no log was given.
    pub gap: Option<u64>,
    /// Seconds since the last commit taken up was recorded; 0 if no record is missing.
    pub lag_seconds: Option<f64>,
    /// When the last commit taken up was recorded.
    pub last_recorded_at: Option<Timestamp>,
    /// Why it stopped here; absent if it did not.
    pub stopped: Option<String>,
}

/// The state of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceState {
    /// The views show it.
    Live,
    /// The views show it, but this program's declarations differ: it must be rebuilt.
    Outdated,
    /// The views show it, and the projection stopped here.
    Stopped,
    /// A rebuild is filling it, or left it unfinished.
    Building,
}

impl PlaceState {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Outdated => "outdated",
            Self::Stopped => "stopped",
            Self::Building => "building",
        }
    }
}

/// The place of every generation in every partition: in each partition of `log` if it is given,
/// otherwise in each partition with a checkpoint.
///
/// # Errors
/// `Postgres`, `Log`.
pub async fn list(
    log: Option<&dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
) -> Result<Vec<Place>, RuntimeError> {
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    let mut bounds: BTreeMap<Partition, Bounds> = BTreeMap::new();
    if let Some(log) = log {
        // If the log has lost its beginning, its first claim cannot be read; its places are listed
        // all the same.
        if let Ok(Some(named)) = NamedLog::of(log).await {
            held::require(&mut connection, &named).await?;
        }
        for partition in (0..log.partition_count()).map(Partition) {
            bounds.insert(partition, log.bounds(partition).await?);
        }
    }
    let stopped: BTreeMap<(String, i32, Partition), String> = stops::live(&mut connection)
        .await?
        .into_iter()
        .map(|stop| {
            (
                (stop.projection, stop.generation, stop.partition),
                stop.reason,
            )
        })
        .collect();
    let mut places = Vec::new();
    for (name, number, version, building) in buildings(&mut connection).await? {
        let state = if building {
            PlaceState::Building
        } else {
            state_of(&mut connection, &name, projections).await?
        };
        let checkpoints = checkpoint::load(&mut connection, &name, number).await?;
        let mut partitions: Vec<Partition> = bounds.keys().copied().collect();
        partitions.extend(checkpoints.keys());
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let at: Option<&Checkpoint> = checkpoints.get(&partition);
            let ends = bounds.get(&partition).copied();
            let stopped = stopped.get(&(name.clone(), number, partition)).cloned();
            let state = match (state, &stopped) {
                (PlaceState::Live, Some(_)) => PlaceState::Stopped,
                (state, _) => state,
            };
            places.push(Place {
                projection: name.clone(),
                version,
                generation: number,
                state,
                partition,
                position: at.map_or(Position(0), |c| c.position),
                offset: at.map(|c| c.offset),
                gap: ends.map(|bounds| measure::gap(bounds, at)),
                lag_seconds: ends.map(|bounds| measure::lag_seconds(bounds, at)),
                last_recorded_at: at.and_then(|c| c.last_recorded_at),
                stopped,
            });
        }
    }
    let _ = connection.close().await;
    Ok(places)
}

async fn state_of(
    connection: &mut PgConnection,
    name: &str,
    projections: &[Arc<dyn Projection>],
) -> Result<PlaceState, RuntimeError> {
    let live = generation::live(connection, name).await?;
    let declared = projections.iter().find(|p| p.name() == name);
    let differs = match (&live, declared) {
        (Some(live), Some(projection)) => live.differs(&**projection).is_some(),
        (None, _) | (_, None) => true,
    };
    Ok(if differs {
        PlaceState::Outdated
    } else {
        PlaceState::Live
    })
}

/// Each generation's projection, number, version, and whether it is still being built.
async fn buildings(
    connection: &mut PgConnection,
) -> Result<Vec<(String, i32, i32, bool)>, RuntimeError> {
    let failed = || RuntimeError::postgres("list the projections");
    let select = "SELECT projection, generation, version, state = 'building' AS building \
                  FROM annals.generation ORDER BY projection, generation";
    let rows = sqlx::query(select)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("projection")?,
                row.try_get("generation")?,
                row.try_get("version")?,
                row.try_get("building")?,
            ))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed())
}
