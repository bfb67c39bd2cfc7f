//! The status of a projector, for readiness and for people.
//!
//! Deliberately absent: metrics (`measure`), and what other processes do (`list`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use position::Partition;

use crate::error::StoppedProjection;
use crate::run::upgrade::Said;
use crate::store::members::{GenerationId, GenerationState, Look, Member};

/// What a lane of a projector is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It has not reached any other state yet.
    Starting,
    /// Other processes hold all partitions; this one takes over when one of them ends.
    Waiting,
    /// It follows the log.
    Following,
    /// A failure that may pass; it tries again.
    Retrying(String),
    /// It stopped: another try would not help.
    Stopped(String),
    /// It ended as requested.
    Ended,
}

/// What one lane of a projector is doing.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// What it is doing.
    pub state: TaskState,
}

impl TaskStatus {
    /// Why the lane is not healthy; absent if it is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let partitions = self.partitions.first().zip(self.partitions.last());
        let at = partitions.map_or_else(String::new, |(first, last)| {
            format!("partitions {first} to {last}: ")
        });
        match &self.state {
            TaskState::Starting => Some(format!("{at}starting")),
            TaskState::Retrying(reason) | TaskState::Stopped(reason) => {
                Some(format!("{at}{reason}"))
            }
            TaskState::Ended => Some(format!("{at}ended")),
            // A process that waits is healthy: others run the projections.
            TaskState::Following | TaskState::Waiting => None,
        }
    }
}

/// Where a lane writes its status.
#[derive(Clone)]
pub(crate) struct StatusBoard(Arc<Mutex<TaskStatus>>);

impl StatusBoard {
    pub(crate) fn new(partitions: Vec<Partition>) -> Self {
        Self(Arc::new(Mutex::new(TaskStatus {
            partitions,
            state: TaskState::Starting,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, TaskStatus> {
        // No code that could panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> TaskStatus {
        self.lock().clone()
    }

    pub(crate) fn set(&self, state: TaskState) {
        self.lock().state = state;
    }
}

/// What a projector shows of itself.
#[derive(Clone)]
pub(crate) struct Shown(Arc<Mutex<Inner>>);

struct Inner {
    state: TaskState,
    lanes: Vec<StatusBoard>,
    stopped: Vec<StoppedProjection>,
    /// Why a generation cannot be written now.
    troubles: BTreeMap<GenerationId, String>,
    /// What else is wrong.
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state: TaskState::Starting,
            lanes: Vec::new(),
            stopped: Vec::new(),
            troubles: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that could panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, state: TaskState) {
        let mut inner = self.lock();
        inner.state = state;
        inner.lanes.clear();
    }

    /// Notes why a generation cannot be written, or that it can.
    pub(crate) fn trouble(&self, generation: &GenerationId, reason: Option<String>) {
        let troubles = &mut self.lock().troubles;
        match reason {
            Some(reason) => troubles.insert(generation.clone(), reason),
            None => troubles.remove(generation),
        };
    }

    pub(crate) fn trouble_of(&self, generation: &GenerationId) -> Option<String> {
        self.lock().troubles.get(generation).cloned()
    }

    pub(crate) fn is_troubled(&self, generation: &GenerationId) -> bool {
        self.lock().troubles.contains_key(generation)
    }

    /// Takes in what was seen, with the lanes that run now and what else is wrong.
    pub(crate) fn look(&self, look: &Look, own: &Member, lanes: Vec<StatusBoard>, said: Said) {
        let Said {
            mut problems,
            warnings,
        } = said;
        let mut stopped = Vec::new();
        for (id, seen) in &look.generations {
            if seen.state != GenerationState::Live || !own.rules.contains(&seen.rule) {
                continue;
            }
            stopped.extend(seen.stopped.values().map(|stop| StoppedProjection {
                projection: id.projection.clone(),
                partition: Some(stop.partition),
                offset: stop.offset,
                reason: stop.reason.clone(),
            }));
            if seen.leases.is_empty() && !seen.is_paused {
                problems.push(format!("no process has taken up {} yet", id.projection));
            }
        }
        let mut inner = self.lock();
        inner.state = if lanes.is_empty() {
            TaskState::Waiting
        } else {
            TaskState::Following
        };
        // While it is paused no lane writes it, and none tells that the trouble is over.
        let is_written = |id: &GenerationId| {
            let seen = look.generations.get(id);
            seen.is_some_and(|seen| !seen.is_paused)
        };
        inner.troubles.retain(|id, _| is_written(id));
        inner.lanes = lanes;
        inner.stopped = stopped;
        inner.problems = problems;
        inner.warnings = warnings;
    }

    /// What an operator should know, although nothing is wrong.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// The status of each lane, or that of the whole projector if it has none.
    pub(crate) fn tasks(&self) -> Vec<TaskStatus> {
        let inner = self.lock();
        if inner.lanes.is_empty() {
            return vec![TaskStatus {
                partitions: Vec::new(),
                state: inner.state.clone(),
            }];
        }
        inner.lanes.iter().map(StatusBoard::read).collect()
    }

    pub(crate) fn stopped(&self) -> Vec<StoppedProjection> {
        self.lock().stopped.clone()
    }

    /// What is wrong; empty if nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let tasks = self.tasks();
        let mut problems: Vec<String> = tasks.iter().filter_map(TaskStatus::problem).collect();
        let inner = self.lock();
        let of = |(id, reason): (&GenerationId, &String)| format!("{}: {reason}", id.projection);
        problems.extend(inner.troubles.iter().map(of));
        problems.extend(stops(&inner.stopped));
        problems.extend(inner.problems.iter().cloned());
        problems
    }
}

/// The stops as sentences; those with the same place and reason are one.
fn stops(stopped: &[StoppedProjection]) -> Vec<String> {
    let mut alike: Vec<StoppedProjection> = Vec::new();
    for stop in stopped {
        let is_alike = |other: &&mut StoppedProjection| {
            (other.partition, other.offset, &other.reason)
                == (stop.partition, stop.offset, &stop.reason)
        };
        match alike.iter_mut().find(is_alike) {
            Some(other) => other.projection = format!("{} {}", other.projection, stop.projection),
            None => alike.push(stop.clone()),
        }
    }
    alike.iter().map(StoppedProjection::with_remedy).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::store::members::Seen;

    #[test]
    fn a_paused_read_model_has_no_trouble_of_before() {
        let own = Member {
            id: Uuid::nil(),
            name: "here".to_owned(),
            rules: BTreeSet::new(),
            builds_only: false,
            too_old: BTreeSet::new(),
        };
        let id = GenerationId {
            projection: "sales".to_owned(),
            number: 1,
        };
        let look = |is_paused| Look {
            members: Vec::new(),
            generations: BTreeMap::from([(
                id.clone(),
                Seen {
                    state: GenerationState::Live,
                    rule: "sales 1".to_owned(),
                    version: 1,
                    places: BTreeMap::new(),
                    leases: BTreeMap::new(),
                    waits: false,
                    by_itself: false,
                    is_paused,
                    stopped: BTreeMap::new(),
                },
            )]),
        };
        let shown = Shown::new();
        let lanes = || vec![StatusBoard::new(Vec::new())];
        shown.trouble(&id, Some("the disk is full".to_owned()));
        shown.look(&look(false), &own, lanes(), Said::default());
        assert!(shown.is_troubled(&id));
        shown.look(&look(true), &own, lanes(), Said::default());
        assert!(!shown.is_troubled(&id));
    }
}
