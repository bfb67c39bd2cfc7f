//! Judges a run: the checker compares history and log, and the rows are compared with a fold of the
//! log.
//!
//! Invariant: after the last answer, the program's own dump reads the whole log. Deliberately
//! absent: any rule of ours about which records count; the checker has its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use checker::dump::DumpReader;
use checker::rule::{Fold, Verdict};
use checker::{Checker, Loss, Options, Report, Scope};
use event_log::log::EventLog;
use event_log::subscription::Subscription;
use position::Partition;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sqlx::{PgPool, Row};

use super::rules::Customers;
use super::scene::Scene;

/// How long the read models may take to reach the end of the log.
const ROWS_WAIT: Duration = Duration::from_secs(120);
/// If a log delivers nothing for this long, it has been read to its end.
const QUIET_AT_END: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How many differences are shown.
const DIFFERENCES_MAX: usize = 20;

/// Writes the whole log into a file.
///
/// # Errors
/// The program's error message.
pub fn dump(program: &Path, scene: &Scene, to: &Path) -> Result<(), String> {
    let address = format!("kafka://{}/{}", scene.cluster.bootstrap(), scene.topic);
    let file = File::create(to).map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["log", "dump", "--log", &address])
        .stdin(Stdio::null())
        .stdout(file)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Checks the clients' history against the log.
///
/// # Errors
/// If a file cannot be read.
pub fn check(history: &Path, dump: &Path) -> Result<Report, String> {
    let options = Options {
        scope: Scope::Complete,
        loss: Loss::Forbidden,
    };
    let mut checker = Checker::with_rules(options, Box::new(Customers));
    let read = |error: checker::InputError| error.to_string();
    checker
        .history(&history.display().to_string(), open(history)?)
        .map_err(read)?;
    checker
        .dump(&dump.display().to_string(), open(dump)?)
        .map_err(read)?;
    Ok(checker.finish())
}

pub(super) fn open(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// The streams and ids of all accepted commands.
///
/// # Errors
/// If a command id counts twice, or the log cannot be read.
pub async fn accepted_commands(
    log: &Arc<dyn EventLog>,
) -> Result<BTreeSet<(String, String)>, String> {
    let partitions = (0..log.partition_count()).map(|number| (Partition(number), None));
    let mut subscription = Subscription::new(Arc::clone(log), partitions.collect());
    let mut ids = BTreeSet::new();
    loop {
        let batches = subscription.next(QUIET_AT_END).await;
        let batches = batches.map_err(|error| error.to_string())?;
        if batches.is_empty() {
            return Ok(ids);
        }
        for batch in batches {
            for placed in &batch.commits {
                let command = placed.commit.command.id.as_str().to_owned();
                let id = (placed.commit.stream.as_str().to_owned(), command);
                if !ids.insert(id.clone()) {
                    return Err(format!("{id:?} counts twice"));
                }
            }
        }
    }
}

/// A stream in the form of its row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct StreamRow {
    version: i64,
    events: i64,
    partition: i64,
    last_position: i64,
}

#[derive(Deserialize)]
struct CommitValue {
    from_version: i64,
    #[serde(default)]
    events: Vec<IgnoredAny>,
}

/// Folds the dump into the rows that `stream_index` must have.
fn fold(dump: &Path) -> Result<BTreeMap<String, StreamRow>, String> {
    let explain = |error: checker::InputError| error.to_string();
    let mut reader = DumpReader::open("dump", open(dump)?).map_err(explain)?;
    let mut folds: BTreeMap<u32, Fold> = BTreeMap::new();
    let mut rows: BTreeMap<String, StreamRow> = BTreeMap::new();
    while let Some((partition, record)) = reader.next_record().map_err(explain)? {
        let fold = folds
            .entry(partition)
            .or_insert_with(|| Fold::new(partition));
        let Verdict::Commit(_) = fold.take(&record) else {
            continue;
        };
        let (Some(key), Some(value)) = (&record.key, &record.value) else {
            return Err(format!("partition {partition} has a commit of nothing"));
        };
        let key = String::from_utf8_lossy(key).into_owned();
        let commit: CommitValue =
            serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let events = i64::try_from(commit.events.len()).expect("few events");
        let row = rows.entry(key).or_default();
        row.version = commit.from_version + events;
        row.events += events;
        row.partition = i64::from(partition);
        row.last_position = i64::try_from(fold.position).expect("few records");
    }
    Ok(rows)
}

/// Waits for the nodes' projectors, and compares the rows of all streams with a fold of the dump.
/// Returns the number of compared rows, and the differences.
///
/// # Errors
/// If the rows do not reach the end of the log, or cannot be read.
pub async fn rows(scene: &Scene, dump: PathBuf) -> Result<(usize, Vec<String>), String> {
    let Some(url) = &scene.postgres_url else {
        return Ok((0, Vec::new()));
    };
    caught_up(&scene.log, url).await?;
    let expected = tokio::task::spawn_blocking(move || fold(&dump)).await;
    let expected = expected.map_err(|error| error.to_string())??;
    let found = read_rows(url).await.map_err(|error| error.to_string())?;
    let mut differences = Vec::new();
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for key in &keys {
        let (expected, found) = (expected.get(*key), found.get(*key));
        if expected != found && differences.len() < DIFFERENCES_MAX {
            differences.push(format!("row {key}: {found:?} instead of {expected:?}"));
        }
    }
    Ok((keys.len(), differences))
}

/// Waits until the rows have reached the end of the log.
///
/// # Errors
/// If they do not reach it in time.
pub async fn caught_up(log: &Arc<dyn EventLog>, url: &str) -> Result<(), String> {
    let caught_up = tokio::time::timeout(ROWS_WAIT, catch_up(log, url)).await;
    caught_up.map_err(|_| format!("the rows are not there after {ROWS_WAIT:?}"))?
}

/// [`caught_up`] without a limit of time: brokers that have just restarted may take a while.
async fn catch_up(log: &Arc<dyn EventLog>, url: &str) -> Result<(), String> {
    loop {
        let models = crate::harness::stack::read_models();
        match projector::catch_up(log, url, &models, Box::new(|_| {})).await {
            Ok(()) => return Ok(()),
            Err(error) if error.may_pass() => tokio::time::sleep(AGAIN_AFTER).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn read_rows(url: &str) -> sqlx::Result<BTreeMap<String, StreamRow>> {
    let pool = PgPool::connect(url).await?;
    let sql = "SELECT tenant || '/' || stream, version, events, partition, last_position \
               FROM read.stream_index";
    let rows = sqlx::query(sql).fetch_all(&pool).await?;
    pool.close().await;
    rows.iter()
        .map(|row| {
            let stream = StreamRow {
                version: row.try_get(1)?,
                events: row.try_get(2)?,
                partition: row.try_get(3)?,
                last_position: row.try_get(4)?,
            };
            Ok((row.try_get(0)?, stream))
        })
        .collect()
}
