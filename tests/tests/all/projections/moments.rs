//! Read models as of random moments, in SQL and over HTTP, against a fold in SQL of an export of the
//! log that ends at that moment.
//!
//! In its large form (`make past`) the log has a million events, and there are fifty moments.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tests::fold;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;

use super::processes::{dump, generate};
use super::{caught_up, database};
use crate::cli::program::{Server, folder};

/// How many events; `ANNALS_PAST_EVENTS` asks for more.
const EVENTS: u64 = 4_000;
/// How many moments; `ANNALS_PAST_MOMENTS` asks for more.
const MOMENTS: u32 = 4;
/// How many rows of each read model are asked for by key, and from how many keys on a page begins.
const ASKED: i64 = 8;
/// The rows of a page.
const PAGE: i64 = 100;
/// A page has the rows whose keys begin with so many characters of one of them.
const PREFIX: usize = 1;

fn wished(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |wished| wished.parse().unwrap())
}

/// A node that answers queries, and how long its answers took.
struct Door<'a> {
    server: &'a Server,
    pool: &'a PgPool,
    client: reqwest::Client,
    moment: String,
    rows: Vec<Duration>,
    pages: Vec<Duration>,
}

impl Door<'_> {
    /// The answer to a query as of the moment; absent if there is no such row.
    async fn get(&self, path: &str, more: &[(&str, &str)]) -> (Option<Value>, Duration) {
        let mut url = format!("{}/v1/read/{path}?as_of={}", self.server.url, self.moment);
        for (name, value) in more {
            url += &format!("&{name}={}", encoded(value));
        }
        let began = Instant::now();
        let response = self.client.get(&url).send().await.unwrap();
        let (status, body) = (response.status(), response.bytes().await.unwrap());
        let took = began.elapsed();
        let body: Value = serde_json::from_slice(&body).unwrap();
        if status == 404 {
            assert_eq!(body["code"], "row_not_found", "{body}");
            return (None, took);
        }
        assert_eq!(status, 200, "{url}: {body}");
        (Some(body), took)
    }

    /// Asserts that these are exactly the rows that `expected` selects from the fold.
    async fn assert_rows(&self, model: &str, rows: &Value, expected: &str, key: &str) {
        let sql = format!(
            "WITH answered AS (
                 SELECT (jsonb_populate_record(NULL::fold.{model},
                     value || '{{\"tenant\": \"main\"}}')).* FROM jsonb_array_elements($1::text::jsonb)
             ), expected AS ({expected})
             SELECT (SELECT count(*) FROM answered) = (SELECT count(*) FROM expected)
                 AND NOT EXISTS (TABLE answered EXCEPT TABLE expected)"
        );
        let is_equal: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(rows.to_string())
            .bind(key)
            .fetch_one(self.pool)
            .await
            .unwrap();
        let moment = &self.moment;
        assert!(is_equal, "{model} from {key} as of {moment}: {rows}");
    }

    /// Compares rows by key, pages from a key on, and rows that are not there yet.
    async fn compare(&mut self, model: &str) {
        let keys: Vec<(String, String)> = sqlx::query_as(
            "SELECT attname::text, atttypid::regtype::text FROM pg_index
             JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
             WHERE indrelid = ('fold.' || $1)::regclass AND indisprimary AND attname <> 'tenant'
             ORDER BY array_position(indkey::int2[], attnum)",
        )
        .bind(model)
        .fetch_all(self.pool)
        .await
        .unwrap();
        let path = keys.iter().map(|(name, _)| format!("{name}::text"));
        let path = path.collect::<Vec<_>>().join(", ");
        let order = keys.iter().map(|(name, kind)| match kind.as_str() {
            "text" => format!("{name} COLLATE \"C\""),
            _ => name.clone(),
        });
        let order: Vec<String> = order.collect();
        let random = |of: &str| {
            format!(
                "SELECT ARRAY[{path}] FROM {of} WHERE tenant = 'main' ORDER BY random() LIMIT {ASKED}"
            )
        };
        let keys_of = async |sql: String| -> Vec<Vec<String>> {
            let found = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(self.pool);
            found.await.unwrap()
        };
        let (key, kind) = &keys[0];
        for row in keys_of(random(&format!("fold.{model}"))).await {
            let path = row.iter().map(|part| encoded(part)).collect::<Vec<_>>();
            let (found, took) = self.get(&format!("{model}/{}", path.join(",")), &[]).await;
            self.rows.push(took);
            let found = json!([found.unwrap_or_else(|| panic!("{model} {row:?} is not there"))]);
            let key_of_row = keys.iter().zip(&row).map(|((name, kind), part)| {
                format!("{name} = '{}'::{kind}", part.replace('\'', "''"))
            });
            let key_of_row = key_of_row.collect::<Vec<_>>().join(" AND ");
            let expected = format!(
                "SELECT * FROM fold.{model} WHERE tenant = 'main' AND {key_of_row} AND $2 IS NOT NULL"
            );
            self.assert_rows(model, &found, &expected, &row[0]).await;
            // Texts can be asked by how they begin, everything else by where it begins.
            let is_text = kind == "text";
            let begin: String = match is_text {
                true => row[0].chars().take(PREFIX).collect(),
                false => row[0].clone(),
            };
            let filter = format!("{key}.{}", if is_text { "prefix" } else { "gte" });
            let limit = PAGE.to_string();
            let query = [(filter.as_str(), begin.as_str()), ("limit", &limit)];
            let (page, took) = self.get(model, &query).await;
            self.pages.push(took);
            let of_page = match is_text {
                true => format!("starts_with({key}, $2)"),
                false => format!("{key} >= $2::{kind}"),
            };
            let expected = format!(
                "SELECT * FROM fold.{model} WHERE tenant = 'main' AND {of_page} \
                 ORDER BY {} LIMIT {PAGE}",
                order.join(", ")
            );
            self.assert_rows(model, &page.unwrap()["rows"], &expected, &begin)
                .await;
        }
        let later = format!(
            "(SELECT * FROM read.{model} AS r WHERE NOT EXISTS (SELECT FROM fold.{model} AS f \
             WHERE {})) AS later",
            keys.iter()
                .map(|(name, _)| format!("f.{name} = r.{name}"))
                .collect::<Vec<_>>()
                .join(" AND ")
        );
        for row in keys_of(random(&later)).await {
            let path = row.iter().map(|part| encoded(part)).collect::<Vec<_>>();
            let (found, _) = self.get(&format!("{model}/{}", path.join(",")), &[]).await;
            assert_eq!(found, None, "{model} {row:?} as of {}", self.moment);
        }
    }
}

