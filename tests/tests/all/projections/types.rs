//! Columns of every type: rows are the same however they get into Postgres, and memory orders values
//! as Postgres does.

use std::sync::Arc;

use projector::ColumnType::{
    Bigint, Boolean, Bytea, Date, Decimal, Double, Jsonb, Text, TextArray, Timestamptz, Uuid,
};
use projector::{
    Changes, Entry, Json, ProjectError, Projection, Projector, Table, Value, add_decimal, key,
    latest, max, min, set,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::NOW;

use super::{database, level, rows_of, scalar, shop_history, submit_all, until};
use crate::write_side::start;

/// Rows that many streams share, with every rule that commutes.
const SHARED: Table = Table {
    name: "typed",
    about: "A sample.",
    key: &[
        key("is_odd", Boolean, "A boolean."),
        key("id", Uuid, "A UUID."),
    ],
    values: &[
        add_decimal("sum", 3, "A sum."),
        min("least", Decimal { scale: 2 }, "The least."),
        max("greatest", Decimal { scale: 28 }, "The greatest."),
        min("low", Double, "The least."),
        max("high", Double, "The greatest."),
        max("any", Boolean, "Whether any is.").or_false(),
        min("every", Boolean, "Whether all are."),
        min("first", Uuid, "The first."),
        min("least_tags", TextArray, "The least."),
        max("greatest_tags", TextArray, "The greatest."),
        latest("data", Jsonb, Double, "The latest by number."),
        latest("tags", TextArray, Uuid, "The latest by UUID."),
        latest("is_last", Boolean, TextArray, "The latest by tags."),
        latest(
            "price",
            Decimal { scale: 1 },
            Boolean,
            "The latest by a boolean.",
        ),
    ],
    ..Table::PLAIN
};

/// Rows of one stream each.
const OWN: Table = Table {
    name: "typed_own",
    about: "A sample.",
    key: &[
        key("stream", Text, "The stream."),
        key("position", Bigint, "The position."),
    ],
    values: &[
        set("data", Jsonb, "JSON."),
        set("tags", TextArray, "Texts."),
        set("price", Decimal { scale: 3 }, "A price."),
        set("ratio", Double, "A number."),
        set("id", Uuid, "A UUID."),
        set("shared", Uuid, "The key of the shared row."),
        set("is_odd", Boolean, "A boolean.").nullable(),
        set("at", Timestamptz, "A moment."),
        set("day", Date, "A day."),
        set("hash", Bytea, "Bytes."),
    ],
    ..Table::PLAIN
};

const TABLES: &[Table] = &[OWN, SHARED];

#[derive(Serialize)]
struct Data {
    text: &'static str,
    numbers: Vec<f64>,
    large: u64,
    none: Option<bool>,
}

pub(crate) struct Typed;

impl Projection for Typed {
    fn name(&self) -> &'static str {
        "typed"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        const TEXTS: [&str; 9] = ["", "a", "B", "é", "\0", "\"", "\\u0000", "NULL", "{a,b}"];
        let stream = entry.commit().stream.as_str();
        let seed = stream.bytes().map(u64::from).sum::<u64>() * 1_000 + entry.commit().version();
        let mut random = StdRng::seed_from_u64(seed);
        let text = *TEXTS.choose(&mut random).unwrap();
        let tags: Vec<&str> = (0..random.random_range(0..3))
            .map(|_| *TEXTS.choose(&mut random).unwrap())
            .collect();
        let scale = random.random_range(0..6);
        let price = projector::Decimal::new(random.random_range(-1_000_000..1_000_000), scale);
        let ratio = [0.0, -0.0, 0.1, -1e-300, 1e300][random.random_range(0..5)];
        let is_odd: bool = random.random();
        let id = uuid::Uuid::from_u128(random.random());
        let data = Data {
            text,
            numbers: vec![ratio, 0.1 + 0.2],
            large: u64::MAX,
            none: None,
        };
        let shared = uuid::Uuid::from_u128(random.random_range(0..5));
        changes
            .row(&TABLES[1], [Value::from(is_odd), Value::from(shared)])
            .put("sum", price)
            .put("least", price)
            .put("greatest", price)
            .put("low", ratio)
            .put("high", ratio)
            .put("any", is_odd)
            .put("every", is_odd)
            .put("first", id)
            .put("least_tags", &tags)
            .put("greatest_tags", &tags)
            .put_latest("data", Json(&data), ratio)
            .put_latest("tags", &tags, id)
            .put_latest("is_last", is_odd, &tags)
            .put_latest("price", price, is_odd);
        let position = projector::count_of(entry.position().0);
        let key = [Value::from(stream), Value::from(position)];
        changes
            .row(&TABLES[0], key)
            .put("data", Json(data))
            .put("tags", &tags)
            .put("price", price)
            .put("ratio", ratio)
            .put("id", id)
            .put("shared", shared)
            .put_if("is_odd", is_odd.then_some(true))
            .put("at", entry.commit().asked_at())
            .put("day", entry.commit().asked_at().to_utc().date_naive())
            .put("hash", entry.record_hash().0);
        Ok(())
    }
}

#[tokio::test]
async fn columns_of_every_type_are_the_same_merged_in_memory_in_sql_and_copied() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let (apart, at_once) = (database(&postgres).await, database(&postgres).await);
    let typed: Vec<Arc<dyn Projection>> = vec![Arc::new(Typed)];
    let projector = Projector::spawn(&log.log, &apart, &typed, 4).unwrap();
    for lines in shop_history(3, 60).chunks(20) {
        submit_all(&engine, lines.to_vec()).await;
        until("it has caught up", async || {
            level(&log, &apart, &typed).await
        })
        .await;
    }
    projector.stop().await.unwrap();
    let caught_up = projector::catch_up(&log.log, &at_once, &typed, Box::new(|_| {}));
    caught_up.await.unwrap();
    let views = ["typed", "typed_own"];
    let rows = rows_of(&apart, &views).await;
    assert_eq!(rows[0].lines().count(), 11, "{rows:?}");
    assert_eq!(rows, rows_of(&at_once, &views).await);
    let rebuilt = projector::rebuild(&log.log, &at_once, &typed, "typed", NOW, Box::new(|_| {}));
    rebuilt.await.unwrap();
    assert_eq!(rows, rows_of(&at_once, &views).await, "copied");

    // The sums and the extremes are those of Postgres over the single rows.
    let wrong = "SELECT count(*) FROM read.typed AS s, LATERAL (SELECT sum(price) AS sum, \
        min(ratio) AS low, max(ratio) AS high, min(tags) AS least_tags, max(tags) AS most_tags \
        FROM read.typed_own AS o WHERE coalesce(o.is_odd, false) = s.is_odd AND o.shared = s.id) \
        AS o WHERE (s.sum, s.low, s.high, s.least_tags, s.greatest_tags) \
            <> (o.sum, o.low, o.high, o.least_tags, o.most_tags)";
    assert_eq!(scalar::<i64>(&apart, wrong).await, 0);
    let plain = "SELECT bool_and(data->'large' = '18446744073709551615' \
        AND data->>'text' <> E'\\\\u0001') AND bool_or('\u{fffd}' = ANY (tags)) \
        AND bool_or(data->>'text' = '\u{fffd}') FROM read.typed_own";
    assert!(scalar::<bool>(&apart, plain).await);
}
