//! Several nodes on one log in Kafka: every command gets one answer, whichever node it reaches, and
//! partitions change owners without loss, duplicates or a change of order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::Engine;
use engine::command::{Became, Decision, Request, SubmitError};
use engine::peers::PeerService;
use event_log::log::EventLog;
use event_log::record::{self, RECORD_VERSION};
use event_log::subscription::Subscription;
use kernel::TenantId;
use position::Partition;
use serde_json::json;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::nodes::{InProcessNode, Network};
use tests::harness::unique_name;

use crate::raw_log::read_all;
use crate::write_side::{place, request, shop};

const PARTITIONS: u32 = 6;
/// How soon the group notices a crash.
const SESSION_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For tests without a crash: on a slow machine, no node should be taken for dead.
const LONG_SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// A long limit: on a machine that runs other tests, a slow result says little, but a missing one
/// is a fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a command waits for its answer. This is less than the long session, so that a partition
/// that is not handed over leaves commands unanswered.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

struct Scene {
    log: NewLog,
    network: Arc<Network>,
    group: String,
    session_timeout: Duration,
    nodes: Vec<InProcessNode>,
}

impl Scene {
    async fn of(count: usize) -> Self {
        Self::with_sessions(LONG_SESSION_TIMEOUT, count).await
    }

    async fn with_sessions(session_timeout: Duration, count: usize) -> Self {
        let mut scene = Self {
            log: NewLog::make(Kind::Kafka, PARTITIONS).await,
            network: Arc::default(),
            group: unique_name("nodes"),
            session_timeout,
            nodes: Vec::new(),
        };
        for number in 0..count {
            scene.add(&format!("n{number}")).await;
        }
        scene.until_all_own(count).await;
        scene
    }

    async fn add(&mut self, name: &str) {
        self.add_of_format(name, RECORD_VERSION).await;
    }

    async fn add_of_format(&mut self, name: &str, record_version_max: u16) {
        let address = self.log.address.clone();
        let node = InProcessNode::start(
            name,
            &self.network,
            async || event_log::log::open(&address).await.unwrap(),
            shop(),
            &self.group,
            self.session_timeout,
            record_version_max,
        )
        .await;
        self.nodes.push(node);
    }

    fn owned(&self) -> Vec<usize> {
        let owned = self.nodes.iter().map(|node| node.engine.owned().len());
        owned.collect()
    }

    /// Waits until each of `count` nodes owns a partition, and every partition has one owner.
    async fn until_all_own(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let owned = self.owned();
            let whole = owned.iter().sum::<usize>() == PARTITIONS as usize;
            if whole && owned.iter().filter(|count| **count > 0).count() == count {
                return;
            }
            assert!(Instant::now() < deadline, "{owned:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn engines(&self) -> Vec<Engine> {
        self.nodes.iter().map(|node| node.engine.clone()).collect()
    }

    async fn leave(&mut self, name: &str) {
        let mut nodes = self.nodes.iter();
        let index = nodes.position(|node| node.name == name).unwrap();
        let mut leaving = self.nodes.remove(index);
        leaving.leave(Duration::from_secs(10)).await;
    }

    /// The record formats that the claims of each partition announce.
    async fn announced(&self) -> Vec<Vec<u16>> {
        let mut announced = Vec::new();
        for partition in (0..PARTITIONS).map(Partition) {
            let records = read_all(&*self.log.log, partition).await;
            let versions = records
                .iter()
                .filter_map(|record| match record::Kind::of(record) {
                    record::Kind::Claim(claim) => Some(claim.version),
                    record::Kind::Commit(_) | record::Kind::Foreign => None,
                });
            announced.push(versions.collect());
        }
        announced
    }

    /// The commits of each stream: the command id, and the version after the commit.
    async fn log_says(&self) -> BTreeMap<String, Vec<(String, u64)>> {
        let partitions = (0..PARTITIONS).map(|number| (Partition(number), None));
        let log: Arc<dyn EventLog> = Arc::clone(&self.log.log);
        let mut subscription = Subscription::new(log, partitions.collect());
        let mut streams: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        let mut silent = 0;
        while silent < 3 {
            let batches = subscription.next(Duration::from_millis(300)).await.unwrap();
            silent = if batches.is_empty() { silent + 1 } else { 0 };
            for batch in batches {
                for placed in batch.commits {
                    let commit = placed.commit;
                    let commits = streams.entry(commit.stream.to_string()).or_default();
                    commits.push((commit.command.id.to_string(), commit.version()));
                }
            }
        }
        streams
    }
}

/// Clients that place orders, each in a stream of its own, and retry until they get an answer.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    unanswered: Arc<AtomicU64>,
    longest_ms: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(engines: &[Engine]) -> Self {
        Self::named("c", engines)
    }

