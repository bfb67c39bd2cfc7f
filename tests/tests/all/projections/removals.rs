//! Rows that go away, and rows that belong to one stream each: in Postgres they are what applying
//! commit by commit leaves, however batches are cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::Order;
use domain::order::{OrderApproved, OrderCanceled, OrderDelivered, OrderPlaced};
use event_log::commit::Commit;
use event_log::record::{Headers, NewRecord, Record};
use event_log::subscription::Placed;
use position::{Offset, Partition, Position};
use projector::ColumnType::{Bigint, Boolean, Text};
use projector::testing::Tables;
use projector::{
    Changes, Projection, Projector, RowsOf, Rules, Table, Value, add, key, max, set, tally,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::NOW;

use super::{database, level, rows_of, scalar, shop_history, submit_all, until};
use crate::write_side::{request, start};

/// A table whose rows belong to one stream each.
const OWNED: &[Table] = &[Table {
    name: "owned",
    about: "A sample.",
    key: &[key("id", Bigint, "A number.")],
    values: &[
        tally("number", "How often."),
        set("own", Bigint, "The last number.").nullable(),
        max("greatest", Bigint, "The greatest number."),
    ],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
}];

/// What a commit does to one row, or to all rows of its stream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(i64, i64),
    Empty(i64),
    Remove(i64),
    RemoveAll,
}

type Steps = Vec<(u32, Step)>;
type Rows = BTreeMap<i64, (u32, [Option<i64>; 3])>;

/// Row changes of three streams, which mostly use keys of their own.
fn steps(random: &mut StdRng) -> Steps {
    let count = random.random_range(0..20);
    let step = |_| {
        let stream = random.random_range(0..3_u32);
        let key = random.random_range(0..3_i64);
        let key = match random.random_ratio(1, 40) {
            true => key,
            false => 3 * key + i64::from(stream),
        };
        let step = match random.random_range(0..10) {
            0..6 => Step::Put(key, random.random_range(-5..5)),
            6 => Step::Empty(key),
            7..9 => Step::Remove(key),
            _ => Step::RemoveAll,
        };
        (stream, step)
    };
    (0..count).map(step).collect()
}

/// The rows after the steps, one by one; absent if a stream changes a row of another one.
fn plainly(steps: &Steps) -> Option<Rows> {
    let mut rows = Rows::new();
    for &(stream, step) in steps {
        let (Step::Put(id, _) | Step::Empty(id) | Step::Remove(id)) = step else {
            rows.retain(|_, (owner, _)| *owner != stream);
            continue;
        };
        if rows.get(&id).is_some_and(|(owner, _)| *owner != stream) {
            return None;
        }
        if let Step::Remove(_) = step {
            rows.remove(&id);
            continue;
        }
        let (_, cells) = rows.entry(id).or_insert((stream, [None; 3]));
        match step {
            Step::Put(_, value) => {
                let [number, own, greatest] = cells;
                *number = Some(number.unwrap_or(0) + 1);
                *own = Some(value);
                *greatest = (*greatest).max(Some(value));
            }
            _ => cells[1] = None,
        }
    }
    Some(rows)
}

