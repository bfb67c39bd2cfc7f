//! What was measured, the other side's values, and the goals.
//!
//! Invariant: a value of ours is compared only with the other side's value of the same round,
//! because machines are shared and noisy. Deliberately absent: how anything is measured (`rows`),
//! and how it is shown (`report`).

use serde::{Deserialize, Serialize};

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A rate per second; more is better.
    PerSecond,
    /// Milliseconds; less is better.
    Milliseconds,
    /// Megabytes of memory (2^20 bytes); less is better.
    Megabytes,
    /// Bytes of disk for an event; less is better.
    BytesAnEvent,
}

impl Unit {
    /// A value with its unit.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 1_000.0 => format!("{:.1} k/s", value / 1_000.0),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::BytesAnEvent => format!("{value:.0} B"),
        }
    }

    /// How much one value is above another, with its sign and its unit.
    #[must_use]
    pub fn show_difference(self, value: f64) -> String {
        let sign = if value < 0.0 { '-' } else { '+' };
        format!("{sign}{}", self.show(value.abs()))
    }
}

/// The goal of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// At least this share of the other side's value.
    ShareAtLeast(f64),
    /// At most this share of the other side's value.
    ShareAtMost(f64),
    /// At most this much above the other side's value, in the unit.
    AboveAtMost(f64),
    /// At most this value, in the unit; there is no other side.
    AtMost(f64),
    /// No goal: the value is only shown.
    Shown,
}

/// The subject of one kind of measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The row in the list of goals, such as `B1`.
    pub row: String,
    /// The work that is measured.
    pub work: String,
    /// The other side: what does the same work for comparison.
    pub against: String,
    pub unit: Unit,
    pub goal: Goal,
}

/// Our value and the other side's, of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Ours.
    pub ours: f64,
    /// The other side's; 0 if there is none.
    pub theirs: f64,
}

/// A subject with the values of each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub subject: Subject,
    /// One pair for each round.
    pub rounds: Vec<Pair>,
}

/// The minimum, the median and the maximum of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The minimum.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// The spread of these values; absent if there are no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self {
            least: values[0],
            median,
            most: values[values.len() - 1],
        })
    }
}

impl Figure {
    /// Our values.
    #[must_use]
    pub fn ours(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|pair| pair.ours))
    }

    /// The other side's values, if there is another side.
    #[must_use]
    pub fn theirs(&self) -> Option<Spread> {
        if matches!(self.subject.goal, Goal::AtMost(_)) {
            return None;
        }
        Spread::of(self.rounds.iter().map(|pair| pair.theirs))
    }

    /// The value that is compared with the goal: our share of the other side's value, our
    /// difference from it, or our value.
    #[must_use]
    pub fn compared(&self) -> Option<Spread> {
        let compare = |pair: &Pair| match self.subject.goal {
            Goal::AboveAtMost(_) => pair.ours - pair.theirs,
            Goal::AtMost(_) => pair.ours,
            Goal::ShareAtLeast(_) | Goal::ShareAtMost(_) | Goal::Shown => pair.ours / pair.theirs,
        };
        Spread::of(self.rounds.iter().map(compare))
    }

    /// Whether the median reaches the goal; absent without a goal.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let median = self.compared()?.median;
        match self.subject.goal {
            Goal::ShareAtLeast(least) => Some(median >= least),
            Goal::ShareAtMost(most) | Goal::AboveAtMost(most) | Goal::AtMost(most) => {
                Some(median <= most)
            }
            Goal::Shown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(goal: Goal, rounds: &[(f64, f64)]) -> Figure {
        Figure {
            subject: Subject {
                row: "B0".to_owned(),
                work: "work".to_owned(),
                against: "a raw loop".to_owned(),
                unit: Unit::PerSecond,
                goal,
            },
            rounds: rounds
                .iter()
                .map(|(ours, theirs)| Pair {
                    ours: *ours,
                    theirs: *theirs,
                })
                .collect(),
        }
    }

    #[test]
    fn each_round_is_compared_with_itself_and_the_median_counts() {
        // In the second round the machine was ten times slower for both sides.
        let rounds = [(60.0, 100.0), (7.0, 10.0), (50.0, 100.0)];
        let figure = figure(Goal::ShareAtLeast(0.6), &rounds);
        let compared = figure.compared().unwrap();
        assert_eq!(
            (compared.least, compared.median, compared.most),
            (0.5, 0.6, 0.7)
        );
        assert_eq!(figure.is_met(), Some(true));
    }

    #[test]
    fn a_latency_meets_its_goal_up_to_the_limit_above_the_raw_value() {
        let rounds = [(1.25, 1.0), (2.5, 2.0), (9.0, 2.0)];
        assert_eq!(figure(Goal::AboveAtMost(0.5), &rounds).is_met(), Some(true));
        assert_eq!(
            figure(Goal::AboveAtMost(0.4), &rounds).is_met(),
            Some(false)
        );
        assert_eq!(figure(Goal::AtMost(2.4), &rounds).is_met(), Some(false));
        assert_eq!(figure(Goal::AtMost(2.5), &rounds).is_met(), Some(true));
        assert_eq!(figure(Goal::Shown, &rounds).is_met(), None);
        assert_eq!(figure(Goal::AboveAtMost(0.4), &[]).is_met(), None);
    }
}
