//! A summary of a log, and the checkpoints that others hold of it.
//!
//! Deliberately absent: verifying the log (`event_log::verify`).

use std::path::Path;

use clap::ValueEnum;
use engine::owner::{StateStore as _, Store};
use event_log::chain::{Chain, Verdict};
use event_log::claim::Claim;
use event_log::log::{EventLog, LogError};
use event_log::verify::HeldCheckpoint;
use kernel::Timestamp;
use position::{LogId, Offset, Partition};
use projector::read_checkpoint;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::exit::{Exit, Failure};
use crate::node::Postgres;
use crate::settings::Settings;

/// Who has read a log before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whom {
    /// The checkpoints of the read models, in Postgres.
    Postgres,
    /// The checkpoints of the owners on this machine, in the data folder.
    Local,
}

/// The checkpoints that these readers hold of a log.
pub(super) async fn checkpoints(
    settings: &Settings,
    log: &dyn EventLog,
    whom: &[Whom],
) -> Result<Vec<HeldCheckpoint>, Failure> {
    let mut known = Vec::new();
    if whom.contains(&Whom::Local) {
        known.extend(of_owners(&settings.state_folder(), log.partition_count())?);
    }
    if whom.contains(&Whom::Postgres) {
        let postgres = Postgres::open(settings).await?;
        let found = of_read_models(postgres.url()).await;
        let shown = postgres.shown();
        postgres.close().await;
        known.extend(found.map_err(|error| {
            let what = format!("read the checkpoints in {shown}");
            Failure::of(Exit::Unavailable, &error).while_trying(&what)
        })?);
    }
    Ok(known)
}

/// The memory of the local store, in bytes: only one place per partition is read.
const STORE_BYTES: u64 = 2 << 20;

fn of_owners(folder: &Path, partition_count: u32) -> Result<Vec<HeldCheckpoint>, Failure> {
    let shown = folder.display();
    if !folder.is_dir() {
        let message = format!("there are no local checkpoints in {shown}");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let failed = |error| {
        let what = format!("read the local checkpoints in {shown}");
        let failure = Failure::of(Exit::Failed, &error).while_trying(&what);
        failure.hint("first stop the process that uses them")
    };
    let store = Store::open(folder, STORE_BYTES, partition_count).map_err(failed)?;
    let mut known = Vec::new();
    for partition in (0..partition_count).map(Partition) {
        let mut store = store.partition(partition);
        if let Some(saved) = store.load().map_err(failed)? {
            known.push(HeldCheckpoint {
                source: format!("the owner's checkpoint in {shown}"),
                partition,
                checkpoint: saved.place.checkpoint,
            });
        }
    }
    Ok(known)
}

async fn of_read_models(url: &str) -> Result<Vec<HeldCheckpoint>, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let select = "SELECT * FROM annals.checkpoint ORDER BY projection, generation, partition";
    let rows = sqlx::query(select).fetch_all(&mut connection).await?;
    let known = rows.iter().map(known_of).collect();
    connection.close().await?;
    known
}

fn known_of(row: &PgRow) -> Result<HeldCheckpoint, sqlx::Error> {
    let projection: String = row.try_get("projection")?;
    let generation: i32 = row.try_get("generation")?;
    let (partition, checkpoint) = read_checkpoint(row)?;
    Ok(HeldCheckpoint {
        source: format!("projection {projection}, generation {generation}"),
        partition,
        checkpoint,
    })
}

/// A summary of a log, made without reading all of it.
#[derive(Debug, Serialize)]
pub(super) struct Info {
    pub(super) log: String,
    pub(super) log_id: Option<LogId>,
    pub(super) partitions: Vec<PartitionInfo>,
}

/// A summary of a partition, from its bounds, its first claim and its last record.
#[derive(Debug, Serialize)]
pub(super) struct PartitionInfo {
    partition: Partition,
    first_offset: Offset,
    end_offset: Offset,
    claimed_by: Option<String>,
    window_hours: Option<f64>,
    last_append: Option<String>,
    copied_from: Option<String>,
    #[serde(skip)]
    log_id: Option<LogId>,
}

/// Looks at every partition.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn info(log: &dyn EventLog) -> Result<Info, LogError> {
    let mut partitions = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        partitions.push(partition_info(log, partition).await?);
    }
    Ok(Info {
        log: log.address().to_string(),
        log_id: partitions.iter().find_map(|partition| partition.log_id),
        partitions,
    })
}

async fn partition_info(
    log: &dyn EventLog,
    partition: Partition,
) -> Result<PartitionInfo, LogError> {
    let bounds = log.bounds(partition).await?;
    let mut info = PartitionInfo {
        partition,
        first_offset: bounds.first,
        end_offset: bounds.end,
        claimed_by: None,
        window_hours: None,
        last_append: None,
        copied_from: None,
        log_id: None,
    };
    let Some(last) = bounds
        .end
        .0
        .checked_sub(1)
        .filter(|_| bounds.end > bounds.first)
    else {
        return Ok(info);
    };
    let mut chain = Chain::genesis(partition);
    for record in log.read(partition, bounds.first).await?.records {
        if let Ok(Verdict::Claim(headers, _)) = chain.judge(&record) {
            info.log_id = Some(headers.log);
            if let Some(claim) = record.value.as_deref().and_then(Claim::read) {
                info.window_hours = Some(claim.idempotency_window_ms as f64 / 3_600_000.0);
                info.copied_from = claim.copied.map(|copied| copied.from);
                info.claimed_by = Some(claim.node);
            }
            break;
        }
    }
    let last = log
        .read_at(partition, &[Offset(last)])
        .await?
        .pop()
        .flatten();
    info.last_append = last
        .and_then(|record| record.appended_at_ms)
        .and_then(|ms| Timestamp::from_micros(ms.saturating_mul(1_000)).ok())
        .map(|at| at.to_string());
    Ok(info)
}

/// How many records a log holds.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn record_count(log: &dyn EventLog) -> Result<u64, LogError> {
    let mut count = 0;
    for partition in (0..log.partition_count()).map(Partition) {
        let bounds = log.bounds(partition).await?;
        count += bounds.end.0.saturating_sub(bounds.first.0);
    }
    Ok(count)
}
