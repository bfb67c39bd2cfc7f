//! A new generation beside the live one: readers see no gap, nobody is held up, and whatever dies
//! in the middle is gone on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use projector::{Actor, Operator, Projection, Projector, Purpose};
use sqlx::{Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

use super::{
    MODELS, caught_up, database, execute, level, rows_of, scalar, shop_history, submit_all, until,
};
use crate::write_side::start;

const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

/// A history with a tenant of its own.
fn history(seed: u64, orders: u32) -> Vec<engine::command::Request> {
    let of_tenant = |line| engine::command::Request {
        tenant: format!("t{seed}").parse().unwrap(),
        ..line
    };
    shop_history(seed, orders)
        .into_iter()
        .map(of_tenant)
        .collect()
}

async fn states(url: &str, name: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(generation || ' ' || state, ', ' ORDER BY generation), '') \
         FROM annals.generation WHERE projection = '{name}'"
    );
    scalar(url, &sql).await
}

#[tokio::test]
async fn running_projectors_build_compare_switch_and_roll_back_as_asked() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    submit_all(&engine, history(1, 60)).await;
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until("it has caught up", async || level(&log, &url, &all).await).await;
    let mut operator = Operator::connect(&url, &all).await.unwrap();
    let asked = operator.rebuild("daily_sales", Purpose::Wait, ACTOR).await;
    assert_eq!(asked.unwrap(), 2);
    until("it is ready", async || {
        states(&url, "daily_sales").await == "1 live, 2 ready"
    })
    .await;
    let equal = "SELECT (comparison->>'equal')::bool FROM annals.generation \
                 WHERE projection = 'daily_sales' AND state = 'ready'";
    assert!(scalar::<bool>(&url, equal).await);
    // Both are kept current.
    submit_all(&engine, history(2, 60)).await;
    until("both are level", async || level(&log, &url, &all).await).await;
    let hour = Duration::from_secs(3_600);
    operator.switch("daily_sales", hour, ACTOR).await.unwrap();
    assert_eq!(states(&url, "daily_sales").await, "1 retired, 2 live");
    let switched = rows_of(&url, &["daily_sales"]).await;
    submit_all(&engine, history(3, 60)).await;
    until("both are level again", async || {
        level(&log, &url, &all).await
    })
    .await;
    let before = rows_of(&url, &["daily_sales"]).await;
    assert_ne!(before, switched);
    operator
        .roll_back("daily_sales", hour, ACTOR)
        .await
        .unwrap();
    assert_eq!(states(&url, "daily_sales").await, "1 live, 2 retired");
    assert_eq!(rows_of(&url, &["daily_sales"]).await, before);
    // A verification leaves nothing behind but its result.
    operator
        .rebuild("daily_sales", Purpose::Verify, ACTOR)
        .await
        .unwrap();
    until("it is verified", async || {
        let sql = "SELECT coalesce((verified->>'equal')::bool, false) FROM annals.generation \
                   WHERE projection = 'daily_sales' AND state = 'live'";
        scalar::<bool>(&url, sql).await && !states(&url, "daily_sales").await.contains("3")
    })
    .await;
    // A rebuild is cancelled.
    operator.pause("daily_sales", ACTOR).await.unwrap();
    operator.rebuild("daily_sales", NOW, ACTOR).await.unwrap();
    assert_eq!(operator.cancel("daily_sales", ACTOR).await.unwrap(), 1);
    operator.resume("daily_sales", ACTOR).await.unwrap();
    assert_eq!(states(&url, "daily_sales").await, "1 live, 2 retired");
    let refused = operator.switch("daily_sales", hour, ACTOR).await;
    assert!(refused.is_err());
    let noted = "SELECT string_agg(action, ', ' ORDER BY id) FROM annals.control";
    assert_eq!(
        scalar::<String>(&url, noted).await,
        "rebuild, switch, roll back, verify, pause, rebuild, cancel, resume"
    );
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_projection_stands_still_and_the_others_go_on() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    submit_all(&engine, history(1, 20)).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    let mut operator = Operator::connect(&url, &all).await.unwrap();
    operator.pause("seller_sales", ACTOR).await.unwrap();
    until("nobody holds it", async || {
        let sql = "SELECT count(*) FROM annals.lease WHERE projection = 'seller_sales'";
        scalar::<i64>(&url, sql).await == 0
    })
    .await;
    let before = rows_of(&url, &["seller_sales"]).await;
    submit_all(&engine, history(2, 20)).await;
    until("the others have caught up", async || {
        let places = places(&*log.log, &url, &all).await.unwrap();
        let mut others = places.iter().filter(|p| p.projection != "seller_sales");
        others.all(|place| place.gap == Some(0))
    })
    .await;
    assert_eq!(rows_of(&url, &["seller_sales"]).await, before);
    operator.resume("seller_sales", ACTOR).await.unwrap();
    until("it has caught up", async || level(&log, &url, &all).await).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn readers_see_no_gap_and_nobody_waits_for_a_long_reader() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    submit_all(&engine, history(1, 150)).await;
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until("it has caught up", async || level(&log, &url, &all).await).await;

    // A reader of one view stays in its transaction during the whole rebuild.
    let mut long = PgConnection::connect(&url).await.unwrap();
    let mut reading = long.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM read.daily_sales")
        .execute(&mut *reading)
        .await
        .unwrap();

    let done = AtomicBool::new(false);
    let url = &url;
    let polls = async {
        let mut reader = PgConnection::connect(url).await.unwrap();
        let (mut count, mut slowest, mut last) = (0, Duration::ZERO, 0);
        while !done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let sql = "SELECT coalesce(sum(orders), 0)::bigint FROM read.daily_sales";
            let orders: i64 = sqlx::query_scalar(sql)
                .fetch_one(&mut reader)
                .await
                .unwrap();
            assert!(orders >= last, "{orders} after {last}");
            (count, slowest, last) = (count + 1, slowest.max(asked.elapsed()), orders);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (count, slowest)
    };
    let work = async {
        let mut operator = Operator::connect(url, &all).await.unwrap();
        operator.rebuild("daily_sales", NOW, ACTOR).await.unwrap();
        until("it is ready", async || {
            states(url, "daily_sales").await.contains("2 ready")
        })
        .await;
        // The switch waits for the reader; writing goes on.
        let before = Instant::now();
        submit_all(&engine, history(2, 60)).await;
        until("writing goes on", async || level(&log, url, &all).await).await;
        assert!(
            before.elapsed() < Duration::from_secs(6),
            "{:?}",
            before.elapsed()
        );
        assert_eq!(states(url, "daily_sales").await, "1 live, 2 ready");
        reading.rollback().await.unwrap();
        until("it is live", async || {
            states(url, "daily_sales").await.contains("2 live")
        })
        .await;
        submit_all(&engine, history(3, 60)).await;
        until("writing goes on", async || level(&log, url, &all).await).await;
        done.store(true, Ordering::Relaxed);
    };
    let ((count, slowest), ()) = tokio::join!(polls, work);
    assert!(count > 100, "{count}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh).await;
    assert_eq!(rows_of(url, &MODELS).await, rows_of(&fresh, &MODELS).await);
}

