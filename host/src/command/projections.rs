//! `annals projections …`: shows how far the read models have come, and rebuilds them.
//!
//! Works directly on the log and Postgres, whether a server runs or not. Deliberately absent: how a
//! rebuild is made (`projector`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use event_log::log::EventLog;
use projector::{Actor, Operator, Place, Purpose, Reading, Rebuilt};
use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_claimed, open_log};
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;

const LIST_HELP: &str = "\
gap is the number of records in the log that the rows lack. lag is how long the oldest of them has
been in the log, in seconds. The state outdated means that this program's rule differs from the
rule that made the rows: rebuild the read model. The state stopped means that the read model met a
record or a row that it cannot take up; the column stopped gives the reason.

Example:
  annals projections list --log kafka://localhost:9092/orders --postgres postgresql://…";

const REBUILD_HELP: &str = "\
A rebuild folds the whole log into new tables beside the live ones, then replaces the live tables
in one transaction. Readers see the old rows until then. A running projector goes on with the new
tables. Rights and descriptions that you gave to the views stay. If something of yours depends on
what must be dropped, the command names it beforehand and changes nothing.

Examples:
  annals projections rebuild order_summary --postgres postgresql://…
  annals projections rebuild --all";

const RESUME_HELP: &str = "\
A read model stops at a record or a row that it cannot take up. Remove the cause, then resume the
read model: a running projector tries again within seconds, without a restart, from the same place.

Example:
  annals projections resume payment_mix --postgres postgresql://…";

/// For how long the old tables are kept after a switch.
const KEEP: Duration = Duration::ZERO;

/// What can be done with read models.
#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// Show how far each read model has read the log
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Rebuild read models from the start of the log
    #[command(after_help = REBUILD_HELP)]
    Rebuild(SomeArgs),
    /// Let stopped read models try again from the place where they stopped
    #[command(after_help = RESUME_HELP)]
    Resume(SomeArgs),
}

/// Arguments of `projections list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show one row for each partition
    #[arg(long)]
    partitions: bool,
}

/// Arguments of `projections rebuild` and `projections resume`.
#[derive(Debug, Args)]
pub struct SomeArgs {
    /// Names of the read models
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All read models
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

impl SomeArgs {
    fn names(self, domain: &Domain) -> Vec<String> {
        if !self.all {
            return self.names;
        }
        let all = domain.projections.iter();
        all.map(|projection| projection.name().to_owned()).collect()
    }
}

pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    command: ProjectionsCommand,
) -> Result<Exit, Failure> {
    let postgres = Postgres::open(settings).await?;
    let outcome = match command {
        ProjectionsCommand::List(args) => list(domain, settings, &postgres, &args).await,
        ProjectionsCommand::Rebuild(args) => rebuild(domain, settings, &postgres, args).await,
        ProjectionsCommand::Resume(args) => resume(domain, settings, &postgres, args).await,
    };
    postgres.close().await;
    outcome.map(|()| Exit::Done)
}

/// A generation of a projection, summed over all partitions.
#[derive(Serialize)]
struct Row {
    projection: String,
    version: i32,
    generation: i32,
    state: &'static str,
    position: u64,
    gap: Option<u64>,
    lag_seconds: Option<f64>,
    last_recorded_at: Option<String>,
    stopped: Option<String>,
}

const COLUMNS: [&str; 9] = [
    "projection",
    "version",
    "generation",
    "state",
    "position",
    "gap",
    "lag_seconds",
    "last_recorded_at",
    "stopped",
];
const PLACE_COLUMNS: [&str; 11] = [
    "projection",
    "version",
    "generation",
    "state",
    "partition",
    "position",
    "offset",
    "gap",
    "lag_seconds",
    "last_recorded_at",
    "stopped",
];

async fn list(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: &ListArgs,
) -> Result<(), Failure> {
    require(postgres).await?;
    let log = match open_log(settings).await {
        Ok(log) => Some(log),
        Err(error) => {
            talk!("warning: gap and lag are not shown, because the log cannot be read: {error}");
            None
        }
    };
    let log = log.as_ref().map(|log| &**log as &dyn EventLog);
    let places = projector::list(log, postgres.url(), &domain.projections).await?;
    if places.is_empty() {
        talk!("no projector has written to this database yet");
    }
    if args.partitions {
        output::rows(settings.output, &PLACE_COLUMNS, &places)
    } else {
        output::rows(settings.output, &COLUMNS, &summed(&places))
    }
}

