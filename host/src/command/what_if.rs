//! `annals what-if`: judges the recorded commands of a log again with the rules of another program, and
//! says what would differ. The log is only read.
//!
//! Invariant: the same log and the same program give the same report, byte for byte; memory does not
//! grow with the log. Deliberately absent: the judgement (`rules`), which the other program makes.

mod building;
mod program;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use event_log::accepted::Accepted;
use event_log::log::EventLog;
use event_log::subscription::{Batch, SubscriptionError};
use position::{Offset, Partition};

use self::building::Building;
use self::program::Judge;
use self::report::Report;
use super::accepted::line;
use super::known;
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::open_log;
use crate::output;
use crate::progress::Progress;
use crate::settings::{Flags, Settings};
use crate::signals::{HangUp, Stop};

/// The help text after the options.
pub(crate) const HELP: &str = "\
The log is read and never written. PROGRAM is another build of a program on Annals, such as a release
with changed rules: it is started as PROGRAM rules judge, and judges each command against what its
stream would be under its own rules. Streams do not depend on each other. After the first difference
that changes the events of a stream, the later differences of that stream are counted apart, because
they may follow from it.

A command whose data was recorded only as a digest, or that PROGRAM cannot read, is listed as not
judgeable and counts as it was recorded. Commands that were turned away left no record.

Exit codes: 0 nothing differs; 1 something differs; 8 nothing differs, but something could not be
judged or the command was interrupted; 5 the log is damaged. After Ctrl-C the report says what is known
so far, and up to which places.

Examples:
  annals what-if --rules ./annals-next --from sqlite:.annals/log.db
  annals what-if --rules ./annals-next --output json | jq .differences
  annals what-if --rules ./annals-next --into next_rules --model MODEL";

/// Arguments of `what-if`.
#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// The program whose rules judge
    #[arg(long, value_name = "PROGRAM")]
    rules: PathBuf,
    /// The log whose commands are judged [default: that of --log]
    #[arg(long, value_name = "LOG", conflicts_with = "log")]
    from: Option<String>,
    /// How many examples are kept of each rule
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    examples: u32,
    /// Build the read models of the projection --model twice in Postgres, and compare them row by row:
    /// in this schema from what the rules of PROGRAM decide, and in SCHEMA_as_it_is from what was
    /// recorded
    #[arg(long, value_name = "SCHEMA", requires = "model")]
    into: Option<String>,
    /// The projection whose read models are built by --into
    #[arg(long, value_name = "NAME", requires = "into")]
    model: Option<String>,
    /// Replace the schemas of an earlier call with --into
    #[arg(long, requires = "into")]
    replace: bool,
    /// How long PROGRAM may take to judge one command, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    answer_timeout_ms: u64,
}

impl WhatIfArgs {
    /// Adds the settings that were typed.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.add("log", self.from.as_ref());
    }
}

/// How the reading of the log ended.
enum End {
    Whole,
    /// A stop was asked for.
    Stopped,
    Damaged,
}

/// What judges, and what becomes of the verdicts.
struct Work {
    judge: Judge,
    report: Report,
    building: Option<Building>,
    stop: Stop,
}

/// Runs `what-if`.
pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    args: &WhatIfArgs,
) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let starting = Judge::start(&args.rules, args.answer_timeout_ms, args.into.is_some());
    let judge = tokio::select! {
        biased;
        () = stop.asked() => return Err(interrupted()),
        judge = starting => judge?,
    };
    let mut work = Work {
        report: Report::new(&judge, args.examples as usize),
        judge,
        building: Building::begin(domain, settings, &*log, args).await?,
        stop,
    };
    let end = work.judge_all(&log).await?;
    let Work {
        judge,
        mut report,
        building,
        ..
    } = work;
    let is_whole = matches!(end, End::Whole);
    judge.end(!matches!(end, End::Stopped)).await?;
    report.complete = is_whole;
    // The verdicts are shown, whatever becomes of the read models.
    let built = match building {
        Some(building) => building.finish(is_whole).await.map(Some),
        None => Ok(None),
    };
    let built = built.map(|built| report.read_models = built);
    match end {
        End::Whole => {}
        End::Stopped => talk!("interrupted: the report says what is known so far"),
        End::Damaged => {
            let address = log.address();
            talk!(
                "the report says what is known before the damage; examine the places named above: \
                 annals log verify --log {address}"
            );
        }
    }
    report.show(settings)?;
    built?;
    Ok(match end {
        End::Damaged => Exit::Damage,
        End::Stopped | End::Whole => report.exit(),
    })
}

