//! How every projection is doing, for people and tools.
//!
//! Stuck is not behind: a projection that is behind takes up records; one that is stuck has some
//! to take up and does not move. Deliberately absent: any change of data, and how it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use event_log::commit::Commit;
use event_log::log::{Bounds, EventLog};
use kernel::Timestamp;
use position::{Offset, Partition, Position};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::declare::model::models_of;
use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::projector::connect_options;
use crate::run::{measure, next};
use crate::store::compare::Comparison;
use crate::store::generation::rule_of;
use crate::store::{checkpoint, held};

/// A projection that is so far behind, in seconds, is shown as behind.
const BEHIND_FROM_SECONDS: f64 = 5.0;
/// A projection that has something to take up and has not moved for so long, in seconds, is stuck.
const STUCK_FROM_SECONDS: f64 = 10.0;

/// The state of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It is current.
    Live,
    /// It takes up records, and lacks some.
    Behind,
    /// It has something to take up, and does not move.
    Stuck,
    /// It goes on, without some streams.
    Parked,
    /// An operator paused it.
    Paused,
    /// It stopped in some partition.
    Stopped,
    /// Its rows were made by another rule than this program's.
    Outdated,
    /// No process has made its tables yet.
    Absent,
    /// Postgres has it, and this program does not.
    Unknown,
}

impl ReportState {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Behind => "behind",
            Self::Stuck => "stuck",
            Self::Parked => "parked",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Outdated => "outdated",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

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
    /// Why it does not move, if it does not.
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

/// Why a projection does not move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportError {
    /// Since when, if that is known.
    pub at: Option<Timestamp>,
    /// In which partition; absent: in all.
    pub partition: Option<Partition>,
    /// At which record, if one record is the cause.
    pub offset: Option<Offset>,
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
    /// The process that takes it up.
    pub owner: Option<Owner>,
    /// Why it stopped here.
    pub stopped: Option<String>,
    /// How long ago it moved, in seconds; absent: it never did.
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
    /// Adds what two observations tell: the rate, and when the projection is current.
    pub fn observe(&mut self, earlier: &Self, seconds: f64) {
        let position = |report: &Self| -> Option<f64> {
            let generation = report.front()?;
            let positions = generation.partitions.iter().map(|p| p.offset);
            let read = positions.map(|offset| offset.map_or(0, |offset| offset.0 + 1));
            Some(float(read.sum()))
        };
        let same = |a: Option<&GenerationReport>, b: Option<&GenerationReport>| {
            a.map(|g| g.number) == b.map(|g| g.number)
        };
        if let (Some(now), Some(then)) = (position(self), position(earlier))
            && same(self.front(), earlier.front())
            && seconds > 0.0
        {
            let rate = ((now - then) / seconds).max(0.0);
            self.rate_per_second = Some(rate);
            let gaps = self
                .front()
                .map(|g| g.partitions.iter().filter_map(|p| p.gap));
            let gap = float(gaps.map_or(0, Iterator::sum));
            self.seconds_left = (rate > 0.0).then_some(gap / rate);
        }
    }

