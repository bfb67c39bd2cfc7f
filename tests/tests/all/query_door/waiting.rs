//! Queries that wait for a position: however many wait, Postgres is asked no more often.

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tests::harness::logs::Kind;

use super::{Served, ask};
use crate::write_side::{place, request};

/// How many clients wait at once.
const WAITING: usize = 200;
/// How long they wait, in milliseconds.
const WAIT_MS: u64 = 3_000;

/// How many statements this database was asked so far, by everybody.
async fn statements(connection: &mut sqlx::PgConnection) -> i64 {
    let asked = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let clear = sqlx::query("SELECT pg_stat_clear_snapshot()");
    clear.execute(&mut *connection).await.unwrap();
    sqlx::query_scalar(asked)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_waiting_clients_ask_postgres_like_one() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let token = placed.position;
    served
        .ok(&format!("/v1/read/order_summary/1?min_position={token}"))
        .await;
    let mut ahead = token.clone();
    ahead
        .positions
        .values_mut()
        .for_each(|position| position.0 += 1_000);
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let path = format!("/v1/read/order_summary/1?min_position={ahead}");
    let before = statements(&mut connection).await;
    let began = Instant::now();
    let waiting = (0..WAITING).map(|_| {
        let wait = WAIT_MS.to_string();
        ask(served.get(&path).header("Annals-Timeout-Ms", wait))
    });
    let answers = futures::future::join_all(waiting).await;
    let took = began.elapsed();
    let all_waited = answers.iter().all(|(status, _)| *status == 503);
    assert!(all_waited, "{:?}", answers.first());
    // The connections report what they did at the latest when they have been idle for a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let asked = statements(&mut connection).await - before;
    let per_second = asked as f64 / took.as_secs_f64();
    println!("{WAITING} waiting clients: {asked} statements in {took:?}, {per_second:.0} a second");
    // One reads for all: at most 500 times a second as long as clients come, else 20 times. The
    // projector and the sampler ask a few times, too.
    let of_reader = took.as_millis() / 50 + 250;
    let max = i64::try_from(of_reader).unwrap() + 100;
    assert!(asked < max, "{asked} statements of at most {max}");
}

/// The times of plain reads, one after the other: the median and the 99th of a hundred.
async fn plain_reads(served: &Served, count: usize) -> [Duration; 2] {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        served.ok("/v1/read/daily_sales?limit=10").await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    [count / 2, count * 99 / 100].map(|place| times[place])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn plain_reads_stay_quick_while_fifteen_hundred_wait_and_all_of_those_are_answered() {
    const MANY: usize = 1_500;
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let token = placed.position;
    served
        .ok(&format!("/v1/read/daily_sales?min_position={token}"))
        .await;
    let alone = plain_reads(&served, 200).await;
    // The next commit of the stream's partition.
    let mut next = token.clone();
    next.positions
        .values_mut()
        .for_each(|position| position.0 += 1);
    let path = format!("/v1/read/order_summary/1?min_position={next}");
    let asks: Vec<_> = (0..MANY)
        .map(|_| {
            let request = served.get(&path).header("Prefer", "wait=60");
            tokio::spawn(async move { ask(request).await })
        })
        .collect();
    // They are waiting once none of them needs the processor any more.
    let began = Instant::now();
    let mut beside = plain_reads(&served, 200).await;
    while beside[0] > 3 * alone[0] && began.elapsed() < Duration::from_secs(20) {
        beside = plain_reads(&served, 200).await;
    }
    println!("plain reads: p50 {alone:.1?} p99 alone, {beside:.1?} beside {MANY} that wait");
    assert!(beside[0] <= 3 * alone[0], "{beside:?} after {alone:?}");
    assert!(
        asks.iter().all(|ask| !ask.is_finished()),
        "all of them wait"
    );
    let began = Instant::now();
    served
        .submit(request(
            "order-1",
            "ApproveOrder",
            "b",
            &serde_json::json!({}),
        ))
        .await;
    let woken = plain_reads(&served, 50).await;
    for ask in asks {
        let (status, row) = ask.await.unwrap();
        assert_eq!((status.as_u16(), &row["status"]), (200, &"approved".into()));
    }
    let took = began.elapsed();
    println!("all answered within {took:.1?}; plain reads meanwhile: {woken:.1?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
