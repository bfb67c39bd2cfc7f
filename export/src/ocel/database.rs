//! The relational form of OCEL 2.0: a table for each type of event and of object, and tables for what
//! they have in common.
//!
//! Invariants: ids are unique, every relation names an event and an object that are there, and the first
//! value of an attribute stands in the object's first row, at the beginning of time, as the standard has
//! it. Deliberately absent: JSON (`json`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Sqlite};

use super::{Attribute, OcelCounts};
use crate::cell::{Cell, Kind};
use crate::error::ExportError;
use crate::output::sync_folder_of;

/// The time of first values.
pub(super) const BEGINNING: &str = "1970-01-01T00:00:00.000000Z";

const COMMON: &str = "
    CREATE TABLE event_map_type (ocel_type TEXT PRIMARY KEY, ocel_type_map TEXT NOT NULL);
    CREATE TABLE object_map_type (ocel_type TEXT PRIMARY KEY, ocel_type_map TEXT NOT NULL);
    CREATE TABLE event (ocel_id TEXT PRIMARY KEY, ocel_type TEXT NOT NULL,
        FOREIGN KEY (ocel_type) REFERENCES event_map_type (ocel_type));
    CREATE TABLE object (ocel_id TEXT PRIMARY KEY, ocel_type TEXT NOT NULL,
        FOREIGN KEY (ocel_type) REFERENCES object_map_type (ocel_type));
    CREATE TABLE event_object (ocel_event_id TEXT NOT NULL, ocel_object_id TEXT NOT NULL,
        ocel_qualifier TEXT NOT NULL,
        PRIMARY KEY (ocel_event_id, ocel_object_id, ocel_qualifier),
        FOREIGN KEY (ocel_event_id) REFERENCES event (ocel_id),
        FOREIGN KEY (ocel_object_id) REFERENCES object (ocel_id));
    CREATE TABLE object_object (ocel_source_id TEXT NOT NULL, ocel_target_id TEXT NOT NULL,
        ocel_qualifier TEXT NOT NULL,
        PRIMARY KEY (ocel_source_id, ocel_target_id, ocel_qualifier),
        FOREIGN KEY (ocel_source_id) REFERENCES object (ocel_id),
        FOREIGN KEY (ocel_target_id) REFERENCES object (ocel_id));
";

/// A type with its table.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub(super) table: String,
    pub(super) attributes: Vec<Attribute>,
}

/// The database while it is written.
pub(super) struct Database {
    pub(super) connection: SqliteConnection,
    part: PathBuf,
    path: PathBuf,
    pub(super) events: BTreeMap<String, Mapped>,
    pub(super) objects: BTreeMap<String, Mapped>,
}

fn failed() -> impl FnOnce(sqlx::Error) -> ExportError {
    ExportError::database("write the event log")
}

