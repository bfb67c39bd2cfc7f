//! One projector task: follows some partitions for some projections, with its own connection.
//!
//! Invariant: after any unexpected answer from Postgres the task closes its connection, loads the
//! checkpoints again and continues from them. This also settles a commit whose outcome was unknown.
//! Advisory locks keep a second projector waiting; if one gets past them, compare-and-set stops the
//! later of the two. Deliberately absent: which partitions belong to which task (`projector`), and
//! which rows follow from a commit (`fold`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use event_log::subscription::{Batch, Subscription, SubscriptionError};
use kernel::explained;
use position::{Offset, Partition};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::watch;

use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::{self, Places, Progress};
pub(crate) use crate::run::goal::Goal;
use crate::run::goal::behind;
use crate::run::measure;
use crate::run::status::{StatusBoard, TaskState};
use crate::run::versions;
use crate::run::writing::{Work, Writing, Written};
use crate::store::checkpoint;
use crate::store::generation::{self, Generation};
use crate::store::held;
use crate::store::stops;
use crate::store::write::{Way, WriteError};

mod locks;
mod stopping;

/// How long a task waits for records before it does its periodic checks.
const READ_WAIT: Duration = Duration::from_millis(500);
/// The interval of the periodic checks: does the connection work, and was a projection rebuilt or
/// resumed?
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);
/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// While a transaction of at least this many commits is written, the next batch is folded. A
/// smaller transaction is soon durable: the task waits for it, so that all commits that arrive
/// meanwhile go into the next transaction and are visible one transaction earlier.
const AHEAD_FROM: usize = 500;

/// What a task writes.
#[derive(Clone)]
pub(crate) enum Target {
    /// The live generations of these projections.
    Live(Vec<Arc<dyn Projection>>),
    /// A generation that is being built.
    Building(Generation),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to stop.
    Asked,
    /// It reached its goal.
    Reached,
    /// It has to start again: a projection was rebuilt or resumed.
    Anew,
}

/// Called with the next offset to read in each partition.
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
    /// The generations that it wrote last; absent: it has not started.
    pub(crate) held: Option<Vec<(&'static str, i32)>>,
    /// Called after each batch is durable, with the next offset to read in each partition.
    pub(crate) progress: OnRead,
}

/// What a task holds while it is connected.
struct Session {
    generations: Arc<[Generation]>,
    progress: Vec<Progress>,
    writing: Writing,
    /// The connection for looking up streams; opened at first use.
    looking: Option<PgConnection>,
    looked_around: Option<Instant>,
}

impl Session {
    fn taken_up(&self) -> impl Iterator<Item = &Places> + Clone {
        self.progress.iter().map(|progress| &progress.taken_up)
    }

    fn durable(&self) -> impl Iterator<Item = &Places> + Clone {
        self.progress.iter().map(|progress| &progress.durable)
    }

    fn is_look_due(&self) -> bool {
        let at = self.looked_around;
        at.is_none_or(|at| at.elapsed() >= LOOK_AROUND_EVERY)
    }
}

