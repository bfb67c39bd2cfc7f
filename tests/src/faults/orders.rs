//! An import of orders while nodes and brokers are killed at random. Afterwards the read models
//! must hold what the files say, as after an import without kills.
//!
//! Invariants: at every kill, some commands wait for their answers; each line counts once.
//! Deliberately absent: what read models must hold (`olist::oracle`).

use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{BatchClient, CommandLine, SendOptions};
use event_log::verify::verify;
use import::Listing;
use kernel::explained;
use kernel::registry::Registry;
use olist::load::{Contents, load};
use olist::plan::Plan;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::fault::{Fault, Injected, Lengths};
use super::judge::{self, accepted_commands};
use super::scene::{Scene, SceneOptions};
use crate::harness::import::{CountingOutcomes, ImportProgress};
use crate::olist::oracle;

/// The faults that are injected.
const KILLS: [Fault; 2] = [Fault::NodeKill, Fault::BrokerKill];
/// How long a client retries without any progress.
const RETRY_FOR: Duration = Duration::from_secs(120);
/// How many lines a client may have in flight.
const IN_FLIGHT_MAX: usize = 500;
const POLL: Duration = Duration::from_millis(1);
/// How many more lines may be sent if all were answered before the kill.
const ONCE_MORE: u64 = 8;
/// How often a failed read for the judgement is tried again.
const TRIES: usize = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What is imported, and on what.
#[derive(Clone, Debug)]
pub struct OrdersOptions {
    /// The processes that run.
    pub scene: SceneOptions,
    /// Decides what is killed, and when.
    pub seed: u64,
    /// The folder with the files of the orders.
    pub folder: PathBuf,
    /// How many nodes and brokers are killed; 0 for a quiet import.
    pub kills: usize,
}

/// The result of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Commands; each counts once, however often it was sent.
    pub commands: u64,
    /// Nodes that were killed.
    pub nodes_killed: u64,
    /// Brokers that were killed.
    pub brokers_killed: u64,
    /// The fewest commands that waited for their answers when something was killed.
    pub open_at_least: Option<u64>,
    /// From the first line to the last answer.
    pub took: Duration,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// The progress of the import, and its limit.
#[derive(Default)]
struct Gate {
    /// How many lines may be sent: the limit keeps the import from ending before the last kill.
    allowed: AtomicU64,
    /// Notified when a line was sent.
    sent: Notify,
    progress: Arc<ImportProgress>,
}

/// Imports through all nodes, each stream through one of them, and judges the result.
///
/// # Panics
/// If a process cannot be started, or the folder holds no orders.
pub async fn import(options: OrdersOptions) -> Imported {
    let (scene, supervising) = Scene::begin(&options.scene).await;
    let contents = Contents::of_folder(&options.folder).expect("files of orders");
    let plan = Plan::new(
        load(&contents, Listing::default()).expect("files that can be read"),
        None,
    );
    let lines: Vec<CommandLine> = plan.lines().collect();
    let mut imported = Imported {
        commands: lines.len() as u64,
        ..Imported::default()
    };
    let gate = Arc::new(Gate::default());
    let began = Instant::now();
    let clients = send(&scene, lines, &gate);
    kill(&scene, &options, &gate, &mut imported).await;
    for sent in clients.join_all().await {
        imported.violations.extend(sent.err());
    }
    imported.took = began.elapsed();
    let failed = gate.progress.failed();
    if failed > 0 {
        let what = format!("{failed} commands failed for good");
        imported.violations.push(what);
    }
    for node in &scene.nodes {
        for end in node.ends().iter().filter(|end| end.is_a_fault()) {
            imported.violations.push(format!("{} {end}", node.name));
        }
    }
    if let Err(error) = judge_all(&scene, &options, &mut imported).await {
        imported.violations.push(format!("not judged: {error}"));
    }
    supervising.abort();
    imported
}

#[derive(Deserialize)]
struct OfStream {
    stream: String,
}

/// Starts one client for each node.
fn send(scene: &Scene, lines: Vec<CommandLine>, gate: &Arc<Gate>) -> JoinSet<Result<(), String>> {
    let doors = scene.doors();
    let mut shares = vec![Vec::new(); doors.len()];
    for (number, line) in (0_u64..).zip(lines) {
        let of: OfStream = serde_json::from_str(&line.json).expect("a line names its stream");
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of.stream);
        shares[hash as usize % doors.len()].push((number, line));
    }
    let mut clients = JoinSet::new();
    for (door, share) in doors.into_iter().zip(shares) {
        let options = SendOptions {
            retry_for: RETRY_FOR,
            in_flight_max: IN_FLIGHT_MAX,
            ..SendOptions::to(door.url)
        };
        let before = Arc::clone(gate);
        let source = futures::stream::unfold(share.into_iter(), move |mut share| {
            let gate = Arc::clone(&before);
            async move {
                let (number, line) = share.next()?;
                while number >= gate.allowed.load(Ordering::SeqCst) {
                    tokio::time::sleep(POLL).await;
                }
                gate.progress.note_sent();
                gate.sent.notify_one();
                Some((Ok(line), share))
            }
        });
        let mut counting = CountingOutcomes(Arc::clone(&gate.progress));
        clients.spawn(async move {
            let client = BatchClient::new(options).map_err(|error| error.to_string())?;
            let sent = client.send(Box::pin(source), &mut counting).await;
            sent.map_err(|error| format!("{}: {error}", door.name))
        });
    }
    clients
}

