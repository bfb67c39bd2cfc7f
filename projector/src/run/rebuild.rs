//! Work that ends: catching up with the log, and building a read model again beside the live one.
//!
//! Invariant: the views show the old rows until the new rows are complete and have reached at least
//! the same places; then the views switch in one transaction. Deliberately absent: the lanes that
//! do the work; they are a projector's (`supervisor`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use kernel::explained;
use position::{Offset, Partition};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::Places;
use crate::run::lane::behind;
use crate::run::projector::{Projector, connect_options};
use crate::run::supervisor::Job;
use crate::store::generation::{self, Generation};
use crate::store::{checkpoint, held, stops};

/// The most lanes of a rebuild or a catch-up. Each has a connection; by default Postgres has a
/// hundred connections for all clients.
const TASKS_MAX: usize = 8;
/// How often the progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The last part of the way to the live read model is gone while its rows are held in a snapshot:
/// at most so many records.
const REST_RECORDS: u64 = 20_000;
/// For how long a switch is tried while somebody reads the views, and the pause between two tries.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
const SWITCH_PAUSE: Duration = Duration::from_millis(500);

/// How much of the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Records read.
    pub records_read: u64,
    /// Records to be read in total.
    pub records: u64,
}

/// The result of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version that was built.
    pub version: u32,
    /// The number of the generation that is live now.
    pub generation: i32,
    /// Records read.
    pub records_read: u64,
}

/// Called with the progress of the reading.
pub type OnReading = Box<dyn FnMut(Reading) + Send + Sync>;

/// Brings the live read models to the end that the log has at the call, together with other
/// projectors that run.
///
/// # Errors
/// The first [`RuntimeError`] after which another try would not help.
pub async fn catch_up(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    mut on_reading: OnReading,
) -> Result<(), RuntimeError> {
    let ends = ends_of(&**log).await?;
    let postgres = connect_options(url)?;
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = postgres.connect().await.map_err(connect)?;
    held::take(&mut connection, &**log).await?;
    generation::ensure_live(&mut connection, projections).await?;
    let mut live = Vec::new();
    for projection in projections {
        let found = generation::live(&mut connection, projection.name()).await?;
        let found = found.ok_or(RuntimeError::Replaced)?;
        if let Some(reason) = found.differs(&**projection) {
            return Err(StoppedProjection {
                projection: projection.name().to_owned(),
                partition: None,
                offset: None,
                reason,
            }
            .into());
        }
        live.push(Generation::new(projection, found.number));
    }
    let projector = Projector::start(Job {
        log: Arc::clone(log),
        postgres,
        projections: projections.to_vec(),
        tasks: tasks(),
        builds_only: false,
    });
    let reached = reach(
        &**log,
        &mut connection,
        &projector,
        &live,
        &ends,
        &mut on_reading,
    );
    let reached = reached.await;
    projector.stop().await.and(reached)
}

/// Builds the read model of one projection again from the first record, and then replaces the live
/// one with it. Projectors that run meanwhile help, and go on with the new tables.
///
/// # Errors
/// The first [`RuntimeError`]; the live read model is then unchanged.
pub async fn rebuild(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    name: &str,
    mut on_reading: OnReading,
) -> Result<Rebuilt, RuntimeError> {
    let projection = projections
        .iter()
        .find(|p| p.name() == name)
        .ok_or_else(|| RuntimeError::unknown(projections, name))?;
    let postgres = connect_options(url)?;
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = postgres.connect().await.map_err(connect)?;
    held::take(&mut connection, &**log).await?;
    hold_rebuild(&mut connection, name).await?;
    let building = generation::make_building(&mut connection, projection).await?;
    let projector = Projector::start(Job {
        log: Arc::clone(log),
        postgres,
        projections: vec![Arc::clone(projection)],
        tasks: tasks(),
        builds_only: true,
    });
    let built = build(
        &**log,
        &mut connection,
        &projector,
        &building,
        &mut on_reading,
    );
    let built = built.await;
    let records_read = projector.stop().await.and(built)?;
    generation::drop_retired(&mut connection, name).await?;
    // Closing the connection releases the lock.
    let _ = connection.close().await;
    tracing::info!(
        projection = name,
        generation = building.number,
        records_read,
        "the rebuilt read model is live"
    );
    Ok(Rebuilt {
        version: building.projection.version(),
        generation: building.number,
        records_read,
    })
}

