//! `annals log dump --accepted`: the commits that count, as JSON lines for other programs.
//!
//! Invariant: a line is written only for a commit that every reader accepts, and holds the commit
//! as it stands in the log. Deliberately absent: the rule (`event_log`), and the raw dump (`raw`).

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use event_log::accepted::read_accepted;
use event_log::chain::Stop as LogStop;
use event_log::log::LogError;
use event_log::record::Record;
use event_log::subscription::{Subscription, SubscriptionError};
use kernel::escape;
use position::{Partition, Position};

use super::known;
use super::raw::{BUFFER_BYTES, unwritten};
use crate::exit::{Exit, Failure, explained};
use crate::logging::talk;
use crate::node::open_log;
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::signals::{HangUp, Stop};

/// How long one request to the subscription waits for records.
const FOLLOW_WAIT: Duration = Duration::from_secs(1);
/// How long the command waits before it asks a log again that did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A commit as one line. Line breaks and tabs in JSON can only be white space.
pub(super) fn line(partition: Partition, record: &Record, position: Position) -> String {
    let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
    let commit = value.replace(['\n', '\r', '\t'], " ");
    let (offset, commit) = (record.offset, escape::json(&commit));
    format!(
        "{{\"partition\":{partition},\"offset\":{offset},\"position\":{position},\
         \"commit\":{commit}}}\n"
    )
}

/// Stdout, buffered. Not locked: the lock must not be held across an await.
fn stdout() -> BufWriter<io::Stdout> {
    BufWriter::with_capacity(BUFFER_BYTES, io::stdout())
}

fn tell(stop: &LogStop) {
    talk!("DAMAGE: {}", output::shown(&stop.to_string()));
}

fn end(damaged: usize, count: u64, settings: &Settings) -> Exit {
    if damaged == 0 {
        return Exit::Done;
    }
    let address = &settings.log;
    talk!(
        "{count} commits were written, but {damaged} partition(s) could not be read to the end; \
         examine the places named above: annals log verify --log {address}"
    );
    Exit::Damage
}

/// Writes the accepted commits of the whole log, partition by partition.
pub(super) async fn dump(settings: &Settings) -> Result<Exit, Failure> {
    let log = open_log(settings).await?;
    let total = known::record_count(&*log).await?;
    let mut progress = Progress::start("reading the log");
    let (mut out, mut count, mut damaged) = (stdout(), 0, 0);
    for partition in (0..log.partition_count()).map(Partition) {
        let stopped = read_accepted(&*log, partition, |record, position| {
            count += 1;
            progress.set(count, total.max(count));
            let written = out.write_all(line(partition, record, position).as_bytes());
            written.map_err(|error| unwritten(&error))
        });
        if let Some(stop) = stopped.await? {
            tell(&stop);
            damaged += 1;
        }
    }
    out.flush().map_err(|error| unwritten(&error))?;
    progress.finish(&format!("{count} commits written"));
    Ok(end(damaged, count, settings))
}

/// Writes the accepted commits from the first one on, and goes on with new ones until a signal.
pub(super) async fn follow(settings: &Settings) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let partition_count = log.partition_count();
    let partitions = (0..partition_count).map(|number| (Partition(number), None));
    let mut commits = Subscription::new(Arc::clone(&log), partitions.collect());
    let (mut out, mut count) = (stdout(), 0);
    let (mut damaged, mut is_silent) = (BTreeSet::new(), false);
    while damaged.len() < partition_count as usize {
        let next = tokio::select! {
            next = commits.next(FOLLOW_WAIT) => next,
            () = stop.asked() => break,
        };
        match next {
            Ok(batches) => {
                is_silent = false;
                for placed in batches.iter().flat_map(|batch| &batch.commits) {
                    count += 1;
                    let line = line(placed.partition, &placed.record, placed.position);
                    let written = out.write_all(line.as_bytes());
                    written.map_err(|error| unwritten(&error))?;
                }
                out.flush().map_err(|error| unwritten(&error))?;
            }
            Err(SubscriptionError::Stop(stop)) => {
                let Some((partition, _)) = stop.place() else {
                    return Err(stop.into());
                };
                tell(&stop);
                damaged.insert(partition);
            }
            Err(SubscriptionError::Log(error @ LogError::Unavailable { .. })) => {
                if !is_silent {
                    talk!("{}; trying again until Ctrl-C", explained(&error));
                }
                is_silent = true;
                tokio::select! {
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                    () = stop.asked() => break,
                }
            }
            Err(SubscriptionError::Log(error)) => return Err(error.into()),
        }
    }
    Ok(end(damaged.len(), count, settings))
}
