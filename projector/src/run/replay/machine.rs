//! What a replay does next: a state machine without I/O, clock or chance.
//!
//! Invariant: commits are taken in the one order of [`Lines`]; each is folded once, or not at all if the
//! rows to begin with hold it, an operator discarded it, or its stream was set aside. What is folded
//! stays within a bound until it is written. Deliberately absent: reading, writing, looking at rows
//! (`run::replay`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use event_log::record::record_hash;
use event_log::subscription::Placed;
use kernel::{StreamName, Timestamp};
use position::{Partition, Position, PositionToken};

use super::condition::Watched;
use super::lines::{Head, Lines};
use super::{Gait, PauseReason, Until};
use crate::declare::entry::{Entry, ProjectError};
use crate::declare::projection::OnError;
use crate::error::StoppedProjection;
use crate::fold::batch::{self, Cause, Failure};
use crate::fold::changes::Changes;
use crate::fold::parked::StreamId;
use crate::store::apart::{ApartState, Standing};
use crate::store::from_past::Past;
use crate::store::generation::Generation;

/// How many commits, and how many bytes of them, are folded at most before they are written.
const COMMITS_MAX: usize = 8_000;
const BYTES_MAX: usize = 8 << 20;
/// The most streams that are set aside before the replay stops.
const SET_ASIDE_MAX: usize = 10_000;

/// What is to be done next.
pub(super) enum Action {
    /// Read on in this partition.
    Read(Partition),
    /// Write this.
    Write(Box<Work>),
    /// Write this, and look at the rows that it changes.
    Look(Box<Work>),
    /// Do nothing for so long.
    Rest(Duration),
    /// Everything that was folded is written: wait for the next wish.
    Pause(PauseReason),
}

/// Some commits, folded.
pub(super) struct Work {
    pub(super) changes: Changes,
    pub(super) commits: Vec<Placed>,
    bytes: usize,
    /// The event, if it is one event of the commit alone.
    pub(super) event: Option<usize>,
    /// Where the schema stands with it.
    pub(super) standing: Standing,
}

impl Work {
    /// The commits, for a projection with SQL of its own; absent if it has none.
    pub(super) fn own(&mut self, generation: &Generation) -> Option<Vec<Placed>> {
        let has_own = generation.projection.own_sql().is_some();
        has_own.then(|| std::mem::take(&mut self.commits))
    }
}

/// How far a replay goes by itself.
enum Limit {
    None,
    Time(Timestamp),
    Positions(PositionToken),
}

/// How fast recorded time passes.
struct Pace {
    times: f64,
    /// A moment of the log, and when it was here.
    anchor: Option<(Timestamp, Instant)>,
}

/// The rest of a commit that is taken event by event.
struct Rest {
    placed: Placed,
    /// The events that concern the projection and were not taken.
    events: Vec<usize>,
}

/// The last commit that was folded.
struct Last {
    at: Timestamp,
    place: (Partition, Position),
    stream: StreamName,
    /// The number of the event, and of how many, if it was one event alone.
    event: Option<(usize, usize)>,
}

pub(super) struct Machine {
    generation: Generation,
    takes: BTreeSet<(&'static str, &'static str)>,
    pub(super) lines: Lines,
    limit: Limit,
    pace: Option<Pace>,
    watched: Option<Watched>,
    past: Option<(Timestamp, Past)>,
    discarded: BTreeMap<(Partition, Position), Vec<u8>>,
    /// The streams of which nothing more is folded, with the reason of each.
    pub(super) set_aside: BTreeMap<StreamId, String>,
    gait: Gait,
    pending: Option<Box<Work>>,
    /// Is looked at once the pending work is written.
    held: Option<Box<Work>>,
    rest: Option<Rest>,
    stopped: Option<StoppedProjection>,
    pub(super) commits: u64,
    pub(super) events: u64,
    last: Option<Last>,
    positions: BTreeMap<Partition, Position>,
}

/// What a machine begins with.
pub(super) struct Begin {
    pub(super) generation: Generation,
    pub(super) partitions: Vec<Partition>,
    pub(super) until: Until,
    pub(super) watched: Option<Watched>,
    pub(super) times: Option<f64>,
    pub(super) past: Option<(Timestamp, Past)>,
    pub(super) discarded: BTreeMap<(Partition, Position), Vec<u8>>,
}

