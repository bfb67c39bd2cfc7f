//! Keys and cursors: what is written can be read again, and is short enough to be sent.

use std::sync::Arc;

use chrono::NaiveDate;
use kernel::Timestamp;
use projector::{
    ColumnType, KeyColumn, Rejections, Rules, StreamIndex, Table, ValueColumn, View, key, set,
    tally,
};
use proptest::prelude::*;

use super::*;
use crate::asked::Asked;
use crate::cursor::Cursor;
use crate::statement::Statement;
use crate::values::is_day_of_postgres;

/// The most bytes of a request line and its headers, as the door serves them.
const HEAD_SIZE_MAX: usize = 16 << 10;

const DAYS: Table = Table {
    name: "days",
    about: "Days.",
    key: &[
        key("day", ColumnType::Date, "The day."),
        key("currency", ColumnType::Text, "The currency."),
    ],
    values: &[tally("orders", "How many orders.")],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

fn all() -> Vec<ShownModel> {
    shown_models(&[
        Arc::new(StreamIndex),
        Arc::new(Rejections),
        Arc::new(Rules::new("days", 1, &[DAYS])),
    ])
}

fn model(name: &str) -> ShownModel {
    all()
        .into_iter()
        .find(|shown| shown.model.name == name)
        .unwrap()
}

#[test]
fn a_key_is_read_by_its_columns_types() {
    let sales = model("days");
    let key = sales.key_of_path("2018-01-31,BRL").unwrap();
    let day = NaiveDate::from_ymd_opt(2018, 1, 31).unwrap();
    assert_eq!(key, vec![Value::Date(day), Value::from("BRL")]);
    for text in [
        "",
        "2018-01-31",
        "2018-02-30,BRL",
        "+2018-01-31,BRL",
        "x,BRL",
        "2018-01-31,\0",
    ] {
        assert_eq!(sales.key_of_path(text), None, "{text:?}");
    }
}

fn asked(shown: &ShownModel, query: &[(&str, &str)]) -> Result<Asked, door::Problem> {
    let pairs = query
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let asked = Asked::of(shown, pairs.collect())?;
    asked.require_served(shown)?;
    Ok(asked)
}

/// The code of the problem of a query.
fn refused(shown: &ShownModel, query: &[(&str, &str)]) -> String {
    match asked(shown, query) {
        Ok(asked) => panic!("{query:?} is {asked:?}"),
        Err(problem) => problem.code().to_owned(),
    }
}

#[test]
fn a_cursor_belongs_to_its_generation_its_filters_and_its_order() {
    let refusals = model("rejections");
    let one = asked(
        &refusals,
        &[("stream.prefix", "order-"), ("sort", "-stream")],
    )
    .unwrap();
    let cursor = Cursor {
        generation: 3,
        values: vec![Some(Value::from("order-1")), Some(Value::from(17_i64))],
    };
    let text = cursor.written(&refusals, &one).unwrap();
    assert_eq!(Cursor::read(&text, &refusals, &one).unwrap(), cursor);
    for other in [
        &[("stream.prefix", "order-")][..],
        &[("sort", "-stream")],
        &[],
    ] {
        let other = asked(&refusals, other).unwrap();
        let problem = Cursor::read(&text, &refusals, &other).unwrap_err();
        assert_eq!(problem.code(), "cursor_of_other_query");
    }
    let cut = &text[..text.len() - 4];
    for text in ["", "x", "W10", "YQ", "YQAxADE", "YQB4", "/w", "!", cut] {
        let problem = Cursor::read(text, &refusals, &one).unwrap_err();
        assert_eq!(problem.code(), "cursor_unknown", "{text}");
    }
}

#[test]
fn a_filter_is_typed_and_stands_once() {
    let days = model("days");
    for query in [
        &[("day", "2018-01-01")][..],
        &[
            ("day.gte", "2018-01-01"),
            ("day.lt", "2018-02-01"),
            ("orders.gt", "-5"),
        ],
        &[
            ("currency.in", "BRL"),
            ("currency.in", "EUR"),
            ("currency.prefix", ""),
        ],
        &[
            ("sort", "-orders,day,orders"),
            ("count", "true"),
            ("limit", "10"),
        ],
    ] {
        asked(&days, query).unwrap();
    }
    for query in [
        &[("day", "2018-02-30")][..],
        &[("day", "")],
        &[("day.prefix", "2018")],
        &[("day.", "2018-01-01")],
        &[("day.null", "true")],
        &[("orders", "1.0")],
        &[("orders", "9223372036854775808")],
        &[("tenant", "acme")],
        &[("day;--", "2018-01-01")],
        &[("day", "2018-01-01"), ("day", "2018-01-01")],
        &[("sort", "day"), ("sort", "day")],
        &[("sort", "")],
        &[("sort", "day desc")],
        &[("sort", "tenant")],
        &[("count", "1")],
        &[("limit", "0")],
        &[("color", "red")],
    ] {
        assert_eq!(refused(&days, query), "query_invalid", "{query:?}");
    }
    let many: Vec<String> = (0..=100).map(|number| number.to_string()).collect();
    let many: Vec<_> = many
        .iter()
        .map(|text| ("orders.in", text.as_str()))
        .collect();
    assert_eq!(refused(&days, &many), "query_invalid");
    asked(&days, &many[1..]).unwrap();
}

#[test]
fn a_query_that_would_read_a_large_table_is_refused() {
    let refusals = model("rejections");
    for query in [&[("position", "1")][..], &[("sort", "position")]] {
        assert_eq!(refused(&refusals, query), "query_unindexed", "{query:?}");
    }
    let both = [
        ("position.gte", "1"),
        ("stream", "order-1"),
        ("sort", "position"),
    ];
    asked(&refusals, &both).unwrap();
}

#[test]
fn each_page_is_a_range_of_its_order() {
    const TASKS: Table = Table {
        name: "tasks",
        about: "Tasks.",
        key: &[key("id", ColumnType::Bigint, "The task.")],
        values: &[NULLABLE],
        view: View::FEW_ROWS,
        ..Table::PLAIN
    };
    const NULLABLE: ValueColumn = set("due", ColumnType::Date, "When.").nullable();
    let projection: Arc<dyn Projection> = Arc::new(Rules::new("tasks", 1, &[TASKS]));
    let tasks = shown_models(&[projection]).pop().unwrap();
    let day = Value::Date(NaiveDate::from_ymd_opt(2018, 1, 31).unwrap());
    let rows = |query: &[(&str, &str)], after: &[Option<Value>]| {
        let asked = asked(&tasks, query).unwrap();
        let statement = Statement::page(&tasks, "main", &asked, Some(after), Some(11));
        let text = statement.text().split_once("p.\"due\" FROM (").unwrap().1;
        text.trim_end_matches(") AS p").to_owned()
    };
    let select = "SELECT \"id\", \"due\" FROM read.\"tasks\" WHERE tenant = $2";
    let one = Some(Value::from(1_i64));
    assert_eq!(
        rows(
            &[("sort", "-id"), ("due", "2018-01-31")],
            std::slice::from_ref(&one)
        ),
        format!("{select} AND \"due\" = $3 AND (\"id\") < ($5) ORDER BY \"id\" DESC LIMIT $4")
    );
    let order = "ORDER BY \"due\", \"id\" LIMIT $3";
    assert_eq!(
        rows(&[("sort", "due")], &[Some(day.clone()), one.clone()]),
        format!(
            "SELECT * FROM (({select} AND \"due\" > $4 {order}) \
             UNION ALL ({select} AND \"due\" IS NULL {order}) \
             UNION ALL ({select} AND \"due\" = $4 AND \"id\" > $5 {order})) AS r {order}"
        )
    );
    assert_eq!(
        rows(&[("sort", "due")], &[None, one.clone()]),
        format!(
            "SELECT * FROM (({select} AND \"due\" IS NULL AND \"id\" > $4 {order})) AS r {order}"
        )
    );
    let order = "ORDER BY \"due\" DESC, \"id\" DESC LIMIT $3";
    assert_eq!(
        rows(&[("sort", "-due")], &[None, one]),
        format!(
            "SELECT * FROM (({select} AND \"due\" IS NOT NULL {order}) \
             UNION ALL ({select} AND \"due\" IS NULL AND \"id\" < $4 {order})) AS r {order}"
        )
    );
}

#[test]
fn only_read_models_for_people_are_shown() {
    let shown = all();
    let names: Vec<&str> = shown.iter().map(|shown| shown.model.name).collect();
    // `stream_commits` is for SQL only.
    assert_eq!(names, ["days", "rejections", "stream_index"]);
}

fn key_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        // Each of these takes many bytes in some escaped form.
        proptest::collection::vec(
            prop_oneof![Just('\u{1}'), Just('"'), Just('😀'), Just(',')],
            0..700
        )
        .prop_map(String::from_iter),
    ];
    let day = (-4_713..=262_142, 1..=366_u32);
    let day = day.prop_filter_map("no such day", |(year, day)| {
        NaiveDate::from_yo_opt(year, day)
    });
    let moment = (-62_135_596_800_000_000..=253_402_300_799_999_999_i64)
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap());
    prop_oneof![
        4 => text.prop_map(|text| Value::from(text.as_str())),
        1 => any::<i64>().prop_map(Value::Bigint),
        1 => moment.prop_map(Value::Timestamptz),
        1 => day.prop_filter("Postgres", |day| is_day_of_postgres(*day)).prop_map(Value::Date),
        1 => any::<[u8; 32]>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<u128>().prop_map(|id| Value::from(uuid::Uuid::from_u128(id))),
    ]
}

