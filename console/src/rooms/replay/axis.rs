//! The time axis of a replay, drawn by the server as SVG: how densely the commits lie, where the replay
//! stands, and up to where it goes.
//!
//! Invariant: what it draws also stands in its text. Deliberately absent: styles, which the style sheet
//! has, and scripts.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use crate::format;

/// The size of the field; the page stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 80.0;

/// The axis from one moment to another, with a bar for each part between them.
// A drawing does not show the digits that are lost.
#[allow(clippy::cast_precision_loss)]
pub(super) fn axis(
    ends: (&str, &str),
    commits: &[u64],
    stands: Option<&str>,
    until: Option<&str>,
) -> Markup {
    let most = commits.iter().copied().max().unwrap_or(0).max(1);
    let width = WIDTH / commits.len().max(1) as f64;
    let total: u64 = commits.iter().sum();
    let place = |moment: Option<&str>| place(ends, moment?);
    let (stands_at, until_at) = (place(stands), place(until));
    let mut label = format!(
        "{} from {} to {}",
        format::counted(total, "commit"),
        ends.0,
        ends.1
    );
    for (moment, is) in [(stands, "the replay stands at"), (until, "it goes up to")] {
        if let Some(moment) = moment {
            label = format!("{label}; {is} {moment}");
        }
    }
    html! {
        figure.plot.axis {
            figcaption {
                span.title { "Commits over time" }
                ul.legend {
                    li.line0 { span.name { (format::counted(total, "commit")) } }
                    @if stands_at.is_some() { li.line1 { span.name { "stands here" } } }
                    @if until_at.is_some() { li.line3 { span.name { "until" } } }
                }
            }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label=(label) {
                line.grid x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT)
                    vector-effect="non-scaling-stroke" {}
                @for (index, count) in commits.iter().enumerate().filter(|(_, count)| **count > 0) {
                    // One commit can be seen beside a million.
                    @let height = (HEIGHT * *count as f64 / most as f64).max(2.0);
                    @let x = width * index as f64;
                    @let is_done = stands_at.is_some_and(|at| x < at);
                    rect.done[is_done] x={ (format!("{x:.2}")) } y={ (format!("{:.2}", HEIGHT - height)) }
                        width={ (format!("{:.2}", width * 0.86)) } height={ (format!("{height:.2}")) } {}
                }
                @if let Some(x) = until_at { (mark("until", x)) }
                @if let Some(x) = stands_at { (mark("stands", x)) }
            }
            div.times { span { (format::moment(ends.0)) } span { (format::moment(ends.1)) } }
        }
    }
}

fn mark(class: &str, x: f64) -> Markup {
    let x = format!("{x:.2}");
    html! {
        line class=(class) x1=(x) x2=(x) y1="-4" y2=(HEIGHT) vector-effect="non-scaling-stroke" {}
    }
}

/// Where a moment lies; at an end if it is beyond it.
// A drawing does not show the digits that are lost.
#[allow(clippy::cast_precision_loss)]
fn place((from, to): (&str, &str), moment: &str) -> Option<f64> {
    let micros = |text: &str| {
        let time: DateTime<Utc> = text.parse().ok()?;
        Some(time.timestamp_micros())
    };
    let (from, to, at) = (micros(from)?, micros(to)?, micros(moment)?);
    let whole = (to - from).max(1) as f64;
    Some(WIDTH * ((at - from) as f64 / whole).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_lies_between_the_ends_and_the_axis_says_so_in_words() {
        let ends = ("2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z");
        assert_eq!(place(ends, "2026-01-02T00:00:00Z"), Some(150.0));
        assert_eq!(place(ends, "2025-01-02T00:00:00Z"), Some(0.0));
        assert_eq!(place(ends, "2027-01-02T00:00:00Z"), Some(600.0));
        assert_eq!(place(ends, "soon"), None);
        let at = Some("2026-01-02T00:00:00Z");
        let drawn = axis(ends, &[1, 0, 1_000_000], at, None).into_string();
        assert_eq!(drawn.matches("<rect").count(), 2, "{drawn}");
        assert!(drawn.contains("1,000,001 commits from"), "{drawn}");
        assert!(drawn.contains("stands at 2026-01-02"), "{drawn}");
        assert!(!drawn.contains("until"), "{drawn}");
    }
}
