//! Projections with SQL of their own: the same exactness, rebuilds and stops as all others, and no
//! mistake of theirs is felt by anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use engine::command::Request;
use event_log::subscription::Subscription;
use position::Partition;
use projector::{
    Actor, ApartState, Changes, ColumnType, Entry, Existing, Operator, ProjectError, Projection,
    Projector, Purpose, RuntimeError, SqlColumn, SqlCommit, SqlError, SqlProjection,
    SqlTransaction, Supposed, Table, Takes, View, key, set, tally, with_sql,
};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places};

use super::{database, execute, level, log_of, scalar, shop_history, submit_all, until};
use crate::write_side::start;

const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

/// A history with a tenant of its own.
fn history(seed: u64, orders: u32) -> Vec<Request> {
    let of_tenant = |line| Request {
        tenant: format!("t{seed}").parse().unwrap(),
        ..line
    };
    let lines = shop_history(seed, orders).into_iter();
    lines.map(of_tenant).collect()
}

const STREAM: &[projector::KeyColumn] = &[key("stream", ColumnType::Text, "The stream.")];

/// How many commits each stream has, by rules.
struct ByRules;

const BY_RULES: &[Table] = &[Table {
    name: "by_rules",
    about: "Commits of streams.",
    key: STREAM,
    values: &[tally("commits", "How many.")],
    ..Table::PLAIN
}];

impl Projection for ByRules {
    fn name(&self) -> &'static str {
        "by_rules"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        BY_RULES
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        changes
            .row(&BY_RULES[0], [entry.commit().stream.as_str().into()])
            .put("commits", 1_i64);
        Ok(())
    }
}

/// The same, by SQL: a statement that would show each commit that has no effect or two.
struct BySql;

const BY_SQL: &[Table] = &[Table {
    name: "by_sql",
    about: "Commits of streams.",
    key: STREAM,
    values: &[set("commits", ColumnType::Bigint, "How many.")],
    view: View {
        sql_only: &[SqlColumn {
            name: "positions",
            expression: "r.positions",
            about: "The positions of the commits.",
        }],
        ..View::WHOLE
    },
    ..Table::PLAIN
}];

impl SqlProjection for BySql {
    fn name(&self) -> &'static str {
        "by_sql"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        BY_SQL
    }

    fn prepare(&self) -> &'static str {
        "ALTER TABLE {by_sql} ADD COLUMN positions int8multirange NOT NULL DEFAULT '{}'; \
         CREATE INDEX ON {by_sql} USING gist (positions); \
         ALTER TABLE {by_sql} ADD CHECK (commits > 0)"
    }

    async fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> Result<(), SqlError> {
        let sql = "INSERT INTO {by_sql} AS r (tenant, stream, commits, positions) \
                   VALUES ($1, $2, 1, int8multirange(int8range($3, $3, '[]'))) \
                   ON CONFLICT (tenant, stream) DO UPDATE SET commits = r.commits + 1, \
                   positions = r.positions + excluded.positions";
        for commit in commits {
            sqlx::query(transaction.statement(sql))
                .bind(commit.tenant())
                .bind(commit.commit().stream.as_str())
                .bind(commit.position().0.cast_signed())
                .execute(transaction.connection())
                .await?;
        }
        Ok(())
    }
}

/// Takes up that orders were placed, and could not bear any other commit.
struct OfOrders;

const OF_ORDERS: &[Table] = &[Table {
    name: "of_orders",
    about: "Commits of orders.",
    key: STREAM,
    values: &[set("commits", ColumnType::Bigint, "How many.")],
    ..Table::PLAIN
}];

