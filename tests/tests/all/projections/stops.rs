//! A stopped or late read model: everybody can see that, and the remedy works on the running
//! projector.

use std::sync::Arc;
use std::time::Duration;

use engine::command::Request;
use projector::{Actor, Operator, Projection, Projector, RuntimeError, Sampler};
use sqlx::{Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

use super::{Sample, database, execute, level, rows_of, scalar, shop_history, submit_all, until};
use crate::write_side::start;

async fn resume(url: &str, all: &[Arc<dyn Projection>], name: &str) -> Result<u64, RuntimeError> {
    let actor = Actor {
        name: "ann",
        reason: "a test",
    };
    let mut operator = Operator::connect(url, all).await?;
    operator.resume(name, actor).await
}

/// Makes Postgres refuse each new row of the live table of `payment_mix`; returns the SQL that ends
/// this.
async fn refuse(url: &str) -> String {
    let table = "SELECT tables[1] FROM annals.generation \
                 WHERE projection = 'payment_mix' AND state = 'live'";
    let table: String = scalar(url, table).await;
    let add = format!(
        "ALTER TABLE projection.\"{table}\" ADD CONSTRAINT refuses CHECK (false) NOT VALID"
    );
    execute(url, &add).await;
    format!("ALTER TABLE projection.\"{table}\" DROP CONSTRAINT refuses")
}

/// A history with a tenant of its own.
fn history(seed: u64, orders: u32) -> Vec<Request> {
    let lines = shop_history(seed, orders).into_iter();
    let of_tenant = |line| Request {
        tenant: format!("t{seed}").parse().unwrap(),
        ..line
    };
    lines.map(of_tenant).collect()
}

async fn states(log: &NewLog, url: &str, name: &str) -> Vec<(String, Option<String>)> {
    let all = read_models();
    let places = places(&*log.log, url, &all).await.unwrap();
    let own = places.into_iter().filter(|place| place.projection == name);
    own.map(|place| (place.state, place.stopped)).collect()
}

#[tokio::test]
async fn a_stopped_projection_goes_on_when_another_process_resumes_or_rebuilds_it() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    // One projection stops, and the other projections of its task go on.
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until("it follows", async || projector.ready().is_ok()).await;
    let sampler = Sampler::spawn(&log.log, &url).unwrap();
    for (round, remedy) in ["resume", "rebuild"].into_iter().enumerate() {
        let mend = refuse(&url).await;
        submit_all(&engine, history(round as u64, 60)).await;
        until("readiness says how to go on", async || {
            let said = projector.ready().err().unwrap_or_default();
            said.contains("annals projections resume payment_mix")
        })
        .await;
        until("the list says why", async || {
            let states = states(&log, &url, "payment_mix").await;
            let is_stopped = |(state, why): &(String, Option<String>)| {
                let says = why
                    .as_ref()
                    .is_some_and(|why| why.contains("cannot be stored"));
                state == "stopped" && says
            };
            states.iter().any(is_stopped)
        })
        .await;
        until("the sampler knows", async || {
            let freshness = sampler.freshness("payment_mix");
            freshness.is_some_and(|freshness| freshness.stopped_partitions > 0)
        })
        .await;
        match remedy {
            "resume" => {
                execute(&url, &mend).await;
                assert!(resume(&url, &all, "payment_mix").await.unwrap() > 0);
            }
            _ => {
                let name = "payment_mix";
                let rebuilt = projector::rebuild(&log.log, &url, &all, name, NOW, Box::new(|_| {}));
                rebuilt.await.unwrap();
            }
        }
        until("it goes on", async || {
            projector.ready().is_ok() && level(&log, &url, &all).await
        })
        .await;
        until("nobody takes it for stopped any more", async || {
            let freshness = sampler.freshness("payment_mix");
            freshness.is_some_and(|freshness| freshness.stopped_partitions == 0)
        })
        .await;
        let states = states(&log, &url, "payment_mix").await;
        assert!(states.iter().all(|(state, _)| state == "live"));
    }
    let kept = rows_of(&url, &["payment_mix"]).await;
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    super::caught_up(&log.log, &fresh).await;
    assert_eq!(kept, rows_of(&fresh, &["payment_mix"]).await);
    assert!(resume(&url, &all, "no_such").await.is_err());
}

#[tokio::test]
async fn a_task_all_of_whose_projections_stopped_goes_on_too() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let only: Vec<_> = all
        .iter()
        .filter(|projection| projection.name() == "payment_mix")
        .map(Arc::clone)
        .collect();
    let projector = Projector::spawn(&log.log, &url, &only, 1).unwrap();
    until("it follows", async || projector.ready().is_ok()).await;
    let mend = refuse(&url).await;
    submit_all(&engine, history(3, 60)).await;
    until("it rests", async || !projector.stopped().is_empty()).await;
    execute(&url, &mend).await;
    until("its stop can be seen", async || {
        resume(&url, &only, "payment_mix").await.unwrap() > 0
    })
    .await;
    until("it goes on", async || {
        projector.ready().is_ok() && level(&log, &url, &only).await
    })
    .await;
    projector.stop().await.unwrap();
}

/// The read models, and a sample of this version.
fn with_sample(version: u32) -> Vec<Arc<dyn Projection>> {
    let mut all = read_models();
    all.push(Arc::new(Sample {
        name: "sample",
        version,
        fails_at: None,
    }));
    all
}

#[tokio::test]
async fn an_idle_projector_notices_a_rebuild_of_another_process() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let own = with_sample(1);
    submit_all(&engine, history(4, 20)).await;
    let projector = Projector::spawn(&log.log, &url, &own, 1).unwrap();
    until("it has caught up", async || level(&log, &url, &own).await).await;
    // The live tables are those of a newer program. This projector must not write to them, and must
    // report that without new commits.
    let rebuild = async |projections: Vec<Arc<dyn Projection>>| {
        let on_reading = Box::new(|_| {});
        let rebuilt = projector::rebuild(&log.log, &url, &projections, "sample", NOW, on_reading);
        rebuilt.await.unwrap()
    };
    rebuild(with_sample(2)).await;
    until("it says so", async || {
        let said = projector.ready().err().unwrap_or_default();
        said.contains("annals projections rebuild sample")
    })
    .await;
    // The command that readiness names helps.
    rebuild(own.clone()).await;
    until("it goes on", async || projector.ready().is_ok()).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn lag_and_gap_are_seen_while_a_transaction_hangs_and_while_postgres_is_away() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    let mut postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    submit_all(&engine, history(5, 20)).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    let sampler = Sampler::spawn(&log.log, &url).unwrap();
    let behind = |least_gap: u64, least: Duration| {
        let freshness = sampler.freshness("daily_sales");
        freshness.is_some_and(|f| f.gap >= least_gap && f.lag >= least)
    };
    let level_again = || sampler.freshness("daily_sales").is_some_and(|f| f.gap == 0);
    until("it is level", async || level_again()).await;

    let mut other = PgConnection::connect(&url).await.unwrap();
    let mut holding = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE annals.checkpoint IN SHARE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    submit_all(&engine, history(6, 20)).await;
    until("the lag grows while the transaction hangs", async || {
        behind(20, Duration::from_secs(3))
    })
    .await;
    holding.rollback().await.unwrap();
    drop(other);
    until("it is level again", async || level_again()).await;

    postgres.kill9();
    submit_all(&engine, history(7, 20)).await;
    until("the lag grows while Postgres is away", async || {
        behind(20, Duration::from_secs(3))
    })
    .await;
    postgres.restart();
    until("it is level again", async || level_again()).await;
    projector.stop().await.unwrap();
}
