//! B13: queries over HTTP at 64 connections, against the same SQL through sqlx in an axum route. The
//! node, the load and the plain route are processes of their own.
//!
//! The rows lie in the read model as a projector would have written them. *Uncached* queries are all
//! different, so that no kept answer helps; *cached* ones are one query again and again. Deliberately
//! absent: writes beside the queries.

use std::time::Duration;

use ::tests::harness::logs::{Kind, NewLog};
use ::tests::harness::postgres::Postgres;
use async_trait::async_trait;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use projector::Projector;
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::net::TcpListener;

use super::{Bench, Size, in_turn};
use crate::apart::{self, Apart, Job, Loaded};
use crate::figure::{Goal, Pair, Subject, Unit};

const CONNECTIONS: usize = 64;
/// As many connections to Postgres as the query door has for rows.
const POSTGRES_CONNECTIONS: u32 = 8;
/// The rows of the read model; their keys have eight digits. Enough for a run of five rounds to ask for
/// each row once.
const ROWS: u64 = 400_000;
/// The most queries of a kind in a round.
const QUERIES_MAX: usize = 64_000;
/// The rows whose keys have a prefix in common.
const ROWS_OF_PREFIX: u64 = 10;
/// This, in hundredths of the uncached queries, may be answered from the door's cache all the same.
const CACHED_MAX: u64 = 1;
/// How long the tables may take to be made.
const MADE_WAIT: Duration = Duration::from_secs(60);

/// The columns of the read model, as the door selects them.
const COLUMNS: &str = "order_id, customer_id, status, placed_at, approved_at, shipped_at, \
    delivered_at, estimated_delivery_at, canceled_at, item_count, items_minor, freight_minor, \
    currency, review_count, review_score_sum, version, captured_minor, refunded_minor, \
    payment_count, too_large";

/// A kind of query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryKind {
    /// A row by its key, each time another one.
    Row,
    /// The ten rows whose keys begin alike, each time others.
    Page,
    /// The same ten rows again and again.
    Same,
}

impl QueryKind {
    const ALL: [Self; 3] = [Self::Row, Self::Page, Self::Same];

    fn work(self) -> &'static str {
        match self {
            Self::Row => "rows by key, uncached",
            Self::Page => "pages of 10 rows, uncached",
            Self::Same => "pages of 10 rows, cached",
        }
    }

    /// The path of one of the queries of a round; both sides have the same ones.
    #[must_use]
    pub fn path(self, number: usize, round: u64) -> String {
        let place = round * QUERIES_MAX as u64 + number as u64;
        // A prime that divides neither number of rows nor of prefixes: neighbours in time are not
        // neighbours in the table, and each comes once before one comes again.
        let scattered = |of: u64| place * 7_919 % of;
        let (prefix, limit) = match self {
            Self::Row => return format!("/v1/read/order_summary/{:08}", scattered(ROWS)),
            // Another limit makes it another query, of the same rows.
            Self::Page => {
                let prefixes = ROWS / ROWS_OF_PREFIX;
                (scattered(prefixes), 20 + place / prefixes % 900)
            }
            Self::Same => (7, 20),
        };
        format!("/v1/read/order_summary?order_id.prefix={prefix:07}&limit={limit}")
    }
}

/// A row as a program would declare it.
#[derive(Serialize)]
struct Order {
    order_id: String,
    customer_id: String,
    status: String,
    placed_at: DateTime<Utc>,
    approved_at: Option<DateTime<Utc>>,
    shipped_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    estimated_delivery_at: DateTime<Utc>,
    canceled_at: Option<DateTime<Utc>>,
    item_count: i64,
    items_minor: i64,
    freight_minor: i64,
    currency: String,
    review_count: i64,
    review_score_sum: i64,
    version: i64,
    captured_minor: Option<i64>,
    refunded_minor: Option<i64>,
    payment_count: i64,
    too_large: Option<String>,
}