impl SqlProjection for OfOrders {
    fn name(&self) -> &'static str {
        "of_orders"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        OF_ORDERS
    }

    fn takes(&self) -> Vec<Takes> {
        vec![Takes {
            category: "order",
            event: "OrderPlaced",
        }]
    }

    async fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> Result<(), SqlError> {
        let sql = "INSERT INTO {of_orders} AS r (tenant, stream, commits) VALUES ($1, $2, 1) \
                   ON CONFLICT (tenant, stream) DO UPDATE SET commits = r.commits + 1";
        for commit in commits {
            let stream = commit.commit().stream.as_str();
            assert!(stream.starts_with("order-"), "{stream}");
            sqlx::query(transaction.statement(sql))
                .bind(commit.tenant())
                .bind(stream)
                .execute(transaction.connection())
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn commits_that_its_sql_does_not_take_up_are_kept_from_it_in_every_schema() {
    let log = log_of(Kind::Sqlite, history(3, 30)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let projection: Arc<dyn Projection> = Arc::new(with_sql(OfOrders));
    let models = [Arc::clone(&projection)];
    let done = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
    done.await.unwrap();
    let supposed = Supposed::make(
        &*log.log,
        &url,
        &projection,
        ("supposed", Existing::Refused),
    );
    let mut supposed = supposed.await.unwrap();
    let partitions = (0..log.log.partition_count()).map(|number| (Partition(number), None));
    let mut commits = Subscription::new(Arc::clone(&log.log), partitions.collect());
    loop {
        let batches = commits.next(Duration::from_millis(500)).await.unwrap();
        if batches.is_empty() {
            break;
        }
        for placed in batches.iter().flat_map(|batch| &batch.commits) {
            supposed.take(placed, placed).await.unwrap();
        }
    }
    let (compared, set_aside) = supposed.finish(ApartState::Finished).await.unwrap();
    assert!(compared.equal);
    assert_eq!(set_aside, [0, 0]);
    let rows = |schema: &str| {
        format!("SELECT string_agg(r::text, ' ' ORDER BY r::text) FROM {schema}.of_orders AS r")
    };
    let live: String = scalar(&url, &rows("read")).await;
    assert_eq!(scalar::<String>(&url, &rows("supposed")).await, live);
}

/// How many rows differ between the two.
async fn differing(url: &str) -> i64 {
    let sql = "SELECT count(*) FROM read.by_rules AS a FULL JOIN read.by_sql AS b \
               USING (tenant, stream) WHERE a.commits IS DISTINCT FROM b.commits";
    scalar(url, sql).await
}

#[tokio::test]
async fn sql_of_its_own_has_the_effect_of_each_commit_exactly_once() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(ByRules), Arc::new(with_sql(BySql))];
    projector::check_declarations(&all).unwrap();
    projector::try_declarations(&url, &all).await.unwrap();
    let one = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    let other = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until("it follows", async || one.ready().is_ok()).await;
    let mut operator = Operator::connect(&url, &all).await.unwrap();
    for round in 0..4 {
        submit_all(&engine, history(round, 80)).await;
        // Its sessions die in the middle of whatever they do.
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE application_name LIKE 'annals-projector %' AND pid <> pg_backend_pid()";
        scalar::<i64>(&url, kill).await;
        if round == 1 {
            operator.rebuild("by_sql", NOW, ACTOR).await.unwrap();
        }
    }
    until("it has caught up", async || level(&log, &url, &all).await).await;
    until("the rebuilt tables are live", async || {
        let live = "SELECT generation FROM annals.generation \
                    WHERE projection = 'by_sql' AND state = 'live'";
        scalar::<i32>(&url, live).await == 2
    })
    .await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    assert_eq!(differing(&url).await, 0);
    assert!(scalar::<i64>(&url, "SELECT count(*) FROM read.by_sql").await > 100);
    let plan = "SELECT sum(commits)::bigint = (SELECT count(*) FROM read.by_sql, \
                unnest(positions) AS p, generate_series(lower(p), upper(p) - 1)) FROM read.by_sql";
    assert!(scalar::<bool>(&url, plan).await);
    // What was declared is compared with the log, as for others.
    one.stop().await.unwrap();
    other.stop().await.unwrap();
    let verify = || {
        let name = "by_sql";
        projector::rebuild(
            &log.log,
            &url,
            &all,
            name,
            Purpose::Verify,
            Box::new(|_| {}),
        )
    };
    assert!(verify().await.unwrap().comparison.unwrap().equal);
    let tamper = "DO $$ DECLARE t text; BEGIN \
        SELECT tables[1] INTO t FROM annals.generation WHERE projection = 'by_sql' AND state = 'live'; \
        EXECUTE format('UPDATE projection.%I SET commits = commits + 1 \
            WHERE stream = (SELECT min(stream) FROM projection.%I)', t, t); END $$";
    execute(&url, tamper).await;
    let found = verify().await.unwrap().comparison.unwrap();
    let columns: Vec<_> = found.tables[0]
        .differences
        .iter()
        .map(|d| d.column.as_deref())
        .collect();
    assert!(
        !found.equal && columns.contains(&Some("commits")),
        "{found:?}"
    );
}

/// What is wrong with [`Faulty`] at commits of the tenant `t2`.
static FAULT: AtomicU8 = AtomicU8::new(0);

/// Writes every commit, unless something is wrong.
struct Faulty;

const FAULTY: &[Table] = &[Table {
    name: "faulty",
    about: "Commits of tenants.",
    key: &[key("stream", ColumnType::Text, "The stream.")],
    values: &[set("commits", ColumnType::Bigint, "How many.")],
    ..Table::PLAIN
}];

impl SqlProjection for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        FAULTY
    }

    async fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> Result<(), SqlError> {
        for commit in commits {
            let sql = match FAULT.load(Ordering::Relaxed) {
                1 if commit.tenant() == "t2" => "SELECT 1 / 0",
                2 if commit.tenant() == "t2" => panic!("the author did not think of this"),
                3 if commit.tenant() == "t2" => "COMMIT; BEGIN",
                4 if commit.tenant() == "t2" => "SELECT 1 WHERE false",
                _ => {
                    "INSERT INTO {faulty} AS r (tenant, stream, commits) VALUES ($1, $2, 1) \
                     ON CONFLICT (tenant, stream) DO UPDATE SET commits = r.commits + 1"
                }
            };
            match sql {
                "COMMIT; BEGIN" => {
                    sqlx::raw_sql(sql).execute(transaction.connection()).await?;
                }
                "SELECT 1 WHERE false" => {
                    sqlx::query(sql).fetch_one(transaction.connection()).await?;
                }
                "SELECT 1 / 0" => {
                    sqlx::query(sql).execute(transaction.connection()).await?;
                }
                _ => {
                    sqlx::query(transaction.statement(sql))
                        .bind(commit.tenant())
                        .bind(commit.commit().stream.as_str())
                        .execute(transaction.connection())
                        .await?;
                }
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn whatever_its_sql_does_wrong_it_stops_at_the_commit_and_alone() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(ByRules), Arc::new(with_sql(Faulty))];
    submit_all(&engine, history(1, 20)).await;
    submit_all(&engine, history(2, 20)).await;
    for (fault, says) in [
        (1, "division by zero"),
        (2, "panicked"),
        (3, "ended the transaction"),
        (4, "no rows returned"),
    ] {
        let url = database(&postgres).await;
        FAULT.store(fault, Ordering::Relaxed);
        let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
        until("it says why it stopped", async || {
            let said = projector.ready().err().unwrap_or_default();
            said.contains(says) && said.contains("faulty") && said.contains("at offset")
        })
        .await;
        let stops = "SELECT count(*) FROM annals.stop";
        let wanted = if fault == 3 { 1 } else { 2 };
        until("it has stopped in each partition", async || {
            scalar::<i64>(&url, stops).await >= wanted
        })
        .await;
        until("the other has caught up", async || {
            let places = places(&*log.log, &url, &all).await.unwrap();
            let mut other = places.iter().filter(|place| place.projection == "by_rules");
            other.all(|place| place.gap == Some(0))
        })
        .await;
        // Nothing of what failed was kept, but for what its own SQL committed.
        let left = "SELECT count(*) FROM read.faulty WHERE tenant = 't2'";
        assert_eq!(scalar::<i64>(&url, left).await, 0, "{says}");
        FAULT.store(0, Ordering::Relaxed);
        let mut operator = Operator::connect(&url, &all).await.unwrap();
        if fault == 3 {
            // Only a rebuild makes the rows exact again.
            operator.rebuild("faulty", NOW, ACTOR).await.unwrap();
        } else {
            operator.resume("faulty", ACTOR).await.unwrap();
        }
        until(&format!("it goes on after: {says}"), async || {
            let equal = "SELECT NOT EXISTS (SELECT FROM read.by_rules AS a \
                         FULL JOIN read.faulty AS b USING (tenant, stream) \
                         WHERE a.commits IS DISTINCT FROM b.commits)";
            level(&log, &url, &all).await && scalar::<bool>(&url, equal).await
        })
        .await;
        projector.stop().await.unwrap();
    }
}

/// Fills a table that another program made.
struct InTheirTable;

impl SqlProjection for InTheirTable {
    fn name(&self) -> &'static str {
        "their_orders"
    }

    fn version(&self) -> u32 {
        1
    }

    fn reset(&self) -> Option<&'static str> {
        Some("TRUNCATE crm.orders")
    }

    async fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> Result<(), SqlError> {
        for commit in commits {
            let sql = "INSERT INTO crm.orders AS r VALUES ($1, $2, 1) \
                       ON CONFLICT (tenant, stream) DO UPDATE SET commits = r.commits + 1";
            sqlx::query(transaction.statement(sql))
                .bind(commit.tenant())
                .bind(commit.commit().stream.as_str())
                .execute(transaction.connection())
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn tables_of_others_are_emptied_and_filled_again() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let theirs = "CREATE SCHEMA crm; CREATE TABLE crm.orders \
                  (tenant text, stream text, commits bigint, PRIMARY KEY (tenant, stream)); \
                  INSERT INTO crm.orders VALUES ('t1', 'left-over', 7); \
                  CREATE VIEW crm.large AS SELECT * FROM crm.orders WHERE commits > 3";
    execute(&url, theirs).await;
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(ByRules), Arc::new(with_sql(InTheirTable))];
    projector::check_declarations(&all).unwrap();
    let equal = "SELECT NOT EXISTS (SELECT FROM read.by_rules AS a FULL JOIN crm.orders AS b \
                 USING (tenant, stream) WHERE a.commits IS DISTINCT FROM b.commits)";
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    submit_all(&engine, history(1, 40)).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    assert!(scalar::<bool>(&url, equal).await);
    // Somebody changes their rows; a rebuild makes them exact again, while events go on.
    execute(&url, "UPDATE crm.orders SET commits = commits + 1").await;
    let mut operator = Operator::connect(&url, &all).await.unwrap();
    let name = "their_orders";
    assert_eq!(operator.rebuild(name, NOW, ACTOR).await.unwrap(), 2);
    submit_all(&engine, history(2, 40)).await;
    until("they are exact", async || {
        level(&log, &url, &all).await && scalar::<bool>(&url, equal).await
    })
    .await;
    projector.stop().await.unwrap();
    execute(&url, "UPDATE crm.orders SET commits = commits + 1").await;
    let rebuild =
        |purpose| projector::rebuild(&log.log, &url, &all, name, purpose, Box::new(|_| {}));
    assert_eq!(rebuild(NOW).await.unwrap().generation, 3);
    assert!(scalar::<bool>(&url, equal).await);
    for purpose in [Purpose::Verify, Purpose::Wait] {
        let refused = rebuild(purpose).await.unwrap_err();
        assert!(matches!(refused, RuntimeError::InPlace { .. }), "{refused}");
    }
    assert!(scalar::<bool>(&url, equal).await);
}