    /// The generation whose progress matters: the one that is being built, else the live one.
    #[must_use]
    pub fn front(&self) -> Option<&GenerationReport> {
        let of = |state: &str| self.generations.iter().find(|g| g.state == state);
        of("building").or_else(|| of("live"))
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
    let mut bounds: BTreeMap<Partition, Bounds> = BTreeMap::new();
    if let Some(log) = log {
        if let Ok(Some(named)) = held::NamedLog::of(log).await {
            held::require(&mut connection, &named).await?;
        }
        for partition in (0..log.partition_count()).map(Partition) {
            bounds.insert(partition, log.bounds(partition).await?);
        }
    }
    let reports = report_of(&mut connection, log, &bounds, projections).await;
    let _ = connection.close().await;
    reports
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

fn moment(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<DateTime<Utc>> = row.try_get(column)?;
    let at = at.map(Timestamp::from_utc).transpose();
    at.map_err(|_| sqlx::Error::Decode("a moment of the years 1 to 9999".into()))
}

fn comparison(row: &PgRow, column: &str) -> Result<Option<Comparison>, sqlx::Error> {
    let text: Option<String> = row.try_get(column)?;
    let read = |text: String| serde_json::from_str(&text);
    let found = text.map(read).transpose();
    found.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn generation_of(row: &PgRow) -> Result<GenerationReport, sqlx::Error> {
    let created_at = moment(row, "created_at")?;
    Ok(GenerationReport {
        number: row.try_get("generation")?,
        version: row.try_get("version")?,
        state: row.try_get("state")?,
        created_at: created_at.ok_or_else(|| sqlx::Error::ColumnNotFound("created_at".into()))?,
        keep_until: moment(row, "keep_until")?,
        comparison: comparison(row, "comparison")?,
        verified_at: moment(row, "verified_at")?,
        verified: comparison(row, "verified")?,
        partitions: Vec::new(),
    })
}

/// Fills in the partitions of each generation.
async fn places(
    connection: &mut PgConnection,
    bounds: &BTreeMap<Partition, Bounds>,
    reports: &mut BTreeMap<String, Report>,
) -> Result<(), RuntimeError> {
    let leases = "SELECT l.projection, l.generation, l.partition, m.member::text, m.name \
                  FROM annals.lease AS l JOIN annals.member AS m USING (member)";
    let leases: Vec<(String, i32, i32, String, String)> = sqlx::query_as(leases)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let stops = "SELECT projection, generation, partition, \"offset\", reason, stopped_at \
                 FROM annals.stop ORDER BY partition";
    let stops = sqlx::query(stops)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let idle = "SELECT projection, generation, partition, \
                    extract(epoch FROM clock_timestamp() - updated_at)::float8 \
                FROM annals.checkpoint";
    let idle: Vec<(String, i32, i32, f64)> = sqlx::query_as(idle)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for (name, report) in reports.iter_mut() {
        for generation in &mut report.generations {
            let of =
                |projection: &str, number: i32| projection == name && number == generation.number;
            let checkpoints = checkpoint::load(connection, name, generation.number).await?;
            let mut partitions: Vec<Partition> = bounds.keys().copied().collect();
            partitions.extend(checkpoints.keys());
            partitions.sort_unstable();
            partitions.dedup();
            for partition in partitions {
                let at = checkpoints.get(&partition);
                let ends = bounds.get(&partition).copied();
                let number = partition.0.cast_signed();
                let owner = leases.iter().find(|l| of(&l.0, l.1) && l.2 == number);
                let idle = idle.iter().find(|i| of(&i.0, i.1) && i.2 == number);
                generation.partitions.push(PartitionReport {
                    partition,
                    position: at.map_or(Position(0), |c| c.position),
                    offset: at.map(|c| c.offset),
                    head: ends.map(|bounds| bounds.end),
                    gap: ends.map(|bounds| measure::gap(bounds, at)),
                    lag_seconds: ends.map(|bounds| measure::lag_seconds(bounds, at)),
                    owner: owner.map(|lease| Owner {
                        member: lease.3.clone(),
                        name: lease.4.clone(),
                    }),
                    stopped: None,
                    idle_seconds: idle.map(|idle| idle.3),
                });
            }
        }
    }
    for row in &stops {
        stopped(row, reports).map_err(failed())?;
    }
    Ok(())
}

fn stopped(row: &PgRow, reports: &mut BTreeMap<String, Report>) -> Result<(), sqlx::Error> {
    let name: String = row.try_get("projection")?;
    let number: i32 = row.try_get("generation")?;
    let partition = Partition(row.try_get::<i32, _>("partition")?.cast_unsigned());
    let offset: Option<i64> = row.try_get("offset")?;
    let reason: String = row.try_get("reason")?;
    let at = moment(row, "stopped_at")?;
    let Some(report) = reports.get_mut(&name) else {
        return Ok(());
    };
    let mut of = report.generations.iter_mut();
    if let Some(generation) = of.find(|g| g.number == number) {
        let mut of = generation.partitions.iter_mut();
        if let Some(place) = of.find(|place| place.partition == partition) {
            place.stopped = Some(reason.clone());
        }
        if generation.state != "retired" {
            report.error.get_or_insert(ReportError {
                at,
                partition: Some(partition),
                offset: offset.map(|offset| Offset(offset.cast_unsigned())),
                reason,
                remedy: format!("remove the cause, then run: annals projections resume {name}"),
            });
        }
    }
    Ok(())
}

/// Fills in what operators did, and what is parked.
async fn operators(
    connection: &mut PgConnection,
    reports: &mut BTreeMap<String, Report>,
) -> Result<(), RuntimeError> {
    let pauses = "SELECT projection, paused_at, paused_by, reason FROM annals.pause";
    let pauses = sqlx::query(pauses)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for row in &pauses {
        let name: String = row.try_get("projection").map_err(failed())?;
        let paused = moment(row, "paused_at").map_err(failed())?.map(|at| {
            Ok::<_, sqlx::Error>(Paused {
                at,
                by: row.try_get("paused_by")?,
                reason: row.try_get("reason")?,
            })
        });
        if let Some(report) = reports.get_mut(&name) {
            report.paused = paused.transpose().map_err(failed())?;
        }
    }
    let parked = "SELECT p.projection, count(*) FROM annals.parked AS p \
                  JOIN annals.generation AS g USING (projection, generation) \
                  WHERE g.state = 'live' GROUP BY 1";
    let parked: Vec<(String, i64)> = sqlx::query_as(parked)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    for (name, count) in parked {
        if let Some(report) = reports.get_mut(&name) {
            report.parked_streams = count;
        }
    }
    Ok(())
}

/// Decides what state a projection is in.
fn judge(report: &mut Report, declared: Option<&Arc<dyn Projection>>, live_rule: Option<&str>) {
    if let (Some(declared), None) = (declared, live_rule) {
        report.tables = models_of(&**declared)
            .iter()
            .map(|model| model.name.to_owned())
            .collect();
        return;
    }
    let Some(live) = report.generations.iter().find(|g| g.state == "live") else {
        return;
    };
    let places = &live.partitions;
    report.gap = places.iter().map(|place| place.gap).sum();
    let lags = places.iter().filter_map(|place| place.lag_seconds);
    report.lag_seconds = lags.max_by(f64::total_cmp);
    let Some(declared) = declared else {
        return;
    };
    let lacks = |place: &&PartitionReport| place.gap.is_some_and(|gap| gap > 0);
    let is_idle = |place: &PartitionReport| {
        let waits = place
            .lag_seconds
            .is_some_and(|lag| lag >= STUCK_FROM_SECONDS);
        waits
            && place
                .idle_seconds
                .is_none_or(|idle| idle >= STUCK_FROM_SECONDS)
    };
    let is_stuck = places.iter().filter(lacks).any(is_idle);
    let is_behind = report
        .lag_seconds
        .is_some_and(|lag| lag >= BEHIND_FROM_SECONDS);
    let is_stopped = places.iter().any(|place| place.stopped.is_some());
    report.state = if live_rule != Some(rule_of(&**declared).as_str()) {
        ReportState::Outdated
    } else if report.paused.is_some() {
        ReportState::Paused
    } else if is_stopped {
        ReportState::Stopped
    } else if is_stuck {
        ReportState::Stuck
    } else if report.parked_streams > 0 {
        ReportState::Parked
    } else if is_behind {
        ReportState::Behind
    } else {
        ReportState::Live
    };
    if is_stuck && report.error.is_none() {
        let owned = places.iter().any(|place| place.owner.is_some());
        report.error = Some(ReportError {
            at: None,
            partition: None,
            offset: None,
            reason: match owned {
                true => "it has records to take up and does not move".to_owned(),
                false => "no process takes it up".to_owned(),
            },
            remedy: match owned {
                true => "see the log of the process that holds it, and what holds locks in \
                         Postgres (pg_locks)"
                    .to_owned(),
                false => "start a process with the role projector".to_owned(),
            },
        });
    }
}
