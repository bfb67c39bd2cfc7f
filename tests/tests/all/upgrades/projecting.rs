//! A projector that is too old for an event leaves the partition to a newer one.

use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, EngineOptions};
use kernel::registry::Registry;
use projector::{ColumnType, Projection, Projector, Rules, Table, View, key, tally};
use serde_json::json;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::lamp::{new, old};

use crate::projections::{database, scalar, until};
use crate::write_side::{request, submit};

const LAMPS: &[Table] = &[Table {
    name: "lamps",
    about: "Lamps.",
    key: &[key("lamp", ColumnType::Text, "The lamp.")],
    values: &[tally("lit", "How often it was lit.")],
    view: View::WHOLE,
    ..Table::PLAIN
}];

/// The same read model in the program of the first release.
fn early_models() -> Vec<Arc<dyn Projection>> {
    let rules = Rules::new("lamps", 1, LAMPS);
    vec![Arc::new(rules.on::<old::Lamp, old::LampLit>(
        |_, event, changes| {
            let mut row = changes.row(&LAMPS[0], [event.stream_id().into()]);
            row.put("lit", 1_i64);
        },
    ))]
}

/// And in that of the second one.
fn late_models() -> Vec<Arc<dyn Projection>> {
    let rules = Rules::new("lamps", 1, LAMPS);
    vec![Arc::new(rules.on::<new::Lamp, new::LampLit>(
        |_, event, changes| {
            let mut row = changes.row(&LAMPS[0], [event.stream_id().into()]);
            row.put("lit", 1_i64);
        },
    ))]
}

#[tokio::test]
async fn a_projector_that_is_too_old_waits_for_a_newer_program() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let registry = Registry::new().with::<new::Lamp>();
    let options = EngineOptions::alone(Some(log.store()));
    let engine = Engine::start(Arc::clone(&log.log), registry, options)
        .await
        .unwrap();
    engine.ready(Duration::from_secs(20)).await.unwrap();
    for lamp in 0..10 {
        let lit = request(
            &format!("lamp-{lamp}"),
            "LightLamp",
            "a",
            &json!({"lumens": 9}),
        );
        submit(&engine, lit).await.unwrap();
    }
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let early = Projector::spawn(&log.log, &url, &early_models(), 1).unwrap();
    until("it says so", async || {
        let said = early.ready().err().unwrap_or_default();
        said.contains("too old") && said.contains("partition 0") && said.contains("LampLit")
    })
    .await;
    // Nothing is parked, nothing stopped: nothing is wrong with the log.
    assert!(early.stopped().is_empty());
    let parked = "SELECT count(*) FROM annals.parked";
    assert_eq!(scalar::<i64>(&url, parked).await, 0);
    let late = Projector::spawn(&log.log, &url, &late_models(), 1).unwrap();
    until("the newer program has taken up everything", async || {
        let lit = "SELECT coalesce(sum(lit), 0)::bigint FROM read.lamps";
        scalar::<i64>(&url, lit).await == 10
    })
    .await;
    late.stop().await.unwrap();
    early.stop().await.unwrap();
}