/// Why a partition was not judged to its end.
enum Unjudged {
    Log(SubscriptionError),
    Failed(Failure),
    Stopped,
}

impl Work {
    /// Reads the log up to the ends that it has now, partition by partition, and has it judged.
    async fn judge_all(&mut self, log: &Arc<dyn EventLog>) -> Result<End, Failure> {
        let mut ends = Vec::new();
        for partition in (0..log.partition_count()).map(Partition) {
            ends.push((partition, log.bounds(partition).await?.end));
        }
        let total = known::record_count(&**log).await?;
        let mut progress = Progress::start("judging again");
        let mut is_damaged = false;
        for (partition, end) in ends {
            let told = |commands: u64| progress.set(commands, total.max(commands));
            match self.judge_partition(log, (partition, end), told).await {
                Ok(()) => {}
                Err(Unjudged::Stopped) => return Ok(End::Stopped),
                Err(Unjudged::Log(SubscriptionError::Stop(stop))) if stop.place().is_some() => {
                    talk!("DAMAGE: {}", output::shown(&stop.to_string()));
                    is_damaged = true;
                }
                Err(Unjudged::Log(SubscriptionError::Stop(stop))) => return Err(stop.into()),
                Err(Unjudged::Log(SubscriptionError::Log(error))) => return Err(error.into()),
                Err(Unjudged::Failed(failure)) => return Err(failure),
            }
        }
        progress.finish(&format!("{} commands", self.report.totals.commands));
        Ok(if is_damaged { End::Damaged } else { End::Whole })
    }

    async fn judge_partition(
        &mut self,
        log: &Arc<dyn EventLog>,
        (partition, end): (Partition, Offset),
        mut told: impl FnMut(u64),
    ) -> Result<(), Unjudged> {
        let opened = Accepted::open(Arc::clone(log), partition, None, end).await;
        let mut commits = opened.map_err(Unjudged::Log)?;
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.asked() => return Err(Unjudged::Stopped),
                batch = commits.next() => batch.map_err(Unjudged::Log)?,
            };
            let Some(batch) = batch else {
                return Ok(());
            };
            self.report.reads(&batch);
            self.judge_batch(&batch).await?;
            told(self.report.totals.commands);
        }
    }

    /// Asks and hears at once: neither side ever waits for the other one to read.
    async fn judge_batch(&mut self, batch: &Batch) -> Result<(), Unjudged> {
        let Self {
            judge,
            report,
            building,
            stop,
        } = self;
        let (asking, hearing) = judge.sides();
        let ask = async {
            for placed in &batch.commits {
                let line = line(placed.partition, &placed.record, placed.position);
                // If the program ended, the other side says how.
                if !asking.ask(line.as_bytes()).await {
                    break;
                }
            }
            asking.flush().await;
        };
        let hear = async {
            for placed in &batch.commits {
                let answer = tokio::select! {
                    biased;
                    () = stop.asked() => return Err(Unjudged::Stopped),
                    answer = hearing.answer(placed) => answer.map_err(Unjudged::Failed)?,
                };
                report.take(placed, &answer);
                if let Some(building) = building {
                    let taken = building.take(placed, &answer).await;
                    taken.map_err(Unjudged::Failed)?;
                }
            }
            Ok(())
        };
        tokio::pin!(ask, hear);
        tokio::select! {
            heard = &mut hear => return heard,
            () = &mut ask => {}
        }
        hear.await
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Partial, "interrupted before any command was judged")
}
