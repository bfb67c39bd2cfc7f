//! Read models as of any moment: exactly what a replay of the log up to that moment gives.

use std::sync::Arc;

use domain::Order;
use domain::order::{OrderApproved, OrderCanceled, OrderPlaced};
use event_log::accepted::read_accepted;
use event_log::commit::Commit;
use event_log::log::{EventLog, LogError};
use kernel::Timestamp;
use position::Partition;
use projector::ColumnType::{Bigint, Date, Jsonb, Text, TextArray, Timestamptz};
use projector::{
    History, Json, Operator, ParkedWish, Projection, Projector, RowsOf, Rules, Table, Value, add,
    key, latest, max, min, set, tally,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;

use super::{Sample, database, level, rows_of, scalar, shop_history, submit_all, until};
use crate::raw_log::edit;
use crate::write_side::start;

/// Rows of every rule: some go away and come again, some are fed by all partitions.
const OPEN: &[Table] = &[
    Table {
        name: "open_items",
        about: "Items of orders that were not canceled.",
        key: &[key("place", Text, "The order and the line.")],
        values: &[
            set("seller", Text, "The seller."),
            set("note", Text, "A note that comes and goes.").nullable(),
            set("data", Jsonb, "Some data.").nullable(),
            tally("approvals", "How often the order was approved."),
            latest("last", Text, Timestamptz, "What came last."),
        ],
        rows: RowsOf::OneStream,
        ..Table::PLAIN
    },
    Table {
        name: "orders_by_size",
        about: "Orders by their number of items.",
        key: &[key("items", Bigint, "The number of items.")],
        values: &[
            tally("orders", "How many."),
            add("total", "What they cost."),
            min("first_day", Date, "The first day."),
            max("tags", TextArray, "The greatest tags.").nullable(),
            latest("latest", Text, Timestamptz, "The latest."),
        ],
        ..Table::PLAIN
    },
];

fn place(id: &str, line: usize) -> [Value; 1] {
    [Value::from(format!("{id}/{line}").as_str())]
}

fn open(history: History) -> Arc<dyn Projection> {
    let rules = Rules::new("open_items", 1, OPEN)
        .history(history)
        .on::<Order, OrderPlaced>(|placed, at, changes| {
            for line in 0..placed.items.len() {
                changes
                    .row(&OPEN[0], place(at.stream_id(), line))
                    .put("seller", format!("seller {line}").as_str())
                    .put("note", "placed")
                    .put("approvals", 0_i64)
                    .put_latest("last", "placed", at.occurred_at());
            }
            let items = i64::try_from(placed.items.len()).unwrap();
            let tag = at.stream_id();
            changes
                .row(&OPEN[1], [Value::from(items)])
                .put("orders", 1_i64)
                .put("total", placed.items_minor)
                .put("first_day", at.occurred_at().to_utc().date_naive())
                .put("tags", &[tag, "b"][..])
                .put_latest("latest", tag, at.occurred_at());
        })
        .on::<Order, OrderApproved>(|_, at, changes| {
            let data = Json(serde_json::json!({"approved": true}));
            changes
                .row(&OPEN[0], place(at.stream_id(), 0))
                .put("seller", "the first")
                .put_nothing("note")
                .put("data", data)
                .put("approvals", 1_i64)
                .put_latest("last", "approved", at.occurred_at());
            // It goes, and comes again with the next event.
            changes.remove(&OPEN[0], place(at.stream_id(), 1));
        })
        .on::<Order, OrderCanceled>(|_, at, changes| {
            changes.remove_all(&OPEN[0]);
            // In the same commit another one takes its place.
            if at.stream_id().ends_with('3') {
                changes
                    .row(&OPEN[0], place(at.stream_id(), 9))
                    .put("seller", "nobody")
                    .put("approvals", 0_i64)
                    .put_latest("last", "canceled", at.occurred_at());
            }
        });
    Arc::new(rules)
}

/// A moment: how far each partition has got, as the setting `annals.as_of` has it.
struct Moment {
    setting: String,
    /// The first offset of each partition that does not belong to it.
    ends: Vec<(Partition, u64)>,
}

/// What the log accepted: partition, offset, position and time, in each partition's order.
async fn accepted(log: &dyn EventLog) -> Vec<(Partition, u64, u64, Timestamp)> {
    let mut found = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let stop = read_accepted(log, partition, |record, position| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let commit = Commit::read(key.unwrap(), value.unwrap()).unwrap();
            found.push((partition, record.offset.0, position.0, commit.recorded_at));
            Ok::<(), LogError>(())
        });
        assert!(stop.await.unwrap().is_none());
    }
    found
}

