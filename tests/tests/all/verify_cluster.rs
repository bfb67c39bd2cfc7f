//! `annals verify-cluster`: a real broker passes every guarantee that can be tested, and for a log
//! that breaks one guarantee, the command names that one.

mod spoiled;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_trial::{Guarantee, Row, TRIAL_PARTITIONS, TrialOptions, Verdict, verify_cluster};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};

use spoiled::{Fault, Spoiled};

const PATIENCE: Duration = Duration::from_secs(30);

fn annals(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    // The command writes no file, and there is no configuration.
    let mut command = crate::cli::program::annals(&std::env::temp_dir());
    command.args(arguments);
    command
}

fn trial_topics() -> Vec<String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka::shared().bootstrap())
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name());
    let ours = names.filter(|name| name.starts_with("annals-verify-"));
    ours.map(str::to_owned).collect()
}

#[test]
fn a_real_broker_keeps_every_guarantee_that_can_be_tried() {
    let log = format!("kafka://{}", kafka::shared().bootstrap());
    let started = Instant::now();
    let output = annals(&[
        "verify-cluster",
        "--log",
        &log,
        "--records",
        "1000",
        "--seconds",
        "60",
        "--session-timeout-ms",
        "1000",
        "--output",
        "json",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}took {:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(0), "{said}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts: BTreeMap<&str, &str> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (text("guarantee"), text("verdict"))
        })
        .collect();
    assert_eq!(verdicts.len(), 13);
    for (guarantee, verdict) in verdicts {
        // The tests share this broker, so nobody restarts it.
        let expected = match guarantee {
            "broker_restart" => "not_tested",
            _ => "kept",
        };
        assert_eq!(verdict, expected, "{guarantee}: {rows:#?}");
    }
    let row = |name: &str| rows.iter().find(|row| row["guarantee"] == name).unwrap();
    let records = row("durable_acknowledgement")["records"].as_u64().unwrap();
    assert!(records >= 1_000, "{records}");
    let done = row("no_duplicates")["done"].as_str().unwrap();
    assert!(!done.starts_with("0 connections"), "{done}");
    assert!(done.contains(" 5 producers discarded"), "{done}");
    assert!(row("one_writer_counts")["times"].as_u64().unwrap() >= 11);
    let deadline = Instant::now() + PATIENCE;
    let topic = said
        .lines()
        .find_map(|line| line.rsplit_once('/').filter(|_| line.contains("log is")))
        .unwrap()
        .1;
    while trial_topics().iter().any(|name| name.starts_with(topic)) {
        assert!(Instant::now() < deadline, "{topic} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_broker_that_is_killed_and_comes_back_keeps_what_it_acknowledged() {
    let mut broker = kafka::Kafka::start();
    let log = format!("kafka://{}/any", broker.bootstrap());
    let mut command = command(&[
        "verify-cluster",
        "--log",
        &log,
        "--records",
        "200",
        "--seconds",
        "60",
        "--pause",
        "6",
        "--session-timeout-ms",
        "1000",
        "--output",
        "ndjson",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut said = BufReader::new(running.stderr.take().unwrap()).lines();
    let asked = said.by_ref().map(Result::unwrap);
    let asked: Vec<String> = asked.take_while(|line| !line.starts_with("NOW")).collect();
    broker.kill9();
    broker.restart();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{asked:#?} {rest:#?}");
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str(row).unwrap());
    let rows: Vec<Value> = rows.collect();
    let broken = rows.iter().filter(|row| row["verdict"] != "kept");
    assert_eq!(broken.count(), 0, "{rows:#?}");
    println!("{}", rows.last().unwrap()["found"]);
}

#[test]
fn verify_cluster_refuses_a_file() {
    let output = annals(&["verify-cluster", "--log", "sqlite:x.db"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("kafka://HOST:PORT"), "{said}");
}

async fn broken(faults: &'static [Fault]) -> Vec<Row> {
    let new = NewLog::make(Kind::Kafka, TRIAL_PARTITIONS).await;
    if faults.contains(&Fault::Gap) {
        spoiled::leave_a_gap(&new.address).await;
    }
    let log = Arc::new(Spoiled::new(Arc::clone(&new.log), faults));
    let options = TrialOptions {
        place: (&new.address).into(),
        records: 400,
        within: Duration::from_secs(60),
        pause: None,
        session_timeout: Duration::from_secs(1),
        node: "test".to_owned(),
        // Other tests in this process hold further connections to the broker.
        connections: None,
    };
    let rows = verify_cluster(log, new.id, &options, |_| {}).await.unwrap();
    let broken = rows
        .into_iter()
        .filter(|row| row.verdict == Verdict::Broken);
    broken.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_broken_guarantee_is_named_and_no_other() {
    use Fault as F;
    use Guarantee as G;
    // The tests of the group and the directory take time and threads, and these faults do not
    // concern them.
    const BESIDE: [Guarantee; 2] = [G::CompactedTopic, G::ConsumerGroup];
    let cases: [(&[Fault], &[Guarantee]); 8] = [
        (&[F::NoBeside, F::Lose], &[G::DurableAcknowledgement]),
        (&[F::NoBeside, F::Change], &[G::DurableAcknowledgement]),
        (&[F::NoBeside, F::Duplicate], &[G::NoDuplicates]),
        (&[F::NoBeside, F::Reorder], &[G::Order]),
        (&[F::NoBeside, F::Gap], &[G::ContiguousOffsets]),
        (&[F::NoBeside, F::HideFromFollowers], &[G::ReadersAgree]),
        (&[F::NoBeside, F::ForgetForProofs], &[G::Resume]),
        (
            &[
                F::NoBeside,
                F::UnsafeSettings,
                F::WrongClock,
                F::SmallRecordsOnly,
            ],
            &[G::Settings, G::AppendTime, G::LargestRecord],
        ),
    ];
    let started = Instant::now();
    let tried =
        cases.map(|(faults, expected)| async move { (faults, expected, broken(faults).await) });
    for (faults, expected, rows) in futures::future::join_all(tried).await {
        let found: Vec<Guarantee> = rows.iter().map(|row| row.guarantee).collect();
        let mut expected = [expected, &BESIDE].concat();
        expected.sort_unstable();
        assert_eq!(found, expected, "{faults:?}: {rows:#?}");
        for row in rows {
            println!("{faults:?}: {}: {}", row.guarantee.as_str(), row.found);
            assert!(!row.to_do.is_empty());
        }
    }
    println!("took {:?}", started.elapsed());
}
