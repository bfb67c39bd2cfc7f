//! Runs each attack and measures its effects.
//!
//! A polite client's rate beside an attack is compared with its rate beside a polite load. Both
//! take the same processor time (node and client together), and both are measured by turns on the
//! same node: a shared machine is not equally fast from one minute to the next. A client beside any
//! busy load gets less; an attack must not cost it more than a polite load does.

use std::fmt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::node::{LARGE, MEMORY_MB, Node, Taken};
use super::watch::{HEALTH_WITHIN, Seen, Watch};
use super::{Attack, NodeKind, Target, polite};
use crate::faults::table::percentile;
use crate::harness::postgres::Postgres;

/// How much memory a node may hold, in hundredths of the memory that it is configured for.
const RESIDENT_HUNDREDTHS_MAX: u64 = 125;
/// Within this time after an attack, everything must work as before.
const NORMAL_WITHIN: Duration = Duration::from_secs(10);
/// The share of its rate beside a polite load that a client must keep beside an attack.
const KEPT_MIN: f64 = 0.8;
/// Within this time, 99 of 100 commands of a polite client must be answered.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);
/// How long a node may take to end in good order.
const END_WAIT: Duration = Duration::from_secs(30);
/// How long the attacker may take to start, before the measurement begins.
const BEGIN_WAIT: Duration = Duration::from_millis(700);
/// The rate, in commands a second, with which the search for a polite load begins.
const LOAD_FIRST_PER_SECOND: f64 = 1_000.0;
/// The greatest growth of the rate from one try to the next.
const LOAD_GROWTH_MAX: f64 = 4.0;
/// How many rates are tried.
const LOAD_TRIES_MAX: usize = 6;
/// How many times polite clients are measured beside the attack and beside the load, by turns.
const ROUNDS: usize = 3;
/// How near the polite load's processor time must come to the attack's, as a fraction of it.
const LOAD_NEAR: f64 = 0.05;
const POLL: Duration = Duration::from_millis(100);

/// How attacks are run and measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program under test.
    pub program: PathBuf,
    /// The program `attacks`, which attacks and makes the polite load.
    pub attacker: PathBuf,
    /// How long each attack lasts.
    pub length: Duration,
    /// Whether a polite client's share is measured. That takes three times as long and needs an
    /// otherwise idle machine.
    pub with_shares: bool,
}

/// The result of an attack.
#[derive(Debug)]
pub struct Outcome {
    /// The attack's name.
    pub name: &'static str,
    what: &'static str,
    seen: Seen,
    got: polite::Got,
    share: Option<Share>,
    normal_after: Option<Duration>,
    ends_in_order: bool,
    /// Whether the node dropped and counted log lines in this attack if it should, and only then.
    counts_lines: bool,
}

/// What a polite client got beside a polite load, and the processor time of attack and load.
#[derive(Debug)]
struct Share {
    beside_load: polite::Got,
    /// The attack's processor time per second, in seconds.
    attack_s: f64,
    load_s: f64,
}

impl Outcome {
    /// Every promise that was broken.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                broken.push(format!("{}: {what}", self.name));
            }
        };
        let seen = &self.seen;
        let resident_max = MEMORY_MB * RESIDENT_HUNDREDTHS_MAX / 100;
        hold(
            seen.resident_mb <= resident_max,
            format!("{} MB resident, at most {resident_max}", seen.resident_mb),
        );
        hold(
            seen.health_failed == 0 && seen.health_asked > 0,
            format!(
                "health failed {} of {} times",
                seen.health_failed, seen.health_asked
            ),
        );
        hold(
            seen.health_slowest <= HEALTH_WITHIN,
            format!("health took {:?}", seen.health_slowest),
        );
        hold(
            self.normal_after.is_some(),
            format!("not as before within {NORMAL_WITHIN:?}"),
        );
        hold(
            self.counts_lines,
            "annals_log_lines_dropped_total does not tell what was dropped".to_owned(),
        );
        hold(self.ends_in_order, "it did not end in order".to_owned());
        if let Some(share) = &self.share {
            let kept = self.kept(share);
            hold(
                kept >= KEPT_MIN,
                format!("polite clients kept {:.0} %", kept * 100.0),
            );
            let p99 = self.p99().unwrap_or(Duration::MAX);
            hold(
                p99 <= ANSWERED_WITHIN,
                format!("polite clients waited {p99:?}"),
            );
        }
        broken
    }

    fn kept(&self, share: &Share) -> f64 {
        self.got.per_second() / share.beside_load.per_second()
    }

    fn p99(&self) -> Option<Duration> {
        percentile(&self.got.answered, 99)
    }
}