fn placed(stream: u32, position: u64) -> Placed {
    let value = json!({
        "commit": "0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d", "stream": format!("s-{stream}"),
        "from_version": 0, "recorded_at": "2018-01-01T00:00:00Z", "outcome": "accepted",
        "command": {"id": "c", "type": "T", "schema": 1, "data": {}},
    });
    let record = NewRecord {
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let key = format!("main/s-{stream}");
    let commit = Commit::read(key.as_bytes(), value.to_string().as_bytes()).unwrap();
    Placed {
        partition: Partition(0),
        position: Position(position),
        record: Record::at(Offset(position), record),
        at: commit.recorded_at,
        commit,
        is_checked: true,
    }
}

fn folded(steps: &[(u32, Step)]) -> Option<Changes> {
    let mut changes = Changes::new(OWNED);
    for &(stream, step) in steps {
        changes.begin(&placed(stream, 1));
        let key = |id: i64| [Value::from(id)];
        match step {
            Step::Put(id, value) => {
                let mut row = changes.row(&OWNED[0], key(id));
                row.put("number", 1_i64).put("own", value);
                row.put("greatest", value);
            }
            Step::Empty(id) => {
                changes.row(&OWNED[0], key(id)).put_nothing("own");
            }
            Step::Remove(id) => changes.remove(&OWNED[0], key(id)),
            Step::RemoveAll => changes.remove_all(&OWNED[0]),
        }
        changes.end().ok()?;
    }
    Some(changes)
}

async fn stored(connection: &mut PgConnection) -> Rows {
    let select = "SELECT id, of_stream, number, own, greatest FROM projection.owned";
    type Stored = (i64, String, Option<i64>, Option<i64>, Option<i64>);
    let rows = sqlx::query_as(select).fetch_all(connection);
    let rows: Vec<Stored> = rows.await.unwrap();
    let owner = |stream: String| stream.trim_start_matches("s-").parse().unwrap();
    let rows = rows.into_iter();
    rows.map(|(id, stream, a, b, c)| (id, (owner(stream), [a, b, c])))
        .collect()
}

#[tokio::test]
async fn rows_go_away_as_if_each_commit_were_applied_alone() {
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables = Tables::create(&mut connection, OWNED).await.unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for case in 0..150 {
        let steps = steps(&mut random);
        let mut tx = connection.begin().await.unwrap();
        let (mut rest, mut is_new, mut is_stopped) = (&steps[..], true, false);
        while !rest.is_empty() && !is_stopped {
            let size = random.random_range(1..9).min(rest.len());
            let (batch, behind) = rest.split_at(size);
            rest = behind;
            is_stopped = match folded(batch) {
                None => true,
                Some(changes) => tables.write(&mut tx, &changes, is_new).await.is_err(),
            };
            is_new = false;
        }
        let expected = plainly(&steps);
        assert_eq!(is_stopped, expected.is_none(), "case {case}: {steps:?}");
        match expected {
            None => refused += 1,
            Some(rows) => assert_eq!(stored(&mut tx).await, rows, "case {case}: {steps:?}"),
        }
        tx.rollback().await.unwrap();
    }
    assert!(refused > 2, "{refused} cases");
}

/// The lines of orders, as long as these are open.
const LINES: Table = Table {
    name: "open_lines",
    about: "The lines of open orders.",
    key: &[
        key("order_id", Text, "The order."),
        key("line", Bigint, "The number of the line."),
    ],
    values: &[
        set("seller", Text, "The seller."),
        add("price_minor", "The price, in minor units."),
        set("is_approved", Boolean, "Whether the order is approved.").or_false(),
    ],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
};

fn open_lines() -> Rules {
    Rules::new("open_lines", 1, &[LINES])
        .on::<Order, OrderPlaced>(|placed, event, changes| {
            for item in &placed.items {
                let line = Value::from(item.line);
                changes
                    .row(&LINES, [Value::from(event.stream_id()), line])
                    .put("seller", item.seller.as_str())
                    .put("price_minor", item.price.amount_minor);
            }
        })
        .on::<Order, OrderApproved>(|_, event, changes| {
            let line = Value::from(1_u32);
            let mut row = changes.row(&LINES, [Value::from(event.stream_id()), line]);
            row.put("is_approved", true);
        })
        .on::<Order, OrderDelivered>(|_, _, changes| changes.remove_all(&LINES))
        .on::<Order, OrderCanceled>(|_, event, changes| {
            let line = Value::from(2_u32);
            changes.remove(&LINES, [Value::from(event.stream_id()), line]);
        })
}

#[tokio::test]
async fn child_rows_are_the_same_merged_in_batches_at_once_and_copied() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let (apart, at_once) = (database(&postgres).await, database(&postgres).await);
    let lines: Vec<Arc<dyn Projection>> = vec![Arc::new(open_lines())];
    let projector = Projector::spawn(&log.log, &apart, &lines, 4).unwrap();
    for some in shop_history(11, 150).chunks(60) {
        submit_all(&engine, some.to_vec()).await;
        until("it has caught up", async || {
            level(&log, &apart, &lines).await
        })
        .await;
    }
    projector.stop().await.unwrap();
    let caught_up = projector::catch_up(&log.log, &at_once, &lines, Box::new(|_| {}));
    caught_up.await.unwrap();
    let rows = rows_of(&apart, &["open_lines"]).await;
    assert!(rows[0].lines().count() > 30, "{rows:?}");
    assert_eq!(rows, rows_of(&at_once, &["open_lines"]).await);
    let rebuilt = projector::rebuild(
        &log.log,
        &at_once,
        &lines,
        "open_lines",
        NOW,
        Box::new(|_| {}),
    );
    rebuilt.await.unwrap();
    assert_eq!(rows, rows_of(&at_once, &["open_lines"]).await, "copied");
    // Another program's view of the same: no line of a delivered order, and all of the open ones.
    let models = tests::harness::stack::read_models();
    let caught_up = projector::catch_up(&log.log, &apart, &models, Box::new(|_| {}));
    caught_up.await.unwrap();
    let counted = "SELECT count(*) FROM read.open_lines AS l \
        JOIN read.order_summary AS o USING (tenant, order_id) WHERE o.delivered_at IS NOT NULL";
    assert_eq!(scalar::<i64>(&apart, counted).await, 0);
}

/// Rows by seller, which several orders have: they cannot belong to one order each.
const SELLERS: Table = Table {
    name: "wrong_sellers",
    about: "A sample.",
    key: &[key("seller", Text, "The seller.")],
    values: &[tally("items", "How many items.")],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
};

#[tokio::test]
async fn a_row_that_two_streams_change_stops_the_projection_and_is_named() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let (apart, at_once) = (database(&postgres).await, database(&postgres).await);
    let sellers = Rules::new("wrong_sellers", 1, &[SELLERS]);
    let sellers = sellers.on::<Order, OrderPlaced>(|placed, _, changes| {
        for item in &placed.items {
            let seller = Value::from(item.seller.as_str());
            changes.row(&SELLERS, [seller]).put("items", 1_i64);
        }
    });
    let sellers: Vec<Arc<dyn Projection>> = vec![Arc::new(sellers)];
    let place = || crate::write_side::place();
    let mut outcomes = Vec::new();
    for number in 1..=2 {
        let order = request(&format!("order-{number}"), "PlaceOrder", "a", &place());
        submit_all(&engine, vec![order]).await;
        outcomes.push(projector::catch_up(&log.log, &apart, &sellers, Box::new(|_| {})).await);
    }
    let in_sql = outcomes.pop().unwrap().unwrap_err().to_string();
    let in_memory = projector::catch_up(&log.log, &at_once, &sellers, Box::new(|_| {}));
    let in_memory = in_memory.await.unwrap_err().to_string();
    for reason in [in_sql, in_memory] {
        for part in [
            "wrong_sellers",
            "order-1",
            "order-2",
            "belongs to the stream",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}
