//! Replays over HTTP: each state, each limit, and rows that are those as of the moment.

use std::time::Duration;

use admin_api::{Controls, ReplayLimits, Replays};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;

use super::Served;
use crate::projections::{database, log_of, scalar, shop_history, until};

/// A shop whose read models are level, and a door to them.
struct Shop {
    door: Served,
    replays: Replays,
    url: String,
    log: NewLog,
    _postgres: Postgres,
}

impl Shop {
    async fn open(limits: ReplayLimits) -> Self {
        let log = log_of(Kind::Sqlite, shop_history(7, 25)).await;
        let postgres = Postgres::start();
        let url = database(&postgres).await;
        let all = read_models();
        let done = projector::catch_up(&log.log, &url, &all, Box::new(|_| {}));
        done.await.unwrap();
        let replays = Replays::new(limits);
        Self {
            door: Served::with_replays(&log, &url, all, Controls::Served, &replays).await,
            replays,
            url,
            log,
            _postgres: postgres,
        }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.door.ask(Method::POST, path, Some(body)).await
    }

    async fn begin(&self, body: Value) -> Value {
        let (status, begun) = self.post("/v1/replays", body).await;
        assert_eq!(status, 202, "{begun}");
        begun
    }

    /// Asks for something, and waits until the replay does not run any more.
    async fn ask(&self, schema: &str, action: &str, body: Value) -> Value {
        let (status, mut shown) = self
            .post(&format!("/v1/replays/{schema}/{action}"), body)
            .await;
        assert_eq!(status, 202, "{shown}");
        let is_ending = |shown: &Value| action == "end" && shown["state"] == "paused";
        while shown["state"] == "running" || is_ending(&shown) {
            let revision = shown["revision"].as_u64().unwrap();
            let path = format!("/v1/replays/{schema}?after={revision}");
            shown = self.door.get(&path).await;
        }
        shown
    }

    async fn made(&self, schema: &str) -> String {
        scalar(
            &self.url,
            &format!("SELECT state FROM {schema}.annals_made"),
        )
        .await
    }

    async fn rows(&self, from: &str) -> String {
        let sql = format!(
            "SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') FROM {from} AS r"
        );
        scalar(&self.url, &sql).await
    }
}

