//! The read side when something goes wrong: Postgres is killed, a second projector or a rebuild
//! comes, the log is damaged, a projection fails.

use std::sync::Arc;

use engine::command::Request;
use kernel::explained;
use position::Partition;
use projector::{Projector, RuntimeError, TaskState};
use serde_json::json;
use sqlx::Connection;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

mod refused;

use super::{
    MODELS, brl, caught_up, database, execute, fill, level, log_of, rows_of, scalar, shop_history,
    submit_all, until,
};
use crate::write_side::{request, start};

#[tokio::test]
async fn nothing_counts_twice_when_postgres_is_killed_again_and_again() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let mut postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    for round in 0..5_u64 {
        let lines: Vec<Request> = shop_history(round, 150)
            .into_iter()
            .map(|line| Request {
                tenant: format!("t{round}").parse().unwrap(),
                ..line
            })
            .collect();
        let before = scalar::<i64>(&url, "SELECT count(*) FROM annals.checkpoint").await;
        submit_all(&engine, lines).await;
        until("the projector is at work", async || {
            let sql = "SELECT count(*) FROM annals.checkpoint";
            scalar::<i64>(&url, sql).await >= before.max(1)
        })
        .await;
        postgres.kill9();
        until("the projector has noticed", async || {
            let retries = |s: &projector::TaskStatus| matches!(s.state, TaskState::Retrying(_));
            projector.status().iter().all(retries)
        })
        .await;
        assert!(projector.ready().is_err());
        postgres.restart();
    }
    until("it has caught up", async || level(&log, &url, &all).await).await;
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh).await;
    assert_eq!(rows_of(&url, &MODELS).await, rows_of(&fresh, &MODELS).await);
}

/// The number of partitions that each process holds for a projection.
async fn holders(url: &str) -> Vec<i64> {
    let sql = "SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM \
               (SELECT count(*) AS n FROM annals.lease WHERE projection = 'daily_sales' \
                GROUP BY member) AS held";
    scalar(url, sql).await
}

#[tokio::test]
async fn projectors_share_the_partitions_and_take_over_from_one_that_dies() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    // The number of lanes is each process's own affair.
    let first = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    until("the first holds everything", async || {
        holders(&url).await == [4]
    })
    .await;
    let second = Projector::spawn(&log.log, &url, &all, 3).unwrap();
    until("they share", async || holders(&url).await == [2, 2]).await;
    submit_all(&engine, shop_history(1, 50)).await;
    until("both have caught up", async || {
        level(&log, &url, &all).await && first.ready().is_ok() && second.ready().is_ok()
    })
    .await;
    // It dies without a word: nobody gives its partitions back.
    drop(first);
    let died = std::time::Instant::now();
    until("the second takes over", async || holders(&url).await == [4]).await;
    let took = died.elapsed();
    assert!(took.as_secs_f64() < 3.0, "{took:?}");
    submit_all(&engine, shop_history(2, 60)).await;
    until("the second has caught up", async || {
        level(&log, &url, &all).await && second.ready().is_ok()
    })
    .await;
    // One that ends in order gives its partitions back.
    let third = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    until("they share again", async || holders(&url).await == [2, 2]).await;
    second.stop().await.unwrap();
    let ended = std::time::Instant::now();
    until("the third has all", async || holders(&url).await == [4]).await;
    assert!(ended.elapsed().as_secs_f64() < 1.5, "{:?}", ended.elapsed());
    third.stop().await.unwrap();
}

#[tokio::test]
async fn a_projector_whose_checkpoint_was_moved_changes_nothing() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    submit_all(&engine, shop_history(1, 20)).await;
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    until("it has caught up", async || level(&log, &url, &all).await).await;
    // Another projector that got past the leases took up more: here, the same and another record.
    let forge = "UPDATE annals.checkpoint SET \"offset\" = \"offset\" + 1000000 \
                 WHERE projection = 'payment_mix'";
    execute(&url, forge).await;
    let before = rows_of(&url, &["payment_mix"]).await;
    submit_all(&engine, shop_history(2, 30)).await;
    until("it says so", async || {
        let said = projector.ready().err().unwrap_or_default();
        said.contains("superseded") || said.contains("partition 0")
    })
    .await;
    assert_eq!(rows_of(&url, &["payment_mix"]).await, before);
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn a_running_projector_goes_on_with_rebuilt_tables() {
    let log = NewLog::make(Kind::Sqlite, 3).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    let feed = async {
        for round in 0..8_u64 {
            let lines = shop_history(round, 60).into_iter().map(|line| Request {
                tenant: format!("t{round}").parse().unwrap(),
                ..line
            });
            submit_all(&engine, lines.collect()).await;
        }
    };
    let rebuild = async {
        until("there is a live one", async || projector.ready().is_ok()).await;
        for name in ["daily_sales", "stream_index", "daily_sales"] {
            let rebuilt = projector::rebuild(&log.log, &url, &all, name, NOW, Box::new(|_| {}));
            rebuilt.await.unwrap();
        }
    };
    tokio::join!(feed, rebuild);
    until("it has caught up", async || {
        level(&log, &url, &all).await && projector.ready().is_ok()
    })
    .await;
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh).await;
    assert_eq!(rows_of(&url, &MODELS).await, rows_of(&fresh, &MODELS).await);
}