impl Machine {
    pub(super) fn new(begin: Begin) -> Self {
        let takes = begin.generation.projection.takes().into_iter();
        let (limit, partitions) = match begin.until {
            Until::End | Until::Condition(_) => (Limit::None, begin.partitions),
            Until::Time(time) => (Limit::Time(time), begin.partitions),
            Until::Position(token) => {
                let is_of = |partition: &Partition| token.positions.contains_key(partition);
                let partitions = begin.partitions.into_iter().filter(is_of).collect();
                (Limit::Positions(token), partitions)
            }
        };
        Self {
            takes: takes.map(|takes| (takes.category, takes.event)).collect(),
            lines: Lines::new(partitions),
            limit,
            pace: begin.times.map(|times| Pace {
                times,
                anchor: None,
            }),
            watched: begin.watched,
            set_aside: BTreeMap::new(),
            past: begin.past,
            discarded: begin.discarded,
            gait: Gait::On,
            pending: None,
            held: None,
            rest: None,
            stopped: None,
            commits: 0,
            events: 0,
            last: None,
            positions: BTreeMap::new(),
            generation: begin.generation,
        }
    }

    /// Goes on in this way from now on.
    pub(super) fn go(&mut self, gait: Gait) {
        self.gait = gait;
        if let Some(pace) = &mut self.pace {
            pace.anchor = None;
        }
    }

    /// Writes what is folded, and then pauses.
    pub(super) fn ask_to_pause(&mut self) -> Action {
        if let Some(held) = self.held.take() {
            return Action::Look(held);
        }
        self.written(Action::Pause(PauseReason::Asked))
    }

    pub(super) fn turn(&mut self, now: Instant) -> Action {
        loop {
            if let Some(held) = self.held.take() {
                return Action::Look(held);
            }
            if let Some(stopped) = &self.stopped {
                let why = PauseReason::Stopped(stopped.clone());
                return self.written(Action::Pause(why));
            }
            if let Some(rest) = self.rest.take() {
                match self.take_rest(rest) {
                    Some(action) => return action,
                    None => continue,
                }
            }
            let next = match self.lines.head() {
                Head::Unread(partition) => return Action::Read(partition),
                Head::End => return self.written(Action::Pause(PauseReason::End)),
                Head::Commit(next) => next,
            };
            if matches!(self.limit, Limit::Time(time) if next.at > time) {
                return self.written(Action::Pause(PauseReason::Until));
            }
            let at = next.at;
            if let Some(rest) = self.pace.as_mut().and_then(|pace| pace.rest(at, now)) {
                return self.written(Action::Rest(rest));
            }
            let Some(placed) = self.lines.take() else {
                continue;
            };
            if !self.counts(&placed) {
                continue;
            }
            if let Some(action) = self.take(placed) {
                return action;
            }
        }
    }

    /// What is folded is written before an action.
    fn written(&mut self, action: Action) -> Action {
        self.folded().map_or(action, Action::Write)
    }

    /// Whether a commit is to be folded.
    fn counts(&mut self, placed: &Placed) -> bool {
        if let Limit::Positions(token) = &self.limit {
            let until = token.positions.get(&placed.partition);
            if until.is_none_or(|until| placed.position > *until) {
                self.lines.end(placed.partition);
                return false;
            }
            if until == Some(&placed.position) {
                self.lines.end(placed.partition);
            }
        }
        self.positions.insert(placed.partition, placed.position);
        if let Some((at, past)) = &self.past {
            let place = past.places.get(&placed.partition);
            let is_held = place.is_some_and(|place| placed.record.offset <= place.offset);
            if is_held && placed.at <= *at {
                return false;
            }
        }
        let place = (placed.partition, placed.position);
        let is_discarded = self.discarded.get(&place);
        if is_discarded.is_some_and(|hash| **hash == record_hash(&placed.record).0) {
            return false;
        }
        let parked = self.past.as_ref().map(|(_, past)| &past.parked);
        if parked.is_none_or(BTreeMap::is_empty) && self.set_aside.is_empty() {
            return true;
        }
        let stream = StreamId::of(placed);
        let parked = parked.and_then(|parked| parked.get(&stream));
        if parked.is_some_and(|from| placed.position >= *from) {
            let reason = "it is parked in the live read model".to_owned();
            self.set_aside.entry(stream).or_insert(reason);
            return false;
        }
        !self.set_aside.contains_key(&stream)
    }

