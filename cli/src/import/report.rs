//! What an import found and what became of it.
//!
//! Invariant: every row that was read is in the report, and every command that was sent under
//! exactly one outcome. Deliberately absent: printing.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use engine::token::PositionToken;
use serde::Serialize;

use crate::client::{CommandLine, Outcome, Said};

/// How many unreadable rows a report for people shows.
const UNREADABLE_SHOWN_MAX: usize = 20;

/// How many rows of a file were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileRows {
    /// The file's name.
    pub file: String,
    /// Rows, the header not counted.
    pub rows: u64,
}

/// A row that cannot be read, or of which no command can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file's name.
    pub file: String,
    /// The line in which the row begins, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
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

/// An import and its outcome.
#[derive(Clone, Debug, Default, Serialize)]
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
    /// Rows that cannot be read, by file, then line.
    pub unreadable: Vec<Unreadable>,
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
        let of_type = self.commands.entry(line.command.to_string()).or_default();
        for counts in [of_type, &mut self.total] {
            counts.sent += 1;
            *match &said.outcome {
                Outcome::Accepted => &mut counts.accepted,
                Outcome::NothingToDo => &mut counts.nothing_to_do,
                Outcome::Refused { .. } => &mut counts.refused,
                Outcome::Failed { .. } => &mut counts.failed,
            } += 1;
        }
        match said.outcome {
            Outcome::Accepted | Outcome::NothingToDo => {}
            Outcome::Refused { code } => *self.refused.entry(code).or_default() += 1,
            Outcome::Failed { code } => *self.failed.entry(code).or_default() += 1,
        }
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

    /// Whether some commands were refused or some rows could not be read.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.total.refused > 0 || !self.unreadable.is_empty()
    }

    /// Whether the server failed with some commands.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.total.failed > 0
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
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
        if !self.unreadable.is_empty() {
            parts.push(self.unreadable_list());
        }
        parts.push(format!(
            "{} commands in {} s ({} commands/s)",
            self.total.sent, self.seconds, self.commands_per_second
        ));
        parts.join("\n\n")
    }

    fn files_table(&self) -> String {
        let rows = self.files.iter().map(|file| {
            let is_of_file = |row: &&Unreadable| row.file == file.file;
            let unreadable = self.unreadable.iter().filter(is_of_file).count();
            vec![
                file.file.clone(),
                file.rows.to_string(),
                unreadable.to_string(),
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

    fn unreadable_list(&self) -> String {
        let shown = self.unreadable.iter().take(UNREADABLE_SHOWN_MAX);
        let mut lines = vec!["cannot be read:".to_owned()];
        lines.extend(shown.map(|row| format!("  {}:{} {}", row.file, row.line, row.reason)));
        let hidden = self.unreadable.len().saturating_sub(UNREADABLE_SHOWN_MAX);
        if hidden > 0 {
            lines.push(format!(
                "  and {hidden} more: --unreadable FILE writes all of them"
            ));
        }
        lines.join("\n")
    }
}

/// Aligned columns without lines, numbers to the right.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
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
            }],
            ..Report::default()
        };
        let line = |command: &'static str| CommandLine {
            command: command.into(),
            json: String::new(),
        };
        let code = "order_not_placed".to_owned();
        for (command, outcome) in [
            ("PlaceOrder", Outcome::Accepted),
            ("PlaceOrder", Outcome::NothingToDo),
            ("ShipOrder", Outcome::Refused { code }),
        ] {
            let position = None;
            report.count(&line(command), Said { outcome, position });
        }
        report.unreadable.extend((2..24).map(|line| Unreadable {
            file: "orders.csv".to_owned(),
            line,
            reason: "order_id is empty".to_owned(),
        }));
        report.timed(Duration::from_secs(2), Duration::from_secs(1));
        let text = report.to_text();
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
}
