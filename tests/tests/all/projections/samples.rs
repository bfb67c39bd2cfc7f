//! A few streams folded afresh: the rows that differ from them are found, by command and beside the
//! running projector, and nothing else is called different, however busy the log is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Order;
use domain::order::{OrderApproved, OrderCanceled, OrderPlaced};
use engine::command::Request;
use event_log::log::EventLog;
use projector::ColumnType::{Bigint, Text, Timestamptz};
use projector::{
    Projection, Projector, ProjectorOptions, RowsOf, Rules, SampleOf, Sampled, Table, Value, key,
    latest, set, tally,
};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;

use super::before_reads::before_reads;
use super::{caught_up, database, execute, level, scalar, shop_history, submit_all, until};
use crate::write_side::start;

const ALL: SampleOf = SampleOf {
    streams: 10_000,
    seed: 7,
};

/// The open orders, with a row for each item; and their number by day of the month, which all orders
/// feed.
const OPEN: &[Table] = &[
    Table {
        name: "open_items",
        about: "Items of orders that were not canceled.",
        key: &[key("place", Text, "The order and the line.")],
        values: &[
            set("seller", Text, "The seller."),
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
        values: &[tally("orders", "How many.")],
        ..Table::PLAIN
    },
];

fn open() -> Vec<Arc<dyn Projection>> {
    open_of(1)
}

fn open_of(version: u32) -> Vec<Arc<dyn Projection>> {
    let rules = Rules::new("open_items", version, OPEN)
        .on::<Order, OrderPlaced>(|placed, at, changes| {
            for line in 0..placed.items.len() {
                let seller = format!("seller {line}");
                changes
                    .row(
                        &OPEN[0],
                        [Value::from(format!("{}/{line}", at.stream_id()).as_str())],
                    )
                    .put("seller", seller.as_str())
                    .put("approvals", 0_i64)
                    .put_latest("last", "placed", at.occurred_at());
            }
            let items = i64::try_from(placed.items.len()).unwrap();
            changes
                .row(&OPEN[1], [Value::from(items)])
                .put("orders", 1_i64);
        })
        .on::<Order, OrderApproved>(|_, at, changes| {
            changes
                .row(
                    &OPEN[0],
                    [Value::from(format!("{}/0", at.stream_id()).as_str())],
                )
                .put("seller", "the first")
                .put("approvals", 1_i64)
                .put_latest("last", "approved", at.occurred_at());
        })
        .on::<Order, OrderCanceled>(|_, _, changes| changes.remove_all(&OPEN[0]));
    projector::with_general(vec![Arc::new(rules)])
}

/// A history with a tenant of its own.
fn history(seed: u64, orders: u32) -> Vec<Request> {
    let of_tenant = |line| Request {
        tenant: format!("t{seed}").parse().unwrap(),
        ..line
    };
    let lines = shop_history(seed, orders).into_iter();
    lines.map(of_tenant).collect()
}

async fn sample(
    log: &NewLog,
    url: &str,
    all: &[Arc<dyn Projection>],
    name: &str,
    of: SampleOf,
) -> Sampled {
    let sampled = projector::verify_sample(&log.log, url, all, name, of).await;
    sampled.unwrap()
}

/// What differs, as `table key column`, once each.
fn differing(sampled: &Sampled) -> Vec<String> {
    let mut found = Vec::new();
    for table in &sampled.tables {
        let differences = table.differences.iter().map(|(_, one)| {
            let column = one.column.as_deref().unwrap_or(match one.live {
                Some(_) => "surplus",
                None => "missing",
            });
            format!("{} {} {column}", table.table, one.key)
        });
        found.extend(differences);
    }
    found.sort();
    found.dedup();
    found
}

async fn table_of(url: &str, projection: &str) -> String {
    let sql = format!(
        "SELECT tables[1] FROM annals.generation WHERE projection = '{projection}' \
         AND state = 'live'"
    );
    scalar(url, &sql).await
}

#[tokio::test]
async fn a_sample_finds_what_was_changed_missing_or_too_much() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    submit_all(&engine, shop_history(3, 60)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = open();
    let run: &Arc<dyn EventLog> = &log.log;
    projector::catch_up(run, &url, &all, Box::new(|_| {}))
        .await
        .unwrap();
    let found = sample(&log, &url, &all, "open_items", ALL).await;
    assert!(found.is_equal(), "{found:?}");
    assert!(!found.is_whole());
    assert_eq!(found.skipped, ["orders_by_size"]);
    let rows: i64 = scalar(&url, "SELECT count(*) FROM read.open_items").await;
    assert!(rows > 20, "{rows}");
    assert_eq!(found.tables[0].rows, rows.cast_unsigned());
    assert!(found.tables[0].not_compared.is_empty());
    let table = table_of(&url, "open_items").await;
    let two = "SELECT array_agg(place) FROM (SELECT DISTINCT ON (of_stream) place FROM \
               projection.open_items_v1_g1 ORDER BY of_stream LIMIT 3) AS t";
    let places: Vec<String> = scalar(&url, two).await;
    let [changed, missing, copied] = &places[..] else {
        panic!("{places:?}");
    };
    let edit = format!(
        "UPDATE projection.{table} SET approvals = approvals + 7 WHERE place = '{changed}'; \
         DELETE FROM projection.{table} WHERE place = '{missing}'; \
         INSERT INTO projection.{table} SELECT tenant, 'copy', of_stream, seller, approvals, last, \
             last_by, last_partition, last_position FROM projection.{table} WHERE place = '{copied}'"
    );
    execute(&url, &edit).await;
    let found = sample(&log, &url, &all, "open_items", ALL).await;
    assert_eq!(found.tables[0].differing, 3);
    let mut expected = [
        format!("open_items (main,{changed}) approvals"),
        format!("open_items (main,{missing}) missing"),
        "open_items (main,copy) surplus".to_owned(),
    ];
    expected.sort();
    assert_eq!(differing(&found), expected);
    // A few streams: the same number finds the same ones.
    let few = |seed| SampleOf { streams: 5, seed };
    let first = sample(&log, &url, &all, "open_items", few(1)).await;
    assert_eq!(first.streams, 5);
    assert_eq!(sample(&log, &url, &all, "open_items", few(1)).await, first);
    let mut others = Vec::new();
    for seed in 2..20 {
        others.push(sample(&log, &url, &all, "open_items", few(seed)).await);
    }
    assert!(others.iter().any(|other| *other != first));
}

#[tokio::test]
async fn columns_that_one_stream_writes_are_compared_while_the_log_goes_on() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    submit_all(&engine, history(1, 60)).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    let writes = async {
        for seed in 2..6 {
            submit_all(&engine, history(seed, 60)).await;
        }
    };
    let samples = async {
        let mut compared = 0;
        for seed in 0..12 {
            let of = SampleOf { streams: 40, seed };
            // The last two look at whole commits, refused ones included.
            for name in [
                "order_summary",
                "customer_orders",
                "rejections",
                "stream_index",
            ] {
                let found = sample(&log, &url, &all, name, of).await;
                assert!(found.is_equal(), "{name}: {found:?}");
                compared += found.streams;
            }
        }
        compared
    };
    let ((), compared) = tokio::join!(writes, samples);
    assert!(compared > 500, "{compared}");
    // Nothing but sums: no stream can tell.
    let found = sample(&log, &url, &all, "daily_sales", ALL).await;
    assert_eq!((found.streams, found.tables.len()), (0, 0));
    assert_eq!(found.skipped, ["daily_sales"]);
    until("it has caught up", async || level(&log, &url, &all).await).await;
    projector.stop().await.unwrap();
    let table = table_of(&url, "order_summary").await;
    let edit = format!(
        "UPDATE projection.{table} SET status = 'lost' WHERE order_id = '7' AND tenant = 't1'; \
         DELETE FROM projection.{table} WHERE order_id = '8' AND tenant = 't1'"
    );
    execute(&url, &edit).await;
    let found = sample(&log, &url, &all, "order_summary", ALL).await;
    let expected = [
        "order_summary (t1,7) status",
        "order_summary (t1,8) missing",
    ];
    assert_eq!(differing(&found), expected);
    let of_orders = &found.tables[0].not_compared;
    assert!(
        of_orders.contains(&"review_count".to_owned()),
        "{of_orders:?}"
    );
}

