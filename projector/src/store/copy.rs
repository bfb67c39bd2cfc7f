//! Rows in the binary format of COPY, for tables that a rebuild is filling.
//!
//! Source: the PostgreSQL manual, COPY, "Binary Format", and the send functions of the types.
//! Invariant: the columns are those of `sql::create_table`, in its order. Deliberately absent:
//! merging with rows that the table already has; COPY cannot do that (`sql`).

use bytes::{BufMut as _, BytesMut};
use chrono::NaiveDate;
use sqlx::PgConnection;

use crate::declare::table::{Merge, Table};
use crate::declare::value::Value;
use crate::fold::changes::{Cell, TableFold};
use crate::store::numeric::Numeric;
use crate::store::sql::{TABLE_SCHEMA, identifier};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The zero of Postgres's timestamps: 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAY: NaiveDate = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a day");

/// The statement that fills one table.
#[derive(Clone)]
pub(crate) struct Copy {
    sql: String,
}

impl Copy {
    pub(crate) fn new(physical_name: &str) -> Self {
        let table = identifier(physical_name);
        Self {
            sql: format!("COPY {TABLE_SCHEMA}.{table} FROM STDIN (FORMAT binary)"),
        }
    }

    /// Adds the rows of `fold`. None of them may be in the table yet.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        fold: &TableFold,
    ) -> Result<(), sqlx::Error> {
        let mut copy = connection.copy_in_raw(&self.sql).await?;
        copy.send(encode(fold)).await?;
        copy.finish().await?;
        Ok(())
    }
}

fn encode(fold: &TableFold) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(128 * (fold.rows.len() + 1));
    bytes.put_slice(SIGNATURE);
    // No flags, and no header extension.
    bytes.put_i64(0);
    let count = column_count(fold.table);
    for (key, cells) in &fold.rows {
        bytes.put_i16(count);
        key.iter().for_each(|value| put(&mut bytes, Some(value)));
        for (cell, column) in cells.iter().zip(fold.table.values) {
            put_cell(&mut bytes, cell, column.merge);
        }
    }
    bytes.put_i16(-1);
    bytes
}

fn column_count(table: &Table) -> i16 {
    let columns = |merge: Merge| match merge {
        Merge::Latest { .. } => 4,
        Merge::Set | Merge::Add | Merge::Min | Merge::Max => 1,
    };
    let values: usize = table.values.iter().map(|value| columns(value.merge)).sum();
    i16::try_from(1 + table.key.len() + values).expect("a table has at most 1,600 columns")
}

fn put_cell(bytes: &mut BytesMut, cell: &Cell, merge: Merge) {
    let is_latest = matches!(merge, Merge::Latest { .. });
    match cell {
        Cell::Null => {
            let columns = if is_latest { 4 } else { 1 };
            (0..columns).for_each(|_| put(bytes, None));
        }
        Cell::Value(value) => put(bytes, Some(value)),
        Cell::Latest(value, rank) => {
            put(bytes, Some(value));
            put(bytes, Some(&rank.by));
            put_number(bytes, rank.partition);
            put_number(bytes, rank.position);
        }
    }
}

fn put(bytes: &mut BytesMut, value: Option<&Value>) {
    match value {
        None => bytes.put_i32(-1),
        Some(Value::Text(text)) => put_sized(bytes, text.as_bytes()),
        Some(Value::Bytea(given)) => put_sized(bytes, given),
        Some(Value::Bigint(number)) => put_number(bytes, *number),
        Some(Value::Numeric(number)) => {
            let number = Numeric(*number);
            bytes.put_i32(i32::try_from(number.size()).expect("there are few digits"));
            number.put(bytes);
        }
        Some(Value::Timestamptz(moment)) => put_number(bytes, moment.micros() - EPOCH_MICROS),
        Some(Value::Date(day)) => {
            let days = day.signed_duration_since(EPOCH_DAY).num_days();
            let days = i32::try_from(days).expect("chrono's days are fewer than Postgres's");
            bytes.put_i32(4);
            bytes.put_i32(days);
        }
    }
}

fn put_number(bytes: &mut BytesMut, number: i64) {
    bytes.put_i32(8);
    bytes.put_i64(number);
}

fn put_sized(bytes: &mut BytesMut, given: &[u8]) {
    let size = i32::try_from(given.len()).expect("a column of a row stays below 2 GiB");
    bytes.put_i32(size);
    bytes.put_slice(given);
}
