//! The process that runs projections: several tasks that divide the partitions of a log among them.
//!
//! Invariant: a partition belongs to one task, so that its commits are taken up in order.
//! Deliberately absent: how a task works (`task`).

use std::str::FromStr as _;
use std::sync::Arc;

use event_log::log::EventLog;
use position::Partition;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::measure;
use crate::run::status::{StatusBoard, TaskState, TaskStatus};
use crate::run::task::{Ended, Goal, Target, Task};

/// The most tasks of one projector; each has a connection to Postgres.
pub const PROJECTOR_TASKS_MAX: usize = 64;

/// How long one statement of a query may take, in milliseconds.
const QUERY_TIMEOUT_MS: &str = "5000";

/// The options of a projector's connection.
///
/// `synchronous_commit=off`: a transaction returns before it is on disk. If Postgres crashes, the
/// last transactions may be lost. Rows and checkpoints are lost together and are folded again from
/// the log, which is the authority. A task that has seen a later checkpoint loses its connection in
/// the crash and loads the checkpoints again.
///
/// # Errors
/// `Postgres` if the URL cannot be parsed.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, RuntimeError> {
    let options = PgConnectOptions::from_str(url);
    let options = options.map_err(RuntimeError::postgres("understand the address of Postgres"))?;
    Ok(options
        .application_name("annals-projector")
        .options([("synchronous_commit", "off"), ("TimeZone", "UTC")])
        .disable_statement_logging())
}

/// The options of a query's connection: it is read-only, and each statement has a time limit.
///
/// # Errors
/// `Postgres` if the URL cannot be parsed.
pub fn query_options(url: &str) -> Result<PgConnectOptions, RuntimeError> {
    let options = PgConnectOptions::from_str(url);
    let options = options.map_err(RuntimeError::postgres("understand the address of Postgres"))?;
    Ok(options
        .application_name("annals-query")
        .options([
            ("default_transaction_read_only", "on"),
            ("statement_timeout", QUERY_TIMEOUT_MS),
            ("TimeZone", "UTC"),
        ])
        .disable_statement_logging())
}

/// Divides the partitions among `tasks` tasks, but at least one and at most one for each partition.
pub(crate) fn shares(partitions: &[Partition], tasks: usize) -> Vec<Vec<Partition>> {
    let tasks = tasks.clamp(1, partitions.len().max(1));
    let share = |index| partitions.iter().copied().skip(index).step_by(tasks);
    (0..tasks).map(|index| share(index).collect()).collect()
}

/// A running projector.
pub struct Projector {
    tasks: Vec<(StatusBoard, JoinHandle<Result<Ended, RuntimeError>>)>,
    stop: watch::Sender<bool>,
}

impl Projector {
    /// Starts `tasks` tasks (at least one, at most one for each partition). They follow `log` for
    /// `projections` and write to the Postgres at `url`, whose schema must have been migrated.
    /// Postgres need not be reachable yet.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn spawn(
        log: &Arc<dyn EventLog>,
        url: &str,
        projections: &[Arc<dyn Projection>],
        tasks: usize,
    ) -> Result<Self, RuntimeError> {
        let postgres = connect_options(url)?;
        measure::begin(projections);
        let (stop, stopped) = watch::channel(false);
        let partitions: Vec<Partition> = (0..log.partition_count()).map(Partition).collect();
        let spawn = |partitions: Vec<Partition>| {
            let board = StatusBoard::new(partitions.clone());
            let task = Task {
                log: Arc::clone(log),
                postgres: postgres.clone(),
                target: Target::Live(projections.to_vec()),
                partitions,
                goal: Goal::Follow,
                stop: stopped.clone(),
                board: board.clone(),
                held: None,
                progress: Box::new(|_| {}),
            };
            (board, tokio::spawn(task.run()))
        };
        Ok(Self {
            tasks: shares(&partitions, tasks.min(PROJECTOR_TASKS_MAX))
                .into_iter()
                .map(spawn)
                .collect(),
            stop,
        })
    }

    /// The status of each task.
    #[must_use]
    pub fn status(&self) -> Vec<TaskStatus> {
        let status = |(board, handle): &(StatusBoard, JoinHandle<_>)| {
            let mut status = board.read();
            let ended = matches!(status.state, TaskState::Ended | TaskState::Stopped(_));
            if handle.is_finished() && !ended {
                status.state = TaskState::Stopped("the task panicked".to_owned());
            }
            status
        };
        self.tasks.iter().map(status).collect()
    }

    /// Whether every task follows the log for all projections.
    ///
    /// # Errors
    /// The problems of the tasks, as one text.
    pub fn ready(&self) -> Result<(), String> {
        let problems: Vec<String> = self
            .status()
            .iter()
            .filter_map(TaskStatus::problem)
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("; "))
        }
    }

    /// Asks the tasks to stop and waits until each has finished its transaction.
    ///
    /// # Errors
    /// The first error that stopped a task earlier.
    pub async fn stop(mut self) -> Result<(), RuntimeError> {
        // The send fails if all tasks have ended: then no receiver is left.
        let _ = self.stop.send(true);
        let mut outcome = Ok(());
        for (_, handle) in &mut self.tasks {
            if let Ok(Err(error)) = handle.await {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }
}

impl Drop for Projector {
    /// Aborts a running transaction; the next start finds out whether it was committed.
    fn drop(&mut self) {
        for (_, handle) in &self.tasks {
            handle.abort();
        }
    }
}
