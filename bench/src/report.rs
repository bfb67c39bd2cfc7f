//! The output of a run: a table, a JSON file, a table in Markdown for README, and a page with
//! plots.
//!
//! Deliberately absent: whether a goal is met; the figures decide that.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Goal, Spread, Unit};
use crate::machine::Circumstances;

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub circumstances: Circumstances,
    pub figures: Vec<Figure>,
}

impl Report {
    /// The report that an earlier run left in a file; absent if there is no file.
    ///
    /// # Errors
    /// If the file exists, but cannot be read as a report.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text)
    }

    fn earlier<'a>(&self, figure: &Figure, before: Option<&'a Self>) -> Option<&'a Figure> {
        let is_it = |earlier: &&Figure| {
            let (now, then) = (&figure.subject, &earlier.subject);
            (&now.row, &now.work, &now.against) == (&then.row, &then.work, &then.against)
        };
        before?.figures.iter().find(is_it)
    }

    /// The figures as a table, each beside its value in an earlier run.
    #[must_use]
    pub fn table(&self, before: Option<&Self>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "", "work", "ours", "against", "theirs", "compared", "goal", "", "before",
        ]);
        for figure in &self.figures {
            let subject = &figure.subject;
            let earlier = self.earlier(figure, before).and_then(Figure::compared);
            table.add_row([
                subject.row.clone(),
                subject.work.clone(),
                middle_of(figure, figure.ours()),
                subject.against.clone(),
                middle_of(figure, figure.theirs()),
                compared(figure, figure.compared()),
                goal(figure),
                verdict(figure).to_owned(),
                earlier.map_or_else(String::new, |spread| middle(figure, spread.median)),
            ]);
        }
        for column in [2, 4, 5, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// The figures as a table in Markdown, in the order of the rows: first those with a goal, then
    /// those that are only shown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut figures: Vec<&Figure> = self.figures.iter().collect();
        figures.sort_by_key(|figure| {
            let row = figure.subject.row.trim_start_matches('B');
            let number: String = row.chars().take_while(char::is_ascii_digit).collect();
            let number: u32 = number.parse().unwrap_or_default();
            (figure.subject.goal == Goal::Shown, number, row)
        });
        let mut table = String::from(
            "| | work | ours | against | theirs | compared | goal | |\n|---|---|---|---|---|---|---|---|\n",
        );
        for figure in figures {
            let subject = &figure.subject;
            let (ours, theirs) = (
                middle_of(figure, figure.ours()),
                middle_of(figure, figure.theirs()),
            );
            let _ = writeln!(
                table,
                "| {} | {} | {ours} | {} | {theirs} | {} | {} | {} |",
                subject.row,
                subject.work,
                subject.against,
                compared(figure, figure.compared()),
                goal(figure),
                match figure.is_met() {
                    Some(false) => "**missed**",
                    _ => verdict(figure),
                },
            );
        }
        table
    }

    /// The figures as a page, with a pair of dots for each round.
    #[must_use]
    pub fn page(&self) -> String {
        let circumstances = &self.circumstances;
        let mut page = String::from(HEAD);
        let _ = write!(
            page,
            "<p>{}, commit {}, {} processors, load {:.2}, fdatasync {:.0}/s, seed {}{}<br>{}</p>",
            circumstances.began,
            escaped(&circumstances.commit),
            circumstances.processors,
            circumstances.load,
            circumstances.fdatasync_per_second,
            circumstances.seed,
            if circumstances.quick { ", quick" } else { "" },
            escaped(&circumstances.versions.join(", ")),
        );
        for figure in &self.figures {
            let subject = &figure.subject;
            let _ = write!(
                page,
                "<section class=\"{}\"><h2>{} {}</h2><p>against {}: {} (goal {}) {}</p>{}</section>",
                if figure.is_met() == Some(false) {
                    "missed"
                } else {
                    "met"
                },
                subject.row,
                escaped(&subject.work),
                escaped(&subject.against),
                compared(figure, figure.compared()),
                goal(figure),
                verdict(figure),
                plot(figure),
            );
        }
        page.push_str("</body></html>\n");
        page
    }
}

/// The median of one side's values.
fn middle_of(figure: &Figure, side: Option<Spread>) -> String {
    side.map_or_else(String::new, |side| figure.subject.unit.show(side.median))
}

fn middle(figure: &Figure, median: f64) -> String {
    match figure.subject.goal {
        Goal::AboveAtMost(_) => figure.subject.unit.show_difference(median),
        Goal::AtMost(_) => figure.subject.unit.show(median),
        Goal::ShareAtMost(_) => format!("{median:.4} ×"),
        Goal::ShareAtLeast(_) | Goal::Shown => format!("{median:.2} ×"),
    }
}

/// The median, with the minimum and the maximum of the rounds.
fn compared(figure: &Figure, spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| {
        let (least, most) = (spread.least, spread.most);
        // A small share needs more than two digits.
        let digits = match figure.subject.goal {
            Goal::ShareAtMost(_) => 4,
            _ => 2,
        };
        let middle = middle(figure, spread.median);
        format!("{middle} ({least:.digits$} … {most:.digits$})")
    })
}

fn goal(figure: &Figure) -> String {
    match figure.subject.goal {
        Goal::ShareAtLeast(least) => format!("≥ {least:.2} ×"),
        Goal::ShareAtMost(most) => format!("≤ {most:.2} ×"),
        Goal::AboveAtMost(most) => {
            format!("≤ {}", figure.subject.unit.show_difference(most))
        }
        Goal::AtMost(most) => format!("≤ {}", figure.subject.unit.show(most)),
        Goal::Shown => String::new(),
    }
}

fn verdict(figure: &Figure) -> &'static str {
    match figure.is_met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>Annals, measured</title><style>\
body{font:15px/1.4 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h2{font-size:1.05rem;margin:1.6rem 0 .2rem}p{margin:.2rem 0}\
.missed h2::after{content:\" — missed\";color:#b00020}\
text{font:12px system-ui,sans-serif}.ours{fill:#0b6}.theirs{fill:#889}\
line{stroke:#ccc}</style></head><body><h1>Annals, measured</h1>\
<p>Each dot is a round: green ours, grey what it is held against in the same round.</p>";

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 70.0;

/// Our values and the other side's values of each round, on one axis that begins at zero.
fn plot(figure: &Figure) -> String {
    let values = figure
        .rounds
        .iter()
        .flat_map(|pair| [pair.ours, pair.theirs]);
    let most = values.fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| MARGIN + value / most * (WIDTH - 2.0 * MARGIN);
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"74\" role=\"img\">");
    let sides = [(18.0, "ours"), (42.0, "theirs")];
    let sides = sides
        .into_iter()
        .take(1 + usize::from(figure.theirs().is_some()));
    for (y, class) in sides {
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{class}</text><line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
            y + 4.0,
            WIDTH - MARGIN
        );
        for pair in &figure.rounds {
            let value = if class == "ours" {
                pair.ours
            } else {
                pair.theirs
            };
            let _ = write!(
                svg,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y}\" r=\"4\"/>",
                x(value)
            );
        }
    }
    let unit: Unit = figure.subject.unit;
    let _ = write!(
        svg,
        "<text x=\"{MARGIN}\" y=\"68\">0</text><text x=\"{}\" y=\"68\" text-anchor=\"end\">{}</text></svg>",
        WIDTH - MARGIN,
        unit.show(most)
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