    /// Clients whose command ids begin with `name`.
    fn named(name: &'static str, engines: &[Engine]) -> Self {
        let load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            unanswered: Arc::default(),
            longest_ms: Arc::default(),
            clients: Vec::new(),
        };
        let clients = (0..6).map(|client| {
            let engines = engines.to_vec();
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let unanswered = Arc::clone(&load.unanswered);
            let longest_ms = Arc::clone(&load.longest_ms);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("{name}{client}-{number}");
                    let stream = format!("order-{id}");
                    let request = request(&stream, "PlaceOrder", &id, &place());
                    let began = Instant::now();
                    let mut turn: usize = client + number;
                    loop {
                        let engine = &engines[turn % engines.len()];
                        match once(engine, request.clone()).await {
                            Ok(()) => break,
                            Err(error) => {
                                println!("{id} after {:?}: {error}", began.elapsed());
                                unanswered.fetch_add(1, Ordering::SeqCst);
                                turn += 1;
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        }
                    }
                    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                    longest_ms.fetch_max(took, Ordering::SeqCst);
                    answered.fetch_add(1, Ordering::SeqCst);
                    ids.push(id);
                }
                ids
            })
        });
        let clients = clients.collect();
        Self { clients, ..load }
    }

    async fn until(&self, answered: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.answered.load(Ordering::SeqCst) < answered {
            assert!(Instant::now() < deadline, "the clients wait too long");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn goes_on(&self) {
        let now = self.answered.load(Ordering::SeqCst);
        self.until(now + 300).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut ids = Vec::new();
        for client in self.clients {
            ids.extend(client.await.unwrap());
        }
        ids
    }
}

async fn once(engine: &Engine, request: Request) -> Result<(), SubmitError> {
    let command = engine.prepare(request).unwrap();
    let answer = engine.submit(command, Instant::now() + ANSWER_WAIT).await?;
    assert!(matches!(answer.decision, Decision::Accepted(_)));
    Ok(())
}

fn assert_each_once(streams: &BTreeMap<String, Vec<(String, u64)>>, ids: &[String]) {
    for id in ids {
        let commits = &streams[&format!("order-{id}")];
        assert_eq!(commits, &[(id.clone(), 1)], "answered, so it is there once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_partitions_and_any_of_them_answers() {
    let scene = Scene::of(3).await;
    let load = Load::begin(&scene.engines());
    load.goes_on().await;
    assert_eq!(load.unanswered.load(Ordering::SeqCst), 0);
    let ids = load.end().await;
    assert_each_once(&scene.log_says().await, &ids);
    for (number, id) in ids.iter().enumerate().take(30) {
        let engine = &scene.nodes[number % 3].engine;
        let stream = format!("order-{id}").parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let tenant = TenantId::default();
        let id = id.parse().unwrap();
        let outcome = engine.outcome(&tenant, &stream, &id, deadline);
        let became = outcome.await.unwrap();
        assert!(
            matches!(became, Became::Answered(_)),
            "{id}, asked anywhere"
        );
        let unheard = "never-sent".parse().unwrap();
        let outcome = engine.outcome(&tenant, &stream, &unheard, deadline);
        let became = outcome.await.unwrap();
        assert!(matches!(became, Became::NotInLog { .. }), "{became:?}");
    }
    for node in &scene.nodes {
        let topology = node.engine.topology();
        assert_eq!(topology.owners.len(), PARTITIONS as usize, "{topology:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_fails_no_command() {
    let mut scene = Scene::of(3).await;
    let load = Load::begin(&scene.engines()[..2]);
    load.goes_on().await;
    let mut leaving = scene.nodes.pop().unwrap();
    let began = Instant::now();
    leaving.leave(Duration::from_secs(10)).await;
    let took = began.elapsed();
    load.goes_on().await;
    scene.until_all_own(2).await;
    let longest_ms = load.longest_ms.load(Ordering::SeqCst);
    println!("left in {took:?}; the longest answer took {longest_ms} ms");
    assert_eq!(load.unanswered.load(Ordering::SeqCst), 0);
    let ids = load.end().await;
    assert_each_once(&scene.log_says().await, &ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_crashes_is_replaced_once_the_group_notices() {
    let mut scene = Scene::with_sessions(SESSION_TIMEOUT, 3).await;
    let load = Load::begin(&scene.engines()[..2]);
    load.goes_on().await;
    let mut crashing = scene.nodes.pop().unwrap();
    let began = Instant::now();
    crashing.crash();
    scene.until_all_own(2).await;
    let took = began.elapsed();
    load.goes_on().await;
    println!("all partitions owned again {took:?} after the crash");
    assert!(took < SESSION_TIMEOUT + Duration::from_secs(5), "{took:?}");
    let ids = load.end().await;
    assert_each_once(&scene.log_says().await, &ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_node_by_node_goes_on_in_the_old_format_until_the_last_old_one_has_left() {
    const NEXT: u16 = RECORD_VERSION + 1;
    let mut scene = Scene::of(2).await;
    let load = Load::begin(&scene.engines()[..1]);
    load.goes_on().await;
    scene.leave("n1").await;
    scene.add_of_format("m1", NEXT).await;
    scene.until_all_own(2).await;
    load.goes_on().await;
    assert_eq!(load.unanswered.load(Ordering::SeqCst), 0);
    let ids = load.end().await;
    // The new node owns partitions, and a reader of the old format still reads everything.
    assert_each_once(&scene.log_says().await, &ids);
    let announced = scene.announced().await;
    assert!(
        announced.iter().flatten().all(|v| *v == RECORD_VERSION),
        "{announced:?}"
    );

    let load = Load::named("late", &scene.engines()[1..]);
    load.goes_on().await;
    scene.leave("n0").await;
    load.goes_on().await;
    assert_eq!(load.unanswered.load(Ordering::SeqCst), 0);
    load.end().await;

    scene.add_of_format("m2", NEXT).await;
    scene.until_all_own(2).await;
    let announced = scene.announced().await;
    assert!(
        announced.iter().flatten().any(|v| *v == NEXT),
        "{announced:?}"
    );

    // An old node that comes too late reports what to do, and forwards its clients' commands.
    scene.add("n0").await;
    let late = &scene.nodes[2].engine;
    let deadline = Instant::now() + PATIENCE;
    let why = loop {
        match late.readiness() {
            Err(why) if why.contains("upgrade it") => break why,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("{why}");
    let late = late.clone();
    scene.leave("m1").await;
    // The old node takes no partition from the group, so that every partition keeps an owner.
    let deadline = Instant::now() + PATIENCE;
    while scene.nodes[0].engine.owned().len() < PARTITIONS as usize {
        assert!(Instant::now() < deadline, "{:?}", scene.owned());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let load = Load::named("last", &[late]);
    load.goes_on().await;
    assert_eq!(load.unanswered.load(Ordering::SeqCst), 0);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_keeps_the_order_of_its_streams_while_partitions_move() {
    let mut scene = Scene::of(2).await;
    let engine = scene.nodes[0].engine.clone();
    let streams = 40;
    let steps = ["PlaceOrder", "ApproveOrder", "InvoiceOrder", "ShipOrder"];
    let sending = tokio::spawn(async move {
        let deadline = || Instant::now() + Duration::from_secs(20);
        let mut batch = engine.batch();
        let mut pending = Vec::new();
        for step in steps {
            for stream in 0..streams {
                let data = if step == "PlaceOrder" {
                    place()
                } else {
                    json!({})
                };
                let id = format!("{step}-{stream}");
                let request = request(&format!("order-{stream}"), step, &id, &data);
                let command = engine.prepare(request).unwrap();
                pending.push(batch.submit(command, deadline()).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let mut refused = Vec::new();
        for answer in pending {
            let answer = answer.await.expect("an answer");
            if !matches!(answer.decision, Decision::Accepted(_)) {
                refused.push(format!("{answer:?}"));
            }
        }
        refused
    });
    scene.add("n2").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut leaving = scene.nodes.remove(1);
    leaving.leave(Duration::from_secs(10)).await;
    let refused = sending.await.unwrap();
    assert_eq!(
        refused, [""; 0],
        "no step came before the one that it needs"
    );
}