impl Database {
    /// Begins the database that will be the file `path`.
    pub(super) async fn begin(path: &Path) -> Result<Self, ExportError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.part"));
        let _ = std::fs::remove_file(&part);
        let options = SqliteConnectOptions::new()
            .filename(&part)
            .create_if_missing(true)
            // A file that is not whole is not used, and the order of insertion is free.
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(false)
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed())?;
        sqlx::raw_sql(COMMON)
            .execute(&mut connection)
            .await
            .map_err(failed())?;
        Ok(Self {
            connection,
            part,
            path: path.to_owned(),
            events: BTreeMap::new(),
            objects: BTreeMap::new(),
        })
    }

    async fn run(&mut self, sql: String) -> Result<(), ExportError> {
        let run = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.connection)
            .await;
        run.map(|_| ()).map_err(failed())
    }

    pub(super) async fn begin_batch(&mut self) -> Result<(), ExportError> {
        self.run("BEGIN".to_owned()).await
    }

    pub(super) async fn end_batch(&mut self) -> Result<(), ExportError> {
        self.run("COMMIT".to_owned()).await
    }

    pub(super) async fn add_event_type(
        &mut self,
        name: &str,
        attributes: &[Attribute],
    ) -> Result<(), ExportError> {
        if self.events.contains_key(name) {
            return Ok(());
        }
        let map = map_name(name, &self.events);
        let table = format!("event_{map}");
        let columns = columns(attributes);
        self.run(format!(
            "CREATE TABLE {table} (ocel_id TEXT PRIMARY KEY, ocel_time TIMESTAMP NOT NULL{columns}, \
             FOREIGN KEY (ocel_id) REFERENCES event (ocel_id))",
            table = quoted(&table)
        ))
        .await?;
        self.add_map("event_map_type", name, &map).await?;
        let attributes = attributes.to_vec();
        self.events
            .insert(name.to_owned(), Mapped { table, attributes });
        Ok(())
    }

    pub(super) async fn add_object_type(
        &mut self,
        name: &str,
        attributes: &[Attribute],
    ) -> Result<(), ExportError> {
        if self.objects.contains_key(name) {
            return Ok(());
        }
        let map = map_name(name, &self.objects);
        let table = format!("object_{map}");
        let columns = columns(attributes);
        self.run(format!(
            "CREATE TABLE {quoted} (ocel_id TEXT NOT NULL, ocel_time TIMESTAMP NOT NULL, \
             ocel_changed_field TEXT{columns}, FOREIGN KEY (ocel_id) REFERENCES object (ocel_id)); \
             CREATE INDEX {index} ON {quoted} (ocel_id)",
            quoted = quoted(&table),
            index = quoted(&format!("{table}_by_id"))
        ))
        .await?;
        self.add_map("object_map_type", name, &map).await?;
        let attributes = attributes.to_vec();
        self.objects
            .insert(name.to_owned(), Mapped { table, attributes });
        Ok(())
    }

    async fn add_map(&mut self, table: &str, name: &str, map: &str) -> Result<(), ExportError> {
        let insert = format!("INSERT INTO {table} VALUES (?, ?)");
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(name).bind(map);
        let added = insert.execute(&mut self.connection).await;
        added.map(|_| ()).map_err(failed())
    }

    pub(super) async fn add_event(
        &mut self,
        id: &str,
        name: &str,
        at: i64,
        attributes: &[Attribute],
        cells: &[Cell<'_>],
    ) -> Result<(), ExportError> {
        let Some(mapped) = self.events.get(name) else {
            return Ok(());
        };
        let places = ", ?".repeat(attributes.len());
        let insert = format!(
            "INSERT INTO {} VALUES (?, ?{places})",
            quoted(&mapped.table)
        );
        let event = sqlx::query("INSERT INTO event VALUES (?, ?)")
            .bind(id)
            .bind(name);
        event
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        let mut query = sqlx::query(AssertSqlSafe(insert)).bind(id).bind(time(at));
        for (attribute, cell) in attributes.iter().zip(cells) {
            query = bound(query, attribute.kind, cell);
        }
        query
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        Ok(())
    }

    /// Adds an object if it is not there.
    pub(super) async fn add_object(&mut self, id: &str, name: &str) -> Result<(), ExportError> {
        let insert = sqlx::query("INSERT OR IGNORE INTO object VALUES (?, ?)")
            .bind(id)
            .bind(name);
        let added = insert
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        if added.rows_affected() == 0 {
            return Ok(());
        }
        let Some(mapped) = self.objects.get(name) else {
            return Ok(());
        };
        let table = quoted(&mapped.table);
        let insert = format!("INSERT INTO {table} (ocel_id, ocel_time) VALUES (?, ?)");
        let first = sqlx::query(AssertSqlSafe(insert)).bind(id).bind(BEGINNING);
        first
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        Ok(())
    }

    pub(super) async fn relate(
        &mut self,
        event: &str,
        object: &str,
        qualifier: &str,
    ) -> Result<(), ExportError> {
        let insert = sqlx::query("INSERT OR IGNORE INTO event_object VALUES (?, ?, ?)");
        let insert = insert.bind(event).bind(object).bind(qualifier);
        insert
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        Ok(())
    }

    pub(super) async fn link(
        &mut self,
        source: &str,
        target: &str,
        qualifier: &str,
    ) -> Result<(), ExportError> {
        let insert = sqlx::query("INSERT OR IGNORE INTO object_object VALUES (?, ?, ?)");
        let insert = insert.bind(source).bind(target).bind(qualifier);
        insert
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        Ok(())
    }

    /// Sets an attribute of an object from a time on. The same value again is no change.
    pub(super) async fn set(
        &mut self,
        id: &str,
        name: &str,
        attribute: &str,
        at: i64,
        cell: &Cell<'_>,
    ) -> Result<(), ExportError> {
        let Some(mapped) = self.objects.get(name) else {
            return Ok(());
        };
        let kind = mapped.attributes.iter().find(|one| one.name == attribute);
        let (Some(kind), false) = (kind.map(|one| one.kind), *cell == Cell::Null) else {
            return Ok(());
        };
        let (table, column) = (quoted(&mapped.table), quoted(attribute));
        let select = format!(
            "SELECT {column} IS NULL, {column} IS ? FROM {table} \
             WHERE ocel_id = ? AND (ocel_changed_field IS NULL OR ocel_changed_field = ?) \
             ORDER BY rowid DESC LIMIT 1"
        );
        let query = bound(sqlx::query(AssertSqlSafe(select)), kind, cell);
        let row = query
            .bind(id)
            .bind(attribute)
            .fetch_optional(&mut self.connection)
            .await;
        let Some(row) = row.map_err(failed())? else {
            return Ok(());
        };
        let read = |index: usize| sqlx::Row::try_get::<bool, _>(&row, index).map_err(failed());
        let (is_first, is_same) = (read(0)?, read(1)?);
        let sql = match (is_first, is_same) {
            (false, true) => return Ok(()),
            (true, _) => format!(
                "UPDATE {table} SET {column} = ? WHERE ocel_id = ? AND ocel_changed_field IS NULL"
            ),
            (false, false) => format!(
                "INSERT INTO {table} ({column}, ocel_id, ocel_time, ocel_changed_field) \
                 VALUES (?, ?, ?, ?)"
            ),
        };
        let mut query = bound(sqlx::query(AssertSqlSafe(sql)), kind, cell).bind(id);
        if !is_first {
            query = query.bind(time(at)).bind(attribute);
        }
        query
            .execute(&mut self.connection)
            .await
            .map_err(failed())?;
        Ok(())
    }

    pub(super) async fn counts(&mut self) -> Result<OcelCounts, ExportError> {
        let mut counts = [0_u64; 3];
        for (count, table) in counts.iter_mut().zip(["event", "object", "event_object"]) {
            let select = format!("SELECT count(*) FROM {table}");
            let select = sqlx::query_scalar::<Sqlite, i64>(AssertSqlSafe(select));
            let found = select
                .fetch_one(&mut self.connection)
                .await
                .map_err(failed())?;
            *count = found.cast_unsigned();
        }
        let [events, objects, relations] = counts;
        Ok(OcelCounts {
            events,
            objects,
            relations,
        })
    }

    /// Gives the database its name.
    pub(super) async fn appear(self) -> Result<(), ExportError> {
        self.connection.close().await.map_err(failed())?;
        let file = std::fs::File::open(&self.part).and_then(|file| file.sync_all());
        file.map_err(ExportError::file("write", &self.part))?;
        let renamed = std::fs::rename(&self.part, &self.path);
        renamed.map_err(ExportError::file("rename", &self.part))?;
        sync_folder_of(&self.path)
    }

    /// Removes the database.
    pub(super) async fn discard(self) {
        let _ = self.connection.close().await;
        let _ = std::fs::remove_file(&self.part);
    }
}

