//! Bringing history in: from files to commands to outcomes, for any domain.
//!
//! [`import_commands`] sends command lines as they are. A program that reads another format makes
//! lines of it and hands them to [`send`], as the shop's `olist` does. Invariant: an import may be
//! stopped at any point and repeated. A command that was done is not done twice, as long as the
//! engine remembers its id. Deliberately absent: printing the report, and exit codes.

pub mod commands;
pub mod listing;
pub mod progress;
pub mod report;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::Stream;

pub use commands::{CommandsOptions, CommandsSource, import_commands};
pub use listing::{Listing, Unreadable};
pub use progress::Progress;
pub use report::Report;

use client::{BatchClient, CommandLine, Observer, Outcome, Said, SendError, SendOptions};

/// Why an import did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The files cannot be imported at all.
    #[error(transparent)]
    Load(Box<dyn std::error::Error + Send + Sync>),
    /// A file cannot be opened or written.
    #[error("could not {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Not every command has an outcome. `report` holds the outcomes there are.
    #[error("{error}")]
    Send {
        /// Why the sending ended.
        #[source]
        error: SendError,
        /// What was done before the error.
        report: Box<Report>,
    },
}

impl ImportError {
    /// Whether it makes sense to run the same import again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Send { error, .. } if error.is_repeatable())
    }

    fn send(error: SendError, report: Report) -> Self {
        let report = Box::new(report);
        Self::Send { error, report }
    }
}

/// Counts outcomes and reports the progress.
struct Tracker<'a, P> {
    report: Report,
    progress: P,
    pass: Pass<'a>,
}

/// Which lines are sent.
pub enum Pass<'a> {
    /// All of them.
    First,
    /// All of them; the verdict on each is kept, to choose the corrections.
    Noted(&'a mut Vec<Verdict>),
    /// Corrections.
    Corrections,
}

/// The outcome of a line, as far as the choice of corrections depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not known, or the server failed.
    #[default]
    Open,
    /// Accepted now.
    Accepted,
    /// Accepted before.
    AcceptedBefore,
    /// Refused now.
    Refused,
    /// Refused before.
    RefusedBefore,
    /// Its id was answered before, for a command with other data.
    Changed,
}

impl Verdict {
    fn of(said: &Said) -> Self {
        match (&said.outcome, said.repeated) {
            (Outcome::Accepted | Outcome::NothingToDo, false) => Self::Accepted,
            (Outcome::Accepted | Outcome::NothingToDo, true) => Self::AcceptedBefore,
            (Outcome::Refused { code }, _) if code == report::CHANGED_CODE => Self::Changed,
            (Outcome::Refused { .. }, false) => Self::Refused,
            (Outcome::Refused { .. }, true) => Self::RefusedBefore,
            (Outcome::Failed { .. }, _) => Self::Open,
        }
    }
}

impl<P: Progress> Observer for Tracker<'_, P> {
    fn done(&mut self, line: &CommandLine, said: Said) {
        match &mut self.pass {
            Pass::First => self.report.count(line, said),
            Pass::Noted(verdicts) => {
                let place = usize::try_from(line.origin.place).ok();
                if let Some(verdict) = place.and_then(|place| verdicts.get_mut(place)) {
                    *verdict = Verdict::of(&said);
                }
                self.report.count(line, said);
            }
            Pass::Corrections => self.report.count_correction(said),
        }
        let (total, again) = (&self.report.total, &self.report.corrections);
        let refused = total.refused + again.refused;
        self.progress.advance(total.sent + again.sent, refused);
    }

    fn waiting(&mut self, lines: usize, cause: &str, pause: Duration) {
        self.progress.wait(lines, cause, pause);
    }
}

/// Sends lines and adds their outcomes to `report`. `begun` is when the import began: its duration
/// counts from there.
///
/// # Errors
/// [`ImportError::Send`], with the report about what was sent before the error.
pub async fn send(
    options: SendOptions,
    lines: impl Stream<Item = io::Result<CommandLine>> + Send + Unpin,
    lines_total: Option<u64>,
    report: Report,
    mut progress: impl Progress,
    pass: Pass<'_>,
    begun: Instant,
) -> Result<Report, ImportError> {
    let client = match BatchClient::new(options) {
        Ok(client) => client,
        Err(error) => return Err(ImportError::send(error, report)),
    };
    progress.begin(lines_total);
    let sending = Instant::now();
    let mut tracker = Tracker {
        report,
        progress,
        pass,
    };
    let sent = client.send(lines, &mut tracker).await;
    let Tracker {
        mut report,
        mut progress,
        ..
    } = tracker;
    progress.end();
    report.timed(begun.elapsed(), sending.elapsed());
    match sent {
        Ok(()) => Ok(report),
        Err(error) => Err(ImportError::send(error, report)),
    }
}

/// Completes the lists of a report, whether or not everything could be sent.
///
/// # Errors
/// That of `outcome`; [`ImportError::File`] if not all listed rows could be written to their file.
pub fn finished(outcome: Result<Report, ImportError>) -> Result<Report, ImportError> {
    match outcome {
        Ok(mut report) => {
            report.finish()?;
            Ok(report)
        }
        Err(ImportError::Send { error, mut report }) => {
            report.finish()?;
            Err(ImportError::Send { error, report })
        }
        Err(error) => Err(error),
    }
}