fn summed(places: &[Place]) -> Vec<Row> {
    let same =
        |a: &Place, b: &Place| (&a.projection, a.generation) == (&b.projection, b.generation);
    let sum = |building: &[Place]| {
        let first = building.first()?;
        let gaps: Option<Vec<u64>> = building.iter().map(|place| place.gap).collect();
        let lags = building.iter().filter_map(|place| place.lag_seconds);
        let last = building
            .iter()
            .filter_map(|place| place.last_recorded_at)
            .max();
        // The first stopped partition gives the state of the whole row.
        let stopped = building.iter().find(|place| place.stopped.is_some());
        Some(Row {
            projection: first.projection.clone(),
            version: first.version,
            generation: first.generation,
            state: stopped.unwrap_or(first).state.as_str(),
            position: building.iter().map(|place| place.position.0).sum(),
            gap: gaps.map(|gaps| gaps.iter().sum()),
            lag_seconds: lags.max_by(f64::total_cmp),
            last_recorded_at: last.map(|at| at.to_string()),
            stopped: stopped.and_then(|place| place.stopped.clone()),
        })
    };
    places.chunk_by(same).filter_map(sum).collect()
}

#[derive(Serialize)]
struct RebuiltRow {
    projection: String,
    version: u32,
    generation: i32,
    records_read: u64,
}

async fn rebuild(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: SomeArgs,
) -> Result<(), Failure> {
    require(postgres).await?;
    let log = open_claimed(settings).await?;
    postgres.require_log(&*log).await?;
    let mut rows = Vec::new();
    for name in args.names(domain) {
        let rebuilt = rebuild_one(domain, &log, postgres, &name).await?;
        rows.push(RebuiltRow {
            projection: name,
            version: rebuilt.version,
            generation: rebuilt.generation,
            records_read: rebuilt.records_read,
        });
    }
    let columns = ["projection", "version", "generation", "records_read"];
    output::rows(settings.output, &columns, &rows)
}

#[derive(Serialize)]
struct ResumedRow {
    projection: String,
    partitions: u64,
}

async fn resume(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: SomeArgs,
) -> Result<(), Failure> {
    require(postgres).await?;
    let mut rows = Vec::new();
    for name in args.names(domain) {
        let mut operator = Operator::connect(postgres.url(), &domain.projections).await?;
        let actor = Actor {
            name: "cli",
            reason: "asked on the command line",
        };
        let partitions = operator.resume(&name, actor).await?;
        rows.push(ResumedRow {
            projection: name,
            partitions,
        });
    }
    output::rows(settings.output, &["projection", "partitions"], &rows)
}

async fn rebuild_one(
    domain: &Domain,
    log: &Arc<dyn EventLog>,
    postgres: &Postgres,
    name: &str,
) -> Result<Rebuilt, Failure> {
    let progress = Progress::start(&format!("rebuilding {name}"));
    let shown = Arc::new(Mutex::new(progress));
    let told = Arc::clone(&shown);
    let on_reading = Box::new(move |reading: Reading| {
        let mut progress = told.lock().unwrap_or_else(PoisonError::into_inner);
        progress.set(reading.records_read, reading.records);
    });
    let all = &domain.projections;
    let rebuilt = projector::rebuild(
        log,
        postgres.url(),
        all,
        name,
        Purpose::Switch { keep: KEEP },
        on_reading,
    )
    .await?;
    let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
    progress.finish(&format!("{} records read", rebuilt.records_read));
    Ok(rebuilt)
}

/// Refuses a Postgres that does not answer or is not migrated.
async fn require(postgres: &Postgres) -> Result<(), Failure> {
    let migrations = postgres.migrations().await?;
    if migrations.iter().all(|migration| migration.applied) {
        Ok(())
    } else {
        Err(postgres.unmigrated())
    }
}
