//! What the library's read models show of loans.

use annals::Timestamp;
use annals::testing::{History, history};
use lending::book::{BookLent, BookReturned};
use lending::loans::{LOANS, OPEN_LOANS};
use lending::readers::READERS;
use lending::{Book, loans, readers};
use serde_json::json;

fn day(day: u8) -> Timestamp {
    let text = format!("2024-03-{day:02}T10:00:00Z");
    text.parse().expect("a day in March")
}

fn lent(reader: u32, due: u8) -> BookLent {
    let due = day(due);
    BookLent { reader, due }
}

fn returned(reader: u32, lent_at: u8, due: u8) -> BookReturned {
    let (lent_at, due) = (day(lent_at), day(due));
    BookReturned {
        reader,
        lent_at,
        due,
    }
}

/// Reader 7 borrowed two books and brought one of them back late.
fn two_books() -> History {
    history()
        .at(day(1))
        .happened::<Book>("1", [lent(7, 15)])
        .at(day(2))
        .happened::<Book>("2", [lent(7, 31)])
        .at(day(20))
        .happened::<Book>("1", [returned(7, 1, 15)])
}

#[test]
fn a_book_is_on_the_list_until_it_comes_back() {
    two_books()
        .then_rows(&loans(), &OPEN_LOANS, [json!({"book": "2", "reader": 7})])
        .at(day(21))
        .happened::<Book>("1", [lent(8, 28)])
        .then_rows(
            &loans(),
            &OPEN_LOANS,
            [
                json!({"book": "1", "reader": 8, "due": day(28), "is_long": false}),
                json!({"book": "2", "reader": 7, "due": day(31), "is_long": false}),
            ],
        );
}

#[test]
fn a_loan_that_ended_stays_in_the_history() {
    two_books().then_rows(
        &loans(),
        &LOANS,
        [
            json!({"book": "1", "lent_at": day(1), "reader": 7, "is_late": true,
                   "details": {"lent_days": 14, "kept_days": 19}}),
            json!({"book": "2", "lent_at": day(2), "reader": 7, "is_late": false,
                   "details": {"lent_days": 29, "kept_days": null}}),
        ],
    );
}

#[test]
fn books_in_any_order_make_the_same_row_of_a_reader() {
    two_books().then_rows(
        &readers(),
        &READERS,
        [json!({"reader": 7, "borrowed": 2, "returned": 1, "late": 1})],
    );
}
