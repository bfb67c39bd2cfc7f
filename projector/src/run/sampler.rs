//! How far the live read models are behind the log, measured independently of the projectors that
//! write them.
//!
//! A projector whose transaction hangs, or that cannot reach Postgres, cannot say how far it is
//! behind. So a separate task reads the log's ends and the durable checkpoints. Invariant: if a
//! value cannot be read now, its last known value counts, so that lag grows while the log or
//! Postgres does not answer. A sample costs one request for each partition and a few small queries to
//! Postgres, every [`SAMPLE_EVERY`]. Deliberately absent: any influence on what is projected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use event_log::log::{Bounds, EventLog};
use kernel::explained;
use position::{Offset, Partition};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, Row as _};
use tokio::task::JoinHandle;

use crate::error::RuntimeError;
use crate::run::measure;
use crate::run::projector::query_options;
use crate::run::report::judge::{ReportState, Signs, is_stuck};
use crate::store::stops;

/// The interval between samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How long Postgres may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The most earlier ends kept for a partition; at this limit every second one is dropped.
const ENDS_MAX: usize = 64;

/// How far a read model is behind the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// How long the oldest record that its rows lack has been in the log, as far as is known; zero
    /// if none is missing.
    pub lag: Duration,
    /// The number of records that its rows lack.
    pub gap: u64,
    /// The number of partitions in which it has stopped.
    pub stopped_partitions: usize,
    /// The partitions in which it has records to take up and does not move.
    pub stuck: Vec<Partition>,
}

/// The place of a live read model in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    /// The offset after the last record taken up.
    next: Offset,
    /// When the last commit taken up was recorded.
    last_recorded: Option<SystemTime>,
}

/// One partition of a read model.
#[derive(Debug, Default)]
struct Watched {
    at: At,
    gap: u64,
    /// When it was first seen at its place, or last paused or stopped there.
    moved: Option<Instant>,
    /// Ends of the log that the rows do not reach, each with the time at which it was first seen;
    /// no time: the first sample already found it.
    ends: VecDeque<(Offset, Option<Instant>)>,
}

