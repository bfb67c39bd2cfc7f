//! Which commits tables apart from the live ones take up, and in which portions: a replay's, and those
//! of a supposed history.
//!
//! Invariant: a commit is folded once, or not at all if an operator discarded it, or its stream was set
//! aside at an earlier commit that cannot be taken up, as a live projection would park it. What is
//! folded stays within a bound until it is written. Deliberately absent: the order of commits, and I/O
//! (`run::apart`).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use event_log::record::record_hash;
use event_log::subscription::Placed;
use position::{Partition, Position};

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::projection::{OnError, Projection};
use crate::error::StoppedProjection;
use crate::fold::batch::{self, Cause, Failure};
use crate::fold::changes::Changes;
use crate::fold::parked::{Park, StreamId};
use crate::store::apart::Standing;
use crate::store::generation::Generation;

/// How many commits, and how many bytes of them, are folded at most before they are written.
const COMMITS_MAX: usize = 8_000;
const BYTES_MAX: usize = 8 << 20;
/// The most streams that are set aside; the next one stops the projection.
const SET_ASIDE_MAX: usize = 10_000;

/// Commits that operators discarded, with the hashes of their records.
pub(crate) type Discarded = BTreeMap<(Partition, Position), Vec<u8>>;

/// Some commits, folded.
pub(crate) struct Work {
    pub(crate) changes: Changes,
    pub(crate) commits: Vec<Placed>,
    bytes: usize,
    /// The event, if it is one event of the commit alone.
    pub(crate) event: Option<usize>,
    /// Where the schema stands with it.
    pub(crate) standing: Standing,
}

impl Work {
    fn nothing(generation: &Generation) -> Self {
        Self {
            changes: generation.changes(),
            commits: Vec::new(),
            bytes: 0,
            event: None,
            standing: Standing::nothing(),
        }
    }

    /// One commit, or one event of it, that contributes `changes`.
    pub(crate) fn alone(changes: Changes, placed: Placed, event: Option<usize>) -> Self {
        Self {
            changes,
            bytes: bytes_of(&placed),
            commits: vec![placed],
            event,
            standing: Standing::nothing(),
        }
    }

    fn is_full(&self) -> bool {
        self.commits.len() >= COMMITS_MAX || self.bytes >= BYTES_MAX
    }

    /// How many bytes of commits it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Leaves out the streams that are parked, from where they are, and, if the projection stops at
    /// one of those places, everything from there on. Returns the commits that were left out.
    pub(crate) fn leave_out(&mut self, generation: &Generation, parks: &[Park]) -> Vec<Placed> {
        let is_at = |park: &Park, placed: &Placed| {
            (park.partition, park.position) == (placed.partition, placed.position)
        };
        let mut stops = parks.iter().filter(|park| !sets_aside(generation, park));
        let mut left_out = Vec::new();
        if let Some(stop) = stops.next() {
            let mut commits = self.commits.iter();
            // If it is not among these commits, they come behind it.
            let end = commits.position(|placed| is_at(stop, placed));
            left_out = self.commits.split_off(end.unwrap_or(0));
        }
        let is_parked = |placed: &mut Placed| {
            let stream = StreamId::of(placed);
            let mut parks = parks.iter();
            parks.any(|park| park.stream == stream && park.position <= placed.position)
        };
        left_out.extend(self.commits.extract_if(.., is_parked));
        if left_out.is_empty() {
            return left_out;
        }
        self.bytes = self.commits.iter().map(bytes_of).sum();
        self.changes = generation.changes();
        if generation.projection.own_sql().is_none() {
            for placed in &self.commits {
                // They were folded before.
                let _ = batch::project(generation, &mut self.changes, &Entry::new(placed));
            }
        }
        left_out
    }
}

fn bytes_of(placed: &Placed) -> usize {
    placed.record.value.as_ref().map_or(0, |value| value.len())
}

/// Whether a commit that cannot be taken up concerns its stream alone; otherwise the projection stops.
pub(crate) fn sets_aside(generation: &Generation, park: &Park) -> bool {
    generation.projection.on_error() == OnError::Park && park.failure.cause == Cause::Commit
}

/// What tables apart take up.
pub(crate) struct Uptake {
    generation: Generation,
    takes: BTreeSet<(&'static str, &'static str)>,
    discarded: Discarded,
    /// The streams of which nothing more is folded, with the reason of each.
    pub(crate) set_aside: BTreeMap<StreamId, String>,
    stopped: Option<StoppedProjection>,
    pending: Option<Box<Work>>,
    pub(crate) commits: u64,
    pub(crate) events: u64,
}

impl Uptake {
    pub(crate) fn new(generation: Generation, discarded: Discarded) -> Self {
        let takes = generation.projection.takes().into_iter();
        Self {
            takes: takes.map(|takes| (takes.category, takes.event)).collect(),
            generation,
            discarded,
            set_aside: BTreeMap::new(),
            stopped: None,
            pending: None,
            commits: 0,
            events: 0,
        }
    }