#[tokio::test]
async fn damage_stops_its_partition_alone_and_names_its_place() {
    let log = log_of(Kind::Sqlite, shop_history(3, 30)).await;
    let event_log::log::LogAddress::Sqlite { path } = log.address.clone() else {
        panic!("a file")
    };
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let edit = "UPDATE record SET value = replace(CAST(value AS TEXT), 'accepted', 'Accepted') \
                WHERE id = (SELECT id FROM record WHERE partition = 2 AND \"offset\" = 5)";
    let mut file = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    sqlx::query(edit).execute(&mut file).await.unwrap();
    let projector = Projector::spawn(&log.log, &url, &read_models(), 1).unwrap();
    let all = read_models();
    until("all models stopped there", async || {
        projector.stopped().len() == all.len()
    })
    .await;
    let why = projector.ready().unwrap_err();
    assert!(why.contains("damage in partition 2 at offset 5"), "{why}");
    let named = all.iter().map(|projection| projection.name());
    assert_eq!(named.filter(|name| why.contains(name)).count(), all.len());
    assert_eq!(why.matches("damage in partition 2").count(), 1, "{why}");
    // One task follows all partitions; it goes on with the others.
    until("the others have caught up", async || {
        let places = places(&*log.log, &url, &all).await.unwrap();
        let others = places
            .iter()
            .filter(|place| place.partition != Partition(2));
        others.clone().count() > all.len() && others.into_iter().all(|place| place.gap == Some(0))
    })
    .await;
    projector.stop().await.unwrap();
    // A catch-up must reach the end of the log, so it fails.
    let caught_up = projector::catch_up(&log.log, &url, &all, Box::new(|_| {}));
    let error = caught_up.await.unwrap_err();
    assert!(matches!(error, RuntimeError::Stopped(_)), "{error}");
}

/// `count` payments of one order, each of the same amount.
fn payments(count: usize, amount: i64) -> Vec<Request> {
    let payment = |number: usize| {
        let data =
            json!({"order": "1", "method": "boleto", "instalments": 0, "amount": brl(amount)});
        request(&format!("payment-{number}-1"), "CapturePayment", "c", &data)
    };
    (0..count).map(payment).collect()
}

#[tokio::test]
async fn commits_folded_while_postgres_refused_a_row_count_once_for_the_other_projections() {
    const COUNT: usize = 9_000;
    let log = NewLog::make(Kind::Sqlite, 1).await;
    fill(&log, payments(COUNT, 1)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let mut all = read_models();
    all.push(Arc::new(refused::Refused));
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    until("one stopped and the others have caught up", async || {
        let places = places(&*log.log, &url, &all).await.unwrap();
        let others = places.iter().filter(|p| p.projection != refused::NAME);
        let caught_up = others.map(|p| p.gap).all(|gap| gap == Some(0));
        caught_up && projector.stopped().len() == 1
    })
    .await;
    // Most of its streams cannot be taken up: it is not the streams that are wrong.
    let why = projector.stopped().remove(0).reason;
    assert!(why.contains("1000 streams are parked"), "{why}");
    assert!(why.contains("cannot be stored"), "{why}");
    projector.stop().await.unwrap();
    for counted in [
        "SELECT count(*) FROM read.stream_index",
        "SELECT payments FROM read.payment_mix",
    ] {
        assert_eq!(scalar::<i64>(&url, counted).await, COUNT as i64);
    }
}

#[tokio::test]
async fn a_projector_that_goes_on_refuses_a_gap_in_a_stream_that_it_has_not_read_since() {
    use crate::history::Scribe;
    use crate::raw_log::RawLog;
    let mut scribe = Scribe::new();
    scribe.claim();
    scribe.commits(&["thing-a", "thing-b", "thing-a", "thing-b"]);
    let raw = RawLog::holding(Kind::Sqlite, scribe.records()).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let caught_up = async || projector::catch_up(&raw.log, &url, &all, Box::new(|_| {})).await;
    caught_up().await.unwrap();
    // A projector that resumes takes up further commits.
    let before = scribe.records().len();
    scribe.commits(&["thing-a"]);
    raw.write(Partition(0), &scribe.records()[before..]).await;
    caught_up().await.unwrap();
    // This commit is linked correctly, but was decided on a version that the stream never had.
    let value = scribe.value("thing-b", 9);
    let gap = scribe.record_of("main/thing-b", value, |_| {});
    raw.write(Partition(0), &[gap]).await;
    let error = caught_up().await.unwrap_err();
    let said = explained(&error);
    assert!(
        said.contains("version gap") && said.contains("offset 6"),
        "{said}"
    );
}