/// Declared in ways that cannot be.
struct Declared {
    name: &'static str,
    tables: &'static [Table],
    prepare: &'static str,
    reset: Option<&'static str>,
}

impl SqlProjection for Declared {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        self.tables
    }

    fn prepare(&self) -> &'static str {
        self.prepare
    }

    fn reset(&self) -> Option<&'static str> {
        self.reset
    }

    async fn apply(&self, _: &[SqlCommit<'_>], _: &mut SqlTransaction<'_>) -> Result<(), SqlError> {
        Ok(())
    }
}

const WRONG: &[Table] = &[Table {
    view: View {
        sql_only: &[SqlColumn {
            name: "positions",
            expression: "r.position",
            about: "The positions of the commits.",
        }],
        ..View::WHOLE
    },
    ..BY_SQL[0]
}];

#[tokio::test]
async fn what_it_declares_wrongly_is_refused_before_anything_runs() {
    let declared = |name, tables, prepare, reset| -> Arc<dyn Projection> {
        Arc::new(with_sql(Declared {
            name,
            tables,
            prepare,
            reset,
        }))
    };
    let places = [
        declared("both", BY_SQL, "", Some("TRUNCATE crm.orders")),
        declared("neither", &[], "", None),
        declared(
            "prepares",
            &[],
            "CREATE INDEX ON crm.orders (stream)",
            Some("TRUNCATE crm.orders"),
        ),
    ];
    let faults = projector::check_declarations(&places)
        .unwrap_err()
        .to_string();
    assert!(
        faults.contains("projection both: it has tables of its own and `reset`"),
        "{faults}"
    );
    assert!(
        faults.contains("projection neither: it declares no tables"),
        "{faults}"
    );

    assert!(
        faults.contains("projection prepares: it has `prepare`"),
        "{faults}"
    );

    let postgres = Postgres::start();
    let url = database(&postgres).await;
    for (tables, prepare, says) in [
        (
            FAULTY,
            "ALTER TABLE {faulty} ADD COLUMN x nothing",
            "type \"nothing\" does not exist",
        ),
        (
            FAULTY,
            "CREATE VIEW projection.v AS SELECT * FROM {faulty}",
            "does not go away",
        ),
        (
            WRONG,
            "ALTER TABLE {by_sql} ADD COLUMN positions int",
            "column positions: Postgres says",
        ),
    ] {
        let wrong = [declared("wrong", tables, prepare, None)];
        let refused = projector::try_declarations(&url, &wrong).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
}