    pub(crate) fn projection(&self) -> &dyn Projection {
        &*self.generation.projection
    }

    /// The commit at which the projection stopped.
    pub(crate) fn stopped(&self) -> Option<&StoppedProjection> {
        self.stopped.as_ref()
    }

    /// Whether a commit is to be folded.
    pub(crate) fn wants(&self, placed: &Placed) -> bool {
        let discarded = self.discarded.get(&(placed.partition, placed.position));
        let is_discarded = discarded.is_some_and(|hash| **hash == record_hash(&placed.record).0);
        let is_aside =
            !self.set_aside.is_empty() && self.set_aside.contains_key(&StreamId::of(placed));
        self.stopped.is_none() && !is_discarded && !is_aside
    }

    /// Folds nothing more of a stream.
    pub(crate) fn set_aside(&mut self, stream: StreamId, reason: &str) {
        let reason = || reason.to_owned();
        self.set_aside.entry(stream).or_insert_with(reason);
    }

    /// The events of a commit that concern the projection.
    pub(crate) fn concerning(&self, placed: &Placed) -> impl Iterator<Item = usize> {
        let category = placed.commit.stream.category();
        let events = placed.commit.events.iter().enumerate();
        let concerns = move |name: &str| {
            let mut takes = self.takes.iter();
            self.takes.is_empty() || takes.any(|one| one.1 == name && one.0 == category)
        };
        let events = events.filter(move |(_, event)| concerns(event.type_name.as_str()));
        events.map(|(index, _)| index)
    }

    /// Whether a commit concerns the projection. A refusal concerns only those that look at commits as
    /// a whole.
    pub(crate) fn concerns(&self, placed: &Placed) -> bool {
        self.takes.is_empty() || self.concerning(placed).next().is_some()
    }

    /// Adds a commit to what is to be written. Returns whether it could be taken up.
    pub(crate) fn add(&mut self, placed: Placed) -> bool {
        let events = self.concerning(&placed).count();
        let mut pending = match self.pending.take() {
            Some(pending) => pending,
            None => Box::new(Work::nothing(&self.generation)),
        };
        let mut failure = None;
        if self.generation.projection.own_sql().is_none() {
            let entry = Entry::new(&placed);
            failure = batch::project(&self.generation, &mut pending.changes, &entry).err();
        }
        pending.bytes += bytes_of(&placed);
        pending.commits.push(placed);
        self.commits += 1;
        self.events += events as u64;
        self.pending = Some(pending);
        let Some(failure) = failure else {
            return true;
        };
        let placed = self.pending.as_ref().and_then(|work| work.commits.last());
        if let Some(park) = placed.map(|placed| Park::at(placed, failure)) {
            // A part of its contributions is among the others.
            self.refuse(vec![park]);
        }
        false
    }

    /// Whether what was folded is to be written before more is.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.as_ref().is_some_and(|work| work.is_full())
    }

    /// What was folded and is not written, if there is any.
    pub(crate) fn folded(&mut self) -> Option<Box<Work>> {
        self.pending.take().filter(|work| !work.commits.is_empty())
    }

    /// What a commit contributes; only these events of it, if any are named and the projection takes
    /// events one by one. Whether it is the whole commit is said, too.
    pub(crate) fn fold(
        &self,
        placed: &Placed,
        events: &[usize],
    ) -> Result<(Changes, bool), Failure> {
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

    /// These commits cannot be taken up, in this order: their streams are set aside, or the projection
    /// stops.
    pub(crate) fn refuse(&mut self, parks: Vec<Park>) {
        if let Some(mut pending) = self.pending.take() {
            self.leave_out(&mut pending, &parks);
            self.pending = Some(pending);
        }
        for park in parks {
            let is_aside = sets_aside(&self.generation, &park);
            if is_aside && self.set_aside.len() < SET_ASIDE_MAX {
                self.set_aside(park.stream, &park.failure.reason);
                continue;
            }
            self.stopped = Some(StoppedProjection {
                projection: self.projection().name().to_owned(),
                partition: Some(park.partition),
                offset: Some(park.offset),
                reason: park.failure.reason,
            });
            return;
        }
    }

    /// Leaves commits that cannot be taken up, and what they end, out of folded work.
    pub(crate) fn leave_out(&mut self, work: &mut Work, parks: &[Park]) {
        let left_out = work.leave_out(&self.generation, parks);
        self.uncount(&left_out);
    }

    /// These commits were folded, and are not in the rows.
    pub(crate) fn uncount(&mut self, commits: &[Placed]) {
        let events = commits
            .iter()
            .map(|placed| self.concerning(placed).count() as u64);
        let events: u64 = events.sum();
        self.commits -= commits.len() as u64;
        self.events -= events;
    }
}
