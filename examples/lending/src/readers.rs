//! The read model `readers`: what each reader borrowed and brought back.
//!
//! A projection declares its tables, each column with a rule how contributions add up, and says what
//! one event contributes. It knows nothing of Postgres: the runtime writes the rows, each exactly
//! once, and makes them anew from the log when the version below is raised. Deliberately absent:
//! anything that would have to be looked up; what is needed stands in the events.

use projector::{ColumnType, Rules, Table, Value, View, key, max, tally};

use crate::book::{Book, BookLent, BookReturned};

// All columns commute, so that books in different partitions can be folded side by side. The table is
// shown under `/v1/read/readers`, and as `read.readers` in SQL.
const READERS: Table = Table {
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
    view: View::WHOLE,
};

/// The rules of `readers`.
#[must_use]
pub fn readers() -> Rules {
    // The version is raised with every change of what stands in this file; then:
    // `annals projections rebuild readers`.
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