/// The name of a type within the name of its table, other than those of `known`.
fn map_name(name: &str, known: &BTreeMap<String, Mapped>) -> String {
    let plain = |char: char| {
        if char.is_ascii_alphanumeric() {
            char
        } else {
            '_'
        }
    };
    let mut map: String = name.chars().map(plain).collect();
    let is_taken = |map: &str| {
        let mut tables = known.values();
        let suffix = format!("_{map}").to_ascii_lowercase();
        // The tables of relations have names of this form, too.
        matches!(map.to_ascii_lowercase().as_str(), "map_type" | "object")
            || tables.any(|one| {
                one.table
                    .to_ascii_lowercase()
                    .split_once('_')
                    .is_some_and(|(_, rest)| format!("_{rest}") == suffix)
            })
    };
    while is_taken(&map) {
        map.push('_');
    }
    map
}

fn columns(attributes: &[Attribute]) -> String {
    let column = |attribute: &Attribute| {
        let column_type = match attribute.kind {
            Kind::Int32 | Kind::Int64 => "INTEGER",
            Kind::Double => "REAL",
            Kind::Boolean => "BOOLEAN",
            Kind::Moment => "TIMESTAMP",
            _ => "TEXT",
        };
        format!(", {} {column_type}", quoted(&attribute.name))
    };
    attributes.iter().map(column).collect()
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

fn bound<'q>(query: Query<'q>, kind: Kind, cell: &Cell<'_>) -> Query<'q> {
    match cell {
        Cell::Null => query.bind(None::<String>),
        Cell::Int(number) => query.bind(*number),
        Cell::Double(number) => query.bind(*number),
        Cell::Boolean(truth) => query.bind(*truth),
        Cell::Moment(micros) => query.bind(time(*micros)),
        other => query.bind(other.shown(kind).into_owned()),
    }
}

/// A moment with all its digits, so that all have one form.
fn time(micros: i64) -> String {
    let moment = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
