//! The embedded log: one SQLite file in WAL mode, many readers, one writing process.
//!
//! Invariant: records, chain and tools are the same as on Kafka. A row's id holds its partition and
//! offset in one number, so one B-tree keeps every partition in order. Deliberately absent: the
//! meaning of records; they are only bytes here.

mod appender;
mod named;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use position::{Offset, Partition};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, Sqlite};
use tokio::sync::Notify;

use super::error::failed;
use super::gathered::Gathered;
use super::{Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogPlace, LogReader};
use crate::chain::Acknowledged;
use crate::record::{Headers, Record};
use appender::SqliteAppender;
use named::Named;

/// How many bits of a row's id hold the offset.
const OFFSET_BITS: u32 = 40;
/// How often a reader checks for records that another process wrote.
const POLL_EVERY: Duration = Duration::from_millis(10);
/// The least time between two checks of a reader that the log was not cut.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1),
        partition_count INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS record (
        id INTEGER PRIMARY KEY,
        key BLOB, value BLOB, headers BLOB NOT NULL, appended_at_ms INTEGER NOT NULL,
        partition INTEGER GENERATED ALWAYS AS (id >> 40) VIRTUAL,
        \"offset\" INTEGER GENERATED ALWAYS AS (id & 1099511627775) VIRTUAL);
";

pub(super) struct SqliteLog {
    place: LogPlace,
    partition_count: u32,
    pool: SqlitePool,
    named: Arc<Named>,
    appended: Arc<Notify>,
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

fn row_id(partition: Partition, offset: Offset) -> i64 {
    i64::from(partition.0) << OFFSET_BITS
        | i64::try_from(offset.0).expect("no partition has 2^40 records")
}

impl SqliteLog {
    /// Creates the file if it does not exist.
    pub(super) async fn create(path: &Path, partition_count: u32) -> Result<(), LogError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("make the log's folder"))?;
        }
        let mut connection = connect_to_new(&options(path).create_if_missing(true)).await?;
        sqlx::raw_sql(SCHEMA)
            .execute(&mut connection)
            .await
            .map_err(failed("make the log"))?;
        sqlx::query("INSERT OR IGNORE INTO log (one, partition_count) VALUES (1, ?)")
            .bind(partition_count)
            .execute(&mut connection)
            .await
            .map_err(failed("make the log"))?;
        Ok(())
    }

    pub(super) async fn open(path: &Path, place: &LogPlace) -> Result<Self, LogError> {
        let named = match Named::look(path) {
            Ok(named) => Arc::new(named),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::Missing(place.address.clone()));
            }
            Err(error) => return Err(LogError::unavailable("look at the log's file", error)),
        };
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options(path))
            .await
            .map_err(failed("open the log's file"))?;
        let partition_count: u32 = sqlx::query_scalar("SELECT partition_count FROM log")
            .fetch_one(&pool)
            .await
            .map_err(failed("read the log's partition count"))?;
        named.require()?;
        let appended = Arc::new(Notify::new());
        Ok(Self {
            place: place.clone(),
            partition_count,
            pool,
            named,
            appended,
        })
    }

    /// A connection for reading. After the read, the caller must check again that the file is still
    /// the log's file, because a new connection may have opened another file.
    async fn acquire(&self) -> Result<PoolConnection<Sqlite>, LogError> {
        self.named.require()?;
        self.pool.acquire().await.map_err(failed("read the log"))
    }
}

/// Connects to a file that other processes may be creating, too. While one of them switches the
/// file to WAL mode, SQLite reports the file as locked at once, however long a statement may wait.
async fn connect_to_new(options: &SqliteConnectOptions) -> Result<SqliteConnection, LogError> {
    const SQLITE_BUSY: i32 = 5;
    let is_busy = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        let code = code.and_then(|code| code.parse::<i32>().ok());
        code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
    };
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(POLL_EVERY).await;
            }
            connected => return connected.map_err(failed("make the log's file")),
        }
    }
}

#[async_trait]
impl EventLog for SqliteLog {
    fn address(&self) -> &LogAddress {
        &self.place.address
    }

    fn acknowledged(&self) -> Acknowledged {
        self.place.acknowledged.clone()
    }

