//! The replays that a node keeps: a task each, and what it was asked for last.
//!
//! Invariants: at most some replays are active, and one that nobody asks for anything ends; a wish is
//! taken up once, in place of the one before it; what is shown changes with its revision. Deliberately
//! absent: HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use door::Problem;
use kernel::{Timestamp, explained};
use projector::{
    ApartState, Gait, NewReplay, Pause, PauseReason, Replay, ReplayWatch, RuntimeError, Until,
    models_of,
};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::shown::{
    ProgressShown, ReplayShown, ReplayState, SET_ASIDE_SHOWN_MAX, SetAside, StepShown,
};
use super::{Begin, code_of};
use crate::{Inner, RETRY_AFTER, code};

/// How many ended replays are still shown.
const ENDED_KEPT_MAX: usize = 12;
/// The progress of a replay is shown anew this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long a node that stops waits for its replays.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The limits of a node's replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// How many are active at a time.
    pub active_max: usize,
    /// One that stands still and is not asked for anything ends after this time.
    pub idle_max: Duration,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self {
            active_max: 4,
            idle_max: Duration::from_secs(15 * 60),
        }
    }
}

/// The present time. A clock outside of what a moment can be is a clock that was never set.
fn now() -> Timestamp {
    Timestamp::from_utc(Utc::now()).unwrap_or_default()
}

/// The replays of a node; cheap to clone.
#[derive(Clone, Default)]
pub struct Replays(Arc<Kept>);

#[derive(Default)]
struct Kept {
    limits: ReplayLimits,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    by_schema: BTreeMap<String, Arc<One>>,
    is_closed: bool,
}

/// What a replay is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wish {
    /// Go on; at this speed, if recorded time is to pass.
    Go(Gait, Option<f64>),
    Pause,
    End(EndedBy),
}

/// Who ends a replay before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    Asked,
    Idle,
    Shutdown,
}

