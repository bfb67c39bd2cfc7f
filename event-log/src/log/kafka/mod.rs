//! The log in a Kafka topic. The brokers must keep order in a partition, acknowledge durably and
//! count offsets.
//!
//! Invariant: the words broker and topic stay inside this folder. Readers see uncommitted records,
//! so an open transaction of another program blocks nobody. Deliberately absent: Kafka's
//! transactions.

mod brokers;
mod consumer;
mod directory;
mod hints;
mod membership;
mod producer;
mod statistics;
mod topic;

pub use topic::TOPIC_SETTINGS;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use position::{LogId, Offset, Partition};
use tokio::sync::Semaphore;

use super::error::failed;
use super::{Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogPlace, LogReader};
use crate::chain::Acknowledged;
use crate::directory::Directory;
use crate::membership::{Membership, MembershipOptions};
use crate::record::Record;
pub(super) use brokers::Topic;
use consumer::{KafkaReader, Left, Probe};
use directory::KafkaDirectory;
use membership::KafkaMembership;
pub(super) use membership::fall_silent;
use producer::KafkaAppender;

/// How long a broker may believe that it is still the leader. This is a little more than the time
/// that a broker may be silent before the controller replaces it
/// (`broker.session.timeout.ms`, 9 s).
const DEPOSED_LEADER_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proof or a gap read may wait for a broker. A broker that does not answer must not
/// keep the clients from partitions whose leaders answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most clients for proofs and for reading on. Each has threads and connections of its own, so
/// further clients would cost more than waiting for one of these.
const PROBES_MAX: usize = 16;
/// How many of these clients stay open even if they are idle.
const PROBES_MIN: usize = 2;
/// How long further idle clients stay open. Many are needed at the start and when partitions move.
const PROBE_IDLE_MAX: Duration = Duration::from_secs(30);

pub(super) struct KafkaLog {
    place: LogPlace,
    topic: Topic,
    partition_count: u32,
    probes: Arc<Mutex<Vec<Probe>>>,
    probing: Arc<Semaphore>,
}

impl KafkaLog {
    pub(super) async fn open(topic: Topic, place: &LogPlace) -> Result<Self, LogError> {
        let Some(partition_count) = topic.partition_count().await? else {
            return Err(LogError::Missing(place.address.clone()));
        };
        Ok(Self {
            place: place.clone(),
            topic,
            partition_count,
            probes: Arc::default(),
            probing: Arc::new(Semaphore::new(PROBES_MAX)),
        })
    }

    /// Runs `work` with a client that reads on at `place`; without a place, with one for a look.
    async fn probe<T: Send + 'static>(
        &self,
        place: Option<(Partition, Offset)>,
        work: impl FnOnce(&mut Probe) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let topic = self.topic.clone();
        let (probes, probing) = (Arc::clone(&self.probes), Arc::clone(&self.probing));
        // The semaphore is never closed. The permit moves into the work, which always ends.
        let permit = Arc::clone(&probing).acquire_owned().await.ok();
        blocking(move || {
            let kept = {
                let mut kept = locked(&probes);
                let left: Vec<Left> = kept.iter().map(|probe| probe.left).collect();
                // Open clients: the idle ones, and one for each held permit, including this one.
                let may_connect = kept.len() <= probing.available_permits();
                which(&left, place, may_connect).map(|index| kept.remove(index))
            };
            let mut probe = match kept {
                Some(probe) => probe,
                None => Probe::connect(&topic)?,
            };
            let result = work(&mut probe)?;
            probe.rest();
            let mut kept = locked(&probes);
            let idle = kept.iter().map(|probe| probe.left_at.elapsed());
            let idle: Vec<Duration> = idle.collect();
            let old: Vec<Probe> = kept.drain(..not_needed(&idle)).collect();
            kept.push(probe);
            drop(kept);
            if !old.is_empty() {
                // Closing a client joins its threads; do not wait for that here.
                std::thread::spawn(move || drop(old));
            }
            drop(permit);
            Ok(result)
        })
        .await
    }
}

/// How many idle clients to close. `idle` says how long each has been idle, the longest first.
fn not_needed(idle: &[Duration]) -> usize {
    let old = idle.partition_point(|idle| *idle > PROBE_IDLE_MAX);
    old.min(idle.len().saturating_sub(PROBES_MIN))
}

