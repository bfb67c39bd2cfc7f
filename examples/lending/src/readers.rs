//! The read model `readers`: what each reader borrowed and brought back.
//!
//! A projection declares its tables, each column with a rule how contributions add up, and says what
//! one commit contributes. It knows nothing of Postgres: the runtime writes the rows, each exactly
//! once, and makes them anew from the log when the version below is raised. Deliberately absent:
//! anything that would have to be looked up; what is needed stands in the events.

use kernel::Decider;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, column,
    count, key, max, tally,
};

use crate::book::{Book, Event};

// The columns of the table. All of them commute, so that books in different partitions can be
// folded side by side.
const READERS: Table = Table {
    name: "readers",
    key: &[key("reader", ColumnType::Bigint)],
    values: &[
        tally("borrowed"),
        tally("returned"),
        tally("late"),
        max("last_borrowed_at", ColumnType::Timestamptz),
    ],
};

// What is shown of it: under `/v1/read/readers`, and as `read.readers` in SQL.
const MODELS: &[Model] = &[Model {
    name: "readers",
    about: "Readers with the books they borrowed, brought back, and brought back late.",
    table: "readers",
    joins: "",
    filter: None,
    columns: &[
        column("reader", ColumnType::Bigint),
        count("borrowed"),
        count("returned"),
        count("late"),
        column("last_borrowed_at", ColumnType::Timestamptz),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `readers`.
#[derive(Clone, Copy, Debug)]
pub struct Readers;

impl Projection for Readers {
    fn name(&self) -> &'static str {
        "readers"
    }

    /// Raised with every change of what stands in this file; then: `annals projections rebuild`.
    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[READERS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() != Book::CATEGORY {
            return Ok(());
        }
        for (event, occurred_at) in entry.events::<Event>()?.iter() {
            match event {
                Event::BookLent(lent) => {
                    changes
                        .row(&READERS, [Value::from(lent.reader)])
                        .put("borrowed", 1_i64)
                        .put("last_borrowed_at", *occurred_at);
                }
                Event::BookReturned(returned) => {
                    changes
                        .row(&READERS, [Value::from(returned.reader)])
                        .put("returned", 1_i64)
                        .put("late", i64::from(*occurred_at > returned.due));
                }
            }
        }
        Ok(())
    }
}
