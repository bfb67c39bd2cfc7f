//! `annals log …`: makes, shows, verifies, copies and dumps a log.
//!
//! Deliberately absent: the protocol (`event_log`); the checkpoints that `--against` compares with
//! (`known`); the reading behind a dump (`raw`, `accepted`).

use std::time::Duration;

use clap::{Args, Subcommand};
use event_log::create::{CreateOptions, create, first_claim};
use event_log::log::{LogAddress, StoreOptions};
use event_log::verify::{PartitionReport, Report};
use kernel::registry::Registry;
use position::Partition;
use serde::Serialize;
use serde_json::{Value, json};

use super::{accepted, known, raw};
use crate::exit::{Exit, Failure, explained};
use crate::logging::talk;
use crate::node::{create_parent, open_log, partition_count};
use crate::output;
use crate::progress::Progress;
use crate::settings::{OutputFormat, Settings};

const CREATE_HELP: &str = "\
The command may be repeated: it keeps what exists and completes what is missing. The number of
partitions can never be changed; 16 are enough for one shop for a long time. In production a log on
Kafka needs --replication 3 and min.insync.replicas=2, because a single broker may lose
acknowledged records when the power fails. The idempotency window is how long a command id is
remembered: within it, the same id gets the same answer.

Examples:
  annals log create --log sqlite:.annals/log.db
  annals log create --log kafka://localhost:9092/orders --replication 3 --idempotency-window 48h";

const INFO_HELP: &str = "\
Example:
  annals log info --log kafka://localhost:9092/orders --output json";

const VERIFY_HELP: &str = "\
Reads every record and checks it against the chain. The command names each changed, removed or
inserted record by partition and offset, and ends with code 5. With --against it also compares the
log with the checkpoints of its readers. This finds a lost tail, or a log that was replaced as a
whole.

Examples:
  annals log verify --log sqlite:.annals/log.db
  annals log verify --log kafka://localhost:9092/orders --against postgres --postgres postgresql://…";

const COPY_HELP: &str = "\
Copies every record. The identity, the partitions and the chain stay the same, and a claim at the
end names the source. Let nobody write to the source or the copy while the command runs. To
continue an interrupted copy, repeat the command.

Example:
  annals log copy --log sqlite:.annals/log.db --to kafka://localhost:9092/orders --replication 3";

const DUMP_HELP: &str = "\
Writes every record of the log as JSON lines on stdout, including records that no reader accepts.
The first line holds the partitions and their offsets. Each further line is a record, with key,
value and headers in base64. The command checks nothing.
Such a dump is read by annals check-history.

With --accepted, the command writes only the commits that count, each as one line with partition,
offset, position and the commit as it stands in the log. It checks the chain as every reader does.
At damage it stops reading that partition, reads the others, and ends with code 5. With --follow it
then waits for new commits, until Ctrl-C. Lines of different partitions are in no common order, and
commits that were read together with damage are not written.

Examples:
  annals log dump --log kafka://localhost:9092/orders | zstd > orders.ndjson.zst
  annals log dump --accepted --log sqlite:.annals/log.db | jq .commit.stream
  annals log dump --accepted --follow --log kafka://localhost:9092/orders";

/// What can be done with a log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Create a log, or finish a log whose creation was interrupted
    #[command(after_help = CREATE_HELP)]
    Create(CreateArgs),
    /// Show the identity, the partitions and the idempotency window of a log
    #[command(after_help = INFO_HELP)]
    Info,
    /// Check that no record of a log was changed, removed or inserted
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Copy a log, with its chain, to another store
    #[command(after_help = COPY_HELP)]
    Copy(CopyArgs),
    /// Write every record unchanged, or every accepted commit, as JSON lines
    #[command(after_help = DUMP_HELP)]
    Dump(DumpArgs),
}

