//! What an import found and what became of it.
//!
//! Invariant: every row that was read is in the report, and every command that was sent under
//! exactly one outcome. Deliberately absent: printing.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use position::PositionToken;
use serde::Serialize;

use super::ImportError;
use super::listing::{Listing, Unreadable};
use crate::client::{CommandLine, Outcome, Said};
use crate::output;

/// How many rows of a list a report for people shows.
const ROWS_SHOWN_MAX: usize = 20;
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
    pub(super) fn timed(&mut self, all: Duration, sending: Duration) {
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
    pub(super) fn finish(&mut self) -> Result<(), ImportError> {
        self.unreadable_count = self.unreadable.count();
        self.changed_count = self.changed.count();
        self.changed.finish()?;
        self.unreadable.finish()
    }

    /// The report for people. `remedy` says what to do about rows that were changed.
    #[must_use]
    pub fn to_text(&self, remedy: &str) -> String {
        let mut parts = Vec::new();
        if !self.files.is_empty() {
            parts.push(self.files_table());
        }
        if self.total.sent > 0 {
            parts.push(self.commands_table());
        }
        let codes = [("refused", &self.refused), ("failed", &self.failed)];
        for (title, counts) in codes.into_iter().filter(|(_, counts)| !counts.is_empty()) {
            let rows = counts
                .iter()
                .map(|(code, count)| vec![code.clone(), count.to_string()]);
            parts.push(table(&[title, "commands"], rows));
        }
        if self.unreadable_count > 0 {
            let more = "--unreadable FILE writes all of them";
            parts.push(list("cannot be read or sent:", &self.unreadable, more));
        }
        if self.has_changes_left() {
            let title = format!("changed since they were imported:\n  {remedy}");
            parts.push(list(&title, &self.changed, "only the first are kept"));
        }
        if self.corrections.sent > 0 {
            let Counts { sent, refused, .. } = self.corrections;
            let accepted = self.corrections.accepted + self.corrections.nothing_to_do;
            parts.push(format!(
                "{sent} commands sent again as corrections: {accepted} accepted, {refused} refused"
            ));
        }
        parts.push(format!(
            "{} commands in {} s ({} commands/s)",
            self.total.sent, self.seconds, self.commands_per_second
        ));
        parts.join("\n\n")
    }

    fn files_table(&self) -> String {
        let rows = self.files.iter().map(|file| {
            vec![
                file.file.clone(),
                file.rows.to_string(),
                self.unreadable.count_of(&file.file).to_string(),
            ]
        });
        table(&["file", "rows", "unreadable"], rows)
    }

    fn commands_table(&self) -> String {
        let all = ("all".to_owned(), &self.total);
        let by_type = self.commands.iter().map(|(name, counts)| {
            let name = if name.is_empty() { "(no type)" } else { name };
            (name.to_owned(), counts)
        });
        let rows = by_type.chain([all]).map(|(name, counts)| {
            let counts = [
                counts.sent,
                counts.accepted,
                counts.nothing_to_do,
                counts.refused,
                counts.failed,
            ];
            let counts = counts.map(|count| count.to_string());
            [name].into_iter().chain(counts).collect()
        });
        let header = [
            "command",
            "sent",
            "accepted",
            "nothing to do",
            "refused",
            "failed",
        ];
        table(&header, rows)
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

/// The first rows of a list, and how many more there are.
fn list(title: &str, rows: &Listing, more: &str) -> String {
    let mut lines = vec![title.to_owned()];
    let shown = rows.rows().iter().take(ROWS_SHOWN_MAX);
    lines.extend(shown.map(|row| format!("  {}:{} {}", row.file, row.line, row.reason)));
    let hidden = rows.count().saturating_sub(ROWS_SHOWN_MAX as u64);
    if hidden > 0 {
        lines.push(format!("  and {hidden} more: {more}"));
    }
    lines.join("\n")
}

/// Aligned columns without lines, numbers to the right.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows.map(|cells| {
        let shown = cells.iter().map(|cell| output::shown(cell).into_owned());
        shown.collect::<Vec<_>>()
    }));
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if place > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_became_of_each_command_and_row() {
        let mut report = Report {
            files: vec![FileRows {
                file: "orders.csv".to_owned(),
                rows: 30,
                readable: 8,
            }],
            ..Report::default()
        };
        let line = |command: &'static str| CommandLine {
            command: command.into(),
            ..CommandLine::default()
        };
        let code = "order_not_placed".to_owned();
        for (command, outcome) in [
            ("PlaceOrder", Outcome::Accepted),
            ("PlaceOrder", Outcome::NothingToDo),
            ("ShipOrder", Outcome::Refused { code }),
        ] {
            let position = None;
            let repeated = false;
            let said = Said {
                outcome,
                position,
                repeated,
            };
            report.count(&line(command), said);
        }
        for line in 2..24 {
            report.unreadable.add(Unreadable {
                file: "orders.csv".to_owned(),
                line,
                reason: "order_id is empty".to_owned(),
            });
        }
        report.finish().unwrap();
        report.timed(Duration::from_secs(2), Duration::from_secs(1));
        let text = report.to_text("");
        for expected in [
            "orders.csv    30          22",
            "PlaceOrder     2         1              1        0       0",
            "all            3         1              1        1       0",
            "order_not_placed         1",
            "  orders.csv:2 order_id is empty",
            "  and 2 more: --unreadable FILE writes all of them",
            "3 commands in 2 s (3 commands/s)",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(report.has_faults() && !report.has_failures());
    }

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
