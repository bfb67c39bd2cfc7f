//! `annals projections list`: how the read models are doing.
//!
//! On a terminal, a bar shows how far each one is that lacks records; otherwise there are plain
//! columns, or JSON. Deliberately absent: how it is measured (`projector`).

use std::io::{IsTerminal as _, stdout};
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use projector::{GenerationReport, Report};
use serde::Serialize;

use super::{ListArgs, require};
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_log};
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The time between two looks, from which rates are computed.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// The length of a bar.
const BAR_CELLS: u8 = 20;

/// A generation of a projection, summed over all partitions.
#[derive(Serialize)]
struct Row {
    projection: String,
    version: Option<i32>,
    generation: Option<i32>,
    state: String,
    position: u64,
    gap: Option<u64>,
    lag_seconds: Option<f64>,
    rate_per_second: Option<f64>,
    seconds_left: Option<f64>,
    parked: i64,
    processes: usize,
    error: Option<String>,
    next: Option<String>,
}

const COLUMNS: [&str; 13] = [
    "projection",
    "version",
    "generation",
    "state",
    "position",
    "gap",
    "lag_seconds",
    "rate_per_second",
    "seconds_left",
    "parked",
    "processes",
    "error",
    "next",
];

/// A generation of a projection in one partition.
#[derive(Serialize)]
struct PlaceRow {
    projection: String,
    version: i32,
    generation: i32,
    state: String,
    partition: u32,
    position: u64,
    offset: Option<u64>,
    head: Option<u64>,
    gap: Option<u64>,
    lag_seconds: Option<f64>,
    rate_per_second: Option<f64>,
    seconds_left: Option<f64>,
    process: Option<String>,
    trouble: Option<String>,
    stopped: Option<String>,
}

const PLACE_COLUMNS: [&str; 15] = [
    "projection",
    "version",
    "generation",
    "state",
    "partition",
    "position",
    "offset",
    "head",
    "gap",
    "lag_seconds",
    "rate_per_second",
    "seconds_left",
    "process",
    "trouble",
    "stopped",
];

pub(super) async fn list(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: &ListArgs,
) -> Result<Exit, Failure> {
    require(postgres).await?;
    let log = match open_log(settings).await {
        Ok(log) => Some(log),
        Err(error) => {
            talk!("warning: gap and lag are not shown, because the log cannot be read: {error}");
            None
        }
    };
    let log = log.as_ref().map(|log| &**log as &dyn EventLog);
    let look = async || projector::report(log, postgres.url(), &domain.projections).await;
    let mut reports = look().await?;
    if reports.iter().any(lacks_records) {
        // A second look tells how fast they take up what they lack.
        let (earlier, began) = (reports, Instant::now());
        tokio::time::sleep(BETWEEN_LOOKS).await;
        reports = look().await?;
        for report in &mut reports {
            if let Some(earlier) = earlier.iter().find(|other| other.name == report.name) {
                report.observe(earlier, began.elapsed().as_secs_f64());
            }
        }
    }
    if reports.iter().all(|report| report.generations.is_empty()) {
        talk!("no projector has written to this database yet");
    }
    for report in &reports {
        if let Some(next) = &report.next {
            talk!("{}: {next}", report.name);
        }
    }
    if args.partitions {
        let rows: Vec<PlaceRow> = reports.iter().flat_map(places).collect();
        output::rows(settings.output, &PLACE_COLUMNS, &rows)?;
    } else if settings.output == OutputFormat::Table && stdout().is_terminal() {
        let rows = reports.iter().flat_map(|report| {
            let fractions = report.generations.iter().map(fraction).chain([None]);
            summed(report).into_iter().zip(fractions).map(shown)
        });
        output::rows(settings.output, &SHOWN_COLUMNS, &rows.collect::<Vec<_>>())?;
    } else {
        let rows: Vec<Row> = reports.iter().flat_map(summed).collect();
        output::rows(settings.output, &COLUMNS, &rows)?;
    }
    Ok(Exit::Done)
}

fn places(report: &Report) -> Vec<PlaceRow> {
    let mut rows = Vec::new();
    for generation in &report.generations {
        rows.extend(generation.partitions.iter().map(|place| PlaceRow {
            projection: report.name.clone(),
            version: generation.version,
            generation: generation.number,
            state: generation.state.clone(),
            partition: place.partition.0,
            position: place.position.0,
            offset: place.offset.map(|offset| offset.0),
            head: place.head.map(|head| head.0),
            gap: place.gap,
            lag_seconds: place.lag_seconds,
            rate_per_second: place.rate_per_second,
            seconds_left: place.seconds_left,
            process: place.owner.as_ref().map(|owner| owner.name.clone()),
            trouble: place.trouble.clone(),
            stopped: place.stopped.clone(),
        }));
    }
    rows
}

