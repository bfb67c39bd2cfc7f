//! `annals projections verify`: holds rows against the log, all of it or some streams.
//!
//! Deliberately absent: the comparison itself (`projector`).

use clap::Args;
use kernel::explained;
use projector::RuntimeError as E;
use projector::{Difference, Purpose, SAMPLE_STREAMS_MAX, SampleOf, Sampled, verify_sample};
use serde::Serialize;

use super::{ActorArgs, actor, asked, differences, rebuild_one, require};
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_claimed};
use crate::output;
use crate::settings::Settings;

/// Arguments of `projections verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Names of the read models; with --sample, none means all
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "sample"])]
    names: Vec<String>,
    /// All read models
    #[arg(long, conflicts_with_all = ["names", "sample"])]
    all: bool,
    /// Fold only so many streams, chosen at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SAMPLE_STREAMS_MAX as u64))]
    sample: Option<u64>,
    /// Choose the same streams as an earlier sample did
    #[arg(long, value_name = "SEED", requires = "sample")]
    seed: Option<u32>,
    #[command(flatten)]
    actor: ActorArgs,
}

impl VerifyArgs {
    fn names(&self, domain: &Domain) -> Vec<String> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        let all = domain.projections.iter();
        all.map(|projection| projection.name().to_owned()).collect()
    }
}

#[derive(Serialize)]
struct VerifiedRow {
    projection: String,
    equal: Option<bool>,
    rows: i64,
    differences: Vec<String>,
}

pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: VerifyArgs,
) -> Result<Exit, Failure> {
    require(postgres).await?;
    if args.sample.is_some() {
        return sample(domain, settings, postgres, args).await;
    }
    let log = open_claimed(settings).await?;
    postgres.require_log(&*log).await?;
    let names = args.names(domain);
    let (by, why) = args.actor.said();
    let who = actor(&by, &why);
    let is_named = !args.all;
    let (mut rows, mut is_equal, mut is_whole) = (Vec::new(), true, true);
    for name in names {
        let asked = asked(settings, &name, Purpose::Verify, who);
        let verified = rebuild_one(domain, &log, postgres, asked).await;
        let found = match verified {
            Ok(verified) => verified.comparison,
            // Nobody named it: the others are compared.
            Err(error @ (E::InPlace { .. } | E::NotVerified { .. })) if !is_named => {
                talk!("{}", explained(&error));
                is_whole = false;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if found.is_none() {
            talk!(
                "{name} could not be compared: there is no live read model, or it is behind what \
                 was built and does not move"
            );
        }
        is_equal &= found.as_ref().is_some_and(|found| found.equal);
        let tables = found.iter().flat_map(|found| &found.tables);
        rows.push(VerifiedRow {
            projection: name,
            equal: found.as_ref().map(|found| found.equal),
            rows: tables.map(|table| table.rows_live).sum(),
            differences: found.as_ref().map(differences).unwrap_or_default(),
        });
    }
    let columns = ["projection", "equal", "rows", "differences"];
    output::rows(settings.output, &columns, &rows)?;
    Ok(exit(is_equal, is_whole))
}

fn exit(is_equal: bool, is_whole: bool) -> Exit {
    match (is_equal, is_whole) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Partial,
        (true, true) => Exit::Done,
    }
}

#[derive(Serialize)]
struct SampledRow {
    projection: String,
    seed: u32,
    equal: bool,
    streams: usize,
    commits: u64,
    rows: u64,
    not_compared: Vec<String>,
    differences: Vec<String>,
}

const SAMPLED_COLUMNS: [&str; 8] = [
    "projection",
    "seed",
    "equal",
    "streams",
    "commits",
    "rows",
    "not_compared",
    "differences",
];

/// The number that chooses the streams: the one of the command line, or a new one.
fn seed(args: &VerifyArgs) -> u32 {
    args.seed
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_fields().0)
}

async fn sample(
    domain: &Domain,
    settings: &Settings,
    postgres: &Postgres,
    args: VerifyArgs,
) -> Result<Exit, Failure> {
    let log = open_claimed(settings).await?;
    postgres.require_log(&*log).await?;
    let (seed, all) = (seed(&args), &domain.projections);
    talk!("the same streams are chosen again with --seed {seed}");
    let streams = usize::try_from(args.sample.unwrap_or_default()).unwrap_or(SAMPLE_STREAMS_MAX);
    let of = SampleOf {
        streams,
        seed: i64::from(seed),
    };
    let (mut rows, mut is_equal, mut is_whole) = (Vec::new(), true, true);
    for name in args.names(domain) {
        let sampled = match verify_sample(&log, postgres.url(), all, &name, of).await {
            Ok(sampled) => sampled,
            // Nobody named it: the others are compared.
            Err(error @ E::NotVerified { .. }) if args.names.is_empty() => {
                talk!("{}", explained(&error));
                is_whole = false;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for line in left_out(&sampled) {
            talk!("{name}: {line}");
        }
        is_equal &= sampled.is_equal();
        is_whole &= sampled.is_whole();
        rows.push(row(name, seed, &sampled));
    }
    output::rows(settings.output, &SAMPLED_COLUMNS, &rows)?;
    Ok(exit(is_equal, is_whole))
}

/// What could not be compared, and why.
fn left_out(sampled: &Sampled) -> Vec<String> {
    let many =
        "many streams feed it, so that only a fold of the whole log tells: leave out --sample";
    let mut lines = Vec::new();
    for table in &sampled.skipped {
        lines.push(format!("the table {table} was not compared: {many}"));
    }
    for table in &sampled.tables {
        for column in &table.not_compared {
            let name = &table.table;
            lines.push(format!(
                "the column {column} of {name} was not compared: {many}"
            ));
        }
    }
    for left_out in &sampled.left_out {
        let (stream, reason) = (&left_out.stream, &left_out.reason);
        lines.push(format!("the stream {stream} was not compared: {reason}"));
    }
    lines
}

fn row(projection: String, seed: u32, sampled: &Sampled) -> SampledRow {
    let mut not_compared = sampled.skipped.clone();
    let mut found = Vec::new();
    for table in &sampled.tables {
        let columns = table.not_compared.iter();
        not_compared.extend(columns.map(|column| format!("{}.{column}", table.table)));
        let differences = table.differences.iter();
        found.extend(differences.map(|(stream, one)| difference(&table.table, stream, one)));
    }
    let left_out = sampled.left_out.iter();
    not_compared.extend(left_out.map(|one| format!("stream {}: {}", one.stream, one.reason)));
    SampledRow {
        projection,
        seed,
        equal: sampled.is_equal(),
        streams: sampled.streams,
        commits: sampled.commits,
        rows: sampled.tables.iter().map(|table| table.rows).sum(),
        not_compared,
        differences: found,
    }
}

fn difference(table: &str, stream: &str, found: &Difference) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let column = found.column.as_deref().unwrap_or("the row");
    let (key, live, new) = (&found.key, shown(&found.live), shown(&found.new));
    format!("{table} {key}: {column} is {live}, and {new} by the stream {stream}")
}
