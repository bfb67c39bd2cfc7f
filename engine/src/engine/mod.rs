//! The write side as a door sees it: commands in, one answer out.
//!
//! Invariant: queues are bounded; a command that was not attempted is told so, one that may have
//! been is *unknown*. Deliberately absent: HTTP, and the decisions themselves (`owner`).

mod batch;
mod cluster;
mod measure;
mod serving;
mod waiting;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel::{CommandId, StreamName, TenantId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use batch::Batch;
pub use cluster::ClusterOptions;

use waiting::wrap;

use crate::command::{Answer, Request, RequestError, SubmitError, TurnedAway};
use crate::create::first_claim;
use crate::ids::{LogId, Partition, Position};
use crate::log::{Appender, EventLog, LogError};
use crate::owner::{
    Entropy, Inquired, Inquiry, NoStore, NotOwning, Owner, OwnerSettings, StateStore, Store,
    StoreError, Submission,
};
use crate::record::partition_of;
use crate::registry::Registry;
use crate::seat::{
    Control, Desk, Events, Identity, Message, PeerTicket, Queues, Seat, Shared, Status, Turns,
    turned_away,
};

/// How many commands may wait for one partition, unless said otherwise.
pub const QUEUE_MAX: usize = 1_024;
/// The memory that a node is made for, unless said otherwise, in bytes.
pub const MEMORY_BYTES: usize = 512 << 20;
/// How many questions of other nodes may wait for one partition.
const CONTROL_MAX: usize = 64;

/// How a write side is started.
pub struct EngineOptions {
    /// The bounds and times of every owner.
    pub owner: OwnerSettings,
    /// The folder of the local checkpoint store; absent: everything stays in memory and is folded
    /// again at every start.
    pub store: Option<PathBuf>,
    /// How many commands may wait for one partition before others are turned away: of this node's
    /// clients, and as many of other nodes.
    pub queue_max: usize,
    /// The memory that the node is made for, in bytes: what it keeps of streams, what waits, and what
    /// is in flight are parts of it. At least [`MEMORY_BYTES_MIN`].
    pub memory_bytes: usize,
    /// The other nodes on the same log; [`ClusterOptions::alone`] where there are none.
    pub cluster: ClusterOptions,
}

impl EngineOptions {
    /// A node that is alone, with every default.
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

/// The least that a node can be made for, in bytes.
pub const MEMORY_BYTES_MIN: usize = 128 << 20;
/// The least in flight for one partition: two of the largest records.
const IN_FLIGHT_BYTES_MIN: usize = 2 << 20;

/// How a node's memory is shared out, in bytes. Half of it is left to what nobody bounds one by one:
/// the program, its connections, the Kafka clients' own queues, and what was just freed.
struct Shares {
    /// States, for each partition; and what a local store that fails does not take.
    states: usize,
    /// Records in flight, for each partition.
    in_flight: usize,
    /// Commands that wait for their answers, over all partitions.
    waiting: usize,
    /// The local store, over all partitions.
    store: usize,
}

impl Shares {
    fn of(memory: usize, partitions: u32) -> Self {
        let partitions = partitions.max(1) as usize;
        Self {
            states: memory / 4 / partitions,
            in_flight: (memory / 16 / partitions).max(IN_FLIGHT_BYTES_MIN),
            waiting: memory / 8,
            store: memory / 4,
        }
    }
}

/// Why a write side does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log was never finished.
    #[error(
        "partition {partition} was never claimed; finish the log with: annals log create --log \
         {address}"
    )]
    Unclaimed {
        /// The partition.
        partition: Partition,
        /// The log's address.
        address: String,
    },
    /// The local checkpoint store cannot be used.
    #[error("the local checkpoint store in {folder} cannot be used; it may be deleted")]
    Store {
        /// Its folder.
        folder: String,
        /// Why.
        source: StoreError,
    },
}

/// A request whose shape is right, on its way to its partition.
pub struct Prepared {
    submission: Submission,
    partition: Partition,
    kind: Option<measure::Kind>,
}

/// The outcome of one command of a batch, when it comes.
pub type Pending = Pin<Box<dyn Future<Output = Result<Answer, SubmitError>> + Send>>;

/// A handle on the write side; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    log_id: LogId,
    partitions: Vec<Ways>,
    /// Bytes that waiting commands may still take.
    room: Arc<Semaphore>,
    /// Bytes that they may take in all.
    room_bytes: usize,
    counts: measure::Counts,
    cluster: cluster::Cluster,
    stopping: watch::Sender<bool>,
    appender: Arc<dyn Appender>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The ways to one partition's seat.