impl EndedBy {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One replay.
pub(super) struct One {
    now: Mutex<Now>,
    wished: Notify,
    revision: watch::Sender<u64>,
    task: Mutex<Option<AbortHandle>>,
}

struct Now {
    shown: ReplayShown,
    wish: Option<Wish>,
    /// The code and the words of what failed before the replay had begun.
    not_begun: Option<(door::Code, String)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replays {
    /// With these limits.
    #[must_use]
    pub fn new(limits: ReplayLimits) -> Self {
        Self(Arc::new(Kept {
            limits,
            all: Mutex::default(),
        }))
    }

    /// Ends every replay, and waits for a while until they have said so in their schemas.
    pub async fn close(&self) {
        let all: Vec<Arc<One>> = {
            let mut all = locked(&self.0.all);
            all.is_closed = true;
            all.by_schema.values().cloned().collect()
        };
        for one in &all {
            // One that has ended needs nothing.
            let _ = one.ask(Wish::End(EndedBy::Shutdown));
        }
        let until = Instant::now() + CLOSE_WAIT;
        for one in &all {
            let rest = until.saturating_duration_since(Instant::now());
            one.when(rest, ReplayShown::is_ended).await;
            if let Some(task) = locked(&one.task).take() {
                task.abort();
            }
        }
    }

    /// Begins a replay. Its task goes on by itself.
    pub(super) fn begin(
        &self,
        door: &Arc<Inner>,
        new: Begin,
        by: String,
    ) -> Result<Arc<One>, Problem> {
        let refused = |detail: String| Problem::new(code::REPLAY_NOT_POSSIBLE, detail);
        let mut all = locked(&self.0.all);
        if all.is_closed {
            let problem = Problem::new(code::OPERATION_UNAVAILABLE, "this node is stopping");
            return Err(problem.retry_after(RETRY_AFTER));
        }
        let active = |one: &Arc<One>| !one.shown().is_ended();
        if all.by_schema.get(&new.schema).is_some_and(active) {
            return Err(refused(format!(
                "a replay of this node fills {}: end it first, or give another schema",
                new.schema
            )));
        }
        let busy = all.by_schema.iter().filter(|(_, one)| active(one));
        let busy: Vec<&str> = busy.map(|(schema, _)| schema.as_str()).collect();
        if busy.len() >= self.0.limits.active_max {
            let detail = format!(
                "this node has {} active replays, the most that it takes: end one of {}",
                busy.len(),
                busy.join(", ")
            );
            return Err(Problem::new(code::REPLAYS_EXHAUSTED, detail));
        }
        all.make_room();
        tracing::info!(
            schema = new.schema,
            projection = new.projection,
            by,
            "a replay begins"
        );
        let one = Arc::new(One::new(&new, by));
        all.by_schema.insert(new.schema.clone(), Arc::clone(&one));
        one.start(door, new, self.0.limits.idle_max);
        Ok(one)
    }

    /// Forgets a replay that could not begin.
    pub(super) fn forget(&self, schema: &str, one: &Arc<One>) {
        let mut all = locked(&self.0.all);
        let is_same = |found: &Arc<One>| Arc::ptr_eq(found, one);
        if all.by_schema.get(schema).is_some_and(is_same) {
            all.by_schema.remove(schema);
        }
    }

    pub(super) fn one(&self, schema: &str) -> Result<Arc<One>, Problem> {
        let found = locked(&self.0.all).by_schema.get(schema).cloned();
        found.ok_or_else(|| {
            let detail = format!("this node has no replay in the schema {schema:?}");
            Problem::new(code::REPLAY_UNKNOWN, detail)
        })
    }

    pub(super) fn all(&self) -> Vec<ReplayShown> {
        let all = locked(&self.0.all);
        let mut all: Vec<_> = all.by_schema.values().map(|one| one.shown()).collect();
        all.sort_by_key(|shown| std::cmp::Reverse(shown.begun_at));
        all
    }
}

impl All {
    /// Forgets the oldest of those that have ended.
    fn make_room(&mut self) {
        let shown = self.by_schema.values().map(|one| one.shown());
        let mut ended: Vec<_> = shown.filter(ReplayShown::is_ended).collect();
        ended.sort_by_key(|shown| shown.begun_at);
        let many = ended.len().saturating_sub(ENDED_KEPT_MAX - 1);
        for shown in ended.iter().take(many) {
            self.by_schema.remove(&shown.schema);
        }
    }
}

impl One {
    fn new(new: &Begin, by: String) -> Self {
        let shown = ReplayShown {
            schema: new.schema.clone(),
            projection: new.projection.clone(),
            until: new.until_text.clone(),
            until_at: match new.until {
                Until::Time(time) => Some(time),
                _ => None,
            },
            from_snapshot: new.from,
            begun_at: now(),
            by,
            state: ReplayState::Beginning,
            why: None,
            error: None,
            speed: None,
            revision: 1,
            progress: ProgressShown::default(),
            stands: None,
            says: None,
            step: None,
            set_aside: Vec::new(),
            set_aside_streams: 0,
            density: None,
            density_missing: None,
        };
        Self {
            now: Mutex::new(Now {
                shown,
                wish: None,
                not_begun: None,
            }),
            wished: Notify::new(),
            revision: watch::Sender::new(1),
            task: Mutex::default(),
        }
    }

    pub(super) fn shown(&self) -> ReplayShown {
        locked(&self.now).shown.clone()
    }

    /// What is shown once it is so, or after a time.
    pub(super) async fn when(
        &self,
        wait: Duration,
        is_so: impl Fn(&ReplayShown) -> bool,
    ) -> ReplayShown {
        let mut revision = self.revision.subscribe();
        let waited = async {
            loop {
                if is_so(&locked(&self.now).shown) || revision.changed().await.is_err() {
                    return;
                }
            }
        };
        // After the time, it is shown as it is.
        let _ = tokio::time::timeout(wait, waited).await;
        self.shown()
    }

    /// The problem of a replay that could not begin.
    pub(super) fn problem_of_begin(&self) -> Option<Problem> {
        let now = locked(&self.now);
        let (code, detail) = now.not_begun.as_ref()?;
        let problem = Problem::new(*code, detail.clone());
        Some(match code.status {
            503 => problem.retry_after(RETRY_AFTER),
            _ => problem,
        })
    }

