//! The heart of a projector: says that the process is alive, takes its share of the partitions, and
//! keeps the lanes that take them up.
//!
//! Invariant: a lane runs only for what the process holds, and a lease is given back only after its
//! lane has ended. Heartbeats have a task of their own: a lane that takes long to end does not make
//! the process look dead. Deliberately absent: what should be held and which lanes there should be
//! (`plan`), and what a lane does (`lane`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use kernel::explained;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::conduct;
use crate::run::lane::{Lane, Told};
use crate::run::plan::{self, LaneSpec};
use crate::run::share::{LiveWatch, Share};
use crate::run::status::{Shown, StatusBoard, TaskState};
use crate::run::troubles::Troubles;
use crate::run::upgrade::{NewVersion, Upgrades};
use crate::store::generation::{self, Generation};
use crate::store::members::{self, GenerationId, GenerationState, Look, Member, Pair};
use crate::store::{held, stops};

/// The interval between two heartbeats. A process is dead after two seconds
/// (`members::DEAD_AFTER`), so that others take over within three.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How long one heartbeat may take.
const BEAT_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a lane may take to end before it is aborted.
const END_LIMIT: Duration = Duration::from_secs(3);
/// The interval at which retired generations whose time is over are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a generation stays apart after its last trouble.
const APART_FOR: Duration = Duration::from_secs(5);

/// What a process runs.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) postgres: PgConnectOptions,
    pub(crate) projections: Vec<Arc<dyn Projection>>,
    pub(crate) tasks: usize,
    /// Whether it helps with rebuilds only.
    pub(crate) builds_only: bool,
    pub(crate) new_version: NewVersion,
    /// The most of its time, in percent, that a lane builds while live read models are written.
    pub(crate) rebuild_share: u32,
}

impl Job {
    fn member(&self) -> Member {
        let rules = self.projections.iter();
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Member {
            id: Uuid::new_v4(),
            name: format!("{}:{}", machine.trim(), std::process::id()),
            rules: rules.map(|p| generation::rule_of(&**p)).collect(),
            builds_only: self.builds_only,
            too_old: BTreeSet::new(),
        }
    }

    fn has_own_sql(&self, id: &GenerationId) -> bool {
        let own = self.projections.iter();
        let mut own = own.filter(|p| p.name() == id.projection);
        own.any(|p| p.own_sql().is_some())
    }

    /// The generation, if this process has its rule.
    fn generation(&self, id: &GenerationId, look: &Look) -> Option<Generation> {
        let seen = look.generations.get(id)?;
        let own = self
            .projections
            .iter()
            .find(|p| p.name() == id.projection)?;
        let has_rule = generation::rule_of(&**own) == seen.rule;
        has_rule.then(|| Generation::new(own, id.number))
    }
}

struct RunningLane {
    stop: watch::Sender<bool>,
    board: StatusBoard,
    task: JoinHandle<Result<(), RuntimeError>>,
}

/// What the supervisor holds while it is connected.
struct Supervisor {
    job: Job,
    own: Member,
    lanes: BTreeMap<LaneSpec, RunningLane>,
    apart: BTreeMap<GenerationId, Instant>,
    /// The tasks that conduct buildings which nobody else conducts.
    conductors: BTreeMap<GenerationId, JoinHandle<()>>,
    upgrades: Upgrades,
    live: LiveWatch,
    swept_at: Instant,
    troubles: Troubles,
    tell: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    shown: Shown,
}

