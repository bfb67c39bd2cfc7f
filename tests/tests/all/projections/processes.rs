//! Three projector processes that are killed, stopped and woken at random while commands arrive,
//! read models are rebuilt and somebody reads: no read fails or is wrong, and afterwards the rows are
//! those of an independent fold in SQL, and each read model is equal to a fold of its own.
//!
//! In its large form (`make read-faults`) all this happens on a log of a million events.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use projector::{Actor, Operator, Purpose};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use sqlx::{Connection, PgConnection, PgPool};
use tests::fold;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, read_models};

use super::{caught_up, database, level, scalar, shop_history, submit_all};
use crate::cli::program::{Server, annals, folder, within};
use crate::write_side::start;

/// How many faults; `ANNALS_PROJECTOR_FAULTS` asks for more.
const FAULTS: u32 = 8;
/// How long everything may take to be level again; longer on a large log.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_LARGE: Duration = Duration::from_secs(1_800);
const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

/// Makes a history of so many events, with a node of its own.
pub(super) fn generate(address: &str, url: &str, seed: u64, events: u64) {
    let folder = folder();
    let secret = annals(folder.path())
        .args(["config", "secret"])
        .output()
        .unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, secret.stdout).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let serve = [
        "serve",
        "--log",
        address,
        "--postgres",
        url,
        "--cluster-secret-file",
        file,
    ];
    let mut node = Server::start(folder.path(), &serve);
    let (seed, events) = (seed.to_string(), events.to_string());
    let made = annals(folder.path())
        .args([
            "generate", "--seed", &seed, "--events", &events, "--url", &node.url,
        ])
        .status()
        .unwrap();
    assert!(made.success());
    assert!(node.end(Signal::TERM).success());
}