impl Watched {
    fn take(&mut self, bounds: Bounds, at: Option<At>, is_first: bool, now: Instant) {
        let before = self.at.next;
        self.at = at.unwrap_or(self.at);
        if is_first || self.at.next != before {
            self.moved = Some(now);
        }
        let next = self.at.next.max(bounds.first);
        self.gap = bounds.end.0.saturating_sub(next.0);
        while self.ends.front().is_some_and(|(end, _)| *end <= next) {
            self.ends.pop_front();
        }
        let last = self.ends.back().map_or(next, |(end, _)| *end);
        if bounds.end > last {
            if self.ends.len() >= ENDS_MAX {
                let mut keep = false;
                self.ends.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.ends
                .push_back((bounds.end, (!is_first).then_some(now)));
        }
    }

    fn lag(&self, began: Instant, now: Instant, wall: SystemTime) -> Duration {
        let Some((_, seen)) = self.ends.front() else {
            return Duration::ZERO;
        };
        let recorded = self.at.last_recorded;
        let since_recorded = recorded.map(|at| wall.duration_since(at).unwrap_or_default());
        let since_seen = seen.map(|at| now.saturating_duration_since(at));
        match (since_seen, since_recorded) {
            // The oldest missing record was appended after the last record taken up.
            (Some(seen), Some(recorded)) => seen.min(recorded),
            (Some(since), None) | (None, Some(since)) => since,
            (None, None) => now.saturating_duration_since(began),
        }
    }
}

impl Watched {
    fn is_stuck(&self, began: Instant, now: Instant, wall: SystemTime) -> bool {
        let idle = self.moved.map(|at| now.saturating_duration_since(at));
        let lag = self.lag(began, now, wall).as_secs_f64();
        self.gap > 0 && is_stuck(lag, idle.unwrap_or_default().as_secs_f64())
    }
}

/// The state of the live read models in Postgres.
#[derive(Default)]
struct Answered {
    places: BTreeMap<String, BTreeMap<Partition, At>>,
    held: Held,
}

/// What holds the live read models up, other than work.
#[derive(Clone, Default)]
struct Held {
    /// In how many partitions each has stopped.
    stopped: BTreeMap<String, usize>,
    paused: BTreeSet<String>,
    /// Those that have parked streams.
    parked: BTreeSet<String>,
    /// Why a process cannot go on with one in a partition.
    troubles: BTreeMap<(String, Partition), String>,
}

impl Held {
    /// Whether a read model is paused or has stopped.
    fn is_held(&self, projection: &str) -> bool {
        let stopped = self.stopped.get(projection).copied().unwrap_or_default();
        stopped > 0 || self.paused.contains(projection)
    }
}

/// What is known of all live read models.
struct Samples {
    began: Instant,
    bounds: BTreeMap<Partition, Bounds>,
    watched: BTreeMap<String, BTreeMap<Partition, Watched>>,
    held: Held,
    /// Read models that are gone, and whose last values must not stay.
    gone: BTreeMap<String, BTreeSet<Partition>>,
    /// When the log and Postgres last both answered completely.
    whole_at: Instant,
}

impl Samples {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            bounds: BTreeMap::new(),
            watched: BTreeMap::new(),
            held: Held::default(),
            gone: BTreeMap::new(),
            whole_at: now,
        }
    }

    /// Takes the results of one sample; a part that did not answer is absent.
    fn take(
        &mut self,
        bounds: Vec<(Partition, Bounds)>,
        partition_count: u32,
        answered: Option<Answered>,
        now: Instant,
    ) {
        if bounds.len() == partition_count as usize && answered.is_some() {
            self.whole_at = now;
        }
        self.bounds.extend(bounds);
        let mut places = None;
        if let Some(answered) = answered {
            self.watched.retain(|name, partitions| {
                let is_there = answered.places.contains_key(name);
                if !is_there {
                    let partitions = partitions.keys().copied().collect();
                    self.gone.insert(name.clone(), partitions);
                }
                is_there
            });
            for name in answered.places.keys() {
                self.watched.entry(name.clone()).or_default();
            }
            self.held = answered.held;
            places = Some(answered.places);
        }
        for (name, partitions) in &mut self.watched {
            let is_held = self.held.is_held(name);
            for (&partition, &bounds) in &self.bounds {
                let own = places.as_ref().and_then(|places| places.get(name));
                let at = own.map(|own| own.get(&partition).copied().unwrap_or_default());
                let is_first = !partitions.contains_key(&partition);
                let watched = partitions.entry(partition).or_default();
                watched.take(bounds, at, is_first, now);
                if is_held {
                    // It may stand still, and has the whole time once it may go on.
                    watched.moved = Some(now);
                }
            }
        }
    }

    fn of(&self, projection: &str, now: Instant, wall: SystemTime) -> Option<Freshness> {
        let watched = self.watched.get(projection)?;
        let lags = watched.values().map(|one| one.lag(self.began, now, wall));
        let stuck = watched
            .iter()
            .filter(|(_, one)| one.is_stuck(self.began, now, wall));
        let stopped = self.held.stopped.get(projection).copied();
        Some(Freshness {
            lag: lags.max().unwrap_or_default(),
            gap: watched.values().map(|one| one.gap).sum(),
            stopped_partitions: stopped.unwrap_or_default(),
            stuck: stuck.map(|(partition, _)| *partition).collect(),
        })
    }

    fn state_of(&self, projection: &str, freshness: &Freshness) -> ReportState {
        ReportState::of(&Signs {
            is_paused: self.held.paused.contains(projection),
            is_stopped: freshness.stopped_partitions > 0,
            is_stuck: !freshness.stuck.is_empty(),
            is_parked: self.held.parked.contains(projection),
            lag_seconds: freshness.lag.as_secs_f64(),
        })
    }

    /// What is stuck, as sentences.
    fn stuck(&self, now: Instant, wall: SystemTime) -> Vec<String> {
        let mut said = Vec::new();
        for projection in self.watched.keys() {
            let Some(freshness) = self.of(projection, now, wall) else {
                continue;
            };
            if self.state_of(projection, &freshness) != ReportState::Stuck {
                continue;
            }
            for partition in freshness.stuck {
                let trouble = self.held.troubles.get(&(projection.clone(), partition));
                let why = trouble.map_or_else(
                    || "it has records to take up and does not move".to_owned(),
                    Clone::clone,
                );
                said.push(format!(
                    "projection {projection} is stuck in partition {partition}: {why}"
                ));
            }
        }
        said
    }

    fn show(&mut self, now: Instant, wall: SystemTime) {
        for (projection, partitions) in &self.watched {
            for (&partition, one) in partitions {
                let lag = one.lag(self.began, now, wall);
                measure::place(projection, partition, one.gap, lag);
            }
            if let Some(freshness) = self.of(projection, now, wall) {
                measure::stopped_partitions(projection, freshness.stopped_partitions);
                measure::state(projection, Some(self.state_of(projection, &freshness)));
            }
        }
        for (projection, partitions) in std::mem::take(&mut self.gone) {
            for partition in partitions {
                measure::place(&projection, partition, 0, Duration::ZERO);
            }
            measure::stopped_partitions(&projection, 0);
            measure::state(&projection, None);
        }
        measure::sampled(now.saturating_duration_since(self.whole_at));
    }
}

