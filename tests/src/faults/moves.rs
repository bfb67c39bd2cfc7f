//! How long a partition is without an owner when nodes are stopped in order, come back, or crash.
//!
//! Each partition is asked all the time through the nodes that stay; the time without an owner is
//! the longest gap between two answers around the move, so never less than it really was. Invariant:
//! only partitions that the node owned count. Deliberately absent: faults of anything else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checker::Report;
use engine::ids::Partition;
use serde_json::Value;

use super::history::History;
use super::judge;
use super::load::{LoadOptions, Prober, Sighting};
use super::scene::{START_WAIT, Scene, SceneOptions};
use super::table::{percentile, spread};

/// At most so long may a partition be without an owner when a node is stopped in order.
pub const PLANNED_MAX: Duration = Duration::from_millis(100);
/// At most so long when a node crashed, once the group has noticed.
pub const CRASH_MAX: Duration = Duration::from_secs(3);
/// How long partitions may take to be shared out again.
const SHARED_OUT_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// What is looked at before and behind a move.
const AROUND: Duration = Duration::from_millis(500);
const FAILURES_SHOWN_MAX: usize = 10;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct MovesOptions {
    /// What it runs against; each partition is asked all the time.
    pub scene: SceneOptions,
    /// Decides what is asked.
    pub seed: u64,
    /// How many nodes are stopped in order.
    pub planned: u64,
    /// How many nodes are killed.
    pub crashes: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Moves {
    session_timeout: Duration,
    /// Gaps when a node was stopped in order.
    pub planned: Vec<Duration>,
    /// Gaps when a node came back.
    pub joined: Vec<Duration>,
    /// Gaps when a node was killed.
    pub crashed: Vec<Duration>,
    /// How far two answers are apart when nothing happens.
    pub calm: Vec<Duration>,
    /// Answers that said no while a node was stopped in order.
    pub failed_at_planned: Vec<String>,
    /// What the checker found; absent if it could not look.
    pub report: Option<Report>,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    InOrder,
    Killed,
}

struct Measuring {
    scene: Arc<Scene>,
    probers: Vec<Prober>,
    session_timeout: Duration,
    http: reqwest::Client,
}

/// Stops and kills nodes in turn, under probes, and measures.
///
/// # Panics
/// If what it runs against cannot be started.
pub async fn measure(options: MovesOptions) -> Moves {
    let (scene, supervising) = Scene::begin(&options.scene).await;
    let history_path = options.scene.artefacts.join("history.jsonl");
    let history = History::begin(&history_path).expect("a folder of ours can be written to");
    let history = Arc::new(history);
    let load = LoadOptions {
        clients: 0,
        commands_per_second_max: 0,
        nodes: scene.doors(),
        seed: options.seed,
    };
    let probers = (0..options.scene.partitions).map(|number| {
        let partition = Partition(number);
        Prober::begin(
            partition,
            options.scene.partitions,
            load.clone(),
            Arc::clone(&history),
        )
    });
    let measuring = Measuring {
        scene: Arc::clone(&scene),
        probers: probers.collect(),
        session_timeout: options.scene.session_timeout,
        http: reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client with these settings can be made"),
    };
    let mut moves = Moves {
        session_timeout: options.scene.session_timeout,
        planned: Vec::new(),
        joined: Vec::new(),
        crashed: Vec::new(),
        calm: Vec::new(),
        failed_at_planned: Vec::new(),
        report: None,
        violations: Vec::new(),
    };
    let departures = std::iter::repeat_n(Departure::InOrder, count(options.planned)).chain(
        std::iter::repeat_n(Departure::Killed, count(options.crashes)),
    );
    for (number, departure) in departures.enumerate() {
        let victim = number % options.scene.nodes;
        if let Err(what) = measuring.one(victim, departure, &mut moves).await {
            moves.violations.push(format!("move {number}: {what}"));
            break;
        }
        eprintln!("move {number}: {departure:?} of n{}", victim + 1);
    }
    for prober in measuring.probers {
        let counted = prober.stop().await;
        if counted.failed > 0 {
            let what = format!("{} commands failed for good", counted.failed);
            moves.violations.push(what);
        }
    }
    moves.judge(&options, &scene, history_path).await;
    supervising.abort();
    moves
}

fn count(number: u64) -> usize {
    usize::try_from(number).expect("a few")
}

impl Measuring {
    /// One node goes, and comes back.
    async fn one(&self, victim: usize, how: Departure, moves: &mut Moves) -> Result<(), String> {
        let node = &self.scene.nodes[victim];
        let witness = (victim + 1) % self.scene.nodes.len();
        self.probers
            .iter()
            .for_each(|prober| prober.avoid(Some(victim)));
        let owned = self.until_owning(witness, &node.name).await?;
        let before = Instant::now();
        tokio::time::sleep(AROUND).await;
        for prober in &self.probers {
            moves.calm.extend(gap(&prober.since(before)));
        }

        let began = Instant::now();
        match how {
            Departure::InOrder => {
                let leaving = Arc::clone(node);
                let code = tokio::task::spawn_blocking(move || leaving.terminate()).await;
                let code = code.map_err(|error| error.to_string())?;
                if code != Some(0) {
                    return Err(format!("{} ended with {code:?}", node.name));
                }
            }
            Departure::Killed => {
                node.kill9();
                tokio::time::sleep(self.session_timeout).await;
            }
        }
        let gone = Instant::now();
        tokio::time::sleep(AROUND).await;
        let gaps = self.gaps(&owned, began, gone + AROUND).await?;
        match how {
            Departure::Killed => moves.crashed.extend(gaps),
            Departure::InOrder => {
                moves.planned.extend(gaps);
                for prober in &self.probers {
                    let failed = prober.since(began).into_iter().filter_map(|seen| {
                        let partition = prober.partition.0;
                        Some(format!("partition {partition}: {}", seen.instead?))
                    });
                    moves.failed_at_planned.extend(failed);
                }
            }
        }

        let began = Instant::now();
        node.start_again();
        self.scene.ready(START_WAIT).await?;
        let joined = self.until_owning(witness, &node.name).await?;
        let there = Instant::now();
        tokio::time::sleep(AROUND).await;
        moves
            .joined
            .extend(self.gaps(&joined, began, there + AROUND).await?);
        Ok(())
    }

    /// The longest gaps of some partitions since `began`, once each was answered after `until`.
    async fn gaps(
        &self,
        partitions: &[Partition],
        began: Instant,
        until: Instant,
    ) -> Result<Vec<Duration>, String> {
        let deadline = Instant::now() + SHARED_OUT_WAIT;
        let mut gaps = Vec::new();
        for prober in &self.probers {
            if !partitions.contains(&prober.partition) {
                continue;
            }
            let since = loop {
                let since = prober.since(began - AROUND);
                let is_answered = |seen: &Sighting| seen.instead.is_none() && seen.at > until;
                if since.iter().any(is_answered) {
                    break since;
                }
                if Instant::now() > deadline {
                    let partition = prober.partition.0;
                    return Err(format!("partition {partition} is not answered"));
                }
                tokio::time::sleep(POLL).await;
            };
            gaps.extend(gap(&since));
        }
        Ok(gaps)
    }

    /// Waits until a node owns something, as another one knows, and nothing moves; what it owns.
    async fn until_owning(&self, witness: usize, name: &str) -> Result<Vec<Partition>, String> {
        let deadline = Instant::now() + SHARED_OUT_WAIT;
        let mut last = None;
        loop {
            let owners = self.owners(witness).await.unwrap_or_default();
            let owned: Vec<Partition> = owners
                .iter()
                .filter(|(_, owner)| owner.as_str() == name)
                .map(|(partition, _)| *partition)
                .collect();
            if !owned.is_empty() && last.as_ref() == Some(&owners) {
                return Ok(owned);
            }
            if Instant::now() > deadline {
                return Err(format!("{name} owns nothing: {owners:?}"));
            }
            last = Some(owners);
            tokio::time::sleep(AROUND).await;
        }
    }

    async fn owners(&self, witness: usize) -> Option<BTreeMap<Partition, String>> {
        let url = format!("{}/v1/topology", self.scene.nodes[witness].url);
        let topology: Value = self.http.get(url).send().await.ok()?.json().await.ok()?;
        let owners = topology["partitions"].as_array()?.iter().filter_map(|one| {
            let number = u32::try_from(one["partition"].as_u64()?).ok()?;
            Some((Partition(number), one["owner"]["node"].as_str()?.to_owned()))
        });
        Some(owners.collect())
    }
}

/// The longest time between two answers.
fn gap(sightings: &[Sighting]) -> Option<Duration> {
    let mut answers = sightings.iter().filter(|seen| seen.instead.is_none());
    let mut last = answers.next()?.at;
    let mut longest = Duration::ZERO;
    for seen in answers {
        longest = longest.max(seen.at - last);
        last = seen.at;
    }
    Some(longest)
}

impl Moves {
    async fn judge(&mut self, options: &MovesOptions, scene: &Arc<Scene>, history: PathBuf) {
        let over = |gaps: &[Duration], most: Duration| {
            percentile(gaps, 99).filter(|p99| *p99 > most).is_some()
        };
        if over(&self.planned, PLANNED_MAX) {
            let what = format!("p99 of planned stops is above {PLANNED_MAX:?}");
            self.violations.push(what);
        }
        if over(&self.crashed, self.session_timeout + CRASH_MAX) {
            let what = format!("p99 of crashes is above the session timeout and {CRASH_MAX:?}");
            self.violations.push(what);
        }
        if !self.failed_at_planned.is_empty() {
            let what = format!(
                "{} sendings had no answer at planned stops",
                self.failed_at_planned.len()
            );
            self.violations.push(what);
        }
        for node in &scene.nodes {
            for end in node.ends() {
                self.violations.push(format!("{} {end}", node.name));
            }
        }
        let dump = options.scene.artefacts.join("log.ndjson");
        let (program, scene) = (options.scene.program.clone(), Arc::clone(scene));
        let checked = tokio::task::spawn_blocking(move || {
            judge::dump(&program, &scene, &dump)?;
            judge::check(&history, &dump)
        });
        match checked.await.expect("a check does not panic") {
            Ok(report) => {
                let shown = report.violations.iter().map(ToString::to_string);
                self.violations.extend(shown);
                self.report = Some(report);
            }
            Err(error) => self.violations.push(format!("not checked: {error}")),
        }
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "time without an answer, per partition that moved:")?;
        writeln!(f, "  nothing moves     {}", spread(&self.calm))?;
        writeln!(f, "  stopped in order  {}", spread(&self.planned))?;
        writeln!(f, "  came back         {}", spread(&self.joined))?;
        writeln!(
            f,
            "  killed            {} (session timeout {:?})",
            spread(&self.crashed),
            self.session_timeout
        )?;
        writeln!(
            f,
            "sendings without an answer at planned stops: {}",
            self.failed_at_planned.len()
        )?;
        for failed in self.failed_at_planned.iter().take(FAILURES_SHOWN_MAX) {
            writeln!(f, "  {failed}")?;
        }
        if let Some(report) = &self.report {
            writeln!(
                f,
                "checked: {} commands against {} records",
                report.summary.commands, report.summary.records
            )?;
        }
        writeln!(f, "violations: {}", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        Ok(())
    }
}