fn order(row: &PgRow) -> Result<Order, sqlx::Error> {
    Ok(Order {
        order_id: row.try_get(0)?,
        customer_id: row.try_get(1)?,
        status: row.try_get(2)?,
        placed_at: row.try_get(3)?,
        approved_at: row.try_get(4)?,
        shipped_at: row.try_get(5)?,
        delivered_at: row.try_get(6)?,
        estimated_delivery_at: row.try_get(7)?,
        canceled_at: row.try_get(8)?,
        item_count: row.try_get(9)?,
        items_minor: row.try_get(10)?,
        freight_minor: row.try_get(11)?,
        currency: row.try_get(12)?,
        review_count: row.try_get(13)?,
        review_score_sum: row.try_get(14)?,
        version: row.try_get(15)?,
        captured_minor: row.try_get(16)?,
        refunded_minor: row.try_get(17)?,
        payment_count: row.try_get(18)?,
        too_large: row.try_get(19)?,
    })
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "order_id.prefix")]
    prefix: String,
    limit: i64,
}

fn failed(error: impl std::fmt::Display) -> StatusCode {
    eprintln!("the plain route failed: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn page(
    State(pool): State<PgPool>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<Order>>, StatusCode> {
    let select = format!(
        "SELECT {COLUMNS} FROM read.order_summary WHERE tenant = $1 AND order_id >= $2 \
         AND order_id < $3 ORDER BY order_id LIMIT $4"
    );
    let rows = sqlx::query(AssertSqlSafe(select))
        .bind("main")
        .bind(&asked.prefix)
        // A colon comes after the digits.
        .bind(format!("{}:", asked.prefix))
        .bind(asked.limit + 1)
        .fetch_all(&pool)
        .await;
    let orders: Result<Vec<Order>, _> = rows.map_err(failed)?.iter().map(order).collect();
    orders.map(Json).map_err(failed)
}

async fn one(
    State(pool): State<PgPool>,
    Path(key): Path<String>,
) -> Result<Json<Order>, StatusCode> {
    let select =
        format!("SELECT {COLUMNS} FROM read.order_summary WHERE tenant = $1 AND order_id = $2");
    let row = sqlx::query(AssertSqlSafe(select))
        .bind("main")
        .bind(&key)
        .fetch_optional(&pool)
        .await;
    let row = row.map_err(failed)?.ok_or(StatusCode::NOT_FOUND)?;
    order(&row).map(Json).map_err(failed)
}

/// Serves the plain routes, and prints their address.
pub async fn serve_plain(postgres: &str) {
    let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS);
    let pool = pool.connect_lazy(postgres).expect("an address of Postgres");
    let router = Router::new()
        .route("/v1/read/order_summary", get(page))
        .route("/v1/read/order_summary/{key}", get(one))
        .with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    println!(
        "{}",
        serde_json::json!({"http": format!("http://{address}")})
    );
    let served = door::serve(listener, router, std::future::pending(), Duration::ZERO).await;
    served.expect("a serving door");
}

/// B13.
pub struct Queries {
    count: usize,
    /// How many rounds were begun: no round repeats the queries of another one.
    rounds: u64,
    /// Our node, and the plain route.
    sides: Option<(Postgres, Apart, Apart)>,
}

impl Queries {
    pub fn new(size: Size) -> Self {
        Self {
            count: size.of(6_400, QUERIES_MAX),
            rounds: 0,
            sides: None,
        }
    }

    async fn ask(&self, door: &Apart, kind: QueryKind) -> Loaded {
        let job = Job::Queries {
            address: door.address,
            connections: CONNECTIONS,
            count: self.count,
            seed: self.rounds,
            kind,
        };
        apart::load(job).await
    }

    /// Asks our door, and makes sure that queries that should be uncached are.
    async fn ask_ours(&self, door: &Apart, kind: QueryKind) -> Loaded {
        let before = cache_hits(door).await;
        let loaded = self.ask(door, kind).await;
        let hits = cache_hits(door).await - before;
        let most = self.count as u64 * CACHED_MAX / 100;
        let is_uncached = kind != QueryKind::Same;
        assert!(!is_uncached || hits <= most, "{hits} were cached: {kind:?}");
        loaded
    }
}

/// How many queries our door has answered from its cache.
async fn cache_hits(door: &Apart) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build();
    let metrics = client
        .expect("a client")
        .get(format!("http://{}/metrics", door.address));
    let metrics = metrics.send().await.expect("an answer").text().await;
    let metrics = metrics.expect("a text");
    let mut lines = metrics.lines();
    let hits = lines.find_map(|line| line.strip_prefix("annals_query_cache_hits_total "));
    let hits = hits.and_then(|hits| hits.trim().parse().ok());
    hits.expect("the door counts its hits")
}

