//! Opens or makes the log of a process.
//!
//! Deliberately absent: reading and writing the log (`event_log`).

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use engine::StartError;
use event_log::claim::IDEMPOTENCY_WINDOW_MS;
use event_log::create::{CreateOptions, create, first_claim};
use event_log::log::{EventLog, LogAddress, LogError, StoreOptions};
use position::Partition;

use crate::exit::{Exit, Failure};
use crate::private;
use crate::settings::Settings;

/// The number of partitions of a new log, unless the user names another.
pub const PARTITIONS_DEFAULT: u32 = 16;

/// Opens an existing log. Its readers pass the damage that an operator has acknowledged.
///
/// # Errors
/// `Missing` if there is no log; `Unavailable` if the log does not answer.
pub async fn open_log(settings: &Settings) -> Result<Arc<dyn EventLog>, LogError> {
    private_files(&settings.log);
    let log = event_log::log::open(settings.log_place()).await?;
    warn_of_acknowledged(&*log);
    Ok(log)
}

/// Makes the files of an embedded log private to their owner. A process of another user may read
/// the log if the owner allows it, but it cannot change the mode of the files: then this only
/// warns.
fn private_files(log: &LogAddress) {
    if let LogAddress::Sqlite { path } = log
        && let Err(failure) = private::log_files(path)
    {
        tracing::warn!(reason = failure.message, "other users may read the log");
    }
}

fn warn_of_acknowledged(log: &dyn EventLog) {
    for ((partition, offset), reason) in log.acknowledged().iter() {
        tracing::warn!(%partition, %offset, reason, "readers pass damage that was acknowledged");
    }
}

/// The number of partitions of the log, or the default if there is no log yet.
///
/// # Errors
/// `Unavailable`.
pub async fn partition_count(settings: &Settings) -> Result<u32, Failure> {
    match event_log::log::open(settings.log_place()).await {
        Ok(log) => Ok(log.partition_count()),
        Err(LogError::Missing(_)) => Ok(PARTITIONS_DEFAULT),
        Err(error) => Err(error.into()),
    }
}

/// Opens the log. Makes it, or finishes making it, if needed.
///
/// # Errors
/// Whatever prevents making or using the log.
pub async fn open_or_make(settings: &Settings) -> Result<Arc<dyn EventLog>, Failure> {
    create_parent(&settings.log)?;
    private_files(&settings.log);
    let partition_count = partition_count(settings).await?;
    let options = CreateOptions {
        store: StoreOptions {
            partition_count,
            replication: 1,
        },
        idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
        node: settings.node.clone(),
    };
    let (log, id, made) = create(settings.log_place(), &options).await?;
    if made {
        tracing::info!(log = %log.address(), %id, "created the log");
    }
    warn_of_acknowledged(&*log);
    Ok(log)
}

/// Opens a log. Its settings must be safe, and each of its partitions must have a claim.
///
/// # Errors
/// `Unprepared`, with the command to run; `Unavailable`.
pub async fn open_claimed(settings: &Settings) -> Result<Arc<dyn EventLog>, Failure> {
    let log = open_log(settings).await?;
    for warning in log.check().await? {
        tracing::warn!(log = %log.address(), "{warning}");
    }
    for partition in (0..log.partition_count()).map(Partition) {
        if first_claim(&*log, partition).await?.is_none() {
            let address = log.address().to_string();
            return Err(StartError::Unclaimed { partition, address }.into());
        }
    }
    Ok(log)
}

/// Makes the folder for the file of a log.
///
/// # Errors
/// `Failed`.
pub fn create_parent(address: &LogAddress) -> Result<(), Failure> {
    match address {
        LogAddress::Sqlite { path } => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => create_folder(parent),
            _ => Ok(()),
        },
        LogAddress::Kafka { .. } => Ok(()),
    }
}

/// Makes a folder that is private to its owner, if it does not exist.
///
/// # Errors
/// `Failed`.
pub fn create_folder(folder: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(private::folder_mode())
        .create(folder)
        .map_err(|error| {
            let what = format!("make the folder {}", folder.display());
            Failure::of(Exit::Failed, &error).while_trying(&what)
        })
}
