//! The report of an import for people.
//!
//! Deliberately absent: counting (`import::report`).

use comfy_table::{CellAlignment, Table, presets};
use import::Listing;
use import::report::{Counts, Report};
use kernel::escape;

/// How many rows of a list are shown.
const ROWS_SHOWN_MAX: usize = 20;

/// The report for people. `remedy` says what to do about rows that were changed.
pub(super) fn text(report: &Report, remedy: &str) -> String {
    let mut parts = Vec::new();
    if !report.files.is_empty() {
        parts.push(files_table(report));
    }
    if report.total.sent > 0 {
        parts.push(commands_table(report));
    }
    let codes = [("refused", &report.refused), ("failed", &report.failed)];
    for (title, counts) in codes.into_iter().filter(|(_, counts)| !counts.is_empty()) {
        let rows = counts
            .iter()
            .map(|(code, count)| vec![code.clone(), count.to_string()]);
        parts.push(table(&[title, "commands"], rows));
    }
    if report.unreadable_count > 0 {
        let more = "--unreadable FILE writes all of them";
        parts.push(list("cannot be read or sent:", &report.unreadable, more));
    }
    if report.has_changes_left() {
        let title = format!("changed since they were imported:\n  {remedy}");
        parts.push(list(&title, &report.changed, "only the first are kept"));
    }
    if report.corrections.sent > 0 {
        let Counts { sent, refused, .. } = report.corrections;
        let accepted = report.corrections.accepted + report.corrections.nothing_to_do;
        parts.push(format!(
            "{sent} commands sent again as corrections: {accepted} accepted, {refused} refused"
        ));
    }
    parts.push(format!(
        "{} commands in {} s ({} commands/s)",
        report.total.sent, report.seconds, report.commands_per_second
    ));
    parts.join("\n\n")
}

fn files_table(report: &Report) -> String {
    let rows = report.files.iter().map(|file| {
        vec![
            file.file.clone(),
            file.rows.to_string(),
            report.unreadable.count_of(&file.file).to_string(),
        ]
    });
    table(&["file", "rows", "unreadable"], rows)
}

fn commands_table(report: &Report) -> String {
    let all = ("all".to_owned(), &report.total);
    let by_type = report.commands.iter().map(|(name, counts)| {
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

/// Aligned columns without border lines; numbers are right-aligned.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows.map(|cells| {
        let shown = cells.iter().map(|cell| escape::shown(cell).into_owned());
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
    use std::time::Duration;

    use client::{CommandLine, Outcome, Said};
    use import::Unreadable;
    use import::report::FileRows;

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
        let shown = text(&report, "");
        for expected in [
            "orders.csv    30          22",
            "PlaceOrder     2         1              1        0       0",
            "all            3         1              1        1       0",
            "order_not_placed         1",
            "  orders.csv:2 order_id is empty",
            "  and 2 more: --unreadable FILE writes all of them",
            "3 commands in 2 s (3 commands/s)",
        ] {
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
        assert!(report.has_faults() && !report.has_failures());
    }
}
