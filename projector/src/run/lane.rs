//! A lane: some generations that are level, some partitions, one subscription and one transaction
//! at a time.
//!
//! Invariant: after any unexpected answer from Postgres the lane closes its connection, loads the
//! checkpoints again and continues from them. This also settles a commit whose outcome was unknown.
//! If two lanes of two processes write the same, compare-and-set lets one of them through. A
//! failure that belongs to one generation ends the lane, so that the generation gets a lane of its
//! own and the others go on. Deliberately absent: which lanes there are (`plan`, `projector`), and
//! which rows follow from a commit (`fold`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use event_log::subscription::{Batch, Subscription, SubscriptionError};
use kernel::explained;
use position::Partition;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::{mpsc, watch};

use crate::error::RuntimeError;
use crate::fold::batch::{self, Places, Progress};
use crate::fold::parked::{Park, StreamId};
use crate::run::share::Share;
use crate::run::status::{StatusBoard, TaskState};
use crate::run::writing::{Work, Writing, Written};
use crate::run::{measure, versions};
use crate::store::generation::Generation;
use crate::store::members::{GenerationId, Pair};
use crate::store::write::{Folded, Way, WriteError};
use crate::store::{checkpoint, held, parked};

mod troubles;

/// How long a lane waits for records before it does its periodic checks.
const READ_WAIT: Duration = Duration::from_millis(500);
/// The interval of the check whether the connection works.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);
/// How often a building that has gone as far as it may looks whether it may go further.
const CEILING_EVERY: Duration = Duration::from_millis(50);
/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// While a transaction of at least this many commits is written, the next batch is folded. A
/// smaller transaction is soon durable: the lane waits for it, so that all commits that arrive
/// meanwhile go into the next transaction and are visible one transaction earlier.
const AHEAD_FROM: usize = 500;

/// The most streams that one generation parks in the partitions of a lane. If there are more, the
/// projection itself is wrong, and it stops.
const PARKED_STREAMS_MAX: usize = 1_000;

/// What a lane tells its projector.
#[derive(Debug)]
pub(crate) enum Told {
    /// A stop was stored: who runs what must be planned anew.
    Stopped { generation: GenerationId },
    /// A generation cannot be written now, through no fault of the others.
    Trouble {
        generation: GenerationId,
        reason: String,
    },
    /// This program is too old for an event of a partition.
    TooOld { pair: Pair, reason: String },
    /// A generation that had trouble was written.
    Mended { generation: GenerationId },
}

/// Why a lane began a new session or ended.
enum Turn {
    /// It was asked to stop.
    Asked,
    /// The session begins anew: a ceiling moved, or a stream is parked or released.
    Anew,
    /// One of its generations stopped or must go alone; the projector plans anew.
    Ended,
}

/// One lane.
pub(crate) struct Lane {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) postgres: PgConnectOptions,
    pub(crate) generations: Arc<[Generation]>,
    pub(crate) partitions: Vec<Partition>,
    /// Whether its generation is being built: its rows are new ones, and it has a ceiling.
    pub(crate) builds: bool,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) board: StatusBoard,
    pub(crate) tell: mpsc::UnboundedSender<Told>,
    /// How much of its time it may work, if it builds.
    pub(crate) share: Share,
    /// The generations that had trouble and have not been written since.
    pub(crate) troubled: BTreeSet<GenerationId>,
    /// Streams that are parked once the transactions that pass their commits are durable.
    pub(crate) parking: BTreeMap<GenerationId, BTreeMap<StreamId, Park>>,
}

/// What a lane holds while it is connected.
struct Session {
    progress: Vec<Progress>,
    writing: Writing,
    /// The connection for looking up streams; opened at first use.
    looking: Option<PgConnection>,
    looked_around: Instant,
}

impl Session {
    fn is_look_due(&self) -> bool {
        self.looked_around.elapsed() >= LOOK_AROUND_EVERY
    }
}

