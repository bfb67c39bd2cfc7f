//! Rows in the binary format of COPY, for tables that a rebuild is filling.
//!
//! Source: the PostgreSQL manual, COPY, "Binary Format", and the send functions of the types.
//! Invariant: the columns are those of `sql::create_table`, in its order. Deliberately absent:
//! merging with rows that the table already has; COPY cannot do that (`sql`).

use bytes::{BufMut as _, BytesMut};
use chrono::NaiveDate;
use sqlx::PgConnection;

use crate::declare::table::{Merge, RowsOf, Table};
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::Remaining;
use crate::store::numeric::Numeric;
use crate::store::sql::qualified_table;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The zero of Postgres's timestamps: 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The version of `jsonb`'s binary format, and the identity of the type `text`.
const JSONB_VERSION: u8 = 1;
const TEXT_OID: u32 = 25;
const EPOCH_DAY: NaiveDate = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a day");

/// The statement that fills one table.
#[derive(Clone)]
pub(crate) struct Copy {
    sql: String,
}

impl Copy {
    pub(crate) fn new(physical_name: &str) -> Self {
        let table = qualified_table(physical_name);
        Self {
            sql: format!("COPY {table} FROM STDIN (FORMAT binary)"),
        }
    }

    /// Adds rows. None of them may be in the table yet.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        table: &Table,
        rows: &[Remaining<'_>],
    ) -> Result<(), sqlx::Error> {
        let mut copy = connection.copy_in_raw(&self.sql).await?;
        copy.send(encode(table, rows)).await?;
        copy.finish().await?;
        Ok(())
    }
}

fn encode(table: &Table, rows: &[Remaining<'_>]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(128 * (rows.len() + 1));
    bytes.put_slice(SIGNATURE);
    // No flags, and no header extension.
    bytes.put_i64(0);
    let count = column_count(table);
    for Remaining { key, cells, owner } in rows {
        bytes.put_i16(count);
        key.iter().for_each(|value| put(&mut bytes, Some(value)));
        if let Some(owner) = owner {
            put_sized(&mut bytes, owner.as_str().as_bytes());
        }
        for (cell, column) in cells.iter().zip(table.values) {
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
    let owners = usize::from(table.rows == RowsOf::OneStream);
    i16::try_from(1 + table.key.len() + owners + values).expect("a table has at most 1,600 columns")
}

fn put_cell(bytes: &mut BytesMut, cell: &Cell, merge: Merge) {
    let is_latest = matches!(merge, Merge::Latest { .. });
    match cell {
        Cell::Null | Cell::Emptied => {
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
        Some(Value::Numeric(number)) => put_numeric(bytes, Numeric::from(*number)),
        Some(Value::Decimal(number)) => put_numeric(bytes, Numeric::from(&**number)),
        Some(Value::Double(number)) => put_sized(bytes, &number.get().to_be_bytes()),
        Some(Value::Boolean(truth)) => put_sized(bytes, &[u8::from(*truth)]),
        Some(Value::Uuid(id)) => put_sized(bytes, id.as_bytes()),
        Some(Value::Timestamptz(moment)) => put_number(bytes, moment.micros() - EPOCH_MICROS),
        Some(Value::Date(day)) => {
            let days = day.signed_duration_since(EPOCH_DAY).num_days();
            let days = i32::try_from(days).expect("chrono's days are fewer than Postgres's");
            bytes.put_i32(4);
            bytes.put_i32(days);
        }
        Some(Value::Jsonb(json)) => {
            bytes.put_i32(size_of_bytes(1 + json.len()));
            bytes.put_u8(JSONB_VERSION);
            bytes.put_slice(json.as_bytes());
        }
        Some(Value::TextArray(texts)) => put_texts(bytes, texts),
    }
}

fn put_numeric(bytes: &mut BytesMut, number: Numeric) {
    bytes.put_i32(size_of_bytes(number.size()));
    number.put(bytes);
}

/// An array in the format of `array_send`: dimensions, whether it has nulls, the type of its
/// elements; for each dimension its length and first index; the elements.
fn put_texts(bytes: &mut BytesMut, texts: &[Box<str>]) {
    let dimensions = i32::from(!texts.is_empty());
    let elements: usize = texts.iter().map(|text| 4 + text.len()).sum();
    let head = if texts.is_empty() { 12 } else { 20 };
    bytes.put_i32(size_of_bytes(head + elements));
    bytes.put_i32(dimensions);
    bytes.put_i32(0);
    bytes.put_u32(TEXT_OID);
    if !texts.is_empty() {
        bytes.put_i32(size_of_bytes(texts.len()));
        bytes.put_i32(1);
    }
    for text in texts {
        put_sized(bytes, text.as_bytes());
    }
}

fn put_number(bytes: &mut BytesMut, number: i64) {
    bytes.put_i32(8);
    bytes.put_i64(number);
}

fn put_sized(bytes: &mut BytesMut, given: &[u8]) {
    bytes.put_i32(size_of_bytes(given.len()));
    bytes.put_slice(given);
}

fn size_of_bytes(size: usize) -> i32 {
    i32::try_from(size).expect("a column of a row stays below 2 GiB")
}
