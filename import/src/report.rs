//! What an import found, and the outcomes of its commands.
//!
//! Invariant: the report counts every row that was read, and counts every command that was sent
//! under exactly one outcome. Deliberately absent: printing.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{CommandLine, Outcome, Said};
use position::PositionToken;
use serde::Serialize;

use super::ImportError;
use super::listing::{Listing, Unreadable};

/// How many command types, and how many codes, are counted separately.
const NAMES_MAX: usize = 100;
/// How many characters of a command type or code are kept.
const NAME_CHARACTERS_MAX: usize = 64;
/// The name under which all further types or codes are counted together.
const OTHERS: &str = "(others)";
/// The code of a command whose id was used before for another command.
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

/// The outcomes of commands, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Commands that have an outcome.
    pub sent: u64,
    /// Accepted, with events.
    pub accepted: u64,
    /// Accepted, without events: there was nothing to do.
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
    /// The outcomes of the commands, by type.
    pub commands: BTreeMap<String, Counts>,
    /// The outcomes of all commands.
    pub total: Counts,
    /// Refusals by code.
    pub refused: BTreeMap<String, u64>,
    /// Failures of the server by code.
    pub failed: BTreeMap<String, u64>,
    /// Rows that cannot be read or sent: the first 1,000, by file, then line.
    pub unreadable: Listing,
    /// How many unreadable rows there are.
    pub unreadable_count: u64,
    /// Rows that have changed since their command was answered: the first 1,000.
    pub changed: Listing,
    /// How many changed rows there are.
    pub changed_count: u64,
    /// The outcomes of commands that were sent again as corrections; they are not part of `total`.
    pub corrections: Counts,
    /// The duration of the import, reading included.
    pub seconds: f64,
    /// Commands that got an outcome, per second of sending.
    pub commands_per_second: f64,
    /// The position behind the last command: a query with this token sees the effects of all of
    /// them.
    pub position: Option<PositionToken>,
}

impl Report {
    /// Counts the outcome of a line.
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
                        reason: format!("{} was already answered for other data", line.command),
                    });
                }
            }
            Outcome::Failed { code } => *counter(&mut self.failed, code) += 1,
        }
        self.take_position(said);
    }

    /// Counts the outcome of a line that was sent again as a correction.
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
            // Tokens of different logs cannot be merged; the newer token counts.
            (Some(known), Some(new)) => Some(known.merge(&new).unwrap_or(new)),
            (known, new) => known.or(new),
        };
    }

    /// Notes the duration and the rate.
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

    /// Whether some rows have changed since their commands were answered, and were not corrected.
    #[must_use]
    pub fn has_changes_left(&self) -> bool {
        self.changed_count > 0 && self.corrections.sent == 0
    }

    /// Whether the server failed with some commands.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.total.failed + self.corrections.failed > 0
    }

    /// The first file that has rows, but no readable one.
    #[must_use]
    pub fn unread_file(&self) -> Option<&str> {
        let is_unread = |file: &&FileRows| file.rows > 0 && file.readable == 0;
        let unread = self.files.iter().find(is_unread);
        unread.map(|file| file.file.as_str())
    }

    /// Whether there was something to send and none of it was accepted.
    #[must_use]
    pub fn is_in_vain(&self) -> bool {
        let accepted = [&self.total, &self.corrections]
            .iter()
            .any(|counts| counts.accepted + counts.nothing_to_do > 0);
        self.total.sent + self.unreadable_count > 0 && !accepted
    }

    /// Completes the lists.
    ///
    /// # Errors
    /// [`ImportError::File`] if not all listed rows could be written to their file.
    pub fn finish(&mut self) -> Result<(), ImportError> {
        self.unreadable_count = self.unreadable.count();
        self.changed_count = self.changed.count();
        self.changed.finish()?;
        self.unreadable.finish()
    }
}

/// The counter of a name; once there are [`NAMES_MAX`] names, new ones share one counter.
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
