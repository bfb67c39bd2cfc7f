//! `annals check-history`: compares what clients were told with the log.
//!
//! Deliberately absent: the verdicts (`checker`), which are independent of the engine on purpose.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use checker::{Checker, InputError, Loss, Options, Report, Scope};
use clap::Parser;
use host::command::raw;
use host::exit::{Exit, Failure, explained};
use host::node::open_log;
use host::progress::Progress;
use host::settings::{OutputFormat, Settings};
use host::{Domain, Subcommand, output, talk};
use serde_json::{Value, json};

/// The help text after the options.
const HELP: &str = "\
A history is a file of JSON lines in which clients of the command door recorded what they sent and
which answers they got. The checker reads the histories and every record of the log. It applies the
rules of acceptance with code of its own, and checks four things:
  - each command that was answered accepted is in the log, once, as answered
  - no refused command left an event
  - the versions of each stream have no gaps
  - commands were decided in the order that the clients saw
Run the command after the last answer has come.

The exit code is 1 if a promise was broken. The report names each broken promise with the lines of
the history and the records that show it.

Examples:
  annals check-history --history c1.jsonl --history c2.jsonl --log kafka://localhost:9092/orders
  annals check-history --history run.jsonl --dump log.ndjson --complete --output json";

/// Compare the answers that clients got with the log, and report broken promises
#[derive(Debug, Parser)]
#[command(name = "check-history", after_help = HELP)]
pub(crate) struct CheckHistory {
    /// File with the history of a client process; repeat the flag for further files
    #[arg(long, value_name = "FILE", required = true)]
    history: Vec<PathBuf>,
    /// Read the log from a file that annals log dump wrote, instead of from --log
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// The histories are complete: a command in the log that no client sent is a violation
    #[arg(long)]
    complete: bool,
    /// The log was made to lose acknowledged records on purpose: count the consequences, but do not
    /// report them as violations
    #[arg(long)]
    expect_loss: bool,
}

impl Subcommand for CheckHistory {
    async fn run(self, _domain: &Domain, settings: Settings) -> Result<Exit, Failure> {
        run(&settings, &self).await
    }
}

async fn run(settings: &Settings, args: &CheckHistory) -> Result<Exit, Failure> {
    let scope = match args.complete {
        true => Scope::Complete,
        false => Scope::Partial,
    };
    let loss = match args.expect_loss {
        true => Loss::Expected,
        false => Loss::Forbidden,
    };
    let mut checker = Checker::new(Options { scope, loss });
    let acknowledged = settings.acknowledged_damage.iter();
    checker.acknowledge(acknowledged.map(|((partition, offset), _)| (partition.0, offset.0)));
    for path in &args.history {
        let name = path.display().to_string();
        let read = checker.history(&name, open(path)?);
        read.map_err(|error| unreadable(&error))?;
    }
    match &args.dump {
        Some(path) => {
            let read = checker.dump(&path.display().to_string(), open(path)?);
            read.map_err(|error| unreadable(&error))?;
        }
        None => read_log(settings, &mut checker).await?,
    }
    let report = checker.finish();
    show(settings, &report)?;
    Ok(verdict(&report))
}

async fn read_log(settings: &Settings, checker: &mut Checker) -> Result<(), Failure> {
    let log = open_log(settings).await?;
    let header = raw::header(&*log).await?;
    checker.begin_log(&header);
    let mut progress = Progress::start("reading the log");
    let count = raw::read(&*log, &header, &mut progress, |partition, record| {
        let taken = checker.record(partition, record);
        taken.map_err(|error| unreadable(&error))
    });
    let count = count.await?;
    progress.finish(&format!("{count} records read"));
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = File::open(path).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failed,
        };
        Failure::of(exit, &error).while_trying(&format!("read {}", path.display()))
    })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// An input that cannot be read gives no verdict.
fn unreadable(error: &InputError) -> Failure {
    Failure::new(Exit::Failed, explained(error)).while_trying("check")
}

fn show(settings: &Settings, report: &Report) -> Result<(), Failure> {
    match settings.output {
        OutputFormat::Json => output::record(settings.output, &[], report),
        OutputFormat::Table | OutputFormat::Ndjson | OutputFormat::Csv => {
            output::rows(settings.output, &["what", "count"], &summary(report))
        }
    }
}

/// The summary as rows: what was counted, and how many.
fn summary(report: &Report) -> Vec<Value> {
    let summary = &report.summary;
    let mut rows = Vec::new();
    let mut row = |what: String, count: u64| rows.push(json!({"what": what, "count": count}));
    row("commands sent".to_owned(), summary.commands);
    for (outcome, count) in &summary.known_as {
        row(format!("  known as {outcome}"), *count);
    }
    let unknowns = &summary.unknown_resolved;
    row(
        "  unknown, and accepted in the log".to_owned(),
        unknowns.accepted,
    );
    row(
        "  unknown, and refused in the log".to_owned(),
        unknowns.refused,
    );
    row("  unknown, and not in the log".to_owned(), unknowns.absent);
    row("attempts".to_owned(), summary.attempts);
    for (answer, count) in &summary.answers {
        row(format!("  answered {answer}"), *count);
    }
    row("incomplete history lines".to_owned(), summary.torn_lines);
    row("partitions".to_owned(), u64::from(summary.partitions));
    row("records".to_owned(), summary.records);
    row("  claims".to_owned(), summary.claims);
    row("  accepted commits".to_owned(), summary.accepted);
    row("  recorded refusals".to_owned(), summary.refused);
    for (reason, count) in &summary.orphans {
        row(format!("  orphans, {reason}"), *count);
    }
    row("streams".to_owned(), summary.streams);
    row("events".to_owned(), summary.events);
    for (name, count) in &report.expected {
        row(format!("expected: {name}"), *count);
    }
    for (name, count) in &report.counts {
        row(format!("VIOLATED: {name}"), *count);
    }
    row("violations".to_owned(), report.counts.values().sum());
    rows
}

/// Reports in words what was found.
fn verdict(report: &Report) -> Exit {
    for violation in &report.violations {
        talk!("VIOLATION: {violation}");
    }
    let count: u64 = report.counts.values().sum();
    let more = count - report.violations.len() as u64;
    if more > 0 {
        talk!("and {more} more");
    }
    if report.is_clean() {
        talk!("every promise was kept");
        Exit::Done
    } else {
        talk!("{count} promises were BROKEN");
        Exit::Failed
    }
}
