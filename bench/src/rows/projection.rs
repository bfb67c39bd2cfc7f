//! B6: rows made from a log, against loops written by hand for exactly these tables.
//!
//! Invariant: both sides read the same records one by one from a client of their own, and end with
//! the same rows. The hand-written loops store a place for each partition in the same transaction;
//! they check no chain, no version and no proof.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kernel::Timestamp;
use position::Partition;
use projector::{History, Projection, Purpose};
use rdkafka::Message;
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;

use super::{Bench, Size, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::models::{CUSTOMERS, ORDERS, customers, orders};
use crate::raw::{RawConsumer, per_second};
use crate::work::{self, WriteSide};

const PARTITIONS: u32 = 4;
/// How many records the hand-written loops put into one transaction, at most.
const RAW_BATCH: usize = 2_000;

/// How the rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a projector; each order has a row of its own.
    Live,
    /// By a projector; many orders share a row.
    Repeated,
    /// By a rebuild; each order has a row of its own.
    Rebuild,
}

const WAYS: [Way; 3] = [Way::Live, Way::Repeated, Way::Rebuild];

/// Rows made from a whole log, in each way.
pub struct Rows {
    size: Size,
    commands: usize,
    prepared: Option<Prepared>,
}

struct Prepared {
    log: NewLog,
    ends: Vec<(Partition, u64)>,
    postgres: Postgres,
}

impl Rows {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            commands: size.of(100_000, 500_000),
            prepared: None,
        }
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.as_ref().expect("it was prepared")
    }

    async fn ours(&self, way: Way) -> f64 {
        let Prepared { log, postgres, .. } = self.prepared();
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        // The hand-written loops keep no history either.
        let projection: Arc<dyn Projection> = match way {
            Way::Live | Way::Rebuild => Arc::new(orders(History::Off)),
            Way::Repeated => Arc::new(customers(History::Off)),
        };
        let (name, projections) = (projection.name(), [projection]);
        let silent = Box::new(|_| {});
        let began = Instant::now();
        match way {
            Way::Live | Way::Repeated => {
                let done = projector::catch_up(&log.log, &url, &projections, silent);
                done.await.expect("rows");
            }
            Way::Rebuild => {
                let done = projector::rebuild(
                    &log.log,
                    &url,
                    &projections,
                    name,
                    Purpose::Switch {
                        keep: Duration::ZERO,
                    },
                    silent,
                );
                done.await.expect("rows");
            }
        }
        let took = began.elapsed();
        let table = format!("read.{name}");
        self.check(way, &mut connect(&url).await, &table).await;
        per_second(self.commands, took)
    }

    async fn theirs(&self, way: Way) -> f64 {
        let Prepared {
            log,
            ends,
            postgres,
        } = self.prepared();
        let mut connection = connect(&postgres.create_database().await).await;
        let tables = connection.execute(RAW_TABLES);
        tables.await.expect("tables");
        let topic = work::topic(log);
        let began = Instant::now();
        let consumer = RawConsumer::open(kafka::shared().bootstrap(), &topic, ends);
        let table = match way {
            Way::Live => {
                upsert_all(consumer, &mut connection, upsert_orders).await;
                ORDERS[0].name
            }
            Way::Repeated => {
                upsert_all(consumer, &mut connection, upsert_customers).await;
                CUSTOMERS[0].name
            }
            Way::Rebuild => {
                copy_all(consumer, &mut connection).await;
                ORDERS[0].name
            }
        };
        let took = began.elapsed();
        self.check(way, &mut connection, table).await;
        per_second(self.commands, took)
    }

    /// Checks that each order was counted once.
    async fn check(&self, way: Way, connection: &mut PgConnection, table: &str) {
        let sql = match way {
            Way::Live | Way::Rebuild => format!("SELECT count(*) FROM {table}"),
            Way::Repeated => format!("SELECT sum(orders)::bigint FROM {table}"),
        };
        let counted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(connection)
            .await
            .expect("a count");
        assert_eq!(usize::try_from(counted), Ok(self.commands));
    }
}