/// An export of all that the log accepted, as a file.
pub(super) fn dump(folder: &Path, address: &str) -> PathBuf {
    let export = folder.join("export");
    let dumped = annals(folder)
        .args(["log", "dump", "--accepted", "--log", address])
        .stdout(std::fs::File::create(&export).unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(dumped.success());
    export
}

/// Reads until it is told to end: every read succeeds, nothing that was there goes away, and
/// whenever two read models stand at the same places, they say the same. Returns how often it read,
/// and how often it compared the two.
async fn read_on(url: &str, is_done: Arc<AtomicBool>) -> (u32, u32) {
    let mut reader = PgConnection::connect(url).await.unwrap();
    let totals = |model: &str| {
        format!(
            "SELECT coalesce(sum(orders), 0)::bigint, coalesce(sum(items), 0)::bigint, \
             coalesce(sum(items_minor), 0)::bigint FROM read.{model}"
        )
    };
    let places = "SELECT array_agg(c.\"offset\" ORDER BY c.partition) \
                  FROM annals.generation AS g JOIN annals.checkpoint AS c \
                  USING (projection, generation) WHERE g.state = 'live' AND projection = $1";
    let (mut reads, mut compared, mut last) = (0, 0, (0_i64, 0_i64, 0_i64));
    while !is_done.load(Ordering::Relaxed) {
        let mut snapshot = reader
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
            .await
            .unwrap();
        let days: (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(totals("daily_sales")))
            .fetch_one(&mut *snapshot)
            .await
            .unwrap();
        let sellers: (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(totals("seller_sales")))
            .fetch_one(&mut *snapshot)
            .await
            .unwrap();
        let mut at = Vec::new();
        for model in ["daily_sales", "seller_sales"] {
            let offsets: Option<Vec<i64>> = sqlx::query_scalar(places)
                .bind(model)
                .fetch_one(&mut *snapshot)
                .await
                .unwrap();
            at.push(offsets);
        }
        snapshot.rollback().await.unwrap();
        assert!(
            days >= last && days.1 >= last.1 && days.2 >= last.2,
            "{days:?} after {last:?}"
        );
        if at[0] == at[1] {
            assert_eq!((days.1, days.2), (sellers.1, sellers.2));
            compared += 1;
        }
        (reads, last) = (reads + 1, days);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (reads, compared)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_stay_exact_while_projectors_are_killed_stopped_and_woken() {
    let seed = std::env::var("ANNALS_TESTS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let faults = std::env::var("ANNALS_PROJECTOR_FAULTS");
    let faults = faults.map_or(FAULTS, |count| count.parse().unwrap());
    let events = std::env::var("ANNALS_PROJECTOR_EVENTS");
    let events: u64 = events.map_or(0, |count| count.parse().unwrap());
    println!("seed {seed}, {faults} faults, {events} events before them");
    let mut random = StdRng::seed_from_u64(seed);
    let log = NewLog::make(Kind::Kafka, 6).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let address = log.address.to_string();
    if events > 0 {
        generate(&address, &url, seed, events);
    }
    let engine = start(&log).await;
    caught_up(&log.log, &url).await;
    let folder = folder();
    let begin = || {
        let serve = ["serve", "--role", "projector", "--log", &address];
        Server::start(folder.path(), &[&serve[..], &["--postgres", &url]].concat())
    };
    let mut servers = vec![begin(), begin(), begin()];
    let mut operator = Operator::connect(&url, &all).await.unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (url, is_done) = (url.clone(), Arc::clone(&is_done));
        tokio::spawn(async move { read_on(&url, is_done).await })
    };
    for fault in 0..faults {
        let commands = shop_history(u64::from(fault) + 100, 60).into_iter();
        let of_tenant = |line| engine::command::Request {
            tenant: format!("t{fault}").parse().unwrap(),
            ..line
        };
        submit_all(&engine, commands.map(of_tenant).collect()).await;
        if fault % 3 == 0 {
            let name = all[random.random_range(0..all.len())].name();
            operator.rebuild(name, NOW, ACTOR).await.unwrap();
        }
        let which = random.random_range(0..servers.len());
        match random.random_range(0..3) {
            0 => {
                servers[which].end(Signal::KILL);
                servers[which] = begin();
            }
            1 => {
                // Long enough to be taken for dead; it wakes with all that it believed.
                servers[which].signal(Signal::STOP);
                tokio::time::sleep(Duration::from_millis(3_500)).await;
                servers[which].signal(Signal::CONT);
            }
            _ => {
                servers[which].signal(Signal::STOP);
                tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
                servers[which].signal(Signal::CONT);
            }
        }
    }
    let patience = if events > 0 { PATIENCE_LARGE } else { PATIENCE };
    within(
        patience,
        "everything is taken up, live and swept",
        async || {
            let others = "SELECT count(*) FROM annals.generation WHERE state <> 'live'";
            level(&log, &url, &all).await && scalar::<i64>(&url, others).await == 0
        },
    )
    .await;
    // Each read model against a fold by the engine itself, made by whichever process comes first.
    for projection in &all {
        let name = projection.name();
        let on_reading = Box::new(|_| {});
        let verified =
            projector::rebuild(&log.log, &url, &all, name, Purpose::Verify, on_reading).await;
        let comparison = verified.unwrap().comparison.unwrap();
        assert!(comparison.equal, "{comparison:?}");
    }
    is_done.store(true, Ordering::Relaxed);
    let (reads, compared) = reader.await.unwrap();
    println!("{reads} reads, {compared} of them with both models at the same places");
    assert!(compared > 10, "{compared} of {reads}");
    for server in &mut servers {
        assert!(server.end(Signal::TERM).success());
    }
    engine.drain(Duration::from_secs(10)).await;
    // And against a fold in SQL over an export of the log.
    let export = dump(folder.path(), &address);
    let pool = PgPool::connect(&url).await.unwrap();
    fold::load(&pool, &export).await.unwrap();
    assert_eq!(fold::compare(&pool).await.unwrap(), []);
}
