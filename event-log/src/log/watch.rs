//! Checks the log's store every minute while a process runs: whether its settings are still safe,
//! and whether the log still begins with the same record.
//!
//! Invariant: a check that fails changes nothing of what was found before. Deliberately absent: the
//! consequences. Health reports the result, and owners have checks of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kernel::explained;
use position::{Offset, Partition, RecordHash};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Bounds, EventLog, LogError};
use crate::record::{Record, record_hash};

/// How often a process checks.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The first record of each partition, as of the first check.
#[derive(Default)]
struct Beginnings {
    known: BTreeMap<Partition, (Offset, RecordHash)>,
    /// Where the last check found no first record, although there are records.
    torn: BTreeSet<Partition>,
}

impl Beginnings {
    /// Whether the bounds and the first record come from different moments: records were deleted
    /// between the two questions. If the next check finds the same again, the record is missing.
    fn are_torn(&mut self, partition: Partition, bounds: Bounds, first: Option<&Record>) -> bool {
        if first.is_none() && bounds.first < bounds.end {
            return self.torn.insert(partition);
        }
        self.torn.remove(&partition);
        false
    }

    /// Compares a partition's present bounds and first record with those of the first check.
    /// `first` is the first record that is kept, if there is one. Says in words what happened to the
    /// log if it no longer begins with the same record.
    fn compare(
        &mut self,
        partition: Partition,
        bounds: Bounds,
        first: Option<&Record>,
    ) -> Result<(), String> {
        let Some((began_at, hash)) = self.known.get(&partition) else {
            if let Some(first) = first {
                let place = (first.offset, record_hash(first));
                self.known.insert(partition, place);
            }
            return Ok(());
        };
        if bounds.first > *began_at {
            let first = bounds.first;
            return Err(format!(
                "the beginning of partition {partition} was deleted: it began at offset {began_at} and \
                 begins at {first} now; nothing can be built from it any more: stop what deletes \
                 records, and go on with a copy of the log that is whole"
            ));
        }
        if first.is_some_and(|first| (first.offset, record_hash(first)) == (*began_at, *hash)) {
            return Ok(());
        }
        Err(format!(
            "partition {partition} does not begin with the record that it began with: the log was \
             deleted and made anew, or another one put in its place; bring it back, and start \
             this process again"
        ))
    }
}

/// Checks a log regularly until it is dropped.
pub struct LogWatch {
    found: watch::Receiver<Option<String>>,
    _task: JoinSet<()>,
}

impl LogWatch {
    /// Starts checking, at once and then after each `every`.
    #[must_use]
    pub fn begin(log: Arc<dyn EventLog>, every: Duration) -> Self {
        let (tell, found) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut beginnings = Beginnings::default();
            let mut looks = tokio::time::interval(every);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                match look(&*log, &mut beginnings).await {
                    Ok(found) => say(&tell, found),
                    Err(error) => {
                        tracing::debug!(error = explained(&error), "the log could not be checked");
                    }
                }
            }
        });
        Self { found, _task: task }
    }

    /// The result of the last check, for health.
    ///
    /// # Errors
    /// What is wrong with the log, and what to do about it.
    pub fn verdict(&self) -> Result<(), String> {
        self.found.borrow().clone().map_or(Ok(()), Err)
    }
}

/// Publishes the result, and logs it once when it changes.
fn say(tell: &watch::Sender<Option<String>>, found: Option<String>) {
    tell.send_if_modified(|known| {
        let is_news = *known != found;
        if is_news {
            match &found {
                Some(found) => tracing::error!("{found}"),
                None => tracing::info!("the log is as it should be again"),
            }
            *known = found;
        }
        is_news
    });
}

async fn look(log: &dyn EventLog, beginnings: &mut Beginnings) -> Result<Option<String>, LogError> {
    match log.check().await {
        Ok(_) => {}
        Err(error @ LogError::Settings(_)) => return Ok(Some(error.to_string())),
        Err(error) if error.is_final() => return Ok(Some(error.to_string())),
        Err(error) => return Err(error),
    }
    for partition in (0..log.partition_count()).map(Partition) {
        let bounds = log.bounds(partition).await?;
        let first = log.read_at(partition, &[bounds.first]).await?;
        let first = first.into_iter().next().flatten();
        if beginnings.are_torn(partition, bounds, first.as_ref()) {
            let reason = "its first record was deleted at that moment";
            return Err(LogError::unavailable("check the log", reason));
        }
        if let Err(found) = beginnings.compare(partition, bounds, first.as_ref()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn record(offset: u64, value: &'static str) -> Record {
        Record {
            offset: Offset(offset),
            key: None,
            value: Some(value.into()),
            headers: Headers::default(),
            leader_epoch: None,
            appended_at_ms: None,
        }
    }

    fn bounds(first: u64, end: u64) -> Bounds {
        Bounds {
            first: Offset(first),
            end: Offset(end),
        }
    }

    #[test]
    fn a_log_begins_for_ever_as_it_began() {
        let partition = Partition(3);
        let mut beginnings = Beginnings::default();
        let mut look = |first, end, value: Option<&'static str>| {
            let found = value.map(|value| record(first, value));
            beginnings.compare(partition, bounds(first, end), found.as_ref())
        };
        assert_eq!(look(0, 0, None), Ok(()), "nothing is there yet");
        assert_eq!(look(0, 1, Some("claim")), Ok(()));
        assert_eq!(look(0, 900, Some("claim")), Ok(()));
        let cut = look(7, 900, Some("later")).unwrap_err();
        assert!(
            cut.contains("partition 3") && cut.contains("begins at 7"),
            "{cut}"
        );
        let anew = look(0, 1, Some("another claim")).unwrap_err();
        assert!(anew.contains("made anew"), "{anew}");
        assert!(look(0, 0, None).is_err(), "emptied");
        assert_eq!(look(0, 901, Some("claim")), Ok(()), "brought back");
    }
    #[test]
    fn a_beginning_that_is_deleted_during_a_check_is_judged_by_the_next_one() {
        let partition = Partition(3);
        let mut beginnings = Beginnings::default();
        let claim = record(0, "claim");
        assert!(!beginnings.are_torn(partition, bounds(0, 9), Some(&claim)));
        assert_eq!(
            beginnings.compare(partition, bounds(0, 9), Some(&claim)),
            Ok(())
        );
        // The bounds are from before the deletion, the record that is not there from after it.
        assert!(beginnings.are_torn(partition, bounds(0, 9), None));
        let later = record(7, "later");
        assert!(!beginnings.are_torn(partition, bounds(7, 9), Some(&later)));
        let cut = beginnings.compare(partition, bounds(7, 9), Some(&later));
        assert!(cut.unwrap_err().contains("begins at 7"));
        // A record that is missing again and again is no matter of moments.
        assert!(beginnings.are_torn(partition, bounds(0, 9), None));
        assert!(!beginnings.are_torn(partition, bounds(0, 9), None));
        // Neither is a log without any record.
        assert!(!beginnings.are_torn(partition, bounds(9, 9), None));
    }
}
