//! `annals verify-cluster`: tests whether a Kafka cluster keeps the guarantees that the engine
//! needs.
//!
//! Invariant: uses only topics of its own, whose names begin with `annals-verify-`. Removes them at
//! the end, also after a failure or Ctrl-C, unless the user wants to keep them. Deliberately
//! absent: the workload and the verdicts (`cluster_trial`).

mod connections;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cluster_trial::{
    Row, Stage, TRIAL_PARTITIONS, TrialOptions, Verdict as RowVerdict, verify_cluster,
};
use event_log::claim::IDEMPOTENCY_WINDOW_MS;
use event_log::create::{CreateOptions, create};
use event_log::log::{LogAddress, LogPlace, StoreOptions, trial};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exit::{Exit, Failure, explained};
use crate::logging::talk;
use crate::output;
use crate::progress::Progress;
use crate::settings::{Flags, OutputFormat, Settings};
use crate::signals::{HangUp, Stop};
use connections::OwnConnections;

/// The help text after the options.
pub const HELP: &str = "\
Of --log only the brokers are used: kafka://HOST:PORT[,HOST:PORT…], with or without a topic. The
trial creates two topics of its own: annals-verify-…, and the topic of its directory. It writes to
them as the engine does, and causes faults that need no privileges. It cuts its own connections in
the middle of requests, discards producers with records in flight, lets two claimants write at
once, interrupts and resumes a reader, and lets a member of the group fall silent. Then it reads
everything twice and reports for each guarantee whether it was kept. It removes the topics at the
end.

With --pause SECONDS it then goes on writing for that time, so that you can restart your brokers
one after the other. The trial cannot test what happens when the power fails.

The exit code is 1 if a guarantee was broken; the message says what to do.

Examples:
  annals verify-cluster --log kafka://localhost:9092
  annals verify-cluster --log kafka://a:9092,b:9092,c:9092 --records 200000 --seconds 120 --pause 180";

/// How long the cluster may take to make the topic and acknowledge its first records.
const MAKE_WITHIN: Duration = Duration::from_secs(60);
/// How many replicas a topic has by default, if there are enough brokers.
const REPLICATION_DEFAULT: usize = 3;

/// Arguments of `verify-cluster`.
#[derive(Debug, Args)]
pub struct VerifyClusterArgs {
    /// How many records are written
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(200..=2_000_000))]
    records: u64,
    /// Begin no new records after this many seconds
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Go on writing for this time, so that you can restart brokers
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pause: Option<u64>,
    /// Number of brokers that keep each partition of the topic [default: 3, or all if there are
    /// fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    replication: Option<u16>,
    /// Session timeout of the nodes' group, in milliseconds [default: 6000]
    #[arg(long, value_name = "MS")]
    session_timeout_ms: Option<u64>,
    /// Do not remove the topics at the end
    #[arg(long)]
    keep: bool,
}

impl VerifyClusterArgs {
    /// Adds the settings that were typed. A log's address needs a topic, which this command does
    /// not use: it adds a placeholder.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.add("session_timeout_ms", self.session_timeout_ms);
        let log = flags.values.iter_mut().find(|(key, _)| *key == "log");
        if let Some((_, address)) = log
            && let Some(brokers) = address.strip_prefix("kafka://")
            && !brokers.trim_end_matches('/').contains('/')
        {
            *address = format!("kafka://{}/any", brokers.trim_end_matches('/'));
        }
    }
}

pub(super) async fn run(settings: &Settings, args: &VerifyClusterArgs) -> Result<Exit, Failure> {
    let LogAddress::Kafka { brokers, .. } = &settings.log else {
        let message = format!(
            "verify-cluster tests a Kafka cluster, but {} is a file on this machine",
            settings.log
        );
        let hint = format!(
            "name brokers with --log kafka://HOST:PORT; to check a file, run: annals log verify \
             --log {}",
            settings.log
        );
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    };
    let place = settings.place_of(&LogAddress::Kafka {
        brokers: brokers.clone(),
        topic: format!("{}{}", trial::PREFIX, Uuid::now_v7().simple()),
    });
    let stop = Stop::listen(HangUp::Ends)?;
    let connections = OwnConnections::from_now_on();
    talk!("the trial's log is {}", place.address);
    let tried = tokio::select! {
        tried = put_to_the_test(settings, args, &place, connections) => tried,
        () = stop.asked() => Err(Failure::new(Exit::Failed, "stopped before there was a result")),
    };
    clear_away(&place, args).await;
    let rows = tried?;
    show(settings, &rows)?;
    Ok(verdict(&rows))
}