/// Which idle client continues to read at `place`, or makes a single look if there is no place;
/// `None` asks for a new client.
///
/// A client that is taken from another reader discards what it has fetched ahead, and that reader
/// must fetch it again. So a reader takes the client that stands at its place, or the last one on
/// which no reader continues, and another one only if it may not connect. A look takes the last
/// client on which no reader continues, otherwise the last one: all other clients stand still
/// meanwhile, with everything that they fetched ahead.
fn which(left: &[Left], place: Option<(Partition, Offset)>, may_connect: bool) -> Option<usize> {
    let at = |place| left.iter().position(|left| left.is_at(place));
    let idle = || left.iter().rposition(|left| !left.reads_on());
    let may_take = place.is_none() || !may_connect;
    let last = || left.len().checked_sub(1).filter(|_| may_take);
    place.and_then(at).or_else(idle).or_else(last)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the other end of the channel is dropped, or will be within `wait`. A thread of a client
/// ends with the value that holds the other end.
fn is_dropped_within(wait: Duration, stop: &mpsc::Receiver<()>) -> bool {
    stop.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Disconnected)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(failed("run a call of the Kafka client"))?
}

#[async_trait]
impl EventLog for KafkaLog {
    fn address(&self) -> &LogAddress {
        &self.place.address
    }

    fn acknowledged(&self) -> Acknowledged {
        self.place.acknowledged.clone()
    }

    fn partition_count(&self) -> u32 {
        self.partition_count
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        topic::check(&self.topic).await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        self.probe(None, move |probe| probe.bounds(partition)).await
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        let place = Some((partition, from));
        self.probe(place, move |probe| probe.read(partition, from))
            .await
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let offsets = offsets.to_vec();
        self.probe(None, move |probe| probe.read_at(partition, &offsets))
            .await
    }

    /// A broker that was stopped while another leader was elected still answers as the leader after
    /// it resumes, and its log ends at its old end. So ask again for longer than a broker may be
    /// silent, each time the leader that the brokers name now.
    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        let certain_at = Instant::now() + DEPOSED_LEADER_MAX;
        let mut again = false;
        loop {
            let look = move |probe: &mut Probe| probe.look(partition, offset, again);
            let (Bounds { first, end }, found) = self.probe(None, look).await?;
            // What retention deleted stays gone under any leader.
            let is_certain = offset < first || Instant::now() >= certain_at;
            if found.is_some() || is_certain {
                return Ok((end, found));
            }
            if !again {
                tracing::warn!(%partition, %offset, %end, "a record is not there; asking again");
            }
            again = true;
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(KafkaReader::open(&self.topic, from)?))
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        Ok(Arc::new(KafkaAppender::open(&self.topic)?))
    }

    fn membership(&self, options: &MembershipOptions) -> Result<Box<dyn Membership>, LogError> {
        let member = KafkaMembership::join(&self.topic, self.partition_count, options)?;
        Ok(Box::new(member))
    }

    async fn directory(&self, log: LogId) -> Result<Arc<dyn Directory>, LogError> {
        let of = (log, self.partition_count);
        let directory = KafkaDirectory::open(&self.topic, of).await?;
        Ok(Arc::new(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(partition: u32, offset: u64) -> Option<(Partition, Offset)> {
        Some((Partition(partition), Offset(offset)))
    }

    const ONE: Left = Left::Reading(Partition(1), Offset(10));
    const OTHER: Left = Left::Reading(Partition(2), Offset(20));
    const LOOKED: Left = Left::Looked(Partition(4), Offset(40));

    #[test]
    fn who_reads_on_takes_no_client_from_another_reader_while_there_may_be_more() {
        assert_eq!(which(&[ONE, OTHER, LOOKED], at(1, 10), false), Some(0));
        assert_eq!(which(&[ONE, OTHER], at(3, 0), true), None);
        assert_eq!(which(&[ONE, OTHER], at(3, 0), false), Some(1));
        assert_eq!(which(&[], at(3, 0), false), None);
        assert_eq!(which(&[ONE, OTHER], None, true), Some(1));
        assert_eq!(which(&[], None, true), None);
    }

    #[test]
    fn clients_that_nobody_needs_are_closed_but_for_two() {
        let idle = |seconds: &[u64]| -> Vec<Duration> {
            seconds.iter().map(|s| Duration::from_secs(*s)).collect()
        };
        assert_eq!(not_needed(&idle(&[])), 0);
        assert_eq!(not_needed(&idle(&[99, 98])), 0);
        assert_eq!(not_needed(&idle(&[99, 98, 97, 1])), 2);
        assert_eq!(not_needed(&idle(&[99, 5, 4, 1])), 1);
        assert_eq!(not_needed(&idle(&[9, 8, 7])), 0);
    }

    #[test]
    fn whoever_only_looks_makes_do_with_the_client_that_looked_last() {
        let idle = [LOOKED, Left::Nowhere, ONE];
        assert_eq!(which(&idle, at(4, 40), true), Some(0), "it stands there");
        assert_eq!(which(&idle, at(4, 41), true), Some(1));
        assert_eq!(which(&idle, None, true), Some(1));
    }
}