#[async_trait(?Send)]
impl Bench for Rows {
    fn subjects(&self) -> Vec<Subject> {
        let one = |(work, against, least): (&str, &str, f64)| Subject {
            row: "B6".to_owned(),
            work: work.to_owned(),
            against: against.to_owned(),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(least),
        };
        let named = WAYS.map(|way| match way {
            Way::Live => (
                "live projection, a row an event",
                "hand-written UNNEST loop",
                0.8,
            ),
            Way::Repeated => (
                "live projection, each key some 20 times in a batch",
                "hand-written UNNEST loop with GROUP BY",
                2.0,
            ),
            Way::Rebuild => ("rebuild", "hand-written COPY loop", 0.8),
        });
        named.map(one).into()
    }

    async fn prepare(&mut self) {
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        side.commands_per_second(self.size.seed, self.commands)
            .await;
        let log = side.stop().await;
        self.prepared = Some(Prepared {
            ends: work::ends_of(&log).await,
            log,
            postgres: Postgres::start(),
        });
        self.ours(Way::Live).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for way in WAYS {
            pairs.extend(one_pair(ours_first, self.ours(way), self.theirs(way)).await);
        }
        pairs
    }
}

const RAW_TABLES: &str = r#"
    CREATE TABLE place (partition int PRIMARY KEY, next bigint NOT NULL);
    CREATE TABLE bench_orders (
        tenant text COLLATE "C" NOT NULL, order_id text COLLATE "C" NOT NULL,
        customer text COLLATE "C", placed_at timestamptz, items_minor bigint, freight_minor bigint,
        PRIMARY KEY (tenant, order_id));
    CREATE TABLE bench_customers (
        tenant text COLLATE "C" NOT NULL, customer text COLLATE "C" NOT NULL,
        orders bigint, spent_minor bigint,
        PRIMARY KEY (tenant, customer));
"#;

pub(super) async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("an address of the harness");
    let options = options.options([("synchronous_commit", "off"), ("TimeZone", "UTC")]);
    options.connect().await.expect("a database")
}

/// The parts of a commit that a hand-written loop reads.
#[derive(Deserialize)]
struct RawCommit<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    recorded_at: Timestamp,
    command: RawCommand,
    #[serde(borrow, default)]
    events: Vec<RawEvent<'a>>,
}

#[derive(Deserialize)]
struct RawCommand {
    occurred_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    occurred_at: Option<Timestamp>,
    #[serde(borrow)]
    data: RawPlaced<'a>,
}

#[derive(Deserialize)]
struct RawPlaced<'a> {
    #[serde(borrow)]
    customer: Cow<'a, str>,
    items_minor: i64,
    freight_minor: i64,
}

/// Some rows, column by column.
#[derive(Default)]
struct Columns {
    tenants: Vec<&'static str>,
    orders: Vec<String>,
    customers: Vec<String>,
    placed_at: Vec<DateTime<Utc>>,
    items_minor: Vec<i64>,
    freight_minor: Vec<i64>,
    places: BTreeMap<i32, i64>,
}

/// The next records as columns; `None` after the last.
fn gather(consumer: &mut RawConsumer) -> Option<Columns> {
    let mut columns = Columns::default();
    let taken = consumer.take(RAW_BATCH, |message| {
        columns
            .places
            .insert(message.partition(), message.offset() + 1);
        let value = message.payload().unwrap_or_default();
        // The claims of a log have neither a key nor a stream.
        if message.key().is_none() {
            return;
        }
        let commit: RawCommit<'_> = serde_json::from_slice(value).expect("a commit of ours");
        let order = commit.stream.strip_prefix("order-").expect("an order");
        for event in &commit.events {
            columns.tenants.push("main");
            columns.orders.push(order.to_owned());
            columns
                .customers
                .push(event.data.customer.clone().into_owned());
            let occurred_at = event.occurred_at.or(commit.command.occurred_at);
            columns
                .placed_at
                .push(occurred_at.unwrap_or(commit.recorded_at).to_utc());
            columns.items_minor.push(event.data.items_minor);
            columns.freight_minor.push(event.data.freight_minor);
        }
    });
    (taken > 0).then_some(columns)
}