impl Lane {
    /// Runs until it is asked to stop, or until its generations must be planned anew. After an
    /// error that may pass it tries again, without a limit.
    ///
    /// # Errors
    /// One that does not pass and that concerns all of its generations.
    pub(crate) async fn run(mut self) -> Result<(), RuntimeError> {
        let mut pause = PAUSE_MIN;
        loop {
            let started = Instant::now();
            let error = match self.session().await {
                Ok(Turn::Anew) => {
                    pause = PAUSE_MIN;
                    continue;
                }
                Ok(Turn::Asked | Turn::Ended) => {
                    self.board.set(TaskState::Ended);
                    return Ok(());
                }
                Err(error) => error,
            };
            let reason = explained(&error);
            if !error.may_pass() {
                self.board.set(TaskState::Stopped(reason));
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
                return Ok(());
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, asked(&mut self.stop))
            .await
            .is_ok()
    }

    async fn session(&mut self) -> Result<Turn, RuntimeError> {
        let connect = RuntimeError::postgres("connect to Postgres");
        let mut connection = self.postgres.connect().await.map_err(connect)?;
        held::take(&mut connection, &*self.log).await?;
        let progress = self.load_progress(&mut connection).await?;
        let way = if self.builds { Way::Copy } else { Way::Merge };
        let mut session = Session {
            writing: Writing::new(connection, &self.generations, way),
            progress,
            looking: None,
            looked_around: Instant::now(),
        };
        let turn = self.follow(&mut session).await?;
        session.writing.close().await;
        Ok(turn)
    }

    async fn follow(&mut self, session: &mut Session) -> Result<Turn, RuntimeError> {
        // A wait before, for example for the ceiling, was no work.
        self.share.begin(Instant::now());
        if self.is_at_ceiling(session) {
            return self.wait_for_ceiling(session).await;
        }
        let mut subscription = self.subscribe(session);
        self.board.set(TaskState::Following);
        tracing::debug!(
            partitions = self.partitions.len(),
            "the projector follows the log"
        );
        loop {
            let mut next = std::pin::pin!(subscription.next(READ_WAIT));
            let next = loop {
                tokio::select! {
                    biased;
                    () = asked(&mut self.stop) => break None,
                    Some(written) = session.writing.done() => {
                        if let Some(turn) = self.written(session, written).await? {
                            return Ok(turn);
                        }
                    }
                    next = &mut next => break Some(next),
                }
            };
            let batches = match next {
                None => {
                    let turn = self.settle(session).await?;
                    return Ok(turn.unwrap_or(Turn::Asked));
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
                    if let Some(turn) = self.settle(session).await? {
                        return Ok(turn);
                    }
                    self.stop_partition(session, stop).await?;
                    return Ok(Turn::Ended);
                }
            };
            self.board.set(TaskState::Following);
            if let Some(turn) = self.rest_due(session, &batches).await? {
                return Ok(turn);
            }
            let commits: usize = batches.iter().map(|batch| batch.commits.len()).sum();
            if !batches.is_empty()
                && let Some(turn) = self.take_up(session, batches).await?
            {
                return Ok(turn);
            }
            if commits < AHEAD_FROM
                && let Some(turn) = self.settle(session).await?
            {
                return Ok(turn);
            }
            if self.is_at_ceiling(session) {
                return Ok(Turn::Anew);
            }
            if session.is_look_due() {
                if let Some(turn) = self.settle(session).await? {
                    return Ok(turn);
                }
                if self.look_around(session).await? {
                    return Ok(Turn::Anew);
                }
            }
        }
    }

    /// Lets a lane that builds rest before it works on, while live lanes have work.
    async fn rest_due(
        &mut self,
        session: &mut Session,
        batches: &[Batch],
    ) -> Result<Option<Turn>, RuntimeError> {
        if !self.builds {
            return Ok(None);
        }
        if !batches.is_empty() && !self.share.rest(Instant::now()).is_zero() {
            // No transaction works on meanwhile.
            if let Some(turn) = self.settle(session).await? {
                return Ok(Some(turn));
            }
            if self.stopped_within(self.share.rest(Instant::now())).await {
                return Ok(Some(Turn::Asked));
            }
        }
        self.share.begin(Instant::now());
        Ok(None)
    }

    async fn load_progress(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<Progress>, RuntimeError> {
        let mut progress = Vec::with_capacity(self.generations.len());
        for generation in &*self.generations {
            let id = generation.id();
            let durable = checkpoint::load(connection, &id.projection, id.number).await?;
            let ceiling = match self.builds {
                true => checkpoint::load_ceiling(connection, &id.projection, id.number).await?,
                false => None,
            };
            let parked = parked::load(connection, &id, &self.partitions).await?;
            let mut parking = self.parking.get(&id).cloned().unwrap_or_default();
            parking.retain(|stream, _| !parked.contains(stream));
            let name = &id.projection;
            let discarded = parked::discarded(connection, name, &self.partitions).await?;
            progress.push(Progress {
                taken_up: durable.clone(),
                durable,
                ceiling,
                parked,
                parking,
                discarded,
            });
        }
        Ok(progress)
    }

    fn is_at_ceiling(&self, session: &Session) -> bool {
        let is_at = |progress: &Progress| progress.is_at_ceiling(&self.partitions);
        session.progress.iter().all(is_at)
    }

    /// Waits until the building may go further.
    async fn wait_for_ceiling(&mut self, session: &mut Session) -> Result<Turn, RuntimeError> {
        self.board.set(TaskState::Following);
        loop {
            if self.stopped_within(CEILING_EVERY).await {
                return Ok(Turn::Asked);
            }
            let Some(connection) = session.writing.idle() else {
                return Ok(Turn::Anew);
            };
            let now = self.load_progress(connection).await?;
            let ceilings = |all: &[Progress]| -> Vec<_> {
                all.iter()
                    .map(|progress| progress.ceiling.clone())
                    .collect()
            };
            if ceilings(&now) != ceilings(&session.progress) {
                return Ok(Turn::Anew);
            }
        }
    }

    /// Follows each partition from the least checkpoint of its generations.
    fn subscribe(&self, session: &Session) -> Subscription {
        let least = |partition: Partition| {
            let offset = |c: Option<&Checkpoint>| c.map(|checkpoint| checkpoint.offset);
            let places = session.progress.iter();
            places
                .map(|progress| progress.durable.get(&partition))
                .min_by_key(|checkpoint| offset(*checkpoint))
                .flatten()
                .cloned()
        };
        let from = self.partitions.iter().map(|&p| (p, least(p))).collect();
        Subscription::new(Arc::clone(&self.log), from)
    }

    /// Folds batches for all generations that want them, and begins to write the result.
    async fn take_up(
        &mut self,
        session: &mut Session,
        batches: Vec<Batch>,
    ) -> Result<Option<Turn>, RuntimeError> {
        if let Some(turn) = self.hold_against_streams(session, &batches).await? {
            return Ok(Some(turn));
        }
        self.prove_joining(session, &batches).await?;
        let began = Instant::now();
        let folds = loop {
            match batch::fold(&self.generations, &session.progress, &batches) {
                Ok(folds) => break folds,
                Err(failed) => {
                    let (index, park) = *failed;
                    let turn = self.settle(session).await?;
                    if turn.is_some() {
                        return Ok(turn);
                    }
                    if !self.park(session, index, &park) {
                        self.stop_at(session, index, park).await?;
                        return Ok(Some(Turn::Ended));
                    }
                }
            }
        };
        for fold in &folds {
            let taken_up = &mut session.progress[fold.index].taken_up;
            let moves = fold.moves.iter();
            taken_up.extend(moves.map(|moved| (moved.partition, moved.after.clone())));
        }
        if let Some(turn) = self.settle(session).await? {
            return Ok(Some(turn));
        }
        let work = Work {
            batches,
            folds,
            began,
        };
        if work.folds.is_empty() {
            measure::orphans(&work.batches);
        } else {
            session.writing.begin(work);
        }
        Ok(None)
    }

    /// Looks up the streams' versions that the log's reader does not know. If a commit does not
    /// follow its stream's version, its partition is stopped.
    async fn hold_against_streams(
        &mut self,
        session: &mut Session,
        batches: &[Batch],
    ) -> Result<Option<Turn>, RuntimeError> {
        let mut commits = batches.iter().flat_map(|batch| &batch.commits);
        if commits.all(|placed| placed.is_checked) {
            return Ok(None);
        }
        if let Some(turn) = self.settle(session).await? {
            return Ok(Some(turn));
        }
        let damaged = versions::gaps(&self.postgres, &mut session.looking, batches).await?;
        let is_damaged = !damaged.is_empty();
        for damage in damaged {
            self.stop_partition(session, damage.into()).await?;
        }
        Ok(is_damaged.then_some(Turn::Ended))
    }

    /// Waits until the running transaction is durable.
    async fn settle(&mut self, session: &mut Session) -> Result<Option<Turn>, RuntimeError> {
        while let Some(written) = session.writing.done().await {
            let turn = self.written(session, written).await?;
            if turn.is_some() {
                return Ok(turn);
            }
        }
        Ok(None)
    }

    /// Handles the result of a transaction. After a failure there is a turn: the session begins
    /// anew from what is durable, or the lane ends.
    async fn written(
        &mut self,
        session: &mut Session,
        written: Written,
    ) -> Result<Option<Turn>, RuntimeError> {
        let Written { work, outcome } = written;
        match outcome {
            Ok(()) => {
                measure::written(&work.batches, &work.folds, work.began.elapsed());
                measure::orphans(&work.batches);
                work.trace(&self.generations);
                for fold in work.folds {
                    self.durable(&mut session.progress[fold.index], fold);
                }
                Ok(None)
            }
            Err(
                WriteError::Refused { index, reason, .. } | WriteError::Blocked { index, reason },
            ) if self.generations.len() > 1 => {
                let generation = self.generations[index].id();
                self.tell(Told::Trouble { generation, reason });
                Ok(Some(Turn::Ended))
            }
            Err(WriteError::Refused { reason, .. }) => {
                self.find_refused(session, &work, &reason).await.map(Some)
            }
            Err(WriteError::Failed(failure)) => {
                self.find_failed(session, &work, failure).await.map(Some)
            }
            Err(WriteError::Blocked { index, reason }) => {
                let generation = self.generations[index].id();
                // The lane goes on alone: it is the one that tells when the trouble is over.
                self.troubled.insert(generation.clone());
                self.tell(Told::Trouble {
                    generation,
                    reason: reason.clone(),
                });
                Err(RuntimeError::Blocked { reason })
            }
            Err(WriteError::Runtime(error)) => Err(error),
            Err(WriteError::Repeated) => unreachable!("it was merged then"),
        }
    }

    /// Notes that what was folded is durable.
    fn durable(&mut self, progress: &mut Progress, fold: Folded) {
        let id = self.generations[fold.index].id();
        for park in fold.parks {
            progress.parking.remove(&park.stream);
            if let Some(parking) = self.parking.get_mut(&id) {
                parking.remove(&park.stream);
            }
            progress.parked.insert(park.stream);
        }
        if self.troubled.remove(&id) {
            self.tell(Told::Mended { generation: id });
        }
        let moves = fold.moves.into_iter();
        let moves = moves.map(|moved| (moved.partition, moved.after));
        progress.durable.extend(moves);
    }

    fn tell(&self, told: Told) {
        // The projector that listened has ended, and this lane is about to end.
        let _ = self.tell.send(told);
    }

    /// The subscription proves the least checkpoint. A generation that is ahead of it proves its
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
}

/// Waits until the lane is asked to stop.
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

/// The partitions that are behind `ends`, each with the next offset to read and its end.
pub(crate) fn behind(
    ends: &BTreeMap<Partition, position::Offset>,
    places: &Places,
) -> Vec<(Partition, position::Offset, position::Offset)> {
    let next = |partition: &Partition| {
        let at = places.get(partition);
        at.map_or(position::Offset(0), |checkpoint| checkpoint.offset.next())
    };
    let all = ends
        .iter()
        .map(|(partition, &end)| (*partition, next(partition), end));
    all.filter(|(_, next, end)| next < end).collect()
}
