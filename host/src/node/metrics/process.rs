//! What the system reports about this process, under the names that Prometheus' own clients use.
//!
//! Deliberately absent: systems without `/proc`, where nothing is shown.

use std::fmt::Write as _;

use super::catalogue::CATALOGUE;

/// Adds the figures of the process in text format, if the system has them.
pub(super) fn render(text: &mut String) {
    for (name, value) in figures().unwrap_or_default() {
        if let Some(metric) = CATALOGUE.iter().find(|metric| metric.name == name) {
            let (meaning, kind) = (metric.meaning, metric.kind.name());
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "# HELP {name} {meaning}\n# TYPE {name} {kind}\n{name} {value}\n\n"
            );
        }
    }
}

// These figures are for people: the precision that a float loses on a large count does not matter.
#[allow(clippy::cast_precision_loss)]
fn figures() -> Option<Vec<(&'static str, f64)>> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name stands in brackets and may contain any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // proc(5) numbers the fields from 1; the state, right after the name, is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let mut figures = vec![
        (
            "process_cpu_seconds_total",
            (field(14)? + field(15)?) / ticks,
        ),
        ("process_threads", field(20)?),
        ("process_virtual_memory_bytes", field(23)?),
        (
            "process_resident_memory_bytes",
            field(24)? * rustix::param::page_size() as f64,
        ),
    ];
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "));
    if let Some(booted) = booted.and_then(|at| at.trim().parse::<f64>().ok()) {
        figures.push(("process_start_time_seconds", booted + field(22)? / ticks));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        figures.push(("process_open_fds", open.count() as f64));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    figures.push((
        "process_max_fds",
        limit.map_or(f64::INFINITY, |max| max as f64),
    ));
    figures.sort_unstable_by_key(|(name, _)| *name);
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_reports_on_this_process() {
        let figures = figures().unwrap();
        assert_eq!(figures.len(), 7, "{figures:?}");
        for (name, value) in figures {
            let may_be_zero = name == "process_cpu_seconds_total";
            assert!(value > 0.0 || may_be_zero, "{name} {value}");
            assert!(CATALOGUE.iter().any(|metric| metric.name == name), "{name}");
        }
    }
}
