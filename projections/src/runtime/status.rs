//! What the tasks of a projector are doing, for readiness and for people.
//!
//! Deliberately absent: figures (`measure`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::ids::Partition;

use super::error::StoppedProjection;

/// What a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It has not come to anything yet.
    Starting,
    /// Another projector writes the same; this one takes over when that one goes.
    Waiting,
    /// It follows the log.
    Following,
    /// Something that may pass is in its way.
    Retrying(String),
    /// It stopped for good.
    Stopped(String),
    /// It ended as asked.
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
    /// Why it is not as it should be, if it is not.
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
            // One that stands by is as it should be: several nodes run projectors.
            TaskState::Following | TaskState::Waiting => {
                self.stopped.first().map(ToString::to_string)
            }
        }
    }
}

/// Where a task writes its status.
#[derive(Clone)]
pub(crate) struct StatusBoard(Arc<Mutex<TaskStatus>>);

impl StatusBoard {
    pub(crate) fn new(partitions: Vec<Partition>) -> Self {
        Self(Arc::new(Mutex::new(TaskStatus {
            partitions,
            state: TaskState::Starting,
            stopped: Vec::new(),
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

    pub(crate) fn stop_projection(&self, stopped: StoppedProjection) {
        let mut status = self.lock();
        if !status.stopped.contains(&stopped) {
            status.stopped.push(stopped);
        }
    }

    pub(crate) fn first_stopped(&self) -> Option<StoppedProjection> {
        self.lock().stopped.first().cloned()
    }

    /// The partitions in which a projection goes no further.
    pub(crate) fn stopped_partitions(
        &self,
        projection: &str,
        all: &[Partition],
    ) -> BTreeSet<Partition> {
        let status = self.lock();
        let own = status.stopped.iter().filter(|s| s.projection == projection);
        own.flat_map(|stopped| match stopped.partition {
            Some(partition) => vec![partition],
            None => all.to_vec(),
        })
        .collect()
    }
}
