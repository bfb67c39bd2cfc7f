//! Appends to the SQLite log: one task, group commit, and a lock that ends with the process.
//!
//! Invariant: when a transaction fails, every session with a record in it takes no more records,
//! and its waiting records are not written. So no record follows a record that was lost.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use position::{Offset, Partition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite};
use tokio::sync::{Notify, mpsc, oneshot};

use super::named::{Beside, Named};
use super::{bounds_of, failed, options, place_of, row_id};
use crate::log::{AppendDone, AppendSession, Appended, Appender, LogAddress, LogError};
use crate::record::NewRecord;

/// How long to wait for another writer that is releasing the lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(20);
/// How many appends may wait for the writing task.
const QUEUE_MAX: usize = 16_384;
/// How many appends one transaction takes at most.
const GROUP_MAX: usize = 2_048;
const ROWS_PER_STATEMENT: usize = 64;

struct Append {
    partition: Partition,
    record: NewRecord,
    done: AppendDone,
    /// Whether the session of this append has lost a record.
    failed: Arc<AtomicBool>,
}

enum Job {
    Append(Append),
    Flush(oneshot::Sender<()>),
}

pub(super) struct SqliteAppender {
    jobs: mpsc::Sender<Job>,
}

struct SqliteSession {
    jobs: mpsc::Sender<Job>,
    failed: Arc<AtomicBool>,
}

impl SqliteAppender {
    pub(super) async fn open(
        address: &LogAddress,
        named: Arc<Named>,
        appended: Arc<Notify>,
    ) -> Result<Self, LogError> {
        let lock = lock(&named.path, address).await?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            connection: None,
            ends: HashMap::new(),
            named,
            appended,
            _lock: lock,
        };
        tokio::spawn(writer.run(queue));
        Ok(Self { jobs })
    }
}

async fn lock(path: &Path, address: &LogAddress) -> Result<File, LogError> {
    // One lock for the file, whatever path names it.
    let path = path.canonicalize().map_err(failed("find the log's file"))?;
    let mut name = path.into_os_string();
    name.push(".lock");
    let file = File::create(&name).map_err(failed("make the lock file beside the log"))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY_EVERY).await;
            }
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked(address.clone())),
            Err(TryLockError::Error(error)) => {
                return Err(LogError::unavailable("lock the file beside the log", error));
            }
        }
    }
}

#[async_trait]
impl Appender for SqliteAppender {
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError> {
        Ok(Arc::new(SqliteSession {
            jobs: self.jobs.clone(),
            failed: Arc::default(),
        }))
    }

    async fn flush(&self, wait: Duration) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.send(Job::Flush(done)).await.is_ok() {
            let _ = tokio::time::timeout(wait, flushed).await;
        }
    }
}

impl AppendSession for SqliteSession {
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        let job = Job::Append(Append {
            partition,
            record: record.clone(),
            done,
            failed: Arc::clone(&self.failed),
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LogError::Full,
            mpsc::error::TrySendError::Closed(_) => LogError::Closed,
        })
    }
}

struct Writer {
    /// The connection, and the identities of the files beside the log's file that it uses.
    connection: Option<(SqliteConnection, Beside)>,
    /// The end of each partition after the last transaction; empty after a failed transaction.
    ends: HashMap<Partition, Offset>,
    named: Arc<Named>,
    appended: Arc<Notify>,
    _lock: File,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP_MAX);
        while queue.recv_many(&mut jobs, GROUP_MAX).await > 0 {
            let mut group = Vec::with_capacity(jobs.len());
            let mut flushed = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    Job::Append(append) if append.failed.load(Ordering::SeqCst) => {
                        (append.done)(Err(LogError::Closed));
                    }
                    Job::Append(append) => group.push(append),
                    Job::Flush(done) => flushed.push(done),
                }
            }
            if !group.is_empty() {
                self.append_group(group).await;
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn append_group(&mut self, group: Vec<Append>) {
        match self.insert(&group).await {
            Ok(places) => {
                for (append, appended) in group.into_iter().zip(places) {
                    (append.done)(Ok(appended));
                }
                self.appended.notify_waiters();
            }
            Err(error) => {
                // The transaction may or may not be in the file, so every record of it is in doubt.
                tracing::warn!(error = %error, records = group.len(), "a group commit failed");
                self.connection = None;
                self.ends.clear();
                for append in &group {
                    append.failed.store(true, Ordering::SeqCst);
                }
                for append in group {
                    (append.done)(Err(match &error {
                        LogError::Replaced(what) => LogError::Replaced(what.clone()),
                        error => LogError::unavailable("append to the log", error.to_string()),
                    }));
                }
            }
        }
    }

    async fn connect(&self) -> Result<(SqliteConnection, Beside), LogError> {
        self.named.require()?;
        let connected = options(&self.named.path).connect().await;
        let mut connection = connected.map_err(failed("open the log's file"))?;
        // A read creates the files beside the log's file if they do not exist.
        bounds_of(&mut connection, Partition(0)).await?;
        let beside = self.named.look_beside()?;
        self.named.require()?;
        Ok((connection, beside))
    }

    async fn insert(&mut self, group: &[Append]) -> Result<Vec<Appended>, LogError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        let (connection, beside) = self.connection.as_mut().expect("it was opened above");
        let now_ms = now_ms();
        let mut ids = Vec::with_capacity(group.len());
        for append in group {
            let partition = append.partition;
            let end = match self.ends.get(&partition) {
                Some(&end) => end,
                // Read the end only once: this writer holds the lock, so nobody else appends.
                None => bounds_of(connection, partition).await?.end,
            };
            ids.push(row_id(partition, end));
            self.ends.insert(partition, end.next());
        }
        if group.len() <= ROWS_PER_STATEMENT {
            // A single statement is a transaction by itself.
            insert_rows(connection, group, &ids, now_ms).await?;
        } else {
            let mut tx = connection
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(failed("begin a transaction of the log"))?;
            for (rows, ids) in group
                .chunks(ROWS_PER_STATEMENT)
                .zip(ids.chunks(ROWS_PER_STATEMENT))
            {
                insert_rows(&mut tx, rows, ids, now_ms).await?;
            }
            tx.commit().await.map_err(failed("commit to the log"))?;
        }
        // If the path no longer names the file, the records are lost when this process ends.
        self.named.require_with(beside)?;
        let appended = |id| Appended {
            offset: Some(place_of(id).1),
            appended_at_ms: Some(now_ms),
        };
        Ok(ids.into_iter().map(appended).collect())
    }
}

async fn insert_rows(
    connection: &mut SqliteConnection,
    rows: &[Append],
    ids: &[i64],
    now_ms: i64,
) -> Result<(), LogError> {
    let mut insert = QueryBuilder::<Sqlite>::new(
        "INSERT INTO record (id, key, value, headers, appended_at_ms) ",
    );
    insert.push_values(rows.iter().zip(ids), |mut row, (append, id)| {
        row.push_bind(*id)
            .push_bind(append.record.key.as_deref())
            .push_bind(append.record.value.as_deref())
            .push_bind(append.record.headers.packed().as_ref())
            .push_bind(now_ms);
    });
    let inserted = insert.build().execute(connection).await;
    inserted.map_err(failed("append to the log"))?;
    Ok(())
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