/// One row for each generation; one for a projection that has none.
fn summed(report: &Report) -> Vec<Row> {
    let error = report.error.as_ref();
    let error = error.map(|error| format!("{}; {}", error.reason, error.remedy));
    if report.generations.is_empty() {
        return vec![Row {
            projection: report.name.clone(),
            version: None,
            generation: None,
            state: report.state.as_str().to_owned(),
            position: 0,
            gap: None,
            lag_seconds: None,
            rate_per_second: None,
            seconds_left: None,
            parked: 0,
            processes: 0,
            error,
            next: None,
        }];
    }
    let row = |generation: &GenerationReport| {
        let places = &generation.partitions;
        let is_live = generation.state == "live";
        let lags = places.iter().filter_map(|place| place.lag_seconds);
        let owners = places.iter().filter_map(|place| place.owner.as_ref());
        let mut owners: Vec<&str> = owners.map(|owner| owner.member.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        Row {
            projection: report.name.clone(),
            version: Some(generation.version),
            generation: Some(generation.number),
            state: match is_live {
                true => report.state.as_str().to_owned(),
                false => generation.state.clone(),
            },
            position: places.iter().map(|place| place.position.0).sum(),
            gap: generation.gap(),
            lag_seconds: lags.max_by(f64::total_cmp),
            rate_per_second: generation.rate_per_second(),
            seconds_left: generation.seconds_left(),
            parked: if is_live { report.parked_streams } else { 0 },
            processes: owners.len(),
            error: error.clone().filter(|_| is_live),
            next: report.next.clone().filter(|_| is_live),
        }
    };
    report.generations.iter().map(row).collect()
}

/// Whether a generation has something to take up.
fn lacks_records(report: &Report) -> bool {
    let mut gaps = report.generations.iter().filter_map(GenerationReport::gap);
    gaps.any(|gap| gap > 0)
}

/// Which part of the log a generation has taken up; absent if the log was not read.
fn fraction(generation: &GenerationReport) -> Option<f64> {
    let (read, gap) = generation
        .partitions
        .iter()
        .try_fold((0, 0), |sum, place| {
            let read = place.offset.map_or(0, |offset| offset.0 + 1);
            Some((sum.0 + read, sum.1 + place.gap?))
        })?;
    // The figure is for display: the precision that a float loses does not matter.
    #[allow(clippy::cast_precision_loss)]
    let fraction = read as f64 / (read + gap).max(1) as f64;
    Some(fraction)
}

/// A generation of a projection, for people at a terminal.
#[derive(Serialize)]
struct ShownRow {
    projection: String,
    version: Option<i32>,
    state: String,
    progress: String,
    rate: String,
    left: String,
    gap: Option<u64>,
    lag: String,
    parked: i64,
    error: Option<String>,
}

const SHOWN_COLUMNS: [&str; 10] = [
    "projection",
    "version",
    "state",
    "progress",
    "rate",
    "left",
    "gap",
    "lag",
    "parked",
    "error",
];

fn shown((row, fraction): (Row, Option<f64>)) -> ShownRow {
    let is_behind = row.gap.is_some_and(|gap| gap > 0);
    let bar = fraction.filter(|_| is_behind || row.state == "building");
    let rate = row.rate_per_second.filter(|_| is_behind);
    ShownRow {
        progress: bar.map(bar_of).unwrap_or_default(),
        rate: rate.map(|rate| format!("{rate:.0}/s")).unwrap_or_default(),
        left: row
            .seconds_left
            .filter(|_| is_behind)
            .map(time)
            .unwrap_or_default(),
        lag: row
            .lag_seconds
            .filter(|lag| *lag > 0.0)
            .map(time)
            .unwrap_or_default(),
        projection: row.projection,
        version: row.version,
        state: row.state,
        gap: row.gap,
        parked: row.parked,
        error: row.error,
    }
}

/// A bar, and the part in per cent. 100 % is shown only when nothing is missing.
fn bar_of(fraction: f64) -> String {
    let full = f64::from(BAR_CELLS) * fraction.clamp(0.0, 1.0);
    let full = (0..BAR_CELLS)
        .filter(|cell| f64::from(*cell) + 1.0 <= full)
        .count();
    let empty = BAR_CELLS as usize - full;
    let percent = (fraction * 100.0).floor();
    format!("{}{} {percent:.0} %", "█".repeat(full), "░".repeat(empty))
}

/// A time for people: two units at most.
fn time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.ceil())
        .unwrap_or(Duration::MAX)
        .as_secs();
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, gap: u64) -> Row {
        Row {
            projection: "daily_sales".to_owned(),
            version: Some(2),
            generation: Some(3),
            state: state.to_owned(),
            position: 1_500,
            gap: Some(gap),
            lag_seconds: (gap > 0).then_some(75.0),
            rate_per_second: Some(1_234.5),
            seconds_left: Some(3_700.0),
            parked: 0,
            processes: 1,
            error: None,
            next: None,
        }
    }

    #[test]
    fn a_terminal_shows_a_bar_the_rate_and_the_time_that_is_left() {
        let building = shown((row("building", 2_500), Some(0.375)));
        assert_eq!(building.progress, "███████░░░░░░░░░░░░░ 37 %");
        assert_eq!((&*building.rate, &*building.left), ("1234/s", "1 h 1 min"));
        assert_eq!(building.lag, "1 min 15 s");
        let current = shown((row("live", 0), Some(1.0)));
        assert_eq!(current.progress + &current.rate + &current.left, "");
        // Nearly all is not all.
        assert!(bar_of(0.999).ends_with("░ 99 %"));
        assert!(bar_of(1.0).ends_with("█ 100 %"));
    }
}