/// Runs until it is asked to stop. After an error that may pass it tries again, without a limit.
///
/// # Errors
/// One that does not pass.
pub(crate) async fn run(
    job: Job,
    shown: Shown,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let mut pause = BEAT_EVERY / 10;
    loop {
        let error = match session(&job, &shown, &mut stop).await {
            Ok(()) => {
                shown.set(TaskState::Ended);
                return Ok(());
            }
            Err(error) => error,
        };
        let reason = explained(&error);
        if !error.may_pass() {
            tracing::error!(reason, "the projector stopped");
            shown.set(TaskState::Stopped(reason));
            return Err(error);
        }
        tracing::warn!(reason, "the projector tries again");
        shown.set(TaskState::Retrying(reason));
        let asked = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(pause, asked).await.is_ok() {
            shown.set(TaskState::Ended);
            return Ok(());
        }
        pause = (pause * 2).min(BEAT_EVERY * 4);
    }
}

async fn session(
    job: &Job,
    shown: &Shown,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let own = job.member();
    let postgres = job.postgres.clone();
    let job = Job {
        postgres: postgres.application_name(&members::session_name(own.id)),
        ..job.clone()
    };
    let connect = || RuntimeError::postgres("connect to Postgres");
    let mut connection = job.postgres.connect().await.map_err(connect())?;
    held::take(&mut connection, &*job.log).await?;
    if !job.builds_only {
        generation::ensure_live(&mut connection, &job.projections).await?;
        stops::forget(&mut connection, &own.rules).await?;
    }
    let beats = job.postgres.connect().await.map_err(connect())?;
    let hurry = Arc::new(Notify::new());
    let (looks, mut look) = watch::channel(None);
    let (said, saying) = watch::channel(own.clone());
    let mut heart = tokio::spawn(beat(beats, saying, Arc::clone(&hurry), looks));
    let (tell, told) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor {
        job,
        own,
        lanes: BTreeMap::new(),
        apart: BTreeMap::new(),
        conductors: BTreeMap::new(),
        upgrades: Upgrades::default(),
        live: LiveWatch::default(),
        swept_at: Instant::now(),
        troubles: Troubles::default(),
        tell,
        told,
        shown: shown.clone(),
    };
    let outcome = loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break Ok(()),
            ended = &mut heart => break match ended {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Err(RuntimeError::Replaced),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            changed = look.changed() => if changed.is_err() {
                // The heart has ended: its result tells why.
                continue;
            },
            Some(told) = supervisor.told.recv() => {
                supervisor.hear(told);
                said.send_replace(supervisor.own.clone());
                hurry.notify_one();
                continue;
            }
        }
        let seen = look.borrow_and_update().clone();
        let Some(seen) = seen else { continue };
        match supervisor.arrange(&mut connection, &seen).await {
            Ok(false) => {}
            // What was taken or given back is seen at the next beat.
            Ok(true) => hurry.notify_one(),
            Err(error) => break Err(error),
        }
    };
    supervisor.end_all().await;
    heart.abort();
    let _ = members::leave(&mut connection, supervisor.own.id).await;
    outcome
}

/// Says that the process is alive, again and again, and shows each look.
async fn beat(
    mut connection: PgConnection,
    own: watch::Receiver<Member>,
    hurry: Arc<Notify>,
    looks: watch::Sender<Option<Look>>,
) -> Result<(), RuntimeError> {
    loop {
        let member = own.borrow().clone();
        let look = members::beat(&mut connection, &member);
        let look = tokio::time::timeout(BEAT_LIMIT, look).await;
        let look = look.map_err(|_elapsed| RuntimeError::PostgresSilent { seconds: 1 })??;
        if looks.send(Some(look)).is_err() {
            return Ok(());
        }
        // A beat that is due at once comes a little later, so that changes gather.
        tokio::select! {
            () = tokio::time::sleep(BEAT_EVERY) => {}
            () = hurry.notified() => tokio::time::sleep(BEAT_EVERY / 50).await,
        }
    }
}

