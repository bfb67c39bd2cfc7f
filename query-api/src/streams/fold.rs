//! Folds a stream up to a place in its life, within limits.
//!
//! Invariants: no answer folds for longer than [`FOLD_TIME_MAX`], or more than [`FOLDED_BYTES_MAX`]
//! of events. What it has folded by then is kept, so that the same question, asked again, goes on
//! from there. A fold by recorded time goes up to the last commit before the first one that was
//! recorded later: where times are equal or fall, the latest so far in the partition counts.
//! Deliberately absent: how answers look (`life`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use door::{Charge, Problem};
use event_log::commit::{Commit, EventPart};
use kernel::registry::{Aggregate, MessageError, Opaque, RuleError};
use kernel::{StreamName, TenantId, Timestamp};
use position::Partition;
use projector::{CommitPlace, StreamPlaces};

use super::snapshots::{End, Snapshot};
use super::{Reading, frozen, unread};
use crate::parameters::{Moment, Wait};
use crate::{Inner, RETRY_AFTER, code, failed};

/// How many commits of a stream are folded between two queries to Postgres.
const COMMITS_FOLDED_MAX: u32 = 1_000;
/// The most bytes of events that are folded for one answer.
const FOLDED_BYTES_MAX: usize = 64 << 20;
/// How long one answer folds.
const FOLD_TIME_MAX: Duration = Duration::from_secs(3);
/// After how many events a state is kept.
const EVENTS_BETWEEN_SNAPSHOTS: u64 = 2_000;
/// A fold of fewer events is not worth being kept.
const EVENTS_KEPT_MIN: u64 = 200;
/// The most bytes of a state that is shown. A stream with a larger state is older than the limit on
/// states; its events can be read page by page.
pub(super) const STATE_BYTES_MAX: usize = 4 << 20;
/// How many folds of more than [`COMMITS_FOLDED_MAX`] commits run at the same time.
pub(crate) const LONG_FOLDS_MAX: usize = 2;

/// Whose stream is folded, and by which rules.
#[derive(Clone, Copy)]
pub(super) struct Of<'f> {
    pub(super) inner: &'f Inner,
    pub(super) tenant: &'f TenantId,
    pub(super) stream: &'f StreamName,
    pub(super) wait: &'f Wait,
    pub(super) aggregate: &'f dyn Aggregate,
}

/// Where a fold stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The version of the last event that was folded.
    pub(super) version: u64,
    /// The last commit of which an event was folded; absent before the first one.
    pub(super) commit: Option<LastCommit>,
    /// How many events before that one were left out, because they happened later.
    pub(super) skipped: u64,
    /// Whether a later record, or a record that is still to come, may change the answer.
    pub(super) is_provisional: bool,
}

/// What is said of the last commit.
#[derive(Clone, Debug)]
pub(super) struct LastCommit {
    pub(super) id: uuid::Uuid,
    pub(super) recorded_at: Timestamp,
}

/// Takes each event that is folded.
type Each<'e> = dyn FnMut(&Step<'_>) -> Result<(), Problem> + Send + 'e;

/// One event as it is folded.
pub(super) struct Step<'s> {
    pub(super) commit: &'s Commit,
    pub(super) event: &'s EventPart,
    pub(super) version: u64,
    pub(super) state: &'s Opaque,
}

/// A fold under way.
pub(super) struct Fold<'f> {
    of: Of<'f>,
    pub(super) state: Opaque,
    pub(super) place: Place,
    /// The end of the last whole commit.
    end: Option<End>,
    /// The version of the last snapshot.
    kept_at: u64,
    until: Instant,
    bytes: usize,
    reading: Reading,
    turn: Option<tokio::sync::SemaphorePermit<'f>>,
}

/// Whether a fold goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

impl<'f> Fold<'f> {
    /// A fold that has folded nothing yet.
    pub(super) async fn begin(of: Of<'f>, charge: Charge) -> Result<Self, Problem> {
        let state = of.aggregate.initial();
        Ok(Self {
            of,
            state: state.map_err(|error| frozen(of.stream, &error))?,
            place: Place::default(),
            end: None,
            kept_at: 0,
            until: Instant::now() + FOLD_TIME_MAX,
            bytes: 0,
            reading: Reading::begin(charge).await?,
            turn: None,
        })
    }

