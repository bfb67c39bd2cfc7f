//! The read model `loan_periods`: which books were lent at which time, as ranges of time.
//!
//! Declarations have no ranges; so this projection writes its rows with SQL of its own. It gets the
//! transaction that also moves its checkpoint: each event has its effect exactly once, as
//! everywhere. Prefer rules where they can say it; their order is checked by tests, and a fault of one
//! stream holds up that stream alone.

use annals::Decider as _;
use annals::read_model::ColumnType::{Bigint, Text, Timestamptz};
use annals::read_model::{
    SqlColumn, SqlCommit, SqlError, SqlProjection, SqlTransaction, Table, Takes, View, key, set,
    sqlx,
};

use crate::book::{Book, Event};

/// The times at which books were lent.
pub const LOAN_PERIODS: Table = Table {
    name: "loan_periods",
    about: "When each book was lent, as ranges of time.",
    key: &[
        key("book", Text, "The book."),
        key("lent_at", Timestamptz, "When it was lent."),
    ],
    values: &[
        set("reader", Bigint, "The number of the reader's card."),
        set("returned_at", Timestamptz, "When it came back.").nullable(),
    ],
    view: View {
        sql_only: &[SqlColumn {
            name: "lent_during",
            expression: "r.lent_during",
            about: "From when to when it was lent; without an end while it is lent.",
        }],
        ..View::WHOLE
    },
    ..Table::PLAIN
};

/// The projection `loan_periods`.
pub struct LoanPeriods;

impl SqlProjection for LoanPeriods {
    fn name(&self) -> &'static str {
        "loan_periods"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[LOAN_PERIODS]
    }

    fn takes(&self) -> Vec<Takes> {
        let of_book = |event| Takes {
            category: Book::CATEGORY,
            event,
        };
        ["BookLent", "BookReturned"].map(of_book).to_vec()
    }

    fn prepare(&self) -> &'static str {
        "ALTER TABLE {loan_periods} ADD COLUMN lent_during tstzrange NOT NULL \
             GENERATED ALWAYS AS (tstzrange(lent_at, returned_at)) STORED; \
         CREATE INDEX ON {loan_periods} USING gist (lent_during)"
    }

    async fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> Result<(), SqlError> {
        for commit in commits {
            for (event, occurred_at) in commit.events::<Book>()? {
                let (sql, reader, lent_at, returned_at) = match &event {
                    Event::BookLent(lent) => (
                        "INSERT INTO {loan_periods} (tenant, book, lent_at, returned_at, reader) \
                         VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (tenant, book, lent_at) \
                         DO UPDATE SET returned_at = $4, reader = $5",
                        lent.reader,
                        occurred_at,
                        None,
                    ),
                    Event::BookReturned(returned) => (
                        "UPDATE {loan_periods} SET returned_at = $4, reader = $5 \
                         WHERE tenant = $1 AND book = $2 AND lent_at = $3",
                        returned.reader,
                        returned.lent_at,
                        Some(occurred_at),
                    ),
                };
                sqlx::query(transaction.statement(sql))
                    .bind(commit.tenant())
                    .bind(commit.stream_id())
                    .bind(lent_at.to_utc())
                    .bind(returned_at.map(|at| at.to_utc()))
                    .bind(i64::from(reader))
                    .execute(transaction.connection())
                    .await?;
            }
        }
        Ok(())
    }
}
