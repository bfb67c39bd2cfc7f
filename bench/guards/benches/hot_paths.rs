//! Counts the instructions of the hot paths with Callgrind: the count is the same on every machine,
//! however busy. Each path has a limit; a change that exceeds the limit needs a reason.
//!
//! Invariant: a limit is some three hundredths above the count at the time it was written.
//! Valgrind's processor has no instructions for SHA-256, so where records are hashed, hashing makes
//! up six to seven tenths of the count. Deliberately absent: times (`bench`), and work that waits
//! for a log or a database.

// The macros below generate items without documentation.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use domain::{Customer, Order, Payment};
use engine::command::Request;
use engine::owner::{Action, Entropy, LogAction, NoStore, Now, Owner, OwnerSettings, Submission};
use engine::{Engine, EngineOptions};
use event_log::create::{CreateOptions, create};
use event_log::log::{Appended, Chunk, LogAddress, StoreOptions};
use event_log::record::Record;
use event_log::subscription::{Batch, Follower};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use kernel::registry::{Opaque, Registry};
use kernel::{Decider, TenantId};
use position::{LogId, Offset, Partition};
use projector::{COMMIT_INDEX, Changes, Entry};
use serde_json::json;
use serde_json::value::RawValue;
use tower::ServiceExt;
use uuid::Uuid;

/// How many commands or commits each path takes.
const COUNT: usize = 100;
const PARTITION: Partition = Partition(0);

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut limited = Callgrind::default();
    limited.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(limited);
    config
}

fn shop() -> Registry {
    Registry::new()
        .with::<Customer>()
        .with::<Order>()
        .with::<Payment>()
}

fn order() -> String {
    let brl = |amount: i64| json!({"amount_minor": amount, "currency": "BRL"});
    json!({
        "customer": "customer-7",
        "items": [{
            "line": 1, "product": "p", "seller": "s", "price": brl(2_199), "freight": brl(1_185)
        }],
        "estimated_delivery": "2018-06-28T00:00:00Z",
    })
    .to_string()
}

fn place(number: usize) -> Request {
    let data = RawValue::from_string(order());
    Request {
        tenant: TenantId::default(),
        stream: format!("order-{number:032x}")
            .parse()
            .expect("a stream's name"),
        command: "PlaceOrder".into(),
        schema: None,
        id: format!("place-{number}").parse().expect("a command id"),
        occurred_at: Some("2018-06-04T16:44:48Z".parse().expect("a moment")),
        expected_version: Some(0),
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data: data.expect("JSON"),
    }
}

struct Counting(u128);

impl Entropy for Counting {
    fn bytes(&mut self) -> [u8; 16] {
        self.0 += 1;
        self.0.to_be_bytes()
    }
}

/// An owner, and the log that it owns.
struct World {
    owner: Owner<usize>,
    records: Vec<Record>,
    answered: usize,
}

impl World {
    fn now() -> Now {
        Now {
            wall: "2026-01-01T00:00:00Z".parse().expect("a moment"),
            monotonic_ms: 1,
            boottime_ms: 1,
        }
    }

    /// An owner that owns a new log.
    fn owning() -> Self {
        let settings = OwnerSettings::default();
        let (store, entropy) = (Box::new(NoStore), Box::new(Counting(0)));
        let mut owner = Owner::new(PARTITION, shop(), settings, store, entropy);
        owner.new_log = Some(LogId(Uuid::from_u128(7)));
        owner.start(Offset(0));
        let mut world = Self {
            owner,
            records: Vec::new(),
            answered: 0,
        };
        while !world.owner.takes_commands() {
            assert!(world.perform() > 0, "an owner that goes on");
        }
        world
    }

    /// Does at once what the owner asks for.
    fn perform(&mut self) -> usize {
        let actions = self.owner.take_actions();
        let count = actions.len();
        for action in actions {
            match action {
                Action::Log(LogAction::Append {
                    sequence, record, ..
                }) => {
                    let offset = Offset(self.records.len() as u64);
                    self.records.push(Record::at(offset, record));
                    let appended = Appended {
                        offset: Some(offset),
                        appended_at_ms: None,
                    };
                    self.owner.acknowledged(sequence, appended, Self::now());
                }
                Action::Log(LogAction::Read { from }) => {
                    let from = usize::try_from(from.0).expect("a short log");
                    let records = self.records[from..].to_vec();
                    let chunk = Chunk {
                        partition: PARTITION,
                        next: Offset(self.records.len() as u64),
                        records,
                        at_end: true,
                    };
                    self.owner.read(Ok(chunk), Self::now());
                }
                Action::Log(LogAction::Prove { offset }) => {
                    let end = Offset(self.records.len() as u64);
                    let at = usize::try_from(offset.0).expect("a short log");
                    let found = self.records.get(at).cloned();
                    self.owner.proven(offset, Ok((end, found)));
                }
                Action::Log(LogAction::Peek) => {
                    let end = Offset(self.records.len() as u64);
                    self.owner.peeked(Some(end), Self::now());
                }
                Action::AskOwner => self.owner.owner_answered(Self::now()),
                Action::Answer { answer, .. } => {
                    answer.expect("an accepted command");
                    self.answered += 1;
                }
                Action::Release { .. } => panic!("nobody else owns"),
            }
        }
        count
    }
}

fn owner_and_commands(count: usize) -> (World, Vec<Submission>) {
    let registry = shop();
    let order = registry.get(Order::CATEGORY).expect("an aggregate");
    let submission = |number| {
        let request = place(number);
        let command = order.decode_command(&request.command, request.schema, request.data.get());
        let command = command.expect("a well-formed command");
        Submission { request, command }
    };
    (World::owning(), (0..count).map(submission).collect())
}

