//! A replay: one projection's read models built again in a schema of their own, up to a moment, as fast
//! as it goes or step by step.
//!
//! Invariant: nothing live changes (`store::apart`), and the rows are those of the live read model as of
//! the same moment. Memory holds a piece of the log for each partition and what is folded of one
//! transaction. Deliberately absent: what comes next (`machine`), and terminals (`host`).

pub(crate) mod condition;
mod hand;
mod lines;
mod machine;
mod readers;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use event_log::subscription::Placed;
use kernel::Timestamp;
use position::{Partition, Position, PositionToken};
use serde_json::Value as Json;

use self::condition::{Condition, Watched};
use self::hand::Hand;
use self::machine::{Action, Begin, Machine};
use self::readers::{Reader, readers};
use self::start::{Start, judged};
use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::run::filling::{self, Left};
use crate::run::rebuild::ends_of;
use crate::run::uptake::Work;
use crate::store::apart::{Apart, ApartState, Existing, NewApart, Unwritten};
use crate::store::held::NamedLog;
use crate::store::looked::{self, Looks, Rows};

/// Who makes the schema.
const BY: &str = "annals replay";
/// How often a pause is looked for while recorded time passes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many commits that were looked at, and how many bytes of them, share a transaction at most.
const LOOKED_MAX: usize = 500;
const LOOKED_BYTES_MAX: usize = 8 << 20;
/// The most rows that are shown of a step.
const ROWS_SHOWN_MAX: usize = 100;

/// How far a replay goes by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// To the end that the log has at the start.
    End,
    /// Up to a time of recording.
    Time(Timestamp),
    /// Up to a position of each partition; those that are not named have none.
    Position(PositionToken),
    /// Until a condition becomes true for a row.
    Condition(Condition),
}

impl Until {
    /// Reads a time, a position token or a condition.
    ///
    /// # Errors
    /// What the text should be.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        if let Ok(token) = text.parse() {
            return Ok(Self::Position(token));
        }
        match text.contains(['=', '<', '>']) {
            true => text.parse().map(Self::Condition),
            false => Err(format!(
                "{text:?} is neither a time with its offset from UTC, such as 2026-03-01T12:00:00Z, \
                 nor a position token, nor a condition such as 'orders > 100'"
            )),
        }
    }
}

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct NewReplay<'a> {
    /// The name of the projection.
    pub projection: &'a str,
    /// The schema that is made.
    pub schema: &'a str,
    /// What becomes of a schema that an earlier replay made.
    pub existing: Existing,
    /// How far.
    pub until: Until,
    /// Begin with the rows as of this time, instead of with nothing.
    pub from: Option<Timestamp>,
    /// How many times faster than recorded time passes; absent: as fast as it goes.
    pub times: Option<f64>,
}

/// How a replay goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gait {
    /// One event that concerns the projection; one commit if it looks at commits as a whole.
    Event,
    /// One commit that concerns the projection.
    Commit,
    /// On and on.
    On,
}

/// Why a replay paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// The step is done.
    Stepped,
    /// The condition became true.
    Condition,
    /// Everything up to the wanted moment is there.
    Until,
    /// The log has no more.
    End,
    /// It was asked for.
    Asked,
    /// The projection cannot take up a commit.
    Stopped(StoppedProjection),
}

impl PauseReason {
    /// Whether the replay cannot go on.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Until | Self::End | Self::Stopped(_))
    }
}

/// A row that a step changed.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedRow {
    /// The read model.
    pub model: &'static str,
    /// The row before; absent if there was none.
    pub before: Option<Json>,
    /// The row after; absent if it went away.
    pub after: Option<Json>,
    /// Whether the condition became true for it.
    pub is_hit: bool,
}

/// A commit, or one event of it, and what it changed.
#[derive(Debug)]
pub struct Step {
    /// The commit.
    pub placed: Placed,
    /// The event, if it was one event alone.
    pub event: Option<usize>,
    /// Some of the rows that it changed.
    pub rows: Vec<ChangedRow>,
    /// How many more rows it changed.
    pub more: usize,
}

