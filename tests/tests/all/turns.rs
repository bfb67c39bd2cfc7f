//! No client that sends much, and no partition without an owner, takes from a node what others
//! need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::command::{Became, Request, SubmitError, TurnedAway};
use engine::{Engine, EngineOptions, MEMORY_BYTES_MIN};
use event_log::log::{AppendDone, AppendSession, LogError};
use event_log::record::{NewRecord, partition_of};
use kernel::TenantId;
use position::{Partition, Position};
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};

use crate::other_appends::with_append;
use crate::write_side::{place, request, shop, start, submit};

const PARTITIONS: u32 = 2;
/// The partition that never gets an owner.
const STUCK: Partition = Partition(0);
const FREE: Partition = Partition(1);
const SOON: Duration = Duration::from_millis(400);

/// Never answers appends to one partition.
fn append_unless_stuck(
    session: &dyn AppendSession,
    partition: Partition,
    record: &NewRecord,
    done: AppendDone,
) -> Result<(), LogError> {
    match partition {
        STUCK => Ok(()),
        _ => session.append(partition, record, done),
    }
}

/// A node with little memory that owns one of two partitions.
async fn half_owning(new: &NewLog) -> Engine {
    let options = EngineOptions {
        memory_bytes: MEMORY_BYTES_MIN,
        ..EngineOptions::alone(None)
    };
    let log = with_append(&new.log, append_unless_stuck);
    let engine = Engine::start(log, shop(), options).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.owned() != [FREE] {
        assert!(Instant::now() < deadline, "{:?}", engine.readiness());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    engine
}

/// The stream of a partition with this number.
fn stream_of(partition: Partition, number: usize) -> String {
    let tenant = TenantId::default();
    let streams = (0..).map(|number| format!("order-{number}"));
    let mut streams = streams
        .filter(|stream| partition_of(&tenant, stream, PARTITIONS) == partition)
        .skip(number);
    streams.next().unwrap()
}

/// An order about a hundred times as large as the smallest one.
fn large() -> Value {
    let brl = |amount: i64| json!({"amount_minor": amount, "currency": "BRL"});
    let items = (1..=200).map(|line| {
        json!({"line": line, "product": "p", "seller": "s", "price": brl(1), "freight": brl(1)})
    });
    let mut order = place();
    order["items"] = items.collect();
    order
}

fn place_in(partition: Partition, number: usize, data: &Value) -> Request {
    let id = format!("place-{number}");
    request(&stream_of(partition, number), "PlaceOrder", &id, data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_were_given_up_take_no_room_from_other_partitions() {
    let new = NewLog::make(Kind::Sqlite, PARTITIONS).await;
    let engine = half_owning(&new).await;
    let data = large();
    let (full, late) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let waiting = (0..300).map(|number| {
        let prepared = engine.prepare(place_in(STUCK, 0, &data));
        let mut prepared = Some(prepared.unwrap());
        let (engine, full, late) = (&engine, &full, &late);
        async move {
            let prepared = prepared.take().unwrap();
            let deadline = Instant::now() + SOON;
            // Half of the clients leave before the deadline, as if their connections were lost.
            let answer = engine.submit(prepared, deadline);
            let patience = if number % 2 == 0 { SOON * 10 } else { SOON / 2 };
            let answer = match tokio::time::timeout(patience, answer).await {
                Ok(answer) => answer,
                Err(_gone) => return,
            };
            match answer {
                Err(SubmitError::TurnedAway { reason, .. }) => match reason {
                    TurnedAway::Overloaded => full.fetch_add(1, Ordering::Relaxed),
                    TurnedAway::Late => late.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other}"),
                },
                other => panic!("answered without an owner: {other:?}"),
            };
        }
    });
    futures::future::join_all(waiting).await;
    let (full, late) = (full.into_inner(), late.into_inner());
    assert!(full > 0, "the node's memory was never full: {late} waited");
    assert!(late > 0);
    // All of these commands were given up: there is room at once in both partitions.
    let number_max = 200;
    for number in 0..number_max {
        let command = engine.prepare(place_in(FREE, number, &data)).unwrap();
        let answer = engine.submit(command, Instant::now() + 50 * SOON).await;
        assert!(answer.is_ok(), "{number}: {answer:?}");
    }
    engine.drain(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_of_a_command_is_answered_without_an_owner_while_many_wait() {
    let new = NewLog::make(Kind::Sqlite, PARTITIONS).await;
    let engine = half_owning(&new).await;
    let (tenant, data) = (TenantId::default(), place());
    let stream = stream_of(STUCK, 0);
    let waiting = (0..400).map(|number| {
        let id = format!("waits-{number}");
        let command = engine.prepare(request(&stream, "PlaceOrder", &id, &data));
        engine.submit(command.unwrap(), Instant::now() + 20 * SOON)
    });
    let waiting = futures::future::join_all(waiting);
    let asking = async {
        // Queue all commands before the first question.
        tokio::task::yield_now().await;
        let stream = stream.parse().unwrap();
        let ask = async |id: &str| {
            let began = Instant::now();
            let id = id.parse().unwrap();
            let became = engine.outcome(&tenant, &stream, &id, began + 10 * SOON);
            let became = became.await;
            assert!(began.elapsed() < 5 * SOON, "{:?}", began.elapsed());
            became
        };
        for number in [0, 200, 399] {
            let became = ask(&format!("waits-{number}")).await;
            assert_eq!(became, Err(SubmitError::Unknown), "it may yet be accepted");
        }
        let Ok(Became::NotInLog { up_to }) = ask("nobody-sent-it").await else {
            panic!("a command that nobody sent has an outcome");
        };
        assert_eq!(
            up_to.positions.get(&STUCK),
            Some(&Position(1)),
            "the first claim"
        );
    };
    futures::pin_mut!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("commands were answered without an owner"),
        () = asking => {}
    }
    engine.drain(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_cheap_refusals_costs_other_clients_no_more_than_their_turns() {
    let new = NewLog::make(Kind::Sqlite, PARTITIONS).await;
    let engine = start(&new).await;
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn({
        let (engine, stop) = (engine.clone(), Arc::clone(&stop));
        async move {
            let mut batch = engine.batch();
            let stream = stream_of(FREE, 0);
            let mut open = std::collections::VecDeque::new();
            let mut refused = 0_usize;
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("flood-{number}");
                let command = engine.prepare(request(&stream, "ShipOrder", &id, &json!({})));
                let deadline = Instant::now() + 100 * SOON;
                open.push_back(batch.submit(command.unwrap(), deadline).await);
                while open.len() > 2_000 {
                    let answer = open.pop_front().unwrap().await;
                    answer.expect("a refusal");
                    refused += 1;
                }
            }
            refused
        }
    });
    tokio::time::sleep(SOON).await;
    let mut took = Vec::new();
    for number in 1..60 {
        let began = Instant::now();
        let answer = submit(&engine, place_in(FREE, number, &place())).await;
        assert!(answer.is_ok(), "{number}: {answer:?}");
        took.push(began.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let refused = flooding.await.unwrap();
    took.sort();
    println!("{refused} refusals beside; {took:?}");
    assert!(refused > 1_000, "there was a flood: {refused}");
    assert!(took[took.len() / 2] < SOON, "{took:?}");
    engine.drain(SOON).await;
}
