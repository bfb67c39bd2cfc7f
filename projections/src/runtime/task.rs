//! One projector task: follows some partitions for some projections, with a connection of its own.
//!
//! Invariant: after anything unexpected from Postgres the task throws its connection away, loads
//! the checkpoints anew and goes on from them, so that an unknown outcome of a commit settles
//! itself. Advisory locks keep a second projector waiting; should one get past them, compare-and-set
//! stops the later of the two. Deliberately absent: which partitions belong to which task
//! (`projector`), and what rows follow from a commit (`fold`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::chain::Stop;
use engine::checkpoint::Checkpoint;
use engine::explained;
use engine::ids::{Offset, Partition};
use engine::log::EventLog;
use engine::subscription::{Batch, Subscription, SubscriptionError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::watch;

use super::error::{RuntimeError, StoppedProjection};
use super::fold::{self, Progress};
use super::generation::{self, Generation};
use super::projection::Projection;
use super::status::{StatusBoard, TaskState};
use super::write::{self, Way, WriteError};
use super::{checkpoint, measure};

/// How long a task waits for records before it looks around.
const READ_WAIT: Duration = Duration::from_millis(500);
/// How often gauges are brought up to date and the connection is tried.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);
/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a waiting task asks for the locks again.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// How far a task goes.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// On and on.
    Follow,
    /// Up to before these offsets.
    Reach(BTreeMap<Partition, Offset>),
}

/// What a task writes.
pub(crate) enum Target {
    /// The live generations of these projections.
    Live(Vec<Arc<dyn Projection>>),
    /// A generation that is being built.
    Building(Generation),
}

/// How a task came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to stop.
    Asked,
    /// It reached its goal.
    Reached,
}

/// Told where reading goes on, by partition.
pub(crate) type OnRead = Box<dyn FnMut(&BTreeMap<Partition, Offset>) + Send + Sync>;

/// One projector task.
pub(crate) struct Task {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) postgres: PgConnectOptions,
    pub(crate) target: Target,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) goal: Goal,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) board: StatusBoard,
    /// Told how far each partition was read, after each batch.
    pub(crate) progress: OnRead,
}

/// What a task holds while it is connected.
struct Session {
    connection: PgConnection,
    generations: Vec<Generation>,
    progress: Vec<Progress>,
    way: Way,
    looked_around: Instant,
}

