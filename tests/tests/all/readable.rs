//! Every reader can read what was accepted, for ever. Every field of every message is written,
//! read, folded by another owner and an auditor, and projected into Postgres, both live and by a
//! rebuild.

mod generated;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::command::Request;
use engine::{Engine, EngineOptions};
use event_log::commit::Commit;
use event_log::log::EventLog;
use event_log::verify::verify;
use kernel::Timestamp;
use position::Partition;
use projector::Projector;
use serde_json::Value;
use serde_json::value::RawValue;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{self, read_models};

use crate::raw_log::read_all;
use crate::write_side::{request, shop, start};
use generated::{Maker, Schemas};

/// Replays the run of this seed instead of a new one.
const SEED: &str = "ANNALS_TESTS_SEED";
const WAIT: Duration = Duration::from_secs(60);
/// How many commands are sent in each round; after it, the test checks which fields the log holds.
const COMMANDS: usize = 6_000;
/// The greatest number of rounds: some events need a chance sequence of matching commands.
const ROUNDS_MAX: usize = 20;
/// How many commands wait for their answers at once.
const IN_FLIGHT_MAX: usize = 500;

/// A command of a random type, to one of a few streams of its category.
fn command(maker: &mut Maker<'_>, number: usize) -> (Request, bool) {
    use rand::RngExt as _;
    let index = maker.random.random_range(0..maker.schemas.commands.len());
    let (category, name, schema) = &maker.schemas.commands[index];
    let data = maker.value(schema);
    // Move on to new streams, because streams reach their end; payments belong to one order.
    let stream = number / 60 * 3 + maker.random.random_range(0..3);
    let stream = match *category {
        "payment" => format!("payment-x0-{stream}"),
        category => format!("{category}-{stream}"),
    };
    let mut request = request(&stream, name, &format!("c{number}"), &Value::Null);
    request.data = RawValue::from_string(data).unwrap();
    let moment = maker.moment().parse::<Timestamp>();
    let is_in_range = moment.is_ok();
    request.occurred_at = moment.ok().filter(|_| maker.random.random_bool(0.8));
    (request, is_in_range)
}

/// The paths of all fields in `data`, in the form of [`Schemas::all_places`].
fn places_of(data: &Value, at: &str, places: &mut BTreeSet<String>) {
    match data {
        Value::Object(members) => {
            for (name, value) in members {
                let place = format!("{at}/{name}");
                places_of(value, &place, places);
                places.insert(place);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| places_of(item, at, places)),
        _ => {}
    }
}

/// Sends commands and waits for their answers; returns how many were malformed.
async fn send(engine: &Engine, maker: &mut Maker<'_>, numbers: Range<usize>) -> usize {
    let mut batch = engine.batch();
    let (mut pending, mut malformed) = (VecDeque::new(), 0);
    for number in numbers {
        let (request, is_in_range) = command(maker, number);
        match engine.prepare(request) {
            Ok(prepared) if is_in_range => {
                pending.push_back(batch.submit(prepared, Instant::now() + WAIT).await);
                if pending.len() > IN_FLIGHT_MAX {
                    pending.pop_front().unwrap().await.unwrap();
                }
            }
            Ok(_) | Err(_) => malformed += 1,
        }
    }
    for answer in pending {
        answer.await.unwrap();
    }
    malformed
}

/// The paths of all fields in the log's commands and events.
async fn places_in(log: &dyn EventLog) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for partition in [0, 1].map(Partition) {
        for record in read_all(log, partition).await {
            let Some(key) = &record.key else { continue };
            let commit = Commit::read(key, record.value.as_deref().unwrap()).unwrap();
            let mut note = |name: &str, data: &RawValue| {
                let data = serde_json::from_str(data.get()).unwrap();
                places_of(&data, name, &mut seen);
            };
            note(&commit.command.type_name, &commit.command.data);
            for event in &commit.events {
                note(&event.type_name, &event.data);
            }
        }
    }
    seen
}

#[tokio::test]
async fn every_field_of_every_message_is_written_read_folded_and_projected() {
    let registry = shop();
    let schemas = Schemas::of(&registry);
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("once more: {SEED}={seed}");
    let mut maker = Maker::new(seed, &schemas);
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let places = schemas.all_places();
    let (mut rounds, mut malformed) = (0, 0);
    let missing = loop {
        let numbers = rounds * COMMANDS..(rounds + 1) * COMMANDS;
        malformed += send(&engine, &mut maker, numbers).await;
        rounds += 1;
        let seen = places_in(&*log.log).await;
        let missing: Vec<String> = places.difference(&seen).cloned().collect();
        if missing.is_empty() || rounds == ROUNDS_MAX {
            break missing;
        }
    };
    assert!(
        missing.is_empty(),
        "no command or event had these fields: {missing:?}"
    );
    assert!(malformed < rounds * COMMANDS / 4, "{malformed} malformed");
    println!("{rounds} rounds");
    engine.drain(WAIT).await;
    drop(engine);

    // Read by an audit, and folded by an owner without a local store.
    let report = verify(&*log.log, &registry, &[], |_, _| {}).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let options = EngineOptions::alone(None);
    let folded = Engine::start(Arc::clone(&log.log), shop(), options).await;
    let folded = folded.unwrap();
    folded.ready(WAIT).await.unwrap();
    folded.drain(WAIT).await;

    // Projected into Postgres: merged into existing rows, and copied into new tables.
    let postgres = Postgres::start();
    let all = read_models();
    let (live, anew) = (
        postgres.create_database().await,
        postgres.create_database().await,
    );
    for url in [&live, &anew] {
        projector::migrate(url).await.unwrap();
    }
    let projector = Projector::spawn(&log.log, &live, &all, 2).unwrap();
    let deadline = Instant::now() + WAIT;
    loop {
        let places = stack::places(&*log.log, &live, &all).await.unwrap();
        if !places.is_empty() && places.iter().all(|place| place.gap == Some(0)) {
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", projector.ready());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    projector.ready().unwrap();
    projector.stop().await.unwrap();
    projector::catch_up(&log.log, &anew, &all, Box::new(|_| {}))
        .await
        .unwrap();
}
