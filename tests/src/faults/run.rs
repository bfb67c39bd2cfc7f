//! A run: rounds of faults under load, each followed by a quiet time, and a judgement at the end.
//!
//! Invariants: the seed decides every choice (not how the processes react to it); a run that finds
//! a violation reports it and keeps the evidence. Deliberately absent: what a fault does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kernel::Timestamp;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::fault::{Fault, Injected, Lengths};
use super::history::History;
use super::judge;
use super::load::{Counted, Load, LoadOptions};
use super::scene::{MachineWishes, NodeEnd, Projectors, Scene, SceneOptions};

/// Within this time after the last fault of a round, everything must work again, on a machine that
/// nothing else uses.
pub const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// How long a run waits for a late recovery, to tell late from never.
const RECOVERY_GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// How long the load must then pass without trouble.
const CALM: Duration = Duration::from_secs(1);
/// The memory of the default configuration, and a quarter more.
pub const MEMORY_MAX_MB: u32 = 640;
/// Room for the local checkpoint store with all its journals (three of 64 MB), and for its tables.
const DISK_MB: u32 = 2_048;

/// What a run does.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program under test.
    pub program: PathBuf,
    /// The folder for everything that shows what happened.
    pub artefacts: PathBuf,
    /// Decides every choice.
    pub seed: u64,
    /// The run ends after the round in which one of these is reached.
    pub until: Until,
    /// The faults that may happen.
    pub faults: Vec<Fault>,
    /// How many faults may happen at the same time.
    pub at_once: usize,
    /// How long faults go on before the quiet end of a round.
    pub round: Duration,
    /// How long each fault lasts.
    pub lengths: Lengths,
    /// Within this time after the last fault of a round, everything must work again.
    pub recovery_max: Duration,
    /// How many clients.
    pub clients: usize,
    /// The greatest number of commands per second, over all clients.
    pub commands_per_second_max: u32,
    /// How many partitions.
    pub partitions: u32,
    /// How many nodes.
    pub nodes: usize,
    /// The session timeout of the nodes' group.
    pub session_timeout: Duration,
    /// The nodes' log filter, as in `RUST_LOG`.
    pub log_filter: String,
    /// More arguments for every node.
    pub arguments: Vec<String>,
}

impl RunOptions {
    /// All faults, two at a time, for about a minute.
    #[must_use]
    pub fn brief(program: PathBuf, artefacts: PathBuf, seed: u64) -> Self {
        Self {
            program,
            artefacts,
            seed,
            until: Until {
                time: Duration::from_secs(60),
                commands: None,
                injections: None,
            },
            faults: Fault::ALL.to_vec(),
            at_once: 2,
            round: Duration::from_secs(25),
            lengths: Lengths::BRIEF,
            recovery_max: RECOVERY_MAX,
            clients: 24,
            commands_per_second_max: 400,
            partitions: 12,
            nodes: 3,
            session_timeout: Duration::from_secs(2),
            log_filter: "info".to_owned(),
            arguments: Vec::new(),
        }
    }
}

/// When a run ends: at the first of these limits.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// The length of the run.
    pub time: Duration,
    /// The number of commands.
    pub commands: Option<u64>,
    /// The number of faults.
    pub injections: Option<u64>,
}