/// A task that samples how far the live read models are behind.
pub struct Sampler {
    samples: Arc<Mutex<Samples>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins to sample `log` and the Postgres at `url`; neither need be reachable yet.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn spawn(log: &Arc<dyn EventLog>, url: &str) -> Result<Self, RuntimeError> {
        let samples = Arc::new(Mutex::new(Samples::new(Instant::now())));
        let looking = look_on(Arc::clone(log), query_options(url)?, Arc::clone(&samples));
        let task = tokio::spawn(looking);
        Ok(Self { samples, task })
    }

    /// How far a read model is behind; absent until that is known.
    #[must_use]
    pub fn freshness(&self, projection: &str) -> Option<Freshness> {
        lock(&self.samples).of(projection, Instant::now(), SystemTime::now())
    }

    /// The live read models that have records to take up and do not move, each with its partition
    /// and the reason; empty if there is none.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        lock(&self.samples).stuck(Instant::now(), SystemTime::now())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(samples: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    // No code that could panic half-way runs under the lock.
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_on(log: Arc<dyn EventLog>, options: PgConnectOptions, samples: Arc<Mutex<Samples>>) {
    let mut connection = None;
    loop {
        let (bounds, answered) = tokio::join!(ends(&*log), ask(&options, &mut connection));
        {
            let (mut samples, now) = (lock(&samples), Instant::now());
            samples.take(bounds, log.partition_count(), answered, now);
            samples.show(now, SystemTime::now());
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

/// The bounds of the partitions, up to the first that cannot be read.
async fn ends(log: &dyn EventLog) -> Vec<(Partition, Bounds)> {
    let mut ends = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        match log.bounds(partition).await {
            Ok(bounds) => ends.push((partition, bounds)),
            Err(error) => {
                tracing::debug!(error = explained(&error), "could not read the log's end");
                break;
            }
        }
    }
    ends
}

/// The answer of Postgres. The connection is kept as long as it works.
async fn ask(options: &PgConnectOptions, kept: &mut Option<PgConnection>) -> Option<Answered> {
    let asking = async {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let connect = RuntimeError::postgres("connect to Postgres");
                options.connect().await.map_err(connect)?
            }
        };
        let answered = read(&mut connection).await?;
        *kept = Some(connection);
        Ok::<_, RuntimeError>(answered)
    };
    match tokio::time::timeout(ANSWER_WAIT, asking).await {
        Ok(Ok(answered)) => Some(answered),
        Ok(Err(error)) => {
            tracing::debug!(error = explained(&error), "could not read the checkpoints");
            None
        }
        Err(_) => None,
    }
}

const PLACES: &str = "SELECT g.projection, c.partition, c.\"offset\", c.last_recorded_at \
    FROM annals.generation AS g LEFT JOIN annals.checkpoint AS c \
    ON c.projection = g.projection AND c.generation = g.generation WHERE g.state = 'live'";

async fn read(connection: &mut PgConnection) -> Result<Answered, RuntimeError> {
    let failed = || RuntimeError::postgres("read the checkpoints");
    let rows = sqlx::query(PLACES)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let mut places: BTreeMap<String, BTreeMap<Partition, At>> = BTreeMap::new();
    for row in &rows {
        let mut read = || -> Result<(), sqlx::Error> {
            let own = places.entry(row.try_get("projection")?).or_default();
            let partition: Option<i32> = row.try_get("partition")?;
            if let Some(partition) = partition {
                let offset: i64 = row.try_get("offset")?;
                let recorded: Option<DateTime<Utc>> = row.try_get("last_recorded_at")?;
                let at = At {
                    next: Offset(offset.cast_unsigned()).next(),
                    last_recorded: recorded.map(SystemTime::from),
                };
                own.insert(Partition(partition.cast_unsigned()), at);
            }
            Ok(())
        };
        read().map_err(failed())?;
    }
    let held = Held {
        stopped: stops::counts(connection).await?,
        ..held(connection).await.map_err(failed())?
    };
    Ok(Answered { places, held })
}

const PARKED: &str = "SELECT g.projection FROM annals.generation AS g WHERE g.state = 'live' \
    AND EXISTS (SELECT FROM annals.parked AS p \
        WHERE p.projection = g.projection AND p.generation = g.generation)";
const TROUBLES: &str = "SELECT l.projection, l.partition, l.trouble FROM annals.lease AS l \
    JOIN annals.generation AS g USING (projection, generation) \
    WHERE g.state = 'live' AND l.trouble IS NOT NULL";

async fn held(connection: &mut PgConnection) -> Result<Held, sqlx::Error> {
    let paused: Vec<String> = sqlx::query_scalar("SELECT projection FROM annals.pause")
        .fetch_all(&mut *connection)
        .await?;
    let parked: Vec<String> = sqlx::query_scalar(PARKED)
        .fetch_all(&mut *connection)
        .await?;
    let troubles: Vec<(String, i32, String)> =
        sqlx::query_as(TROUBLES).fetch_all(&mut *connection).await?;
    let troubles = troubles
        .into_iter()
        .map(|(projection, partition, trouble)| {
            ((projection, Partition(partition.cast_unsigned())), trouble)
        });
    Ok(Held {
        stopped: BTreeMap::new(),
        paused: paused.into_iter().collect(),
        parked: parked.into_iter().collect(),
        troubles: troubles.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Partition = Partition(0);

    fn ends_at(end: u64) -> Vec<(Partition, Bounds)> {
        let (first, end) = (Offset(0), Offset(end));
        vec![(FIRST, Bounds { first, end })]
    }

    fn standing(next: u64) -> Option<Answered> {
        let at = At {
            next: Offset(next),
            last_recorded: Some(SystemTime::UNIX_EPOCH),
        };
        let own = BTreeMap::from([(FIRST, at)]);
        Some(Answered {
            places: BTreeMap::from([("sales".to_owned(), own)]),
            held: Held::default(),
        })
    }

    fn behind(samples: &Samples, now: Instant) -> (u64, u64) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let freshness = samples.of("sales", now, wall).unwrap();
        (freshness.gap, freshness.lag.as_secs())
    }

    #[test]
    fn lag_and_gap_grow_while_the_checkpoint_stands_still_or_is_not_known() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut samples = Samples::new(began);
        samples.take(ends_at(10), 1, standing(10), at(0));
        assert_eq!(
            behind(&samples, at(9)),
            (0, 0),
            "an idle log makes nobody late"
        );
        samples.take(ends_at(15), 1, standing(10), at(20));
        assert_eq!(behind(&samples, at(23)), (5, 3));
        // Postgres cannot be reached; the log goes on.
        samples.take(ends_at(40), 1, None, at(30));
        assert_eq!(behind(&samples, at(35)), (30, 15));
        // The records of the first sample were taken up; the others came ten seconds later.
        samples.take(ends_at(40), 1, standing(15), at(50));
        assert_eq!(behind(&samples, at(50)), (25, 20));
        samples.take(ends_at(40), 1, standing(40), at(60));
        assert_eq!(behind(&samples, at(99)), (0, 0));
    }

    #[test]
    fn stuck_is_what_has_records_to_take_up_and_does_not_move() {
        let began = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut samples = Samples::new(began);
        let state = |samples: &Samples, seconds| {
            let freshness = samples.of("sales", at(seconds), wall).unwrap();
            samples.state_of("sales", &freshness)
        };
        samples.take(ends_at(10), 1, standing(10), at(0));
        assert_eq!(
            state(&samples, 100),
            ReportState::Live,
            "nothing is missing"
        );
        samples.take(ends_at(90), 1, standing(10), at(100));
        assert_eq!(state(&samples, 109), ReportState::Behind);
        assert_eq!(state(&samples, 110), ReportState::Stuck);
        let said = samples.stuck(at(110), wall).concat();
        assert!(said.contains("sales is stuck in partition 0"), "{said}");
        // It is as late as before, but it moves.
        samples.take(ends_at(90), 1, standing(11), at(112));
        assert_eq!(state(&samples, 121), ReportState::Behind);
        let mut paused = standing(11).unwrap();
        paused.held.paused.insert("sales".to_owned());
        samples.take(ends_at(90), 1, Some(paused), at(150));
        assert_eq!(state(&samples, 150), ReportState::Paused);
        assert_eq!(samples.stuck(at(150), wall), Vec::<String>::new());
        // After the pause it has as long to begin as after a start.
        samples.take(ends_at(90), 1, standing(11), at(152));
        assert_eq!(state(&samples, 152), ReportState::Behind);
        assert_eq!(state(&samples, 159), ReportState::Behind);
        assert_eq!(state(&samples, 160), ReportState::Stuck);
        let mut stopped = standing(11).unwrap();
        stopped.held.stopped.insert("sales".to_owned(), 1);
        samples.take(ends_at(90), 1, Some(stopped), at(170));
        assert_eq!(state(&samples, 170), ReportState::Stopped);
        samples.take(ends_at(90), 1, standing(11), at(172));
        assert_eq!(state(&samples, 172), ReportState::Behind);
    }

    #[test]
    fn the_first_lag_counts_from_the_last_commit_that_was_taken_up() {
        let began = Instant::now();
        let mut samples = Samples::new(began);
        samples.take(ends_at(15), 1, standing(10), began);
        assert_eq!(behind(&samples, began), (5, 1_000));
        assert_eq!(samples.of("other", began, SystemTime::now()), None);
    }

    #[test]
    fn a_projector_that_never_catches_up_costs_no_more_memory() {
        let began = Instant::now();
        let mut samples = Samples::new(began);
        samples.take(ends_at(0), 1, standing(0), began);
        for second in 1..10_000 {
            let now = began + Duration::from_secs(second);
            samples.take(ends_at(second * 10), 1, standing(second), now);
        }
        let watched = &samples.watched["sales"][&FIRST];
        assert!(watched.ends.len() <= ENDS_MAX);
        // The checkpoint stands at 9,999, which the log reached after 1,000 seconds.
        let (_, lag) = behind(&samples, began + Duration::from_secs(10_000));
        assert!(
            lag <= 1_000,
            "no more than since the last was recorded: {lag}"
        );
    }

    #[test]
    fn a_log_that_does_not_answer_makes_the_sample_old() {
        let began = Instant::now();
        let later = began + Duration::from_secs(7);
        let mut samples = Samples::new(began);
        samples.take(ends_at(1), 1, standing(1), began);
        samples.take(Vec::new(), 1, standing(1), later);
        assert_eq!(later - samples.whole_at, Duration::from_secs(7));
    }
}