    /// Asks for something.
    pub(super) fn ask(&self, wish: Wish) -> Result<ReplayShown, Problem> {
        let refused = |detail: &str| Problem::new(code::REPLAY_NOT_POSSIBLE, detail);
        let mut now = locked(&self.now);
        if now.shown.is_ended() {
            return match wish {
                Wish::End(_) => Ok(now.shown.clone()),
                _ => Err(refused(
                    "the replay has ended; begin another one, with `replace` if its schema is to \
                     have the same name",
                )),
            };
        }
        if matches!(now.wish, Some(Wish::End(_))) {
            return match wish {
                Wish::End(_) => Ok(now.shown.clone()),
                _ => Err(refused("the replay is about to end")),
            };
        }
        let state = now.shown.state;
        match (wish, state) {
            (Wish::Go(..), ReplayState::Beginning) => {
                return Err(refused(
                    "the replay has not begun yet; ask again in a moment",
                ));
            }
            (Wish::Go(Gait::Commit | Gait::Event, _), ReplayState::Running) => {
                return Err(refused(
                    "the replay runs; a step can be taken while it is paused",
                ));
            }
            (Wish::Go(_, speed), _) => {
                now.shown.state = ReplayState::Running;
                now.shown.why = None;
                now.shown.speed = speed;
            }
            (Wish::Pause, ReplayState::Running | ReplayState::Beginning) | (Wish::End(_), _) => {}
            (Wish::Pause, _) => return Ok(now.shown.clone()),
        }
        now.wish = Some(wish);
        let shown = self.told(now);
        self.wished.notify_one();
        Ok(shown)
    }

    /// Changes what is shown.
    fn tell(&self, change: impl FnOnce(&mut Now)) {
        let mut now = locked(&self.now);
        change(&mut now);
        self.told(now);
    }

    fn told(&self, mut now: MutexGuard<'_, Now>) -> ReplayShown {
        now.shown.revision += 1;
        let shown = now.shown.clone();
        drop(now);
        self.revision.send_replace(shown.revision);
        shown
    }

    fn is_wished(&self) -> bool {
        locked(&self.now).wish.is_some()
    }

    /// The next wish; the end, if there is none for so long.
    async fn wish(&self, idle_max: Duration) -> Wish {
        let wish = async {
            loop {
                if let Some(wish) = locked(&self.now).wish.take() {
                    return wish;
                }
                self.wished.notified().await;
            }
        };
        let wish = tokio::time::timeout(idle_max, wish).await;
        wish.unwrap_or(Wish::End(EndedBy::Idle))
    }

    fn start(self: &Arc<Self>, door: &Arc<Inner>, new: Begin, idle_max: Duration) {
        let (one, door) = (Arc::clone(self), Arc::clone(door));
        let density = tokio::spawn(density(
            Arc::clone(self),
            Arc::clone(&door),
            new.projection.clone(),
        ));
        let work = tokio::spawn({
            let one = Arc::clone(&one);
            async move { one.work(&door, new, idle_max).await }
        });
        *locked(&self.task) = Some(work.abort_handle());
        tokio::spawn(async move {
            let error = match work.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(error) => RuntimeError::Ended {
                    reason: error.to_string(),
                },
            };
            density.abort();
            one.fail(&error);
        });
    }

    fn fail(&self, error: &RuntimeError) {
        let reason = explained(error);
        self.tell(|now| {
            tracing::warn!(schema = now.shown.schema, reason, "a replay failed");
            if now.shown.is_beginning() {
                now.not_begun = Some((code_of(error), reason.clone()));
            }
            now.shown.state = ReplayState::Failed;
            now.shown.why = Some("failed");
            now.shown.error = Some(reason);
            now.wish = None;
        });
    }

