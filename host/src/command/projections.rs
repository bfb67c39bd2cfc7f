//! `annals projections …`: shows how the read models are doing, rebuilds them, and controls them.
//!
//! Works directly on the log and Postgres, whether a server runs or not; running servers see what
//! was asked for within a second. Deliberately absent: how anything is done (`projector`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use event_log::log::EventLog;
use projector::{Actor, Comparison, Operator, Purpose, Reading, Rebuild, Rebuilt, RuntimeError};
use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_claimed};
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;

mod help;
mod list;
mod verify;

/// What can be done with read models.
#[derive(Debug, Subcommand)]
pub enum ProjectionsCommand {
    /// Show how each read model is doing
    #[command(after_help = help::LIST_HELP)]
    List(ListArgs),
    /// Rebuild read models from the start of the log
    #[command(after_help = help::REBUILD_HELP)]
    Rebuild(RebuildArgs),
    /// Compare read models with the log
    #[command(after_help = help::VERIFY_HELP)]
    Verify(verify::VerifyArgs),
    /// Let read models stand still
    #[command(after_help = help::PAUSE_HELP)]
    Pause(SomeArgs),
    /// Let stopped and paused read models go on
    #[command(after_help = help::RESUME_HELP)]
    Resume(SomeArgs),
    /// Let the views show what a rebuild has made
    #[command(after_help = help::SWITCH_HELP)]
    Switch(SwitchArgs),
    /// Let the views show again what they showed before
    #[command(after_help = help::ROLLBACK_HELP)]
    Rollback(SwitchArgs),
    /// Drop what a rebuild is making
    #[command(after_help = help::CANCEL_HELP)]
    Cancel(SomeArgs),
    /// Drop a read model that this program does not have any more
    #[command(after_help = help::DROP_HELP)]
    Drop(OneArgs),
}

/// Arguments of `projections list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show one row for each generation and partition
    #[arg(long)]
    partitions: bool,
}

/// Who asks, and why.
#[derive(Debug, Args)]
pub struct ActorArgs {
    /// Why; it is kept with the record of what was done
    #[arg(long, value_name = "TEXT", default_value = "not given")]
    reason: String,
    /// Who; by default the user of this machine
    #[arg(long = "by", value_name = "NAME")]
    by: Option<String>,
}

impl ActorArgs {
    /// The name and the reason.
    pub(super) fn said(self) -> (String, String) {
        let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        let by = self.by.or_else(|| user().ok());
        (by.unwrap_or_else(|| "unknown".to_owned()), self.reason)
    }
}

/// Arguments that name read models.
#[derive(Debug, Args)]
pub struct SomeArgs {
    #[command(flatten)]
    named: NamedArgs,
    #[command(flatten)]
    actor: ActorArgs,
}

/// The named read models, or all.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Names of the read models
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All read models
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

/// Arguments of `projections rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Leave the new tables beside the live ones
    #[arg(long)]
    no_switch: bool,
    /// For how long the old tables are kept, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        conflicts_with = "no_switch"
    )]
    keep: u64,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Arguments of `projections switch` and `projections rollback`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Name of the read model
    #[arg(value_name = "NAME")]
    name: String,
    /// For how long the tables are kept that are live now, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    keep: u64,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Arguments that name one read model.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Name of the read model
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    actor: ActorArgs,
}

impl NamedArgs {
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
    use ProjectionsCommand as C;
    projector::check_declarations(&domain.projections)?;
    let postgres = Postgres::open(settings).await?;
    let outcome = match command {
        C::List(args) => list::list(domain, settings, &postgres, &args).await,
        C::Rebuild(args) => rebuild(domain, settings, &postgres, args).await,
        C::Verify(args) => verify::run(domain, settings, &postgres, args).await,
        command => control(domain, settings, &postgres, command).await,
    };
    postgres.close().await;
    outcome
}

#[derive(Serialize)]
struct RebuiltRow {
    projection: String,
    version: u32,
    generation: i32,
    records_read: u64,
    differences: Option<usize>,
}

async fn rebuild(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: RebuildArgs,
) -> Result<Exit, Failure> {
    require(postgres).await?;
    let log = open_claimed(settings).await?;
    postgres.require_log(&*log).await?;
    let purpose = match args.no_switch {
        true => Purpose::Wait,
        false => Purpose::Switch {
            keep: Duration::from_secs(args.keep),
        },
    };
    let (by, why) = args.actor.said();
    let who = actor(&by, &why);
    let mut rows = Vec::new();
    for name in args.named.names(domain) {
        let asked = asked(settings, &name, purpose, who);
        let rebuilt = rebuild_one(domain, &log, postgres, asked).await?;
        if let Some(comparison) = &rebuilt.comparison {
            for line in differences(comparison) {
                talk!("{name}: {line}");
            }
        }
        let found = rebuilt.comparison.as_ref();
        rows.push(RebuiltRow {
            projection: name,
            version: rebuilt.version,
            generation: rebuilt.generation,
            records_read: rebuilt.records_read,
            differences: found.map(|found| differences(found).len()),
        });
    }
    let columns = [
        "projection",
        "version",
        "generation",
        "records_read",
        "differences",
    ];
    output::rows(settings.output, &columns, &rows)?;
    Ok(Exit::Done)
}