#[tokio::test]
async fn a_running_projector_warns_of_rows_that_differ_until_they_are_mended() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    submit_all(&engine, shop_history(5, 20)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    let all = read_models();
    let options = ProjectorOptions {
        verify_every: Some(Duration::from_millis(10)),
        ..ProjectorOptions::from(1)
    };
    // Two processes take turns.
    let processes = [1, 2].map(|_| Projector::spawn(&log.log, &url, &all, options).unwrap());
    let table = table_of(&url, "order_summary").await;
    let status = format!("SELECT status FROM projection.{table} WHERE order_id = '7'");
    let status: String = scalar(&url, &status).await;
    let set = async |status: &str| {
        let edit =
            format!("UPDATE projection.{table} SET status = '{status}' WHERE order_id = '7'");
        execute(&url, &edit).await;
    };
    set("lost").await;
    let warning = "order_summary: column status of row (main,7) in order_summary differs from the \
                   log; annals projections verify order_summary";
    for projector in &processes {
        until("it warns", async || projector.warnings() == [warning]).await;
        until("it is ready nevertheless", async || {
            projector.ready().is_ok()
        })
        .await;
    }
    // The command that it names finds the same.
    let name = "order_summary";
    let verify = projector::Purpose::Verify;
    let verified = projector::rebuild(&log.log, &url, &all, name, verify, Box::new(|_| {}));
    assert!(!verified.await.unwrap().comparison.unwrap().equal);
    set(&status).await;
    for projector in &processes {
        until("it is content", async || projector.warnings().is_empty()).await;
    }
    // A rebuild mends it, too.
    set("lost").await;
    for projector in &processes {
        until("it warns", async || projector.warnings() == [warning]).await;
    }
    let now = tests::harness::stack::NOW;
    let rebuilt = projector::rebuild(&log.log, &url, &all, "order_summary", now, Box::new(|_| {}));
    rebuilt.await.unwrap();
    for projector in processes {
        until("it is content", async || projector.warnings().is_empty()).await;
        projector.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_process_forgets_what_differed_once_another_rule_is_live() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    submit_all(&engine, shop_history(5, 20)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let old = open();
    projector::catch_up(&log.log, &url, &old, Box::new(|_| {}))
        .await
        .unwrap();
    let options = ProjectorOptions {
        verify_every: Some(Duration::from_millis(10)),
        ..ProjectorOptions::from(1)
    };
    let process = Projector::spawn(&log.log, &url, &old, options).unwrap();
    let table = table_of(&url, "open_items").await;
    let edit = format!("UPDATE projection.{table} SET approvals = approvals + 7");
    execute(&url, &edit).await;
    let said = || {
        let mut said = process.warnings();
        said.retain(|one| one.contains("from the log"));
        said
    };
    until("it says some, and how many more", async || {
        said().len() == 6 && said()[5].contains("more values or rows differ")
    })
    .await;
    let (new, now) = (open_of(2), tests::harness::stack::NOW);
    let rebuilt = projector::rebuild(&log.log, &url, &new, "open_items", now, Box::new(|_| {}));
    rebuilt.await.unwrap();
    until("it is content", async || said().is_empty()).await;
    process.stop().await.unwrap();
}

#[tokio::test]
async fn a_switch_of_the_stream_index_does_not_spoil_a_sample() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    submit_all(&engine, shop_history(5, 20)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    let all = read_models();
    let is_switched = Arc::new(AtomicBool::new(false));
    let (real, of_log, done) = (Arc::clone(&log.log), url.clone(), Arc::clone(&is_switched));
    let switching = before_reads(
        &log.log,
        Box::new(move || {
            let (real, url, done) = (Arc::clone(&real), of_log.clone(), Arc::clone(&done));
            Box::pin(async move {
                if done.swap(true, Ordering::SeqCst) {
                    return;
                }
                let keep = Duration::from_secs(3_600);
                let purpose = projector::Purpose::Switch { keep };
                let (all, name) = (read_models(), "stream_index");
                projector::rebuild(&real, &url, &all, name, purpose, Box::new(|_| {}))
                    .await
                    .unwrap();
            })
        }),
    );
    let found = projector::verify_sample(&switching, &url, &all, "order_summary", ALL).await;
    let found = found.unwrap();
    assert!(is_switched.load(Ordering::SeqCst));
    assert!(found.is_equal() && found.left_out.is_empty(), "{found:?}");
    assert!(found.streams >= 20, "{found:?}");
}