struct Ways {
    desk: Arc<Desk>,
    commands: mpsc::Sender<Message>,
    turns: Arc<Turns>,
    from_peers: mpsc::Sender<(Submission, PeerTicket)>,
    control: mpsc::Sender<Control>,
    status: watch::Receiver<Status>,
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
    /// [`StartError`], each with what to do about it.
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
        let mut cluster = cluster::Cluster::join(&log, options.cluster, &settings).await?;
        let shared = Shared {
            log: Arc::clone(&log),
            appender: Arc::clone(&appender),
            peers: cluster.peers(),
            directory: cluster.directory(),
            unfit: cluster.unfit(),
            in_group: cluster.is_in_group(),
            started: Instant::now(),
        };
        let identity = Identity {
            node: settings.node.clone(),
            address: settings.address.clone(),
        };
        let mut partitions = Vec::new();
        let mut tasks = Vec::new();
        for partition in (0..partition_count).map(Partition) {
            let (command_queue, commands) = mpsc::channel(options.queue_max);
            let (peer_queue, from_peers) = mpsc::channel(options.queue_max);
            let (control_queue, control) = mpsc::channel(CONTROL_MAX);
            let mut owner = Owner::new(
                partition,
                registry.clone(),
                settings.clone(),
                partition_store(store.as_ref(), partition),
                Box::new(SystemEntropy),
            );
            owner.pass(log.acknowledged());
            let (status, watched) = watch::channel(Status {
                not_owning: owner.not_owning(),
                log: None,
                position: Position(0),
                term: None,
                elsewhere: None,
            });
            let queues = Queues {
                commands,
                from_peers,
                status,
            };
            let events = Events {
                control,
                assigned: cluster.assigned(partition),
                known: cluster.known(),
                stopping: stopped.clone(),
            };
            let seat = Seat::new(owner, identity.clone());
            let desk = Desk::open(seat, shared.clone(), queues);
            tasks.push(tokio::spawn(Arc::clone(&desk).attend(events)));
            partitions.push(Ways {
                desk,
                commands: command_queue,
                turns: Arc::new(Turns::new(Instant::now())),
                from_peers: peer_queue,
                control: control_queue,
                status: watched,
            });
        }
        cluster.follow_the_group(stopped);
        measure::budget(&shares, partition_count);
        let inner = Inner {
            counts: measure::Counts::of(&registry),
            registry,
            log_id,
            partitions,
            room: Arc::new(Semaphore::new(shares.waiting)),
            room_bytes: shares.waiting,
            cluster,
            stopping,
            appender,
            tasks: Mutex::new(tasks),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The registered aggregates.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// The identity of the log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.inner.log_id
    }

    /// Reads a request's data.
    ///
    /// # Errors
    /// [`RequestError`] where it is no command of any aggregate or has the wrong shape.
    pub fn prepare(&self, request: Request) -> Result<Prepared, RequestError> {
        let category = request.stream.category();
        let aggregate =
            self.inner
                .registry
                .get(category)
                .ok_or_else(|| RequestError::UnknownCategory {
                    category: category.to_owned(),
                    known: self.inner.registry.categories(),
                })?;
        let command =
            aggregate.decode_command(&request.command, request.schema, request.data.get())?;
        let routing_key = aggregate.routing_key(request.stream.as_str())?;
        let partition = partition_of(&request.tenant, routing_key, self.partition_count());
        let kind = self.inner.counts.kind(category, &request.command);
        Ok(Prepared {
            submission: Submission { request, command },
            partition,
            kind,
        })
    }

