//! B12: commands on the embedded log, against a loop that commits the same records to a table of
//! the same shape.

use std::path::Path;
use std::time::Instant;

use async_trait::async_trait;
use event_log::record::NewRecord;
use position::Partition;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, QueryBuilder, Sqlite, SqliteConnection};
use tests::harness::logs::Kind;

use super::{Bench, Size, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::raw::per_second;
use crate::work::{self, WAIT, WriteSide};

const PARTITIONS: u32 = 16;
/// How many records the hand-written loop commits in one transaction.
const GROUP: usize = 2_048;
/// How many records one statement inserts.
const ROWS_PER_STATEMENT: usize = 64;

/// Commands on the embedded log.
pub struct Embedded {
    size: Size,
    /// Whether each command waits for the answer to the one before.
    one_by_one: bool,
    commands: usize,
    records: Vec<(Partition, NewRecord)>,
}

impl Embedded {
    pub fn new(size: Size, one_by_one: bool) -> Self {
        let commands = match one_by_one {
            true => size.of(1_000, 5_000),
            false => size.of(20_000, 200_000),
        };
        Self {
            size,
            one_by_one,
            commands,
            records: Vec::new(),
        }
    }

    async fn ours(&self, side: &WriteSide) -> f64 {
        if !self.one_by_one {
            return side
                .commands_per_second(self.size.seed, self.commands)
                .await;
        }
        let began = Instant::now();
        for number in 0..self.commands {
            let command = side.engine.prepare(work::place(self.size.seed, number));
            let command = command.expect("a well-formed command");
            let answer = side.engine.submit(command, Instant::now() + WAIT).await;
            answer.expect("an accepted command");
        }
        per_second(self.commands, began.elapsed())
    }

    async fn theirs(&self) -> f64 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut table = RawTable::make(&folder.path().join("raw.db")).await;
        let group = if self.one_by_one { 1 } else { GROUP };
        let began = Instant::now();
        for records in self.records.chunks(group) {
            table.commit(records).await;
        }
        per_second(self.records.len(), began.elapsed())
    }
}

/// A table like that of the log, committed to with the same durability.
struct RawTable {
    connection: SqliteConnection,
    next: i64,
}

impl RawTable {
    async fn make(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let mut connection = options.connect().await.expect("a file");
        let table = "CREATE TABLE record (id INTEGER PRIMARY KEY, key BLOB, value BLOB, \
                     headers BLOB NOT NULL, appended_at_ms INTEGER NOT NULL)";
        connection.execute(table).await.expect("a table");
        Self {
            connection,
            next: 0,
        }
    }

    async fn commit(&mut self, records: &[(Partition, NewRecord)]) {
        if records.len() <= ROWS_PER_STATEMENT {
            return insert(&mut self.connection, &mut self.next, records).await;
        }
        let begun = self.connection.begin_with("BEGIN IMMEDIATE").await;
        let mut tx = begun.expect("a transaction");
        for rows in records.chunks(ROWS_PER_STATEMENT) {
            insert(&mut tx, &mut self.next, rows).await;
        }
        tx.commit().await.expect("a commit");
    }
}

/// Inserts the rows in one statement; outside of a transaction, the statement is one by itself.
async fn insert(
    connection: &mut SqliteConnection,
    next: &mut i64,
    rows: &[(Partition, NewRecord)],
) {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO record ");
    insert.push_values(rows, |mut row, (_, record)| {
        row.push_bind(*next)
            .push_bind(record.key.as_deref())
            .push_bind(record.value.as_deref())
            .push_bind(record.headers.packed().as_ref())
            .push_bind(0_i64);
        *next += 1;
    });
    insert.build().execute(connection).await.expect("rows");
}

#[async_trait(?Send)]
impl Bench for Embedded {
    fn subjects(&self) -> Vec<Subject> {
        let (work, against) = match self.one_by_one {
            true => (
                "commands one by one on the embedded log",
                "a commit for each",
            ),
            false => (
                "many commands in flight on the embedded log",
                "group commits",
            ),
        };
        vec![Subject {
            row: "B12".to_owned(),
            work: work.to_owned(),
            against: format!("{against}, by hand"),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.6),
        }]
    }

    async fn prepare(&mut self) {
        let side = WriteSide::start(Kind::Sqlite, PARTITIONS).await;
        self.ours(&side).await;
        self.records = work::records_of(&side.stop().await).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let ours = async {
            let side = WriteSide::start(Kind::Sqlite, PARTITIONS).await;
            let rate = self.ours(&side).await;
            side.stop().await;
            rate
        };
        one_pair(ours_first, ours, self.theirs()).await
    }
}