impl Task {
    /// Runs until the goal is reached, the task is asked to stop, or something stops it for good.
    /// What may pass is tried again, without end.
    pub(crate) async fn run(mut self) -> Result<Ended, RuntimeError> {
        let mut pause = PAUSE_MIN;
        loop {
            let started = Instant::now();
            let error = match self.session().await {
                Ok(ended) => {
                    self.board.set(TaskState::Ended);
                    return Ok(ended);
                }
                Err(error) => error,
            };
            let reason = explained(&error);
            if !error.may_pass() {
                tracing::error!(partitions = ?self.partitions, reason, "the projector stopped");
                self.board.set(TaskState::Stopped(reason));
                return Err(error);
            }
            if started.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            tracing::warn!(
                reason,
                pause_ms = pause.as_millis(),
                "the projector tries again"
            );
            self.board.set(TaskState::Retrying(reason));
            if self.stopped_within(pause).await {
                self.board.set(TaskState::Ended);
                return Ok(Ended::Asked);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Runs until the first error.
    pub(crate) async fn run_once(mut self) -> Result<Ended, RuntimeError> {
        self.session().await
    }

    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, asked(&mut self.stop))
            .await
            .is_ok()
    }

    async fn session(&mut self) -> Result<Ended, RuntimeError> {
        let connect = RuntimeError::postgres("connect to Postgres");
        let mut connection = self.postgres.connect().await.map_err(connect)?;
        if let Some(ended) = self.take_locks(&mut connection).await? {
            return Ok(ended);
        }
        let mut session = self.load(connection).await?;
        let mut subscription = self.subscribe(&session);
        self.board.set(TaskState::Following);
        tracing::debug!(partitions = ?self.partitions, "the projector follows the log");
        loop {
            // What is level is still held against the log.
            let wait = match self.is_level(&session.progress)? {
                true => Duration::ZERO,
                false => READ_WAIT,
            };
            let next = subscription.next(wait);
            let next = tokio::select! {
                biased;
                () = asked(&mut self.stop) => None,
                next = next => Some(next),
            };
            let Some(next) = next else {
                let _ = session.connection.close().await;
                return Ok(Ended::Asked);
            };
            let batches = match next {
                Ok(batches) => batches,
                Err(SubscriptionError::Log(error)) => {
                    let reason = explained(&RuntimeError::Log(error));
                    tracing::warn!(reason, "the projector waits for the log");
                    self.board.set(TaskState::Retrying(reason));
                    self.stopped_within(PAUSE_MAX / 4).await;
                    continue;
                }
                Err(SubscriptionError::Stop(stop)) => return Err(stop.into()),
            };
            self.board.set(TaskState::Following);
            if batches.is_empty() && self.reached(&session.progress).await? {
                let _ = session.connection.close().await;
                return Ok(Ended::Reached);
            }
            if !batches.is_empty() {
                self.take_up(&mut session, &batches).await?;
                for batch in batches {
                    subscription.made_durable(batch.partition, batch.after);
                }
            }
            if self.is_level(&session.progress)? {
                let _ = session.connection.close().await;
                return Ok(Ended::Reached);
            }
            if session.looked_around.elapsed() >= LOOK_AROUND_EVERY {
                self.look_around(&mut session).await?;
            }
        }
    }

    /// Waits until no other projector writes the same; ends early where the goal is reached by it.
    async fn take_locks(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<Ended>, RuntimeError> {
        let names: Vec<String> = match &self.target {
            Target::Live(projections) => projections
                .iter()
                .flat_map(|projection| {
                    let name = projection.name();
                    let key = move |p: &Partition| format!("annals.projector/{name}/{p}");
                    self.partitions.iter().map(key)
                })
                .collect(),
            // A rebuild holds a lock of its own.
            Target::Building(_) => return Ok(None),
        };
        loop {
            if try_locks(connection, &names).await? {
                return Ok(None);
            }
            self.board.set(TaskState::Waiting);
            if self.stopped_within(LOCK_EVERY).await {
                return Ok(Some(Ended::Asked));
            }
            if matches!(self.goal, Goal::Reach(_)) {
                let (_, progress) = self.load_progress(connection).await?;
                if self.reached(&progress).await? {
                    return Ok(Some(Ended::Reached));
                }
            }
        }
    }

    async fn load_progress(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(Vec<Generation>, Vec<Progress>), RuntimeError> {
        let generations = match &self.target {
            Target::Building(generation) => vec![generation.clone()],
            Target::Live(projections) => {
                let (live, stale) = generation::ensure_live(connection, projections).await?;
                stale
                    .into_iter()
                    .for_each(|stale| self.board.stop_projection(stale));
                live
            }
        };
        let mut progress = Vec::with_capacity(generations.len());
        for generation in &generations {
            let name = generation.projection.name();
            let checkpoints = checkpoint::load(connection, name, generation.number).await?;
            let stopped = self.board.stopped_partitions(name, &self.partitions);
            progress.push(Progress {
                checkpoints,
                stopped,
            });
        }
        Ok((generations, progress))
    }

    async fn load(&self, mut connection: PgConnection) -> Result<Session, RuntimeError> {
        let (generations, progress) = self.load_progress(&mut connection).await?;
        let mut session = Session {
            connection,
            generations,
            progress,
            way: match self.target {
                Target::Live(_) => Way::Merge,
                Target::Building(_) => Way::Copy,
            },
            looked_around: Instant::now(),
        };
        self.require_any(&session)?;
        self.look_around(&mut session).await?;
        Ok(session)
    }

    /// A task whose projections all stopped has nothing to do.
    fn require_any(&self, session: &Session) -> Result<(), RuntimeError> {
        let goes_on = session
            .progress
            .iter()
            .any(|progress| progress.stopped.len() < self.partitions.len());
        match self.board.first_stopped() {
            Some(stopped) if !goes_on => Err(stopped.into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Follows each partition from the least checkpoint of the projections that go on there.
    fn subscribe(&self, session: &Session) -> Subscription {
        let least = |partition: Partition| {
            let going = session.progress.iter();
            let going = going.filter(|progress| !progress.stopped.contains(&partition));
            let offset = |c: Option<&Checkpoint>| c.map(|checkpoint| checkpoint.offset);
            going
                .map(|progress| progress.checkpoints.get(&partition))
                .min_by_key(|checkpoint| offset(*checkpoint))
                .flatten()
                .cloned()
        };
        let goes_on = |p: &&Partition| session.progress.iter().any(|s| !s.stopped.contains(p));
        let partitions = self.partitions.iter().filter(goes_on);
        let from = partitions.map(|&p| (p, least(p))).collect();
        Subscription::new(Arc::clone(&self.log), from)
    }

    /// Makes batches durable for all projections that want them.
    async fn take_up(
        &mut self,
        session: &mut Session,
        batches: &[Batch],
    ) -> Result<(), RuntimeError> {
        self.prove_joining(session, batches).await?;
        let started = Instant::now();
        loop {
            let (folds, failed) = fold::fold(&session.generations, &mut session.progress, batches);
            for stopped in failed {
                self.report_stopped(stopped);
            }
            self.require_any(session)?;
            if folds.is_empty() {
                break;
            }
            let (connection, generations) = (&mut session.connection, &session.generations);
            match write::write(connection, generations, &folds, session.way).await {
                Ok(()) => {
                    measure::written(batches, &folds, started.elapsed());
                    for fold in folds {
                        let checkpoints = &mut session.progress[fold.index].checkpoints;
                        let moved = fold.moves.into_iter();
                        checkpoints.extend(moved.map(|moved| (moved.partition, moved.after)));
                    }
                    break;
                }
                Err(WriteError::Runtime(error)) => return Err(error),
                Err(WriteError::Repeated) => session.way = Way::Merge,
                Err(WriteError::Data { index, reason }) => {
                    let projection = session.generations[index].projection.name();
                    session.progress[index].stopped.extend(&self.partitions);
                    self.report_stopped(StoppedProjection {
                        projection,
                        partition: None,
                        offset: None,
                        reason,
                    });
                }
            }
        }
        measure::orphans(batches);
        self.tell(session);
        Ok(())
    }

    fn report_stopped(&self, stopped: StoppedProjection) {
        tracing::error!(
            projection = stopped.projection,
            partition = stopped.partition.map(|p| p.0),
            offset = stopped.offset.map(|o| o.0),
            reason = stopped.reason,
            "the projection stopped here; the others go on"
        );
        metrics::counter!("annals_projection_stopped_total", "projection" => stopped.projection)
            .increment(1);
        self.board.stop_projection(stopped);
    }

    fn tell(&mut self, session: &Session) {
        let mut read = BTreeMap::new();
        for &partition in &self.partitions {
            let at = |progress: &Progress| progress.checkpoints.get(&partition).map(|c| c.offset);
            let least = session.progress.iter().map(at).min().flatten();
            read.extend(least.map(|offset| (partition, offset.next())));
        }
        (self.progress)(&read);
    }

    /// The subscription proves the least checkpoint; a projection that is ahead of it and takes up
    /// its first commits proves its own.
    async fn prove_joining(
        &self,
        session: &Session,
        batches: &[Batch],
    ) -> Result<(), RuntimeError> {
        for batch in batches {
            for progress in &session.progress {
                let own = progress.checkpoints.get(&batch.partition);
                if let Some(own) = own
                    && batch.before.as_ref() != Some(own)
                    && progress.wants(batch)
                {
                    prove(&*self.log, batch.partition, own).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether every checkpoint stands right before the goal's offsets, or behind.
    fn is_level(&self, progress: &[Progress]) -> Result<bool, RuntimeError> {
        let Goal::Reach(ends) = &self.goal else {
            return Ok(false);
        };
        match self.board.first_stopped() {
            Some(stopped) => Err(stopped.into()),
            None => Ok(behind(ends, progress).is_empty()),
        }
    }

    /// Whether no record before the goal's offsets is missing; there may be offsets without
    /// records.
    async fn reached(&self, progress: &[Progress]) -> Result<bool, RuntimeError> {
        if self.is_level(progress)? {
            return Ok(true);
        }
        let Goal::Reach(ends) = &self.goal else {
            return Ok(false);
        };
        for (partition, next, end) in behind(ends, progress) {
            let from = next.max(self.log.bounds(partition).await?.first);
            let chunk = self.log.read(partition, from).await?;
            let more = chunk.records.iter().any(|record| record.offset < end);
            if more || (!chunk.at_end && chunk.next < end) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings gauges up to date and finds out whether the connection, with its locks, still lives.
    async fn look_around(&self, session: &mut Session) -> Result<(), RuntimeError> {
        session.looked_around = Instant::now();
        let ping = RuntimeError::postgres("reach Postgres");
        session.connection.ping().await.map_err(ping)?;
        for &partition in &self.partitions {
            let Ok(bounds) = self.log.bounds(partition).await else {
                // The subscription meets the same trouble and says so.
                return Ok(());
            };
            for (generation, progress) in session.generations.iter().zip(&session.progress) {
                let at = progress.checkpoints.get(&partition);
                measure::place(generation.projection.name(), partition, bounds, at);
            }
        }
        Ok(())
    }
}

/// The partitions in which a checkpoint stands before the goal: where it would go on, and the goal.
fn behind(
    ends: &BTreeMap<Partition, Offset>,
    progress: &[Progress],
) -> Vec<(Partition, Offset, Offset)> {
    let mut behind = Vec::new();
    for (&partition, &end) in ends {
        let next = progress.iter().map(|progress| {
            let at = progress.checkpoints.get(&partition);
            at.map_or(Offset(0), |checkpoint| checkpoint.offset.next())
        });
        let next = next.min().unwrap_or(end);
        if next < end {
            behind.push((partition, next, end));
        }
    }
    behind
}

/// Waits until the task is asked to stop.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // A closed channel means that nobody is left to ask for more.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn try_locks(connection: &mut PgConnection, names: &[String]) -> Result<bool, RuntimeError> {
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

/// Holds the log against a checkpoint.
async fn prove(
    log: &dyn EventLog,
    partition: Partition,
    checkpoint: &Checkpoint,
) -> Result<(), RuntimeError> {
    let (end, found) = log.look(partition, checkpoint.offset).await?;
    checkpoint
        .prove(partition, end, found.as_ref())
        .map_err(Stop::Damage)?;
    Ok(())
}