/// A pause.
#[derive(Debug)]
pub struct Pause {
    /// Why.
    pub why: PauseReason,
    /// What was done last, if the replay stepped or the condition became true.
    pub step: Option<Box<Step>>,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Records read, but for the commits that wait to be taken.
    pub records_read: u64,
    /// Records to be read at most.
    pub records: u64,
    /// Commits folded.
    pub commits: u64,
    /// The last of them: when it was recorded, and where it is.
    pub stands: Option<(Timestamp, Partition, Position)>,
}

/// What a replay tells meanwhile, and whether it is to pause.
pub struct ReplayWatch<'a> {
    /// Takes how far it has come.
    pub progress: &'a mut (dyn FnMut(ReplayProgress) + Send),
    /// Whether it is to pause.
    pub is_to_pause: &'a (dyn Fn() -> bool + Sync),
}

/// A replay under way. If it is dropped, its schema says that it is unfinished.
pub struct Replay {
    machine: Machine,
    readers: BTreeMap<Partition, Reader>,
    hand: Hand,
    looks: Looks,
    watched: Option<Watched>,
    schema: String,
    records: u64,
    /// Whether the condition may hold for a row before it changes.
    may_hold: bool,
    /// What was looked at in the transaction under way.
    looked: Vec<Work>,
    /// Whether the connection was prepared to look at rows.
    is_prepared: bool,
}

impl Replay {
    /// Makes the schema, and the rows to begin with.
    ///
    /// # Errors
    /// `Unknown`; `Asked` if what is asked for does not fit the projection; `Apart` if the schema cannot
    /// be used; `Postgres`, `Log`.
    pub async fn begin(
        log: &Arc<dyn EventLog>,
        url: &str,
        projections: &[Arc<dyn Projection>],
        new: NewReplay<'_>,
    ) -> Result<Self, RuntimeError> {
        let found = projections.iter().find(|p| p.name() == new.projection);
        let found = found.ok_or_else(|| RuntimeError::unknown(projections, new.projection))?;
        let named = NamedLog::of(&**log).await?;
        let watched = judged(&**found, &new, named.as_ref())?;
        let room = NewApart {
            schema: new.schema,
            by: BY,
            existing: new.existing,
        };
        let ends = ends_of(&**log).await?;
        let partitions: Vec<Partition> = ends.keys().copied().collect();
        let mut apart = Apart::make(&**log, url, found, room).await?;
        let started = Start::read(&**log, named.as_ref(), &mut apart, &partitions, new.from);
        let started = match started.await {
            Ok(started) => started,
            Err(error) => {
                // Nothing was made of it yet; what hinders that matters less than what happened.
                let _ = apart.discard().await;
                return Err(error);
            }
        };
        let Start {
            discarded,
            past,
            places,
        } = started;
        let machine = Machine::new(Begin {
            generation: apart.generation().clone(),
            partitions,
            until: new.until,
            watched: watched.clone(),
            times: new.times,
            past,
            discarded,
        });
        let readers = readers(log, places, &ends);
        Ok(Self {
            looks: Looks::new(apart.generation(), new.schema, watched.as_ref()),
            may_hold: new.from.is_some(),
            records: readers
                .values()
                .map(|reader| reader.end - reader.next)
                .sum(),
            readers,
            machine,
            hand: Hand::new(apart),
            watched,
            schema: new.schema.to_owned(),
            looked: Vec::new(),
            is_prepared: false,
        })
    }

    /// Lets recorded time pass so many times faster from now on; absent: as fast as it goes.
    ///
    /// # Errors
    /// `Asked` if it is no number above 0.
    pub fn pace(&mut self, times: Option<f64>) -> Result<(), RuntimeError> {
        start::require_speed(times)?;
        self.machine.pace(times);
        Ok(())
    }

