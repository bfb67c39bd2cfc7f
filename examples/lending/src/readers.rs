//! The read model `readers`: what each reader borrowed and returned.
//!
//! A projection declares its tables, with a rule for each column how contributions are combined,
//! and states what one event contributes. It does not know of Postgres: the runtime applies each
//! event exactly once, and makes the rows again from the log when the version below is raised.
//! Deliberately absent: look-ups of other data; the events hold everything that is needed.

use annals::read_model::{ColumnType, Rules, Table, Value, key, max, tally};

use crate::book::{Book, BookLent, BookReturned};

// The contributions to all columns commute, so books in different partitions can be folded in
// parallel. The table is shown under `/v1/read/readers`, and as `read.readers` in SQL.
/// Readers with their books.
pub const READERS: Table = Table {
    name: "readers",
    about: "Readers with the books they borrowed, brought back, and brought back late.",
    key: &[key(
        "reader",
        ColumnType::Bigint,
        "The number of the reader's card.",
    )],
    values: &[
        tally("borrowed", "How many books the reader borrowed."),
        tally("returned", "How many of them the reader brought back."),
        tally("late", "How many of these came back after they were due."),
        max(
            "last_borrowed_at",
            ColumnType::Timestamptz,
            "When the last book was borrowed.",
        ),
    ],
    ..Table::PLAIN
};

/// The rules of `readers`.
#[must_use]
pub fn readers() -> Rules {
    // Raise the version with every change in this file. A new version is built beside the old one:
    // `annals projections switch readers` shows it.
    Rules::new("readers", 1, &[READERS])
        .on::<Book, BookLent>(|lent, event, changes| {
            changes
                .row(&READERS, [Value::from(lent.reader)])
                .put("borrowed", 1_i64)
                .put("last_borrowed_at", event.occurred_at());
        })
        .on::<Book, BookReturned>(|returned, event, changes| {
            changes
                .row(&READERS, [Value::from(returned.reader)])
                .put("returned", 1_i64)
                .put("late", i64::from(event.occurred_at() > returned.due));
        })
}