/// Moments between the commits: half of them the same time in all partitions.
async fn moments(log: &dyn EventLog, random: &mut StdRng, count: usize) -> Vec<Moment> {
    let all = accepted(log).await;
    let partitions = (0..log.partition_count()).map(Partition);
    let mut moments = Vec::new();
    for number in 0..count {
        let is_time = number % 2 == 0;
        let time = all[random.random_range(0..all.len())].3;
        let (mut ends, mut entries) = (Vec::new(), Vec::new());
        for partition in partitions.clone() {
            let own = || all.iter().filter(|one| one.0 == partition);
            let count = match is_time {
                true => own().filter(|one| one.3 <= time).count(),
                false => random.random_range(0..=own().count()),
            };
            let first = own().nth(count).map_or(u64::MAX, |(_, offset, ..)| *offset);
            ends.push((partition, first));
            if let Some((.., position, at)) = count.checked_sub(1).and_then(|last| own().nth(last))
            {
                entries.push(format!("\"{}\": [\"{at}\", {position}]", partition.0));
            }
        }
        let setting = match is_time {
            true => time.to_string(),
            false => format!("{{{}}}", entries.join(", ")),
        };
        moments.push(Moment { setting, ends });
    }
    moments
}

/// The log as it was at a moment, in a file of its own.
async fn cut(log: &NewLog, moment: &Moment, folder: &tempfile::TempDir) -> Arc<dyn EventLog> {
    let path = folder.path().join("cut.db");
    let mut file = edit(&log.folder.path().join("log.db")).await;
    let copy = format!("VACUUM INTO '{}'", path.display());
    sqlx::raw_sql(AssertSqlSafe(copy))
        .execute(&mut file)
        .await
        .unwrap();
    let mut file = edit(&path).await;
    for (partition, end) in &moment.ends {
        let delete = "DELETE FROM record WHERE partition = $1 AND \"offset\" >= $2";
        sqlx::query(delete)
            .bind(i64::from(partition.0))
            .bind(i64::try_from(*end).unwrap_or(i64::MAX))
            .execute(&mut file)
            .await
            .unwrap();
    }
    file.close().await.unwrap();
    let address = event_log::log::LogAddress::Sqlite { path };
    event_log::log::open(&address).await.unwrap()
}

/// All rows of some views as of a moment, as text.
pub(super) async fn rows_as_of(url: &str, views: &[&str], moment: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("SELECT set_config('annals.as_of', $1, false)")
        .bind(moment)
        .execute(&mut connection)
        .await
        .unwrap();
    let mut rows = Vec::new();
    for view in views {
        let sql = format!(
            "SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') \
             FROM read_as_of.{view} AS r"
        );
        let text: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        rows.push(format!("{view}\n{text}"));
    }
    rows
}

const VIEWS: [&str; 9] = [
    "order_summary",
    "daily_sales",
    "seller_sales",
    "customer_orders",
    "payment_mix",
    "delivery_days",
    "rejections",
    "open_items",
    "orders_by_size",
];

pub(super) fn all_models() -> Vec<Arc<dyn Projection>> {
    let mut all = read_models();
    all.push(open(History::Full));
    all
}

async fn fold(log: &Arc<dyn EventLog>, url: &str, all: &[Arc<dyn Projection>]) {
    let done = projector::catch_up(log, url, all, Box::new(|_| {}));
    done.await.unwrap();
}

#[tokio::test]
async fn read_models_as_of_a_moment_are_what_a_replay_up_to_it_gives() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = all_models();
    // Taken up in pieces of all sizes, so that partitions are not level meanwhile.
    let projector = Projector::spawn(&log.log, &url, &all, 3).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let mut lines = shop_history(21, 120);
    while !lines.is_empty() {
        let piece = lines.len().min(random.random_range(1..200));
        let rest = lines.split_off(piece);
        submit_all(&engine, std::mem::replace(&mut lines, rest)).await;
    }
    // And by copying all at once.
    let rebuilt = database(&postgres).await;
    fold(&log.log, &rebuilt, &all).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    projector.stop().await.unwrap();
    let mut differing = 0;
    let present = rows_of(&url, &VIEWS).await;
    for moment in moments(&*log.log, &mut random, 10).await {
        let folder = tempfile::tempdir().unwrap();
        let cut = cut(&log, &moment, &folder).await;
        let replayed = database(&postgres).await;
        fold(&cut, &replayed, &all).await;
        let expected = rows_of(&replayed, &VIEWS).await;
        let found = rows_as_of(&url, &VIEWS, &moment.setting).await;
        assert_eq!(found, expected, "as of {}", moment.setting);
        let found = rows_as_of(&rebuilt, &VIEWS, &moment.setting).await;
        assert_eq!(found, expected, "rebuilt, as of {}", moment.setting);
        differing += usize::from(expected != present);
    }
    assert!(differing > 5, "{differing}");
    // Without a moment, and at one to come, the past is the present.
    for moment in ["", "infinity", "2999-01-01T00:00:00Z"] {
        assert_eq!(rows_as_of(&url, &VIEWS, moment).await, present);
    }
    let before = rows_as_of(&url, &["open_items"], "2000-01-01T00:00:00Z").await;
    assert_eq!(before, ["open_items\n"]);
}

