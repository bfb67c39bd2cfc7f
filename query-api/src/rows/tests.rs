//! Keys and cursors: what is written can be read again, and is short enough to be sent.

use projector::{Rejections, Rules, StreamIndex, Table, View, key, tally};
use proptest::prelude::*;

use super::*;

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
    view: View::WHOLE,
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

#[test]
fn a_cursor_names_the_row_it_was_made_of() {
    let refusals = model("rejections");
    let row = ShownRow {
        model: Arc::clone(&refusals.model),
        values: [Json::from("order-1"), Json::from(17)]
            .into_iter()
            .chain(["i", "c", "c", "d", "o", "r"].map(Json::from))
            .chain([Json::from(3)])
            .collect(),
    };
    let key = refusals.key_of_cursor(&refusals.cursor_of(&row)).unwrap();
    assert_eq!(key, vec![Value::from("order-1"), Value::from(17_i64)]);
    for cursor in ["", "x", "W10", "YQ", "YQAxADE", "YQB4", "/w", "!"] {
        assert_eq!(refusals.key_of_cursor(cursor), None, "{cursor}");
    }
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
    ]
}

/// The value as Postgres gives it back and the door shows it.
fn shown_as(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(&**text),
        Value::Bigint(number) => Json::from(*number),
        Value::Numeric(_) => unreachable!("a sum is no part of a key"),
        Value::Timestamptz(moment) => Json::from(moment.to_string()),
        Value::Date(day) => Json::from(day.to_string()),
        Value::Bytea(bytes) => Json::from(hex::encode(bytes)),
    }
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
        values: &[],
        view: View::WHOLE,
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
        let row = ShownRow {
            model: Arc::clone(&model.model),
            values: stored.iter().map(shown_as).collect(),
        };
        let cursor = model.cursor_of(&row);
        let (length, max) = (cursor.len(), model.cursor_length_max);
        prop_assert!(length <= max, "{} characters of at most {}", length, max);
        prop_assert!(max < HEAD_SIZE_MAX, "{} characters", max);
        prop_assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(model.key_of_cursor(&cursor), Some(stored));
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
