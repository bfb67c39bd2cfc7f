//! What Postgres holds about each projection: generations, places, owners, stops, pauses, and what is
//! parked.
//!
//! Deliberately absent: what follows from it (`judge`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use event_log::log::Bounds;
use kernel::Timestamp;
use position::{Offset, Partition, Position};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::{GenerationReport, Owner, PartitionReport, Paused, Report, ReportError, failed};
use crate::error::RuntimeError;
use crate::run::measure;
use crate::store::checkpoint;
use crate::store::compare::Comparison;

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

pub(super) fn generation_of(row: &PgRow) -> Result<GenerationReport, sqlx::Error> {
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
pub(super) async fn places(
    connection: &mut PgConnection,
    bounds: &BTreeMap<Partition, Bounds>,
    reports: &mut BTreeMap<String, Report>,
) -> Result<(), RuntimeError> {
    let leases = "SELECT l.projection, l.generation, l.partition, m.member::text, m.name, l.trouble \
                  FROM annals.lease AS l JOIN annals.member AS m USING (member)";
    let leases: Vec<(String, i32, i32, String, String, Option<String>)> = sqlx::query_as(leases)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let stops = "SELECT projection, generation, partition, \"offset\", reason, stopped_at \
                 FROM annals.stop ORDER BY partition";
    let stops = sqlx::query(stops)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let idles = idle(connection).await?;
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
                let idle = |i: &&Idle| of(&i.0, i.1) && i.2.is_none_or(|p| p == number);
                let idle = idles.iter().filter(idle).map(|i| i.3);
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
                    trouble: owner.and_then(|lease| lease.5.clone()),
                    rate_per_second: None,
                    seconds_left: None,
                    stopped: None,
                    idle_seconds: idle.min_by(f64::total_cmp),
                });
            }
        }
    }
    for row in &stops {
        stopped(row, reports).map_err(failed())?;
    }
    Ok(())
}

/// Since when a generation does not move, in seconds: its projection, its number, the partition
/// (absent: all of them).
type Idle = (String, i32, Option<i32>, f64);

/// How long ago the generations moved. One that was just made, or that an operator just let go on,
/// has not been able to move for longer.
async fn idle(connection: &mut PgConnection) -> Result<Vec<Idle>, RuntimeError> {
    let select = "SELECT projection, generation, partition, \
                      extract(epoch FROM clock_timestamp() - at)::float8 \
                  FROM (SELECT projection, generation, partition, updated_at AS at \
                            FROM annals.checkpoint \
                        UNION ALL SELECT projection, generation, NULL, created_at \
                            FROM annals.generation \
                        UNION ALL SELECT g.projection, g.generation, NULL, max(c.at) \
                            FROM annals.generation AS g JOIN annals.control AS c USING (projection) \
                            WHERE c.action = 'resume' GROUP BY 1, 2) AS moved";
    sqlx::query_as(select)
        .fetch_all(connection)
        .await
        .map_err(failed())
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
                tenant: None,
                stream: None,
                event_type: None,
                reason,
                remedy: format!("remove the cause, then run: annals projections resume {name}"),
            });
        }
    }
    Ok(())
}

/// Fills in what operators did, and what is parked.
pub(super) async fn operators(
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
    // The streams of each, and the one that was parked last.
    let parked = "SELECT DISTINCT ON (p.projection) p.projection, \
                      count(*) OVER (PARTITION BY p.projection) AS streams, p.parked_at, \
                      p.partition, p.\"offset\", p.tenant, p.stream, p.event_type, p.reason \
                  FROM annals.parked AS p JOIN annals.generation AS g USING (projection, generation) \
                  WHERE g.state = 'live' ORDER BY p.projection, p.parked_at DESC";
    let parked = sqlx::query(parked).fetch_all(connection).await;
    for row in &parked.map_err(failed())? {
        let name: String = row.try_get("projection").map_err(failed())?;
        if let Some(report) = reports.get_mut(&name) {
            report.parked_streams = row.try_get("streams").map_err(failed())?;
            let error = parked_last(row, &name).map_err(failed())?;
            report.error.get_or_insert(error);
        }
    }
    Ok(())
}

fn parked_last(row: &PgRow, name: &str) -> Result<ReportError, sqlx::Error> {
    let (partition, offset): (i32, i64) = (row.try_get("partition")?, row.try_get("offset")?);
    let stream: String = row.try_get("stream")?;
    Ok(ReportError {
        at: moment(row, "parked_at")?,
        partition: Some(Partition(partition.cast_unsigned())),
        offset: Some(Offset(offset.cast_unsigned())),
        tenant: row.try_get("tenant")?,
        event_type: row.try_get("event_type")?,
        reason: row.try_get("reason")?,
        remedy: format!("remove the cause, then run: annals parked retry {name} {stream}"),
        stream: Some(stream),
    })
}
