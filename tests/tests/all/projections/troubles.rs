//! Trouble with one read model's tables: a lock of somebody else, a deadlock, a right that was
//! revoked, a slow commit. The other read models go on, and the rows are exact afterwards.

use std::time::{Duration, Instant};

use engine::Engine;
use projector::Projector;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{places, read_models};

use super::{MODELS, caught_up, database, execute, level, rows_of, scalar, shop_history};
use super::{submit_all, until};
use crate::write_side::start;

const TROUBLED: &str = "daily_sales";

/// A history with a tenant of its own.
pub(super) async fn feed(engine: &Engine, seed: u64) {
    let of_tenant = |line| engine::command::Request {
        tenant: format!("t{seed}").parse().unwrap(),
        ..line
    };
    let lines = shop_history(seed, 40).into_iter().map(of_tenant);
    submit_all(engine, lines.collect()).await;
}

/// The live table of the troubled read model.
async fn table(url: &str) -> String {
    let sql = format!(
        "SELECT 'projection.' || quote_ident(tables[1]) FROM annals.generation \
         WHERE projection = '{TROUBLED}' AND state = 'live'"
    );
    scalar(url, &sql).await
}

/// A log and a projector that has caught up.
pub(super) struct Scene {
    pub(super) log: NewLog,
    pub(super) engine: Engine,
    pub(super) postgres: Postgres,
    pub(super) url: String,
    pub(super) projector: Projector,
}

impl Scene {
    async fn start() -> Self {
        Self::on(Postgres::start()).await
    }

    pub(super) async fn on(postgres: Postgres) -> Self {
        let log = NewLog::make(Kind::Sqlite, 2).await;
        let engine = start(&log).await;
        let url = database(&postgres).await;
        let projector = Projector::spawn(&log.log, &url, &read_models(), 2).unwrap();
        feed(&engine, 1).await;
        until("it has caught up", async || {
            level(&log, &url, &read_models()).await
        })
        .await;
        Self {
            log,
            engine,
            postgres,
            url,
            projector,
        }
    }

    /// Waits until all others have caught up, and until the troubled one says why it has not.
    async fn others_go_on(&self, why: &str) {
        let all = read_models();
        until("the others go on and the one says why not", async || {
            let places = places(&*self.log.log, &self.url, &all).await.unwrap();
            let others = places.iter().filter(|place| place.projection != TROUBLED);
            let said = self.projector.ready().err().unwrap_or_default();
            others.clone().all(|place| place.gap == Some(0))
                && said.contains(TROUBLED)
                && said.contains(why)
        })
        .await;
        // Every process sees it, too, and where.
        until(
            "the report names the partition and the reason",
            async || {
                let reports = projector::report(Some(&*self.log.log), &self.url, &all).await;
                let reports = reports.unwrap();
                let troubled = reports.iter().find(|report| report.name == TROUBLED);
                let error = troubled.and_then(|report| report.error.as_ref());
                error.is_some_and(|error| error.partition.is_some() && error.reason.contains(why))
            },
        )
        .await;
    }

    /// Waits until everything is well again, and compares with a fold of everything.
    pub(super) async fn ends_well(self) {
        let all = read_models();
        until("it has caught up", async || {
            level(&self.log, &self.url, &all).await && self.projector.ready().is_ok()
        })
        .await;
        self.projector.stop().await.unwrap();
        let fresh = database(&self.postgres).await;
        caught_up(&self.log.log, &fresh).await;
        let (rows, expected) = (rows_of(&self.url, &MODELS), rows_of(&fresh, &MODELS));
        assert_eq!(rows.await, expected.await);
    }
}

#[tokio::test]
async fn a_table_that_somebody_else_has_locked_holds_up_its_read_model_alone() {
    let scene = Scene::start().await;
    let mut other = PgConnection::connect(&scene.url).await.unwrap();
    let mut holding = other.begin().await.unwrap();
    let lock = format!(
        "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        table(&scene.url).await
    );
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *holding)
        .await
        .unwrap();
    feed(&scene.engine, 2).await;
    scene.others_go_on("lock timeout").await;
    holding.rollback().await.unwrap();
    scene.ends_well().await;
}