/// A part of a path.
fn encoded(part: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte| match kept(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    part.bytes().map(one).collect()
}

fn percentile(times: &mut [Duration], hundredths: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * hundredths).div_ceil(100).max(1) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_as_of_random_moments_equal_a_fold_in_sql_of_a_log_that_ends_there() {
    let seed = wished("ANNALS_TESTS_SEED", 1);
    let (events, moments) = (
        wished("ANNALS_PAST_EVENTS", EVENTS),
        wished("ANNALS_PAST_MOMENTS", MOMENTS.into()),
    );
    let log = NewLog::make(Kind::Kafka, 6).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let address = log.address.to_string();
    generate(&address, &url, seed, events);
    let folder = folder();
    caught_up(&log.log, &url).await;
    let export = dump(folder.path(), &address);
    let pool = PgPool::connect(&url).await.unwrap();
    fold::read(&pool, &export).await.unwrap();
    let serve = ["serve", "--role", "query-api", "--log", &address];
    let mut server = Server::start(folder.path(), &[&serve[..], &["--postgres", &url]].concat());
    let mut door = Door {
        server: &server,
        pool: &pool,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        moment: String::new(),
        rows: Vec::new(),
        pages: Vec::new(),
    };
    let mut random = StdRng::seed_from_u64(seed);
    let commits: i64 = sqlx::query_scalar("SELECT count(*) FROM export.every_commit")
        .fetch_one(&pool)
        .await
        .unwrap();
    for number in 0..moments {
        let began = Instant::now();
        let moment = "SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
                      FROM export.every_commit ORDER BY moment OFFSET $1 LIMIT 1";
        door.moment = sqlx::query_scalar(moment)
            .bind(random.random_range(0..commits))
            .fetch_one(&pool)
            .await
            .unwrap();
        fold::fold_as_of(&pool, &door.moment).await.unwrap();
        let folded = began.elapsed();
        let differences = fold::compare_as_of(&pool, &door.moment).await.unwrap();
        assert_eq!(differences, [], "as of {}", door.moment);
        let compared = began.elapsed();
        for model in fold::names_with_past() {
            door.compare(model).await;
        }
        eprintln!(
            "{number}: {} equal in SQL and over HTTP; {folded:.1?} folded, {compared:.1?} compared, \
             {:.1?} asked",
            door.moment,
            began.elapsed()
        );
    }
    let (mut rows, mut pages) = (door.rows, door.pages);
    println!(
        "{} rows by key: p50 {:.1?}, p99 {:.1?}; {} pages of {PAGE}: p50 {:.1?}, p99 {:.1?}",
        rows.len(),
        percentile(&mut rows, 50),
        percentile(&mut rows, 99),
        pages.len(),
        percentile(&mut pages, 50),
        percentile(&mut pages, 99),
    );
    assert!(server.end(Signal::TERM).success());
}
