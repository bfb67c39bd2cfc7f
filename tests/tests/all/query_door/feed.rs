//! The accepted feed: whatever is asked, a client gets exactly the commits that count, in each
//! partition's order, and goes on from every cursor without a gap or a duplicate.

mod kills;
mod slow;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::command::Request;
use event_log::accepted::read_accepted;
use event_log::commit::{Commit, Outcome};
use event_log::log::{EventLog, LogAddress, LogError};
use futures::StreamExt as _;
use kernel::{Actor, ActorKind, Timestamp};
use position::Partition;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};
use tokio::time::timeout;

use super::{Served, of_tenant};
use crate::event_log_contract::reading::cut_head;
use crate::projections::{shop_history, submit_all, until};
use crate::raw_log::{RawLog, again, foreign, read_all};
use crate::write_side::{place, request};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a commit in the log says of itself: found without the index and the feed.
struct Told {
    partition: u32,
    position: u64,
    offset: u64,
    commit: Commit,
    latest: Timestamp,
}

async fn told(served: &Served) -> Vec<Told> {
    told_of(&*served.log.log).await
}

async fn told_of(log: &dyn EventLog) -> Vec<Told> {
    let mut all = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let mut latest: Option<Timestamp> = None;
        let stopped = read_accepted(log, partition, |record, position| {
            let key = record.key.as_deref().unwrap();
            let commit = Commit::read(key, record.value.as_deref().unwrap()).unwrap();
            latest = latest.max(Some(commit.recorded_at));
            all.push(Told {
                partition: partition.0,
                position: position.0,
                offset: record.offset.0,
                latest: latest.unwrap(),
                commit,
            });
            Ok::<(), LogError>(())
        });
        assert!(stopped.await.unwrap().is_none());
    }
    all
}

/// The events and refusals of commits, as `partition/position/version/type`.
fn lines<'a>(told: impl Iterator<Item = &'a Told>, types: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    for one in told {
        let place = format!("{}/{}/{}", one.partition, one.position, one.offset);
        if one.commit.outcome == Outcome::Rejected {
            lines.push(format!("{place} refusal {}", one.commit.command.id));
        }
        for (event, version) in one.commit.events.iter().zip(one.commit.from_version + 1..) {
            let type_name = event.type_name.as_str();
            if types.is_none_or(|asked| asked == type_name) {
                lines.push(format!("{place} {version} {type_name} {}", event.id));
            }
        }
    }
    lines.sort();
    lines
}

fn line(item: &Value) -> String {
    let place = &item["place"];
    let place = format!(
        "{}/{}/{}",
        place["partition"], place["position"], place["offset"]
    );
    let text = |name: &str| item[name].as_str().unwrap().to_owned();
    match item["kind"].as_str().unwrap() {
        "refusal" => format!("{place} refusal {}", text("command_id")),
        "event" => format!(
            "{place} {} {} {}",
            item["version"],
            text("type"),
            text("id")
        ),
        other => panic!("{other}: {item}"),
    }
}