/// Runs an attack on a node of its own.
///
/// # Panics
/// If the node or the attacker cannot be started.
pub async fn measure(attack: &Attack, postgres: &Postgres, options: &Options) -> Outcome {
    let database = postgres.create_database().await;
    let node = Node::start(options.program.clone(), attack.node, database).await;
    let (pid, authority) = (node.pid(), node.authority.clone());
    let perform = |length: Duration| {
        let what = ["perform", attack.name, &authority].map(str::to_owned);
        Helper::start(options, what.into(), length)
    };
    // Warm everything up before the measurement.
    polite::work(&authority, Duration::from_secs(1)).await;
    let attack_s = match options.with_shares {
        true => {
            // As long as the measured span beside it: many attacks begin with more than they go on
            // with.
            let length = options.length + BEGIN_WAIT;
            cost(pid, perform(length), length).await
        }
        false => 0.0,
    };
    let beside_attack = async || {
        let attacker = perform(options.length + BEGIN_WAIT);
        tokio::time::sleep(BEGIN_WAIT).await;
        let got = polite::work(&authority, options.length).await;
        drop(attacker);
        got
    };
    let watch = Watch::over(pid, &authority);
    let mut got = beside_attack().await;
    let seen = watch.end().await;
    let normal_after = normal_after(&authority).await;
    let mut share = None;
    if options.with_shares {
        let load = Load::that_takes(attack_s, pid, &authority, options).await;
        let mut beside_load = load.beside(&authority, options).await;
        for _ in 1..ROUNDS {
            got.add(beside_attack().await);
            // Wait, so that the load does not meet the remains of the attack.
            let _ = self::normal_after(&authority).await;
            beside_load.add(load.beside(&authority, options).await);
        }
        say_turned_away("the load", &beside_load);
        share = Some(Share {
            beside_load,
            attack_s,
            load_s: load.takes_s,
        });
    }
    say_turned_away("the attack", &got);
    let dropped = dropped_lines(&authority).await;
    let said = node.said();
    let ends_in_order = node.ends_in_order(END_WAIT).await;
    if normal_after.is_none() || !ends_in_order {
        eprintln!("{}: the node said:\n{said}", attack.name);
    }
    Outcome {
        name: attack.name,
        what: attack.what,
        seen,
        got,
        share,
        normal_after,
        ends_in_order,
        counts_lines: dropped
            .is_some_and(|count| (count > 0) == (attack.node == NodeKind::FullStderr)),
    }
}

/// How many of its log lines the node reports as dropped.
async fn dropped_lines(authority: &str) -> Option<u64> {
    let answer = reqwest::get(format!("http://{authority}/metrics")).await;
    let text = answer.ok()?.text().await.ok()?;
    let name = "annals_log_lines_dropped_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line?.trim().parse().ok()
}