/// Arguments of `log create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Number of partitions; it can never be changed [default: that of the existing log, else 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: Option<u32>,
    /// Number of brokers that keep each partition
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=9))]
    replication: u16,
    /// How long a command id is remembered, such as 90m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    idempotency_window: Duration,
}

/// Arguments of `log verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Also compare the log with the checkpoints of its readers: postgres (those of the read
    /// models), local (those of the owners, in --data)
    #[arg(long, value_name = "WHOM", value_delimiter = ',')]
    against: Vec<known::Whom>,
}

/// Arguments of `log copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Address of the copy
    #[arg(long, value_name = "ADDRESS")]
    to: LogAddress,
    /// Number of brokers that keep each partition of the copy
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=9))]
    replication: u16,
}

/// Arguments of `log dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Write only the commits that count, with partition, offset and position
    #[arg(long)]
    accepted: bool,
    /// With --accepted: go on with new commits until Ctrl-C
    #[arg(long, requires = "accepted")]
    follow: bool,
}

/// Parses a duration with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("a number with ms, s, m, h or d, such as 24h, not {text:?}");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wanted()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or_else(wanted)
}

pub(super) async fn run(
    registry: &Registry,
    settings: &Settings,
    command: LogCommand,
) -> Result<Exit, Failure> {
    match command {
        LogCommand::Create(args) => make(settings, &args).await,
        LogCommand::Info => info(settings).await,
        LogCommand::Verify(args) => verify(registry, settings, &args).await,
        LogCommand::Copy(args) => copy(settings, &args).await,
        LogCommand::Dump(args) if args.follow => accepted::follow(settings).await,
        LogCommand::Dump(args) if args.accepted => accepted::dump(settings).await,
        LogCommand::Dump(_) => raw::dump(settings).await,
    }
}

#[derive(Serialize)]
struct Made {
    log: String,
    log_id: String,
    partitions: u32,
    made: bool,
}

async fn make(settings: &Settings, args: &CreateArgs) -> Result<Exit, Failure> {
    create_parent(&settings.log)?;
    let partition_count = match args.partitions {
        Some(asked) => asked,
        None => partition_count(settings).await?,
    };
    let window_ms = args.idempotency_window.as_millis();
    let options = CreateOptions {
        store: StoreOptions {
            partition_count,
            replication: args.replication,
        },
        idempotency_window_ms: u64::try_from(window_ms).unwrap_or(u64::MAX),
        node: settings.node.clone(),
    };
    let (log, id, made) = create(settings.log_place(), &options).await?;
    for warning in log.check().await? {
        talk!("warning: {warning}");
    }
    if !made {
        talk!("the log already exists; nothing was changed");
    }
    let row = Made {
        log: log.address().to_string(),
        log_id: id.to_string(),
        partitions: log.partition_count(),
        made,
    };
    let columns = ["log", "log_id", "partitions", "made"];
    output::record(settings.output, &columns, &row)?;
    Ok(Exit::Done)
}

async fn copy(settings: &Settings, args: &CopyArgs) -> Result<Exit, Failure> {
    if args.to == settings.log {
        let message = "source (--log) and target (--to) are the same";
        return Err(Failure::new(Exit::Usage, message));
    }
    create_parent(&args.to)?;
    let log = open_log(settings).await?;
    let store = StoreOptions {
        partition_count: log.partition_count(),
        replication: args.replication,
    };
    let total = known::record_count(&*log).await?;
    let mut progress = Progress::start("copying");
    let to = settings.place_of(&args.to);
    let copied = event_log::copy::copy(&*log, to, store, |done| progress.set(done, total)).await?;
    progress.finish(&format!(
        "{} records copied, {} were already there",
        copied.records, copied.present
    ));
    let columns = ["log_id", "records", "present"];
    output::record(settings.output, &columns, &copied)?;
    Ok(Exit::Done)
}

const PARTITION_COLUMNS: [&str; 9] = [
    "partition",
    "records",
    "position",
    "term",
    "accepted",
    "rejected",
    "events",
    "orphans",
    "damage",
];