    /// Decides on a command and waits for the log's answer up to `deadline`. Turned away at once
    /// when the partition's queue is full.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(
        &self,
        command: Prepared,
        deadline: Instant,
    ) -> Result<Answer, SubmitError> {
        let kind = command.kind;
        let result = self.submit_now(command, deadline).await;
        self.inner.counts.note(kind, &result);
        result
    }

    async fn submit_now(
        &self,
        command: Prepared,
        deadline: Instant,
    ) -> Result<Answer, SubmitError> {
        let overloaded = || turned_away(TurnedAway::Overloaded);
        let size = command.submission.size();
        let held = Arc::clone(&self.inner.room).try_acquire_many_owned(size);
        let held = held.map_err(|_| overloaded())?;
        let ways = &self.inner.partitions[command.partition.0 as usize];
        let turns = Some(&ways.turns);
        let (message, waiting) = wrap(command.submission, None, turns, deadline, held);
        match ways.commands.try_send(message) {
            Ok(()) => {
                ways.desk.work();
                waiting.answer(deadline).await
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(overloaded()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(turned_away(TurnedAway::Stopping)),
        }
    }

    fn partition_count(&self) -> u32 {
        u32::try_from(self.inner.partitions.len()).expect("it was counted with a u32")
    }

    /// A batch of commands that are decided, per stream, in the order of submitting.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.inner))
    }

    /// What became of a command: `None` if this node's table does not know its id, which may be
    /// older than the idempotency window; `Err(Unknown)` if it is still in flight.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn outcome(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        id: &CommandId,
        deadline: Instant,
    ) -> Result<Option<Answer>, SubmitError> {
        let Some(aggregate) = self.inner.registry.get(stream.category()) else {
            return Ok(None);
        };
        let routing_key = aggregate.routing_key(stream.as_str());
        let routing_key = routing_key.map_err(|_| SubmitError::Failed)?;
        let partition = partition_of(tenant, routing_key, self.partition_count());
        let inquiry = Inquiry {
            tenant: tenant.clone(),
            stream: stream.clone(),
            id: id.clone(),
        };
        let not_ready = || turned_away(TurnedAway::NotReady);
        match self.inquire(partition, inquiry.clone(), deadline).await? {
            Inquired::Known(answer) => Ok(Some(answer)),
            Inquired::InFlight => Err(SubmitError::Unknown),
            Inquired::NotKnown => Ok(None),
            Inquired::NotHere => {
                let ways = &self.inner.partitions[partition.0 as usize];
                let elsewhere = ways.status.borrow().elsewhere.clone();
                let owner = elsewhere.ok_or_else(not_ready)?;
                let peers = self.inner.cluster.peers();
                let asked = peers.outcome(&owner.address, partition, &inquiry);
                match tokio::time::timeout_at(deadline.into(), asked).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, node = owner.node, "no word of a command's outcome");
                        Err(not_ready())
                    }
                    Err(_) => Err(not_ready()),
                }
            }
        }
    }

    /// What this node knows of a command.
    async fn inquire(
        &self,
        partition: Partition,
        inquiry: Inquiry,
        deadline: Instant,
    ) -> Result<Inquired, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Inquire(inquiry, reply);
        let ways = &self.inner.partitions[partition.0 as usize];
        if ways.commands.try_send(message).is_err() {
            return Err(turned_away(TurnedAway::Overloaded));
        }
        ways.desk.work();
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(inquired)) => Ok(inquired),
            Ok(Err(_)) => Err(turned_away(TurnedAway::Stopping)),
            Err(_) => Err(turned_away(TurnedAway::NotReady)),
        }
    }

    /// Whether commands find an owner for every partition: here, or at a node that is known.
    ///
    /// # Errors
    /// The partitions that have none, with reasons.
    pub fn readiness(&self) -> Result<(), String> {
        let mut reasons = Vec::new();
        for (partition, ways) in self.inner.partitions.iter().enumerate() {
            if let Some(reason) = unready(&ways.status.borrow()) {
                reasons.push(format!("partition {partition}: {reason}"));
            }
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("; "))
        }
    }

    /// Waits until every partition has an owner, here or elsewhere.
    ///
    /// # Errors
    /// What [`Self::readiness`] says when `wait` is over.
    pub async fn ready(&self, wait: Duration) -> Result<(), String> {
        let all = async {
            for ways in &self.inner.partitions {
                let mut status = ways.status.clone();
                let _ = status.wait_for(|status| unready(status).is_none()).await;
            }
        };
        let _ = tokio::time::timeout(wait, all).await;
        self.readiness()
    }

    /// Takes no more commands, waits until what was taken is answered, and lets go of the log.
    pub async fn drain(&self, wait: Duration) {
        self.inner.stopping.send_replace(true);
        let tasks = {
            let mut tasks = self
                .inner
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let deadline = tokio::time::Instant::now() + wait;
        for mut task in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.inner.appender.flush(wait).await;
    }
}

/// The log's identity, once every partition was claimed.
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
    Store::open(folder, bytes as u64, partitions).map_err(|source| store_error(folder, source))
}

fn store_error(folder: &Path, source: StoreError) -> StartError {
    StartError::Store {
        folder: folder.display().to_string(),
        source,
    }
}

fn partition_store(store: Option<&Store>, partition: Partition) -> Box<dyn StateStore> {
    match store {
        Some(store) => Box::new(store.partition(partition)),
        None => Box::new(NoStore),
    }
}

/// Why commands for a partition find no owner.
fn unready(status: &Status) -> Option<NotOwning> {
    match &status.not_owning {
        Some(NotOwning::StandingBy) if status.elsewhere.is_some() => None,
        reason => reason.clone(),
    }
}
