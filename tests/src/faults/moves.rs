//! How long a partition is without an owner when nodes are stopped in order, come back, or crash.
//!
//! Probers send commands to each partition through the nodes that stay. The log gives the time
//! without an owner (`unowned`). The longest gap between two answers around the move gives the time
//! without an answer, which includes all delays of a busy machine. Both are never shorter than the
//! real times. Invariant: only partitions that the node owned count. Deliberately absent: faults of
//! anything else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checker::Report;
use kernel::Timestamp;
use position::Partition;
use serde_json::Value;

use super::history::History;
use super::judge;
use super::load::{LoadOptions, Prober, Sighting};
use super::scene::{START_WAIT, Scene, SceneOptions};
use super::table::{percentile, spread};
use super::unowned::{Change, changes};

/// The longest time without an owner that is allowed when a node is stopped in good order.
pub const PLANNED_MAX: Duration = Duration::from_millis(100);
/// The same for a crash, from the moment when the group has noticed it.
pub const CRASH_MAX: Duration = Duration::from_secs(3);
/// How long the group may take to share out the partitions again.
const SHARED_OUT_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// The time before and after a move that is also looked at.
const AROUND: Duration = Duration::from_millis(500);
const FAILURES_SHOWN_MAX: usize = 10;

/// What is measured, and on what.
#[derive(Clone, Debug)]
pub struct MovesOptions {
    /// The processes that run; every partition is probed all the time.
    pub scene: SceneOptions,
    /// Decides the commands that are sent.
    pub seed: u64,
    /// How many nodes are stopped in good order.
    pub planned: u64,
    /// How many nodes are killed.
    pub crashes: u64,
}

/// The measured times and the broken promises.
#[derive(Debug)]
pub struct Moves {
    session_timeout: Duration,
    /// Gaps when a node was stopped in good order.
    pub planned: Gaps,
    /// Gaps when a node came back.
    pub joined: Gaps,
    /// Gaps when a node was killed.
    pub crashed: Gaps,
    made: Vec<Made>,
    /// The longest time between two answers while nothing happens.
    pub calm: Vec<Duration>,
    /// Attempts that failed while a node was stopped in good order.
    pub failed_at_planned: Vec<String>,
    /// The checker's report; absent if the checker could not run.
    pub report: Option<Report>,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// For how long partitions had no answer or no owner.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// The times without an answer, as clients saw it.
    pub answer: Vec<Duration>,
    /// The times without an owner, by the log.
    pub owner: Vec<Duration>,
}

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    InOrder,
    Killed,
}

/// Why partitions moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Departed(Departure),
    Joined,
}

/// A move that happened.
#[derive(Debug)]
struct Made {
    reason: Reason,
    partitions: Vec<Partition>,
    began: Timestamp,
    ended: Timestamp,
}

struct Measuring {
    scene: Arc<Scene>,
    probers: Vec<Prober>,
    session_timeout: Duration,
    http: reqwest::Client,
}

/// Stops and kills nodes in turn under load, and measures the gaps.
///
/// # Panics
/// If a process cannot be started.
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
        planned: Gaps::default(),
        joined: Gaps::default(),
        crashed: Gaps::default(),
        made: Vec::new(),
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

fn wall_clock() -> Timestamp {
    Timestamp::from_utc(chrono::Utc::now()).expect("it is after 1970")
}

fn count(number: u64) -> usize {
    usize::try_from(number).expect("a few")
}

impl Measuring {
    /// Lets one node end and come back.
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

        let (began, began_at) = (Instant::now(), wall_clock());
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
        moves.made.push(Made {
            reason: Reason::Departed(how),
            partitions: owned,
            began: began_at,
            ended: wall_clock(),
        });
        match how {
            Departure::Killed => moves.crashed.answer.extend(gaps),
            Departure::InOrder => {
                moves.planned.answer.extend(gaps);
                for prober in &self.probers {
                    let failed = prober.since(began).into_iter().filter_map(|seen| {
                        let partition = prober.partition.0;
                        Some(format!("partition {partition}: {}", seen.instead?))
                    });
                    moves.failed_at_planned.extend(failed);
                }
            }
        }

        let (began, began_at) = (Instant::now(), wall_clock());
        node.start_again();
        self.scene.ready(START_WAIT).await?;
        let joined = self.until_owning(witness, &node.name).await?;
        let there = Instant::now();
        tokio::time::sleep(AROUND).await;
        let gaps = self.gaps(&joined, began, there + AROUND).await?;
        moves.joined.answer.extend(gaps);
        moves.made.push(Made {
            reason: Reason::Joined,
            partitions: joined,
            began: began_at,
            ended: wall_clock(),
        });
        Ok(())
    }

    /// The longest gap of each partition since `began`, once each has an answer after `until`.
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

    /// Waits until a node owns partitions, by the topology of node `witness`, and owners no longer
    /// change. Returns what the node owns.
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
            Ok((judge::check(&history, &dump)?, changes(&dump)?))
        });
        let checked: Result<_, String> = checked.await.expect("a check does not panic");
        match checked {
            Ok((report, changes)) => {
                self.sort(&changes);
                self.judge_times();
                let shown = report.violations.iter().map(ToString::to_string);
                self.violations.extend(shown);
                self.report = Some(report);
            }
            Err(error) => self.violations.push(format!("not checked: {error}")),
        }
    }
}

impl Moves {
    /// Assigns each change of owner in the log to the move that caused it.
    fn sort(&mut self, changes: &[Change]) {
        for made in &self.made {
            let gaps = match made.reason {
                Reason::Departed(Departure::InOrder) => &mut self.planned,
                Reason::Departed(Departure::Killed) => &mut self.crashed,
                Reason::Joined => &mut self.joined,
            };
            let is_of_it = |change: &&Change| {
                made.partitions.contains(&change.partition)
                    && (made.began..made.ended).contains(&change.first)
            };
            let of_it = changes.iter().filter(is_of_it).map(Change::gap);
            gaps.owner.extend(of_it);
        }
    }

    fn judge_times(&mut self) {
        let over = |gaps: &[Duration], most: Duration| {
            // Without any gap, nothing is proven.
            percentile(gaps, 99).is_none_or(|p99| p99 > most)
        };
        let made = |reason| self.made.iter().any(|made| made.reason == reason);
        let planned = made(Reason::Departed(Departure::InOrder));
        if planned && over(&self.planned.owner, PLANNED_MAX) {
            let what = format!("p99 without an owner at planned stops is above {PLANNED_MAX:?}");
            self.violations.push(what);
        }
        let most = self.session_timeout + CRASH_MAX;
        let crashed = made(Reason::Departed(Departure::Killed));
        if crashed && over(&self.crashed.answer, most) {
            let what = format!("p99 of crashes is above the session timeout and {CRASH_MAX:?}");
            self.violations.push(what);
        }
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("stopped in order", &self.planned),
            ("came back", &self.joined),
            ("killed", &self.crashed),
        ];
        writeln!(f, "per partition that moved, without an owner:")?;
        for (kind, gaps) in kinds {
            writeln!(f, "  {kind:16}  {}", spread(&gaps.owner))?;
        }
        writeln!(f, "the same, without an answer:")?;
        writeln!(f, "  {:16}  {}", "nothing moves", spread(&self.calm))?;
        for (kind, gaps) in kinds {
            writeln!(f, "  {kind:16}  {}", spread(&gaps.answer))?;
        }
        writeln!(f, "session timeout: {:?}", self.session_timeout)?;
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
