//! A replay gives what the live read model shows as of the same moment, stops where an independent look
//! at the log says so, and leaves everything live as it is.

mod joined;
mod refused;

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::Order;
use domain::order::{OrderApproved, OrderPlaced};
use event_log::accepted::read_accepted;
use event_log::commit::Commit;
use event_log::log::{EventLog, LogError};
use kernel::Timestamp;
use position::{Partition, PositionToken};
use projector::{
    ApartState, ColumnType, Existing, Gait, NewReplay, Pause, PauseReason, Projection, Replay,
    ReplayWatch, Rules, RuntimeError, Table, Until, Value, key, models_of, tally,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;

use super::as_of::{all_models, rows_as_of};
use super::{caught_up, database, execute, log_of, scalar, shop_history, until};

/// A commit that counts.
struct Told {
    partition: Partition,
    position: u64,
    offset: u64,
    at: Timestamp,
    commit: Commit,
}

/// What the log accepted, in the order of a replay: by the latest time so far in the partition, then by
/// partition and offset.
async fn told(log: &dyn EventLog) -> Vec<Told> {
    let mut all = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let mut latest = None;
        let stop = read_accepted(log, partition, |record, position| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let commit = Commit::read(key.unwrap(), value.unwrap()).unwrap();
            let at = latest.map_or(commit.recorded_at, |last| commit.recorded_at.max(last));
            latest = Some(at);
            all.push(Told {
                partition,
                position: position.0,
                offset: record.offset.0,
                at,
                commit,
            });
            Ok::<(), LogError>(())
        });
        assert!(stop.await.unwrap().is_none());
    }
    all.sort_by_key(|one| (one.at, one.partition, one.offset));
    all
}

/// A shop with all of its read models.
struct Shop {
    log: NewLog,
    url: String,
    models: Vec<Arc<dyn Projection>>,
    postgres: Postgres,
}

impl Shop {
    async fn open(seed: u64, orders: u32) -> Self {
        let log = log_of(Kind::Sqlite, shop_history(seed, orders)).await;
        let postgres = Postgres::start();
        let url = database(&postgres).await;
        let models = all_models();
        let done = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
        done.await.unwrap();
        Self {
            log,
            url,
            models,
            postgres,
        }
    }

    async fn begin(&self, new: NewReplay<'_>) -> Result<Replay, RuntimeError> {
        Replay::begin(&self.log.log, &self.url, &self.models, new).await
    }

    /// Replays to the end of what is asked for. Returns how many records were read.
    async fn replay(&self, new: NewReplay<'_>) -> u64 {
        let mut replay = self.begin(new).await.unwrap();
        let pause = go(&mut replay, Gait::On).await;
        assert!(pause.why.is_end(), "{pause:?}");
        let records = replay.progress().records;
        replay.finish(ApartState::Finished).await.unwrap();
        records
    }

    /// The rows of a projection's views in a schema.
    async fn rows(&self, projection: &str, schema: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for view in self.views(projection) {
            let sql = format!(
                "SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') \
                 FROM {schema}.{view} AS r"
            );
            rows.push(format!(
                "{view}\n{}",
                scalar::<String>(&self.url, &sql).await
            ));
        }
        rows
    }

    fn views(&self, projection: &str) -> Vec<&'static str> {
        let found = self.models.iter().find(|one| one.name() == projection);
        models_of(&**found.unwrap())
            .iter()
            .map(|model| model.name)
            .collect()
    }

    /// The projections that keep their past.
    fn with_past(&self) -> Vec<&'static str> {
        let all = self.models.iter().filter(|one| one.history().is_kept());
        let own = all.filter(|one| one.own_sql().is_none());
        own.map(|one| one.name()).collect()
    }

    async fn state(&self, schema: &str) -> String {
        scalar(
            &self.url,
            &format!("SELECT state FROM {schema}.annals_made"),
        )
        .await
    }
}

async fn go(replay: &mut Replay, gait: Gait) -> Pause {
    let mut watch = ReplayWatch {
        progress: &mut |_| {},
        is_to_pause: &|| false,
    };
    replay.go(gait, &mut watch).await.unwrap()
}

fn new<'a>(projection: &'a str, schema: &'a str, until: Until) -> NewReplay<'a> {
    NewReplay {
        projection,
        schema,
        existing: Existing::Replaced,
        until,
        from: None,
        times: None,
    }
}

