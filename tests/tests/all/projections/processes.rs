//! Three projector processes that are killed, stopped and woken at random while commands arrive and
//! read models are rebuilt: afterwards the rows are those of an independent fold in SQL, and each
//! read model is equal to a fold of its own.

use std::process::Stdio;
use std::time::Duration;

use projector::{Actor, Operator, Purpose};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use sqlx::PgPool;
use tests::fold;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, read_models};

use super::{caught_up, database, level, scalar, shop_history, submit_all};
use crate::cli::program::{Server, annals, folder, within};
use crate::write_side::start;

/// How many faults; `ANNALS_PROJECTOR_FAULTS` asks for more.
const FAULTS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(120);
const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_stay_exact_while_projectors_are_killed_stopped_and_woken() {
    let seed = std::env::var("ANNALS_TESTS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let faults = std::env::var("ANNALS_PROJECTOR_FAULTS");
    let faults = faults.map_or(FAULTS, |count| count.parse().unwrap());
    println!("seed {seed}, {faults} faults");
    let mut random = StdRng::seed_from_u64(seed);
    let log = NewLog::make(Kind::Kafka, 6).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    caught_up(&log.log, &url).await;
    let folder = folder();
    let address = log.address.to_string();
    let begin = || {
        let serve = ["serve", "--role", "projector", "--log", &address];
        Server::start(folder.path(), &[&serve[..], &["--postgres", &url]].concat())
    };
    let mut servers = vec![begin(), begin(), begin()];
    let mut operator = Operator::connect(&url, &all).await.unwrap();
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
    within(
        PATIENCE,
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
    for server in &mut servers {
        assert!(server.end(Signal::TERM).success());
    }
    engine.drain(Duration::from_secs(10)).await;
    // And against a fold in SQL over an export of the log.
    let export = folder.path().join("export");
    let dumped = annals(folder.path())
        .args(["log", "dump", "--accepted", "--log", &address])
        .stdout(std::fs::File::create(&export).unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(dumped.success());
    let pool = PgPool::connect(&url).await.unwrap();
    fold::load(&pool, &export).await.unwrap();
    assert_eq!(fold::compare(&pool).await.unwrap(), []);
}
