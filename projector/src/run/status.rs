//! The status of a projector's tasks, for readiness and for people.
//!
//! Invariant: a stop is noted here first, and is kept until its projection is rebuilt or resumed.
//! Deliberately absent: metrics (`measure`), and where stops are stored for other processes
//! (`stops`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use position::Partition;

use crate::error::StoppedProjection;

/// What a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It has not reached any other state yet.
    Starting,
    /// Another projector writes the same read models; this task takes over when that projector
    /// ends.
    Waiting,
    /// It follows the log.
    Following,
    /// A failure that may pass; the task tries again.
    Retrying(String),
    /// It stopped: another try would not help.
    Stopped(String),
    /// It ended as requested.
    Ended,
}

/// What one task of a projector is doing.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// What it is doing.
    pub state: TaskState,
    /// Projections that go no further, while the others go on.
    pub stopped: Vec<StoppedProjection>,
}

impl TaskStatus {
    /// Why the task is not healthy; absent if it is.
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
            // A waiting task is healthy: several nodes run projectors.
            TaskState::Following | TaskState::Waiting => {
                self.stopped.first().map(StoppedProjection::with_remedy)
            }
        }
    }
}

/// A stop as its task knows it.
struct Noted {
    stop: StoppedProjection,
    /// The number of the generation in which it happened.
    generation: i32,
    /// Whether the stop is stored for other processes.
    is_recorded: bool,
}

struct Board {
    status: TaskStatus,
    noted: Vec<Noted>,
}

/// Where a task writes its status.
#[derive(Clone)]
pub(crate) struct StatusBoard(Arc<Mutex<Board>>);

impl StatusBoard {
    pub(crate) fn new(partitions: Vec<Partition>) -> Self {
        Self(Arc::new(Mutex::new(Board {
            status: TaskStatus {
                partitions,
                state: TaskState::Starting,
                stopped: Vec::new(),
            },
            noted: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // No code that could panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> TaskStatus {
        let board = self.lock();
        TaskStatus {
            stopped: board.noted.iter().map(|noted| noted.stop.clone()).collect(),
            ..board.status.clone()
        }
    }

    pub(crate) fn set(&self, state: TaskState) {
        self.lock().status.state = state;
    }

    /// Notes a stop; `false` if it was already known.
    pub(crate) fn stop_projection(&self, stop: &StoppedProjection, generation: i32) -> bool {
        let mut board = self.lock();
        let is_known = |noted: &Noted| noted.generation == generation && noted.stop == *stop;
        if board.noted.iter().any(is_known) {
            return false;
        }
        board.noted.push(Noted {
            stop: stop.clone(),
            generation,
            is_recorded: false,
        });
        true
    }

    /// The stops that are not stored for other processes yet, with their generations.
    pub(crate) fn unrecorded(&self) -> Vec<(StoppedProjection, i32)> {
        let board = self.lock();
        let unrecorded = board.noted.iter().filter(|noted| !noted.is_recorded);
        let unrecorded = unrecorded.map(|noted| (noted.stop.clone(), noted.generation));
        unrecorded.collect()
    }

    /// Notes that all stops are stored for other processes.
    pub(crate) fn set_recorded(&self) {
        let mut board = self.lock();
        board
            .noted
            .iter_mut()
            .for_each(|noted| noted.is_recorded = true);
    }

    /// Forgets stored stops that no longer hold; returns their projections.
    pub(crate) fn forget(
        &self,
        holds: impl Fn(&StoppedProjection, i32) -> bool,
    ) -> Vec<&'static str> {
        let mut board = self.lock();
        let mut gone = Vec::new();
        board.noted.retain(|noted| {
            let stays = !noted.is_recorded || holds(&noted.stop, noted.generation);
            if !stays && !gone.contains(&noted.stop.projection) {
                gone.push(noted.stop.projection);
            }
            stays
        });
        gone
    }

    pub(crate) fn first_stopped(&self) -> Option<StoppedProjection> {
        self.lock().noted.first().map(|noted| noted.stop.clone())
    }

    /// The partitions in which a projection has stopped.
    pub(crate) fn stopped_partitions(
        &self,
        projection: &str,
        all: &[Partition],
    ) -> BTreeSet<Partition> {
        let board = self.lock();
        let own = board.noted.iter().map(|noted| &noted.stop);
        own.filter(|stop| stop.projection == projection)
            .flat_map(|stop| match stop.partition {
                Some(partition) => vec![partition],
                None => all.to_vec(),
            })
            .collect()
    }
}
