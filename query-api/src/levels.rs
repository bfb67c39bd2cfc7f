//! Which version each read model shows, and the requests that wait until it shows more: one reader
//! for all of them.
//!
//! Invariants: what a request learns here was read after it asked, so that it is no older than the
//! request. However many requests ask or wait, one statement runs at a time, on a connection of its
//! own; a request that waits costs no statement and no connection. Requests whose position is
//! reached go on in the order in which they began to wait. Deliberately absent: rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use door::{Deadline, Problem};
use position::{Partition, Position, PositionToken};
use projector::{RowsVersion, rows_versions};
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::snapshot::{CONNECTIONS_MAX, is_broken};
use super::{code, failed};

/// The first and the longest pause between two reads while somebody waits.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The longest pause while nothing can be read.
const PAUSE_FAILED_MAX: Duration = Duration::from_millis(500);
/// Speed is measured over at most this many reads, which are at least this long apart.
const SPEED_SAMPLES_MAX: usize = 16;
const SPEED_SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// What was read of all the projections that were asked for.
type Seen = Result<BTreeMap<String, RowsVersion>, Problem>;

/// The version that a projection shows; absent if it shows nothing.
pub(super) type Level = Option<RowsVersion>;

/// Reads the versions for all requests.
pub(super) struct Levels {
    pool: PgPool,
    partition_count: u32,
    state: Mutex<State>,
    /// Somebody asks for the present version.
    asked: Notify,
}

#[derive(Default)]
struct State {
    is_running: bool,
    askers: Vec<Asker>,
    waiters: BTreeMap<&'static str, Vec<Waiter>>,
    speeds: BTreeMap<&'static str, Speed>,
}

struct Asker {
    projection: &'static str,
    answer: oneshot::Sender<Arc<Seen>>,
}

struct Waiter {
    wanted: PositionToken,
    answer: oneshot::Sender<Result<Level, Problem>>,
}