async fn normal_after(authority: &str) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < NORMAL_WITHIN {
        if polite::is_normal(authority, LARGE).await {
            return Some(began.elapsed()).filter(|took| *took < NORMAL_WITHIN);
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

/// The processor time per second that a helper and the node take together.
async fn cost(node: u32, helper: Helper, length: Duration) -> f64 {
    tokio::time::sleep(BEGIN_WAIT.min(length / 2)).await;
    let taken = || Taken::by(node).processor_s + Taken::by(helper.pid()).processor_s;
    let (before, began) = (taken(), Instant::now());
    tokio::time::sleep(length - BEGIN_WAIT.min(length / 2)).await;
    (taken() - before) / began.elapsed().as_secs_f64()
}

/// A polite load: batches with this many commands per second.
struct Load {
    per_second: f64,
    /// The load's processor time per second, in seconds.
    takes_s: f64,
}

impl Load {
    /// Searches for the load that takes `attack_s`, the attack's processor time per second.
    async fn that_takes(attack_s: f64, node: u32, authority: &str, options: &Options) -> Self {
        let length = options.length / 2;
        let mut per_second = LOAD_FIRST_PER_SECOND;
        let mut takes_s = cost(
            node,
            loading(per_second, authority, options, length),
            length,
        )
        .await;
        for _ in 1..LOAD_TRIES_MAX {
            let factor = attack_s / takes_s.max(0.01);
            if (factor - 1.0).abs() < LOAD_NEAR {
                break;
            }
            per_second *= factor.min(LOAD_GROWTH_MAX);
            takes_s = cost(
                node,
                loading(per_second, authority, options, length),
                length,
            )
            .await;
        }
        eprintln!("  the same processor time: {per_second:.0} commands/s in batches");
        Self {
            per_second,
            takes_s,
        }
    }

    /// What polite clients get beside this load.
    async fn beside(&self, authority: &str, options: &Options) -> polite::Got {
        let length = options.length + BEGIN_WAIT;
        let helper = loading(self.per_second, authority, options, length);
        tokio::time::sleep(BEGIN_WAIT).await;
        let got = polite::work(authority, options.length).await;
        drop(helper);
        got
    }
}

/// A process that makes a polite load.
fn loading(per_second: f64, authority: &str, options: &Options, length: Duration) -> Helper {
    let what = ["load", &per_second.to_string(), authority].map(str::to_owned);
    Helper::start(options, what.into(), length)
}

fn say_turned_away(beside: &str, got: &polite::Got) {
    for (why, count) in &got.turned_away {
        eprintln!("  polite clients beside {beside} were told \"{why}\" {count} times");
    }
}

/// A process that attacks the node or loads it; it is killed on drop.
struct Helper(Child);

impl Helper {
    fn start(options: &Options, what: Vec<String>, length: Duration) -> Self {
        let child = Command::new(&options.attacker)
            .args(what)
            .arg(length.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("the program that cargo built"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The work of a helper process; `arguments` come after its name.
///
/// # Panics
/// If the arguments are not those of `Helper`.
pub async fn help(arguments: &[String]) {
    let [what, how, authority, millis] = arguments else {
        panic!("a helper has four arguments, not {arguments:?}");
    };
    let length = Duration::from_millis(millis.parse().expect("a number of milliseconds"));
    raise_files();
    if what == "load" {
        let per_second = how.parse().expect("a number of commands");
        polite::load(authority, per_second, length).await;
        return;
    }
    let attack = super::find(how).expect("an attack of the table");
    let target = Target {
        authority: authority.clone(),
        large: LARGE.to_owned(),
        length,
    };
    attack.perform(target).await;
}

/// Raises the limit of open files: thousands of connections need as many.
fn raise_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If the limit cannot be raised, the attack is smaller.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// All outcomes as a table, in Markdown.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| attack | resident at most | slowest health answer | normal after | polite commands/s \
             | of those beside a polite load | p50 / p99 |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for outcome in self.0 {
            let (seen, got) = (&outcome.seen, &outcome.got);
            let millis = |time: Option<Duration>| match time {
                Some(time) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
                None => "-".to_owned(),
            };
            let normal = match outcome.normal_after {
                Some(after) => format!("{:.1} s", after.as_secs_f64()),
                None => "not in time".to_owned(),
            };
            let share = match &outcome.share {
                Some(share) => format!(
                    "{:.0} % of {:.0}/s ({:.2} and {:.2} s of processor a second)",
                    outcome.kept(share) * 100.0,
                    share.beside_load.per_second(),
                    share.attack_s,
                    share.load_s,
                ),
                None => "-".to_owned(),
            };
            writeln!(
                f,
                "| {}: {} | {} MB | {} | {normal} | {:.0} | {share} | {} / {} |",
                outcome.name,
                outcome.what,
                seen.resident_mb,
                millis(Some(seen.health_slowest)),
                got.per_second(),
                millis(percentile(&got.answered, 50)),
                millis(outcome.p99()),
            )?;
        }
        Ok(())
    }
}
