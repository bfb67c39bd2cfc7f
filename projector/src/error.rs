//! What can fail between a log and Postgres, and whether another try may succeed.
//!
//! Invariant: after a failure that may pass, a projector always tries again; a failure that cannot
//! pass is always reported.

use std::error::Error as _;
use std::sync::Arc;

use event_log::chain::Stop;
use event_log::log::LogError;
use position::{LogId, Offset, Partition};

use crate::declare::check::DeclarationFaults;
use crate::declare::entry::ProjectError;
use crate::declare::projection::Projection;

/// Why an operation of the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Postgres did not answer or refused; another try may succeed.
    #[error("could not {operation}")]
    Postgres {
        /// The operation that failed, as in "could not …".
        operation: &'static str,
        /// What the client library said.
        source: sqlx::Error,
    },
    /// Postgres did not answer in time; whether the transaction was committed is unknown.
    #[error("Postgres did not answer within {seconds} s; the outcome is unknown")]
    PostgresSilent {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The log did not answer; another try may succeed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log is damaged, or is not the log that was read before.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// Another projector moved a checkpoint: nothing was changed.
    #[error(
        "superseded: another projector moved a checkpoint of {projections}; this projector \
         changed nothing and loads the checkpoints again"
    )]
    Superseded {
        /// The projections of the transaction, separated by commas.
        projections: String,
    },
    /// A read model cannot be written now, for a reason of its own; another try may succeed.
    #[error("{reason}")]
    Blocked {
        /// The reason.
        reason: String,
    },
    /// A part of a projector ended by itself.
    #[error("{reason}")]
    Ended {
        /// The reason.
        reason: String,
    },
    /// A generation was replaced by a rebuild while it was written.
    #[error("a rebuild replaced the tables; nothing was changed")]
    Replaced,
    /// A projection went no further.
    #[error(transparent)]
    Stopped(#[from] StoppedProjection),
    /// Tables or views are declared wrongly.
    #[error(transparent)]
    Declared(#[from] DeclarationFaults),
    /// There is no such projection.
    #[error("there is no projection {name:?}; the projections are: {known}")]
    Unknown {
        /// The unknown name.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// The database holds the read models of another log.
    #[error(
        "this database holds the read models of log {held} ({held_address}), not of {log} \
         ({address}): name that log with --log, or another database with --postgres; to use this \
         database for {address}, empty it with DROP SCHEMA annals, projection, read CASCADE, and \
         create the schema again with: annals migrate --postgres URL"
    )]
    OtherLog {
        /// The log whose read models they are.
        held: LogId,
        /// The address of that log.
        held_address: String,
        /// The log that this process reads.
        log: LogId,
        /// The address of the log that this process reads.
        address: String,
    },
    /// A rebuild would destroy what users built on the read model.
    #[error(
        "{projection} cannot be rebuilt, and nothing was changed: a rebuild would have to drop \
         tables and views that these depend on: {objects}; note how they are made, drop them, \
         rebuild the read model, and make them again"
    )]
    InTheWay {
        /// The projection.
        projection: String,
        /// The objects, separated by commas.
        objects: String,
    },
    /// The read model belongs to another user of Postgres.
    #[error(
        "{projection} cannot be rebuilt, and nothing was changed: {objects}; rebuild as a user who \
         has the owner's rights"
    )]
    OtherOwner {
        /// The projection.
        projection: String,
        /// The tables and views with their owners, separated by commas.
        objects: String,
    },
    /// The projection fills tables that others made: there is only one set of them.
    #[error(
        "{projection} fills tables that others made, so that it cannot be {what}; it can be \
         emptied and filled again: annals projections rebuild {projection}"
    )]
    InPlace {
        /// The projection.
        projection: String,
        /// What it cannot be.
        what: &'static str,
    },
    /// There is no generation to switch to.
    #[error("{projection} was not switched: {reason}")]
    NotReady {
        /// The projection.
        projection: String,
        /// The reason.
        reason: String,
    },
    /// A read model could not be compared with the log.
    #[error("{projection} was not compared: {reason}")]
    NotVerified {
        /// The projection.
        projection: String,
        /// The reason.
        reason: String,
    },
    /// A projection that the program has cannot be dropped.
    #[error(
        "{projection} is a read model of this program: a projector would make it again; take it \
         out of the program first, or rebuild it"
    )]
    InUse {
        /// The projection.
        projection: String,
    },
    /// Other objects depend on a read model that is to be dropped.
    #[error(
        "{projection} was not dropped, because other objects need it: {objects}; drop them first"
    )]
    Needed {
        /// The projection.
        projection: String,
        /// The objects, as Postgres names them.
        objects: String,
    },
    /// An operator cancelled a rebuild.
    #[error("the rebuild of {projection} was cancelled")]
    Cancelled {
        /// The projection.
        projection: String,
    },
    /// A schema cannot take read models apart from the live ones; nothing was changed.
    #[error("the schema {schema} cannot be used: {reason}")]
    Apart {
        /// The schema.
        schema: String,
        /// The reason, and what to do.
        reason: String,
    },
    /// What was asked for does not make sense for this projection; nothing was done.
    #[error("{reason}")]
    Asked {
        /// The reason, and what to do.
        reason: String,
    },
    /// Another process is rebuilding the same projection.
    #[error("{projection} is being rebuilt by another process")]
    Rebuilding {
        /// The projection.
        projection: String,
    },
}

