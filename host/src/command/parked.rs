//! `annals parked …`: streams that a read model could not take up, and what becomes of them.
//!
//! Deliberately absent: how a stream is parked or taken up (`projector`).

use clap::{Args, Subcommand};
use kernel::{StreamName, TenantId};
use projector::{Operator, ParkedStream, ParkedWish};
use serde::Serialize;

use super::projections::{ActorArgs, actor, require};
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::Postgres;
use crate::output;
use crate::settings::Settings;

const LIST_HELP: &str = "\
A read model that cannot take up a commit parks the commit's stream, with everything behind it, and
goes on with the other streams. commits is the number of commits that wait.

Examples:
  annals parked list
  annals parked list order_summary --output json";

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
    /// Take a stream up again
    #[command(after_help = RETRY_HELP)]
    Retry(ParkedArgs),
    /// Leave the first waiting commit of a stream out for ever
    #[command(after_help = DISCARD_HELP)]
    Discard(ParkedArgs),
}

/// Arguments that name a parked stream.
#[derive(Debug, Args)]
pub struct ParkedArgs {
    /// Name of the read model
    #[arg(value_name = "NAME")]
    name: String,
    /// The stream
    #[arg(value_name = "STREAM")]
    stream: StreamName,
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = TenantId::MAIN)]
    tenant: TenantId,
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
        ParkedCommand::Retry(args) => (args, ParkedWish::Retry, "retry"),
        ParkedCommand::Discard(args) => (args, ParkedWish::Discard, "discard"),
    };
    let (by, why) = args.actor.said();
    let (tenant, stream) = (args.tenant.as_str(), args.stream.as_str());
    let is_parked = operator.wish(&args.name, tenant, stream, wish, actor(&by, &why));
    if !is_parked.await? {
        let said = format!(
            "{} has not parked {stream} of tenant {tenant}; parked list shows what is parked",
            args.name
        );
        return Err(Failure::new(Exit::NotFound, said));
    }
    let row = AskedRow {
        projection: args.name,
        stream: stream.to_owned(),
        asked,
    };
    output::rows(settings.output, &["projection", "stream", "asked"], &[row])
}

fn list(settings: &Settings, parked: &[ParkedStream]) -> Result<(), Failure> {
    if parked.is_empty() {
        talk!("no stream is parked");
    }
    output::rows(settings.output, &COLUMNS, parked)
}
