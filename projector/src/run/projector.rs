//! A projector, as a program runs it, and its connections.
//!
//! Deliberately absent: how it works (`supervisor`, `lane`).

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use event_log::log::EventLog;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::run::indexing;
use crate::run::measure;
use crate::run::share::SHARE;
use crate::run::status::{Shown, TaskState, TaskStatus};
use crate::run::supervisor::{self, Job};
use crate::run::upgrade::NewVersion;
use crate::run::verifying::{self, Findings};

/// The most lanes into which a projector divides its partitions; each has a connection to Postgres.
pub const PROJECTOR_TASKS_MAX: usize = 64;

/// How long one statement of a query may take, in milliseconds.
const QUERY_TIMEOUT_MS: &str = "5000";

/// How long a statement of a projector waits for a lock, in milliseconds. Then the read model goes
/// apart from the others.
const LOCK_TIMEOUT_MS: &str = "2000";
/// How long a projector may be silent within a transaction, in milliseconds: a process that was
/// stopped must not keep its locks.
const IDLE_TIMEOUT_MS: &str = "3000";

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
        .options([
            ("synchronous_commit", "off"),
            ("TimeZone", "UTC"),
            ("lock_timeout", LOCK_TIMEOUT_MS),
            ("idle_in_transaction_session_timeout", IDLE_TIMEOUT_MS),
        ])
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

/// How a projector works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectorOptions {
    /// The number of its lanes: at least one, at most one for each partition.
    pub tasks: usize,
    /// What becomes of a new version of a projection.
    pub new_version: NewVersion,
    /// The most of its time, in percent, that a lane works on a rebuild while live read models are
    /// written.
    pub rebuild_share: u32,
    /// How often a few streams are compared with the rows of a read model; absent: never.
    pub verify_every: Option<Duration>,
}

impl From<usize> for ProjectorOptions {
    /// So many lanes, and everything else by default.
    fn from(tasks: usize) -> Self {
        Self {
            tasks,
            new_version: NewVersion::default(),
            rebuild_share: SHARE,
            verify_every: None,
        }
    }
}

/// A running projector.
pub struct Projector {
    shown: Shown,
    findings: Findings,
    /// Tasks that end with it.
    beside: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RuntimeError>>,
}

impl Projector {
    /// Starts to follow `log` for `projections`, and to write to the Postgres at `url`, whose schema
    /// must have been migrated. `options` may be just a number of lanes. Projectors of several processes share the partitions. Postgres need not be reachable yet.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn spawn(
        log: &Arc<dyn EventLog>,
        url: &str,
        projections: &[Arc<dyn Projection>],
        options: impl Into<ProjectorOptions>,
    ) -> Result<Self, RuntimeError> {
        let options = options.into();
        measure::begin(projections);
        let mut projector = Self::start(Job {
            log: Arc::clone(log),
            postgres: connect_options(url)?,
            projections: projections.to_vec(),
            tasks: options.tasks.clamp(1, PROJECTOR_TASKS_MAX),
            builds_only: false,
            new_version: options.new_version,
            rebuild_share: options.rebuild_share,
        });
        let stopped = projector.stop.subscribe();
        let postgres = connect_options(url)?;
        let indexing = indexing::run(postgres, projections.to_vec(), stopped);
        projector.beside.push(tokio::spawn(indexing));
        if let Some(every) = options.verify_every {
            let (postgres, findings) = (connect_options(url)?, projector.findings.clone());
            let (log, projections) = (Arc::clone(log), projections.to_vec());
            let verifying = verifying::run(log, postgres, projections, every, findings);
            projector.beside.push(tokio::spawn(verifying));
        }
        Ok(projector)
    }

    pub(crate) fn start(job: Job) -> Self {
        let shown = Shown::new();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(supervisor::run(job, shown.clone(), stopped));
        Self {
            shown,
            findings: Findings::default(),
            beside: Vec::new(),
            stop,
            task,
        }
    }

    /// The status of each lane; of the whole projector if it has none.
    #[must_use]
    pub fn status(&self) -> Vec<TaskStatus> {
        let mut tasks = self.shown.tasks();
        for status in &mut tasks {
            let has_ended = matches!(status.state, TaskState::Ended | TaskState::Stopped(_));
            if self.task.is_finished() && !has_ended {
                status.state = TaskState::Stopped("the projector panicked".to_owned());
            }
        }
        tasks
    }

    /// Where live read models that this projector has stopped.
    #[must_use]
    pub fn stopped(&self) -> Vec<StoppedProjection> {
        self.shown.stopped()
    }

    /// Whether every lane follows the log, and every read model goes on.
    ///
    /// # Errors
    /// What is wrong, as one text.
    pub fn ready(&self) -> Result<(), String> {
        let mut problems = self.shown.problems();
        if self.task.is_finished() && problems.is_empty() {
            problems.push("the projector panicked".to_owned());
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("; "))
        }
    }

    /// What an operator should know, although nothing is wrong.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.shown.warnings();
        warnings.extend(self.findings.said());
        warnings
    }

    /// Why it, or one of its lanes, has ended by itself.
    pub(crate) fn ended(&self) -> Option<String> {
        let ended = |status: TaskStatus| match status.state {
            TaskState::Stopped(reason) => Some(reason),
            _ => None,
        };
        self.status().into_iter().find_map(ended)
    }

    /// Asks the lanes to stop and waits until each has finished its transaction.
    ///
    /// # Errors
    /// The error that stopped the projector earlier.
    pub async fn stop(mut self) -> Result<(), RuntimeError> {
        // The send fails if it has ended: then no receiver is left.
        let _ = self.stop.send(true);
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_cancelled) => Ok(()),
        }
    }
}

impl Drop for Projector {
    /// Aborts a running transaction; the next start finds out whether it was committed.
    fn drop(&mut self) {
        self.task.abort();
        // An index that is being made is left unfinished; the next start drops it.
        self.beside.iter().for_each(JoinHandle::abort);
    }
}
