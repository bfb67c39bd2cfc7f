//! `annals parked …`: streams that a read model could not take up, and what becomes of them.
//!
//! Deliberately absent: how a stream is parked or taken up (`projector`).

use clap::{Args, Subcommand};
use kernel::{StreamName, TenantId, Timestamp};
use projector::{Operator, ParkedDetails, ParkedStream, ParkedWish, WAITING_MAX, WaitingCommit};
use serde::Serialize;
use serde_json::value::RawValue;

use super::projections::{ActorArgs, actor, require};
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_log};
use crate::output;
use crate::settings::{OutputFormat, Settings};

const LIST_HELP: &str = "\
A read model that cannot take up a commit parks the commit's stream, with everything behind it, and
goes on with the other streams. commits is the number of commits that wait.

Examples:
  annals parked list
  annals parked list order_summary --output json";

const SHOW_HELP: &str = "\
Shows why the stream is parked, and the events of the first commits that wait, as the log has them.

Examples:
  annals parked show order_summary example-1
  annals parked show order_summary example-1 --limit 100 --output json";

const RETRY_HELP: &str = "\
Remove the cause first, for example with a corrected program. A running projector then takes up the
waiting commits in their order within a second; if it fails again, the stream stays parked.

Example:
  annals parked retry order_summary example-1 --reason 'the rule is corrected'";

const DISCARD_HELP: &str = "\
Leaves the first waiting commit out of this read model for ever: every rebuild and verification
leaves it out, too. The log keeps it. The rest of the stream stays parked until it is retried.

Example:
  annals parked discard order_summary example-1 --reason 'a test order of the load test'";

/// The most streams that are listed.
const LISTED_MAX: i64 = 1_000;

/// What can be done with parked streams.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// Show the parked streams
    #[command(after_help = LIST_HELP)]
    List {
        /// Only those of this read model
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Show a parked stream and the events that wait
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Take a stream up again
    #[command(after_help = RETRY_HELP)]
    Retry(ParkedArgs),
    /// Leave the first waiting commit of a stream out for ever
    #[command(after_help = DISCARD_HELP)]
    Discard(ParkedArgs),
}

/// Arguments that name a parked stream.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Name of the read model
    #[arg(value_name = "NAME")]
    name: String,
    /// The stream
    #[arg(value_name = "STREAM")]
    stream: StreamName,
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = TenantId::MAIN)]
    tenant: TenantId,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// The most commits that are shown
    #[arg(long, value_name = "COUNT", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(WAITING_MAX)))]
    limit: u32,
}

/// Arguments of what changes a parked stream.
#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(flatten)]
    of: StreamArgs,
    #[command(flatten)]
    actor: ActorArgs,
}

const COLUMNS: [&str; 10] = [
    "projection",
    "tenant",
    "stream",
    "partition",
    "position",
    "event_type",
    "commits",
    "parked_at",
    "attempts",
    "reason",
];

const WAITING_COLUMNS: [&str; 12] = [
    "position",
    "recorded_at",
    "version",
    "type",
    "schema",
    "actor",
    "command",
    "command_id",
    "correlation_id",
    "causation_id",
    "traceparent",
    "data",
];

#[derive(Serialize)]
struct AskedRow {
    projection: String,
    stream: String,
    asked: &'static str,
}

pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    command: ParkedCommand,
) -> Result<Exit, Failure> {
    let postgres = Postgres::open(settings).await?;
    let outcome = run_on(domain, settings, &postgres, command).await;
    postgres.close().await;
    outcome.map(|()| Exit::Done)
}