#[tokio::test]
async fn a_deadlock_with_a_foreign_writer_loses_nothing() {
    let scene = Scene::start().await;
    let table = table(&scene.url).await;
    // A foreign writer locks rows in an order of its own, again and again.
    let (url, done) = (&scene.url, std::sync::atomic::AtomicBool::new(false));
    let foreign = async {
        let mut other = PgConnection::connect(url).await.unwrap();
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let mut tx = other.begin().await.unwrap();
            let lock = format!("SELECT FROM {table} ORDER BY day DESC, tenant DESC FOR UPDATE");
            let locked = sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *tx).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            let more = "SELECT FROM annals.checkpoint WHERE projection = 'daily_sales' FOR UPDATE";
            let more = sqlx::raw_sql(more).execute(&mut *tx).await;
            match (locked, more) {
                (Ok(_), Ok(_)) => tx.commit().await.unwrap(),
                _ => tx.rollback().await.unwrap(),
            }
        }
    };
    let feeding = async {
        for seed in 2..8 {
            feed(&scene.engine, seed).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(foreign, feeding);
    scene.ends_well().await;
}

#[tokio::test]
async fn a_right_that_was_revoked_holds_up_its_read_model_alone() {
    let scene = Scene::start().await;
    let table = table(&scene.url).await;
    execute(
        &scene.url,
        &format!("REVOKE INSERT, UPDATE ON {table} FROM current_user"),
    )
    .await;
    feed(&scene.engine, 2).await;
    scene.others_go_on("permission denied").await;
    execute(
        &scene.url,
        &format!("GRANT INSERT, UPDATE ON {table} TO current_user"),
    )
    .await;
    scene.ends_well().await;
}

#[tokio::test]
async fn commits_that_take_two_seconds_lose_nothing_and_move_no_partition() {
    let scene = Scene::start().await;
    let slow = "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$; \
                CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON annals.checkpoint \
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
                WHEN (NEW.projection = 'daily_sales') EXECUTE FUNCTION public.slow()";
    execute(&scene.url, slow).await;
    let taken = "SELECT max(taken_at)::text FROM annals.lease";
    let before: String = scalar(&scene.url, taken).await;
    let began = Instant::now();
    for seed in 2..5 {
        feed(&scene.engine, seed).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    until("it has caught up", async || {
        level(&scene.log, &scene.url, &read_models()).await
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(2));
    assert_eq!(scalar::<String>(&scene.url, taken).await, before);
    let mend = "DROP TRIGGER slow ON annals.checkpoint; DROP FUNCTION public.slow()";
    execute(&scene.url, mend).await;
    scene.ends_well().await;
}

/// What Postgres says of one statement or of the files of one table: a full tablespace, a limit of
/// time, a disk that fails, a damaged table or index, and a fault of its own.
const OF_ONE_TABLE: [&str; 6] = ["53100", "57014", "58030", "XX001", "XX002", "XX000"];

#[tokio::test]
async fn a_fault_of_one_tables_files_or_statements_holds_up_its_read_model_alone() {
    let scene = Scene::start().await;
    let table = table(&scene.url).await;
    for (seed, code) in (2..).zip(OF_ONE_TABLE) {
        let fail = format!(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'fault {code}' USING ERRCODE = '{code}'; END $$; \
             CREATE TRIGGER fail BEFORE INSERT ON {table} EXECUTE FUNCTION public.fail()"
        );
        execute(&scene.url, &fail).await;
        feed(&scene.engine, seed).await;
        scene.others_go_on(&format!("fault {code}")).await;
        let stopped = "SELECT (SELECT count(*) FROM annals.stop) + \
                       (SELECT count(*) FROM annals.parked)";
        assert_eq!(scalar::<i64>(&scene.url, stopped).await, 0, "{code}");
        execute(&scene.url, "DROP FUNCTION public.fail CASCADE").await;
    }
    scene.ends_well().await;
}