    /// A fold that goes on from here, and counts as part of this one.
    pub(super) fn again(self, state: Opaque, place: Place) -> Self {
        Self {
            state,
            place,
            end: None,
            // What came before is not known to it.
            kept_at: u64::MAX,
            ..self
        }
    }

    /// The state as JSON.
    pub(super) fn json(&self) -> Result<String, Problem> {
        let json = self.of.aggregate.encode_state(&self.state);
        let json = json.map_err(|error| self.frozen(&error))?;
        if json.len() > STATE_BYTES_MAX {
            return Err(too_large(self.of.stream));
        }
        Ok(json)
    }

    /// A copy of the state.
    pub(super) fn copy(&self) -> Result<Opaque, Problem> {
        let copy = self.of.aggregate.copy(&self.state);
        copy.map_err(|error| self.frozen(&error))
    }

    /// Folds up to a moment, and hands each event that is folded to `each`. A fold whose events
    /// matter begins where it stands; any other one begins at the last snapshot.
    pub(super) async fn to(
        &mut self,
        moment: Moment,
        mut each: Option<&mut Each<'_>>,
    ) -> Result<(), Problem> {
        if self.place.skipped > 0 {
            // An event that was left out may have to come before others.
            self.reset()?;
        }
        if each.is_none() {
            self.resume(moment)?;
        }
        // Before the places are read: what is recorded up to a moment that is over by then, they have.
        let is_over = match moment {
            Moment::Recorded(time) => self.is_over(time).await?,
            Moment::Newest | Moment::Version(_) | Moment::Occurred(_) => false,
        };
        self.place.is_provisional = false;
        let mut is_known = self.end.is_none();
        let mut read_to = self
            .end
            .as_ref()
            .map_or(self.place.version, |end| end.version);
        loop {
            let from = if is_known {
                read_to + 1
            } else {
                read_to.max(1)
            };
            let places = self.places(from).await?;
            if let Moment::Version(asked) = moment
                && asked > places.version
            {
                return Err(above(self.of.stream, asked, places.version, self.of.wait));
            }
            let mut rest = &places.commits[..];
            if !is_known {
                is_known = true;
                match self.continues(rest.first()) {
                    true => rest = &rest[1..],
                    false => {
                        self.start_over()?;
                        read_to = 0;
                        continue;
                    }
                }
            }
            let is_last = places.commits.len() < COMMITS_FOLDED_MAX as usize;
            while let Some(chunk) = self.reading.next(&mut rest).await? {
                let Of {
                    inner,
                    tenant,
                    stream,
                    ..
                } = self.of;
                for (commit, at) in inner.read(tenant, stream, places.partition, chunk).await? {
                    self.bytes += self.reading.came(&commit);
                    if self.take(moment, &commit, at, places.partition, &mut each)? == Next::End {
                        self.keep(EVENTS_KEPT_MIN)?;
                        return Ok(());
                    }
                    read_to = commit.version();
                    let is_kept = each.is_none() && self.place.version == read_to;
                    self.require_room(places.version, is_kept)?;
                }
                self.keep(EVENTS_BETWEEN_SNAPSHOTS)?;
            }
            if is_last {
                break;
            }
            if self.turn.is_none() {
                self.turn = Some(self.turn().await?);
            }
        }
        // No later commit of the stream says that the moment is over.
        self.place.is_provisional = match moment {
            Moment::Newest | Moment::Version(_) => false,
            Moment::Recorded(_) => !is_over,
            Moment::Occurred(_) => true,
        };
        self.keep(EVENTS_KEPT_MIN)
    }

    /// Takes up a commit.
    fn take(
        &mut self,
        moment: Moment,
        commit: &Commit,
        at: &CommitPlace,
        partition: Partition,
        each: &mut Option<&mut Each<'_>>,
    ) -> Result<Next, Problem> {
        match moment {
            Moment::Recorded(time) if at.recorded_at > time => return Ok(Next::End),
            Moment::Version(asked) if commit.from_version >= asked => return Ok(Next::End),
            _ => {}
        }
        for (event, version) in commit.events.iter().zip(commit.from_version + 1..) {
            if version <= self.place.version {
                // The fold began within this commit.
                continue;
            }
            if matches!(moment, Moment::Version(asked) if version > asked) {
                return Ok(Next::End);
            }
            let occurred = commit.occurred_at(event);
            if matches!(moment, Moment::Occurred(time) if occurred > time) {
                continue;
            }
            self.evolve(commit, event, version, at, partition)?;
            if let Some(each) = each.as_mut() {
                each(&Step {
                    commit,
                    event,
                    version,
                    state: &self.state,
                })?;
            }
        }
        if self.place.version == commit.version() && self.place.skipped == 0 {
            self.ended(commit, at);
        }
        Ok(match moment {
            Moment::Version(asked) if commit.version() >= asked => Next::End,
            _ => Next::Go,
        })
    }

