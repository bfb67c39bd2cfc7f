//! `annals projections …`: how far the read models have come, and building one anew.
//!
//! Works on the log and Postgres themselves, whether a server runs or not. Deliberately absent: how
//! a rebuild is made (`projections::runtime`).

use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, Subcommand};
use engine::log::EventLog;
use projections::runtime::{self, Place, Reading, Rebuilt};
use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::node::{Postgres, open_claimed, open_log};
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;

const LIST_HELP: &str = "\
gap is how many records of the log are not in the rows yet; lag is since when, in seconds. A state
of outdated asks for a rebuild: this program's rule is another than the one that made the rows.

Example:
  annals projections list --log kafka://localhost:9092/orders --postgres postgres://…";

const REBUILD_HELP: &str = "\
A rebuild folds the whole log into new tables beside the live ones, then lets them take their place
in one transaction. Readers see the old rows until then; a projector that runs goes on with the new.

Examples:
  annals projections rebuild order_summary --postgres postgres://…
  annals projections rebuild --all";

/// What can be done with read models.
#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// Show how far every read model has come
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Build read models anew from the log
    #[command(after_help = REBUILD_HELP)]
    Rebuild(RebuildArgs),
}

/// Arguments of `projections list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// A row for each partition
    #[arg(long)]
    partitions: bool,
}

/// Arguments of `projections rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// The read models
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
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
    };
    postgres.close().await;
    outcome.map(|()| Exit::Done)
}

/// A building of a projection, over all partitions.
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
}

const COLUMNS: [&str; 8] = [
    "projection",
    "version",
    "generation",
    "state",
    "position",
    "gap",
    "lag_seconds",
    "last_recorded_at",
];
const PLACE_COLUMNS: [&str; 10] = [
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
            eprintln!("warning: without gap and lag: {error}");
            None
        }
    };
    let log = log.as_ref().map(|log| &**log as &dyn EventLog);
    let places = runtime::list(log, postgres.url(), &domain.projections).await?;
    if places.is_empty() {
        eprintln!("no projector has written here yet");
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
        Some(Row {
            projection: first.projection.clone(),
            version: first.version,
            generation: first.generation,
            state: first.state.as_str(),
            position: building.iter().map(|place| place.position.0).sum(),
            gap: gaps.map(|gaps| gaps.iter().sum()),
            lag_seconds: lags.max_by(f64::total_cmp),
            last_recorded_at: last.map(|at| at.to_string()),
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
    args: RebuildArgs,
) -> Result<(), Failure> {
    require(postgres).await?;
    let log = open_claimed(settings).await?;
    postgres.require_log(&*log).await?;
    let names = if args.all {
        domain
            .projections
            .iter()
            .map(|p| p.name().to_owned())
            .collect()
    } else {
        args.names
    };
    let mut rows = Vec::new();
    for name in names {
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
    let rebuilt = runtime::rebuild(log, postgres.url(), all, name, on_reading).await?;
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
