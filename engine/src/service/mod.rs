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
mod start;
mod time;
mod yielding;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_log::log::Appender;
use event_log::record::partition_of;
use kernel::registry::Registry;
use kernel::{CommandId, StreamName, TenantId};
use position::{LogId, Partition, Position, PositionToken};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use batch::Batch;
pub use nodes::ClusterOptions;
pub(crate) use room::Part;
use room::{Room, Share};
pub use shares::{MEMORY_BYTES, MEMORY_BYTES_MIN};
pub use start::{EngineOptions, QUEUE_MAX, StartError};
use yielding::Yielding;

use crate::command::{Became, Reply, Request, RequestError, SubmitError, TurnedAway, turned_away};
use crate::owner::{Inquired, Inquiry, NotOwning, Submission};
use crate::seat::{Desk, Sender, Status, Waiting, sides};
use crate::walk::Walk;

/// A request with the right shape, on its way to its partition.
pub struct Prepared {
    submission: Submission,
    partition: Partition,
    kind: Option<measure::Kind>,
    walk: Option<Arc<Walk>>,
}

impl Prepared {
    /// The same command, whose steps are noted in `walk`.
    #[must_use]
    pub fn traced(self, walk: Option<Arc<Walk>>) -> Self {
        Self { walk, ..self }
    }
}

/// The future outcome of one command of a batch.
pub type Pending = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A handle to the write side; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    log_id: LogId,
    partitions: Vec<Arc<Desk>>,
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

impl Drop for Inner {
    /// Nothing sends to the seats any more: their tasks end.
    fn drop(&mut self) {
        for desk in &self.partitions {
            desk.queues.close();
        }
    }
}

impl Inner {
    fn desk(&self, partition: Partition) -> &Arc<Desk> {
        &self.partitions[partition.0 as usize]
    }

    /// A new id for a sender.
    fn sender(&self) -> Sender {
        Sender(self.next_sender.fetch_add(1, Ordering::Relaxed))
    }
}

impl Engine {
    /// The registered aggregates.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

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
            walk: None,
        })
    }

    /// Decides a command, and waits for the log's answer until `deadline`. If the partition's queue
    /// is full, the command is turned away at once.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, command: Prepared, deadline: Instant) -> Reply {
        let kind = command.kind;
        let result = match self.queue(command, deadline) {
            Ok(waiting) => waiting.answer_until(deadline).await.unwrap_or_else(Err),
            Err(error) => Err(error),
        };
        self.inner.counts.note(kind, &result);
        result
    }

    /// Queues a command that does not wait for room.
    fn queue(&self, command: Prepared, deadline: Instant) -> Result<Waiting<Reply>, SubmitError> {
        let inner = &*self.inner;
        inner.yielding.single();
        let size = command.submission.size();
        let part = inner.room.try_take(&Share::default(), size);
        let part = part.ok_or_else(|| turned_away(TurnedAway::Overloaded))?;
        let desk = inner.desk(command.partition);
        // A connection waits for one such answer at a time, so each command is a sender of its own.
        let (sender, tenant) = (inner.sender(), command.submission.request.tenant.clone());
        let (sent, waiting) = sides(None, deadline, Some(&desk.queues.turns), Some(part));
        let sent = sent.traced(command.walk);
        let command = (Box::new((command.submission, sent)), waiting);
        let waiting = desk.queues.commands.try_push((sender, &tenant), command);
        let waiting = waiting.map_err(|(_, why)| turned_away(why.into()))?;
        desk.work();
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
        let inquired = self.inquire(partition, inquiry.clone(), deadline).await?;
        let up_to = match self.became(partition, inquired) {
            Ok(outcome) => return outcome,
            Err(up_to) => up_to,
        };
        match self.ask_elsewhere(partition, &inquiry, deadline).await {
            Some(outcome) => outcome,
            // No owner can be asked: only what this node has read is known.
            None if up_to > Position(0) => Ok(self.not_in_log(partition, up_to)),
            None => Err(turned_away(TurnedAway::NotReady)),
        }
    }

    /// What an inquiry's result means.
    ///
    /// # Errors
    /// Another node should be asked; with the position up to which this node has read.
    fn became(
        &self,
        partition: Partition,
        inquired: Inquired,
    ) -> Result<Result<Became, SubmitError>, Position> {
        Ok(match inquired {
            Inquired::Known(answer) => Ok(Became::Answered(answer)),
            Inquired::InFlight => Err(SubmitError::Unknown),
            Inquired::NotKnown { up_to } => Ok(self.not_in_log(partition, up_to)),
            Inquired::NotHere { up_to } => return Err(up_to),
        })
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
        let desk = self.inner.desk(partition);
        let owner = desk.status.borrow().elsewhere.clone()?;
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
        let desk = self.inner.desk(partition);
        let answer = desk.queues.questions.ask(inquiry);
        let answer = answer.map_err(|why| turned_away(why.into()))?;
        desk.work();
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
        for (partition, desk) in self.inner.partitions.iter().enumerate() {
            if let Some(reason) = unready(&desk.status.borrow()) {
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
            for desk in &self.inner.partitions {
                let mut status = desk.status.clone();
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

/// Why commands for a partition find no owner, if they find none.
fn unready(status: &Status) -> Option<NotOwning> {
    match &status.not_owning {
        Some(NotOwning::Standby) if status.elsewhere.is_some() => None,
        reason => reason.clone(),
    }
}