#[tokio::test]
async fn a_rebuild_whose_process_dies_is_gone_on_with_by_another() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    submit_all(&engine, history(1, 300)).await;
    caught_up(&log.log, &url).await;
    // Nobody else runs: the rebuild's own process does all the work, and dies in the middle.
    let reading = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&reading);
    let on_reading = Box::new(move |seen: projector::Reading| {
        told.fetch_or(seen.records_read > 0, Ordering::Relaxed);
    });
    {
        let rebuilt = projector::rebuild(&log.log, &url, &all, "order_summary", NOW, on_reading);
        let mut rebuilt = std::pin::pin!(rebuilt);
        until("it has begun", async || {
            let soon = tokio::time::timeout(Duration::from_millis(1), &mut rebuilt).await;
            soon.is_ok() || reading.load(Ordering::Relaxed)
        })
        .await;
    }
    // A projector that starts later finishes it.
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until("it is live", async || {
        let states = states(&url, "order_summary").await;
        states.contains("2 live") && !states.contains("building")
    })
    .await;
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh).await;
    assert_eq!(rows_of(&url, &MODELS).await, rows_of(&fresh, &MODELS).await);
}

#[tokio::test]
async fn what_differs_is_named_by_key_and_column() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all: Vec<Arc<dyn Projection>> = read_models();
    submit_all(&engine, history(1, 80)).await;
    caught_up(&log.log, &url).await;
    // Somebody edits the rows behind the projection's back.
    let table = "SELECT tables[1] FROM annals.generation WHERE projection = 'order_summary'";
    let table: String = scalar(&url, table).await;
    let edit = format!(
        "UPDATE projection.\"{table}\" SET status = 'lost' WHERE order_id = '7'; \
         DELETE FROM projection.\"{table}\" WHERE order_id = '8'"
    );
    execute(&url, &edit).await;
    let verify = async || {
        let verified = projector::rebuild(
            &log.log,
            &url,
            &all,
            "order_summary",
            Purpose::Verify,
            Box::new(|_| {}),
        );
        verified.await.unwrap().comparison.unwrap()
    };
    let found = verify().await;
    assert!(!found.equal);
    let differences: Vec<_> = found.tables.iter().flat_map(|t| &t.differences).collect();
    let status = differences.iter().find(|d| d.key.contains(",7)")).unwrap();
    assert_eq!(status.column.as_deref(), Some("status"), "{differences:?}");
    assert_eq!(status.live.as_deref(), Some("lost"), "{differences:?}");
    let missing = differences.iter().find(|d| d.key.contains(",8)")).unwrap();
    assert!(
        missing.live.is_none() && missing.new.is_some(),
        "{differences:?}"
    );
    // A rebuild mends them; then nothing differs any more.
    let name = "order_summary";
    let mended = projector::rebuild(&log.log, &url, &all, name, NOW, Box::new(|_| {}));
    assert!(!mended.await.unwrap().comparison.unwrap().equal);
    assert!(verify().await.equal);
    // The first comparison was generation 2, and no number is used twice.
    assert_eq!(states(&url, "order_summary").await, "3 live");
}
