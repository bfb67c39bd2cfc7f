//! `annals simulate`: simulates whole clusters in memory, for many seeds in turn or for one in
//! full.
//!
//! Invariant: the same program prints the same for a seed at every run. Deliberately absent: what
//! is simulated and what counts as broken (`simulator`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use host::exit::{Exit, Failure};
use host::logging::Voice;
use host::progress::Progress;
use host::settings::{OutputFormat, Settings};
use host::{Domain, Subcommand, output, talk};
use serde_json::{Value, json};
use simulator::sim::{self, Counts, FAULTS, Options, Report};

/// The help text after the options.
const HELP: &str = "\
Nodes, log, network, clocks, clients and projectors are simulated. The owners, routers and readers
are those of the real program. The seed decides everything that happens, and every promise is
checked. With --seed and without --seeds, the run is printed step by step: the virtual time, who
acts, what happens.

The exit code is 1 if a promise was broken. The same seed gives the same run with the same program.

Examples:
  annals simulate                               a hundred new seeds
  annals simulate --seeds 5000                  more of them
  annals simulate --seed 4711                   one run, step by step
  annals simulate --seed 4711 --nodes 2         the same choices, in another cluster";

/// How many seeds are run by default.
const SEEDS: u64 = 100;

/// Run whole clusters in memory with random faults, and report broken promises
#[derive(Debug, Parser)]
#[command(name = "simulate", after_help = HELP)]
pub(crate) struct Simulate {
    /// The first seed; without --seeds, the only seed [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of seeds to run, counted up from the first [default: 100]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// End a run after this many steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Number of nodes in each cluster [default: random, 1 to 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// Number of partitions in each log [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: Option<u32>,
    /// Number of threads that run seeds [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
}

impl Subcommand for Simulate {
    // The simulated nodes would write the log lines.
    const VOICE: Voice = Voice::Silent;

    async fn run(self, _domain: &Domain, settings: Settings) -> Result<Exit, Failure> {
        run(&settings, &self)
    }
}

impl Simulate {
    fn options(&self) -> Options {
        Options {
            nodes: self.nodes.map(usize::from),
            partitions: self.partitions,
            steps: self.steps,
            ..Options::default()
        }
    }
}

fn run(settings: &Settings, args: &Simulate) -> Result<Exit, Failure> {
    let options = args.options();
    match (args.seed, args.seeds) {
        (Some(seed), None) => one(settings, seed, &options),
        (first, count) => {
            // 32 bits: short enough to be typed.
            let first = first.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            many(settings, args, first, count.unwrap_or(SEEDS), &options)
        }
    }
}

/// Runs one seed. Table output shows every step; the other formats show only the sums.
fn one(settings: &Settings, seed: u64, options: &Options) -> Result<Exit, Failure> {
    let began = Instant::now();
    let lines = Rc::new(RefCell::new(String::new()));
    let listener = (settings.output == OutputFormat::Table).then(|| {
        let lines = Rc::clone(&lines);
        let mut number = 0;
        let listener: sim::Listener = Box::new(move |line: &str| {
            number += 1;
            lines
                .borrow_mut()
                .push_str(&format!("{number:>6}  {}\n", line.trim_end()));
        });
        listener
    });
    let report = sim::run(seed, options, listener);
    output::print(lines.borrow().as_bytes())?;
    let mut sums = Sums::default();
    sums.take(&report);
    if settings.output != OutputFormat::Table {
        sums.show(settings, began.elapsed())?;
    }
    talk!(
        "seed {seed}: {} steps in {}, digest {:016x}",
        report.steps,
        seconds(report.took_us),
        report.digest
    );
    Ok(sums.verdict())
}

fn many(
    settings: &Settings,
    args: &Simulate,
    first: u64,
    count: u64,
    options: &Options,
) -> Result<Exit, Failure> {
    let last = first.saturating_add(count - 1);
    talk!("seeds {first} to {last}");
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let mut progress = Progress::start("simulating");
    let began = Instant::now();
    let mut sums = Sums::default();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (reports, incoming) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let (reports, next) = (reports.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > last - first
                        || reports
                            .send(sim::run(first + number, options, None))
                            .is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in incoming {
            sums.take(&report);
            progress.set(sums.seeds, last - first + 1);
        }
    });
    let took = began.elapsed();
    let per_minute = sums.seeds as f64 * 60.0 / took.as_secs_f64();
    progress.finish(&format!("{} seeds, {per_minute:.0} a minute,", sums.seeds));
    sums.show(settings, took)?;
    Ok(sums.verdict())
}

/// The sums over all runs.
#[derive(Default)]
struct Sums {
    seeds: u64,
    steps: u64,
    virtual_us: u64,
    counts: Counts,
    /// The broken promises, by seed.
    violations: BTreeMap<u64, String>,
}

impl Sums {
    fn take(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.virtual_us += report.took_us;
        self.counts.add(&report.counts);
        if let Some(violation) = &report.violation {
            self.violations.insert(report.seed, violation.to_string());
        }
    }

    fn show(&self, settings: &Settings, took: Duration) -> Result<(), Failure> {
        let counts = &self.counts;
        if settings.output == OutputFormat::Json {
            return output::record(
                settings.output,
                &[],
                &json!({
                    "seeds": self.seeds,
                    "steps": self.steps,
                    "virtual_seconds": self.virtual_us as f64 / 1e6,
                    "seconds": took.as_secs_f64(),
                    "sent": counts.sent,
                    "accepted": counts.accepted,
                    "refused": counts.refused,
                    "unknown": counts.unknown,
                    "turned_away": counts.turned_away,
                    "faults": counts.faults,
                    "cuts": counts.cuts,
                    "violations": self.violations,
                }),
            );
        }
        let mut rows: Vec<Value> = Vec::new();
        let mut row = |what: &str, count: u64| rows.push(json!({"what": what, "count": count}));
        row("seeds", self.seeds);
        row("steps", self.steps);
        row("virtual seconds", self.virtual_us / 1_000_000);
        row("commands sent, repeats included", counts.sent);
        row("  accepted", counts.accepted);
        row("  refused", counts.refused);
        row("  unknown", counts.unknown);
        row("  turned away", counts.turned_away);
        for fault in FAULTS {
            let count = counts.faults.get(fault.name).copied().unwrap_or_default();
            row(&format!("fault: {}", fault.name), count);
        }
        row("fault: records cut off", counts.cuts);
        row("violations", self.violations.len() as u64);
        output::rows(settings.output, &["what", "count"], &rows)
    }

    fn verdict(&self) -> Exit {
        for (seed, violation) in &self.violations {
            talk!("VIOLATION: seed {seed}: {violation}");
            talk!("  replay it with: annals simulate --seed {seed}");
        }
        if self.violations.is_empty() {
            talk!("every promise was kept");
            Exit::Done
        } else {
            Exit::Failed
        }
    }
}

fn seconds(us: u64) -> String {
    format!(
        "{}.{:03} virtual seconds",
        us / 1_000_000,
        us / 1_000 % 1_000
    )
}