async fn upsert_all(
    mut consumer: RawConsumer,
    connection: &mut PgConnection,
    upsert: impl AsyncFn(&mut PgConnection, &Columns),
) {
    while let Some(columns) = tokio::task::block_in_place(|| gather(&mut consumer)) {
        let mut tx = connection.begin().await.expect("a transaction");
        upsert(&mut tx, &columns).await;
        let (partitions, nexts): (Vec<i32>, Vec<i64>) = columns.places.into_iter().unzip();
        sqlx::query(
            "INSERT INTO place SELECT * FROM UNNEST($1::int[], $2::bigint[]) \
             ON CONFLICT (partition) DO UPDATE SET next = EXCLUDED.next",
        )
        .bind(partitions)
        .bind(nexts)
        .execute(&mut *tx)
        .await
        .expect("places");
        tx.commit().await.expect("a commit");
    }
}

async fn upsert_orders(connection: &mut PgConnection, columns: &Columns) {
    let sql = "INSERT INTO bench_orders SELECT * FROM UNNEST(\
               $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[]) \
               ON CONFLICT (tenant, order_id) DO UPDATE SET customer = EXCLUDED.customer, \
               placed_at = EXCLUDED.placed_at, items_minor = EXCLUDED.items_minor, \
               freight_minor = EXCLUDED.freight_minor";
    let query = sqlx::query(sql)
        .bind(&columns.tenants)
        .bind(&columns.orders)
        .bind(&columns.customers)
        .bind(&columns.placed_at)
        .bind(&columns.items_minor)
        .bind(&columns.freight_minor);
    query.execute(connection).await.expect("rows");
}

async fn upsert_customers(connection: &mut PgConnection, columns: &Columns) {
    let sql = "INSERT INTO bench_customers AS t \
               SELECT tenant, customer, count(*), sum(items_minor + freight_minor) FROM UNNEST(\
               $1::text[], $2::text[], $3::bigint[], $4::bigint[]) \
               AS given (tenant, customer, items_minor, freight_minor) GROUP BY tenant, customer \
               ON CONFLICT (tenant, customer) DO UPDATE SET orders = t.orders + EXCLUDED.orders, \
               spent_minor = t.spent_minor + EXCLUDED.spent_minor";
    let query = sqlx::query(sql)
        .bind(&columns.tenants)
        .bind(&columns.customers)
        .bind(&columns.items_minor)
        .bind(&columns.freight_minor);
    query.execute(connection).await.expect("rows");
}

/// One COPY of everything into the empty table.
async fn copy_all(mut consumer: RawConsumer, connection: &mut PgConnection) {
    let mut copy = connection
        .copy_in_raw("COPY bench_orders FROM STDIN")
        .await
        .expect("a copy");
    while let Some(columns) = tokio::task::block_in_place(|| gather(&mut consumer)) {
        let mut text = String::with_capacity(RAW_BATCH * 128);
        for row in 0..columns.orders.len() {
            let placed_at = columns.placed_at[row].format("%Y-%m-%d %H:%M:%S%.6fZ");
            writeln!(
                text,
                "{}\t{}\t{}\t{placed_at}\t{}\t{}",
                columns.tenants[row],
                columns.orders[row],
                columns.customers[row],
                columns.items_minor[row],
                columns.freight_minor[row],
            )
            .expect("a text takes everything");
        }
        copy.send(text.into_bytes()).await.expect("rows");
    }
    copy.finish().await.expect("rows");
}
