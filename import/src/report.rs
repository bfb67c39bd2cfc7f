//! What an import found and what became of it.
//!
//! Invariant: every row that was read is in the report, and every command that was sent under
//! exactly one outcome. Deliberately absent: printing.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{CommandLine, Outcome, Said};
use position::PositionToken;
use serde::Serialize;

use super::ImportError;
use super::listing::{Listing, Unreadable};

/// How many types of commands, and codes, are counted apart.
const NAMES_MAX: usize = 100;
/// How many characters of such a name are kept.
const NAME_CHARACTERS_MAX: usize = 64;
/// Under which name the others are counted.
const OTHERS: &str = "(others)";
/// The code of a command whose id was used for another one.
pub(super) const CHANGED_CODE: &str = "command_id_reused";

/// How many rows of a file were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileRows {
    /// The file's name.
    pub file: String,
    /// Rows, the header not counted.
    pub rows: u64,
    /// How many of them could be read.
    pub readable: u64,
}

/// What became of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Commands that have an outcome.
    pub sent: u64,
    /// Accepted, with events.
    pub accepted: u64,
    /// Accepted, with nothing left to do.
    pub nothing_to_do: u64,
    /// Refused.
    pub refused: u64,
    /// Failed in the server.
    pub failed: u64,
}

impl Counts {
    fn count(&mut self, outcome: &Outcome) {
        self.sent += 1;
        *match outcome {
            Outcome::Accepted => &mut self.accepted,
            Outcome::NothingToDo => &mut self.nothing_to_do,
            Outcome::Refused { .. } => &mut self.refused,
            Outcome::Failed { .. } => &mut self.failed,
        } += 1;
    }
}

/// An import and its outcome.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows read, per file.
    pub files: Vec<FileRows>,
    /// What became of the commands, by type.
    pub commands: BTreeMap<String, Counts>,
    /// What became of all of them.
    pub total: Counts,
    /// Refusals by code.
    pub refused: BTreeMap<String, u64>,
    /// Failures of the server by code.
    pub failed: BTreeMap<String, u64>,
    /// Rows that cannot be read or sent: the first 1,000, by file, then line.
    pub unreadable: Listing,
    /// How many of them there are.
    pub unreadable_count: u64,
    /// Rows whose command was answered when the row was another one: the first 1,000.
    pub changed: Listing,
    /// How many of them there are.
    pub changed_count: u64,
    /// What became of commands that were sent again as corrections; they are not in `total`.
    pub corrections: Counts,
    /// How long it took, reading included.
    pub seconds: f64,
    /// Commands that got an outcome, per second of sending.
    pub commands_per_second: f64,
    /// The moment in the log behind the last of them: a query that brings it sees them all.
    pub position: Option<PositionToken>,
}

impl Report {
    /// Counts a line that is done.
    pub fn count(&mut self, line: &CommandLine, said: Said) {
        let of_type = counter(&mut self.commands, &line.command);
        for counts in [of_type, &mut self.total] {
            counts.count(&said.outcome);
        }
        match &said.outcome {
            Outcome::Accepted | Outcome::NothingToDo => {}
            Outcome::Refused { code } => {
                *counter(&mut self.refused, code) += 1;
                if code == CHANGED_CODE {
                    self.changed.add(Unreadable {
                        file: line.origin.file.to_owned(),
                        line: line.origin.line,
                        reason: format!("{} was answered before, for other data", line.command),
                    });
                }
            }
            Outcome::Failed { code } => *counter(&mut self.failed, code) += 1,
        }
        self.take_position(said);
    }

    /// Counts a line that was sent again as a correction.
    pub fn count_correction(&mut self, said: Said) {
        self.corrections.count(&said.outcome);
        match &said.outcome {
            Outcome::Accepted | Outcome::NothingToDo => {}
            Outcome::Refused { code } => *counter(&mut self.refused, code) += 1,
            Outcome::Failed { code } => *counter(&mut self.failed, code) += 1,
        }
        self.take_position(said);
    }

    fn take_position(&mut self, said: Said) {
        self.position = match (self.position.take(), said.position) {
            // Tokens of another log cannot be joined; that of the last log counts.
            (Some(known), Some(new)) => Some(known.merge(&new).unwrap_or(new)),
            (known, new) => known.or(new),
        };
    }

    /// Notes how long it took.
    pub fn timed(&mut self, all: Duration, sending: Duration) {
        self.seconds = (all.as_secs_f64() * 1e3).round() / 1e3;
        if !sending.is_zero() {
            #[allow(clippy::cast_precision_loss)]
            let per_second = self.total.sent as f64 / sending.as_secs_f64();
            self.commands_per_second = per_second.round();
        }
    }

    /// Whether some commands were refused for good or some rows could not be read.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        let corrected = self.corrections.accepted + self.corrections.nothing_to_do;
        self.total.refused > corrected || self.unreadable_count > 0
    }

    /// Whether some rows were changed since their commands were answered, and not corrected.
    #[must_use]
    pub fn has_changes_left(&self) -> bool {
        self.changed_count > 0 && self.corrections.sent == 0
    }

    /// Whether the server failed with some commands.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.total.failed + self.corrections.failed > 0
    }

    /// A file that has rows, none of which could be read.
    #[must_use]
    pub fn unread_file(&self) -> Option<&str> {
        let is_unread = |file: &&FileRows| file.rows > 0 && file.readable == 0;
        let unread = self.files.iter().find(is_unread);
        unread.map(|file| file.file.as_str())
    }

    /// Whether there was something to send and nothing of it was accepted.
    #[must_use]
    pub fn is_in_vain(&self) -> bool {
        let accepted = [&self.total, &self.corrections]
            .iter()
            .any(|counts| counts.accepted + counts.nothing_to_do > 0);
        self.total.sent + self.unreadable_count > 0 && !accepted
    }

    /// Finishes the lists.
    ///
    /// # Errors
    /// [`ImportError::File`] where not all rows could be written that were to be.
    pub fn finish(&mut self) -> Result<(), ImportError> {
        self.unreadable_count = self.unreadable.count();
        self.changed_count = self.changed.count();
        self.changed.finish()?;
        self.unreadable.finish()
    }
}

/// The counter of a name; one for all names that are too many.
fn counter<'a, T: Default>(counters: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
    let is_kept = counters.contains_key(&name) || counters.len() < NAMES_MAX;
    counters
        .entry(if is_kept { name } else { OTHERS.to_owned() })
        .or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_make_up_do_not_fill_memory() {
        let mut report = Report::default();
        for number in 0..10_000 {
            let line = CommandLine {
                command: format!("{number}{}", "x".repeat(1_000)).into(),
                ..CommandLine::default()
            };
            let code = format!("code_{number}");
            let said = Said {
                outcome: Outcome::Refused { code },
                position: None,
                repeated: false,
            };
            report.count(&line, said);
        }
        assert_eq!(report.commands.len(), NAMES_MAX + 1);
        assert_eq!(report.refused.len(), NAMES_MAX + 1);
        assert_eq!(report.commands[OTHERS].sent, 10_000 - NAMES_MAX as u64);
        assert!(
            report
                .commands
                .keys()
                .all(|name| name.len() <= NAME_CHARACTERS_MAX)
        );
        assert!(report.is_in_vain());
    }
}