/// All lines of a feed that ends.
async fn whole(request: RequestBuilder) -> Vec<Value> {
    let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
    let status = response.status();
    let text = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    assert_eq!(status, 200, "{text}");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The items of a feed, whose last line must say that it is complete.
fn items(mut lines: Vec<Value>) -> Vec<Value> {
    assert_eq!(lines.pop().unwrap()["kind"], "end");
    lines.retain(|line| line["kind"] != "progress");
    lines
}

fn sorted(items: &[Value]) -> Vec<String> {
    let mut lines: Vec<String> = items.iter().map(line).collect();
    lines.sort();
    lines
}

/// In each partition the positions rise, and a commit's items stand together with one cursor at the end.
fn assert_in_order(items: &[Value]) {
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (number, item) in items.iter().enumerate() {
        let of = |name: &str| item["place"][name].as_u64().unwrap();
        let place = (of("position"), item["version"].as_u64().unwrap());
        let before = last.insert(of("partition"), place);
        assert!(
            before.is_none_or(|before| before < place),
            "{before:?} {place:?}"
        );
        let next = items.get(number + 1).map(|next| &next["place"]);
        let is_last = next != Some(&item["place"]);
        assert_eq!(item["cursor"].is_string(), is_last, "{item}");
    }
}

async fn served_history(kind: Kind) -> Served {
    let served = Served::over(NewLog::make(kind, 4).await).await;
    let mut lines = shop_history(3, 30);
    for line in &mut lines {
        line.actor = Some(Actor {
            id: format!("clerk-{}", line.stream.as_str().len() % 3),
            kind: ActorKind::User,
        });
        line.correlation_id = Some(format!("talk-{}", line.stream).parse().unwrap());
    }
    submit_all(&served.engine, lines).await;
    let other: Vec<Request> = shop_history(4, 10);
    let other = other.into_iter().map(|line| of_tenant("other", line));
    submit_all(&served.engine, other.collect()).await;
    served.indexed().await;
    served
}

impl Served {
    /// Waits until the index has all commits.
    async fn indexed(&self) {
        let commits = told(self).await.len() as i64;
        until("the index has all commits", async || {
            let count = "SELECT count(*) FROM read.commit_index";
            let mut connection = connect(&self.postgres_url).await;
            let found: Result<i64, _> = sqlx::query_scalar(count).fetch_one(&mut connection).await;
            found.is_ok_and(|found| found == commits)
        })
        .await;
    }
}

async fn connect(url: &str) -> sqlx::PgConnection {
    use sqlx::Connection as _;
    sqlx::PgConnection::connect(url).await.unwrap()
}

type Takes = Box<dyn Fn(&Told) -> bool>;

#[tokio::test]
async fn every_filter_gives_what_a_reader_of_the_whole_log_finds() {
    let served = served_history(Kind::Sqlite).await;
    let told = told(&served).await;
    let refused = told
        .iter()
        .find(|one| one.commit.outcome == Outcome::Rejected)
        .unwrap();
    let mut times: Vec<Timestamp> = told.iter().map(|one| one.latest).collect();
    times.sort_unstable();
    // The other tenant's history comes last.
    let middle = times[times.len() / 3];
    let shipped = told.iter().find(|one| {
        let mut events = one.commit.events.iter();
        let is_main = one.commit.tenant.as_str() == "main";
        is_main && events.any(|event| event.type_name.as_str() == "OrderShipped")
    });
    let shipped = shipped.unwrap().commit.stream.to_string();
    let same_stream = shipped.clone();
    let is = |commit: &Commit, tenant: &str| commit.tenant.as_str() == tenant;
    let command = refused.commit.command.id.to_string();
    let same = command.clone();
    let cases: Vec<(String, &str, Option<&str>, Takes)> = vec![
        (String::new(), "main", None, Box::new(|_| true)),
        (String::new(), "other", None, Box::new(|_| true)),
        (String::new(), "*", None, Box::new(|_| true)),
        (
            "category=order".into(),
            "main",
            None,
            Box::new(|one| one.commit.stream.category() == "order"),
        ),
        (
            "category=order".into(),
            "*",
            None,
            Box::new(|one| one.commit.stream.category() == "order"),
        ),
        ("category=nothing".into(), "main", None, Box::new(|_| false)),
        (
            "type=OrderPlaced".into(),
            "main",
            Some("OrderPlaced"),
            Box::new(|_| true),
        ),
        (
            "type=OrderPlaced".into(),
            "*",
            Some("OrderPlaced"),
            Box::new(|_| true),
        ),
        (
            "type=OrderPlaced&category=order".into(),
            "other",
            Some("OrderPlaced"),
            Box::new(|_| true),
        ),
        (
            format!("type=OrderShipped&stream={shipped}"),
            "main",
            Some("OrderShipped"),
            Box::new(move |one| one.commit.stream.as_str() == same_stream),
        ),
        (
            "stream=order-3&outcome=all".into(),
            "*",
            None,
            Box::new(|one| one.commit.stream.as_str() == "order-3"),
        ),
        (
            "actor=user:clerk-1".into(),
            "main",
            None,
            Box::new(|one| one.commit.actor.as_ref().is_some_and(|a| a.id == "clerk-1")),
        ),
        (
            "actor=service:clerk-1".into(),
            "main",
            None,
            Box::new(|_| false),
        ),
        (
            "correlation_id=talk-order-5".into(),
            "main",
            None,
            Box::new(|one| one.commit.correlation_id() == "talk-order-5"),
        ),
        (
            format!("command_id={command}&outcome=all"),
            "main",
            None,
            Box::new(move |one| one.commit.command.id.as_str() == same),
        ),
        ("outcome=refused".into(), "main", None, Box::new(|_| true)),
        ("outcome=all".into(), "*", None, Box::new(|_| true)),
        (
            format!("from_time={middle}"),
            "main",
            None,
            Box::new(move |one| one.latest >= middle),
        ),
        (
            format!("until={middle}"),
            "*",
            None,
            Box::new(move |one| one.latest < middle),
        ),
        (
            format!("from_time={middle}&category=order"),
            "*",
            None,
            Box::new(move |one| one.latest >= middle && one.commit.stream.category() == "order"),
        ),
    ];
    let mut empty = Vec::new();
    for (query, tenant, types, takes) in cases {
        let asked = served
            .get(&format!("/v1/events?{query}"))
            .header("Annals-Tenant", tenant);
        let found = items(whole(asked).await);
        assert_in_order(&found);
        let outcome = |one: &&Told| match one.commit.outcome {
            _ if query.contains("outcome=all") => true,
            Outcome::Rejected => query.contains("outcome=refused"),
            Outcome::Accepted => !query.contains("outcome=refused"),
        };
        let expected = told
            .iter()
            .filter(|one| tenant == "*" || is(&one.commit, tenant));
        let expected = lines(expected.filter(outcome).filter(|one| takes(one)), types);
        assert_eq!(sorted(&found), expected, "{query} of {tenant}");
        if found.is_empty() {
            empty.push(query);
        }
    }
    // The others take something, so that the comparison says something.
    assert_eq!(empty, ["category=nothing", "actor=service:clerk-1"]);
}

#[tokio::test]
async fn a_client_goes_on_from_every_border_of_a_commit() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = served_history(kind).await;
        for query in ["", "&category=customer", "&type=OrderPlaced"] {
            let all = |from: &str| {
                let path = format!("/v1/events?outcome=accepted{query}{from}");
                served.get(&path).header("Annals-Tenant", "*")
            };
            let first = items(whole(all("")).await);
            assert_in_order(&first);
            let borders: Vec<usize> = (0..first.len())
                .filter(|&number| first[number]["cursor"].is_string())
                .collect();
            // On Kafka each border costs reads of all partitions.
            let step = if kind == Kind::Sqlite { 1 } else { 17 };
            for &border in borders.iter().step_by(step) {
                let cursor = first[border]["cursor"].as_str().unwrap();
                let rest = match border % 2 {
                    0 => all(&format!("&from={cursor}")),
                    _ => all("").header("Last-Event-ID", cursor),
                };
                let rest = items(whole(rest).await);
                assert_in_order(&rest);
                assert_eq!(
                    sorted(&rest),
                    sorted(&first[border + 1..]),
                    "{kind:?} {query} {border}"
                );
            }
        }
    }
}