#[library_benchmark(config = at_most(13_400_000))]
#[bench::hundred(args = (COUNT), setup = owner_and_commands)]
fn decide_encode_chain_answer((mut world, commands): (World, Vec<Submission>)) -> World {
    for (ticket, submission) in commands.into_iter().enumerate() {
        world.owner.command(submission, ticket, World::now());
        world.perform();
    }
    while world.answered < COUNT {
        world.perform();
    }
    world
}

fn log_of(count: usize) -> Vec<Record> {
    let (world, commands) = owner_and_commands(count);
    decided(world, commands).records
}

fn decided(mut world: World, commands: Vec<Submission>) -> World {
    for (ticket, submission) in commands.into_iter().enumerate() {
        world.owner.command(submission, ticket, World::now());
        world.perform();
    }
    world
}

fn follower_and_records(count: usize) -> (Follower, Registry, Vec<Record>) {
    (Follower::new(PARTITION, None), shop(), log_of(count))
}

#[library_benchmark(config = at_most(8_350_000))]
#[bench::hundred(args = (COUNT), setup = follower_and_records)]
fn verify_decode_fold(
    (mut follower, registry, records): (Follower, Registry, Vec<Record>),
) -> (Batch, Vec<Opaque>) {
    for record in records {
        follower.take(record).expect("a log that is whole");
    }
    let batch = follower.batch().expect("a batch");
    let mut states = Vec::with_capacity(batch.commits.len());
    for placed in &batch.commits {
        let commit = &placed.commit;
        let aggregate = registry.get(commit.stream.category());
        let aggregate = aggregate.expect("an aggregate of the shop");
        let mut state = aggregate.initial().expect("a state of the shop");
        for event in &commit.events {
            let (name, data) = (&event.type_name, event.data.get());
            aggregate
                .evolve_recorded(
                    &mut state,
                    name,
                    event.schema,
                    data,
                    commit.occurred_at(event),
                )
                .expect("an event of the shop");
        }
        states.push(state);
    }
    (batch, states)
}

fn batch_of(count: usize) -> Batch {
    let mut follower = Follower::new(PARTITION, None);
    for record in log_of(count) {
        follower.take(record).expect("a log that is whole");
    }
    follower.batch().expect("a batch")
}

// The hash of each record is computed here, for the one read model that stores it.
#[library_benchmark(config = at_most(9_650_000))]
#[bench::hundred(args = (COUNT), setup = batch_of)]
fn fold_to_rows(batch: Batch) -> (Batch, Vec<Changes>) {
    fold_with(batch, |name| name != COMMIT_INDEX)
}

// It has a row for each commit, with everything that a commit can be found by.
#[library_benchmark(config = at_most(8_700_000))]
#[bench::hundred(args = (COUNT), setup = batch_of)]
fn fold_to_the_index_of_commits(batch: Batch) -> (Batch, Vec<Changes>) {
    fold_with(batch, |name| name == COMMIT_INDEX)
}

fn fold_with(batch: Batch, is_folded: fn(&str) -> bool) -> (Batch, Vec<Changes>) {
    let mut models = projector::with_general(projections::all());
    models.retain(|model| is_folded(model.name()));
    let mut folds: Vec<Changes> = models
        .iter()
        .map(|model| Changes::new(model.tables()))
        .collect();
    for placed in &batch.commits {
        let entry = Entry::new(placed);
        for (model, changes) in models.iter().zip(&mut folds) {
            changes.begin(placed);
            model.project(&entry, changes).expect("rows");
        }
    }
    (batch, folds)
}

/// A door whose write side accepts no commands, and requests for it.
struct Asked {
    runtime: tokio::runtime::Runtime,
    door: Router,
    requests: Vec<axum::extract::Request>,
    _folder: tempfile::TempDir,
}

fn door_and_requests(count: usize) -> Asked {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = LogAddress::Sqlite {
        path: folder.path().join("log.db"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let engine = runtime.block_on(async {
        let options = CreateOptions {
            store: StoreOptions {
                partition_count: 1,
                replication: 1,
            },
            idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
            node: "guard".to_owned(),
        };
        let (log, ..) = create(&address, &options).await.expect("a new log");
        let engine = Engine::start(log, shop(), EngineOptions::alone(None));
        let engine = engine.await.expect("a write side");
        engine.drain(Duration::from_secs(10)).await;
        engine
    });
    let door = door::finish(command_api::router(engine, Default::default()));
    let request = |number| {
        axum::http::Request::post(format!("/v1/streams/order-{number:032x}/PlaceOrder"))
            .header("content-type", "application/json")
            .header("idempotency-key", format!("place-{number}"))
            .header("if-none-match", "*")
            .body(Body::from(order()))
            .expect("a request")
    };
    Asked {
        runtime,
        door,
        requests: (0..count).map(request).collect(),
        _folder: folder,
    }
}

#[library_benchmark(config = at_most(8_350_000))]
#[bench::hundred(args = (COUNT), setup = door_and_requests)]
fn parse_and_turn_away(mut asked: Asked) -> Asked {
    let requests = std::mem::take(&mut asked.requests);
    for request in requests {
        let response = asked.door.clone().oneshot(request);
        let response = asked.runtime.block_on(response).expect("a response");
        assert_eq!(response.status(), 503);
        black_box(response);
    }
    asked
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        decide_encode_chain_answer,
        verify_decode_fold,
        fold_to_rows,
        fold_to_the_index_of_commits,
        parse_and_turn_away
    ]
);

main!(library_benchmark_groups = hot_paths);