/// What is known about one kind of fault.
#[derive(Clone, Debug, Default)]
pub struct FaultCounts {
    /// How often the fault was made.
    pub made: u64,
    /// How often its victim was broken already.
    pub busy: u64,
    /// Why this machine does not allow the fault, if that is so.
    pub impossible: Option<String>,
    /// Commands answered during the fault.
    pub answered: u64,
    /// Attempts with an unknown outcome during the fault.
    pub unknown: u64,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The options of the run.
    pub options: RunOptions,
    /// How long the run took, without start and judgement.
    pub took: Duration,
    /// Counts for each fault.
    pub faults: BTreeMap<Fault, FaultCounts>,
    /// Counts of the load.
    pub counted: Counted,
    /// How long each round took to recover.
    pub recoveries: Vec<Duration>,
    /// The checker's report; absent if the checker could not run.
    pub report: Option<checker::Report>,
    /// How many rows were compared with a fold of the log.
    pub rows: usize,
    /// The peak memory of each node, in kilobytes.
    pub memory_peaks_kb: Vec<(String, u64)>,
    /// Nodes that ended in an unexpected way.
    pub ends: Vec<(String, NodeEnd)>,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// State that the workers of a run share.
struct Mix {
    scene: Arc<Scene>,
    options: RunOptions,
    /// Kinds of faults that come before any repeats, so that none is left out.
    bag: Mutex<Vec<Fault>>,
    counts: Mutex<BTreeMap<Fault, FaultCounts>>,
    made: AtomicU64,
    /// Which fault happened when, for the study of a failed run.
    timeline: Mutex<File>,
}

/// Runs rounds of faults, and judges the result.
///
/// # Panics
/// If a process cannot be started.
pub async fn run(options: RunOptions) -> Outcome {
    let (scene, supervising) = Scene::begin(&scene_options(&options)).await;
    let history_path = options.artefacts.join("history.jsonl");
    let history = History::begin(&history_path).expect("a folder of ours can be written to");
    let load_options = LoadOptions {
        clients: options.clients,
        commands_per_second_max: options.commands_per_second_max,
        nodes: scene.doors(),
        seed: options.seed,
    };
    let load = Load::begin(load_options, Arc::new(history));
    let timeline = File::create(options.artefacts.join("faults.txt"));
    let timeline = Mutex::new(timeline.expect("a folder of ours can be written to"));
    let mix = Arc::new(Mix {
        scene: Arc::clone(&scene),
        options: options.clone(),
        bag: Mutex::default(),
        counts: Mutex::default(),
        made: AtomicU64::new(0),
        timeline,
    });
    let began = Instant::now();
    let mut violations = Vec::new();
    let mut recoveries = Vec::new();
    let load = Arc::new(load);
    for round in 0.. {
        mix.round(round, &load).await;
        let late = async {
            tokio::time::sleep(options.recovery_max).await;
            let moment = format!("late-in-round-{round}");
            scene.save_words(&options.artefacts, &moment).await;
            std::future::pending().await
        };
        let recovered = tokio::select! {
            recovered = recover(&load, options.recovery_max) => recovered,
            () = late => unreachable!("it waits for ever"),
        };
        match recovered {
            Ok(took) => recoveries.push(took),
            Err(violation) => {
                let is_over = violation.is_final;
                violations.push(format!("round {round}: {}", violation.what));
                recoveries.push(violation.took);
                if is_over {
                    break;
                }
            }
        }
        let counted = load.counts();
        eprintln!(
            "round {round}: {} faults, {} commands, {} unknown, recovered in {:.1} s",
            mix.made.load(Ordering::SeqCst),
            counted.answered,
            counted.unknown,
            recoveries.last().map_or(0.0, Duration::as_secs_f64),
        );
        if is_long_enough(&options.until, began.elapsed(), &counted, &mix.made) {
            break;
        }
    }
    let took = began.elapsed();
    let load = Arc::into_inner(load).expect("the workers have ended");
    let counted = load.stop(options.recovery_max).await;
    if counted.open() > 0 {
        violations.push(format!("{} commands were never answered", counted.open()));
    }
    if counted.failed > 0 {
        violations.push(format!("{} commands failed for good", counted.failed));
    }
    let mut outcome = Outcome {
        took,
        faults: mix.counts().clone(),
        counted,
        recoveries,
        report: None,
        rows: 0,
        memory_peaks_kb: Vec::new(),
        ends: Vec::new(),
        violations,
        options,
    };
    judge_all(&scene, &mut outcome, history_path).await;
    supervising.abort();
    outcome
}

fn scene_options(options: &RunOptions) -> SceneOptions {
    let has = |fault| options.faults.contains(&fault);
    SceneOptions {
        program: options.program.clone(),
        artefacts: options.artefacts.clone(),
        nodes: options.nodes,
        partitions: options.partitions,
        session_timeout: options.session_timeout,
        projectors: Projectors::Everywhere,
        machine: MachineWishes {
            disk_mb: has(Fault::DiskFull).then_some(DISK_MB),
            // The tmpfs disk counts as the node's memory.
            memory_mb: has(Fault::MemoryShort)
                .then_some(MEMORY_MAX_MB + if has(Fault::DiskFull) { DISK_MB } else { 0 }),
            clock: has(Fault::ClockJump),
            network: has(Fault::PacketsFromNode)
                || has(Fault::PacketsToNode)
                || has(Fault::PacketsBothWays),
        },
        log_filter: options.log_filter.clone(),
        arguments: options.arguments.clone(),
    }
}

fn wall_clock() -> Timestamp {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or_default()
}

fn is_long_enough(until: &Until, took: Duration, counted: &Counted, made: &AtomicU64) -> bool {
    let made = made.load(Ordering::SeqCst);
    took >= until.time
        || until.commands.is_some_and(|most| counted.answered >= most)
        || until.injections.is_some_and(|most| made >= most)
}

/// A round that did not recover in time.
struct NotRecovered {
    what: String,
    took: Duration,
    is_final: bool,
}

/// Waits until every open command is answered, and then until new commands are answered, too.
async fn recover(load: &Load, within: Duration) -> Result<Duration, NotRecovered> {
    let began = Instant::now();
    let late = |what: String, is_final: bool| NotRecovered {
        what,
        took: began.elapsed(),
        is_final,
    };
    let settled = load.settle(RECOVERY_GIVEN_UP_AFTER).await;
    let settled = settled.map_err(|open| {
        let what = format!("{open} commands are open {RECOVERY_GIVEN_UP_AFTER:?} after the faults");
        late(what, true)
    })?;
    if settled > within {
        let what = format!("it took {settled:?} until everything was answered");
        return Err(late(what, false));
    }
    tokio::time::sleep(CALM).await;
    match load.settle(within).await {
        Ok(_) => Ok(settled),
        Err(open) => Err(late(
            format!("{open} commands were open {within:?} after calm load"),
            false,
        )),
    }
}

impl Mix {
    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<Fault, FaultCounts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Injects faults for the length of a round, and returns when the last one is over.
    async fn round(self: &Arc<Self>, number: u64, load: &Arc<Load>) {
        let end = Instant::now() + self.options.round;
        let workers: Vec<_> = (0..self.options.at_once)
            .map(|worker| {
                let seed = self.options.seed ^ (number << 16) ^ ((worker as u64) << 8);
                let random = StdRng::seed_from_u64(seed);
                let (mix, load) = (Arc::clone(self), Arc::clone(load));
                tokio::spawn(async move { mix.work(random, end, &load).await })
            })
            .collect();
        for worker in workers {
            worker.await.expect("faults can be made");
        }
    }

