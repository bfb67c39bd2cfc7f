//! The states of streams while commands are judged: those in use in memory, the others in a temporary
//! file that ends with the process.
//!
//! Invariant: memory is bounded by a number of bytes, however many streams there are. Deliberately
//! absent: what changes a state (`judge`).

use std::collections::HashMap;

use kernel::registry::{Aggregate, Registry};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::judge::Stream;
use crate::exit::{Exit, Failure};

/// The memory of a stream beside its state, about.
const STREAM_BYTES: usize = 512;

const TABLE: &str = "CREATE TABLE state (key TEXT PRIMARY KEY, version INTEGER NOT NULL,
    differs INTEGER NOT NULL, state TEXT) WITHOUT ROWID";

/// The states of all streams.
pub(super) struct States {
    streams: HashMap<String, Stream>,
    bytes: usize,
    bytes_max: usize,
    uses: u64,
    /// Made when there is first too much to keep in memory.
    file: Option<File>,
}

struct File {
    rows: SqliteConnection,
}

impl States {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            streams: HashMap::new(),
            bytes: 0,
            bytes_max,
            uses: 0,
            file: None,
        }
    }

    /// A stream, which is empty if it was never met.
    pub(super) async fn stream(
        &mut self,
        key: &str,
        aggregate: Option<&dyn Aggregate>,
    ) -> Result<&mut Stream, Failure> {
        if !self.streams.contains_key(key) {
            let kept = match &mut self.file {
                Some(file) => file.read(key, aggregate).await?,
                None => None,
            };
            let stream = kept.unwrap_or_else(|| Stream {
                state: aggregate.and_then(|aggregate| aggregate.initial().ok()),
                version: 0,
                differs: false,
                bytes: STREAM_BYTES + key.len(),
                used: 0,
            });
            self.bytes += stream.bytes;
            self.streams.insert(key.to_owned(), stream);
        }
        let stream = self.streams.get_mut(key).ok_or_else(lost)?;
        // Until `settle`, the stream is not counted: its size changes.
        self.bytes = self.bytes.saturating_sub(stream.bytes);
        self.uses += 1;
        stream.used = self.uses;
        Ok(stream)
    }

    /// Counts a stream that was used. If all take too much memory, those that were not used for longest
    /// go to the file, until half is free.
    pub(super) async fn settle(&mut self, key: &str, registry: &Registry) -> Result<(), Failure> {
        self.bytes += self.streams.get(key).map_or(0, |stream| stream.bytes);
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let mut by_use: Vec<(u64, String)> = self
            .streams
            .iter()
            .map(|(key, stream)| (stream.used, key.clone()))
            .collect();
        by_use.sort_unstable();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::make().await?,
        };
        let mut rows = file.rows.begin().await.map_err(|error| failed(&error))?;
        for (_, key) in by_use {
            if self.bytes <= self.bytes_max / 2 {
                break;
            }
            let Some(stream) = self.streams.remove(&key) else {
                continue;
            };
            self.bytes = self.bytes.saturating_sub(stream.bytes);
            let state = written(&key, &stream, registry)?;
            let statement = "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)";
            let insert = sqlx::query(statement)
                .bind(key.as_str())
                .bind(stream.version.cast_signed())
                .bind(stream.differs)
                .bind(state);
            insert
                .execute(&mut *rows)
                .await
                .map_err(|error| failed(&error))?;
        }
        rows.commit().await.map_err(|error| failed(&error))?;
        self.file = Some(file);
        Ok(())
    }
}

/// A state as JSON; absent if there is none.
fn written(key: &str, stream: &Stream, registry: &Registry) -> Result<Option<String>, Failure> {
    // A key is the tenant, a slash, and the stream's name, which begins with its category.
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    let category = name.split_once('-').map_or(name, |(category, _)| category);
    let (Some(aggregate), Some(state)) = (registry.get(category), stream.state.as_ref()) else {
        return Ok(None);
    };
    let written = aggregate.encode_state(state).map_err(|error| {
        Failure::of(Exit::Failed, &error)
            .while_trying(&format!("write the state of {name} as JSON"))
    })?;
    Ok(Some(written))
}

impl File {
    async fn make() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("annals-judge-").tempdir();
        let folder = folder.map_err(|error| {
            Failure::of(Exit::Failed, &error).while_trying("make a temporary folder for states")
        })?;
        let mut rows = SqliteConnectOptions::new()
            .filename(folder.path().join("states.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| failed(&error))?;
        let made = sqlx::query(TABLE).execute(&mut rows).await;
        made.map_err(|error| failed(&error))?;
        // The file is open and has no name from now on: it ends with this process, however that ends.
        drop(folder);
        Ok(Self { rows })
    }

    async fn read(
        &mut self,
        key: &str,
        aggregate: Option<&dyn Aggregate>,
    ) -> Result<Option<Stream>, Failure> {
        let select = sqlx::query("SELECT version, differs, state FROM state WHERE key = ?");
        let row = select.bind(key).fetch_optional(&mut self.rows).await;
        let Some(row) = row.map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        read_row(&row, key, aggregate)
            .map(Some)
            .map_err(|error| failed(&error))
    }
}

fn read_row(
    row: &SqliteRow,
    key: &str,
    aggregate: Option<&dyn Aggregate>,
) -> Result<Stream, sqlx::Error> {
    let version: i64 = row.try_get("version")?;
    let state: Option<String> = row.try_get("state")?;
    let bytes = STREAM_BYTES + key.len() + state.as_ref().map_or(0, String::len);
    Ok(Stream {
        state: state
            .zip(aggregate)
            .and_then(|(state, aggregate)| aggregate.decode_state(state.as_bytes())),
        version: version.cast_unsigned(),
        differs: row.try_get("differs")?,
        bytes,
        used: 0,
    })
}

fn failed(error: &sqlx::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying("keep the states of streams in a temporary file")
}

fn lost() -> Failure {
    Failure::new(Exit::Failed, "a stream was lost while it was judged")
}
