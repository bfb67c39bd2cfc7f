//! How every projection is doing, for people and tools.
//!
//! Stuck is not behind: a projection that is behind takes up records; one that is stuck has some
//! to take up and does not move. Deliberately absent: any change of data, and how it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use event_log::commit::Commit;
use event_log::log::{Bounds, EventLog};
use kernel::Timestamp;
use position::{Offset, Partition, Position};
use serde::Serialize;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::next;
use crate::run::projector::connect_options;
use crate::store::compare::Comparison;
use crate::store::held;

pub(crate) mod judge;
mod stored;

pub use judge::ReportState;
use judge::{judge, name_event};
use stored::{generation_of, operators, places};

/// How one projection is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// The version of its live rule.
    pub version: Option<i32>,
    /// Its state.
    pub state: ReportState,
    /// Its read models.
    pub tables: Vec<String>,
    /// The number of records that its live rows lack; absent if the log was not given.
    pub gap: Option<u64>,
    /// How long the oldest record that its rows lack has been in the log, in seconds; 0 if none is
    /// missing.
    pub lag_seconds: Option<f64>,
    /// How many records it takes up in a second; absent if it was not observed.
    pub rate_per_second: Option<f64>,
    /// In how many seconds it is current, at that rate.
    pub seconds_left: Option<f64>,
    /// How many streams are parked.
    pub parked_streams: i64,
    /// Whether an operator paused it.
    pub paused: Option<Paused>,
    /// Why it does not move, if it does not, or what it could not take up last.
    pub error: Option<ReportError>,
    /// What an operator can do next, if versions stand beside each other.
    pub next: Option<String>,
    /// Its generations.
    pub generations: Vec<GenerationReport>,
}

/// Who paused a projection, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paused {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Why a projection does not move, or what it could not take up last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportError {
    /// Since when, if that is known.
    pub at: Option<Timestamp>,
    /// In which partition; absent: in all.
    pub partition: Option<Partition>,
    /// At which record, if one record is the cause.
    pub offset: Option<Offset>,
    /// The tenant of the record's stream, if that is known.
    pub tenant: Option<String>,
    /// The record's stream, if that is known.
    pub stream: Option<String>,
    /// The type of the event that is the cause, if that is known.
    pub event_type: Option<String>,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// How one generation is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerationReport {
    /// Its number.
    pub number: i32,
    /// The version of its rule.
    pub version: i32,
    /// What it is there for: `building`, `ready`, `live` or `retired`.
    pub state: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it is dropped, if it is retired.
    pub keep_until: Option<Timestamp>,
    /// How it compared with the generation that was live when it was built.
    pub comparison: Option<Comparison>,
    /// When it was last compared with the log, and what was found.
    pub verified_at: Option<Timestamp>,
    /// What that comparison found.
    pub verified: Option<Comparison>,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
}

/// How far a generation has come in a partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionReport {
    /// The partition.
    pub partition: Partition,
    /// The number of accepted records that it has taken up.
    pub position: Position,
    /// The offset of the last record read; absent: none.
    pub offset: Option<Offset>,
    /// The offset at the end of the log; absent if the log was not given.
    pub head: Option<Offset>,
    /// The number of records that it lacks.
    pub gap: Option<u64>,
    /// How long the first record that it lacks has been in the log, in seconds; 0 if none is
    /// missing.
    pub lag_seconds: Option<f64>,
    /// How many records it takes up in a second; absent if it was not observed.
    pub rate_per_second: Option<f64>,
    /// In how many seconds it is current, at that rate.
    pub seconds_left: Option<f64>,
    /// The process that takes it up.
    pub owner: Option<Owner>,
    /// Why that process cannot go on now; it tries again by itself.
    pub trouble: Option<String>,
    /// Why it stopped here.
    pub stopped: Option<String>,
    /// How long ago it moved, was made, or was let go on after a pause or a stop, in seconds.
    #[serde(skip)]
    idle_seconds: Option<f64>,
}

/// A process that takes up a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its id.
    pub member: String,
    /// Its machine and process id.
    pub name: String,
}

impl Report {
    /// Adds what two observations tell: the rates, and when all is current.
    pub fn observe(&mut self, earlier: &Self, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        for generation in &mut self.generations {
            let mut others = earlier.generations.iter();
            let Some(then) = others.find(|other| other.number == generation.number) else {
                continue;
            };
            for place in &mut generation.partitions {
                let mut others = then.partitions.iter();
                let Some(then) = others.find(|other| other.partition == place.partition) else {
                    continue;
                };
                let read = |offset: Option<Offset>| offset.map_or(0, |offset| offset.0 + 1);
                let records = read(place.offset).saturating_sub(read(then.offset));
                let rate = float(records) / seconds;
                place.rate_per_second = Some(rate);
                place.seconds_left = place.gap.and_then(|gap| left(gap, rate));
            }
        }
        let Some(front) = self.front() else {
            return;
        };
        let (rate, left) = (front.rate_per_second(), front.seconds_left());
        (self.rate_per_second, self.seconds_left) = (rate, left);
    }

    /// The generation whose progress matters: the one that is being built, else the live one.
    #[must_use]
    pub fn front(&self) -> Option<&GenerationReport> {
        let of = |state: &str| self.generations.iter().find(|g| g.state == state);
        of("building").or_else(|| of("live"))
    }
}

impl GenerationReport {
    /// How many records it takes up in a second, in all partitions; absent if it was not observed.
    #[must_use]
    pub fn rate_per_second(&self) -> Option<f64> {
        self.partitions
            .iter()
            .map(|place| place.rate_per_second)
            .sum()
    }

