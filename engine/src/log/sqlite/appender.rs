//! Appending to the SQLite log: one task, group commit, and a lock that dies with the process.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{failed, headers, offset_of, options, row_id};
use crate::ids::{Offset, Partition};
use crate::log::{AppendDone, AppendSession, Appended, Appender, LogAddress, LogError};
use crate::record::NewRecord;

/// How long to wait for another writer that is letting go of the log.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How often to try meanwhile.
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(20);
/// How many appends may wait for the writing task.
const QUEUE_MAX: usize = 16_384;
/// How many appends one transaction takes.
const GROUP_MAX: usize = 2_048;
/// How many rows one statement inserts.
const ROWS_PER_STATEMENT: usize = 64;

struct Append {
    partition: Partition,
    record: NewRecord,
    done: AppendDone,
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
}

impl SqliteAppender {
    pub(super) async fn open(
        path: &Path,
        address: &LogAddress,
        appended: Arc<Notify>,
    ) -> Result<Self, LogError> {
        let lock = lock(path, address).await?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            options: options(path),
            connection: None,
            ends: HashMap::new(),
            appended,
            _lock: lock,
        };
        tokio::spawn(writer.run(queue));
        Ok(Self { jobs })
    }
}

/// Takes the lock, waiting a little for one that is being let go.
async fn lock(path: &Path, address: &LogAddress) -> Result<File, LogError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::create(&name)
        .map_err(|error| LogError::unavailable("make the lock file beside the log", error))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY_EVERY).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Locked {
                    address: address.to_string(),
                });
            }
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
        let job = Job::Append(Append {
            partition,
            record: record.clone(),
            done,
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LogError::Full,
            mpsc::error::TrySendError::Closed(_) => LogError::Closed,
        })
    }
}

struct Writer {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// The end of each partition, as of the last transaction; empty after a failed one.
    ends: HashMap<Partition, Offset>,
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
                    Job::Append(append) => group.push(append),
                    Job::Flush(done) => flushed.push(done),
                }
            }
            self.append_group(group).await;
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn append_group(&mut self, group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        match self.insert(&group).await {
            Ok(places) => {
                for (append, appended) in group.into_iter().zip(places) {
                    (append.done)(Ok(appended));
                }
                self.appended.notify_waiters();
            }
            Err(error) => {
                // Nobody knows whether the transaction is in the file: all of it is in doubt.
                tracing::warn!(error = %error, records = group.len(), "a group commit failed");
                self.connection = None;
                self.ends.clear();
                for append in group {
                    let error = LogError::unavailable("append to the log", error.to_string());
                    (append.done)(Err(error));
                }
            }
        }
    }

    async fn insert(&mut self, group: &[Append]) -> Result<Vec<Appended>, LogError> {
        if self.connection.is_none() {
            self.connection = Some(
                self.options
                    .connect()
                    .await
                    .map_err(failed("open the log's file"))?,
            );
        }
        let connection = self.connection.as_mut().expect("it was opened above");
        let mut tx = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("begin a transaction of the log"))?;
        let now_ms = now_ms();
        let mut ids = Vec::with_capacity(group.len());
        for append in group {
            let partition = append.partition;
            let end = match self.ends.get(&partition) {
                Some(&end) => end,
                None => end_of(&mut tx, partition).await?,
            };
            ids.push(row_id(partition, end));
            self.ends.insert(partition, end.next());
        }
        for (rows, ids) in group
            .chunks(ROWS_PER_STATEMENT)
            .zip(ids.chunks(ROWS_PER_STATEMENT))
        {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO record (id, key, value, headers, appended_at_ms) ",
            );
            insert.push_values(rows.iter().zip(ids), |mut row, (append, id)| {
                row.push_bind(*id)
                    .push_bind(append.record.key.as_deref())
                    .push_bind(append.record.value.as_deref())
                    .push_bind(headers::encode(&append.record.headers))
                    .push_bind(now_ms);
            });
            insert
                .build()
                .execute(&mut *tx)
                .await
                .map_err(failed("append to the log"))?;
        }
        tx.commit().await.map_err(failed("commit to the log"))?;
        let appended = |id| Appended {
            offset: Some(offset_of(id)),
            appended_at_ms: Some(now_ms),
        };
        Ok(ids.into_iter().map(appended).collect())
    }
}

async fn end_of(
    connection: &mut SqliteConnection,
    partition: Partition,
) -> Result<Offset, LogError> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT MAX(id) FROM record WHERE id >= ? AND id < ?")
            .bind(row_id(partition, Offset(0)))
            .bind(row_id(Partition(partition.0 + 1), Offset(0)))
            .fetch_one(connection)
            .await
            .map_err(failed("read the log's end"))?;
    Ok(last.map_or(Offset(0), |id| offset_of(id).next()))
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