async fn run_on(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    command: ParkedCommand,
) -> Result<(), Failure> {
    require(postgres).await?;
    let mut operator = Operator::connect(postgres.url(), &domain.projections).await?;
    let (args, wish, asked) = match command {
        ParkedCommand::List { name } => {
            let parked = operator.parked(name.as_deref(), None, LISTED_MAX).await?;
            return list(settings, &parked);
        }
        ParkedCommand::Show(args) => {
            let log = open_log(settings).await?;
            let (of, limit) = (&args.of, args.limit);
            let (tenant, stream) = (of.tenant.as_str(), of.stream.as_str());
            let found = operator.parked_stream(&*log, &of.name, tenant, stream, limit);
            let found = found.await?.ok_or_else(|| not_parked(of))?;
            return show(settings, &found);
        }
        ParkedCommand::Retry(args) => (args, ParkedWish::Retry, "retry"),
        ParkedCommand::Discard(args) => (args, ParkedWish::Discard, "discard"),
    };
    let (by, why) = args.actor.said();
    let of = args.of;
    let (tenant, stream) = (of.tenant.as_str(), of.stream.as_str());
    let is_parked = operator.wish(&of.name, tenant, stream, wish, actor(&by, &why));
    if !is_parked.await? {
        return Err(not_parked(&of));
    }
    let row = AskedRow {
        stream: stream.to_owned(),
        projection: of.name,
        asked,
    };
    output::rows(settings.output, &["projection", "stream", "asked"], &[row])
}

fn not_parked(of: &StreamArgs) -> Failure {
    let StreamArgs {
        name,
        stream,
        tenant,
    } = of;
    let said = format!(
        "{name} has not parked {stream} of tenant {tenant}; parked list shows what is parked"
    );
    Failure::new(Exit::NotFound, said)
}

/// An event that waits, or a commit that has none or cannot be shown.
#[derive(Serialize)]
struct WaitingRow<'a> {
    position: u64,
    recorded_at: Option<Timestamp>,
    version: Option<u64>,
    #[serde(rename = "type")]
    type_name: &'a str,
    schema: Option<u16>,
    actor: Option<String>,
    command: Option<&'a str>,
    command_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    causation_id: Option<&'a str>,
    traceparent: Option<&'a str>,
    data: Option<&'a RawValue>,
}

fn waiting_rows(commit: &WaitingCommit) -> Vec<WaitingRow<'_>> {
    let row = |type_name| WaitingRow {
        position: commit.position,
        recorded_at: commit.recorded_at,
        version: None,
        type_name,
        schema: None,
        actor: commit
            .actor
            .as_ref()
            .map(|actor| format!("{}:{}", actor.kind.as_str(), actor.id)),
        command: commit.command.as_ref().map(kernel::TypeName::as_str),
        command_id: commit.command_id.as_deref(),
        correlation_id: commit.correlation_id.as_deref(),
        causation_id: commit.causation_id.as_deref(),
        traceparent: commit.traceparent.as_deref(),
        data: None,
    };
    if let Some(why) = &commit.unreadable {
        return vec![row(why)];
    }
    if commit.events.is_empty() {
        return vec![row(match commit.refusal {
            Some(_) => "(a refusal)",
            None => "(no event)",
        })];
    }
    let events = commit.events.iter();
    let rows = events.map(|event| WaitingRow {
        version: Some(event.version),
        schema: Some(event.schema),
        data: Some(&*event.data),
        ..row(event.type_name.as_str())
    });
    rows.collect()
}

/// Shows a parked stream. JSON has all of it; the other forms have what waits, one line an event.
fn show(settings: &Settings, found: &ParkedDetails) -> Result<(), Failure> {
    if settings.output == OutputFormat::Json {
        return output::record(settings.output, &COLUMNS, found);
    }
    let parked = &found.parked;
    talk!(
        "{} of tenant {} is parked since {} in {}, at position {} of partition {}: {}",
        output::shown(&parked.stream),
        parked.tenant,
        parked.parked_at,
        parked.projection,
        parked.position,
        parked.partition,
        output::shown(&parked.reason)
    );
    if let Some(wish) = &parked.wish {
        talk!("an operator asked for: {wish}");
    }
    let rows: Vec<WaitingRow<'_>> = found.waiting.iter().flat_map(waiting_rows).collect();
    output::rows(settings.output, &WAITING_COLUMNS, &rows)?;
    talk!(
        "{} of {} waiting commits are shown",
        found.waiting.len(),
        parked.commits
    );
    Ok(())
}

fn list(settings: &Settings, parked: &[ParkedStream]) -> Result<(), Failure> {
    if parked.is_empty() {
        talk!("no stream is parked");
    }
    output::rows(settings.output, &COLUMNS, parked)
}