    fn partition_count(&self) -> u32 {
        self.partition_count
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        self.named.require()?;
        Ok(Vec::new())
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        let mut connection = self.acquire().await?;
        let bounds = bounds_of(&mut connection, partition).await?;
        self.named.require()?;
        Ok(bounds)
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        let mut connection = self.acquire().await?;
        let chunk = read_from(&mut connection, partition, from).await;
        self.named.require()?;
        chunk
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        let mut found = Vec::with_capacity(offsets.len());
        let mut connection = self.acquire().await?;
        for &offset in offsets {
            let one = "SELECT id, CAST(key AS BLOB) AS key, CAST(value AS BLOB) AS value, \
                       CAST(headers AS BLOB) AS headers, appended_at_ms FROM record WHERE id = ?";
            let row = sqlx::query(one)
                .bind(row_id(partition, offset))
                .fetch_optional(&mut *connection)
                .await
                .map_err(failed("read the log"))?;
            let record = row.map(|row| record_of(&row)).transpose()?;
            found.push(record.map(|(_, record)| record));
        }
        self.named.require()?;
        Ok(found)
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(SqliteReader {
            connection: None,
            version: None,
            is_check_owed: true,
            checked: None,
            next: from.to_vec(),
            named: Arc::clone(&self.named),
            appended: Arc::clone(&self.appended),
        }))
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        let (named, appended) = (Arc::clone(&self.named), Arc::clone(&self.appended));
        let appender = SqliteAppender::open(self.address(), named, appended).await?;
        Ok(Arc::new(appender))
    }
}

fn place_of(id: i64) -> (Partition, Offset) {
    let id = id.cast_unsigned();
    let partition = u32::try_from(id >> OFFSET_BITS).expect("its other bits are the offset");
    (Partition(partition), Offset(id & ((1 << OFFSET_BITS) - 1)))
}

async fn bounds_of(
    connection: &mut SqliteConnection,
    partition: Partition,
) -> Result<Bounds, LogError> {
    // Each subquery is one search in the B-tree; MIN and MAX in one query would scan.
    let ends = "SELECT (SELECT MIN(id) FROM record WHERE id >= ?1 AND id < ?2), \
                       (SELECT MAX(id) FROM record WHERE id >= ?1 AND id < ?2)";
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(ends)
        .bind(row_id(partition, Offset(0)))
        .bind(row_id(Partition(partition.0 + 1), Offset(0)))
        .fetch_one(connection)
        .await
        .map_err(failed("read the log's end"))?;
    Ok(Bounds {
        first: first.map_or(Offset(0), |id| place_of(id).1),
        end: last.map_or(Offset(0), |id| place_of(id).1.next()),
    })
}

async fn read_from(
    connection: &mut SqliteConnection,
    partition: Partition,
    from: Offset,
) -> Result<Chunk, LogError> {
    let gathered = read_rows(connection, &[(partition, from)]).await?;
    let at_end = !gathered.is_full();
    let chunk = gathered.one(partition, from, at_end);
    if chunk.records.first().map(|first| first.offset) != Some(from) {
        require_kept(connection, partition, from).await?;
    }
    Ok(chunk)
}

async fn require_kept(
    connection: &mut SqliteConnection,
    partition: Partition,
    from: Offset,
) -> Result<(), LogError> {
    let bounds = bounds_of(connection, partition).await?;
    if from < bounds.first || from > bounds.end {
        let offset = from;
        return Err(LogError::OffsetGone { partition, offset });
    }
    Ok(())
}

/// The records at or after each of these places, in order: all of them, unless the result is full.
async fn read_rows(
    connection: &mut SqliteConnection,
    places: &[(Partition, Offset)],
) -> Result<Gathered, LogError> {
    // One statement for all places, since each statement goes to another thread and back. CROSS
    // JOIN goes through the places as given, and through each place by id.
    let ranges = "SELECT record.id, CAST(record.key AS BLOB) AS key, \
                  CAST(record.value AS BLOB) AS value, CAST(headers AS BLOB) AS headers, \
                  appended_at_ms \
                  FROM json_each(?) AS place CROSS JOIN record \
                  WHERE record.id >= place.value \
                  AND record.id < ((place.value >> 40) + 1) << 40";
    let from = places
        .iter()
        .map(|&(partition, from)| row_id(partition, from));
    let from = serde_json::Value::from_iter(from).to_string();
    let mut rows = sqlx::query(ranges).bind(from).fetch(connection);
    let mut gathered = Gathered::default();
    while !gathered.is_full()
        && let Some(row) = rows.try_next().await.map_err(failed("read the log"))?
    {
        let (partition, record) = record_of(&row)?;
        gathered.push(partition, record);
    }
    let is_full = gathered.is_full();
    if let Some((last, before)) = gathered.chunks.split_last_mut() {
        last.at_end = !is_full;
        before.iter_mut().for_each(|chunk| chunk.at_end = true);
    }
    Ok(gathered)
}