    /// Makes the schema, and does what is asked for until the end.
    async fn work(&self, door: &Inner, new: Begin, idle_max: Duration) -> Result<(), RuntimeError> {
        let asked = NewReplay {
            projection: &new.projection,
            schema: &new.schema,
            existing: new.existing,
            until: new.until,
            from: new.from,
            times: None,
        };
        let all = &door.projections;
        let mut replay = Replay::begin(&door.log, &door.postgres_url, all, asked).await?;
        let found = all.iter().find(|one| one.name() == new.projection);
        let models = found.map_or_else(Vec::new, |found| models_of(&**found));
        self.paused(&replay, "begun", None);
        let mut last = PauseReason::Asked;
        loop {
            match self.wish(idle_max).await {
                Wish::Pause => self.paused(&replay, "asked", None),
                Wish::End(by) => {
                    let state = match last {
                        PauseReason::Condition => ApartState::Finished,
                        _ => ApartState::Stopped,
                    };
                    return self.end(replay, state, by.name(), None).await;
                }
                Wish::Go(gait, speed) => {
                    replay.pace(speed.filter(|_| gait == Gait::On))?;
                    let pause = self.go(&mut replay, gait).await?;
                    last = pause.why.clone();
                    let step = pause.step.map(|step| StepShown::of(*step, &models));
                    match pause.why {
                        PauseReason::Stepped => self.paused(&replay, "stepped", step),
                        PauseReason::Condition => self.paused(&replay, "condition", step),
                        PauseReason::Asked => self.paused(&replay, "asked", None),
                        PauseReason::Until => {
                            return self.end(replay, ApartState::Finished, "until", None).await;
                        }
                        PauseReason::End => {
                            return self.end(replay, ApartState::Finished, "end", None).await;
                        }
                        PauseReason::Stopped(stopped) => {
                            let error = Some(stopped.to_string());
                            return self.end(replay, ApartState::Stopped, "stuck", error).await;
                        }
                    }
                }
            }
        }
    }

    async fn go(&self, replay: &mut Replay, gait: Gait) -> Result<Pause, RuntimeError> {
        let mut told = Instant::now();
        let mut watch = ReplayWatch {
            progress: &mut |progress| {
                if told.elapsed() >= PROGRESS_EVERY {
                    told = Instant::now();
                    self.tell(|now| now.shown.progress(progress));
                }
            },
            is_to_pause: &|| self.is_wished(),
        };
        replay.go(gait, &mut watch).await
    }

    fn paused(&self, replay: &Replay, why: &'static str, step: Option<StepShown>) {
        self.tell(|now| {
            now.stands(replay);
            if step.is_some() {
                now.shown.step = step;
            }
            // A wish that came meanwhile says how it goes on.
            if !matches!(now.wish, Some(Wish::Go(..))) {
                now.shown.state = ReplayState::Paused;
                now.shown.why = Some(why);
                now.shown.speed = None;
            }
        });
    }

    async fn end(
        &self,
        replay: Replay,
        state: ApartState,
        why: &'static str,
        error: Option<String>,
    ) -> Result<(), RuntimeError> {
        self.tell(|now| now.stands(&replay));
        replay.finish(state).await?;
        self.tell(|now| {
            now.shown.state = match (state, &error) {
                (_, Some(_)) => ReplayState::Failed,
                (ApartState::Finished, None) => ReplayState::Finished,
                (_, None) => ReplayState::Stopped,
            };
            now.shown.why = Some(why);
            now.shown.error = error;
            now.shown.speed = None;
            now.wish = None;
            let schema = &now.shown.schema;
            tracing::info!(schema, state = state.name(), why, "a replay ended");
        });
        Ok(())
    }
}

impl Now {
    fn stands(&mut self, replay: &Replay) {
        self.shown.progress(replay.progress());
        self.shown.says = Some(replay.says());
        let aside = replay.set_aside();
        let aside = aside.map(|(stream, reason)| SetAside {
            stream,
            reason: reason.to_owned(),
        });
        let aside: Vec<SetAside> = aside.collect();
        self.shown.set_aside_streams = aside.len();
        self.shown.set_aside = aside.into_iter().take(SET_ASIDE_SHOWN_MAX).collect();
    }
}

/// Counts the commits over time, while the replay may already be asked for something.
async fn density(one: Arc<One>, door: Arc<Inner>, projection: String) {
    let counted = async {
        let mut operator = door.operators.operator().await?;
        operator.density(&projection).await
    };
    let (density, missing) = match counted.await {
        Ok(Some(density)) => (Some(density), None),
        Ok(None) => {
            let missing = "the read model stream_index tells how many commits were recorded when, \
                           and has none that concern this projection";
            (None, Some(missing.to_owned()))
        }
        Err(error) => (None, Some(explained(&error))),
    };
    one.tell(|now| {
        now.shown.density = density;
        now.shown.density_missing = missing;
    });
}
