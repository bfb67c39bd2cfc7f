//! A stream over its life: each state and each difference is what an independent fold of the log
//! gives, at every version and time, also for streams that one answer cannot fold.

use std::time::Duration;

use domain::{Customer, Order};
use event_log::accepted::read_accepted;
use event_log::commit::Commit;
use event_log::log::{EventLog, LogError};
use kernel::registry::Registry;
use kernel::{Context, Decider, Message as _, Timestamp};
use position::Partition;
use serde_json::{Value, json};
use tests::harness::logs::Kind;

use super::{Served, ask};
use crate::write_side::{place, request};

/// Event by event, what the log says of a stream.
struct Told {
    recorded_at: Timestamp,
    occurred_at: Timestamp,
    commit: Commit,
    index: usize,
}

async fn told(log: &dyn EventLog, stream: &str) -> Vec<Told> {
    let mut told = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let stopped = read_accepted::<LogError>(log, partition, |record, _| {
            let key = record.key.as_deref().unwrap();
            let commit = Commit::read(key, record.value.as_deref().unwrap()).unwrap();
            if commit.stream.as_str() == stream {
                told.extend(commit.events.iter().enumerate().map(|(index, event)| Told {
                    recorded_at: commit.recorded_at,
                    occurred_at: commit.occurred_at(event),
                    commit: commit.clone(),
                    index,
                }));
            }
            Ok(())
        });
        assert!(stopped.await.unwrap().is_none());
    }
    told
}

/// The state of an order after some events.
fn folded<'t>(told: impl IntoIterator<Item = &'t Told>) -> Value {
    let mut state = <Order as Decider>::State::default();
    for told in told {
        let event = &told.commit.events[told.index];
        let data = event.data.get();
        let event = domain::order::Event::decode(&event.type_name, event.schema, data).unwrap();
        Order::evolve(&mut state, &event, told.occurred_at);
    }
    serde_json::to_value(state).unwrap()
}

