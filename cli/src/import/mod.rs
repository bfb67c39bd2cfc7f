//! Bringing history in: from files to commands to outcomes.
//!
//! Invariant: an import may be stopped anywhere and repeated; what was done is not done twice, as
//! long as the engine remembers the ids of commands. Deliberately absent: printing the report, and
//! exit codes.

mod args;
pub mod commands;
pub mod olist;
pub mod progress;
pub mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::Stream;

pub use args::{CommandsArgs, OlistArgs, SendingArgs};
pub use commands::{CommandsOptions, CommandsSource, import_commands};
pub use olist::{OlistOptions, OlistSource, import_olist};
pub use progress::Progress;
pub use report::{Report, Unreadable};

use crate::client::{Client, CommandLine, Observer, Said, SendError, SendOptions};

/// Why an import did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The files cannot be imported at all.
    #[error(transparent)]
    Load(#[from] olist::load::LoadError),
    /// A file cannot be opened or written.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not every command has an outcome. `report` tells of those that have.
    #[error("{error}")]
    Send {
        /// What was in the way.
        #[source]
        error: SendError,
        /// What was done before.
        report: Box<Report>,
    },
}

impl ImportError {
    /// Whether the same import may be run again, in the hope of a better end.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Send { error, .. } if error.is_repeatable())
    }

    fn send(error: SendError, report: Report) -> Self {
        let report = Box::new(report);
        Self::Send { error, report }
    }
}

/// Writes a list of unreadable rows as CSV: file, line, reason.
///
/// # Errors
/// [`ImportError::File`].
pub fn write_unreadable(path: &Path, rows: &[Unreadable]) -> Result<(), ImportError> {
    let write = || {
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(["file", "line", "reason"])?;
        for row in rows {
            writer.write_record([&row.file, &row.line.to_string(), &row.reason])?;
        }
        writer.flush()?;
        Ok(())
    };
    write().map_err(|error: csv::Error| ImportError::File {
        action: "write",
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Counts outcomes and tells how far it is.
struct Tracker<P> {
    report: Report,
    progress: P,
}

impl<P: Progress> Observer for Tracker<P> {
    fn done(&mut self, line: &CommandLine, said: Said) {
        self.report.count(line, said);
        let total = &self.report.total;
        self.progress.advance(total.sent, total.refused);
    }

    fn waiting(&mut self, lines: usize, cause: &str, pause: Duration) {
        self.progress.wait(lines, cause, pause);
    }
}

/// Sends lines and adds their outcomes to `report`.
async fn send(
    options: SendOptions,
    lines: impl Stream<Item = io::Result<CommandLine>> + Send + Unpin,
    lines_total: Option<u64>,
    report: Report,
    mut progress: impl Progress,
    begun: Instant,
) -> Result<Report, ImportError> {
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => return Err(ImportError::send(error, report)),
    };
    progress.begin(lines_total);
    let sending = Instant::now();
    let mut tracker = Tracker { report, progress };
    let sent = client.send(lines, &mut tracker).await;
    let Tracker {
        mut report,
        mut progress,
    } = tracker;
    progress.end();
    report.timed(begun.elapsed(), sending.elapsed());
    match sent {
        Ok(()) => Ok(report),
        Err(error) => Err(ImportError::send(error, report)),
    }
}