impl Task {
    /// Runs until the goal is reached or the task is asked to stop. After an error that may pass it
    /// tries again, without a limit; after any other error it waits until a projection is rebuilt
    /// or resumed.
    pub(crate) async fn run(mut self) -> Result<Ended, RuntimeError> {
        let mut pause = PAUSE_MIN;
        loop {
            let started = Instant::now();
            let error = match self.session().await {
                Ok(Ended::Anew) => {
                    pause = PAUSE_MIN;
                    continue;
                }
                Ok(ended) => {
                    self.board.set(TaskState::Ended);
                    return Ok(ended);
                }
                Err(error) => error,
            };
            let reason = explained(&error);
            if !error.may_pass() {
                self.board.set(TaskState::Stopped(reason.clone()));
                if !matches!(error, RuntimeError::Stopped(_)) {
                    self.report_all_stopped(&reason);
                }
                if self.rest().await {
                    continue;
                }
                return Err(error);
            }
            if started.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            tracing::warn!(
                reason,
                pause_ms = pause.as_secs_f64() * 1_000.0,
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
        held::take(&mut connection, &*self.log).await?;
        if let Some(ended) = self.take_locks(&mut connection).await? {
            return Ok(ended);
        }
        let mut session = self.load(connection).await?;
        let mut subscription = self.subscribe(&session);
        self.board.set(TaskState::Following);
        tracing::debug!(
            partitions = self.partitions.len(),
            "the projector follows the log"
        );
        loop {
            // Even if all places have reached the goal, they are still checked against the log.
            let wait = match self.is_level(session.durable()) {
                true => Duration::ZERO,
                false => READ_WAIT,
            };
            let mut next = std::pin::pin!(subscription.next(wait));
            let next = loop {
                tokio::select! {
                    biased;
                    () = asked(&mut self.stop) => break None,
                    Some(written) = session.writing.done() => {
                        self.written(&mut session, written)?;
                    }
                    next = &mut next => break Some(next),
                }
            };
            let batches = match next {
                None => {
                    self.settle(&mut session).await?;
                    session.writing.close().await;
                    return Ok(Ended::Asked);
                }
                Some(Ok(batches)) => batches,
                Some(Err(SubscriptionError::Log(error))) if error.is_final() => {
                    return Err(error.into());
                }
                Some(Err(SubscriptionError::Log(error))) => {
                    let reason = explained(&RuntimeError::Log(error));
                    tracing::warn!(reason, "the projector waits for the log");
                    self.board.set(TaskState::Retrying(reason));
                    self.stopped_within(PAUSE_MAX / 4).await;
                    continue;
                }
                Some(Err(SubscriptionError::Stop(stop))) => {
                    self.settle(&mut session).await?;
                    self.stop_partition(&mut session, stop)?;
                    continue;
                }
            };
            self.board.set(TaskState::Following);
            let is_last = match batches.is_empty() {
                true => {
                    self.settle(&mut session).await?;
                    self.reached(session.durable()).await?
                }
                false => {
                    let commits: usize = batches.iter().map(|batch| batch.commits.len()).sum();
                    self.take_up(&mut session, batches).await?;
                    if commits < AHEAD_FROM {
                        self.settle(&mut session).await?;
                    }
                    self.is_level(session.taken_up()) || self.is_in_vain()
                }
            };
            if is_last {
                self.settle(&mut session).await?;
                self.require_none_stopped()?;
                session.writing.close().await;
                return Ok(Ended::Reached);
            }
            if session.is_look_due() {
                self.settle(&mut session).await?;
                if self.look_around(&mut session).await? {
                    session.writing.close().await;
                    return Ok(Ended::Anew);
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
                for (stale, generation) in stale {
                    self.report_stopped(stale, generation);
                }
                live
            }
        };
        let mut progress = Vec::with_capacity(generations.len());
        for generation in &generations {
            let name = generation.projection.name();
            let durable = checkpoint::load(connection, name, generation.number).await?;
            let stopped = self.board.stopped_partitions(name, &self.partitions);
            progress.push(Progress {
                taken_up: durable.clone(),
                durable,
                stopped,
            });
        }
        Ok((generations, progress))
    }

    async fn load(&mut self, mut connection: PgConnection) -> Result<Session, RuntimeError> {
        if let Target::Live(projections) = &self.target
            && self.follows_live()
            && self.held.is_none()
        {
            let names: Vec<&str> = projections.iter().map(|p| p.name()).collect();
            stops::forget(&mut connection, &names, &self.partitions).await?;
        }
        let (generations, progress) = self.load_progress(&mut connection).await?;
        let held = generations
            .iter()
            .map(|generation| (generation.projection.name(), generation.number));
        self.held = Some(held.collect());
        let generations: Arc<[Generation]> = generations.into();
        let way = match self.target {
            Target::Live(_) => Way::Merge,
            Target::Building(_) => Way::Copy,
        };
        let session = Session {
            writing: Writing::new(connection, &generations, way),
            generations,
            progress,
            looking: None,
            looked_around: None,
        };
        self.require_any(&session)?;
        Ok(session)
    }

    /// Fails if all projections of the task have stopped.
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

    /// Follows each partition from the least checkpoint among the projections that have not stopped
    /// there.
    fn subscribe(&self, session: &Session) -> Subscription {
        let least = |partition: Partition| {
            let going = session.progress.iter();
            let going = going.filter(|progress| !progress.stopped.contains(&partition));
            let offset = |c: Option<&Checkpoint>| c.map(|checkpoint| checkpoint.offset);
            going
                .map(|progress| progress.durable.get(&partition))
                .min_by_key(|checkpoint| offset(*checkpoint))
                .flatten()
                .cloned()
        };
        let goes_on = |p: &&Partition| session.progress.iter().any(|s| !s.stopped.contains(p));
        let partitions = self.partitions.iter().filter(goes_on);
        let from = partitions.map(|&p| (p, least(p))).collect();
        Subscription::new(Arc::clone(&self.log), from)
    }

    /// Folds batches for all projections that want them, and begins to write the result.
    async fn take_up(
        &mut self,
        session: &mut Session,
        batches: Vec<Batch>,
    ) -> Result<(), RuntimeError> {
        let batches = self.hold_against_streams(session, batches).await?;
        self.prove_joining(session, &batches).await?;
        let mut work = self.fold(session, batches)?;
        if self.settle(session).await? {
            work = self.fold(session, work.batches)?;
        }
        self.begin(session, work);
        Ok(())
    }

    /// Looks up the streams' versions that the log's reader does not know. If a commit does not
    /// follow its stream's version, its partition is stopped.
    async fn hold_against_streams(
        &mut self,
        session: &mut Session,
        mut batches: Vec<Batch>,
    ) -> Result<Vec<Batch>, RuntimeError> {
        let mut commits = batches.iter().flat_map(|batch| &batch.commits);
        if commits.all(|placed| placed.is_checked) {
            return Ok(batches);
        }
        self.settle(session).await?;
        let damaged = versions::gaps(&self.postgres, &mut session.looking, &batches).await?;
        for damage in damaged {
            batches.retain(|batch| batch.partition != damage.partition);
            self.stop_partition(session, damage.into())?;
        }
        Ok(batches)
    }

    fn fold(&self, session: &mut Session, batches: Vec<Batch>) -> Result<Work, RuntimeError> {
        let began = Instant::now();
        let (folds, failed) = batch::fold(&session.generations, &mut session.progress, &batches);
        for stopped in failed {
            let number = session.generations.iter().find_map(|generation| {
                (generation.projection.name() == stopped.projection).then_some(generation.number)
            });
            self.report_stopped(stopped, number.unwrap_or_default());
        }
        self.require_any(session)?;
        for fold in &folds {
            let taken_up = &mut session.progress[fold.index].taken_up;
            let moves = fold.moves.iter();
            taken_up.extend(moves.map(|moved| (moved.partition, moved.after.clone())));
        }
        Ok(Work {
            batches,
            folds,
            began,
        })
    }

    fn begin(&mut self, session: &mut Session, work: Work) {
        if work.folds.is_empty() {
            measure::orphans(&work.batches);
            self.tell(session);
        } else {
            session.writing.begin(work);
        }
    }

    /// Waits until the running transaction is durable. Returns whether later batches that are
    /// already folded must be folded again.
    async fn settle(&mut self, session: &mut Session) -> Result<bool, RuntimeError> {
        let mut is_anew = false;
        while let Some(written) = session.writing.done().await {
            is_anew |= self.written(session, written)?;
        }
        Ok(is_anew)
    }

    /// Handles the result of a transaction. If the data of one projection cannot be stored, begins
    /// a new transaction without that projection; later batches must then be folded again.
    fn written(&mut self, session: &mut Session, written: Written) -> Result<bool, RuntimeError> {
        let Written { work, outcome } = written;
        match outcome {
            Ok(()) => {
                measure::written(&work.batches, &work.folds, work.began.elapsed());
                measure::orphans(&work.batches);
                work.trace(&session.generations);
                for fold in work.folds {
                    let durable = &mut session.progress[fold.index].durable;
                    let moves = fold.moves.into_iter();
                    durable.extend(moves.map(|moved| (moved.partition, moved.after)));
                }
                self.tell(session);
                Ok(false)
            }
            Err(WriteError::Data { index, reason }) => {
                let generation = &session.generations[index];
                session.progress[index].stopped.extend(&self.partitions);
                let stopped = StoppedProjection {
                    projection: generation.projection.name(),
                    partition: None,
                    offset: None,
                    reason,
                };
                self.report_stopped(stopped, generation.number);
                for progress in &mut session.progress {
                    progress.taken_up.clone_from(&progress.durable);
                }
                let work = self.fold(session, work.batches)?;
                self.begin(session, work);
                Ok(true)
            }
            Err(WriteError::Runtime(error)) => Err(error),
            Err(WriteError::Repeated) => unreachable!("it was merged then"),
        }
    }

    /// Stops all projections in one partition; the other partitions go on.
    fn stop_partition(&self, session: &mut Session, stop: Stop) -> Result<(), RuntimeError> {
        let Some((partition, offset)) = stop.place() else {
            return Err(stop.into());
        };
        for (generation, progress) in session.generations.iter().zip(&mut session.progress) {
            if progress.stopped.insert(partition) {
                let stopped = StoppedProjection {
                    projection: generation.projection.name(),
                    partition: Some(partition),
                    offset: Some(offset),
                    reason: stop.to_string(),
                };
                self.report_stopped(stopped, generation.number);
            }
        }
        // A goal that cannot be reached in one partition cannot be reached at all.
        match (&self.goal, self.require_any(session)) {
            (Goal::Follow, Ok(())) => Ok(()),
            (Goal::Follow, Err(_)) | (Goal::Reach(_), _) => Err(stop.into()),
        }
    }

    fn tell(&mut self, session: &Session) {
        let mut read = BTreeMap::new();
        for &partition in &self.partitions {
            let at = |places: &Places| places.get(&partition).map(|place| place.offset);
            let least = session.durable().map(at).min().flatten();
            read.extend(least.map(|offset| (partition, offset.next())));
        }
        (self.progress)(&read);
    }

    /// The subscription proves the least checkpoint. A projection that is ahead of it proves its
    /// own checkpoint before it takes up its first commits.
    async fn prove_joining(
        &self,
        session: &Session,
        batches: &[Batch],
    ) -> Result<(), RuntimeError> {
        for batch in batches {
            for progress in &session.progress {
                let own = progress.taken_up.get(&batch.partition);
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

    /// Whether there is a goal that some projection cannot reach any more.
    fn is_in_vain(&self) -> bool {
        matches!(self.goal, Goal::Reach(_)) && self.board.first_stopped().is_some()
    }

    fn require_none_stopped(&self) -> Result<(), RuntimeError> {
        match self.board.first_stopped() {
            Some(stopped) => Err(stopped.into()),
            None => Ok(()),
        }
    }

    /// Whether every place has reached the goal's offsets.
    fn is_level<'a>(&self, places: impl Iterator<Item = &'a Places> + Clone) -> bool {
        match &self.goal {
            Goal::Follow => false,
            Goal::Reach(ends) => behind(ends, places).is_empty(),
        }
    }

    /// Whether no record before the goal's offsets is missing. Offsets without records may remain.
    async fn reached<'a>(
        &self,
        places: impl Iterator<Item = &'a Places> + Clone,
    ) -> Result<bool, RuntimeError> {
        let Goal::Reach(ends) = &self.goal else {
            return Ok(false);
        };
        self.require_none_stopped()?;
        for (partition, next, end) in behind(ends, places) {
            let from = next.max(self.log.bounds(partition).await?.first);
            let chunk = self.log.read(partition, from).await?;
            let more = chunk.records.iter().any(|record| record.offset < end);
            if more || (!chunk.at_end && chunk.next < end) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Waits until the task is asked to stop.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // A closed channel also means stop: its owner is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Checks a checkpoint against the log.
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