fn tasks() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(TASKS_MAX)
}

async fn hold_rebuild(connection: &mut PgConnection, name: &str) -> Result<(), RuntimeError> {
    let held: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("annals.rebuild/{name}"))
        .fetch_one(connection)
        .await
        .map_err(RuntimeError::postgres("begin a rebuild"))?;
    if held {
        return Ok(());
    }
    Err(RuntimeError::Rebuilding {
        projection: name.to_owned(),
    })
}

/// Brings a building to the live read model, or to the end of the log, and switches. Returns the
/// number of records read.
async fn build(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    projector: &Projector,
    building: &Generation,
    on_reading: &mut OnReading,
) -> Result<u64, RuntimeError> {
    let ends = ends_of(log).await?;
    let records: u64 = ends.values().map(|end| end.0).sum();
    let name = building.projection.name();
    let one = std::slice::from_ref(building);
    checkpoint::set_ceiling(connection, name, building.number, None).await?;
    reach(log, connection, projector, one, &ends, on_reading).await?;
    let began = Instant::now();
    loop {
        match generation::switch(connection, building, Duration::ZERO).await {
            Ok(true) => return Ok(records),
            // The live read model has come further meanwhile.
            Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error @ RuntimeError::Postgres { .. }) if began.elapsed() < SWITCH_LIMIT => {
                let reason = explained(&error);
                tracing::info!(projection = name, reason, "the switch is tried again");
                tokio::time::sleep(SWITCH_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
        require_going(connection, projector, one).await?;
    }
}

/// Waits until the generations have reached `ends`.
async fn reach(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    projector: &Projector,
    generations: &[Generation],
    ends: &BTreeMap<Partition, Offset>,
    on_reading: &mut OnReading,
) -> Result<(), RuntimeError> {
    let records = ends.values().map(|end| end.0).sum();
    loop {
        let mut places = Vec::new();
        for generation in generations {
            let id = generation.id();
            places.push(checkpoint::load(connection, &id.projection, id.number).await?);
        }
        let read = |partition: &Partition, end: &Offset| {
            let next = |places: &Places| {
                let at = places.get(partition);
                at.map_or(0, |checkpoint| checkpoint.offset.next().0.min(end.0))
            };
            places.iter().map(next).min().unwrap_or(end.0)
        };
        on_reading(Reading {
            records_read: ends.iter().map(|(p, end)| read(p, end)).sum(),
            records,
        });
        let mut is_there = true;
        for places in &places {
            is_there &= is_reached(log, ends, places).await?;
        }
        if is_there {
            return Ok(());
        }
        require_going(connection, projector, generations).await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether no record before `ends` is missing. Offsets without records may remain.
async fn is_reached(
    log: &dyn EventLog,
    ends: &BTreeMap<Partition, Offset>,
    places: &Places,
) -> Result<bool, RuntimeError> {
    for (partition, next, end) in behind(ends, places) {
        let from = next.max(log.bounds(partition).await?.first);
        let chunk = log.read(partition, from).await?;
        let more = chunk.records.iter().any(|record| record.offset < end);
        if more || (!chunk.at_end && chunk.next < end) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fails if one of the generations has stopped, or if the projector has.
async fn require_going(
    connection: &mut PgConnection,
    projector: &Projector,
    generations: &[Generation],
) -> Result<(), RuntimeError> {
    let stops = stops::all(connection).await?;
    let is_ours = |stop: &&stops::Stopped| {
        let of = |generation: &Generation| {
            let id = generation.id();
            id.projection == stop.projection && id.number == stop.generation
        };
        generations.iter().any(of)
    };
    if let Some(stop) = stops.iter().find(is_ours) {
        return Err(StoppedProjection {
            projection: stop.projection.clone(),
            partition: Some(stop.partition),
            offset: stop.offset,
            reason: stop.reason.clone(),
        }
        .into());
    }
    match projector.ended() {
        Some(reason) => Err(RuntimeError::Ended { reason }),
        None => Ok(()),
    }
}

async fn ends_of(log: &dyn EventLog) -> Result<BTreeMap<Partition, Offset>, RuntimeError> {
    let mut ends = BTreeMap::new();
    for partition in (0..log.partition_count()).map(Partition) {
        ends.insert(partition, log.bounds(partition).await?.end);
    }
    Ok(ends)
}
