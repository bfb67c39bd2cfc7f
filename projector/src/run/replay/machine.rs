//! What a replay does next: a state machine without I/O, clock or chance.
//!
//! Invariant: commits are taken in the one order of [`Lines`]; each is folded once, or not at all if the
//! rows to begin with hold it, or the uptake leaves it out. Deliberately absent: what is folded
//! (`run::uptake`); reading, writing, looking at rows (`run::replay`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use event_log::subscription::Placed;
use kernel::{StreamName, Timestamp};
use position::{Partition, Position, PositionToken};

use super::condition::Watched;
use super::lines::{Head, Lines};
use super::{Gait, PauseReason, Until};
use crate::fold::batch::Failure;
use crate::fold::changes::Changes;
use crate::fold::parked::{Park, StreamId};
use crate::run::filling::Left;
use crate::run::uptake::{Discarded, Uptake, Work};
use crate::store::apart::{ApartState, Standing};
use crate::store::from_past::Past;
use crate::store::generation::Generation;

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
    pub(super) uptake: Uptake,
    pub(super) lines: Lines,
    limit: Limit,
    pace: Option<Pace>,
    watched: Option<Watched>,
    past: Option<(Timestamp, Past)>,
    gait: Gait,
    /// Is looked at once the pending work is written.
    held: Option<Box<Work>>,
    rest: Option<Rest>,
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
    pub(super) discarded: Discarded,
}

impl Machine {
    pub(super) fn new(begin: Begin) -> Self {
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
            uptake: Uptake::new(begin.generation, begin.discarded),
            lines: Lines::new(partitions),
            limit,
            pace: begin.times.map(|times| Pace {
                times,
                anchor: None,
            }),
            watched: begin.watched,
            past: begin.past,
            gait: Gait::On,
            held: None,
            rest: None,
            last: None,
            positions: BTreeMap::new(),
        }
    }

    /// Goes on in this way from now on.
    pub(super) fn go(&mut self, gait: Gait) {
        self.gait = gait;
        if let Some(pace) = &mut self.pace {
            pace.anchor = None;
        }
    }

    /// How many times faster than recorded time passes from now on; absent: as fast as it goes.
    pub(super) fn pace(&mut self, times: Option<f64>) {
        self.pace = times.map(|times| Pace {
            times,
            anchor: None,
        });
    }

    /// When the last commit that was folded was recorded, and where it is.
    pub(super) fn stands(&self) -> Option<(Timestamp, Partition, Position)> {
        let last = self.last.as_ref()?;
        Some((last.at, last.place.0, last.place.1))
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
            if let Some(stopped) = self.uptake.stopped() {
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
            if !self.counts(&placed) || !self.uptake.concerns(&placed) {
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
        let parked = self.past.as_ref().map(|(_, past)| &past.parked);
        if let Some(parked) = parked.filter(|parked| !parked.is_empty()) {
            let stream = StreamId::of(placed);
            let from = parked.get(&stream);
            if from.is_some_and(|from| placed.position >= *from) {
                let reason = "it is parked in the live read model";
                self.uptake.set_aside(stream, reason);
            }
        }
        self.uptake.wants(placed)
    }

    fn take(&mut self, placed: Placed) -> Option<Action> {
        if self.gait == Gait::On && self.watched.is_none() {
            return self.add(placed);
        }
        let (changes, _) = match self.uptake.fold(&placed, &[]) {
            Ok(folded) => folded,
            Err(failure) => return self.fail(&placed, failure),
        };
        match self.gait {
            Gait::On if !self.is_watched(&changes) => self.add(placed),
            Gait::On | Gait::Commit => {
                let events = self.uptake.concerning(&placed).count();
                let work = self.alone(changes, placed, None, events);
                Some(self.written_first(work))
            }
            Gait::Event => {
                let events = self.uptake.concerning(&placed).collect();
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
        let (changes, is_whole) = match self.uptake.fold(&placed, &now) {
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
    fn add(&mut self, placed: Placed) -> Option<Action> {
        let last = Last::of(&placed, None);
        if self.uptake.add(placed) {
            self.last = Some(last);
        }
        match self.uptake.is_full() {
            true => self.folded().map(Action::Write),
            false => None,
        }
    }

    /// What was folded and is not written, if there is any.
    fn folded(&mut self) -> Option<Box<Work>> {
        let mut work = self.uptake.folded()?;
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
        let last = Last::of(&placed, event);
        let is_new = self
            .last
            .as_ref()
            .is_none_or(|before| before.place != last.place);
        self.uptake.commits += u64::from(is_new);
        self.uptake.events += events as u64;
        self.last = Some(last);
        let mut work = Work::alone(changes, placed, event);
        work.standing = self.standing(ApartState::Unfinished);
        work
    }

    /// A commit cannot be folded.
    fn fail(&mut self, placed: &Placed, failure: Failure) -> Option<Action> {
        self.uptake.refuse(vec![Park::at(placed, failure)]);
        None
    }

    /// Commits that were handed out cannot be taken up. What was folded behind them counts only as far
    /// as it does not depend on them.
    pub(super) fn refuse(&mut self, left: Left) {
        let Left { parks, commits } = left;
        self.uptake.uncount(&commits);
        let is_of = |placed: &Placed| parks.iter().any(|park| park.stream == StreamId::of(placed));
        self.rest = self.rest.take().filter(|rest| !is_of(&rest.placed));
        self.held = self.held.take().and_then(|held| self.still(held, &parks));
        self.uptake.refuse(parks);
        if self.uptake.stopped().is_some() {
            (self.rest, self.held) = (None, None);
        }
    }

    /// What is left of work that was handed out before it was known that these commits cannot be taken
    /// up.
    pub(super) fn still(&mut self, mut work: Box<Work>, parks: &[Park]) -> Option<Box<Work>> {
        self.uptake.leave_out(&mut work, parks);
        work.standing = self.standing(ApartState::Unfinished);
        Some(work).filter(|work| !work.commits.is_empty())
    }

    /// Whether contributions may change a row of the watched read model.
    fn is_watched(&self, changes: &Changes) -> bool {
        let Some(watched) = &self.watched else {
            return false;
        };
        if self.uptake.projection().own_sql().is_some() {
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

    /// Where the schema stands.
    pub(super) fn standing(&self, state: ApartState) -> Standing {
        let says = match &self.last {
            None => match &self.past {
                None => "nothing was folded".to_owned(),
                Some((at, _)) => format!("the rows as of {at}; nothing was folded behind them"),
            },
            Some(last) => format!(
                "{} commits with {} events, up to {last}",
                self.uptake.commits, self.uptake.events
            ),
        };
        Standing {
            state,
            says,
            commits: self.uptake.commits,
            positions: self.positions.clone(),
        }
    }
}

impl Last {
    fn of(placed: &Placed, event: Option<usize>) -> Self {
        let of = placed.commit.events.len();
        Self {
            at: placed.at,
            place: (placed.partition, placed.position),
            stream: placed.commit.stream.clone(),
            event: event.map(|event| (event + 1, of)),
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