/// How far a read model had come at some times.
#[derive(Default)]
struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    fn take(&mut self, now: Instant, records: u64) {
        let is_due = |(at, _): &(Instant, u64)| now - *at >= SPEED_SAMPLE_EVERY;
        if self.samples.back().is_none_or(is_due) {
            if self.samples.len() >= SPEED_SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back((now, records));
        }
    }

    /// Records a second; absent if that is not known.
    fn per_second(&self) -> Option<f64> {
        let ((from, first), (to, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = (*to - *from).as_secs_f64();
        let records = last.saturating_sub(*first) as f64;
        (seconds > 0.0 && records > 0.0).then(|| records / seconds)
    }
}

/// What a request that waited in vain is told.
#[derive(Debug)]
pub(super) struct Behind {
    /// How many records up to the wanted position are missing.
    pub(super) missing: u64,
}

impl Behind {
    pub(super) fn of(wanted: &PositionToken, reached: Option<&PositionToken>) -> Self {
        let missing = missing(wanted, reached);
        Self { missing }
    }
}

/// Where a wait for a position ended.
pub(super) enum Reached {
    There(Level),
    Behind(Behind),
}

impl Levels {
    pub(super) fn new(pool: PgPool, partition_count: u32) -> Arc<Self> {
        Arc::new(Self {
            pool,
            partition_count,
            state: Mutex::default(),
            asked: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that `projection` shows, as it is read after this call.
    pub(super) async fn present(
        self: &Arc<Self>,
        projection: &'static str,
    ) -> Result<Level, Problem> {
        let (answer, seen) = oneshot::channel();
        self.state().askers.push(Asker { projection, answer });
        self.run();
        self.asked.notify_one();
        // The reader ends only when nobody is left.
        let seen = seen.await.map_err(Problem::internal)?;
        let seen = (*seen).as_ref().map_err(Problem::clone)?;
        Ok(seen.get(projection).cloned())
    }

    /// Waits until `projection` has reached a position, but not beyond the deadline.
    pub(super) async fn reach(
        self: &Arc<Self>,
        projection: &'static str,
        wanted: &PositionToken,
        deadline: Deadline,
    ) -> Result<Reached, Problem> {
        let present = self.present(projection).await?;
        if is_reached(wanted, position_of(present.as_ref()), self.partition_count)? {
            return Ok(Reached::There(present));
        }
        let (answer, reached) = oneshot::channel();
        let waiter = Waiter {
            wanted: wanted.clone(),
            answer,
        };
        self.begin_to_wait(projection, waiter);
        if let Some(reached) = deadline.limit(reached).await {
            return Ok(Reached::There(reached.map_err(Problem::internal)??));
        }
        let present = self.present(projection).await?;
        let behind = Behind::of(wanted, position_of(present.as_ref()));
        Ok(Reached::Behind(behind))
    }

    fn begin_to_wait(self: &Arc<Self>, projection: &'static str, waiter: Waiter) {
        let mut state = self.state();
        state.waiters.entry(projection).or_default().push(waiter);
        drop(state);
        self.run();
    }

    /// How many records a second `projection` took up lately; absent if that is not known.
    pub(super) fn per_second(&self, projection: &str) -> Option<f64> {
        self.state().speeds.get(projection)?.per_second()
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiters.values().map(Vec::len).sum()
    }

    /// Starts the reader if it does not run.
    fn run(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.is_running {
            state.is_running = true;
            tokio::spawn(Arc::clone(self).read_on());
        }
    }

    /// Reads as long as somebody asks or waits.
    async fn read_on(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        let mut last: Option<Arc<Seen>> = None;
        loop {
            // Who asks from here on gets what the next read says.
            let (askers, names) = {
                let mut state = self.state();
                let askers = std::mem::take(&mut state.askers);
                state.waiters.values_mut().for_each(|waiters| {
                    waiters.retain(|waiter| !waiter.answer.is_closed());
                });
                state.waiters.retain(|_, waiters| !waiters.is_empty());
                let mut names: BTreeSet<&'static str> = state.waiters.keys().copied().collect();
                names.extend(askers.iter().map(|asker| asker.projection));
                if names.is_empty() {
                    state.is_running = false;
                    return;
                }
                (askers, names)
            };
            let seen = Arc::new(self.read(&names).await);
            let was_asked = !askers.is_empty();
            for asker in askers {
                // A request that has gone is not told.
                let _ = asker.answer.send(Arc::clone(&seen));
            }
            self.wake(&names, &seen);
            pause = match (&*seen, &last) {
                // A request that begins to wait is not delayed by the long pauses of the others.
                (Ok(_), _) if was_asked => PAUSE_MIN,
                (Err(_), _) => (pause * 2).min(PAUSE_FAILED_MAX),
                (Ok(now), Some(last)) if (**last).as_ref().is_ok_and(|last| last == now) => {
                    (pause * 2).min(PAUSE_MAX)
                }
                (Ok(_), _) => PAUSE_MIN,
            };
            last = Some(seen);
            let (has_askers, has_waiters) = {
                let state = self.state();
                (!state.askers.is_empty(), !state.waiters.is_empty())
            };
            if !has_askers && has_waiters {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.asked.notified() => {}
                }
            }
        }
    }

    async fn read(&self, names: &BTreeSet<&'static str>) -> Seen {
        let names: Vec<&str> = names.iter().copied().collect();
        let mut tries = 0;
        loop {
            match rows_versions(&self.pool, &names).await {
                Err(error) if is_broken(&error) && tries < CONNECTIONS_MAX => tries += 1,
                read => return read.map_err(|error| failed(&error)),
            }
        }
    }

    /// Lets those go on whose position is reached.
    fn wake(&self, names: &BTreeSet<&'static str>, seen: &Seen) {
        let now = Instant::now();
        let mut state = self.state();
        for &name in names {
            let level = match seen {
                Ok(seen) => seen.get(name),
                Err(_) => None,
            };
            let position = position_of(level);
            if let Some(position) = position {
                let records = position.positions.values().map(|position| position.0).sum();
                state.speeds.entry(name).or_default().take(now, records);
            }
            let Some(waiters) = state.waiters.get_mut(name) else {
                continue;
            };
            for waiter in std::mem::take(waiters) {
                // A read that failed says nothing: they wait on.
                match is_reached(&waiter.wanted, position, self.partition_count) {
                    Ok(false) => waiters.push(waiter),
                    // A request that has gone is not told.
                    Ok(true) => drop(waiter.answer.send(Ok(level.cloned()))),
                    Err(problem) => drop(waiter.answer.send(Err(problem))),
                }
            }
        }
    }
}

pub(super) fn position_of(level: Option<&RowsVersion>) -> Option<&PositionToken> {
    level.and_then(RowsVersion::position)
}

/// Whether rows at a position hold what is asked for.
pub(super) fn is_reached(
    wanted: &PositionToken,
    reached: Option<&PositionToken>,
    partition_count: u32,
) -> Result<bool, Problem> {
    let Some(reached) = reached else {
        return Ok(false);
    };
    if reached.log != wanted.log {
        let detail = "the position token belongs to another log than this read model's";
        return Err(Problem::new(code::POSITION_OF_OTHER_LOG, detail));
    }
    if wanted.positions.keys().any(|p| p.0 >= partition_count) {
        let detail = "the position token names a partition that the log does not have";
        return Err(Problem::new(code::POSITION_INVALID, detail));
    }
    let is_there = |(partition, position): (&Partition, &Position)| {
        *position == Position(0) || reached.positions.get(partition) >= Some(position)
    };
    Ok(wanted.positions.iter().all(is_there))
}

/// How many records lie between two positions.
fn missing(wanted: &PositionToken, reached: Option<&PositionToken>) -> u64 {
    let at = |partition| reached.and_then(|reached| reached.positions.get(partition));
    let gaps = wanted.positions.iter().map(|(partition, position)| {
        let at = at(partition).copied().unwrap_or_default();
        position.0.saturating_sub(at.0)
    });
    gaps.fold(0, u64::saturating_add)
}