impl Supervisor {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Trouble { generation, reason } => {
                let projection = &generation.projection;
                tracing::warn!(projection, reason, "a read model cannot be written now");
                self.shown.trouble(&generation, Some(reason));
                self.apart.insert(generation, Instant::now());
            }
            Told::TooOld { pair, reason } => {
                let ((id, partition), name) = (&pair, &pair.0.projection);
                let reason = format!(
                    "{name}: this program is too old for an event in partition {partition}; start a \
                     newer one: {reason}"
                );
                self.shown.trouble(id, Some(reason));
                self.own.too_old.insert(pair);
            }
            Told::Stopped { generation } | Told::Mended { generation } => {
                self.shown.trouble(&generation, None);
            }
        }
    }

    /// Takes and gives back leases, and begins and ends lanes, as the look demands. Returns whether
    /// anything was taken or given back.
    async fn arrange(
        &mut self,
        connection: &mut PgConnection,
        look: &Look,
    ) -> Result<bool, RuntimeError> {
        let count = self.job.log.partition_count();
        self.live.look(look, Instant::now());
        let due = plan::shares(look, self.own.id, count);
        let held = plan::held(look, self.own.id);
        let troubled = |id: &GenerationId| self.shown.is_troubled(id);
        self.apart
            .retain(|id, at| at.elapsed() < APART_FOR || troubled(id));
        let running: BTreeSet<Pair> = due.intersection(&held).cloned().collect();
        let mut apart: BTreeSet<GenerationId> = self.apart.keys().cloned().collect();
        // SQL of its own may take as long as it likes.
        let has_sql = |id: &&GenerationId| self.job.has_own_sql(id);
        apart.extend(look.generations.keys().filter(has_sql).cloned());
        let specs = plan::lanes(look, &running, &apart, self.job.tasks);
        self.end_others(&specs).await;
        let given: BTreeSet<Pair> = held.difference(&due).cloned().collect();
        members::give_back(connection, self.own.id, &given).await?;
        for spec in specs {
            self.begin(spec, look);
        }
        let is_free = |(id, partition): &&Pair| {
            let seen = look.generations.get(id);
            seen.is_some_and(|seen| !seen.leases.contains_key(partition))
        };
        let taken: BTreeSet<Pair> = due.iter().filter(is_free).cloned().collect();
        members::take(connection, self.own.id, &taken).await?;
        self.conduct(look);
        self.sweep(connection, look).await?;
        self.meet_troubles(&held);
        self.troubles.tell(connection, self.own.id).await;
        let by = (self.job.new_version, self.own.name.as_str());
        let upgrades = &mut self.upgrades;
        let said = upgrades.arrange(connection, &self.job.projections, look, by);
        let said = said.await?;
        self.shown.look(look, &self.own, self.lanes_shown(), said);
        Ok(!given.is_empty() || !taken.is_empty())
    }

    /// Notes why lanes do not go on.
    fn meet_troubles(&mut self, held: &BTreeSet<Pair>) {
        for (spec, lane) in &self.lanes {
            let TaskState::Retrying(reason) = lane.board.read().state else {
                continue;
            };
            for id in &spec.generations {
                for partition in &spec.partitions {
                    self.troubles.meet((id.clone(), *partition), &reason);
                }
            }
        }
        for pair in held {
            if let Some(reason) = self.shown.trouble_of(&pair.0) {
                self.troubles.meet(pair.clone(), &reason);
            }
        }
    }

    /// Conducts the buildings whose rule it has, unless another process does.
    fn conduct(&mut self, look: &Look) {
        let is_building = |id: &GenerationId| {
            let seen = look.generations.get(id);
            seen.is_some_and(|seen| seen.is_conducted() && !seen.is_paused)
        };
        self.conductors
            .retain(|id, task| is_building(id) && !task.is_finished());
        if self.job.builds_only {
            return;
        }
        for id in look.generations.keys().filter(|id| is_building(id)) {
            let Some(building) = self.job.generation(id, look) else {
                continue;
            };
            if !self.conductors.contains_key(id) {
                let log = Arc::clone(&self.job.log);
                let postgres = self.job.postgres.clone();
                let task = tokio::spawn(conduct::for_others(log, postgres, building));
                self.conductors.insert(id.clone(), task);
            }
        }
    }

    /// Drops retired generations of its projections whose time is over.
    async fn sweep(
        &mut self,
        connection: &mut PgConnection,
        look: &Look,
    ) -> Result<(), RuntimeError> {
        if self.swept_at.elapsed() < SWEEP_EVERY {
            return Ok(());
        }
        self.swept_at = Instant::now();
        for (id, seen) in &look.generations {
            let is_own = |p: &&Arc<dyn Projection>| p.name() == id.projection;
            let is_own = self.job.projections.iter().any(|p| is_own(&p));
            if seen.state == GenerationState::Retired && is_own {
                generation::drop_retired(connection, &id.projection).await?;
            }
        }
        Ok(())
    }

    fn lanes_shown(&self) -> Vec<StatusBoard> {
        self.lanes.values().map(|lane| lane.board.clone()).collect()
    }

    fn begin(&mut self, spec: LaneSpec, look: &Look) {
        if self.lanes.contains_key(&spec) {
            return;
        }
        let of = |id: &GenerationId| self.job.generation(id, look);
        let generations: Option<Vec<Generation>> = spec.generations.iter().map(of).collect();
        let Some(generations) = generations.filter(|all| !all.is_empty()) else {
            return;
        };
        let builds = spec.generations.iter().all(|id| {
            let seen = look.generations.get(id);
            seen.is_some_and(|seen| seen.state == GenerationState::Building)
        });
        let partitions: Vec<_> = spec.partitions.iter().copied().collect();
        let board = StatusBoard::new(partitions.clone());
        let (stop, stopped) = watch::channel(false);
        let troubled = spec.generations.iter();
        let troubled = troubled.filter(|id| self.shown.is_troubled(id));
        let lane = Lane {
            log: Arc::clone(&self.job.log),
            postgres: self.job.postgres.clone(),
            troubled: troubled.cloned().collect(),
            generations: generations.into(),
            parking: BTreeMap::new(),
            partitions,
            builds,
            share: Share::new(self.job.rebuild_share, self.live.work()),
            stop: stopped,
            board: board.clone(),
            tell: self.tell.clone(),
        };
        let task = tokio::spawn(lane.run());
        self.lanes.insert(spec, RunningLane { stop, board, task });
    }

    /// Ends the lanes that are not wanted any more, and forgets those that have ended.
    async fn end_others(&mut self, wanted: &BTreeSet<LaneSpec>) {
        let lanes = std::mem::take(&mut self.lanes);
        let stays = |spec: &LaneSpec, lane: &RunningLane| {
            let is_stopped = matches!(lane.board.read().state, TaskState::Stopped(_));
            wanted.contains(spec) && (is_stopped || !lane.task.is_finished())
        };
        let (stay, end): (BTreeMap<_, _>, BTreeMap<_, _>) = lanes
            .into_iter()
            .partition(|(spec, lane)| stays(spec, lane));
        self.lanes = stay;
        end_lanes(end.into_values().collect()).await;
    }

    async fn end_all(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        end_lanes(lanes.into_values().collect()).await;
    }
}

impl Drop for Supervisor {
    /// Aborts running transactions; the next start finds out whether they were committed.
    fn drop(&mut self) {
        self.lanes.values().for_each(|lane| lane.task.abort());
        self.conductors.values().for_each(JoinHandle::abort);
    }
}

/// Asks lanes to end, and waits until their transactions are durable.
async fn end_lanes(lanes: Vec<RunningLane>) {
    for lane in &lanes {
        // The send fails if the lane has ended.
        let _ = lane.stop.send(true);
    }
    let deadline = tokio::time::Instant::now() + END_LIMIT;
    for mut lane in lanes {
        if tokio::time::timeout_at(deadline, &mut lane.task)
            .await
            .is_err()
        {
            lane.task.abort();
            let _ = lane.task.await;
        }
    }
}