/// Everything live, as one text.
async fn live(url: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
                  WHERE schemaname IN ('annals', 'projection') ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut all = String::new();
    for table in tables {
        let sql = format!(
            "SELECT md5(coalesce(string_agg(r::text || r.xmin::text, '|' ORDER BY r::text), '')) \
             FROM (SELECT t.*, t.xmin FROM {table} AS t) AS r"
        );
        let digest: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        all.push_str(&format!("{table} {digest}\n"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_up_to_a_moment_is_the_read_model_as_of_it_and_changes_nothing_live() {
    let shop = Shop::open(31, 90).await;
    let before = live(&shop.url).await;
    let told = told(&*shop.log.log).await;
    let log_id = told_log(&shop).await;
    let mut random = StdRng::seed_from_u64(5);
    let mut differing = 0;
    for round in 0..4 {
        let one = &told[random.random_range(0..told.len())];
        let setting = one.at.to_string();
        for projection in shop.with_past() {
            shop.replay(new(projection, "apart", Until::Time(one.at)))
                .await;
            let found = shop.rows(projection, "apart").await;
            let expected = rows_as_of(&shop.url, &shop.views(projection), &setting).await;
            assert_eq!(found, expected, "{projection} as of {setting}");
            assert_eq!(shop.state("apart").await, "finished");
            differing += usize::from(found != shop.rows(projection, "read").await);
        }
        // And up to a position of each partition.
        let token = PositionToken {
            log: log_id,
            positions: told[..told.len() / (round + 1)]
                .iter()
                .map(|one| (one.partition, position::Position(one.position)))
                .collect(),
        };
        let places: BTreeMap<String, (String, u64)> = token
            .positions
            .iter()
            .map(|(partition, position)| {
                let mut told = told.iter();
                let found = told
                    .find(|one| one.partition == *partition && one.position == position.0)
                    .unwrap();
                (partition.to_string(), (found.at.to_string(), position.0))
            })
            .collect();
        let setting = serde_json::to_string(&places).unwrap();
        let projection = shop.with_past()[round];
        shop.replay(new(projection, "apart", Until::Position(token)))
            .await;
        let found = shop.rows(projection, "apart").await;
        let expected = rows_as_of(&shop.url, &shop.views(projection), &setting).await;
        assert_eq!(found, expected, "{projection} as of {setting}");
    }
    assert!(differing > 8, "{differing}");
    assert_eq!(live(&shop.url).await, before);
    // All of the log gives the live rows, also of models without a past and with SQL of their own.
    for projection in &shop.models {
        shop.replay(new(projection.name(), "apart", Until::End))
            .await;
        let found = shop.rows(projection.name(), "apart").await;
        assert_eq!(found, shop.rows(projection.name(), "read").await);
    }
}

async fn told_log(shop: &Shop) -> position::LogId {
    let named = projector::NamedLog::of(&*shop.log.log).await.unwrap();
    named.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_can_begin_with_the_rows_of_a_past_moment() {
    let shop = Shop::open(7, 120).await;
    let told = told(&*shop.log.log).await;
    let (from, to) = (told[told.len() / 2].at, told[told.len() * 3 / 4].at);
    for projection in shop.with_past() {
        let all = shop.replay(new(projection, "apart", Until::Time(to))).await;
        let expected = shop.rows(projection, "apart").await;
        let late = NewReplay {
            from: Some(from),
            ..new(projection, "apart", Until::Time(to))
        };
        let records = shop.replay(late).await;
        assert_eq!(
            shop.rows(projection, "apart").await,
            expected,
            "{projection}"
        );
        assert!(records < all * 3 / 4, "{records} of {all} were read");
    }
}

/// Counts orders, and cannot take up that some of them are approved.
const HALFWAY: &[Table] = &[Table {
    name: "halfway",
    about: "Orders.",
    key: &[key("currency", ColumnType::Text, "The currency.")],
    values: &[
        tally("placed", "How many were placed."),
        tally("approved", "How many were approved."),
    ],
    ..Table::PLAIN
}];

fn halfway() -> Arc<dyn Projection> {
    let rules = Rules::new("halfway", 1, HALFWAY)
        .on::<Order, OrderPlaced>(|placed, _, changes| {
            changes
                .row(&HALFWAY[0], [Value::from(placed.currency.as_str())])
                .put("placed", 1_i64);
        })
        .on::<Order, OrderApproved>(|_, at, changes| {
            assert!(!at.stream_id().ends_with('7'), "it cannot be taken up");
            changes
                .row(&HALFWAY[0], [Value::from("BRL")])
                .put("approved", 1_i64);
        });
    Arc::new(rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_a_past_moment_has_what_streams_gave_before_they_were_parked() {
    let log = log_of(Kind::Sqlite, shop_history(7, 120)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let models = vec![halfway()];
    let done = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
    done.await.unwrap();
    assert!(scalar::<i64>(&url, "SELECT count(*) FROM annals.parked").await > 3);
    let shop = Shop {
        log,
        url,
        models,
        postgres,
    };
    let told = told(&*shop.log.log).await;
    let late = NewReplay {
        from: Some(told[told.len() / 4].at),
        ..new("halfway", "apart", Until::End)
    };
    shop.replay(late).await;
    assert_eq!(
        shop.rows("halfway", "apart").await,
        shop.rows("halfway", "read").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_role_says_of_a_schema_is_not_believed() {
    let shop = Shop::open(19, 10).await;
    let database = shop.url.rsplit('/').next().unwrap();
    let admin = shop.postgres.admin_url(database);
    execute(
        &admin,
        "CREATE ROLE mallory; \
         CREATE SCHEMA apart AUTHORIZATION mallory; SET ROLE mallory; \
         CREATE TABLE apart.annals_made (made_by text, projection text, state text, views text[], \
             tables text[]); \
         INSERT INTO apart.annals_made VALUES ('annals replay', 'daily_sales', 'finished', \
             '{daily_sales}', '{\"x; DROP TABLE annals.parked\"}'); RESET ROLE",
    )
    .await;
    let refused = shop.begin(new("daily_sales", "apart", Until::End)).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("did not make it"), "{refused}");
    // What an analyst may not read live, he may not read in a replay.
    execute(
        &admin,
        "GRANT USAGE ON SCHEMA read TO annals_reader; \
         GRANT SELECT ON read.seller_sales TO annals_reader; \
         REVOKE SELECT ON read.daily_sales FROM annals_reader",
    )
    .await;
    for (model, may_read) in [("daily_sales", false), ("seller_sales", true)] {
        shop.replay(new(model, "replayed", Until::End)).await;
        let select =
            format!("SELECT has_table_privilege('annals_reader', 'replayed.{model}', 'SELECT')");
        assert_eq!(
            scalar::<bool>(&shop.url, &select).await,
            may_read,
            "{model}"
        );
    }
}

/// The first commit after which the sum of a day's items reaches `wanted`, found without a projection.
fn first_day_with(told: &[Told], wanted: i64) -> Option<(Partition, u64, String)> {
    let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
    for one in told {
        for event in &one.commit.events {
            if event.type_name.as_str() != "OrderPlaced" {
                continue;
            }
            let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
            let day = one.commit.occurred_at(event).to_string()[..10].to_owned();
            let currency = data["currency"].as_str().unwrap().to_owned();
            let sum = sums.entry((day.clone(), currency)).or_default();
            *sum += data["items_minor"].as_i64().unwrap();
            if *sum >= wanted {
                return Some((one.partition, one.position, day));
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_stops_the_replay_at_the_commit_that_makes_it_true() {
    let shop = Shop::open(13, 150).await;
    let told = told(&*shop.log.log).await;
    for wanted in [1, 9_000, 17_000] {
        let (partition, position, day) = first_day_with(&told, wanted).unwrap();
        let text = format!("daily_sales.items_minor >= {wanted}");
        let until = Until::read(&text).unwrap();
        let mut replay = shop
            .begin(new("daily_sales", "apart", until))
            .await
            .unwrap();
        let pause = go(&mut replay, Gait::On).await;
        assert_eq!(pause.why, PauseReason::Condition);
        let step = pause.step.unwrap();
        let found = (step.placed.partition, step.placed.position.0);
        assert_eq!(found, (partition, position), "{text}");
        let hit = &step.rows[0];
        assert!(hit.is_hit, "{hit:?}");
        let row = hit.after.as_ref().unwrap();
        assert_eq!(row["day"], day.as_str());
        // The rows hold this commit and nothing behind it.
        let setting = step.placed.at.to_string();
        let now = shop.rows("daily_sales", "apart").await;
        let expected = rows_as_of(&shop.url, &["daily_sales"], &setting).await;
        assert_eq!(now, expected);
        // It goes on to the next row for which it becomes true, and not for this one again.
        let pause = go(&mut replay, Gait::On).await;
        if let Some(step) = pause.step {
            assert_ne!(step.rows[0].after.as_ref().unwrap()["day"], day.as_str());
        }
        replay.finish(ApartState::Stopped).await.unwrap();
    }
    // A row that joins another one changes with it, and a key narrows the condition.
    let payment = told.iter().find(|one| {
        let mut events = one.commit.events.iter();
        events.any(|event| event.type_name.as_str() == "PaymentCaptured")
    });
    let event = &payment.unwrap().commit.events[0];
    let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
    let order = data["order"].as_str().unwrap();
    // Streams are recorded as they come: payments may stand before their order.
    let (mut is_placed, mut payments) = (false, 0);
    let events = told
        .iter()
        .flat_map(|one| one.commit.events.iter().map(move |it| (one, it)));
    for (one, event) in events {
        let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
        match event.type_name.as_str() {
            "OrderPlaced" => is_placed |= one.commit.stream.as_str() == format!("order-{order}"),
            "PaymentCaptured" => payments += u64::from(data["order"] == order),
            _ => {}
        }
        if is_placed && payments > 0 {
            break;
        }
    }
    let text = format!("order_summary.payment_count > 0 and order_id = '{order}'");
    let until = Until::read(&text).unwrap();
    let mut replay = shop
        .begin(new("order_summary", "apart", until))
        .await
        .unwrap();
    let step = go(&mut replay, Gait::On).await.step.unwrap();
    let row = step.rows[0].after.clone().unwrap();
    assert_eq!(
        (&row["order_id"], &row["payment_count"]),
        (&order.into(), &payments.into())
    );
    drop(replay);
    // What does not fit is said before a schema is made.
    let until = Until::read("daily_sales.sum > 1").unwrap();
    let refused = shop
        .begin(new("daily_sales", "other", until))
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("day, currency, orders"),
        "{refused}"
    );
    let is_there = "SELECT to_regnamespace('other') IS NOT NULL";
    assert!(!scalar::<bool>(&shop.url, is_there).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn step_by_step_gives_the_same_rows_as_at_once() {
    let shop = Shop::open(17, 60).await;
    let mut random = StdRng::seed_from_u64(3);
    for projection in ["order_summary", "open_items", "stream_index", "payment_mix"] {
        let mut replay = shop
            .begin(new(projection, "steps", Until::End))
            .await
            .unwrap();
        let (mut steps, mut rows) = (0, 0);
        loop {
            let gait = match random.random_bool(0.5) {
                true => Gait::Event,
                false => Gait::Commit,
            };
            let pause = go(&mut replay, gait).await;
            if pause.why == PauseReason::End {
                break;
            }
            assert_eq!(pause.why, PauseReason::Stepped);
            let step = pause.step.unwrap();
            steps += 1;
            rows += usize::from(!step.rows.is_empty());
        }
        replay.finish(ApartState::Finished).await.unwrap();
        assert_eq!(
            shop.rows(projection, "steps").await,
            shop.rows(projection, "read").await
        );
        assert!(rows > 20, "{projection}: {rows} of {steps} steps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_dies_says_that_it_is_unfinished_and_is_replaced_only_if_asked() {
    let shop = Shop::open(19, 40).await;
    caught_up(&shop.log.log, &shop.url).await;
    let before = live(&shop.url).await;
    let mut replay = shop
        .begin(new("daily_sales", "apart", Until::End))
        .await
        .unwrap();
    for _ in 0..5 {
        go(&mut replay, Gait::Commit).await;
    }
    // While it lives, nobody else may have the schema.
    let taken = shop
        .begin(new("daily_sales", "apart", Until::End))
        .await
        .err()
        .unwrap();
    assert!(
        taken.to_string().contains("another process fills it"),
        "{taken}"
    );
    drop(replay);
    assert_eq!(shop.state("apart").await, "unfinished");
    let says: String = scalar(&shop.url, "SELECT says FROM apart.annals_made").await;
    assert!(
        says.starts_with("5 commits with 5 events, up to the commit of order-"),
        "{says}"
    );
    let mut refused = String::new();
    until("the lock of the dead replay is gone", async || {
        let new = NewReplay {
            existing: Existing::Refused,
            ..new("daily_sales", "apart", Until::End)
        };
        refused = shop.begin(new).await.err().unwrap().to_string();
        !refused.contains("another process")
    })
    .await;
    assert!(
        refused.contains("(unfinished); replace it with --replace"),
        "{refused}"
    );
    // Others' schemas are never touched, nor is what others built on a replay.
    execute(&shop.url, "CREATE SCHEMA mine").await;
    let mine = shop
        .begin(new("daily_sales", "mine", Until::End))
        .await
        .err()
        .unwrap();
    assert!(mine.to_string().contains("did not make it"), "{mine}");
    execute(
        &shop.url,
        "CREATE VIEW mine.days AS SELECT day FROM apart.daily_sales",
    )
    .await;
    let built = shop
        .begin(new("daily_sales", "apart", Until::End))
        .await
        .err()
        .unwrap();
    assert!(
        built.to_string().contains("others built something on it"),
        "{built}"
    );
    execute(&shop.url, "DROP VIEW mine.days").await;
    shop.replay(new("daily_sales", "apart", Until::End)).await;
    assert_eq!(shop.state("apart").await, "finished");
    for name in ["", "pg_mine", "Mine", "1st", "a b"] {
        let refused = shop
            .begin(new("daily_sales", name, Until::End))
            .await
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("a name has letters"),
            "{refused}"
        );
    }
    assert_eq!(live(&shop.url).await, before);
}
