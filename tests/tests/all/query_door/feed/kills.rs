//! A plain client follows the feed while nodes, projectors and its own connections are killed: it gets
//! every commit that counts exactly once, in each partition's order, and no orphan.
//!
//! The client knows HTTP and JSON, and nothing of Annals. `ANNALS_FEED_KILLS` asks for more kills.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tests::harness::annals::{Annals, Launch};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::ports;
use tests::harness::postgres::Postgres;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{assert_in_order, lines, sorted, told_of};
use crate::raw_log::{RawLog, again, foreign, read_all};

const KILLS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "a secret of this test that is long enough";

fn launched(role: &[&str], log: &NewLog, url: &str, folder: &Path, name: &str) -> (Annals, String) {
    let listen = format!("127.0.0.1:{}", ports::free());
    let data = folder.join(name);
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--log={}", log.address),
        format!("--postgres={url}"),
        format!("--listen={listen}"),
        format!("--data={}", data.display()),
        "--session-timeout-ms=6000".to_owned(),
    ];
    arguments.extend(role.iter().map(|role| format!("--role={role}")));
    let annals = Annals::launch(Launch {
        program: PathBuf::from(env!("CARGO_BIN_EXE_annals-under-test")),
        arguments,
        // The variable of this test is no setting of the program.
        through: ["env", "-u", "ANNALS_FEED_KILLS"].map(str::to_owned).into(),
        environment: vec![("ANNALS_CLUSTER_SECRET".to_owned(), SECRET.to_owned())],
        folder: folder.to_owned(),
        output: folder.join(format!("{name}.out")),
    });
    (annals, format!("http://{listen}"))
}

/// Sends commands until it is told to end; an answer that does not come is not waited for.
async fn write_on(urls: Vec<String>, is_done: Arc<AtomicBool>, accepted: Arc<AtomicU64>) {
    let http = reqwest::Client::new();
    let data = json!({"city": "recife", "state": "PE", "postcode_prefix": "50000"});
    let mut number = 0_usize;
    while !is_done.load(Ordering::Relaxed) {
        number += 1;
        // Each customer registers, and later changes what was registered: some are refused.
        let url = format!(
            "{}/v1/streams/customer-{}/RegisterCustomer",
            urls[number % urls.len()],
            number / 2
        );
        let sent = http
            .post(url)
            .header("idempotency-key", format!("w{number}"))
            .json(&data)
            .timeout(Duration::from_secs(2));
        match sent.send().await {
            Ok(answer) if answer.status().is_success() => {
                accepted.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(2)).await;
            }
            Ok(_) | Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Follows the feed at any of the nodes. It keeps whole commits with their cursors, and goes on from the
/// last one whenever its connection ends, which it also cuts itself.
async fn follow(
    urls: Vec<String>,
    query: String,
    seed: u64,
    commits: mpsc::UnboundedSender<Vec<Value>>,
) {
    let http = reqwest::Client::new();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cursor: Option<String> = None;
    loop {
        let url = &urls[random.random_range(0..urls.len())];
        let from = cursor
            .as_ref()
            .map_or(String::new(), |cursor| format!("&from={cursor}"));
        let asked = http.get(format!("{url}/v1/events?follow=true{query}{from}"));
        let asked = asked.header("annals-tenant", "*").send();
        let Ok(Ok(response)) = timeout(Duration::from_secs(10), asked).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if response.status() != 200 {
            let status = response.status();
            let text = response.text().await.unwrap_or_default();
            assert_eq!(status, 503, "{text}");
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let cut_after = Duration::from_millis(random.random_range(200..6_000));
        let cut_at = Instant::now() + cut_after;
        let mut pieces = Box::pin(response.bytes_stream());
        let (mut text, mut commit) = (Vec::new(), Vec::new());
        'connection: while Instant::now() < cut_at {
            let next = timeout(cut_after, pieces.next()).await;
            let Ok(Some(Ok(piece))) = next else {
                break;
            };
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let item: Value = serde_json::from_slice(&line).unwrap();
                match item["kind"].as_str().unwrap() {
                    "event" | "refusal" => commit.push(item.clone()),
                    "progress" => {}
                    "problem" => {
                        assert_eq!(item["problem"]["status"], 503, "{item}");
                        break 'connection;
                    }
                    other => panic!("{other}: {item}"),
                }
                if let Some(to) = item["cursor"].as_str() {
                    cursor = Some(to.to_owned());
                    let whole = std::mem::take(&mut commit);
                    if !whole.is_empty() && commits.send(whole).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_gets_everything_once_through_kills() {
    let seed = std::env::var("ANNALS_TESTS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let kills = std::env::var("ANNALS_FEED_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    println!("seed {seed}, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let log = NewLog::make(Kind::Kafka, 4).await;
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = ["command-api", "query-api"];
    let start = |role: &[&str], name: &str| launched(role, &log, &url, folder.path(), name);
    let (one, two) = (start(&node, "one"), start(&node, "two"));
    let projector = start(&["projector"], "projector");
    let urls = vec![one.1, two.1];
    let mut processes = [one.0, two.0, projector.0];
    processes.iter_mut().for_each(Annals::wait_until_ready);

    let (is_done, accepted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writer = write_on(urls.clone(), Arc::clone(&is_done), Arc::clone(&accepted));
    let writer = tokio::spawn(writer);
    let queries = ["&outcome=all", "&category=customer&type=CustomerRegistered"];
    let mut followers = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let (sender, commits) = mpsc::unbounded_channel();
        let following = follow(
            urls.clone(),
            (*query).to_owned(),
            seed + number as u64,
            sender,
        );
        followers.push((tokio::spawn(following), commits));
    }
    for kill in 0..kills {
        let before = accepted.load(Ordering::Relaxed);
        // Each kill meets a system that works.
        let deadline = Instant::now() + PATIENCE;
        while accepted.load(Ordering::Relaxed) < before + 100 {
            assert!(
                Instant::now() < deadline,
                "no commands are accepted after {kill} kills"
            );
            sleep(Duration::from_millis(20)).await;
        }
        let which = random.random_range(0..processes.len());
        processes[which].kill9();
        // A client library that repeats itself, and other programs, leave records that do not count.
        let partition = position::Partition(random.random_range(0..4));
        let records = read_all(&*log.log, partition).await;
        let orphans = [foreign("x"), again(&records[records.len() / 2])];
        RawLog::of(&log).write(partition, &orphans).await;
        sleep(Duration::from_millis(random.random_range(0..500))).await;
        processes[which].relaunch();
    }
    processes.iter_mut().for_each(Annals::wait_until_ready);
    is_done.store(true, Ordering::Relaxed);
    writer.await.unwrap();

    let told = told_of(&*log.log).await;
    println!(
        "{} commits, {} of them answered",
        told.len(),
        accepted.load(Ordering::Relaxed)
    );
    let types = [None, Some("CustomerRegistered")];
    for ((follower, mut commits), types) in followers.into_iter().zip(types) {
        let shown = told
            .iter()
            .filter(|one| types.is_none() || one.commit.rejection.is_none());
        let expected = lines(shown, types);
        let mut items = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while items.len() < expected.len() && Instant::now() < deadline {
            if let Ok(Some(commit)) = timeout(Duration::from_secs(1), commits.recv()).await {
                items.extend(commit);
            }
        }
        // Nothing comes after the last one.
        let more = timeout(Duration::from_secs(1), commits.recv()).await;
        assert!(more.is_err(), "{more:?}");
        follower.abort();
        assert_in_order(&items);
        assert_eq!(sorted(&items), expected);
    }
}
