//! What the read models must hold after an import, computed by SQL from the raw files. The SQL
//! shares nothing with the engine, its rules or its importer.
//!
//! Invariant: COPY brings the files into Postgres, cell by cell and unchanged; only `oracle/*.sql`
//! decides which rows can be read and what the business decides. Deliberately absent: columns that
//! only the engine knows (ids, details, recorded times, places in the log).

use std::fmt;
use std::io;
use std::path::Path;

use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, PgPool, Row};

use super::files::{FILE_NAMES, HEADERS};

/// How many rows of each kind a difference shows.
const ROWS_SHOWN_MAX: i64 = 5;

/// The compared read models, each with the query for its expected rows.
pub const MODELS: [(&str, &str); 8] = [
    (
        "order_summary",
        include_str!("../../oracle/order_summary.sql"),
    ),
    ("daily_sales", include_str!("../../oracle/daily_sales.sql")),
    (
        "seller_sales",
        include_str!("../../oracle/seller_sales.sql"),
    ),
    (
        "customer_orders",
        include_str!("../../oracle/customer_orders.sql"),
    ),
    ("payment_mix", include_str!("../../oracle/payment_mix.sql")),
    (
        "delivery_days",
        include_str!("../../oracle/delivery_days.sql"),
    ),
    ("rejections", include_str!("../../oracle/rejections.sql")),
    (
        "stream_index",
        include_str!("../../oracle/stream_index.sql"),
    ),
];

/// What an import of the same files must report.
const REPORTS: [(&str, &str); 2] = [
    ("commands", include_str!("../../oracle/commands.sql")),
    ("unreadable", include_str!("../../oracle/unreadable.sql")),
];

const RAW: &str = include_str!("../../oracle/1_raw.sql");
const READABLE: &str = include_str!("../../oracle/2_readable.sql");
const JUDGED: &str = include_str!("../../oracle/3_judged.sql");

const TABLES: [&str; 5] = [
    "orders",
    "order_items",
    "order_payments",
    "order_reviews",
    "customers",
];

/// Loads the five files of `folder` into the schema `raw`. From them, makes one table for each read
/// model in the schema `expected`, and the tables `commands` and `unreadable` for the report of the
/// import.
///
/// Earlier tables of these schemas are dropped.
///
/// # Errors
/// Any error of a file or of the database.
pub async fn load(pool: &PgPool, folder: &Path) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(RAW).execute(pool).await?;
    for ((name, header), table) in FILE_NAMES.into_iter().zip(HEADERS).zip(TABLES) {
        let content = std::fs::read(folder.join(name))?;
        let rows = as_copy_input(&content, header)?;
        let statement = format!("COPY raw.{table} FROM STDIN (FORMAT csv, NULL '{MISSING}')");
        let mut copy = pool.copy_in_raw(&statement).await?;
        copy.send(rows).await?;
        copy.finish().await?;
    }
    sqlx::raw_sql(READABLE).execute(pool).await?;
    sqlx::raw_sql(JUDGED).execute(pool).await?;
    for (name, query) in MODELS.into_iter().chain(REPORTS) {
        let statement = format!("CREATE TABLE expected.{name} AS {query}");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// The difference between a read model and its expected rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The read model.
    pub model: &'static str,
    /// How many expected rows are missing.
    pub rows_missing: i64,
    /// How many rows are there that are not expected.
    pub rows_excess: i64,
    /// The first of these rows as JSON, sorted by all columns, so that the two versions of a wrong
    /// row are next to each other.
    pub shown: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read.{} lacks {} rows and has {} too many:",
            self.model, self.rows_missing, self.rows_excess
        )?;
        for row in &self.shown {
            write!(f, "\n  {row}")?;
        }
        Ok(())
    }
}

/// Compares every read model in the schema `read` with the rows that [`load`] computed, row by row
/// in both directions.
///
/// # Errors
/// Any error of the database, such as a missing column.
pub async fn compare(pool: &PgPool) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    for (model, _) in MODELS {
        differences.extend(compare_model(pool, model).await?);
    }
    Ok(differences)
}