    /// Goes on until there is a reason to pause. Everything that was folded is then written.
    ///
    /// # Errors
    /// `Postgres`, `Log`, `Stop`: the schema stays, and says that it is unfinished.
    pub async fn go(
        &mut self,
        gait: Gait,
        watch: &mut ReplayWatch<'_>,
    ) -> Result<Pause, RuntimeError> {
        self.machine.go(gait);
        loop {
            let action = match (watch.is_to_pause)() {
                true => self.machine.ask_to_pause(),
                false => self.machine.turn(Instant::now()),
            };
            match action {
                Action::Read(partition) => {
                    self.read(partition).await?;
                    (watch.progress)(self.progress());
                }
                Action::Write(work) => self.write(work).await?,
                Action::Look(work) => {
                    (watch.progress)(self.progress());
                    if let Some(pause) = self.look(work, gait).await? {
                        return Ok(pause);
                    }
                }
                Action::Rest(rest) => {
                    self.settle().await?;
                    (watch.progress)(self.progress());
                    tokio::time::sleep(rest.min(LOOK_EVERY)).await;
                }
                Action::Pause(why) => {
                    // It may turn out that the projection stopped before.
                    if self.settle().await? {
                        continue;
                    }
                    (watch.progress)(self.progress());
                    return Ok(Pause { why, step: None });
                }
            }
        }
    }

