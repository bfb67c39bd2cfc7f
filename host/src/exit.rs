//! How a command ends: one code for scripts, one message for people.
//!
//! Invariant: the numbers are frozen; scripts branch on them. Deliberately absent: any printing.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use engine::StartError;
use event_log::chain::Stop;
use event_log::copy::CopyError;
use event_log::create::CreateError;
use event_log::log::LogError;
pub use kernel::explained;
use projector::RuntimeError;

/// Every way in which a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// It failed, for a reason that none of the other codes names.
    Failed,
    /// It was called or configured wrongly.
    Usage,
    /// The business refused it.
    Refused,
    /// Something did not answer.
    Unavailable,
    /// The log was found damaged.
    Damage,
    /// Something must be prepared first.
    Unprepared,
    /// What was asked for is not there.
    NotFound,
    /// It did a part of what was asked, and found nothing wrong there.
    Partial,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Refused,
        Self::Unavailable,
        Self::Damage,
        Self::Unprepared,
        Self::NotFound,
        Self::Partial,
    ];

    /// Its number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unavailable => 4,
            Self::Damage => 5,
            Self::Unprepared => 6,
            Self::NotFound => 7,
            Self::Partial => 8,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Damage => "damage",
            Self::Unprepared => "unprepared",
            Self::NotFound => "not_found",
            Self::Partial => "partial",
        }
    }

    /// What it means to a script.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "the command did what was asked",
            Self::Failed => "the command failed; the message says why",
            Self::Usage => "wrong arguments or configuration; nothing was done",
            Self::Refused => {
                "a command was refused; or an import had no effect or, with --strict, had faults"
            }
            Self::Unavailable => "no answer, or the outcome is unknown; repeat the same command",
            Self::Damage => "the log is damaged; do not repeat the command, examine the log",
            Self::Unprepared => "something must be done first; the message names the command",
            Self::NotFound => "what was asked for does not exist",
            Self::Partial => "only a part could be done; the message says what was left out",
        }
    }

    /// The table for `--help` and the manual.
    #[must_use]
    pub fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {}  {}", exit.code(), exit.meaning()));
        let lines = lines.join("\n");
        format!("Exit codes:\n{lines}\n  128+N  a second signal N ended the process at once")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// The message for the user, sources included; empty if everything was said already.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// A failure with an error and its sources as the message.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, explained(error))
    }

    /// A failure whose message was shown already: only the exit code is left.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Puts in front of the message what was tried.
    #[must_use]
    pub fn while_trying(self, what: &str) -> Self {
        Self::new(self.exit, format!("could not {what}: {}", self.message))
    }

    /// Appends to the message what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self::new(self.exit, format!("{}; {hint}", self.message))
    }
}

fn of_log(error: &LogError) -> Exit {
    match error {
        LogError::Unavailable { .. } | LogError::Full | LogError::Closed => Exit::Unavailable,
        LogError::Missing(_) | LogError::Settings(_) => Exit::Unprepared,
        LogError::NotBuilt(_) => Exit::Usage,
        LogError::Locked(_) => Exit::Failed,
        LogError::OffsetGone { .. } | LogError::Replaced(_) | LogError::BeginningGone { .. } => {
            Exit::Damage
        }
    }
}

fn of_stop(stop: &Stop) -> Exit {
    match stop {
        Stop::Damage(_) | Stop::Gone(_) => Exit::Damage,
        Stop::NewerFormat { .. } | Stop::NewerEvent { .. } => Exit::Failed,
    }
}

fn of_create(error: &CreateError) -> Exit {
    match error {
        CreateError::Log(error) => of_log(error),
        CreateError::Stop(stop) => of_stop(stop),
        CreateError::Partitions { .. } => Exit::Usage,
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::of(of_log(&error), &error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::of(of_stop(&stop), &stop)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Log(error) => of_log(error),
            StartError::Unclaimed { .. } => Exit::Unprepared,
            StartError::Store { .. } => Exit::Failed,
        };
        Self::of(exit, &error)
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        Self::of(of_create(&error), &error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let exit = match &error {
            CopyError::Log(error) => of_log(error),
            CopyError::Stop(stop) => of_stop(stop),
            CopyError::Unclaimed(_) => Exit::Unprepared,
            CopyError::Partitions { .. } | CopyError::OtherTarget { .. } => Exit::Failed,
        };
        Self::of(exit, &error)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let exit = match &error {
            RuntimeError::Postgres { .. }
            | RuntimeError::PostgresSilent { .. }
            | RuntimeError::Blocked { .. }
            | RuntimeError::Replaced => Exit::Unavailable,
            RuntimeError::Log(error) => of_log(error),
            RuntimeError::Stop(stop) => of_stop(stop),
            RuntimeError::Unknown { .. } => Exit::NotFound,
            RuntimeError::InTheWay { .. } => Exit::Unprepared,
            RuntimeError::OtherLog { .. }
            | RuntimeError::OtherOwner { .. }
            | RuntimeError::Apart { .. }
            | RuntimeError::Asked { .. }
            | RuntimeError::Declared(_) => Exit::Usage,
            RuntimeError::Superseded { .. }
            | RuntimeError::Ended { .. }
            | RuntimeError::Stopped(_)
            | RuntimeError::InPlace { .. }
            | RuntimeError::NotReady { .. }
            | RuntimeError::InUse { .. }
            | RuntimeError::Needed { .. }
            | RuntimeError::Cancelled { .. }
            | RuntimeError::NotVerified { .. }
            | RuntimeError::Rebuilding { .. } => Exit::Failed,
        };
        Self::of(exit, &error)
    }
}

impl From<projector::DeclarationFaults> for Failure {
    fn from(faults: projector::DeclarationFaults) -> Self {
        Self::of(Exit::Usage, &faults)
    }
}

impl From<embedded_postgres::Error> for Failure {
    fn from(error: embedded_postgres::Error) -> Self {
        use embedded_postgres::Error as E;
        let exit = match &error {
            E::NoServer | E::UnusableServer { .. } | E::OtherVersion { .. } | E::NoOrdinaryUser => {
                Exit::Unprepared
            }
            E::InUse { .. }
            | E::OrphanStays { .. }
            | E::Tool { .. }
            | E::Ended { .. }
            | E::Silent { .. }
            | E::Io { .. }
            | E::Ending
            | E::BrokeOff(_) => Exit::Failed,
            #[cfg(feature = "fetch-postgres")]
            E::Fetch { .. } => Exit::Unprepared,
        };
        let failure = Self::of(exit, &error);
        if matches!(error, E::InUse { .. }) {
            failure.hint(
                "or name the Postgres of that process with --postgres URL: the process prints its \
                 address",
            )
        } else {
            failure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_frozen_and_distinct() {
        let codes: Vec<(u8, &str)> = Exit::ALL.map(|exit| (exit.code(), exit.name())).to_vec();
        assert_eq!(
            codes,
            [
                (0, "done"),
                (1, "failed"),
                (2, "usage"),
                (3, "refused"),
                (4, "unavailable"),
                (5, "damage"),
                (6, "unprepared"),
                (7, "not_found"),
                (8, "partial"),
            ]
        );
    }

    #[test]
    fn says_each_source_once() {
        let inner = std::io::Error::other("disk full");
        let error = LogError::unavailable("append", inner);
        assert_eq!(explained(&error), "could not append: disk full");
        assert_eq!(Failure::from(error).exit, Exit::Unavailable);
    }
}