async fn put_to_the_test(
    settings: &Settings,
    args: &VerifyClusterArgs,
    place: &LogPlace,
    connections: OwnConnections,
) -> Result<Vec<Row>, Failure> {
    let brokers = trial::broker_count(place).await?;
    let replication = match args.replication {
        Some(replication) => replication,
        None => u16::try_from(brokers.clamp(1, REPLICATION_DEFAULT)).unwrap_or(1),
    };
    talk!("{brokers} broker(s); each partition is kept by {replication}");
    let create_options = CreateOptions {
        store: StoreOptions {
            partition_count: TRIAL_PARTITIONS,
            replication,
        },
        idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
        node: settings.node.clone(),
    };
    let making = tokio::time::timeout(MAKE_WITHIN, create(place.clone(), &create_options)).await;
    let Ok(made) = making else {
        let message =
            "the brokers created a topic but acknowledged no record in it within a minute";
        let hint = "make sure that enough of its replicas are in sync (min.insync.replicas)";
        return Err(Failure::new(Exit::Unavailable, message).hint(hint));
    };
    let (log, log_id, _) = made?;
    let options = TrialOptions {
        place: place.clone(),
        records: args.records,
        within: Duration::from_secs(args.seconds),
        pause: args.pause.map(Duration::from_secs),
        session_timeout: settings.session_timeout,
        node: settings.node.clone(),
        connections: Some(Arc::new(connections)),
    };
    let mut told = Told::new();
    let rows = verify_cluster(log, log_id, &options, |stage| told.tell(stage)).await?;
    told.end();
    Ok(rows)
}

/// The progress that is reported while the trial runs.
struct Told {
    progress: Progress,
    count: u64,
    is_reading: bool,
}

impl Told {
    fn new() -> Self {
        Self {
            progress: Progress::start("writing under faults"),
            count: 0,
            is_reading: false,
        }
    }

    fn tell(&mut self, stage: Stage) {
        match stage {
            Stage::Writing(done, total) => {
                self.count = done;
                self.progress.set(done, total);
            }
            Stage::Pausing(pause) => {
                self.end();
                let seconds = pause.as_secs();
                talk!(
                    "NOW restart your brokers, one after the other; writing goes on for {seconds} s"
                );
                self.progress = Progress::start("writing while brokers are restarted");
            }
            Stage::Reading(done, total) => {
                if !self.is_reading {
                    self.end();
                    self.is_reading = true;
                    self.progress = Progress::start("reading everything again");
                }
                self.count = done;
                self.progress.set(done, total);
            }
        }
    }

    fn end(&self) {
        self.progress.finish(&format!("{} records", self.count));
    }
}

/// Removes the topics, or says that they stay.
async fn clear_away(place: &LogPlace, args: &VerifyClusterArgs) {
    let address = &place.address;
    if args.keep {
        talk!("kept {address}; to examine it, run annals log verify --log {address}");
        return;
    }
    if let Err(error) = trial::remove(place).await {
        let why = explained(&error);
        talk!("warning: the topics of {address} may still be there ({why}); remove them");
    }
}

const COLUMNS: [&str; 6] = ["guarantee", "verdict", "records", "times", "done", "found"];

fn show(settings: &Settings, rows: &[Row]) -> Result<(), Failure> {
    match settings.output {
        OutputFormat::Json | OutputFormat::Ndjson => output::rows(settings.output, &[], rows),
        OutputFormat::Table => {
            let rows: Vec<Value> = rows.iter().map(in_words).collect();
            output::rows(settings.output, &COLUMNS, &rows)
        }
        OutputFormat::Csv => output::rows(settings.output, &COLUMNS, rows),
    }
}

fn in_words(row: &Row) -> Value {
    let mut value = json!(row);
    value["guarantee"] = row.guarantee.as_str().into();
    value["verdict"] = row.verdict.as_str().into();
    value
}

/// Reports in words what was found.
fn verdict(rows: &[Row]) -> Exit {
    let of = |verdict| rows.iter().filter(move |row| row.verdict == verdict);
    for row in of(RowVerdict::Broken) {
        let (name, found, to_do) = (row.guarantee.as_str(), &row.found, &row.to_do);
        talk!("BROKEN: {name}: {found}\n  what to do: {to_do}");
    }
    let count = |verdict| of(verdict).count();
    let (kept, broken, untested) = (
        count(RowVerdict::Kept),
        count(RowVerdict::Broken),
        count(RowVerdict::NotTested),
    );
    talk!("{kept} guarantees kept, {broken} broken, {untested} not tested");
    match broken {
        0 => Exit::Done,
        _ => Exit::Failed,
    }
}