    fn evolve(
        &mut self,
        commit: &Commit,
        event: &EventPart,
        version: u64,
        at: &CommitPlace,
        partition: Partition,
    ) -> Result<(), Problem> {
        // What was left out since the last event that was folded.
        let skipped = self.place.skipped + (version - self.place.version - 1);
        let (name, data) = (&event.type_name, event.data.get());
        let occurred = commit.occurred_at(event);
        let evolved =
            self.of
                .aggregate
                .evolve_recorded(&mut self.state, name, event.schema, data, occurred);
        evolved.map_err(|error| match error {
            MessageError::Rule(_) if skipped > 0 => impossible(self.of.stream, version),
            error => unread(self.of.stream, partition, at, &error),
        })?;
        self.place.version = version;
        self.place.skipped = skipped;
        self.place.commit = Some(LastCommit {
            id: commit.commit,
            recorded_at: commit.recorded_at,
        });
        Ok(())
    }

    /// Notes that a commit is folded as a whole, and every one before it.
    fn ended(&mut self, commit: &Commit, at: &CommitPlace) {
        let before = self.end.take();
        let occurred = commit.events.iter().map(|event| commit.occurred_at(event));
        let occurred = occurred.max().unwrap_or(commit.recorded_at);
        let latest = |time: Timestamp, before: Option<Timestamp>| {
            before.map_or(time, |before| before.max(time))
        };
        self.end = Some(End {
            version: commit.version(),
            commit: commit.commit,
            record_hash: at.record_hash.as_slice().into(),
            recorded_at: commit.recorded_at,
            recorded_max: at.recorded_at,
            occurred_max: latest(occurred, before.as_ref().map(|end| end.occurred_max)),
        });
    }

    /// Goes on from the last snapshot that the moment allows, if it is further than this fold.
    fn resume(&mut self, moment: Moment) -> Result<(), Problem> {
        let Of {
            inner,
            tenant,
            stream,
            ..
        } = self.of;
        let up_to = match moment {
            Moment::Version(version) => version,
            Moment::Newest | Moment::Recorded(_) | Moment::Occurred(_) => u64::MAX,
        };
        let fits = |end: &End| match moment {
            Moment::Recorded(time) => end.recorded_max <= time,
            Moment::Occurred(time) => end.occurred_max <= time,
            Moment::Newest | Moment::Version(_) => true,
        };
        let Some(found) = inner.snapshots.last(tenant, stream, up_to, fits) else {
            return Ok(());
        };
        if found.end.version > self.place.version
            && let Some(state) = self.of.aggregate.decode_state(found.json.as_bytes())
        {
            self.go_on(state, &found);
        }
        Ok(())
    }

    fn go_on(&mut self, state: Opaque, from: &Arc<Snapshot>) {
        let end = from.end.clone();
        self.state = state;
        self.kept_at = end.version;
        self.place = Place {
            version: end.version,
            commit: Some(LastCommit {
                id: end.commit,
                recorded_at: end.recorded_at,
            }),
            ..Place::default()
        };
        self.end = Some(end);
    }

    /// Whether the record that the fold ended with is the one in the index.
    fn continues(&self, first: Option<&CommitPlace>) -> bool {
        match (&self.end, first) {
            (None, _) => true,
            (Some(end), Some(place)) => place.record_hash[..] == end.record_hash[..],
            (Some(_), None) => false,
        }
    }

    fn start_over(&mut self) -> Result<(), Problem> {
        let Of {
            inner,
            tenant,
            stream,
            ..
        } = self.of;
        inner.snapshots.forget(tenant, stream);
        self.reset()
    }

    fn reset(&mut self) -> Result<(), Problem> {
        let state = self.of.aggregate.initial();
        self.state = state.map_err(|error| self.frozen(&error))?;
        self.place = Place::default();
        self.end = None;
        self.kept_at = 0;
        Ok(())
    }

