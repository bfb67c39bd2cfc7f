//! The kit sees what is wrong with a projection.

use kernel::{Context, messages, rejections};
use serde_json::json;

use super::*;
use crate::declare::column_type::ColumnType::{Bigint, Jsonb, Text, Timestamptz};
use crate::declare::rules::Rules;
use crate::declare::table::{RowsOf, add, key, latest, max, set, tally};
use crate::declare::value::{Json as JsonOf, Value};

messages! {
    enum Command {
        /// Notes something.
        Note {},
    }
}
messages! {
    enum Event {
        /// Something was noted on a page.
        Noted {
            /// The page.
            page: u32,
            /// The text.
            text: String,
            /// When.
            at: u32,
        },
        /// All notes of the stream were torn out.
        Torn {},
    }
}
rejections! {
    #[derive(Eq)]
    enum Rejection {
        /// There is no more room.
        Full {
            /// How many.
            pages: u32,
        } => "notes_full", "all {pages} pages are full",
    }
}

struct Notes;

impl Decider for Notes {
    const CATEGORY: &'static str = "notes";
    type State = ();
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide((): &(), _: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        Err(Rejection::Full { pages: 1 })
    }

    fn evolve((): &mut (), _: &Event, _: Timestamp) {}
}

fn noted(page: u32, text: &str, at: u32) -> Event {
    let text = text.to_owned();
    Noted { page, text, at }.into()
}

/// Two streams that write to the same pages.
fn two_streams() -> History {
    history()
        .at("2024-03-01T10:00:00Z")
        .happened::<Notes>("a", [noted(1, "first", 5), noted(2, "second", 5)])
        .at("2024-03-02T10:00:00Z")
        .happened::<Notes>("b", [noted(1, "third", 4)])
        .happened::<Notes>("a", [noted(1, "fourth", 6)])
}

const PAGES: Table = Table {
    name: "pages",
    about: "Pages.",
    key: &[key("page", Bigint, "The page.")],
    values: &[
        tally("notes", "How many notes."),
        add("at_sum", "Their times."),
        max("last_at", Timestamptz, "The last."),
        latest("text", Text, Bigint, "The text of the latest."),
        latest("data", Jsonb, Bigint, "The latest note."),
    ],
    ..Table::PLAIN
};

fn pages() -> Rules {
    Rules::new("pages", 1, &[PAGES]).on::<Notes, Noted>(|noted, event, changes| {
        changes
            .row(&PAGES, [Value::from(noted.page)])
            .put("notes", 1_i64)
            .put("at_sum", i64::from(noted.at))
            .put("last_at", event.occurred_at())
            .put_latest("text", noted.text.as_str(), noted.at)
            .put_latest("data", JsonOf(json!({"text": noted.text})), noted.at);
    })
}

#[test]
fn a_projection_whose_contributions_commute_has_the_same_rows_in_every_order() {
    two_streams()
        .then_rows(
            &pages(),
            &PAGES,
            [
                json!({"page": 1, "notes": 3, "at_sum": 15, "last_at": "2024-03-02T10:00:00Z",
                       "text": "fourth", "data": {"text": "fourth"}}),
                json!({"page": 2, "notes": 1}),
            ],
        )
        .of("other")
        .happened::<Notes>("a", [noted(1, "elsewhere", 1)])
        .then_rows(
            &pages(),
            &PAGES,
            [
                json!({"page": 1, "notes": 3}),
                json!({"page": 2, "notes": 1}),
                json!({"tenant": "other", "page": 1, "text": "elsewhere"}),
            ],
        );
}

/// What a panic says.
fn panic_of(test: impl FnOnce()) -> String {
    let test = std::panic::AssertUnwindSafe(test);
    let panic = std::panic::catch_unwind(test).expect_err("it fails");
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"").to_string())
}

#[test]
fn other_rows_than_expected_are_shown_with_their_column() {
    let row = |notes: u32| json!({"page": 1, "notes": notes});
    for (expected, said) in [
        (vec![row(3), json!({"page": 2})], ""),
        (
            vec![row(2), json!({"page": 2})],
            "notes of row 1 is 3, not 2; the rows of pages are:",
        ),
        (vec![row(3)], "there are 2 rows, not 1;"),
        (vec![json!({"pages": 1})], "there is no column pages;"),
    ] {
        let test = || drop(two_streams().then_rows(&pages(), &PAGES, expected));
        if said.is_empty() {
            test();
        } else {
            let text = panic_of(test);
            assert!(text.starts_with(said), "{text}");
        }
    }
}

/// A column that two streams set: the last one wins, whichever that is.
const LAST: Table = Table {
    name: "last",
    about: "The last text of each page.",
    key: &[key("page", Bigint, "The page.")],
    values: &[set("text", Text, "The last text.")],
    ..Table::PLAIN
};

#[test]
fn a_projection_that_depends_on_the_order_of_streams_is_caught() {
    let wrong = Rules::new("last", 1, &[LAST]).on::<Notes, Noted>(|noted, _, changes| {
        let mut row = changes.row(&LAST, [Value::from(noted.page)]);
        row.put("text", noted.text.as_str());
    });
    let text = panic_of(|| drop(two_streams().rows(&wrong, &LAST)));
    for part in [
        "the rows depend on the order of partitions or on batches: text in the row \"1\" of last is \
         \"fourth\" or \"third\"",
        "  1. notes-a Noted, Noted\n  2. notes-b Noted\n  3. notes-a Noted\n",
        "  1. notes-a Noted, Noted\n  --\n  3. notes-a Noted\n  --\n  2. notes-b Noted\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // With one stream it is right.
    let _ = history()
        .happened::<Notes>("a", [noted(1, "x", 1)])
        .rows(&wrong, &LAST);
}

const OWN: Table = Table {
    name: "own",
    about: "Notes of one stream each.",
    key: &[key("page", Bigint, "The page.")],
    values: &[set("text", Text, "The text.")],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
};

#[test]
fn a_row_of_another_stream_stops_a_projection_and_removed_rows_are_gone() {
    let own = || {
        Rules::new("own", 1, &[OWN])
            .on::<Notes, Noted>(|noted, _, changes| {
                let mut row = changes.row(&OWN, [Value::from(noted.page)]);
                row.put("text", noted.text.as_str());
            })
            .on::<Notes, Torn>(|_, _, changes| changes.remove_all(&OWN))
    };
    let text = panic_of(|| drop(two_streams().rows(&own(), &OWN)));
    let expected = "own stops: the row \"1\" of own belongs to the stream notes-a, and notes-b";
    assert!(text.starts_with(expected), "{text}");
    let torn: [Event; 1] = [Torn {}.into()];
    history()
        .happened::<Notes>("a", [noted(1, "gone", 1), noted(2, "gone", 1)])
        .happened::<Notes>("b", [noted(3, "kept", 1)])
        .happened::<Notes>("a", torn)
        .happened::<Notes>("a", [noted(2, "new", 1)])
        .then_rows(
            &own(),
            &OWN,
            [
                json!({"page": 2, "text": "new"}),
                json!({"page": 3, "text": "kept"}),
            ],
        );
}

#[test]
fn refusals_are_part_of_a_history() {
    let told = history().refused::<Notes>("a", &Rejection::Full { pages: 7 });
    let refusals = crate::Rejections;
    let table = &refusals.tables()[0];
    told.then_rows(
        &refusals,
        table,
        [json!({"stream": "notes-a", "code": "notes_full", "detail": "all 7 pages are full"})],
    );
}
