//! The write side on each kind of log: every command gets one true answer, whatever is repeated,
//! restarted or lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Customer, Order, Payment};
use engine::command::{Answer, Decision, Request, SubmitError};
use engine::{Engine, EngineOptions};
use event_log::log::EventLog;
use event_log::record::CommitHeaders;
use kernel::registry::Registry;
use kernel::{CommandId, TenantId, Timestamp};
use position::{Partition, Position};
use serde_json::json;
use serde_json::value::to_raw_value;
use tests::harness::logs::{Kind, NewLog};

const READY_WAIT: Duration = Duration::from_secs(20);

pub(crate) fn shop() -> Registry {
    Registry::new()
        .with::<Customer>()
        .with::<Order>()
        .with::<Payment>()
}

pub(crate) async fn start(log: &NewLog) -> Engine {
    start_on(Arc::clone(&log.log), log).await
}

async fn start_on(log: Arc<dyn EventLog>, new: &NewLog) -> Engine {
    let options = EngineOptions::alone(Some(new.store()));
    let engine = Engine::start(log, shop(), options).await.unwrap();
    engine.ready(READY_WAIT).await.unwrap();
    engine
}

pub(crate) fn request(stream: &str, command: &str, id: &str, data: &serde_json::Value) -> Request {
    Request {
        tenant: TenantId::default(),
        stream: stream.parse().unwrap(),
        command: command.into(),
        schema: None,
        id: id.parse::<CommandId>().unwrap(),
        occurred_at: Some("2018-06-04T16:44:48Z".parse::<Timestamp>().unwrap()),
        expected_version: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data: to_raw_value(data).unwrap(),
    }
}

pub(crate) fn place() -> serde_json::Value {
    let brl = |amount: i64| json!({"amount_minor": amount, "currency": "BRL"});
    json!({
        "customer": "c1",
        "items": [{"line": 1, "product": "p", "seller": "s", "price": brl(2199), "freight": brl(1185)}],
        "estimated_delivery": "2018-06-28T00:00:00Z",
    })
}

pub(crate) async fn submit(engine: &Engine, request: Request) -> Result<Answer, SubmitError> {
    let command = engine.prepare(request).unwrap();
    engine
        .submit(command, Instant::now() + Duration::from_secs(20))
        .await
}

fn code(answer: &Answer) -> &str {
    match &answer.decision {
        Decision::Accepted(_) => "accepted",
        Decision::Rejected(rejection) => &rejection.code,
    }
}

async fn each_kind(test: impl AsyncFn(Kind)) {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        test(kind).await;
    }
}

