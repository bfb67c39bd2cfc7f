//! The write side as a door sees it: commands go in, and each gets one answer.
//!
//! Invariant: queues are bounded. If a command was not attempted, its answer says so; if it may
//! have been attempted, the answer is *unknown*. Deliberately absent: HTTP, and the decisions
//! themselves (`owner`).

mod batch;
mod measure;
mod nodes;
mod room;
mod serving;
mod shares;
mod time;
mod yielding;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel::{CommandId, StreamName, TenantId};
use position::{LogId, Partition, Position, PositionToken};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use batch::Batch;
pub use nodes::ClusterOptions;

use kernel::registry::Registry;
pub(crate) use room::Part;
use room::{Room, Share};
use shares::Shares;
pub use shares::{MEMORY_BYTES, MEMORY_BYTES_MIN};

use event_log::create::first_claim;
use event_log::log::{Appender, EventLog, LogError};
use event_log::record::partition_of;

use crate::command::{Answer, Became, Request, RequestError, SubmitError, TurnedAway, turned_away};
use crate::owner::{
    Entropy, Inquired, Inquiry, NoStore, NotOwning, Owner, OwnerSettings, StateStore, Store,
    StoreError, Submission,
};
use crate::seat::{
    Desk, Events, Identity, Load, NodeControl, Queues, Seat, Sender, Shared, Status, Waiting, sides,
};
use yielding::Yielding;

/// How many commands may wait for one partition, unless configured otherwise.
pub const QUEUE_MAX: usize = 1_024;
/// How many hand-over and take-over requests of other nodes may wait for one partition.
const CONTROL_MAX: usize = 64;

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
    /// flight each get a part of it. At least [`MEMORY_BYTES_MIN`].
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

/// A request with the right shape, on its way to its partition.
pub struct Prepared {
    submission: Submission,
    partition: Partition,
    kind: Option<measure::Kind>,
}

/// The future outcome of one command of a batch.
pub type Pending = Pin<Box<dyn Future<Output = Result<Answer, SubmitError>> + Send>>;

/// A handle to the write side; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    log_id: LogId,
    partitions: Vec<Ways>,
    /// The bytes that waiting commands may take.
    room: Arc<Room>,
    next_sender: AtomicU64,
    yielding: Arc<Yielding>,
    counts: measure::Counts,
    cluster: nodes::Cluster,
    stopping: watch::Sender<bool>,
    appender: Arc<dyn Appender>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The ways to reach one partition's seat.
struct Ways {
    desk: Arc<Desk>,
    queues: Arc<Queues>,
    control: mpsc::Sender<NodeControl>,
    status: watch::Receiver<Status>,
}

impl Drop for Ways {
    /// Nothing sends to the seat any more: its task ends.
    fn drop(&mut self) {
        self.queues.close();
    }
}