    /// The rows whose key begins with these values, as texts.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn rows_with_key(
        &mut self,
        parts: &[&str],
    ) -> Result<Vec<(&'static str, Json)>, RuntimeError> {
        let apart = self.hand.idle().await?;
        let rows = self
            .looks
            .with_key(apart.connection(), &self.schema, parts)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(name, row)| (name.model, row))
            .collect())
    }

    /// What stands in the schema, for people.
    #[must_use]
    pub fn says(&self) -> String {
        self.machine.standing(ApartState::Unfinished).says
    }

    /// The streams that were set aside, with the reason of each.
    pub fn set_aside(&self) -> impl Iterator<Item = (String, &str)> {
        self.machine
            .uptake
            .set_aside
            .iter()
            .map(|(stream, reason)| {
                let name = match stream.tenant.as_str() {
                    "main" => stream.stream.clone(),
                    tenant => format!("{tenant}/{}", stream.stream),
                };
                (name, reason.as_str())
            })
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> ReplayProgress {
        let left: u64 = self
            .readers
            .values()
            .map(|reader| reader.end - reader.next)
            .sum();
        ReplayProgress {
            records_read: (self.records - left).saturating_sub(self.machine.lines.waiting()),
            records: self.records,
            commits: self.machine.uptake.commits,
            stands: self.machine.stands(),
        }
    }

    /// Ends the replay: its schema says whether all that was asked for is there.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn finish(self, state: ApartState) -> Result<(), RuntimeError> {
        let standing = self.machine.standing(state);
        self.hand.into_idle().await?.finish(&standing).await
    }

    async fn read(&mut self, partition: Partition) -> Result<(), RuntimeError> {
        let Some(reader) = self.readers.get_mut(&partition) else {
            self.machine.lines.end(partition);
            return Ok(());
        };
        match reader.batches.recv().await {
            Some(batch) => {
                let batch = batch?;
                reader.next = batch.after.offset.next().0.clamp(reader.next, reader.end);
                self.machine.lines.give(partition, batch.commits);
            }
            None => {
                reader.next = reader.end;
                self.machine.lines.end(partition);
            }
        }
        Ok(())
    }

    /// Writes work while the next is folded.
    async fn write(&mut self, work: Box<Work>) -> Result<(), RuntimeError> {
        if !self.looked.is_empty() {
            // It belongs between commits that are looked at.
            self.keep_looked().await?;
        }
        match self.still(work).await? {
            Some(work) => self.hand.write(work).await,
            None => Ok(()),
        }
    }

    /// Waits for the transaction under way, and returns what is left of work that was folded meanwhile.
    async fn still(&mut self, work: Box<Work>) -> Result<Option<Box<Work>>, RuntimeError> {
        let Some(left) = self.hand.left().await? else {
            return Ok(Some(work));
        };
        let work = self.machine.still(work, &left.parks);
        self.machine.refuse(left);
        Ok(work)
    }

    /// Writes work, and looks at what it changes. Returns a pause if there is a reason.
    async fn look(&mut self, work: Box<Work>, gait: Gait) -> Result<Option<Pause>, RuntimeError> {
        let Some(work) = self.still(work).await? else {
            return Ok(None);
        };
        let apart = self.hand.idle().await?;
        if !self.is_prepared {
            looked::prepare(apart.connection()).await?;
            apart.has_rows();
            self.is_prepared = true;
        }
        if self.looked.is_empty() {
            apart.begin().await?;
        }
        let (watched, is_step) = (self.watched.as_ref(), gait != Gait::On);
        let only = watched.filter(|_| !is_step);
        let connection = apart.connection();
        let mut keys = self.looks.touched(connection, &work.changes, only).await?;
        let before = match is_step {
            true => self.looks.rows(connection, &keys).await?,
            false => Rows::new(),
        };
        let mut held = Rows::new();
        if let Some(watched) = watched.filter(|_| self.may_hold) {
            held = self.looks.hits(connection, watched, &keys).await?;
        }
        let portion = work.portion(apart.generation());
        if let Err(unwritten) = apart.put(portion).await {
            self.refused(&work, unwritten).await?;
            return Ok(None);
        }
        let connection = apart.connection();
        for (model, more) in self.looks.touched(connection, &work.changes, only).await? {
            keys.entry(model).or_default().extend(more);
        }
        let mut hits = Rows::new();
        if let Some(watched) = watched {
            hits = self.looks.hits(connection, watched, &keys).await?;
            hits.retain(|name, _| !held.contains_key(name));
        }
        let is_hit = !hits.is_empty();
        if !is_step && !is_hit {
            self.looked.push(*work);
            let bytes: usize = self.looked.iter().map(Work::bytes).sum();
            if self.looked.len() >= LOOKED_MAX || bytes >= LOOKED_BYTES_MAX {
                self.keep_looked().await?;
            }
            return Ok(None);
        }
        let after = match is_step {
            true => self.looks.rows(connection, &keys).await?,
            false => hits.clone(),
        };
        let placed = work.commits.first().cloned();
        let event = work.event;
        self.looked.push(*work);
        self.keep_looked().await?;
        self.may_hold |= is_hit;
        let Some(placed) = placed else {
            return Ok(None);
        };
        let (rows, more) = changed(before, after, &hits);
        let step = Step {
            placed,
            event,
            rows,
            more,
        };
        Ok(Some(Pause {
            why: match is_hit {
                true => PauseReason::Condition,
                false => PauseReason::Stepped,
            },
            step: Some(Box::new(step)),
        }))
    }

    /// Commits what was looked at.
    async fn keep_looked(&mut self) -> Result<(), RuntimeError> {
        let looked = std::mem::take(&mut self.looked);
        let apart = self.hand.idle().await?;
        match looked.last() {
            Some(last) => apart.commit(&last.standing).await,
            None => Ok(()),
        }
    }

    /// Work that was to be looked at cannot be written: what was looked at before is written again,
    /// because the transaction is lost.
    async fn refused(&mut self, work: &Work, unwritten: Unwritten) -> Result<(), RuntimeError> {
        let apart = self.hand.idle().await?;
        apart.roll_back().await?;
        for looked in std::mem::take(&mut self.looked) {
            let left = filling::write(apart, looked).await?;
            self.machine.refuse(left);
        }
        let left = Left {
            parks: filling::find(apart, &work.commits, unwritten).await?,
            commits: work.commits.clone(),
        };
        self.machine.refuse(left);
        Ok(())
    }

    /// Waits until everything that was folded is durable. Returns whether some of it could not be taken
    /// up.
    async fn settle(&mut self) -> Result<bool, RuntimeError> {
        self.keep_looked().await?;
        let left = self.hand.left().await?;
        let is_left = left.is_some();
        if let Some(left) = left {
            self.machine.refuse(left);
        }
        Ok(is_left)
    }
}

/// The rows that differ, at most some of them, and how many more there are.
fn changed(mut before: Rows, after: Rows, hits: &Rows) -> (Vec<ChangedRow>, usize) {
    let mut all = Vec::new();
    for (name, row) in after {
        let earlier = before.remove(&name);
        let is_hit = hits.contains_key(&name);
        if is_hit || earlier.as_ref() != Some(&row) {
            all.push(ChangedRow {
                model: name.model,
                before: earlier,
                after: Some(row),
                is_hit,
            });
        }
    }
    all.extend(before.into_iter().map(|(name, row)| ChangedRow {
        model: name.model,
        before: Some(row),
        after: None,
        is_hit: false,
    }));
    all.sort_by_key(|row| !row.is_hit);
    let more = all.len().saturating_sub(ROWS_SHOWN_MAX);
    all.truncate(ROWS_SHOWN_MAX);
    (all, more)
}