    /// The events of a commit that concern the projection.
    fn concerning(&self, placed: &Placed) -> impl Iterator<Item = usize> {
        let category = placed.commit.stream.category();
        let events = placed.commit.events.iter().enumerate();
        let concerns = move |name: &str| {
            let mut takes = self.takes.iter();
            self.takes.is_empty() || takes.any(|one| one.1 == name && one.0 == category)
        };
        let events = events.filter(move |(_, event)| concerns(event.type_name.as_str()));
        events.map(|(index, _)| index)
    }

    fn take(&mut self, placed: Placed) -> Option<Action> {
        let count = self.concerning(&placed).count();
        // A refusal concerns only those that look at commits as a whole.
        if count == 0 && !self.takes.is_empty() {
            return None;
        }
        if self.gait == Gait::On && self.watched.is_none() {
            return self.add(placed, count);
        }
        let (changes, _) = match self.fold(&placed, &[]) {
            Ok(folded) => folded,
            Err(failure) => return self.fail(&placed, failure),
        };
        match self.gait {
            Gait::On if !self.is_watched(&changes) => self.add(placed, count),
            Gait::On | Gait::Commit => {
                let work = self.alone(changes, placed, None, count);
                Some(self.written_first(work))
            }
            Gait::Event => {
                let events = self.concerning(&placed).collect();
                self.rest = Some(Rest { placed, events });
                None
            }
        }
    }

    fn written_first(&mut self, work: Work) -> Action {
        match self.folded() {
            None => Action::Look(Box::new(work)),
            Some(pending) => {
                self.held = Some(Box::new(work));
                Action::Write(pending)
            }
        }
    }

    /// Takes the next event of a commit, or all that are left.
    fn take_rest(&mut self, rest: Rest) -> Option<Action> {
        let Rest { placed, mut events } = rest;
        let is_one = self.gait == Gait::Event && !events.is_empty();
        let now = match is_one {
            true => vec![events.remove(0)],
            false => std::mem::take(&mut events),
        };
        let (changes, is_whole) = match self.fold(&placed, &now) {
            Ok(folded) => folded,
            Err(failure) => return self.fail(&placed, failure),
        };
        if is_whole {
            events.clear();
        }
        let event = now.first().copied().filter(|_| is_one && !is_whole);
        let work = self.alone(changes, placed.clone(), event, now.len());
        if !events.is_empty() {
            self.rest = Some(Rest { placed, events });
        }
        Some(self.written_first(work))
    }

    /// Adds a commit to what is to be written.
    fn add(&mut self, placed: Placed, events: usize) -> Option<Action> {
        let pending = self.pending.get_or_insert_with(|| {
            Box::new(Work {
                changes: self.generation.changes(),
                commits: Vec::new(),
                bytes: 0,
                event: None,
                standing: Standing::nothing(),
            })
        });
        if self.generation.projection.own_sql().is_none() {
            let entry = Entry::new(&placed);
            if let Err(failure) = batch::project(&self.generation, &mut pending.changes, &entry) {
                // A part of its contributions is among the others.
                let mut again = self.generation.changes();
                for one in &pending.commits {
                    // They were folded before.
                    let _ = batch::project(&self.generation, &mut again, &Entry::new(one));
                }
                pending.changes = again;
                return self.fail(&placed, failure);
            }
        }
        pending.bytes += placed.record.value.as_ref().map_or(0, |value| value.len());
        self.note(&placed, events, None);
        let pending = self.pending.as_mut()?;
        pending.commits.push(placed);
        if pending.commits.len() < COMMITS_MAX && pending.bytes < BYTES_MAX {
            return None;
        }
        self.folded().map(Action::Write)
    }

    /// What was folded and is not written, if there is any.
    fn folded(&mut self) -> Option<Box<Work>> {
        let mut work = self.pending.take()?;
        work.standing = self.standing(ApartState::Unfinished);
        Some(work)
    }

