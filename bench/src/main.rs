//! Side by side: the write side against a raw loop of appends of the same records on the same log,
//! in the same run, since machines are shared and noisy. Starts its own broker.
//!
//! Prints commands and appends per second, their ratio, and what the disk does meanwhile.
//! Deliberately absent: goals; they come with an issue of their own.

mod main_job;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::engine::{Engine, EngineOptions};
use engine::ids::Partition;
use engine::log::{EventLog, LogError};
use engine::record::{NewRecord, Record};
use kernel::TenantId;
use serde_json::json;
use serde_json::value::to_raw_value;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::stack::shop;
use tokio::sync::{mpsc, oneshot};

const COMMANDS: usize = 50_000;
const PARTITIONS: u32 = 16;
const ROUNDS: usize = 3;
const SINGLE: usize = 3_000;
const WAIT: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    println!("fdatasync: {:.0}/s", fdatasync_per_second());
    for kind in [Kind::Sqlite, Kind::Kafka] {
        for _ in 1..=ROUNDS {
            main_job::run(kind).await;
        }
        one_at_a_time(kind).await;
        for round in 1..=ROUNDS {
            let log = NewLog::make(kind, PARTITIONS).await;
            let commands = write_side(&log).await;
            let records = records_of(&*log.log).await;
            let target = NewLog::make(kind, PARTITIONS).await;
            let appends = raw(&target, &records).await;
            println!(
                "{kind:?}, round {round}: {commands:.0} commands/s, {appends:.0} raw appends/s, \
                 ratio {:.2}",
                commands / appends
            );
        }
    }
}

/// The median time of one command and of one raw append, each waited for before the next.
async fn one_at_a_time(kind: Kind) {
    let log = NewLog::make(kind, PARTITIONS).await;
    let options = EngineOptions::alone(Some(log.store()));
    let engine = Engine::start(Arc::clone(&log.log), shop(), options)
        .await
        .expect("a write side");
    engine.ready(WAIT).await.expect("owners of all partitions");
    let deadline = Instant::now() + WAIT;
    let mut commands = Vec::with_capacity(SINGLE);
    for number in 0..SINGLE {
        let command = engine
            .prepare(place(number))
            .expect("a well-formed command");
        let began = Instant::now();
        engine.submit(command, deadline).await.expect("an answer");
        commands.push(began.elapsed());
    }
    engine.drain(WAIT).await;
    let records = records_of(&*log.log).await;
    let target = NewLog::make(kind, PARTITIONS).await;
    let appender = target.log.appender().await.expect("an appender");
    let session = appender.session().expect("a session");
    let mut appends = Vec::with_capacity(SINGLE);
    for (partition, record) in records.iter().take(SINGLE) {
        let (acknowledged, result) = oneshot::channel();
        let done = Box::new(move |result: engine::log::AppendResult| {
            let _ = acknowledged.send(result.is_ok());
        });
        let began = Instant::now();
        session
            .append(*partition, record, done)
            .expect("room for one");
        assert_eq!(result.await, Ok(true), "every append is acknowledged");
        appends.push(began.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        (times[SINGLE / 2], times[SINGLE * 99 / 100])
    };
    let (commands, appends) = (median(&mut commands), median(&mut appends));
    println!(
        "{kind:?}, one at a time: a command p50 {:?}, p99 {:?}; a raw append p50 {:?}, p99 {:?}",
        commands.0, commands.1, appends.0, appends.1
    );
}

/// Commands per second through the owners, many in flight.
async fn write_side(log: &NewLog) -> f64 {
    let options = EngineOptions::alone(Some(log.store()));
    let engine = Engine::start(Arc::clone(&log.log), shop(), options)
        .await
        .expect("a write side");
    engine.ready(WAIT).await.expect("owners of all partitions");
    let deadline = Instant::now() + WAIT;
    let began = Instant::now();
    let mut batch = engine.batch();
    let (pending, mut answers) = mpsc::channel(8_192);
    let count = tokio::spawn(async move {
        let mut accepted = 0;
        while let Some(answer) = answers.recv().await {
            let answer: engine::engine::Pending = answer;
            accepted += usize::from(answer.await.is_ok());
        }
        accepted
    });
    for number in 0..COMMANDS {
        let request = place(number);
        let command = engine.prepare(request).expect("a well-formed command");
        let answer = batch.submit(command, deadline).await;
        pending.send(answer).await.expect("somebody who counts");
    }
    drop(pending);
    let accepted = count.await.expect("a count");
    assert_eq!(accepted, COMMANDS, "every command has its answer");
    let rate = COMMANDS as f64 / began.elapsed().as_secs_f64();
    engine.drain(WAIT).await;
    rate
}

fn place(number: usize) -> engine::command::Request {
    let brl = |amount: i64| json!({"amount_minor": amount, "currency": "BRL"});
    let data = json!({
        "customer": "c1",
        "items": [{
            "line": 1, "product": "p", "seller": "s", "price": brl(2_199), "freight": brl(1_185)
        }],
        "estimated_delivery": "2018-06-28T00:00:00Z",
    });
    engine::command::Request {
        tenant: TenantId::default(),
        stream: format!("order-{number:032x}")
            .parse()
            .expect("a stream's name"),
        command: "PlaceOrder".to_owned(),
        schema: 1,
        id: format!("place-{number}").parse().expect("a command id"),
        occurred_at: Some("2018-06-04T16:44:48Z".parse().expect("a moment")),
        expected_version: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data: to_raw_value(&data).expect("JSON"),
    }
}

async fn records_of(log: &dyn EventLog) -> Vec<(Partition, NewRecord)> {
    let mut records = Vec::with_capacity(COMMANDS);
    for partition in (0..PARTITIONS).map(Partition) {
        let bounds = log.bounds(partition).await.expect("a log that answers");
        let mut next = bounds.first;
        while next < bounds.end {
            let chunk = log.read(partition, next).await.expect("a log that answers");
            let new = |record: Record| {
                let Record {
                    key,
                    value,
                    headers,
                    ..
                } = record;
                (
                    partition,
                    NewRecord {
                        key,
                        value,
                        headers,
                    },
                )
            };
            records.extend(chunk.records.into_iter().map(new));
            next = chunk.next;
        }
    }
    records
}

/// Appends per second of the same records, without any engine.
async fn raw(log: &NewLog, records: &[(Partition, NewRecord)]) -> f64 {
    let appender = log.log.appender().await.expect("an appender");
    let session = appender.session().expect("a session");
    let (acknowledged, mut results) = mpsc::unbounded_channel();
    let began = Instant::now();
    for (partition, record) in records {
        loop {
            let acknowledged = acknowledged.clone();
            let done = Box::new(move |result: engine::log::AppendResult| {
                let _ = acknowledged.send(result.is_ok());
            });
            match session.append(*partition, record, done) {
                Ok(()) => break,
                Err(LogError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    for _ in records {
        assert_eq!(
            results.recv().await,
            Some(true),
            "every append is acknowledged"
        );
    }
    records.len() as f64 / began.elapsed().as_secs_f64()
}

fn fdatasync_per_second() -> f64 {
    let folder = std::env::temp_dir().join(format!("annals-bench-{}", std::process::id()));
    let mut file = File::create(&folder).expect("a file in the temporary folder");
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(b"annals").expect("a file that takes bytes");
        file.sync_data().expect("a disk that answers");
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    std::fs::remove_file(folder).expect("the file that was made");
    rate
}