/// A read model with a key of these values' types.
fn model_of(values: &[Value]) -> ShownModel {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let columns = NAMES.iter().zip(values);
    let columns: Vec<KeyColumn> = columns
        .map(|(name, value)| key(name, value.column_type(), "A column."))
        .collect();
    let table = Table {
        name: "odd",
        about: "Odd keys.",
        key: columns.leak(),
        ..Table::PLAIN
    };
    let projection: Arc<dyn Projection> = Arc::new(Rules::new("odd", 1, vec![table].leak()));
    shown_models(&[projection]).pop().unwrap()
}

proptest! {
    #[test]
    fn every_cursor_can_be_sent_back_and_names_its_row(
        values in proptest::collection::vec(key_value(), 1..=5),
    ) {
        let stored: Vec<Value> = values.into_iter().map(Value::into_key).collect();
        let model = model_of(&stored);
        let asked = asked(&model, &[]).unwrap();
        let cursor = Cursor { generation: i32::MAX, values: stored.into_iter().map(Some).collect() };
        let text = cursor.written(&model, &asked).unwrap();
        let (length, max) = (text.len(), model.cursor_length_max);
        prop_assert!(length <= max, "{} characters of at most {}", length, max);
        prop_assert!(max < HEAD_SIZE_MAX, "{} characters", max);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(Cursor::read(&text, &model, &asked).unwrap(), cursor);
    }

    #[test]
    fn a_row_is_found_by_its_whole_key_and_by_the_key_that_it_shows(text in "\\PC{0,700}") {
        let stored = [Value::from(text.as_str()).into_key()];
        let model = model_of(&stored);
        let Value::Text(shown) = &stored[0] else { unreachable!() };
        prop_assert_eq!(model.key_of_path(&text), Some(stored.to_vec()));
        prop_assert_eq!(model.key_of_path(shown), Some(stored.to_vec()));
    }
}