impl Inner {
    /// A new id for a sender.
    fn sender(&self) -> Sender {
        Sender(self.next_sender.fetch_add(1, Ordering::Relaxed))
    }
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
        let mut cluster = nodes::Cluster::join((&log, log_id), options.cluster, &settings).await?;
        let started = Instant::now();
        let keeper = time::Timekeeper::of(
            cluster.log_clock.clone(),
            Arc::clone(&cluster.directory),
            started,
            settings.clock_skew_max_ms,
        );
        tokio::spawn(keeper.run(stopped.clone()));
        let shared = Shared {
            log: Arc::clone(&log),
            appender: Arc::clone(&appender),
            peers: Arc::clone(&cluster.peers),
            directory: Arc::clone(&cluster.directory),
            unfit: cluster.unfit.clone(),
            in_group: cluster.is_in_group(),
            log_clock: cluster.log_clock.clone(),
            started,
        };
        let identity = Identity {
            node: settings.node.clone(),
            address: settings.address.clone(),
            log: log_id,
        };
        let mut partitions = Vec::new();
        let mut tasks = Vec::new();
        for partition in (0..partition_count).map(Partition) {
            let (control_queue, control) = mpsc::channel(CONTROL_MAX);
            let mut owner = Owner::new(
                partition,
                registry.clone(),
                settings.clone(),
                partition_store(store.as_ref(), partition),
                Box::new(SystemEntropy),
            );
            owner.pass(log.acknowledged());
            owner.expect_log(log_id);
            let (status, watched) = watch::channel(Status {
                not_owning: owner.not_owning(),
                log: None,
                position: Position(0),
                term: None,
                elsewhere: None,
            });
            let queues = Queues::new(options.queue_max);
            let events = Events {
                control,
                assigned: cluster.assigned[partition.0 as usize].subscribe(),
                known: cluster.known.clone(),
                stopping: stopped.clone(),
            };
            let seat = Seat::new(owner, identity.clone());
            let desk = Desk::open(seat, shared.clone(), Arc::clone(&queues), status);
            tasks.push(tokio::spawn(Arc::clone(&desk).attend(events)));
            partitions.push(Ways {
                desk,
                queues,
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
    /// [`RequestError`] if no aggregate has the command, or the data has the wrong shape.
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

    /// Decides a command, and waits for the log's answer until `deadline`. If the partition's queue
    /// is full, the command is turned away at once.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(
        &self,
        command: Prepared,
        deadline: Instant,
    ) -> Result<Answer, SubmitError> {
        let kind = command.kind;
        let result = match self.queue(command, deadline) {
            Ok(waiting) => waiting.answer_until(deadline).await.unwrap_or_else(Err),
            Err(error) => Err(error),
        };
        self.inner.counts.note(kind, &result);
        result
    }

    /// Queues a command that does not wait for room.
    fn queue(
        &self,
        command: Prepared,
        deadline: Instant,
    ) -> Result<Waiting<Result<Answer, SubmitError>>, SubmitError> {
        let inner = &*self.inner;
        inner.yielding.single();
        let size = command.submission.size();
        let part = inner.room.try_take(&Share::default(), size);
        let part = part.ok_or_else(|| turned_away(TurnedAway::Overloaded))?;
        let ways = &inner.partitions[command.partition.0 as usize];
        // A connection waits for one such answer at a time, so each command is a sender of its own.
        let (tenant, sender) = (command.submission.request.tenant.clone(), inner.sender());
        let load = Load {
            sender,
            tenant: &tenant,
            bytes: size,
        };
        let (sent, waiting) = sides(None, deadline, Some(&ways.queues.turns), Some(part));
        let command = (Box::new((command.submission, sent)), waiting);
        let waiting = ways.queues.commands.try_push(load, command);
        let waiting = waiting.map_err(|(_, why)| turned_away(why.into()))?;
        ways.desk.work();
        Ok(waiting)
    }

    fn partition_count(&self) -> u32 {
        u32::try_from(self.inner.partitions.len()).expect("it was counted with a u32")
    }

    /// A batch: per stream, its commands are decided in the order of their submission.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.inner))
    }

    /// What happened to a command: `Err(Unknown)` if it is still in flight. "Not in the log" holds
    /// up to a position only: behind that position, the command may have been appended meanwhile or
    /// still be appended.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn outcome(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        id: &CommandId,
        deadline: Instant,
    ) -> Result<Became, SubmitError> {
        let aggregate = self.inner.registry.get(stream.category());
        let routing_key = aggregate.map(|aggregate| aggregate.routing_key(stream.as_str()));
        let routing_key = routing_key.unwrap_or(Ok(stream.as_str()));
        let routing_key = routing_key.map_err(|_| SubmitError::Failed)?;
        let partition = partition_of(tenant, routing_key, self.partition_count());
        let inquiry = Inquiry {
            tenant: tenant.clone(),
            stream: stream.clone(),
            id: id.clone(),
        };
        match self.inquire(partition, inquiry.clone(), deadline).await? {
            Inquired::Known(answer) => Ok(Became::Answered(answer)),
            Inquired::InFlight => Err(SubmitError::Unknown),
            Inquired::NotKnown { up_to } => Ok(self.not_in_log(partition, up_to)),
            Inquired::NotHere { up_to } => {
                let elsewhere = self.ask_elsewhere(partition, &inquiry, deadline).await;
                match elsewhere {
                    Some(outcome) => outcome,
                    // No owner can be asked: only what this node has read is known.
                    None if up_to > Position(0) => Ok(self.not_in_log(partition, up_to)),
                    None => Err(turned_away(TurnedAway::NotReady)),
                }
            }
        }
    }

    fn not_in_log(&self, partition: Partition, up_to: Position) -> Became {
        Became::NotInLog {
            up_to: PositionToken::at(self.inner.log_id, partition, up_to),
        }
    }

    /// The answer of the node that is said to own; `None` if there is no such node, or if it does
    /// not answer.
    async fn ask_elsewhere(
        &self,
        partition: Partition,
        inquiry: &Inquiry,
        deadline: Instant,
    ) -> Option<Result<Became, SubmitError>> {
        let ways = &self.inner.partitions[partition.0 as usize];
        let owner = ways.status.borrow().elsewhere.clone()?;
        let peers = &self.inner.cluster.peers;
        let asked = peers.outcome(&owner.address, partition, inquiry);
        // Half of the time is kept for this node's own answer.
        let wait = deadline.saturating_duration_since(Instant::now()) / 2;
        match tokio::time::timeout(wait, asked).await {
            Ok(Ok(Err(SubmitError::TurnedAway { reason, .. }))) => {
                tracing::debug!(%reason, node = owner.node, "no word of a command's outcome");
                None
            }
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(error)) => {
                tracing::debug!(%error, node = owner.node, "no word of a command's outcome");
                None
            }
            Err(_) => None,
        }
    }

    /// What this node itself knows about a command.
    async fn inquire(
        &self,
        partition: Partition,
        inquiry: Inquiry,
        deadline: Instant,
    ) -> Result<Inquired, SubmitError> {
        let ways = &self.inner.partitions[partition.0 as usize];
        let answer = ways.queues.questions.ask(inquiry);
        let answer = answer.map_err(|why| turned_away(why.into()))?;
        ways.desk.work();
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(inquired)) => Ok(inquired),
            Ok(Err(_)) => Err(turned_away(TurnedAway::Stopping)),
            Err(_) => Err(turned_away(TurnedAway::NotReady)),
        }
    }

    /// Whether every partition has an owner for its commands: this node, or another known node.
    ///
    /// # Errors
    /// The partitions without an owner, with reasons.
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
    /// The error of [`Self::readiness`] if `wait` is over first.
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

    /// Takes no more commands, waits until those taken are answered, and releases the log.
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

/// Why commands for a partition find no owner, if they find none.
fn unready(status: &Status) -> Option<NotOwning> {
    match &status.not_owning {
        Some(NotOwning::StandingBy) if status.elsewhere.is_some() => None,
        reason => reason.clone(),
    }
}