/// A stop: a projection that goes no further in a partition, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("projection {projection} stopped{}: {reason}", place(.partition.as_ref(), .offset.as_ref()))]
pub struct StoppedProjection {
    /// The projection.
    pub projection: String,
    /// The partition; absent: all of them.
    pub partition: Option<Partition>,
    /// The offset of the commit at which it stopped; absent if no single commit caused the stop.
    pub offset: Option<Offset>,
    /// The reason.
    pub reason: String,
}

impl StoppedProjection {
    /// What happened, and the command that resumes the projection after its cause was removed.
    #[must_use]
    pub fn with_remedy(&self) -> String {
        let name = &self.projection;
        // Some reasons already name another command as their remedy.
        if self.reason.contains("annals projections") {
            return self.to_string();
        }
        format!("{self}; remove the cause, then run: annals projections resume {name}")
    }
}

fn place(partition: Option<&Partition>, offset: Option<&Offset>) -> String {
    let partition = partition.map(|p| format!(" in partition {p}"));
    let offset = offset.map(|o| format!(" at offset {o}"));
    partition.unwrap_or_default() + &offset.unwrap_or_default()
}

impl RuntimeError {
    pub(crate) fn postgres(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Postgres { operation, source }
    }

    pub(crate) fn unknown(projections: &[Arc<dyn Projection>], name: &str) -> Self {
        let known: Vec<&str> = projections.iter().map(|p| p.name()).collect();
        Self::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        }
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Log(error) => !error.is_final(),
            Self::Postgres { .. }
            | Self::PostgresSilent { .. }
            | Self::Superseded { .. }
            | Self::Blocked { .. }
            | Self::Replaced => true,
            Self::Stop(_)
            | Self::Ended { .. }
            | Self::OtherLog { .. }
            | Self::Stopped(_)
            | Self::Declared(_)
            | Self::Unknown { .. }
            | Self::InTheWay { .. }
            | Self::OtherOwner { .. }
            | Self::InPlace { .. }
            | Self::NotReady { .. }
            | Self::NotVerified { .. }
            | Self::InUse { .. }
            | Self::Needed { .. }
            | Self::Apart { .. }
            | Self::Asked { .. }
            | Self::Cancelled { .. }
            | Self::Rebuilding { .. } => false,
        }
    }
}

impl From<event_log::subscription::SubscriptionError> for RuntimeError {
    fn from(error: event_log::subscription::SubscriptionError) -> Self {
        use event_log::subscription::SubscriptionError as E;
        match error {
            E::Stop(stop) => Self::Stop(stop),
            E::Log(error) => Self::Log(error),
        }
    }
}

/// Why a projection's data cannot be written: one line, with the error's sources.
pub(crate) fn explain_project(error: &ProjectError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