    async fn work(&self, mut random: StdRng, end: Instant, load: &Load) {
        while Instant::now() < end {
            let pause = random.random_range(0..1_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let Some(fault) = self.next(&mut random) else {
                return;
            };
            let before = load.counts();
            let lengths = &self.options.lengths;
            let began = wall_clock();
            let injected = fault.inject(&self.scene, lengths, &mut random).await;
            let after = load.counts();
            self.note(format_args!(
                "{began} {} {fault} {injected:?}",
                wall_clock()
            ));
            let mut counts = self.counts();
            let counts = counts.entry(fault).or_default();
            match injected {
                Injected::Busy => counts.busy += 1,
                Injected::Impossible(why) => counts.impossible = Some(why),
                Injected::Made => {
                    self.made.fetch_add(1, Ordering::SeqCst);
                    counts.made += 1;
                    counts.answered += after.answered - before.answered;
                    counts.unknown += after.unknown - before.unknown;
                }
            }
        }
    }

    /// Writes a line into the timeline, for the study of a failed run.
    fn note(&self, line: std::fmt::Arguments<'_>) {
        let mut timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        // The timeline only helps to study a run; a failed write is no failure of the run.
        let _ = writeln!(timeline, "{line}");
    }

    /// The next kind of fault: each kind once in random order, and so on, without impossible ones.
    fn next(&self, random: &mut StdRng) -> Option<Fault> {
        let mut bag = self.bag.lock().unwrap_or_else(PoisonError::into_inner);
        if bag.is_empty() {
            let counts = self.counts();
            let is_possible = |fault: &&Fault| {
                counts
                    .get(*fault)
                    .is_none_or(|counts| counts.impossible.is_none())
            };
            bag.extend(self.options.faults.iter().filter(is_possible));
            bag.shuffle(random);
        }
        bag.pop()
    }
}

/// Judges everything after the load has ended.
async fn judge_all(scene: &Arc<Scene>, outcome: &mut Outcome, history: PathBuf) {
    for node in &scene.nodes {
        let peak = node.memory_peak_kb();
        if peak > u64::from(MEMORY_MAX_MB) * 1024 {
            outcome
                .violations
                .push(format!("{} had {peak} kB resident", node.name));
        }
        outcome.memory_peaks_kb.push((node.name.clone(), peak));
        for end in node.ends() {
            if end.is_a_fault() {
                outcome.violations.push(format!("{} {end}", node.name));
            }
            outcome.ends.push((node.name.clone(), end));
        }
    }
    let ends = outcome
        .ends
        .iter()
        .fold(String::new(), |text, (node, end)| {
            format!("{text}{node} {end}\n{}\n\n", end.last_words)
        });
    // The details of each end; the table holds a summary.
    let _ = std::fs::write(outcome.options.artefacts.join("ends.txt"), ends);
    let whole = Arc::clone(scene);
    let whole = tokio::task::spawn_blocking(move || whole.cluster.wait_whole());
    whole.await.expect("brokers that come back in sync");
    let dump = outcome.options.artefacts.join("log.ndjson");
    let checked = {
        let (scene, dump) = (Arc::clone(scene), dump.clone());
        let program = outcome.options.program.clone();
        tokio::task::spawn_blocking(move || {
            judge::dump(&program, &scene, &dump)?;
            judge::check(&history, &dump)
        })
    };
    match checked.await.expect("a check does not panic") {
        Ok(report) => {
            let shown = report.violations.iter().map(ToString::to_string);
            outcome.violations.extend(shown);
            outcome.report = Some(report);
        }
        Err(error) => outcome.violations.push(format!("not checked: {error}")),
    }
    match judge::rows(scene, dump).await {
        Ok((rows, differences)) => {
            outcome.rows = rows;
            outcome.violations.extend(differences);
        }
        Err(error) => outcome.violations.push(format!("rows: {error}")),
    }
    if !outcome.violations.is_empty() {
        scene.save_logs(&outcome.options.artefacts);
    }
}
