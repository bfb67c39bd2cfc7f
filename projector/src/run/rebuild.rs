//! Work that ends: catching up with the log, and building a read model again beside the live one.
//!
//! Invariant: the views show the old rows until the new rows are complete and have reached at least
//! the same places; then the views switch in one transaction. Deliberately absent: the lanes that
//! do the work; they are a projector's (`supervisor`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event_log::log::EventLog;
use position::{Offset, Partition};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::Places;
use crate::run::conduct::{self, Conductor, require_going};
use crate::run::lane::behind;
use crate::run::projector::{Projector, connect_options};
use crate::run::share::SHARE;
use crate::run::supervisor::Job;
use crate::run::upgrade::NewVersion;
use crate::store::compare::Comparison;
use crate::store::control::{self, Actor};
use crate::store::generation::{self, Generation};
use crate::store::{checkpoint, held, in_place};

/// The most lanes of a rebuild or a catch-up. Each has a connection; by default Postgres has a
/// hundred connections for all clients.
const TASKS_MAX: usize = 8;
/// How often the progress is read.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much of the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Records read.
    pub records_read: u64,
    /// Records to be read in total.
    pub records: u64,
}

/// The result of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version that was built.
    pub version: u32,
    /// The number of the generation that is live now.
    pub generation: i32,
    /// Records read.
    pub records_read: u64,
    /// How it compared with the read model that was live; absent if there was none, or if the two
    /// could not be brought to the same places.
    pub comparison: Option<Comparison>,
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
        new_version: NewVersion::Ignored,
        rebuild_share: 100,
    });
    let reached = reach(
        &**log,
        &mut connection,
        Some(&projector),
        &live,
        &ends,
        &mut on_reading,
    );
    let reached = reached.await;
    projector.stop().await.and(reached)
}

/// What becomes of a rebuilt read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It replaces the live one; the old one is kept for the given time.
    Switch {
        /// For how long the old one is kept, and kept current, for a rollback.
        keep: Duration,
    },
    /// It is kept current beside the live one until somebody switches.
    Wait,
    /// It is compared with the live one and dropped.
    Verify,
}

/// Builds the read model of one projection again from the first record, beside the live one,
/// compares them, and then replaces the live one with it. Projectors that run meanwhile help, and
/// go on with the new tables. A rebuild that was interrupted is gone on with.
///
/// # Errors
/// The first [`RuntimeError`]; the live read model is then unchanged.
pub async fn rebuild(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    name: &str,
    purpose: Purpose,
    on_reading: OnReading,
) -> Result<Rebuilt, RuntimeError> {
    let asked = Rebuild {
        name,
        purpose,
        actor: None,
        share: SHARE,
    };
    rebuild_as(asked, log, url, projections, on_reading).await
}

/// What is rebuilt, and how.
#[derive(Clone, Copy, Debug)]
pub struct Rebuild<'a> {
    /// The name of the projection.
    pub name: &'a str,
    /// What becomes of the rebuilt read model.
    pub purpose: Purpose,
    /// Who asked for it, which is recorded; absent if nobody did.
    pub actor: Option<Actor<'a>>,
    /// The most of its time, in percent, that a lane of this process works on it while live read
    /// models are written.
    pub share: u32,
}

/// As [`rebuild`], which records nobody and takes half of the time.
///
/// # Errors
/// As [`rebuild`].
pub async fn rebuild_as(
    asked: Rebuild<'_>,
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    on_reading: OnReading,
) -> Result<Rebuilt, RuntimeError> {
    let Rebuild {
        name,
        purpose,
        actor,
        share,
    } = asked;
    let projection = projections
        .iter()
        .find(|p| p.name() == name)
        .ok_or_else(|| RuntimeError::unknown(projections, name))?;
    let postgres = connect_options(url)?;
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = postgres.connect().await.map_err(connect)?;
    held::take(&mut connection, &**log).await?;
    conduct::hold(&mut connection, name).await?;
    let building = control::begin(&mut connection, projection, purpose, actor).await?;
    let is_in_place = in_place::is_filled(&**projection);
    let projector = Projector::start(Job {
        log: Arc::clone(log),
        postgres: postgres.clone(),
        projections: vec![Arc::clone(projection)],
        tasks: tasks(),
        builds_only: !is_in_place,
        new_version: NewVersion::Ignored,
        rebuild_share: share,
    });
    if is_in_place {
        return filled(&**log, connection, projector, &building, on_reading).await;
    }
    let mut conductor = Conductor {
        log: &**log,
        postgres: &postgres,
        connection: &mut connection,
        projector: Some(&projector),
        building: &building,
        on_reading,
    };
    let built = conductor.conduct(purpose).await;
    let (records_read, comparison) = projector.stop().await.and(built)?;
    match purpose {
        Purpose::Switch { .. } => generation::drop_retired(&mut connection, name).await?,
        Purpose::Verify => generation::drop_unused(&mut connection, &building.id()).await?,
        Purpose::Wait => {}
    }
    // Closing the connection releases the lock.
    let _ = connection.close().await;
    Ok(Rebuilt {
        version: building.projection.version(),
        generation: building.number,
        records_read,
        comparison,
    })
}

/// Waits until tables that were emptied in place are filled up to the end that the log has now.
async fn filled(
    log: &dyn EventLog,
    mut connection: PgConnection,
    projector: Projector,
    generation: &Generation,
    mut on_reading: OnReading,
) -> Result<Rebuilt, RuntimeError> {
    let ends = ends_of(log).await?;
    let one = std::slice::from_ref(generation);
    let going = Some(&projector);
    let reached = reach(log, &mut connection, going, one, &ends, &mut on_reading).await;
    projector.stop().await.and(reached)?;
    let _ = connection.close().await;
    Ok(Rebuilt {
        version: generation.projection.version(),
        generation: generation.number,
        records_read: ends.values().map(|end| end.0).sum(),
        comparison: None,
    })
}

fn tasks() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(TASKS_MAX)
}

/// Waits until the generations have reached `ends`.
pub(crate) async fn reach(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    projector: Option<&Projector>,
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

pub(crate) async fn ends_of(
    log: &dyn EventLog,
) -> Result<BTreeMap<Partition, Offset>, RuntimeError> {
    let mut ends = BTreeMap::new();
    for partition in (0..log.partition_count()).map(Partition) {
        ends.insert(partition, log.bounds(partition).await?.end);
    }
    Ok(ends)
}
