//! `annals generate`: makes an invented history of the shop, of any size, into a file or a server.
//!
//! Deliberately absent: what happens in the shop (`olist::invented`) and the sending (`import`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use host::args::Server;
use host::args::importing::SendingArgs;
use host::command::import::conclude;
use host::exit::{Exit, Failure};
use host::progress::{Progress, sending};
use host::settings::{Flags, Settings};
use host::{Domain, Subcommand, output, talk};
use import::Report;
use kernel::Timestamp;
use olist::invented::{Declared, Invented, Wish};
use olist::send_invented;

const HELP: &str = "\
Customers register, orders are placed, paid, approved, shipped, delivered, cancelled, reviewed and
refunded, and some commands are refused. Few products, sellers and customers have most of it, and
orders follow the rhythm of day and week. The same numbers give the same bytes on every machine.
Memory does not grow with the number of lines.

The sending may be stopped and repeated with the same numbers: no command takes effect twice.
With other numbers, the history has other names and ids, so that several can be in one log.

Examples:
  annals generate --seed 7 --events 1000000
  annals generate --seed 7 --events 1000000 --out history.ndjson
  annals generate --seed 7 --events 1000 --out - | annals import commands -";

/// The most days of a history: a hundred years.
const DAYS_MAX: i64 = 36_500;
/// After how many bytes lines are handed to stdout.
const CHUNK_SIZE: usize = 64 * 1024;
/// How many lines are written between two looks at the clock of the progress.
const LINES_PER_LOOK: u64 = 1_024;

/// Make an invented history of the shop, of any size
#[derive(Debug, Parser)]
#[command(name = "generate", after_help = HELP)]
pub(crate) struct Generate {
    /// Another seed gives another history
    #[arg(long, value_name = "N")]
    seed: u64,
    /// The number of events; the last order is finished, so there are up to 24 more
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000_000))]
    events: u64,
    /// The first day on which orders are placed, as YYYY-MM-DD, in UTC
    #[arg(long, value_name = "DAY", default_value = "2024-01-01", value_parser = day)]
    from: Timestamp,
    /// On how many days orders are placed; what follows from them comes up to 60 days later
    #[arg(long, value_name = "N", default_value_t = 365,
          value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
    /// Tenant of the history [default: main]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Write the command lines to this file, or to stdout (-), instead of sending them
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    out: Option<PathBuf>,
    /// How it is sent.
    #[command(flatten)]
    sending: SendingArgs,
    /// Through which server.
    #[command(flatten)]
    server: Server,
}

impl Subcommand for Generate {
    // The history is invented.
    const KEEPS_PRIVATE: bool = false;

    fn add_to(&self, flags: &mut Flags) {
        self.server.add_to(flags);
    }

    async fn run(self, _domain: &Domain, settings: Settings) -> Result<Exit, Failure> {
        let history = Invented::new(Wish {
            seed: self.seed,
            events: self.events,
            from: self.from,
            days: self.days,
            tenant: self.tenant,
        });
        tell(history.declared());
        if let Some(out) = &self.out {
            return write(&history, out);
        }
        let sending = self.sending.options(&settings.url);
        let outcome = send_invented(&history, sending, sending::on_stderr()).await;
        let report = outcome.as_ref().ok();
        let difference = report.and_then(|report| difference(history.declared(), report));
        let remedy = "take another seed, or a new log";
        let exit = conclude(&settings, outcome, &self.sending, remedy)?;
        match difference {
            Some(difference) => Err(Failure::new(Exit::Refused, difference)
                .hint("something else was sent to its streams; take another seed, or a new log")),
            None => Ok(exit),
        }
    }
}

/// The first moment of a day, as RFC 3339 writes days.
fn day(text: &str) -> Result<Timestamp, String> {
    // A hundred years later, and some days, are still in the range of times.
    let is_in_range = ("1970".."9800").contains(&text);
    let moment = format!("{text}T00:00:00Z").parse::<Timestamp>();
    let moment = moment.ok().filter(|_| is_in_range);
    moment.ok_or_else(|| "not a day from 1970-01-01 to 9799-12-31".to_owned())
}

fn tell(declared: &Declared) {
    let refused: u64 = declared.refused.values().sum();
    talk!(
        "{} orders: {} commands, of which {} leave an event, {refused} are refused, and {} change \
         nothing",
        declared.orders,
        declared.commands,
        declared.events,
        declared.nothing_to_do
    );
}

fn write(history: &Invented, out: &Path) -> Result<Exit, Failure> {
    let total = history.declared().commands;
    let mut progress = Progress::start("writing command lines");
    let mut sink = Sink::open(out)?;
    for (place, (line, _)) in (1..).zip(history.lines()) {
        sink.line(&line.json)?;
        if place % LINES_PER_LOOK == 0 {
            progress.set(place, total);
        }
    }
    sink.end()?;
    progress.finish(&format!("{total} lines"));
    Ok(Exit::Done)
}

/// Where lines go.
enum Sink<'a> {
    Stdout(Vec<u8>),
    File(&'a Path, BufWriter<File>),
}

impl<'a> Sink<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout(Vec::with_capacity(2 * CHUNK_SIZE)));
        }
        let file = File::create(path).map_err(|error| unwritten(path, &error))?;
        Ok(Self::File(path, BufWriter::with_capacity(CHUNK_SIZE, file)))
    }

    fn line(&mut self, json: &str) -> Result<(), Failure> {
        match self {
            Self::Stdout(chunk) => {
                chunk.extend_from_slice(json.as_bytes());
                chunk.push(b'\n');
                if chunk.len() >= CHUNK_SIZE {
                    output::print(chunk)?;
                    chunk.clear();
                }
                Ok(())
            }
            Self::File(path, file) => {
                let written = file.write_all(json.as_bytes());
                let written = written.and_then(|()| file.write_all(b"\n"));
                written.map_err(|error| unwritten(path, &error))
            }
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(chunk) => output::print(&chunk),
            Self::File(path, mut file) => file.flush().map_err(|error| unwritten(path, &error)),
        }
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying(&format!("write {}", path.display()))
}

/// Where the outcomes are not those that the history declares.
fn difference(declared: &Declared, report: &Report) -> Option<String> {
    let counts = [
        ("accepted", declared.events, report.total.accepted),
        (
            "with nothing to do",
            declared.nothing_to_do,
            report.total.nothing_to_do,
        ),
    ];
    for (what, expected, found) in counts {
        if expected != found {
            return Some(format!("{found} commands were {what}, not {expected}"));
        }
    }
    let refused = report
        .refused
        .iter()
        .map(|(code, count)| (code.as_str(), *count));
    let declared = declared.refused.iter().map(|(code, count)| (*code, *count));
    (!refused.eq(declared)).then(|| "other commands were refused than expected".to_owned())
}