/// Makes the read models of an empty log, and fills one of them.
async fn fill(log: &NewLog, postgres: &str) {
    projector::migrate(postgres)
        .await
        .expect("a migrated database");
    let models = projector::with_general(projections::all());
    let projector = Projector::spawn(&log.log, postgres, &models, 1).expect("a projector");
    let made = async {
        while projector.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let made = tokio::time::timeout(MADE_WAIT, made).await;
    made.expect("a projector that makes its tables");
    projector.stop().await.expect("a projector that went on");
    let mut connection = PgConnection::connect(postgres).await.expect("a database");
    let tables = "SELECT tables[1] FROM annals.generation \
                  WHERE projection = 'order_summary' AND state = 'live'";
    let table: String = sqlx::query_scalar(tables)
        .fetch_one(&mut connection)
        .await
        .expect("a table");
    let insert = format!(
        "INSERT INTO projection.\"{table}\" (tenant, order_id, customer_id, status, placed_at, \
         estimated_delivery_at, item_count, items_minor, freight_minor, currency, version) \
         SELECT 'main', lpad(n::text, 8, '0'), md5(n::text), 'placed', now(), now(), n % 5, \
         n * 7, n * 3, 'BRL', 1 FROM generate_series(0, {ROWS} - 1) AS n; \
         VACUUM ANALYZE projection.\"{table}\""
    );
    for statement in insert.split("; ") {
        let statement = AssertSqlSafe(statement.to_owned());
        let ran = sqlx::raw_sql(statement).execute(&mut connection).await;
        ran.expect("rows");
    }
}

#[async_trait(?Send)]
impl Bench for Queries {
    fn subjects(&self) -> Vec<Subject> {
        let subject = |kind: QueryKind, part: &str, unit, goal| Subject {
            row: "B13".to_owned(),
            work: format!("{}, {CONNECTIONS} connections{part}", kind.work()),
            against: "the same SQL through sqlx in an axum route".to_owned(),
            unit,
            goal,
        };
        let of_kind = |kind| {
            let rate = Goal::ShareAtLeast(0.8);
            [
                subject(kind, "", Unit::PerSecond, rate),
                subject(kind, ", p50", Unit::Milliseconds, Goal::Shown),
                subject(kind, ", p99", Unit::Milliseconds, Goal::Shown),
            ]
        };
        QueryKind::ALL.into_iter().flat_map(of_kind).collect()
    }

    async fn prepare(&mut self) {
        let postgres = Postgres::start();
        let url = postgres.create_database().await;
        let log = NewLog::make(Kind::Sqlite, 16).await;
        fill(&log, &url).await;
        let theirs = Apart::plain_queries(&url, NewLog::make(Kind::Sqlite, 1).await).await;
        let ours = Apart::query_node(&url, log).await;
        for door in [&ours, &theirs] {
            for kind in QueryKind::ALL {
                self.ask(door, kind).await;
            }
        }
        self.sides = Some((postgres, ours, theirs));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        self.rounds += 1;
        let (_, ours, theirs) = self.sides.as_ref().expect("they were prepared");
        let mut pairs = Vec::new();
        for kind in QueryKind::ALL {
            let asked = in_turn(
                ours_first,
                self.ask_ours(ours, kind),
                self.ask(theirs, kind),
            );
            let (ours, theirs) = asked.await;
            pairs.push(Pair {
                ours: ours.per_second,
                theirs: theirs.per_second,
            });
            pairs.push(Pair {
                ours: ours.p50_ms,
                theirs: theirs.p50_ms,
            });
            pairs.push(Pair {
                ours: ours.p99_ms,
                theirs: theirs.p99_ms,
            });
        }
        pairs
    }

    async fn finish(&mut self) {
        if let Some((postgres, ours, theirs)) = self.sides.take() {
            drop((ours, theirs));
            drop(postgres);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_uncached_query_comes_twice_in_a_run_and_every_key_is_in_the_table() {
        for kind in [QueryKind::Row, QueryKind::Page] {
            let rounds = (0..6).flat_map(|round| (0..QUERIES_MAX).map(move |n| (n, round)));
            let mut seen = HashSet::new();
            for (number, round) in rounds {
                let path = kind.path(number, round);
                assert!(seen.insert(path.clone()), "{path} came before");
            }
        }
        assert_eq!(QueryKind::Row.path(1, 0), "/v1/read/order_summary/00007919");
        assert_eq!(QueryKind::Same.path(1, 0), QueryKind::Same.path(2, 5));
    }
}
