//! The read models of loans: `open_loans`, a list from which a book goes when it comes back, and
//! `loans`, a row for each time that a book was lent.
//!
//! A book's stream alone changes the rows of its loans; so they can go away, and a rebuild gives the
//! same rows. Deliberately absent: what a reader borrowed in all; many books contribute to that
//! (`readers`).

use annals::Decider as _;
use annals::read_model::ColumnType::{Bigint, Boolean, Jsonb, Text, Timestamptz};
use annals::read_model::{Json, KeyIs, RowsOf, Rules, Table, Value, asc, desc, index, key, set};
use serde::Serialize;

use crate::book::{Book, BookLent, BookReturned};

/// Microseconds in a day.
const DAY_MICROS: i64 = 86_400_000_000;
/// From so many days on, a loan is long.
const LONG_DAYS: i64 = 30;

/// The books that are lent now.
pub const OPEN_LOANS: Table = Table {
    name: "open_loans",
    about: "The books that are lent now.",
    key: &[key("book", Text, "The book.")],
    values: &[
        set("reader", Bigint, "The number of the reader's card."),
        set("due", Timestamptz, "When it must be back."),
        set(
            "is_long",
            Boolean,
            "Whether it is lent for thirty days or more.",
        ),
    ],
    rows: RowsOf::OneStream,
    key_is: KeyIs::StreamId(Book::CATEGORY),
    ..Table::PLAIN
};

/// Every loan, also those that ended.
pub const LOANS: Table = Table {
    name: "loans",
    about: "Every loan of every book.",
    key: &[
        key("book", Text, "The book."),
        key("lent_at", Timestamptz, "When it was lent."),
    ],
    values: &[
        set("reader", Bigint, "The number of the reader's card."),
        set("is_late", Boolean, "Whether it came back late.").or_false(),
        set("details", Jsonb, "How long it was lent and kept, in days."),
    ],
    rows: RowsOf::OneStream,
    key_is: KeyIs::StreamId(Book::CATEGORY),
    indexes: &[index(&[asc("reader"), desc("lent_at")])],
    ..Table::PLAIN
};

/// What is kept of a loan as JSON.
#[derive(Serialize)]
struct Details {
    lent_days: i64,
    kept_days: Option<i64>,
}

fn days(from: annals::Timestamp, to: annals::Timestamp) -> i64 {
    (to.micros() - from.micros()).div_euclid(DAY_MICROS)
}

/// The rules of `open_loans` and `loans`.
#[must_use]
pub fn loans() -> Rules {
    Rules::new("loans", 1, &[OPEN_LOANS, LOANS])
        .on::<Book, BookLent>(|lent, event, changes| {
            let lent_days = days(event.occurred_at(), lent.due);
            let book = || Value::from(event.stream_id());
            changes
                .row(&OPEN_LOANS, [book()])
                .put("reader", lent.reader)
                .put("due", lent.due)
                .put("is_long", lent_days >= LONG_DAYS);
            let details = Details {
                lent_days,
                kept_days: None,
            };
            changes
                .row(&LOANS, [book(), Value::from(event.occurred_at())])
                .put("reader", lent.reader)
                .put("details", Json(details));
        })
        .on::<Book, BookReturned>(|returned, event, changes| {
            let book = || Value::from(event.stream_id());
            changes.remove(&OPEN_LOANS, [book()]);
            let details = Details {
                lent_days: days(returned.lent_at, returned.due),
                kept_days: Some(days(returned.lent_at, event.occurred_at())),
            };
            changes
                .row(&LOANS, [book(), Value::from(returned.lent_at)])
                .put("is_late", event.occurred_at() > returned.due)
                .put("details", Json(details));
        })
}