/// The pieces of a feed that goes on, as lines of JSON.
struct Following {
    pieces: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: Vec<u8>,
}

impl Following {
    async fn begin(request: RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        Self {
            pieces: Box::pin(response.bytes_stream()),
            text: Vec::new(),
        }
    }

    /// The next line; absent at the end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let piece = timeout(PATIENCE, self.pieces.next()).await.unwrap()?;
            self.text.extend_from_slice(&piece.unwrap());
        }
    }

    /// The next item that is no sign of life.
    async fn item(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("the feed goes on");
            let item: Value = serde_json::from_str(&line).unwrap();
            if item["kind"] != "progress" {
                return item;
            }
        }
    }
}

#[tokio::test]
async fn a_follower_gets_what_comes_and_no_orphan() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        served
            .submit(request("order-0", "PlaceOrder", "before", &place()))
            .await;
        let mut live = Following::begin(served.get("/v1/events?follow=true&from=now")).await;
        let mut all = Following::begin(served.get("/v1/events?follow=true&category=order")).await;
        assert_eq!(all.item().await["command_id"], "before");
        for number in 1..30 {
            let stream = format!("order-{number}");
            let id = format!("c{number}");
            served
                .submit(request(&stream, "PlaceOrder", &id, &place()))
                .await;
            // Records that do not count: one of another program, and one that was written twice.
            if kind == Kind::Kafka {
                let partition = Partition(number % 4);
                let records = read_all(&*served.log.log, partition).await;
                let orphans = [foreign("x"), again(records.last().unwrap())];
                RawLog::of(&served.log).write(partition, &orphans).await;
            }
            for feed in [&mut live, &mut all] {
                let item = feed.item().await;
                assert_eq!(item["command_id"], json!(id), "{kind:?} {item}");
                assert_eq!(item["kind"], "event");
            }
        }
    }
}

