//! Starting the write side: its options, and an owner for each partition.
//!
//! Invariant: nothing starts on a log whose creation was not completed. Deliberately absent: what
//! the parts do once they run.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use event_log::create::first_claim;
use event_log::log::{EventLog, LogError};
use kernel::registry::Registry;
use position::{LogId, Partition};
use tokio::sync::watch;

use super::nodes::{Cluster, ClusterOptions};
use super::room::Room;
use super::shares::{MEMORY_BYTES, Shares};
use super::yielding::Yielding;
use super::{Engine, Inner, measure, time};
use crate::owner::{Entropy, NoStore, Owner, OwnerSettings, StateStore, Store, StoreError};
use crate::seat::{Desk, News, Seat, Shared};

/// How many commands may wait for one partition, unless configured otherwise.
pub const QUEUE_MAX: usize = 1_024;
/// Options with which the write side starts.
pub struct EngineOptions {
    /// The bounds and times of every owner.
    pub owner: OwnerSettings,
    /// The folder of the local checkpoint store; `None`: everything stays in memory and is folded
    /// again at every start.
    pub store: Option<PathBuf>,
    /// How many commands may wait for one partition before more are turned away: this many of this
    /// node's clients, and as many again of other nodes.
    pub queue_max: usize,
    /// The node's memory budget, in bytes; the states of streams, waiting commands and records in
    /// flight each get a part of it. At least
    /// [`MEMORY_BYTES_MIN`](super::MEMORY_BYTES_MIN).
    pub memory_bytes: usize,
    /// The other nodes on the same log; [`ClusterOptions::alone`] if there are none.
    pub cluster: ClusterOptions,
}

impl EngineOptions {
    /// A node without other nodes, with all defaults.
    #[must_use]
    pub fn alone(store: Option<PathBuf>) -> Self {
        Self {
            owner: OwnerSettings::default(),
            store,
            queue_max: QUEUE_MAX,
            memory_bytes: MEMORY_BYTES,
            cluster: ClusterOptions::alone(),
        }
    }
}

/// Why the write side does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The creation of the log was never completed.
    #[error(
        "partition {partition} was never claimed; finish the log with: annals log create --log \
         {address}"
    )]
    Unclaimed {
        partition: Partition,
        address: String,
    },
    /// The local checkpoint store cannot be used.
    #[error("the local checkpoint store in {folder} cannot be used; it may be deleted")]
    Store { folder: String, source: StoreError },
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn bytes(&mut self) -> [u8; 16] {
        rand::random()
    }
}

impl Engine {
    /// Starts the owners of all partitions; they take over in the background.
    ///
    /// # Errors
    /// [`StartError`]; each says what to do about it.
    pub async fn start(
        log: Arc<dyn EventLog>,
        registry: Registry,
        options: EngineOptions,
    ) -> Result<Self, StartError> {
        for warning in log.check().await? {
            tracing::warn!(log = %log.address(), "{warning}");
        }
        let partition_count = log.partition_count();
        let shares = Shares::of(options.memory_bytes, partition_count);
        let log_id = claimed_log(&*log).await?;
        let appender = log.appender().await?;
        let store = options
            .store
            .as_ref()
            .map(|folder| open_store(folder, shares.store, partition_count))
            .transpose()?;
        let mut settings = options.owner;
        settings.states_bytes_max = shares.states;
        settings.unsaved_bytes_max = shares.states;
        settings.in_flight_bytes_max = settings.in_flight_bytes_max.min(shares.in_flight);
        let (stopping, stopped) = watch::channel(false);
        let cluster =
            Cluster::join((&log, log_id), options.cluster, &settings, stopped.clone()).await?;
        let started = Instant::now();
        let keeper = time::Timekeeper {
            directory: Arc::clone(&cluster.directory),
            log_clock: cluster.log_clock.clone(),
            started,
            off_max_ms: settings.clock_skew_max_ms,
        };
        tokio::spawn(keeper.run(stopped.clone()));
        let shared = Shared {
            log: Arc::clone(&log),
            appender: Arc::clone(&appender),
            peers: Arc::clone(&cluster.peers),
            directory: Arc::clone(&cluster.directory),
            unfit: cluster.unfit.clone(),
            in_group: cluster.in_group,
            log_clock: cluster.log_clock.clone(),
            started,
        };
        let (mut partitions, mut tasks) = (Vec::new(), Vec::new());
        for partition in (0..partition_count).map(Partition) {
            let mut owner = Owner::new(
                partition,
                registry.clone(),
                settings.clone(),
                partition_store(store.as_ref(), partition),
                Box::new(SystemEntropy),
            );
            owner.pass(log.acknowledged());
            owner.opened_log = Some(log_id);
            let news = News {
                assigned: cluster.assigned[partition.0 as usize].subscribe(),
                known: cluster.known.clone(),
                stopping: stopped.clone(),
            };
            let seat = Seat::new(owner, cluster.identity.clone());
            let (desk, task) = Desk::start(seat, shared.clone(), options.queue_max, news);
            partitions.push(desk);
            tasks.push(task);
        }
        measure::budget(&shares, partition_count);
        let inner = Inner {
            counts: measure::Counts::of(&registry),
            registry,
            log_id,
            partitions,
            room: Room::new(shares.waiting),
            next_sender: AtomicU64::new(1),
            yielding: Arc::new(Yielding::new()),
            cluster,
            stopping,
            appender,
            tasks: Mutex::new(tasks),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

/// The log's identity, if every partition was claimed.
async fn claimed_log(log: &dyn EventLog) -> Result<LogId, StartError> {
    let partitions = (0..log.partition_count()).map(Partition);
    let found = futures::future::join_all(partitions.map(async |partition| {
        match first_claim(log, partition).await {
            Ok(Some(claim)) => Ok(claim),
            Ok(None) => Err(StartError::Unclaimed {
                partition,
                address: log.address().to_string(),
            }),
            Err(error) => Err(StartError::Log(error)),
        }
    }))
    .await;
    let claims = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    claims
        .first()
        .map(|claim| claim.log)
        .ok_or_else(|| StartError::Unclaimed {
            partition: Partition(0),
            address: log.address().to_string(),
        })
}

fn open_store(folder: &Path, bytes: usize, partitions: u32) -> Result<Store, StartError> {
    Store::open(folder, bytes as u64, partitions).map_err(|source| StartError::Store {
        folder: folder.display().to_string(),
        source,
    })
}

fn partition_store(store: Option<&Store>, partition: Partition) -> Box<dyn StateStore> {
    match store {
        Some(store) => Box::new(store.partition(partition)),
        None => Box::new(NoStore),
    }
}