fn record_of(row: &SqliteRow) -> Result<(Partition, Record), LogError> {
    // Anybody may have changed the row, also its types. Read the bytes as they are; the acceptance
    // rule decides whether they are a record that counts.
    let read = |error| LogError::unavailable("read a row of the log", error);
    let bytes = |column| -> Result<Option<Bytes>, LogError> {
        let value: Option<Vec<u8>> = row.try_get(column).map_err(read)?;
        Ok(value.map(Bytes::from))
    };
    // Headers that do not parse make the record foreign, and the acceptance rule judges it.
    let headers = Headers::unpack(bytes("headers")?.unwrap_or_default()).unwrap_or_default();
    let (partition, offset) = place_of(row.try_get("id").map_err(read)?);
    let record = Record {
        offset,
        key: bytes("key")?,
        value: bytes("value")?,
        headers,
        leader_epoch: None,
        appended_at_ms: row.try_get("appended_at_ms").ok().flatten(),
    };
    Ok((partition, record))
}

struct SqliteReader {
    connection: Option<SqliteConnection>,
    /// SQLite's counter of changes made through other connections, as last read.
    version: Option<i64>,
    /// Whether the file changed since the last check that the log was not cut.
    is_check_owed: bool,
    /// When the reader last checked that the log still holds the places where it continues.
    checked: Option<Instant>,
    next: Vec<(Partition, Offset)>,
    named: Arc<Named>,
    appended: Arc<Notify>,
}

impl SqliteReader {
    async fn poll(&mut self) -> Result<Vec<Chunk>, LogError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let connected = options(&self.named.path).connect().await;
                let connection = connected.map_err(failed("open the log"))?;
                self.connection.insert(connection)
            }
        };
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("read the log"))?;
        let changed = self.version != Some(version);
        // Check also without a change: a file that was replaced never changes again.
        self.named.require()?;
        self.is_check_owed |= changed;
        if self.is_check_owed && self.checked.is_none_or(|at| at.elapsed() >= CHECK_EVERY) {
            for &(partition, next) in &self.next {
                require_kept(connection, partition, next).await?;
            }
            self.is_check_owed = false;
            self.checked = Some(Instant::now());
        }
        if !changed {
            return Ok(Vec::new());
        }
        let gathered = read_rows(connection, &self.next).await?;
        let at_end = !gathered.is_full();
        for chunk in &gathered.chunks {
            let next = self.next.iter_mut();
            for (_, next) in next.filter(|(partition, _)| *partition == chunk.partition) {
                *next = chunk.next;
            }
        }
        if let Some(last) = gathered.chunks.last().filter(|_| !at_end) {
            // The other partitions first, so that they do not wait while this one has more.
            let is_last = |(partition, _): &(Partition, Offset)| *partition == last.partition;
            let last = self.next.iter().position(is_last).unwrap_or_default();
            self.next.rotate_left(last + 1);
        }
        // The version was read before the records: a change after that is read in the next poll.
        self.version = at_end.then_some(version);
        Ok(gathered.chunks)
    }
}

#[async_trait]
impl LogReader for SqliteReader {
    async fn next(&mut self, wait: Duration) -> Result<Vec<Chunk>, LogError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let appended = Arc::clone(&self.appended);
            let mut notified = std::pin::pin!(appended.notified());
            notified.as_mut().enable();
            let chunks = self.poll().await?;
            let now = tokio::time::Instant::now();
            if !chunks.is_empty() || now >= deadline {
                return Ok(chunks);
            }
            let pause = POLL_EVERY.min(deadline - now);
            let _ = tokio::time::timeout(pause, notified).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_with_more_lets_the_others_be_read_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        SqliteLog::create(&path, 2).await.unwrap();
        let place = LogPlace::from(&LogAddress::Sqlite { path: path.clone() });
        let log = SqliteLog::open(&path, &place).await.unwrap();
        let (long, short) = (Partition(0), Partition(1));
        let fill = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2499) \
                    INSERT INTO record (id, headers, appended_at_ms) \
                    SELECT i, x'', 0 FROM n UNION ALL SELECT 1 << 40, x'', 0";
        sqlx::query(fill).execute(&log.pool).await.unwrap();
        let mut reader = log
            .follow(&[(long, Offset(0)), (short, Offset(0))])
            .unwrap();
        let mut read = Vec::new();
        for _ in 0..2 {
            for chunk in reader.next(Duration::ZERO).await.unwrap() {
                read.push((chunk.partition, chunk.records.len(), chunk.at_end));
            }
        }
        assert_eq!(
            read,
            [(long, 2_000, false), (short, 1, true), (long, 500, true)]
        );
    }
}