fn limits() -> ReplayLimits {
    ReplayLimits {
        active_max: 2,
        idle_max: Duration::from_secs(600),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_stepped_and_played_over_http() {
    let shop = Shop::open(limits()).await;
    assert_eq!(shop.door.get("/v1/replays").await["replays"], json!([]));
    let begun = shop.begin(json!({"projection": "daily_sales"})).await;
    assert_eq!(begun["schema"], "replay_daily_sales");
    assert_eq!(
        (&begun["state"], &begun["why"]),
        (&json!("paused"), &json!("begun"))
    );
    assert_eq!(
        (&begun["by"], &begun["step"]),
        (&json!("ann"), &Value::Null)
    );
    let schema = "replay_daily_sales";

    let stepped = shop.ask(schema, "step", json!({})).await;
    assert_eq!(
        (&stepped["state"], &stepped["why"]),
        (&json!("paused"), &json!("stepped"))
    );
    let step = &stepped["step"];
    assert!(
        step["stream"].as_str().unwrap().starts_with("order-"),
        "{step}"
    );
    assert_eq!(step["command"], "PlaceOrder", "{step}");
    assert_eq!(step["events"][0]["type"], "OrderPlaced", "{step}");
    assert!(step["events"][0]["data"].is_object(), "{step}");
    assert_eq!(step["rows"][0]["before"], Value::Null, "{step}");
    assert_eq!(step["rows"][0]["after"]["orders"], 1, "{step}");
    assert_eq!(step["rows"][0]["key"], json!(["day", "currency"]), "{step}");
    assert_eq!(stepped["stands"]["at"], step["at"]);
    assert_eq!(stepped["progress"]["commits"], 1);
    // The rows stand in the schema while the replay is paused.
    assert_eq!(
        scalar::<i64>(
            &shop.url,
            "SELECT count(*) FROM replay_daily_sales.daily_sales"
        )
        .await,
        1
    );

    let event = shop.ask(schema, "step", json!({"by": "event"})).await;
    assert_eq!(
        event["step"]["events"].as_array().unwrap().len(),
        1,
        "{event}"
    );
    assert_eq!(event["step"]["event"], 1);
    assert!(event["stands"]["at"].as_str() >= stepped["stands"]["at"].as_str());

    let played = shop.ask(schema, "play", json!({})).await;
    assert_eq!(
        (&played["state"], &played["why"]),
        (&json!("finished"), &json!("end"))
    );
    assert_eq!(
        played["progress"]["records_read"],
        played["progress"]["records"]
    );
    assert_eq!(shop.made(schema).await, "finished");
    assert_eq!(
        shop.rows("replay_daily_sales.daily_sales").await,
        shop.rows("read.daily_sales").await
    );
    // The commits of the time axis are those of the streams that the projection takes up.
    let path = format!("/v1/replays/{schema}");
    until("the commits are counted", async || {
        shop.door.get(&path).await["density"].is_object()
    })
    .await;
    let shown = shop.door.get(&path).await;
    let density = shown["density"]["commits"].as_array().unwrap();
    let counted: u64 = density.iter().map(|part| part.as_u64().unwrap()).sum();
    let commits: i64 = scalar(
        &shop.url,
        "SELECT count(*) FROM read.stream_commits WHERE stream LIKE 'order-%'",
    )
    .await;
    assert_eq!(
        (density.len(), counted),
        (120, commits.cast_unsigned()),
        "{shown}"
    );

    // An ended replay says so, and its schema is not replaced by chance.
    let path = format!("/v1/replays/{schema}/step");
    let (status, said) = shop.post(&path, json!({})).await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("replay_not_possible"))
    );
    let again = json!({"projection": "daily_sales"});
    let (status, said) = shop.post("/v1/replays", again).await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("replay_not_possible"))
    );
    assert_eq!(shop.made(schema).await, "finished");
    let again = shop
        .begin(json!({"projection": "daily_sales", "replace": true}))
        .await;
    assert_eq!(again["state"], "paused");
    let ended = shop.ask(schema, "end", json!({})).await;
    assert_eq!(
        (&ended["state"], &ended["why"]),
        (&json!("stopped"), &json!("asked"))
    );
    assert_eq!(shop.made(schema).await, "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_to_a_time_has_the_rows_as_of_it_and_one_with_a_condition_pauses() {
    let shop = Shop::open(limits()).await;
    let time: String = scalar(
        &shop.url,
        "SELECT to_char(percentile_disc(0.5) WITHIN GROUP (ORDER BY recorded_at), \
         'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM read.stream_commits",
    )
    .await;
    let body = json!({"projection": "order_summary", "until": time, "schema": "half"});
    let begun = shop.begin(body).await;
    assert!(begun["until_at"].is_string(), "{begun}");
    let played = shop.ask("half", "play", json!({})).await;
    assert_eq!(
        (&played["state"], &played["why"]),
        (&json!("finished"), &json!("until"))
    );
    let mut connection = sqlx::PgConnection::connect(&shop.url).await.unwrap();
    sqlx::query("SELECT set_config('annals.as_of', $1, false)")
        .bind(&time)
        .execute(&mut connection)
        .await
        .unwrap();
    let sql =
        "SELECT string_agg(r::text, E'\\n' ORDER BY r::text) FROM read_as_of.order_summary AS r";
    let as_of: String = sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(shop.rows("half.order_summary").await, as_of);

    let until = "daily_sales.items > 2";
    let body = json!({"projection": "daily_sales", "until": until, "schema": "busy"});
    shop.begin(body).await;
    let hit = shop.ask("busy", "play", json!({})).await;
    assert_eq!(
        (&hit["state"], &hit["why"]),
        (&json!("paused"), &json!("condition"))
    );
    let row = &hit["step"]["rows"][0];
    assert_eq!(row["is_hit"], true, "{hit}");
    assert!(row["after"]["items"].as_u64().unwrap() > 2, "{hit}");
    let ended = shop.ask("busy", "end", json!({})).await;
    assert_eq!(ended["state"], "finished");
    assert_eq!(shop.made("busy").await, "finished");
    // The newest comes first.
    let all = shop.door.get("/v1/replays").await;
    let schemas: Vec<_> = all["replays"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["schema"])
        .collect();
    assert_eq!(schemas, [&json!("busy"), &json!("half")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_replay_is_paused_and_made_faster_by_two_clients() {
    let shop = Shop::open(limits()).await;
    shop.begin(json!({"projection": "daily_sales", "schema": "slow"}))
        .await;
    // So slow that nothing but the first commit comes.
    let (status, shown) = shop
        .post("/v1/replays/slow/play", json!({"speed": 1e-6}))
        .await;
    assert_eq!(
        (status, &shown["state"], &shown["speed"]),
        (202, &json!("running"), &json!(1e-6))
    );
    let (status, said) = shop.post("/v1/replays/slow/step", json!({})).await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("replay_not_possible")),
        "{said}"
    );
    let paused = shop.ask("slow", "pause", json!({})).await;
    assert_eq!(
        (&paused["state"], &paused["why"]),
        (&json!("paused"), &json!("asked"))
    );
    // Two clients at once: both steps are taken, or one is told that the replay runs.
    let before = paused["progress"]["commits"].as_u64().unwrap();
    let step = async || shop.post("/v1/replays/slow/step", json!({})).await.0;
    let statuses = tokio::join!(step(), step());
    let mut shown = shop.door.get("/v1/replays/slow").await;
    while shown["state"] == "running" {
        let path = format!("/v1/replays/slow?after={}", shown["revision"]);
        shown = shop.door.get(&path).await;
    }
    let taken = [statuses.0, statuses.1]
        .into_iter()
        .filter(|status| *status == 202);
    let after = shown["progress"]["commits"].as_u64().unwrap();
    assert_eq!(after - before, taken.count() as u64, "{statuses:?}");
    assert!(
        [statuses.0, statuses.1]
            .iter()
            .all(|status| [202, 409].contains(status))
    );
    // While it plays, another speed takes effect at once.
    shop.post("/v1/replays/slow/play", json!({"speed": 1e-6}))
        .await;
    let played = shop.ask("slow", "play", json!({})).await;
    assert_eq!(
        (&played["state"], &played["why"]),
        (&json!("finished"), &json!("end"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_have_limits_and_say_what_is_in_the_way() {
    let shop = Shop::open(limits()).await;
    for (body, status, code) in [
        (json!({"projection": "nothing"}), 404, "projection_unknown"),
        (json!({}), 400, "request_invalid"),
        (
            json!({"projection": "daily_sales", "more": 1}),
            400,
            "request_invalid",
        ),
        (
            json!({"projection": "daily_sales", "until": "soon"}),
            409,
            "replay_not_possible",
        ),
        (
            json!({"projection": "daily_sales", "until": "nothing > 1"}),
            409,
            "replay_not_possible",
        ),
        (
            json!({"projection": "daily_sales", "from_snapshot": "x"}),
            409,
            "replay_not_possible",
        ),
        (
            json!({"projection": "daily_sales", "schema": "Read"}),
            400,
            "request_invalid",
        ),
        (
            json!({"projection": "daily_sales", "schema": "read", "replace": true}),
            409,
            "replay_not_possible",
        ),
    ] {
        let (found, said) = shop.post("/v1/replays", body.clone()).await;
        assert_eq!(
            (found, &said["code"]),
            (status, &json!(code)),
            "{body}: {said}"
        );
    }
    assert_eq!(shop.door.get("/v1/replays").await["replays"], json!([]));
    for schema in ["one", "two"] {
        shop.begin(json!({"projection": "daily_sales", "schema": schema}))
            .await;
    }
    let third = json!({"projection": "daily_sales", "schema": "three"});
    let (status, said) = shop.post("/v1/replays", third.clone()).await;
    assert_eq!((status, &said["code"]), (409, &json!("replays_exhausted")));
    assert!(
        said["detail"].as_str().unwrap().contains("one, two"),
        "{said}"
    );
    let same = json!({"projection": "daily_sales", "schema": "one", "replace": true});
    let (status, said) = shop.post("/v1/replays", same).await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("replay_not_possible"))
    );
    for (path, body, status, code) in [
        (
            "/v1/replays/one/play",
            json!({"speed": 0}),
            400,
            "request_invalid",
        ),
        (
            "/v1/replays/one/step",
            json!({"by": "row"}),
            400,
            "request_invalid",
        ),
        ("/v1/replays/one/end", json!([]), 400, "request_invalid"),
        ("/v1/replays/one/explode", json!({}), 404, "action_unknown"),
        ("/v1/replays/three/step", json!({}), 404, "replay_unknown"),
    ] {
        let (found, said) = shop.post(path, body).await;
        assert_eq!(
            (found, &said["code"]),
            (status, &json!(code)),
            "{path}: {said}"
        );
    }
    shop.ask("one", "end", json!({})).await;
    shop.begin(third).await;
    // A node that stops ends them, and each says so.
    shop.replays.close().await;
    assert_eq!(shop.made("two").await, "stopped");
    let shown = shop.door.get("/v1/replays/two").await;
    assert_eq!(
        (&shown["state"], &shown["why"]),
        (&json!("stopped"), &json!("shutdown"))
    );
    let (status, _) = shop
        .post("/v1/replays", json!({"projection": "daily_sales"}))
        .await;
    assert_eq!(status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_nobody_asks_for_anything_ends_and_one_that_others_reach_never_begins() {
    let idle = ReplayLimits {
        idle_max: Duration::from_millis(300),
        ..limits()
    };
    let shop = Shop::open(idle).await;
    let mut shown = shop.begin(json!({"projection": "daily_sales"})).await;
    while shown["state"] == "paused" {
        let path = format!("/v1/replays/replay_daily_sales?after={}", shown["revision"]);
        shown = shop.door.get(&path).await;
    }
    assert_eq!(
        (&shown["state"], &shown["why"]),
        (&json!("stopped"), &json!("idle"))
    );
    assert_eq!(shop.made("replay_daily_sales").await, "stopped");
    let public = Served::start(&shop.log, &shop.url, Controls::Off).await;
    let body = json!({"projection": "daily_sales", "replace": true});
    let (status, said) = public.ask(Method::POST, "/v1/replays", Some(body)).await;
    assert_eq!((status, &said["code"]), (403, &json!("controls_off")));
}