#[tokio::test]
async fn a_stream_that_was_parked_takes_its_place_in_the_past() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let sample = |fails_at| -> Vec<Arc<dyn Projection>> {
        vec![Arc::new(Sample {
            name: "sample",
            version: 1,
            fails_at,
        })]
    };
    submit_all(&engine, shop_history(3, 80)).await;
    fold(&log.log, &url, &sample(Some("order-17"))).await;
    let healthy = sample(None);
    let mut operator = Operator::connect(&url, &healthy).await.unwrap();
    let actor = projector::Actor {
        name: "me",
        reason: "a test",
    };
    let wish = operator.wish("sample", "main", "order-17", ParkedWish::Retry, actor);
    wish.await.unwrap();
    let projector = Projector::spawn(&log.log, &url, &healthy, 2).unwrap();
    let parked = "SELECT count(*) FROM annals.parked";
    until("it is taken up", async || {
        scalar::<i64>(&url, parked).await == 0
    })
    .await;
    projector.stop().await.unwrap();
    let mut random = StdRng::seed_from_u64(5);
    for moment in moments(&*log.log, &mut random, 8).await {
        let folder = tempfile::tempdir().unwrap();
        let cut = cut(&log, &moment, &folder).await;
        let replayed = database(&postgres).await;
        fold(&cut, &replayed, &healthy).await;
        let expected = rows_of(&replayed, &["sample"]).await;
        let found = rows_as_of(&url, &["sample"], &moment.setting).await;
        assert_eq!(found, expected, "as of {}", moment.setting);
    }
}

#[tokio::test]
async fn a_coarse_history_shows_the_ends_of_its_intervals_and_keeps_less() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let coarse = [open(History::Second)];
    let projector = Projector::spawn(&log.log, &url, &coarse, 2).unwrap();
    for lines in shop_history(9, 60).chunks(60) {
        submit_all(&engine, lines.to_vec()).await;
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    }
    until("it has caught up", async || {
        level(&log, &url, &coarse).await
    })
    .await;
    projector.stop().await.unwrap();
    let full = database(&postgres).await;
    fold(&log.log, &full, &[open(History::Full)]).await;
    let views = ["open_items", "orders_by_size"];
    let all = accepted(&*log.log).await;
    let mut shown = 0;
    for (.., time) in all.iter().step_by(all.len() / 9) {
        let whole = History::Second.moment(*time).to_string();
        let expected = rows_as_of(&full, &views, &whole).await;
        let found = rows_as_of(&url, &views, &time.to_string()).await;
        assert_eq!(found, expected, "as of {time}");
        shown += usize::from(expected[0].len() > views[0].len() + 1);
    }
    assert!(shown > 0, "{shown}");
    assert_eq!(
        rows_as_of(&url, &views, "").await,
        rows_of(&full, &views).await
    );
    // One version for each row, partition and second.
    let kept = "SELECT count(*) FROM projection.orders_by_size_v1_g1_history";
    let seconds = "SELECT count(DISTINCT (tenant, items, version_partition, \
                       ceil(extract(epoch FROM version_at)))) \
                   FROM projection.orders_by_size_v1_g1_history";
    let (few, many) = (
        scalar::<i64>(&url, kept).await,
        scalar::<i64>(&full, kept).await,
    );
    assert_eq!(few, scalar::<i64>(&full, seconds).await);
    assert!(few < many, "{few} of {many}");
}

#[tokio::test]
async fn every_version_of_a_row_is_listed_with_its_time_and_the_commit_that_ended_it() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    submit_all(&engine, shop_history(13, 40)).await;
    let all = all_models();
    fold(&log.log, &url, &all).await;
    for view in VIEWS {
        // At its beginning each version is what the read model was then, and nothing is left out.
        let columns = format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
             WHERE attrelid = 'read.{view}'::regclass AND attnum > 0"
        );
        let columns: String = scalar(&url, &columns).await;
        let times = format!(
            "SELECT coalesce(array_agg(t::text), '{{}}') FROM (SELECT DISTINCT version_from AS t \
             FROM read_history.{view} ORDER BY 1) AS t WHERE random() < 0.2"
        );
        let times: Vec<String> = scalar(&url, &times).await;
        for time in times.iter().take(12) {
            let listed = format!(
                "SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') FROM (\
                 SELECT {columns} FROM read_history.{view} WHERE version_from <= '{time}' \
                 AND (version_until IS NULL OR version_until > '{time}')) AS r"
            );
            let listed: String = scalar(&url, &listed).await;
            let expected = rows_as_of(&url, &[view], time).await;
            assert_eq!(format!("{view}\n{listed}"), expected[0], "at {time}");
        }
        let open = format!(
            "SELECT count(*) FROM read_history.{view} \
             WHERE (version_until IS NULL) <> (version_ended_position IS NULL)"
        );
        assert_eq!(scalar::<i64>(&url, &open).await, 0);
    }
}