#[tokio::test]
async fn an_order_is_placed_once_and_its_steps_follow() {
    each_kind(async |kind| {
        let log = NewLog::make(kind, 4).await;
        let engine = start(&log).await;
        let placed = submit(&engine, request("order-1", "PlaceOrder", "a", &place()))
            .await
            .unwrap();
        assert_eq!(
            (placed.version, code(&placed), placed.repeated),
            (1, "accepted", false)
        );
        let again = submit(&engine, request("order-1", "PlaceOrder", "a", &place()))
            .await
            .unwrap();
        assert_eq!(
            again,
            Answer {
                repeated: true,
                ..placed.clone()
            }
        );
        let ship = request("order-1", "ShipOrder", "b", &json!({}));
        let refused = submit(&engine, ship.clone()).await.unwrap();
        assert_eq!((refused.version, code(&refused)), (1, "order_not_approved"));
        let reused = submit(&engine, request("order-1", "ApproveOrder", "b", &json!({}))).await;
        assert_eq!(reused, Err(SubmitError::IdReused));
        let stale = Request {
            expected_version: Some(0),
            ..request("order-1", "ApproveOrder", "c", &json!({}))
        };
        assert_eq!(
            code(&submit(&engine, stale).await.unwrap()),
            "version_conflict"
        );
        let approve = request("order-1", "ApproveOrder", "d", &json!({}));
        assert_eq!(submit(&engine, approve).await.unwrap().version, 2);
        let shipped = submit(&engine, request("order-1", "ShipOrder", "e", &json!({}))).await;
        assert_eq!(shipped.unwrap().version, 3);
        // The first refusal stands: an id names one intent.
        assert_eq!(
            code(&submit(&engine, ship).await.unwrap()),
            "order_not_approved"
        );
        engine.drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_partition_answers_at_once_and_decides_nothing() {
    each_kind(async |kind| {
        let log = NewLog::make(kind, 1).await;
        let claim = event_log::create::first_claim(&*log.log, Partition(0))
            .await
            .unwrap()
            .unwrap();
        let unlinked = CommitHeaders {
            term: claim.term,
            writer: claim.writer,
            position: Position(9),
            previous: event_log::record::genesis(Partition(0)),
        };
        let record = unlinked.record("main/order-1".into(), "{}".into());
        let appender = log.log.appender().await.unwrap();
        let (done, appended) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result: event_log::log::AppendResult| {
            let _ = done.send(result.unwrap());
        });
        appender
            .session()
            .unwrap()
            .append(Partition(0), &record, done)
            .unwrap();
        let offset = appended.await.unwrap().offset.unwrap();
        drop(appender);
        let options = EngineOptions::alone(None);
        let engine = Engine::start(Arc::clone(&log.log), shop(), options)
            .await
            .unwrap();
        let began = Instant::now();
        let answer = submit(&engine, request("order-1", "PlaceOrder", "a", &place())).await;
        let Err(SubmitError::Damaged(damage)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((damage.partition, damage.offset), (Partition(0), offset));
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "not only at its deadline"
        );
        assert!(
            engine
                .readiness()
                .unwrap_err()
                .contains("damage in partition 0")
        );
        engine.drain(Duration::from_secs(5)).await;
        assert_eq!(
            log.log.bounds(Partition(0)).await.unwrap().end,
            offset.next()
        );
    })
    .await;
}

#[tokio::test]
async fn a_restart_answers_old_ids_from_the_log_with_and_without_its_local_store() {
    each_kind(async |kind| {
        let log = NewLog::make(kind, 2).await;
        let mut first = Vec::new();
        let engine = start(&log).await;
        for order in 0..20 {
            let stream = format!("order-{order}");
            first.push(
                submit(&engine, request(&stream, "PlaceOrder", "a", &place()))
                    .await
                    .unwrap(),
            );
        }
        engine.drain(Duration::from_secs(5)).await;
        drop(engine);
        for keep in [true, false] {
            if !keep {
                std::fs::remove_dir_all(log.store()).unwrap();
            }
            let engine = start(&log).await;
            for (order, answer) in first.iter().enumerate() {
                let stream = format!("order-{order}");
                let again = submit(&engine, request(&stream, "PlaceOrder", "a", &place()))
                    .await
                    .unwrap();
                assert_eq!(
                    again,
                    Answer {
                        repeated: true,
                        ..answer.clone()
                    },
                    "{kind:?} {keep}"
                );
                let id = format!("approve-{keep}");
                let approved = submit(&engine, request(&stream, "ApproveOrder", &id, &json!({})));
                assert_eq!(approved.await.unwrap().version, 2);
            }
            engine.drain(Duration::from_secs(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_a_stream_while_many_are_in_flight() {
    each_kind(async |kind| {
        let log = NewLog::make(kind, 4).await;
        let engine = start(&log).await;
        let mut batch = engine.batch();
        let deadline = Instant::now() + Duration::from_secs(30);
        let began = Instant::now();
        let mut pending = Vec::new();
        for order in 0..500 {
            let stream = format!("order-{order}");
            for (id, command) in ["PlaceOrder", "ApproveOrder", "ShipOrder", "DeliverOrder"]
                .iter()
                .enumerate()
            {
                let data = if id == 0 { place() } else { json!({}) };
                let request = request(&stream, command, &id.to_string(), &data);
                pending.push(
                    batch
                        .submit(engine.prepare(request).unwrap(), deadline)
                        .await,
                );
            }
        }
        for (index, answer) in pending.into_iter().enumerate() {
            let answer = answer.await.unwrap();
            assert_eq!(
                (answer.version, code(&answer)),
                (index as u64 % 4 + 1, "accepted")
            );
        }
        println!("{kind:?}: 2000 commands in {:?}", began.elapsed());
        engine.drain(Duration::from_secs(5)).await;
    })
    .await;
}