    /// A commit, or one event of it, to be written by itself.
    fn alone(
        &mut self,
        changes: Changes,
        placed: Placed,
        event: Option<usize>,
        events: usize,
    ) -> Work {
        self.note(&placed, events, event);
        Work {
            changes,
            commits: vec![placed],
            bytes: 0,
            event,
            standing: self.standing(ApartState::Unfinished),
        }
    }

    /// What a commit contributes; only these events of it, if any are named and the projection takes
    /// events one by one. Whether it is the whole commit is said, too.
    fn fold(&self, placed: &Placed, events: &[usize]) -> Result<(Changes, bool), Failure> {
        let mut changes = self.generation.changes();
        let projection = &self.generation.projection;
        if projection.own_sql().is_some() {
            return Ok((changes, true));
        }
        let entry = Entry::new(placed);
        if events.is_empty() || !projection.is_by_event() {
            batch::project(&self.generation, &mut changes, &entry)?;
            return Ok((changes, true));
        }
        changes.begin(placed);
        let project = || {
            for index in events {
                projection.project_event(&entry, *index, &mut changes)?;
            }
            changes.end()
        };
        let outcome = catch_unwind(AssertUnwindSafe(project));
        match outcome.unwrap_or(Err(ProjectError::Panicked)) {
            Ok(()) => Ok((changes, false)),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Whether contributions may change a row of the watched read model.
    fn is_watched(&self, changes: &Changes) -> bool {
        let Some(watched) = &self.watched else {
            return false;
        };
        if self.generation.projection.own_sql().is_some() {
            return true;
        }
        let joins = watched.model.joins;
        changes.tables().iter().any(|fold| {
            if fold.table.name != watched.model.name {
                let name = format!("{{{}}}", fold.table.name);
                return joins.contains(&name) && !fold.is_empty();
            }
            let is_given = |key: &std::sync::Arc<[_]>| {
                let mut given = watched.keys.iter();
                given.all(|given| key[given.index] == given.value)
            };
            fold.rows.keys().any(is_given)
        })
    }

    /// A commit cannot be taken up.
    fn fail(&mut self, placed: &Placed, failure: Failure) -> Option<Action> {
        let is_parked = self.generation.projection.on_error() == OnError::Park
            && failure.cause == Cause::Commit;
        if is_parked && self.set_aside.len() < SET_ASIDE_MAX {
            self.set_aside.insert(StreamId::of(placed), failure.reason);
            return None;
        }
        self.stopped = Some(StoppedProjection {
            projection: self.generation.projection.name().to_owned(),
            partition: Some(placed.partition),
            offset: Some(placed.record.offset),
            reason: failure.reason,
        });
        None
    }

    fn note(&mut self, placed: &Placed, events: usize, event: Option<usize>) {
        let place = (placed.partition, placed.position);
        self.commits += u64::from(self.last.as_ref().is_none_or(|last| last.place != place));
        self.events += events as u64;
        let of = placed.commit.events.len();
        self.last = Some(Last {
            at: placed.at,
            place,
            stream: placed.commit.stream.clone(),
            event: event.map(|event| (event + 1, of)),
        });
    }

    /// Where the schema stands.
    pub(super) fn standing(&self, state: ApartState) -> Standing {
        let says = match &self.last {
            None => match &self.past {
                None => "nothing was folded".to_owned(),
                Some((at, _)) => format!("the rows as of {at}; nothing was folded behind them"),
            },
            Some(last) => format!(
                "{} commits with {} events, up to {last}",
                self.commits, self.events
            ),
        };
        Standing {
            state,
            says,
            commits: self.commits,
            positions: self.positions.clone(),
        }
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((event, of)) = self.event {
            write!(f, "event {event} of {of} of ")?;
        }
        let (partition, position) = self.place;
        write!(
            f,
            "the commit of {} in partition {partition} at position {position}, recorded at {}",
            self.stream, self.at
        )
    }
}

impl Pace {
    /// How long a commit is still to come.
    fn rest(&mut self, at: Timestamp, now: Instant) -> Option<Duration> {
        let (began, here) = *self.anchor.get_or_insert((at, now));
        let passed = at
            .micros()
            .saturating_sub(began.micros())
            .max(0)
            .cast_unsigned();
        let due = Duration::from_micros((passed as f64 / self.times) as u64);
        due.checked_sub(now.saturating_duration_since(here))
            .filter(|rest| !rest.is_zero())
    }
}
