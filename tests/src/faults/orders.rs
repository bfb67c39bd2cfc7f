//! An import of orders while nodes and brokers are killed at random: the read models must be what
//! the files say, as they are when nothing is killed.
//!
//! Invariants: every kill comes while commands wait for their answers; each line counts once.
//! Deliberately absent: what read models must hold (`olist::oracle`).

use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cli::client::{Client, CommandLine, Observer, Outcome, Said, SendOptions};
use cli::import::olist::load::{Contents, load};
use cli::import::olist::plan::Plan;
use engine::audit::verify;
use engine::explained;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::fault::{Fault, Injected, Lengths};
use super::judge::{self, accepted_commands};
use super::scene::{MachineWishes, Projectors, Scene, SceneOptions};
use crate::olist::oracle;

/// What is killed.
const KILLS: [Fault; 2] = [Fault::NodeKill, Fault::BrokerKill];
/// How long the nodes may take to start.
const START_WAIT: Duration = Duration::from_secs(120);
/// How long a client goes on without any progress.
const RETRY_FOR: Duration = Duration::from_secs(120);
/// How many lines a client has on their way at once.
const IN_FLIGHT_MAX: usize = 500;
const POLL: Duration = Duration::from_millis(1);
/// How often what is judged is read again, if it could not be.
const TRIES: usize = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What is imported, and through what.
#[derive(Clone, Debug)]
pub struct OrdersOptions {
    /// The program under test.
    pub program: PathBuf,
    /// Where everything goes that shows what happened.
    pub artefacts: PathBuf,
    /// Decides what is killed, and when.
    pub seed: u64,
    /// The folder with the files of the orders.
    pub folder: PathBuf,
    /// How many nodes and brokers are killed; 0 for a quiet import.
    pub kills: usize,
    /// How many partitions.
    pub partitions: u32,
    /// How many nodes.
    pub nodes: usize,
    /// The session timeout of the nodes' group.
    pub session_timeout: Duration,
    /// What nodes log, as in `RUST_LOG`.
    pub log_filter: String,
    /// More arguments for every node.
    pub arguments: Vec<String>,
}

/// What came of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Commands that were sent, each once however often.
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

/// How far the import is, over all clients.
#[derive(Default)]
struct Progress {
    /// Lines that may be sent, so that the import does not end before the last kill.
    allowed: AtomicU64,
    sent: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn open(&self) -> u64 {
        let sent = self.sent.load(Ordering::SeqCst);
        sent.saturating_sub(self.done())
    }
}

struct Counting(Arc<Progress>);

impl Observer for Counting {
    fn done(&mut self, _: &CommandLine, said: Said) {
        if matches!(said.outcome, Outcome::Failed { .. }) {
            self.0.failed.fetch_add(1, Ordering::SeqCst);
        }
        self.0.done.fetch_add(1, Ordering::SeqCst);
    }

    fn waiting(&mut self, _: usize, _: &str, _: Duration) {}
}

/// Imports through all nodes, each line's stream through one of them, and judges what came of it.
///
/// # Panics
/// If what it runs against cannot be started, or the folder holds no orders.
pub async fn import(options: OrdersOptions) -> Imported {
    let scene = Scene::set(&SceneOptions {
        program: options.program.clone(),
        artefacts: options.artefacts.clone(),
        nodes: options.nodes,
        partitions: options.partitions,
        session_timeout: options.session_timeout,
        projectors: Projectors::Everywhere,
        machine: MachineWishes::default(),
        log_filter: options.log_filter.clone(),
        arguments: options.arguments.clone(),
    })
    .await;
    let supervising = scene.supervise();
    scene.ready(START_WAIT).await.expect("nodes that are ready");
    let contents = Contents::of_folder(&options.folder).expect("files of orders");
    let plan = Plan::new(load(&contents).expect("files that can be read"), None);
    let lines: Vec<CommandLine> = plan.lines().collect();
    let mut imported = Imported {
        commands: lines.len() as u64,
        ..Imported::default()
    };
    let progress = Arc::new(Progress::default());
    let began = Instant::now();
    let clients = send(&scene, lines, &progress);
    kill(&scene, &options, &progress, &mut imported).await;
    for sent in clients.join_all().await {
        imported.violations.extend(sent.err());
    }
    imported.took = began.elapsed();
    let failed = progress.failed.load(Ordering::SeqCst);
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

/// One client for each node.
fn send(
    scene: &Scene,
    lines: Vec<CommandLine>,
    progress: &Arc<Progress>,
) -> JoinSet<Result<(), String>> {
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
        let counted = Arc::clone(progress);
        let source = futures::stream::unfold(share.into_iter(), move |mut share| {
            let progress = Arc::clone(&counted);
            async move {
                let (number, line) = share.next()?;
                while number >= progress.allowed.load(Ordering::SeqCst) {
                    tokio::time::sleep(POLL).await;
                }
                progress.sent.fetch_add(1, Ordering::SeqCst);
                Some((Ok(line), share))
            }
        });
        let observer = Arc::clone(progress);
        clients.spawn(async move {
            let client = Client::new(options).map_err(|error| error.to_string())?;
            let mut counting = Counting(observer);
            let sent = client.send(Box::pin(source), &mut counting).await;
            sent.map_err(|error| format!("{}: {error}", door.name))
        });
    }
    clients
}

/// Kills at random moments of the import; no line behind a moment is sent before its kill.
async fn kill(
    scene: &Arc<Scene>,
    options: &OrdersOptions,
    progress: &Progress,
    imported: &mut Imported,
) {
    let mut random = StdRng::seed_from_u64(options.seed);
    let lines = imported.commands;
    let mut moments: Vec<u64> = (0..options.kills)
        .map(|_| random.random_range(0..lines * 9 / 10))
        .collect();
    moments.sort_unstable();
    // Of what may be sent, so much stays unanswered at a moment.
    let ahead = (IN_FLIGHT_MAX * scene.nodes.len() / 2) as u64;
    for moment in moments {
        let allowed = progress.done().max(moment) + ahead;
        progress.allowed.store(allowed, Ordering::SeqCst);
        let deadline = Instant::now() + RETRY_FOR;
        while progress.done() < moment {
            if Instant::now() > deadline {
                let what = format!("{} of {moment} lines in {RETRY_FOR:?}", progress.done());
                return imported.violations.push(what);
            }
            tokio::time::sleep(POLL).await;
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
    progress.allowed.store(u64::MAX, Ordering::SeqCst);
}

/// Tries again what fails: brokers that have just come back may not answer at once.
async fn patiently<T, E>(attempt: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..TRIES {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
    attempt().await
}

/// Holds the log against the lines, and the read models against the files.
async fn judge_all(
    scene: &Arc<Scene>,
    options: &OrdersOptions,
    imported: &mut Imported,
) -> Result<(), String> {
    let whole = Arc::clone(scene);
    let whole = tokio::task::spawn_blocking(move || whole.cluster.wait_whole());
    whole.await.expect("brokers that come back in sync");
    let report = patiently(async || verify(&*scene.log, &[], |_, _| {}).await).await;
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