/// Applies the changes of a difference to a state, in their order.
pub(crate) fn applied(mut state: Value, changes: &Value) -> Value {
    for change in changes.as_array().unwrap() {
        let path = change["path"].as_str().unwrap();
        let (kind, after) = (change["kind"].as_str().unwrap(), change["after"].clone());
        if kind != "added" {
            assert_eq!(state.pointer(path), Some(&change["before"]), "{change}");
        }
        let Some((parent, last)) = path.rsplit_once('/') else {
            state = after;
            continue;
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match (state.pointer_mut(parent).unwrap(), kind) {
            (Value::Object(members), "removed") => {
                members.remove(&last);
            }
            (Value::Object(members), _) => {
                members.insert(last, after);
            }
            (Value::Array(elements), "removed") => {
                elements.pop();
            }
            (Value::Array(elements), "added") => elements.push(after),
            (Value::Array(elements), _) => elements[last.parse::<usize>().unwrap()] = after,
            (other, _) => panic!("{other} has no fields"),
        }
    }
    state
}

/// An order whose third event happened before its second one, with a refusal between.
async fn order(served: &Served) -> String {
    let mut position = String::new();
    for (id, command, occurred, data) in [
        ("a", "PlaceOrder", "2018-01-01T00:00:00Z", place()),
        ("b", "ShipOrder", "2018-01-01T12:00:00Z", json!({})),
        ("c", "ApproveOrder", "2018-01-05T00:00:00Z", json!({})),
        ("d", "StartProcessing", "2018-01-05T12:00:00Z", json!({})),
        (
            "e",
            "ReviewOrder",
            "2018-01-03T00:00:00Z",
            json!({"review": "r.1", "score": 4}),
        ),
        ("f", "InvoiceOrder", "2018-01-06T00:00:00Z", json!({})),
    ] {
        let mut request = request("order-1", command, id, &data);
        request.occurred_at = Some(occurred.parse().unwrap());
        request.correlation_id = Some("talk".parse().unwrap());
        request.actor = Some(serde_json::from_value(json!({"kind": "user", "id": "ana"})).unwrap());
        position = served.submit(request).await.position.to_string();
    }
    position
}

async fn each_version_is_right(served: &Served, told: &[Told]) {
    let at = |version: usize| format!("/v1/streams/order-1/state?at_version={version}");
    for version in 0..=told.len() {
        let state = served.ok(&at(version)).await;
        assert_eq!(state["state"], folded(&told[..version]), "{version}");
        assert_eq!(state["version"], version);
        let commit = version.checked_sub(1).map(|last| &told[last].commit);
        assert_eq!(state["commit"], json!(commit.map(|commit| commit.commit)));
        assert_eq!(
            state["recorded_at"],
            json!(commit.map(|commit| commit.recorded_at))
        );
        assert_eq!(
            (&state["hypothetical"], &state["provisional"]),
            (&json!(false), &json!(false))
        );
        for from in 0..=version {
            let path = format!("/v1/streams/order-1/diff?from={from}&to={version}");
            let diff = served.ok(&path).await;
            let before = folded(&told[..from]);
            assert_eq!(applied(before, &diff["changes"]), state["state"], "{path}");
            assert_eq!(
                (&diff["from"]["version"], &diff["to"]["version"]),
                (&json!(from), &json!(version))
            );
            assert_eq!(diff["complete"], true);
            for change in diff["changes"].as_array().unwrap() {
                let path = change["path"].as_str().unwrap();
                // The last event that changed the field, found by looking at every one.
                let value = |at: usize| folded(&told[..at]).pointer(path).cloned();
                let last = (from + 1..=version)
                    .rfind(|at| value(*at) != value(at - 1))
                    .unwrap();
                assert_eq!(change["by"]["version"], last, "{change}");
                assert_eq!(change["by"]["correlation_id"], "talk");
                assert_eq!(change["by"]["actor"], json!({"kind": "user", "id": "ana"}));
                let by = &told[last - 1].commit;
                assert_eq!(change["by"]["command_id"], by.command.id.as_str());
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_shown_at_every_version_as_its_events_fold_to_it() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        let position = order(&served).await;
        served
            .ok(&format!("/v1/streams/order-1?min_position={position}"))
            .await;
        let told = told(&*served.log.log, "order-1").await;
        assert_eq!(told.len(), 5);
        each_version_is_right(&served, &told).await;
    }
}

#[tokio::test]
async fn a_stream_is_shown_at_every_time_as_its_events_fold_to_it() {
    let served = Served::start(Kind::Sqlite).await;
    let position = order(&served).await;
    let path = "/v1/streams/order-1/state";
    served.ok(&format!("{path}?min_position={position}")).await;
    let told = told(&*served.log.log, "order-1").await;
    let micros = told.iter().flat_map(|told| {
        let at = told.recorded_at.micros();
        [at - 1, at, at + 1]
    });
    for micros in micros.chain([0, i64::from(i32::MAX) * 1_000_000]) {
        let time = Timestamp::from_micros(micros).unwrap();
        let state = served.ok(&format!("{path}?at_time={time}")).await;
        let until = told.iter().filter(|told| told.recorded_at <= time);
        let until: Vec<_> = until.collect();
        assert_eq!(state["version"], until.len(), "{time}");
        assert_eq!(state["state"], folded(until.iter().copied()), "{time}");
        // A record of the partition after that time says that it is over.
        let is_over = told.iter().any(|told| told.recorded_at > time);
        assert_eq!(state["provisional"], !is_over, "{time}");
        let diff = served
            .ok(&format!("/v1/streams/order-1/diff?from=0&to_time={time}"))
            .await;
        assert_eq!(applied(folded([]), &diff["changes"]), state["state"]);
    }
    for (time, version, skipped) in [
        ("2017-12-31T00:00:00Z", 0, 0),
        ("2018-01-01T00:00:00Z", 1, 0),
        ("2018-01-03T00:00:00Z", 4, 2),
        ("2018-01-05T00:00:00Z", 4, 1),
        ("2018-01-05T12:00:00Z", 4, 0),
        ("2018-01-06T00:00:00Z", 5, 0),
    ] {
        let at: Timestamp = time.parse().unwrap();
        let state = served
            .ok(&format!("{path}?at_time={time}&time=occurred"))
            .await;
        let until = told.iter().filter(|told| told.occurred_at <= at);
        assert_eq!(state["state"], folded(until), "{time}");
        let said = (&state["version"], &state["skipped"], &state["hypothetical"]);
        assert_eq!(
            said,
            (&json!(version), &json!(skipped), &json!(skipped > 0)),
            "{time}"
        );
        let diff = format!("/v1/streams/order-1/diff?from=1&to_time={time}&time=occurred");
        if version > 0 {
            let diff = served.ok(&diff).await;
            let before = folded(&told[..1]);
            assert_eq!(applied(before, &diff["changes"]), state["state"], "{time}");
        }
    }
}

#[tokio::test]
async fn a_stream_says_what_it_is_and_bad_questions_get_an_answer() {
    let served = Served::start(Kind::Sqlite).await;
    let position = order(&served).await;
    let path = "/v1/streams/order-1";
    let stream = served.ok(&format!("{path}?min_position={position}")).await;
    let said = ["stream", "category", "version", "known"].map(|name| &stream[name]);
    assert_eq!(
        said,
        [&json!("order-1"), &json!("order"), &json!(5), &json!(true)]
    );
    assert_eq!(stream["last_event"]["type"], "OrderInvoiced");
    assert_eq!(stream["last_event"]["correlation_id"], "talk");
    assert_eq!(stream["links"]["state"], "/v1/streams/order-1/state");
    // `rejections` is another read model, and may come later.
    let refused = async || {
        let stream = served.ok(path).await;
        stream["refused"] == true
    };
    crate::cli::program::until("the refusal is seen", refused).await;
    let state = served
        .get(&format!("{path}/state?at_version=3"))
        .send()
        .await
        .unwrap();
    let tag = state.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with("\"3-"), "{tag}");
    let again = served.get(&format!("{path}/state?at_version=3&time=recorded"));
    let again = again.header("If-None-Match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    for (question, status, code) in [
        ("/state?at_version=6", 404, "version_not_found"),
        ("/state?at_version=-1", 400, "query_invalid"),
        (
            "/state?at_version=1&at_time=2018-01-01T00:00:00Z",
            422,
            "moment_unclear",
        ),
        ("/state?at_time=yesterday", 400, "query_invalid"),
        ("/state?time=occurred", 422, "moment_unclear"),
        (
            "/state?at_time=2018-01-01T00:00:00Z&time=now",
            400,
            "query_invalid",
        ),
        ("/diff?from=3&to=2", 422, "moment_unclear"),
        ("/diff?to_time=2018-01-01T00:00:00Z", 422, "moment_unclear"),
        ("/diff?from=1&to=9", 404, "version_not_found"),
        ("/diff?at=1", 400, "query_invalid"),
    ] {
        served
            .problem(served.get(&format!("{path}{question}")), status, code)
            .await;
    }
    for path in ["", "/state", "/diff"] {
        let path = format!("/v1/streams/order-none{path}");
        served
            .problem(served.get(&path), 404, "stream_not_found")
            .await;
    }
    // Generated clients send defaults.
    let diff = served.ok("/v1/streams/order-1/diff?time=recorded").await;
    assert_eq!(
        (&diff["from"]["version"], &diff["to"]["version"]),
        (&json!(4), &json!(5))
    );
}

/// The rules of customers, slowly.
struct Slow;

impl Decider for Slow {
    const CATEGORY: &'static str = "customer";
    type State = <Customer as Decider>::State;
    type Command = <Customer as Decider>::Command;
    type Event = <Customer as Decider>::Event;
    type Rejection = <Customer as Decider>::Rejection;

    fn decide(
        state: &Self::State,
        command: &Self::Command,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        Customer::decide(state, command, context)
    }

    fn evolve(state: &mut Self::State, event: &Self::Event, occurred_at: Timestamp) {
        std::thread::sleep(Duration::from_millis(15));
        Customer::evolve(state, event, occurred_at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_long_to_fold_is_folded_over_several_requests() {
    let mut served = Served::start(Kind::Sqlite).await;
    let address = |number: usize| json!({"city": format!("c{number}"), "state": "SP", "postcode_prefix": "01310"});
    let mut position = String::new();
    for number in 0..260 {
        let command = match number {
            0 => "RegisterCustomer",
            _ => "CorrectAddress",
        };
        let request = request("customer-1", command, &number.to_string(), &address(number));
        position = served.submit(request).await.position.to_string();
    }
    let all = tests::harness::stack::read_models();
    served
        .serve_with(&all, Registry::new().with::<Slow>())
        .await;
    let path = format!("/v1/streams/customer-1/state?min_position={position}");
    let (mut before, mut tries) = (0, 0);
    let state = loop {
        tries += 1;
        let (status, body) = ask(served.get(&path)).await;
        if status == 200 {
            break body;
        }
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (503, &json!("fold_unfinished")),
            "{body}"
        );
        let folded = body["folded"].as_u64().unwrap();
        assert!(folded > before && folded < 260, "{body}");
        before = folded;
    };
    assert!(tries > 1);
    assert_eq!(
        (
            &state["version"],
            &state["state"]["address"]["facts"]["city"]
        ),
        (&json!(260), &json!("c259"))
    );
    // From what is kept, the next answer comes at the first try.
    assert_eq!(served.ok(&path).await["state"], state["state"]);
    let earlier = served
        .ok("/v1/streams/customer-1/state?at_version=20")
        .await;
    assert_eq!(earlier["state"]["address"]["facts"]["city"], "c19");
    // Each event of a difference must be looked at, so that it cannot be continued.
    let long = served.get("/v1/streams/customer-1/diff?from=10&to=250");
    served.problem(long, 422, "range_too_long").await;
}