async fn compare_model(
    pool: &PgPool,
    model: &'static str,
) -> Result<Option<Difference>, sqlx::Error> {
    let columns: String = sqlx::query_scalar(
        "SELECT string_agg(column_name, ', ' ORDER BY ordinal_position)
         FROM information_schema.columns WHERE table_schema = 'expected' AND table_name = $1",
    )
    .bind(model)
    .fetch_one(pool)
    .await?;
    let statement = format!(
        "WITH missing AS (
             SELECT {columns} FROM expected.{model} EXCEPT ALL SELECT {columns} FROM read.{model}
         ), excess AS (
             SELECT {columns} FROM read.{model} EXCEPT ALL SELECT {columns} FROM expected.{model}
         ), shown AS (
             (SELECT 'missing' AS side, row_to_json(m)::text AS line FROM missing m
              ORDER BY m LIMIT {ROWS_SHOWN_MAX})
             UNION ALL
             (SELECT 'excess', row_to_json(e)::text FROM excess e
              ORDER BY e LIMIT {ROWS_SHOWN_MAX})
         )
         SELECT (SELECT count(*) FROM missing), (SELECT count(*) FROM excess),
                (SELECT array_agg(side || ' ' || line ORDER BY line, side DESC) FROM shown)"
    );
    let row = sqlx::query(AssertSqlSafe(statement))
        .fetch_one(pool)
        .await?;
    let (rows_missing, rows_excess) = (row.try_get(0)?, row.try_get(1)?);
    if (rows_missing, rows_excess) == (0, 0) {
        return Ok(None);
    }
    Ok(Some(Difference {
        model,
        rows_missing,
        rows_excess,
        shown: row.try_get(2)?,
    }))
}

/// What COPY gets for a cell that the record does not have.
const MISSING: &str = "@missing@";

/// Puts the record's index, its line and whether it is whole before each record. COPY gets the
/// cells unchanged, except where it could not take them: too few or too many cells, and bytes that
/// are not UTF-8.
fn as_copy_input(content: &[u8], header: &str) -> io::Result<Vec<u8>> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut records = Records { content, line: 1 };
    let first = records.next().map(|record| record.cells.join(&b','));
    if first.as_deref() != Some(header.as_bytes()) {
        let message = format!("a file does not begin with {header}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let width = header.split(',').count();
    let mut input = Vec::new();
    for (place, record) in records.enumerate() {
        let is_text = |cell: &&[u8]| str::from_utf8(cell).is_ok() && !cell.contains(&0);
        let is_whole = record.cells.len() == width && record.cells.iter().all(is_text);
        input.extend_from_slice(format!("{place},{},{is_whole}", record.line).as_bytes());
        for nth in 0..width {
            let cell = record.cells.get(nth).copied();
            let cell = cell.unwrap_or(MISSING.as_bytes());
            let text = String::from_utf8_lossy(cell).replace('\0', "\u{fffd}");
            input.push(b',');
            input.extend_from_slice(text.as_bytes());
        }
        input.push(b'\n');
    }
    Ok(input)
}

/// One record of a CSV file, with its cells unchanged, quotes included.
struct Record<'a> {
    line: u64,
    cells: Vec<&'a [u8]>,
}

/// Cuts a CSV file into records: at line ends and commas that are not between quotes.
struct Records<'a> {
    content: &'a [u8],
    line: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while let [b'\r' | b'\n', ..] = self.content {
            self.line += u64::from(self.content[0] == b'\n');
            self.content = &self.content[1..];
        }
        if self.content.is_empty() {
            return None;
        }
        let (content, line) = (self.content, self.line);
        let (mut cells, mut begin, mut is_quoted) = (Vec::new(), 0, false);
        let mut end = content.len();
        for (place, byte) in content.iter().enumerate() {
            match byte {
                b'"' => is_quoted = !is_quoted,
                b'\n' if is_quoted => self.line += 1,
                b'\r' | b'\n' if !is_quoted => {
                    end = place;
                    break;
                }
                b',' if !is_quoted => {
                    cells.push(&content[begin..place]);
                    begin = place + 1;
                }
                _ => {}
            }
        }
        cells.push(&content[begin..end]);
        self.content = &content[end..];
        Some(Record { line, cells })
    }
}
