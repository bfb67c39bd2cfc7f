//! What the library allows with a book.

use annals::Timestamp;
use annals::testing::{Given, given_nothing};
use lending::Book;
use lending::book::{BookLent, BookReturned, LendBook, Rejection, ReturnBook};

fn day(day: u8) -> Timestamp {
    let text = format!("2024-03-{day:02}T10:00:00Z");
    text.parse().expect("a day in March")
}

fn lend(reader: u32, due: u8) -> LendBook {
    let due = day(due);
    LendBook { reader, due }
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

/// A book that was lent to reader 7 on the 1st, until the 15th.
fn lent_on_the_1st() -> Given<Book> {
    given_nothing().at(day(1)).happened([lent(7, 15)])
}

/// The same, and it came back on the 9th.
fn back_on_the_9th() -> Given<Book> {
    lent_on_the_1st().at(day(9)).happened([returned(7, 1, 15)])
}

#[test]
fn lends_a_book_that_is_there() {
    given_nothing::<Book>()
        .at(day(1))
        .when(lend(7, 15))
        .then([lent(7, 15)]);
    back_on_the_9th()
        .at(day(10))
        .when(lend(8, 20))
        .then([lent(8, 20)]);
}

#[test]
fn lends_to_one_reader_at_a_time() {
    lent_on_the_1st()
        .at(day(2))
        .when(lend(8, 20))
        .then_refused(Rejection::AlreadyLent { due: day(15) });
}

#[test]
fn refuses_a_loan_that_ends_before_it_begins() {
    given_nothing::<Book>()
        .at(day(1))
        .when(lend(7, 1))
        .then_refused(Rejection::DueTooEarly { due: day(1) });
}

#[test]
fn a_return_tells_who_had_the_book_and_how_long() {
    lent_on_the_1st()
        .at(day(20))
        .when(ReturnBook {})
        .then([returned(7, 1, 15)]);
}

#[test]
fn only_a_lent_book_comes_back() {
    given_nothing::<Book>()
        .when(ReturnBook {})
        .then_refused(Rejection::NotLent);
}

#[test]
fn a_command_that_has_been_true_since_its_time_adds_nothing() {
    lent_on_the_1st()
        .when(lend(7, 15))
        .dated(day(1))
        .then_nothing();
    back_on_the_9th()
        .when(ReturnBook {})
        .dated(day(9))
        .then_nothing();
}

#[test]
fn two_requests_at_the_time_of_the_clock_are_two() {
    lent_on_the_1st()
        .when(lend(7, 15))
        .then_refused(Rejection::AlreadyLent { due: day(15) })
        .happened([returned(7, 1, 15)])
        .when(ReturnBook {})
        .then_refused(Rejection::NotLent)
        .when(lend(7, 15))
        .then([lent(7, 15)]);
}

#[test]
fn refuses_a_command_dated_before_the_last_loan_or_return() {
    back_on_the_9th()
        .when(lend(7, 15))
        .dated(day(1))
        .then_refused(Rejection::Superseded { since: day(9) })
        .at(day(10))
        .happened([lent(8, 20)])
        .when(ReturnBook {})
        .dated(day(9))
        .then_refused(Rejection::Superseded { since: day(10) });
}
