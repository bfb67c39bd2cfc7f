//! Work that ends: catching up with the log, and building a read model again beside the live one.
//!
//! Invariant: the views show the old rows until the new rows are complete and have reached at least
//! the same places; then the views switch in one transaction. Deliberately absent: a retry; the
//! caller decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use event_log::log::EventLog;
use position::{Offset, Partition};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::projector::{connect_options, shares};
use crate::run::status::StatusBoard;
use crate::run::task::{Goal, Target, Task};
use crate::store::checkpoint;
use crate::store::generation::{self, Generation};
use crate::store::held;

/// The most tasks that work at the same time. Each has a connection; by default Postgres has a
/// hundred connections for all clients.
const TASKS_MAX: usize = 8;

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

/// Brings the live read models to the end that the log has at the call. While another projector
/// writes them, waits until it has reached that end or has released its locks.
///
/// # Errors
/// The first [`RuntimeError`], even if another try may succeed.
pub async fn catch_up(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    on_reading: OnReading,
) -> Result<(), RuntimeError> {
    let ends = ends_of(&**log).await?;
    let target = Target::Live(projections.to_vec());
    run(log, &connect_options(url)?, target, ends, on_reading).await?;
    Ok(())
}

/// Builds the read model of one projection again from the first record, and then replaces the live
/// one with it. A projector that runs meanwhile goes on with the new tables.
///
/// # Errors
/// The first [`RuntimeError`]; the live read model is then unchanged.
pub async fn rebuild(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    name: &str,
    on_reading: OnReading,
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
    let ends = ends_of(&**log).await?;
    let target = Target::Building(building.clone());
    let records_read = run(log, &postgres, target, ends, on_reading).await?;
    take_place(log, &postgres, &mut connection, &building).await?;
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

/// Switches to the new generation in one transaction, which locks the live generation first.
async fn take_place(
    log: &Arc<dyn EventLog>,
    postgres: &PgConnectOptions,
    connection: &mut PgConnection,
    building: &Generation,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("switch to the new tables");
    let name = building.projection.name();
    let mut tx = connection.begin().await.map_err(failed())?;
    let hold = "SELECT generation FROM annals.generation \
                WHERE projection = $1 AND state = 'live' FOR UPDATE";
    sqlx::query(hold)
        .bind(name)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let live = generation::live(&mut tx, name).await?;
    if let Some(live) = &live {
        let reached = checkpoint::load(&mut tx, name, live.number).await?;
        let ends = reached
            .into_iter()
            .map(|(p, c)| (p, c.offset.next()))
            .collect();
        let target = Target::Building(building.clone());
        run(log, postgres, target, ends, Box::new(|_| {})).await?;
    }
    generation::switch(&mut tx, building, live.as_ref()).await?;
    tx.commit().await.map_err(failed())
}

/// Runs tasks until each partition has reached its end, as many tasks as can work at the same time.
/// After an error of one task, the other tasks of live read models go on; a building fails at once,
/// since it would be incomplete.
async fn run(
    log: &Arc<dyn EventLog>,
    postgres: &PgConnectOptions,
    target: Target,
    ends: BTreeMap<Partition, Offset>,
    on_reading: OnReading,
) -> Result<u64, RuntimeError> {
    let partitions: Vec<Partition> = ends.keys().copied().collect();
    if partitions.is_empty() {
        return Ok(0);
    }
    let records = ends.values().map(|end| end.0).sum();
    let counting = Arc::new(Mutex::new(Counting {
        read: BTreeMap::new(),
        records,
        on_reading,
    }));
    // Kept until the end: a task takes a closed channel as a request to stop.
    let (_wish, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for partitions in shares(&partitions, processors.min(TASKS_MAX)) {
        let end_of = |partition: &Partition| (*partition, ends[partition]);
        let ends: BTreeMap<_, _> = partitions.iter().map(end_of).collect();
        let (counting, limits) = (Arc::clone(&counting), ends.clone());
        let task = Task {
            log: Arc::clone(log),
            postgres: postgres.clone(),
            target: target.clone(),
            board: StatusBoard::new(partitions.clone()),
            partitions,
            goal: Goal::Reach(ends),
            stop: stop.clone(),
            held: None,
            progress: Box::new(move |read| {
                let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
                counting.count(read, &limits);
            }),
        };
        tasks.spawn(task.run_once());
    }
    let mut outcome = Ok(records);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if matches!(target, Target::Building(_)) => return Err(error),
            Ok(Err(error)) => outcome = outcome.and(Err(error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    outcome
}

/// How far all tasks together have read.
struct Counting {
    read: BTreeMap<Partition, u64>,
    records: u64,
    on_reading: OnReading,
}

impl Counting {
    fn count(&mut self, read: &BTreeMap<Partition, Offset>, ends: &BTreeMap<Partition, Offset>) {
        let within = |(p, at): (&Partition, &Offset)| ends.get(p).map(|end| (*p, at.0.min(end.0)));
        self.read.extend(read.iter().filter_map(within));
        (self.on_reading)(Reading {
            records_read: self.read.values().sum(),
            records: self.records,
        });
    }
}

async fn ends_of(log: &dyn EventLog) -> Result<BTreeMap<Partition, Offset>, RuntimeError> {
    let mut ends = BTreeMap::new();
    for partition in (0..log.partition_count()).map(Partition) {
        ends.insert(partition, log.bounds(partition).await?.end);
    }
    Ok(ends)
}