/// What differs between the live tables and those that were made from the log.
fn differences(comparison: &Comparison) -> Vec<String> {
    let mut lines = Vec::new();
    for table in comparison.tables.iter().filter(|table| !table.equal) {
        let name = &table.table;
        if table.rows != table.rows_live {
            lines.push(format!(
                "{name} has {} rows, and {} by the log",
                table.rows_live, table.rows
            ));
        }
        for difference in &table.differences {
            let (key, shown) = (&difference.key, |value: &Option<String>| {
                value.clone().unwrap_or_else(|| "nothing".to_owned())
            });
            let column = difference.column.as_deref().unwrap_or("the row");
            lines.push(format!(
                "{name} {key}: {column} is {}, and {} by the log",
                shown(&difference.live),
                shown(&difference.new)
            ));
        }
        if lines.is_empty() {
            lines.push(format!("{name} differs"));
        }
    }
    lines
}

#[derive(Serialize)]
struct ControlledRow {
    projection: String,
    done: String,
}

async fn control(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    command: ProjectionsCommand,
) -> Result<Exit, Failure> {
    use ProjectionsCommand as C;
    require(postgres).await?;
    let mut operator = Operator::connect(postgres.url(), &domain.projections).await?;
    let mut rows = Vec::new();
    match command {
        C::Pause(args) => {
            let (by, why) = args.actor.said();
            for name in args.named.names(domain) {
                operator.pause(&name, actor(&by, &why)).await?;
                rows.push(done(name, "paused"));
            }
        }
        C::Resume(args) => {
            let (by, why) = args.actor.said();
            for name in args.named.names(domain) {
                let partitions = operator.resume(&name, actor(&by, &why)).await?;
                let what = match partitions {
                    0 => "goes on".to_owned(),
                    count => format!("tries again in {count} partitions"),
                };
                rows.push(done(name, what));
            }
        }
        C::Cancel(args) => {
            let (by, why) = args.actor.said();
            for name in args.named.names(domain) {
                let dropped = operator.cancel(&name, actor(&by, &why)).await?;
                rows.push(done(name, format!("{dropped} generations dropped")));
            }
        }
        C::Switch(args) => {
            let (by, why) = args.actor.said();
            let keep = Duration::from_secs(args.keep);
            let number = operator.switch(&args.name, keep, actor(&by, &why)).await?;
            rows.push(done(args.name, format!("generation {number} is live")));
        }
        C::Rollback(args) => {
            let (by, why) = args.actor.said();
            let keep = Duration::from_secs(args.keep);
            let number = operator.roll_back(&args.name, keep, actor(&by, &why));
            let number = number.await?;
            rows.push(done(args.name, format!("generation {number} is live")));
        }
        C::Drop(args) => {
            let (by, why) = args.actor.said();
            let dropped = operator.drop_projection(&args.name, actor(&by, &why));
            if dropped.await? == 0 {
                let said = format!("this database has no read model {:?}", args.name);
                return Err(Failure::new(Exit::NotFound, said));
            }
            rows.push(done(args.name, "dropped"));
        }
        C::List(_) | C::Rebuild(_) | C::Verify(_) => unreachable!("these are no controls"),
    }
    output::rows(settings.output, &["projection", "done"], &rows)?;
    Ok(Exit::Done)
}

fn done(projection: String, what: impl Into<String>) -> ControlledRow {
    ControlledRow {
        projection,
        done: what.into(),
    }
}

/// Who asks on the command line.
pub(super) fn actor<'a>(name: &'a str, reason: &'a str) -> Actor<'a> {
    Actor { name, reason }
}

fn asked<'a>(settings: &Settings, name: &'a str, purpose: Purpose, who: Actor<'a>) -> Rebuild<'a> {
    Rebuild {
        name,
        purpose,
        actor: Some(who),
        share: settings.projector_rebuild_share,
    }
}

async fn rebuild_one(
    domain: &Domain,
    log: &Arc<dyn EventLog>,
    postgres: &Postgres,
    asked: Rebuild<'_>,
) -> Result<Rebuilt, RuntimeError> {
    let what = match asked.purpose {
        Purpose::Switch { .. } | Purpose::Wait => "rebuilding",
        Purpose::Verify => "verifying",
    };
    let progress = Progress::start(&format!("{what} {}", asked.name));
    let shown = Arc::new(Mutex::new(progress));
    let told = Arc::clone(&shown);
    let on_reading = Box::new(move |reading: Reading| {
        let mut progress = told.lock().unwrap_or_else(PoisonError::into_inner);
        progress.set(reading.records_read, reading.records);
    });
    let all = &domain.projections;
    let rebuilt = projector::rebuild_as(asked, log, postgres.url(), all, on_reading).await?;
    let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
    progress.finish(&format!("{} records read", rebuilt.records_read));
    Ok(rebuilt)
}

/// Refuses a Postgres that does not answer or is not migrated.
pub(super) async fn require(postgres: &Postgres) -> Result<(), Failure> {
    let migrations = postgres.migrations().await?;
    if migrations.iter().all(|migration| migration.applied) {
        Ok(())
    } else {
        Err(postgres.unmigrated())
    }
}