/// Kills at random moments of the import; lines behind a moment are sent only after its kill.
async fn kill(scene: &Arc<Scene>, options: &OrdersOptions, gate: &Gate, imported: &mut Imported) {
    let mut random = StdRng::seed_from_u64(options.seed);
    let lines = imported.commands;
    // What one kill lets through, and the last moment: together fewer than all lines, so that no
    // kill comes after the end.
    let ahead = (lines / 2 / (options.kills as u64 + 1)).max(1);
    let mut moments: Vec<u64> = (0..options.kills)
        .map(|_| random.random_range(0..lines / 2))
        .collect();
    moments.sort_unstable();
    for moment in moments {
        let progress = &gate.progress;
        let allowed = progress.done().max(moment) + ahead;
        gate.allowed.store(allowed, Ordering::SeqCst);
        let deadline = Instant::now() + RETRY_FOR;
        while progress.done() < moment || progress.open() == 0 {
            if Instant::now() > deadline {
                let what = format!("{} of {moment} lines in {RETRY_FOR:?}", progress.done());
                imported.violations.push(what);
                // The clients report the rest.
                gate.allowed.store(u64::MAX, Ordering::SeqCst);
                return;
            }
            if progress.done() >= gate.allowed.load(Ordering::SeqCst) {
                let allowed = progress.done() + ONCE_MORE;
                gate.allowed.store(allowed, Ordering::SeqCst);
            }
            // Right after a line is sent, a command waits for its answer.
            let _ = tokio::time::timeout(POLL, gate.sent.notified()).await;
        }
        let fault = KILLS[random.random_range(0..KILLS.len())];
        let open = progress.open();
        if fault.inject(scene, &Lengths::BRIEF, &mut random).await != Injected::Made {
            continue;
        }
        match fault {
            Fault::NodeKill => imported.nodes_killed += 1,
            _ => imported.brokers_killed += 1,
        }
        let least = imported.open_at_least.unwrap_or(u64::MAX);
        imported.open_at_least = Some(least.min(open));
        let kills = imported.nodes_killed + imported.brokers_killed;
        eprintln!(
            "kill {kills}: {fault}, {} of {lines} lines",
            progress.done()
        );
    }
    gate.allowed.store(u64::MAX, Ordering::SeqCst);
}

/// Retries a failed attempt: brokers that have just restarted may not answer at once.
async fn patiently<T, E>(attempt: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..TRIES {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
    attempt().await
}

/// Compares the log with the lines, and the read models with the files.
async fn judge_all(
    scene: &Arc<Scene>,
    options: &OrdersOptions,
    imported: &mut Imported,
) -> Result<(), String> {
    let whole = Arc::clone(scene);
    let whole = tokio::task::spawn_blocking(move || whole.cluster.wait_whole());
    whole.await.expect("brokers that come back in sync");
    let shop = Registry::new()
        .with::<domain::Customer>()
        .with::<domain::Order>()
        .with::<domain::Payment>();
    let report = patiently(async || verify(&*scene.log, &shop, &[], |_, _| {}).await).await;
    let report = report.map_err(|error| explained(&error))?;
    if !report.is_clean() {
        imported.violations.push(format!("the log: {report:?}"));
    }
    let accepted = patiently(async || accepted_commands(&scene.log).await).await?;
    let (lines, counted) = (imported.commands, accepted.len() as u64);
    if counted != lines {
        let what = format!("{counted} commands count, {lines} were answered");
        imported.violations.push(what);
    }
    let url = scene.postgres_url.as_ref().expect("nodes project");
    judge::caught_up(&scene.log, url).await?;
    let compare = async {
        let pool = PgPool::connect(url).await?;
        oracle::load(&pool, &options.folder).await?;
        let differences = oracle::compare(&pool).await?;
        pool.close().await;
        Ok(differences)
    };
    let differences = compare
        .await
        .map_err(|error: sqlx::Error| error.to_string())?;
    let shown = differences.iter().map(ToString::to_string);
    imported.violations.extend(shown);
    Ok(())
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} commands in {:.1} s; {} nodes and {} brokers killed, {} commands open at the least",
            self.commands,
            self.took.as_secs_f64(),
            self.nodes_killed,
            self.brokers_killed,
            self.open_at_least.unwrap_or_default(),
        )?;
        writeln!(
            f,
            "read models held against the files: {}",
            oracle::MODELS.map(|(name, _)| name).join(", ")
        )?;
        writeln!(f, "violations: {}", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        Ok(())
    }
}