    /// In how many seconds it is current, at that rate.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f64> {
        left(self.gap()?, self.rate_per_second()?)
    }

    /// The number of records that it lacks, in all partitions.
    #[must_use]
    pub fn gap(&self) -> Option<u64> {
        self.partitions.iter().map(|place| place.gap).sum()
    }
}

/// In how many seconds so many records are taken up; absent if none is.
fn left(gap: u64, rate_per_second: f64) -> Option<f64> {
    match gap {
        0 => Some(0.0),
        _ => (rate_per_second > 0.0).then(|| float(gap) / rate_per_second),
    }
}

// The figures are for display: the precision that a float loses on a large count does not matter.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// How every projection of this program, and every one that Postgres has, is doing.
///
/// # Errors
/// `Postgres`, `Log`, `OtherLog`.
pub async fn report(
    log: Option<&dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
) -> Result<Vec<Report>, RuntimeError> {
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    let reports = report_over(&mut connection, log, projections).await;
    let _ = connection.close().await;
    reports
}

/// The same over a connection.
pub(crate) async fn report_over(
    connection: &mut PgConnection,
    log: Option<&dyn EventLog>,
    projections: &[Arc<dyn Projection>],
) -> Result<Vec<Report>, RuntimeError> {
    let mut bounds: BTreeMap<Partition, Bounds> = BTreeMap::new();
    if let Some(log) = log {
        if let Ok(Some(named)) = held::NamedLog::of(log).await {
            held::require(connection, &named).await?;
        }
        for partition in (0..log.partition_count()).map(Partition) {
            bounds.insert(partition, log.bounds(partition).await?);
        }
    }
    report_of(connection, log, &bounds, projections).await
}

/// How long the first record that a generation lacks in a partition has been in the log, in
/// seconds. The time of the last record taken up does not tell that: the log may have been quiet.
async fn missing_for(
    log: &dyn EventLog,
    bounds: Bounds,
    place: &PartitionReport,
) -> Result<Option<f64>, RuntimeError> {
    let next = place.offset.map_or(bounds.first, |offset| offset.next());
    let chunk = log.read(place.partition, next.max(bounds.first)).await?;
    let recorded = chunk.records.iter().find_map(|record| {
        let (key, value) = (record.key.as_deref()?, record.value.as_deref()?);
        Some(Commit::read(key, value).ok()?.recorded_at)
    });
    let Some(recorded) = recorded else {
        // Nothing that counts is missing.
        return Ok(None);
    };
    let micros = u64::try_from(recorded.micros()).unwrap_or(0);
    let recorded = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
    let since = SystemTime::now().duration_since(recorded);
    Ok(Some(since.unwrap_or_default().as_secs_f64()))
}

fn failed() -> impl FnOnce(sqlx::Error) -> RuntimeError {
    RuntimeError::postgres("read how the projections are doing")
}

async fn report_of(
    connection: &mut PgConnection,
    log: Option<&dyn EventLog>,
    bounds: &BTreeMap<Partition, Bounds>,
    projections: &[Arc<dyn Projection>],
) -> Result<Vec<Report>, RuntimeError> {
    let mut reports: BTreeMap<String, Report> = BTreeMap::new();
    for projection in projections {
        let report = empty(projection.name(), ReportState::Absent);
        reports.insert(projection.name().to_owned(), report);
    }
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    let select = "SELECT projection, generation, version, state, rule, created_at, keep_until, \
                      comparison::text, verified_at, verified::text, views \
                  FROM annals.generation ORDER BY projection, generation";
    let rows = sqlx::query(select)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for row in &rows {
        let name: String = row.try_get("projection").map_err(failed())?;
        let generation = generation_of(row).map_err(failed())?;
        let report = reports.entry(name.clone());
        let report = report.or_insert_with(|| empty(&name, ReportState::Unknown));
        if generation.state == "live" {
            report.version = Some(generation.version);
            report.tables = row.try_get("views").map_err(failed())?;
            rules.insert(name, row.try_get("rule").map_err(failed())?);
        }
        report.generations.push(generation);
    }
    places(connection, bounds, &mut reports).await?;
    if let Some(log) = log {
        let generations = reports.values_mut().flat_map(|r| &mut r.generations);
        let live = generations.filter(|generation| generation.state == "live");
        for place in live.flat_map(|generation| &mut generation.partitions) {
            if let Some(&bounds) = bounds.get(&place.partition)
                && place.gap.is_some_and(|gap| gap > 0)
            {
                place.lag_seconds = missing_for(log, bounds, place).await?.or(Some(0.0));
            }
        }
    }
    operators(connection, &mut reports).await?;
    next::add(connection, projections, &mut reports).await?;
    for (name, report) in &mut reports {
        let declared = projections.iter().find(|p| p.name() == name);
        judge(report, declared, rules.get(name).map(String::as_str));
        if let (Some(log), Some(error)) = (log, &mut report.error) {
            name_event(log, error).await;
        }
    }
    Ok(reports.into_values().collect())
}

fn empty(name: &str, state: ReportState) -> Report {
    Report {
        name: name.to_owned(),
        version: None,
        state,
        tables: Vec::new(),
        gap: None,
        lag_seconds: None,
        rate_per_second: None,
        seconds_left: None,
        parked_streams: 0,
        paused: None,
        error: None,
        next: None,
        generations: Vec::new(),
    }
}