#[tokio::test]
async fn server_sent_events_have_ids_and_go_on_from_the_last_one() {
    let served = Served::start(Kind::Sqlite).await;
    served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let ask = || {
        let feed = served.get("/v1/events?follow=true");
        feed.header("Accept", "text/event-stream")
    };
    let mut feed = Following::begin(ask()).await;
    let block = async |feed: &mut Following| {
        let mut lines: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let line = feed.line().await.unwrap();
            if line.is_empty() && lines.contains_key("data") {
                return lines;
            }
            if let Some((name, value)) = line.split_once(": ") {
                lines.insert(name.to_owned(), value.to_owned());
            }
        }
    };
    let first = block(&mut feed).await;
    assert_eq!((&*first["event"], &*first["retry"]), ("event", "1000"));
    let data: Value = serde_json::from_str(&first["data"]).unwrap();
    assert_eq!(data["cursor"], json!(first["id"]));
    assert_eq!(data["data"]["customer"], "c1");
    drop(feed);
    served
        .submit(request("order-2", "PlaceOrder", "b", &place()))
        .await;
    let mut feed = Following::begin(ask().header("Last-Event-ID", &first["id"])).await;
    let next = block(&mut feed).await;
    let data: Value = serde_json::from_str(&next["data"]).unwrap();
    assert_eq!(data["stream"], "order-2");
}

#[tokio::test]
async fn a_cursor_of_another_history_is_refused_and_wrong_questions_too() {
    let served = Served::start(Kind::Sqlite).await;
    let other = Served::start(Kind::Sqlite).await;
    for one in [&served, &other] {
        one.submit(request("order-1", "PlaceOrder", "a", &place()))
            .await;
    }
    let items = items(whole(other.get("/v1/events")).await);
    let cursor = items[0]["cursor"].as_str().unwrap();
    let asked = served.get(&format!("/v1/events?from={cursor}&follow=true"));
    served.problem(asked, 409, "log_changed").await;
    let cut = &cursor[..cursor.len() - 1];
    let asked = served.get(&format!("/v1/events?from={cut}"));
    served.problem(asked, 400, "position_invalid").await;
    let asked = served.get("/v1/events").header("Last-Event-ID", cut);
    served.problem(asked, 400, "header_invalid").await;
    for wrong in [
        "follow=yes",
        "actor=ann",
        "actor=boss:ann",
        "until=now",
        "until=2020-01-01T00:00:00Z&follow=true",
        "outcome=some",
        "format=xml",
        "stream=nonsense",
        "category=",
        "what=else",
        "from=now&from_time=2020-01-01T00:00:00Z",
    ] {
        let asked = served.get(&format!("/v1/events?{wrong}"));
        served.problem(asked, 400, "query_invalid").await;
    }
}

#[tokio::test]
async fn a_feed_ends_with_what_happened_to_the_log_and_never_with_a_silent_gap() {
    // The file is replaced while somebody follows.
    let served = Served::start(Kind::Sqlite).await;
    served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let mut feed = Following::begin(served.get("/v1/events?follow=true")).await;
    assert_eq!(feed.item().await["kind"], "event");
    let LogAddress::Sqlite { path } = &served.log.address else {
        panic!("no file")
    };
    std::fs::remove_file(path).unwrap();
    let last = feed.item().await;
    assert_eq!(last["problem"]["code"], "log_changed", "{last}");
    assert_eq!(feed.line().await, None);

    // What the client has read is deleted from the log, as by retention.
    let served = Served::start(Kind::Sqlite).await;
    for number in 0..20 {
        let stream = format!("order-{number}");
        served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
    }
    let items = items(whole(served.get("/v1/events")).await);
    let cursor = items.last().unwrap()["cursor"].as_str().unwrap();
    let end = served.log.log.bounds(Partition(0)).await.unwrap().end;
    cut_head(&RawLog::of(&served.log), end.0.cast_signed()).await;
    let asked = served.get(&format!("/v1/events?from={cursor}&follow=true"));
    served.problem(asked, 409, "log_changed").await;
}
