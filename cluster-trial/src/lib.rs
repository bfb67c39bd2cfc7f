//! A trial of a cluster: a bounded workload with faults that need no privileges, in a log of its
//! own, and a verdict on each guarantee that the engine needs.
//!
//! Invariant: the trial runs what the engine runs: records, claims, producer, readers and group are
//! the engine's own. It ends in bounded time, unless the cluster stops answering at all; then it
//! reports that. Deliberately absent: creating and deleting the log, and all faults that need
//! rights on a broker.

mod claimant;
mod commits;
mod groups;
mod judge;
mod lanes;
mod ledger;
mod readers;
mod report;
mod rows;
mod trial;

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::{EventLog, LogError, LogPlace};
pub use lanes::PARTITIONS as TRIAL_PARTITIONS;
use lanes::{Lane, Steady};
use position::{LogId, Partition};
pub use report::{Guarantee, Row, Verdict};
use tokio::sync::watch;
use tokio::task::JoinHandle;
pub use trial::Connections;
use trial::{Phase, Trial};

/// How often progress is reported.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How a cluster is tried.
#[derive(Clone)]
pub struct TrialOptions {
    /// Where the log is, for the trial's additional clients.
    pub place: LogPlace,
    /// How many commits are written.
    pub records: u64,
    /// After this time, no new commits are begun.
    pub within: Duration,
    /// For how long the operator may restart brokers afterwards; `None`: not at all.
    pub pause: Option<Duration>,
    /// The session timeout of the nodes' group.
    pub session_timeout: Duration,
    /// The name of this node in claims.
    pub node: String,
    /// The connections that the trial may cut; `None`: it cuts none.
    pub connections: Option<Arc<dyn Connections>>,
}

/// The progress of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// How many commits were acknowledged, and how many are to be written.
    Writing(u64, u64),
    /// The operator can restart brokers for this long from now on.
    Pausing(Duration),
    /// How many records were read again, and how many there are.
    Reading(u64, u64),
}

/// Tries the cluster that keeps `log`. The log must be new, and nobody else may use it.
///
/// # Errors
/// `Unavailable` if the log accepts no records or cannot be read. A broken guarantee is not an
/// error: it is a result in the rows.
pub async fn verify_cluster(
    log: Arc<dyn EventLog>,
    log_id: LogId,
    options: &TrialOptions,
    mut progress: impl FnMut(Stage),
) -> Result<Vec<Row>, LogError> {
    let settings = match log.check().await {
        Ok(warnings) => Ok(warnings),
        Err(LogError::Settings(problems)) => Err(problems),
        Err(error) => return Err(error),
    };
    let connections = options.connections.clone();
    let trial = Trial::new(Arc::clone(&log), log_id, &options.node, connections);
    let grouped = tokio::spawn(groups::group(
        Arc::clone(&log),
        options.place.clone(),
        format!("annals-verify-{}", log_id.0.simple()),
        options.session_timeout,
    ));
    // The directory is tried before connections are cut, because a lost hint is repeated only
    // later.
    let directory = groups::directory(Arc::clone(&log)).await;
    let (first, _) = readers::bounds(&*log).await?;
    let partitions: Vec<Partition> = first.keys().copied().collect();
    let (tell_ends, ends) = watch::channel(None);
    let watching = tokio::spawn(readers::watch_all(Arc::clone(&trial), first, ends.clone()));
    let following = readers::follow(Arc::clone(&trial), partitions, options.records, ends);
    let following = tokio::spawn(following);

    let lane = work(&trial, options, &mut progress).await?;
    let (_, ends) = readers::bounds(&*log).await?;
    tell_ends.send_replace(Some(ends.clone()));
    let (seen, followed) = (joined(watching).await?, joined(following).await?);
    let judged = judge::judge(
        &*log,
        &ends,
        &lane.ledger,
        &seen,
        &followed,
        |done, total| {
            progress(Stage::Reading(done, total));
        },
    );
    Ok(rows::rows(rows::Findings {
        settings,
        judged: judged.await?,
        directory,
        grouped: joined(grouped).await?,
        session_timeout: options.session_timeout,
        lane,
        followed,
        cuts: trial.cuts(),
        pause: options.pause,
    }))
}

/// All lanes write until everything is written or the time is over. Then, if the options ask for a
/// pause, one lane goes on writing while brokers are restarted.
async fn work(
    trial: &Arc<Trial>,
    options: &TrialOptions,
    progress: &mut impl FnMut(Stage),
) -> Result<Lane, LogError> {
    let records = options.records;
    let deadline = Instant::now() + options.within;
    let steady = tokio::spawn(Steady::new(trial, records / 2).work());
    let thrown = tokio::spawn(lanes::thrown(Arc::clone(trial), records / 4));
    let duel = tokio::spawn(lanes::duel(Arc::clone(trial), records / 4));
    let cutter = tokio::spawn(lanes::cutter(Arc::clone(trial), records));
    while !(steady.is_finished() && thrown.is_finished() && duel.is_finished()) {
        tokio::time::sleep(TELL_EVERY).await;
        progress(Stage::Writing(trial.acknowledged().min(records), records));
        if Instant::now() >= deadline {
            trial.enter(Phase::Pausing);
        }
    }
    trial.enter(Phase::Pausing);
    joined(cutter).await?;
    let mut steady = joined(steady).await?;
    if let Some(pause) = options.pause {
        progress(Stage::Pausing(pause));
        let pacing = tokio::spawn(steady.pace());
        tokio::time::sleep(pause).await;
        trial.enter(Phase::Over);
        steady = joined(pacing).await?;
    }
    trial.enter(Phase::Over);
    let mut lane = steady.end().await;
    lane.extend(joined(thrown).await?);
    lane.extend(joined(duel).await?);
    if lane.ledger.acknowledged.is_empty() {
        let why = lane
            .trouble
            .unwrap_or_else(|| "nothing was acknowledged in time".to_owned());
        return Err(LogError::unavailable("write to the trial's topic", why));
    }
    Ok(lane)
}

/// The result of one of our tasks. A task ends early only if it panics, which is a bug.
async fn joined<T>(task: JoinHandle<T>) -> Result<T, LogError> {
    let failed = |error| LogError::unavailable("run a part of the trial", error);
    task.await.map_err(failed)
}
