//! The table that a run prints.
//!
//! Deliberately absent: any decision.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::fault::Fault;
use super::run::{MEMORY_MAX_MB, Outcome};

/// How many violations are printed.
const VIOLATIONS_SHOWN_MAX: usize = 30;
/// How many ends of nodes are printed.
const ENDS_SHOWN_MAX: usize = 10;

/// The value below which a share of the values lies; `None` if there are no values.
#[must_use]
pub fn percentile(values: &[Duration], hundredths: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The median, the 99th percentile and the maximum.
#[must_use]
pub fn spread(values: &[Duration]) -> String {
    let shown = |hundredths| match percentile(values, hundredths) {
        None => "-".to_owned(),
        Some(value) => format!("{:.3} s", value.as_secs_f64()),
    };
    format!(
        "p50 {}, p99 {}, max {} ({} times)",
        shown(50),
        shown(99),
        shown(100),
        values.len()
    )
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = Default::default();
        writeln!(
            f,
            "{:<20} {:>8} {:>6} {:>10} {:>9}",
            "fault", "injected", "busy", "answered", "unknown"
        )?;
        let mut injected = 0;
        for fault in Fault::ALL {
            if !self.options.faults.contains(fault) {
                continue;
            }
            let counts = self.faults.get(fault).unwrap_or(&none);
            injected += counts.made;
            write!(
                f,
                "{fault:<20} {:>8} {:>6} {:>10} {:>9}",
                counts.made, counts.busy, counts.answered, counts.unknown
            )?;
            if let Some(why) = &counts.impossible {
                write!(f, "  not possible here: {why}")?;
            }
            writeln!(f)?;
        }
        let counted = &self.counted;
        writeln!(
            f,
            "{:<20} {injected:>8} {:>6} {:>10} {:>9}",
            "all", "", counted.answered, counted.unknown
        )?;
        writeln!(
            f,
            "\nseed {}, {:.0} s, {} nodes, {} partitions, {} faults at once",
            self.options.seed,
            self.took.as_secs_f64(),
            self.options.nodes,
            self.options.partitions,
            self.options.at_once
        )?;
        writeln!(
            f,
            "commands: {} accepted, {} refused, {} failed, {} never answered; sendings: {} unknown, \
             {} turned away",
            counted.accepted,
            counted.refused,
            counted.failed,
            counted.open(),
            counted.unknown,
            counted.turned_away
        )?;
        if let Some(report) = &self.report {
            let summary = &report.summary;
            let orphans = summary.orphans.iter();
            let orphans = orphans.fold(String::new(), |mut text, (reason, count)| {
                let _ = write!(text, ", {count} {reason}");
                text
            });
            writeln!(
                f,
                "checked: {} commands against {} records ({} claims{orphans}); {} rows",
                summary.commands, summary.records, summary.claims, self.rows
            )?;
        }
        writeln!(
            f,
            "recovery (at most {} s): {}",
            self.options.recovery_max.as_secs(),
            spread(&self.recoveries)
        )?;
        let peaks: Vec<String> = self
            .memory_peaks_kb
            .iter()
            .map(|(node, peak)| format!("{node} {} MB", peak / 1024))
            .collect();
        writeln!(
            f,
            "memory peaks (at most {MEMORY_MAX_MB} MB): {}",
            peaks.join(", ")
        )?;
        if !self.ends.is_empty() {
            let count = self.ends.len();
            writeln!(f, "nodes ended by themselves or badly {count} times")?;
        }
        for (node, end) in self.ends.iter().take(ENDS_SHOWN_MAX) {
            let last = end.last_words.lines().last().unwrap_or_default();
            writeln!(f, "  {node} {end}: {last}")?;
        }
        writeln!(f, "violations: {}", self.violations.len())?;
        for violation in self.violations.iter().take(VIOLATIONS_SHOWN_MAX) {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(percentile(&values, 50), Some(Duration::from_secs(50)));
        assert_eq!(percentile(&values, 99), Some(Duration::from_secs(99)));
        assert_eq!(percentile(&values, 100), Some(Duration::from_secs(100)));
        assert_eq!(percentile(&values[..1], 50), Some(Duration::from_secs(100)));
        assert_eq!(percentile(&[], 50), None);
    }
}