async fn verify(
    registry: &Registry,
    settings: &Settings,
    args: &VerifyArgs,
) -> Result<Exit, Failure> {
    let log = open_log(settings).await?;
    let known = known::checkpoints(settings, &*log, &args.against).await?;
    let mut progress = Progress::start("verifying");
    let report = event_log::verify::verify(&*log, registry, &known, |done, total| {
        progress.set(done, total);
    });
    let report = report.await?;
    let records: u64 = report.partitions.iter().map(|part| part.records).sum();
    let compared = match known.len() {
        0 => String::new(),
        count => format!(" and {count} checkpoints compared"),
    };
    progress.finish(&format!("{records} records read{compared}"));
    if settings.output == OutputFormat::Json {
        output::record(settings.output, &[], &report)?;
    } else {
        let rows: Vec<Value> = report.partitions.iter().map(partition_row).collect();
        output::rows(settings.output, &PARTITION_COLUMNS, &rows)?;
    }
    Ok(verdict(&report))
}

/// A partition as one row: the orphans as text.
fn partition_row(part: &PartitionReport) -> Value {
    let orphans = part.orphans.iter();
    let orphans = orphans.map(|(reason, count)| format!("{count} {}", reason.as_str()));
    let orphans = orphans.collect::<Vec<_>>().join(", ");
    let mut row = json!(part);
    row["orphans"] = Value::String(orphans);
    row
}

/// Says in words what was found.
fn verdict(report: &Report) -> Exit {
    for part in &report.partitions {
        for (offset, reason) in &part.orphan_places {
            talk!(
                "note: partition {} offset {offset}: a record that no reader accepts ({})",
                part.partition,
                reason.as_str()
            );
        }
        for (offset, what) in &part.unreadable_places {
            talk!(
                "UNREADABLE: partition {} offset {offset}: {}",
                part.partition,
                // On one line: text from the data must not look like a line of this program.
                output::shown(what)
            );
        }
        if let Some(damage) = &part.damage {
            talk!("DAMAGE: {}", output::shown(damage));
        }
    }
    for mismatch in &report.mismatches {
        talk!(
            "DAMAGE: partition {} offset {}: {} (known from {})",
            mismatch.partition,
            mismatch.offset,
            mismatch.reason,
            mismatch.source
        );
    }
    if report.is_clean() {
        talk!("the log is complete and unaltered");
        Exit::Done
    } else if report.is_whole() {
        talk!(
            "the log is complete and unaltered, but this program cannot read {} of its events; \
             their streams stay frozen until a program that can read them runs",
            report.unreadable_events()
        );
        Exit::Damage
    } else {
        talk!("the log is DAMAGED; change nothing, and look at the places named above");
        Exit::Damage
    }
}

const INFO_COLUMNS: [&str; 7] = [
    "partition",
    "first_offset",
    "end_offset",
    "claimed_by",
    "window_hours",
    "last_append",
    "copied_from",
];

async fn info(settings: &Settings) -> Result<Exit, Failure> {
    let log = open_log(settings).await?;
    let warnings = log.check().await;
    let info = known::info(&*log).await?;
    if settings.output == OutputFormat::Json {
        output::record(settings.output, &[], &info)?;
    } else {
        talk!("log        {}", info.log);
        match &info.log_id {
            Some(id) => talk!("identity   {id}"),
            None => match first_claim(&*log, Partition(0)).await {
                Err(error) => talk!("identity   {}", explained(&error)),
                Ok(_) => {
                    let finish = format!("annals log create --log {}", info.log);
                    talk!("identity   none yet; finish the log with: {finish}");
                }
            },
        }
        output::rows(settings.output, &INFO_COLUMNS, &info.partitions)?;
    }
    for warning in warnings? {
        talk!("warning: {warning}");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("90m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for text in [
            "",
            "24",
            "h",
            "-1h",
            "1.5h",
            "0s",
            "1 h",
            "99999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