    /// Keeps the state if enough events were folded since one was kept, and if it stands at the end
    /// of a commit without any event left out.
    fn keep(&mut self, events_min: u64) -> Result<(), Problem> {
        let Some(end) = &self.end else { return Ok(()) };
        let is_whole = end.version == self.place.version && self.place.skipped == 0;
        if !is_whole || end.version < self.kept_at.saturating_add(events_min) {
            return Ok(());
        }
        let json = self.of.aggregate.encode_state(&self.state);
        let json = json.map_err(|error| self.frozen(&error))?;
        self.kept_at = end.version;
        if json.len() <= STATE_BYTES_MAX {
            let Of {
                inner,
                tenant,
                stream,
                ..
            } = self.of;
            let snapshot = Snapshot {
                end: end.clone(),
                json: json.into(),
            };
            inner.snapshots.put(tenant, stream, snapshot);
        }
        Ok(())
    }

    /// Ends a fold that takes too long. If what it read so far `is_kept`, a later one goes on from there.
    fn require_room(&mut self, version: u64, is_kept: bool) -> Result<(), Problem> {
        if self.bytes <= FOLDED_BYTES_MAX && Instant::now() <= self.until {
            return Ok(());
        }
        self.keep(1)?;
        Err(match is_kept && self.place.skipped == 0 {
            true => unfinished(self.of.stream, self.place.version, version),
            false => range_too_long(),
        })
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'f>, Problem> {
        let turn = self.of.inner.long_folds.acquire();
        let until = tokio::time::Instant::from_std(self.until);
        match tokio::time::timeout_at(until, turn).await {
            Ok(turn) => turn.map_err(Problem::internal),
            Err(_) => Err(unfinished(self.of.stream, self.place.version, u64::MAX)),
        }
    }

    /// Whether the index has taken up a record of the partition that was recorded after a time.
    async fn is_over(&self, time: Timestamp) -> Result<bool, Problem> {
        let Of {
            inner,
            tenant,
            stream,
            ..
        } = self.of;
        let is_over = projector::is_over(&inner.pool, tenant, stream, time).await;
        is_over.map_err(|error| failed(&error))
    }

    async fn places(&self, from: u64) -> Result<StreamPlaces, Problem> {
        let Of {
            inner,
            tenant,
            stream,
            wait,
            ..
        } = self.of;
        inner
            .places(tenant, stream, from, COMMITS_FOLDED_MAX, wait)
            .await
    }

    fn frozen(&self, error: &RuleError) -> Problem {
        frozen(self.of.stream, error)
    }
}

fn too_large(stream: &StreamName) -> Problem {
    let detail = format!(
        "the state of {stream} is too large to be shown at once; read its events page by page \
         from /v1/streams/{stream}/events"
    );
    Problem::new(code::STATE_TOO_LARGE, detail).member("max", STATE_BYTES_MAX)
}

fn above(stream: &StreamName, asked: u64, version: u64, wait: &Wait) -> Problem {
    let advice = wait.advice();
    let detail = format!("{stream} has {version} events so far, not {asked}{advice}");
    Problem::new(code::VERSION_NOT_FOUND, detail).member("version", version)
}

fn unfinished(stream: &StreamName, folded: u64, version: u64) -> Problem {
    let of = match version {
        u64::MAX => String::new(),
        version => format!(" of {version}"),
    };
    let detail = format!(
        "{stream} is long: {folded}{of} events are folded so far, and kept; ask again, and the fold \
         goes on from there"
    );
    Problem::new(code::FOLD_UNFINISHED, detail)
        .retry_after(RETRY_AFTER)
        .member("folded", folded)
}

/// A fold whose events matter one by one cannot go on from a kept state.
pub(super) fn range_too_long() -> Problem {
    let detail = "to look at each event of this range takes too long; ask for fewer events, or by \
                  recorded time in place of business time";
    Problem::new(code::RANGE_TOO_LONG, detail)
}

fn impossible(stream: &StreamName, version: u64) -> Problem {
    let detail = format!(
        "the rules cannot fold event {version} of {stream} without the earlier events that happened \
         later; ask with time=recorded, or by version"
    );
    Problem::new(code::STATE_IMPOSSIBLE, detail).member("version", version)
}
