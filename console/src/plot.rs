//! Plots of the last minutes, drawn by the server as SVG.
//!
//! Invariant: what a plot shows also stands in its text: the newest and the largest value of each line.
//! Deliberately absent: styles, which the style sheet has, and scripts.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use crate::format;
use crate::samples::{Point, WINDOW};

/// The size of the field that lines are drawn on; the page stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;
/// A longer pause between two points is a gap in the line.
const GAP: Duration = Duration::from_secs(15);

/// One line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

impl Series {
    pub(crate) fn new(name: &str, points: Vec<Point>) -> Self {
        Self {
            name: name.to_owned(),
            points,
        }
    }

    fn newest(&self) -> Option<f64> {
        self.points.last().and_then(|(_, value)| *value)
    }

    fn largest(&self) -> Option<f64> {
        let values = self.points.iter().filter_map(|(_, value)| *value);
        values.fold(None, |largest, value| {
            Some(largest.map_or(value, |largest: f64| largest.max(value)))
        })
    }
}

/// What a plot measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Number,
    Seconds,
    Bytes,
}

impl Unit {
    /// A value in this unit.
    fn shown(self, value: f64) -> String {
        match self {
            Self::Number => format::measured(value),
            Self::Seconds => format::seconds(value),
            Self::Bytes => format::bytes(value),
        }
    }

    /// The next value that a scale may end with; half of it is a round value, too.
    fn round_up(self, value: f64) -> f64 {
        match self {
            Self::Bytes => 2_f64.powf(value.max(1.0).log2().ceil()),
            Self::Seconds if value > 60.0 => {
                let steps = [
                    2.0, 4.0, 10.0, 20.0, 60.0, 120.0, 240.0, 480.0, 1_440.0, 2_880.0,
                ];
                let steps = steps.map(|minutes| minutes * 60.0);
                let fitting = steps.into_iter().find(|step| *step >= value);
                fitting.unwrap_or_else(|| round_up(value / 86_400.0) * 86_400.0)
            }
            Self::Number | Self::Seconds => round_up(value),
        }
    }
}

/// How far back a plot reaches: its seconds, and what stands below its beginning and its middle.
const REACHES: [(f64, &str, &str); 4] = [
    (60.0, "1 min ago", "30 s"),
    (120.0, "2 min ago", "1 min"),
    (300.0, "5 min ago", "2 min 30 s"),
    (WINDOW.as_secs() as f64, "10 min ago", "5 min"),
];

/// The shortest reach that shows every point.
fn reach(series: &[Series]) -> (f64, &'static str, &'static str) {
    let points = series.iter().flat_map(|line| &line.points);
    let oldest = points.map(|(ago, _)| ago.as_secs_f64()).fold(0.0, f64::max);
    let fitting = REACHES.into_iter().find(|(seconds, ..)| *seconds >= oldest);
    fitting.unwrap_or(REACHES[REACHES.len() - 1])
}

/// A plot of some lines over the last minutes.
pub(crate) fn plot(title: &str, series: &[Series], unit: Unit) -> Markup {
    let shown = |value| unit.shown(value);
    let largest = series
        .iter()
        .filter_map(Series::largest)
        .fold(0.0, f64::max);
    let top = unit.round_up(largest);
    let (seconds, oldest, middle) = reach(series);
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
    let says: Vec<String> = series
        .iter()
        .map(|line| {
            let (now, most) = (value(line.newest()), value(line.largest()));
            format!("{}: now {now}, at most {most}", line.name)
        })
        .collect();
    let label = format!("{title}, from {oldest}. {}", says.join("; "));
    html! {
        figure.plot {
            figcaption {
                span.title { (title) }
                ul.legend {
                    @for (index, line) in series.iter().enumerate() {
                        li class={ "line" (index) } {
                            span.name { (line.name) } " " span.value { (value(line.newest())) }
                        }
                    }
                }
            }
            div.field {
                div.scale aria-hidden="true" {
                    span { (shown(top)) } span { (shown(top / 2.0)) } span { "0" }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label=(label) {
                    @for height in [0.0, 0.5, 1.0] {
                        line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * height) y2=(HEIGHT * height)
                            vector-effect="non-scaling-stroke" {}
                    }
                    @for (index, line) in series.iter().enumerate() {
                        @let (path, area) = paths(&line.points, seconds, top);
                        @if index == 0 { path.area d=(area) {} }
                        path class={ "line line" (index) } d=(path)
                            vector-effect="non-scaling-stroke" {}
                    }
                }
                div.times aria-hidden="true" { span { (oldest) } span { (middle) } span { "now" } }
            }
        }
    }
}

/// The line through the points, and the area below it.
fn paths(points: &[Point], seconds: f64, top: f64) -> (String, String) {
    let (mut line, mut area) = (String::new(), String::new());
    let mut before: Option<(Duration, f64)> = None;
    let mut last = None;
    for (ago, value) in points {
        let x = WIDTH * (1.0 - ago.as_secs_f64() / seconds);
        let Some(value) = value.filter(|_| x >= 0.0) else {
            continue;
        };
        let y = HEIGHT * (1.0 - (value / top).clamp(0.0, 1.0));
        let continues = before.is_some_and(|(then, _)| then.saturating_sub(*ago) <= GAP);
        // Writing to a text cannot fail.
        if continues {
            let _ = write!(line, "L{x:.1} {y:.1}");
            let _ = write!(area, "L{x:.1} {y:.1}");
        } else {
            if let Some((_, x)) = before {
                let _ = write!(area, "L{x:.1} {HEIGHT}Z");
            }
            // A single point is a dot: a line to itself, with round ends.
            let _ = write!(line, "M{x:.1} {y:.1}h0");
            let _ = write!(area, "M{x:.1} {HEIGHT}L{x:.1} {y:.1}");
        }
        before = Some((*ago, x));
        last = Some(x);
    }
    if let Some(x) = last {
        let _ = write!(area, "L{x:.1} {HEIGHT}Z");
    }
    (line, area)
}

/// The next number that a scale may end with: 1, 2 or 5, times a power of ten.
fn round_up(number: f64) -> f64 {
    if number <= 0.0 || !number.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let fitting = steps.into_iter().find(|step| *step >= number * 0.999_999);
    fitting.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_with_a_round_number() {
        for (number, top) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (17.0, 20.0),
            (5_001.0, 10_000.0),
        ] {
            assert!((round_up(number) - top).abs() < 1e-9, "{number}");
        }
        assert_eq!(Unit::Seconds.round_up(1_003.0), 1_200.0);
        assert_eq!(Unit::Bytes.round_up(90e6), f64::from(128 << 20));
    }

    #[test]
    fn a_plot_says_in_words_what_it_draws_and_leaves_gaps_open() {
        let at = Duration::from_secs;
        let points = vec![
            (at(500), Some(4.0)),
            (at(498), Some(8.0)),
            (at(400), None),
            (at(2), Some(2.0)),
        ];
        let drawn = plot("Commands", &[Series::new("accepted", points)], Unit::Number);
        let drawn = drawn.into_string();
        assert!(drawn.contains("accepted: now 2, at most 8"), "{drawn}");
        assert_eq!(
            drawn.matches('M').count(),
            4,
            "two lines and two areas: {drawn}"
        );
        let none = plot("Commands", &[Series::new("a", vec![])], Unit::Number).into_string();
        assert!(none.contains("now –"), "{none}");
    }
}
