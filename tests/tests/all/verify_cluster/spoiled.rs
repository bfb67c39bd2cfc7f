//! A log over a real one that breaks exactly the configured guarantees.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use event_log::directory::Directory;
use event_log::log::{
    AppendDone, AppendResult, AppendSession, Appended, Appender, Bounds, Chunk, EventLog,
    LogAddress, LogError, LogReader, SettingProblem,
};
use event_log::membership::{Membership, MembershipOptions};
use event_log::record::{NewRecord, Record};
use position::{LogId, Offset, Partition};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// How the log breaks a guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Lose,
    Change,
    Duplicate,
    Reorder,
    Gap,
    HideFromFollowers,
    ForgetForProofs,
    WrongClock,
    SmallRecordsOnly,
    UnsafeSettings,
    /// Has neither a group nor a directory.
    NoBeside,
}

/// The commit of partition 0 that a fault hits, counted from 0.
const VICTIM: u64 = 40;
/// The offset of some commit in partition 0.
const HIDDEN: Offset = Offset(60);

pub(super) struct Spoiled {
    log: Arc<dyn EventLog>,
    faults: &'static [Fault],
    commits: Arc<AtomicU64>,
}

impl Spoiled {
    pub(super) fn new(log: Arc<dyn EventLog>, faults: &'static [Fault]) -> Self {
        let commits = Arc::default();
        Self {
            log,
            faults,
            commits,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn seen(&self, partition: Partition, mut record: Record) -> Record {
        if self.has(Fault::Change) && partition == Partition(0) && record.offset == HIDDEN {
            let mut value = record.value.unwrap().to_vec();
            *value.iter_mut().rev().nth(5).unwrap() ^= 1;
            record.value = Some(value.into());
        }
        record
    }
}

fn not_here(operation: &'static str) -> LogError {
    LogError::unavailable(operation, "not here")
}

#[async_trait]
impl EventLog for Spoiled {
    fn address(&self) -> &LogAddress {
        self.log.address()
    }

    fn partition_count(&self) -> u32 {
        self.log.partition_count()
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        match self.has(Fault::UnsafeSettings) {
            true => Err(LogError::Settings(vec![SettingProblem {
                setting: "retention.ms".to_owned(),
                found: "3600000".to_owned(),
                needed: "-1".to_owned(),
                mend: "kafka-configs.sh".to_owned(),
            }])),
            false => self.log.check().await,
        }
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        self.log.bounds(partition).await
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        let mut chunk = self.log.read(partition, from).await?;
        let records = chunk.records.into_iter();
        chunk.records = records.map(|record| self.seen(partition, record)).collect();
        Ok(chunk)
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        match self.has(Fault::ForgetForProofs) {
            true => Ok(vec![None; offsets.len()]),
            false => self.log.read_at(partition, offsets).await,
        }
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        let reader = self.log.follow(from)?;
        Ok(Box::new(SpoiledReader {
            reader,
            log: Self::new(Arc::clone(&self.log), self.faults),
        }))
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        Ok(Arc::new(SpoiledAppender {
            appender: self.log.appender().await?,
            faults: self.faults,
            commits: Arc::clone(&self.commits),
        }))
    }

    fn membership(&self, options: &MembershipOptions) -> Result<Box<dyn Membership>, LogError> {
        match self.has(Fault::NoBeside) {
            true => Err(not_here("join the nodes' group")),
            false => self.log.membership(options),
        }
    }

    async fn directory(&self, id: LogId) -> Result<Arc<dyn Directory>, LogError> {
        match self.has(Fault::NoBeside) {
            true => Err(not_here("make the topic")),
            false => self.log.directory(id).await,
        }
    }
}

struct SpoiledReader {
    reader: Box<dyn LogReader>,
    log: Spoiled,
}

#[async_trait]
impl LogReader for SpoiledReader {
    async fn next(&mut self, wait: Duration) -> Result<Vec<Chunk>, LogError> {
        let mut chunks = self.reader.next(wait).await?;
        for chunk in &mut chunks {
            let partition = chunk.partition;
            if self.log.has(Fault::HideFromFollowers) && partition == Partition(0) {
                chunk.records.retain(|record| record.offset != HIDDEN);
            }
            let records = std::mem::take(&mut chunk.records).into_iter();
            chunk.records = records
                .map(|record| self.log.seen(partition, record))
                .collect();
        }
        Ok(chunks)
    }
}

struct SpoiledAppender {
    appender: Arc<dyn Appender>,
    faults: &'static [Fault],
    commits: Arc<AtomicU64>,
}

#[async_trait]
impl Appender for SpoiledAppender {
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError> {
        Ok(Arc::new(SpoiledSession {
            session: self.appender.session()?,
            faults: self.faults,
            commits: Arc::clone(&self.commits),
            kept: Arc::default(),
        }))
    }

    async fn flush(&self, wait: Duration) {
        self.appender.flush(wait).await;
    }
}

/// Answers and records that wait for another record.
#[derive(Default)]
struct Kept {
    /// The answer for the lost victim; it claims the offset after the record before.
    lost: Option<AppendDone>,
    /// The acknowledgement of the commit before the victim, once it has come.
    before: Option<Appended>,
    /// The victim, which is sent after the next record.
    held: Option<(NewRecord, AppendDone)>,
}

struct SpoiledSession {
    session: Arc<dyn AppendSession>,
    faults: &'static [Fault],
    commits: Arc<AtomicU64>,
    kept: Arc<Mutex<Kept>>,
}

impl SpoiledSession {
    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Acknowledges the lost record, once the record before it is acknowledged.
    fn lose(kept: &Mutex<Kept>) {
        let told = {
            let mut kept = kept.lock().unwrap();
            match (kept.before, kept.lost.take()) {
                (Some(before), Some(done)) => Some((before, done)),
                (_, lost) => {
                    kept.lost = lost;
                    None
                }
            }
        };
        if let Some((before, done)) = told {
            let offset = before.offset.map(Offset::next);
            done(Ok(Appended { offset, ..before }));
        }
    }
}

impl AppendSession for SpoiledSession {
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError> {
        let size = record.value.as_ref().unwrap().len();
        if self.has(Fault::SmallRecordsOnly) && size > 500_000 {
            done(Err(not_here("append so large a record")));
            return Ok(());
        }
        let done: AppendDone = match self.has(Fault::WrongClock) {
            true => Box::new(move |result: AppendResult| {
                done(result.map(|appended| Appended {
                    appended_at_ms: appended.appended_at_ms.map(|ms| ms - 120_000),
                    ..appended
                }));
            }),
            false => done,
        };
        if partition != Partition(0) || record.key.is_none() {
            return self.session.append(partition, record, done);
        }
        let number = self.commits.fetch_add(1, Ordering::SeqCst);
        let is_victim = number == VICTIM;
        if is_victim && self.has(Fault::Lose) {
            self.kept.lock().unwrap().lost = Some(done);
            Self::lose(&self.kept);
            return Ok(());
        }
        if number == VICTIM - 1 && self.has(Fault::Lose) {
            let kept = Arc::clone(&self.kept);
            let done = Box::new(move |result: AppendResult| {
                kept.lock().unwrap().before = result.as_ref().ok().copied();
                done(result);
                Self::lose(&kept);
            });
            return self.session.append(partition, record, done);
        }
        if is_victim && self.has(Fault::Reorder) {
            self.kept.lock().unwrap().held = Some((record.clone(), done));
            return Ok(());
        }
        self.session.append(partition, record, done)?;
        if is_victim && self.has(Fault::Duplicate) {
            self.session.append(partition, record, Box::new(|_| {}))?;
        }
        match self.kept.lock().unwrap().held.take() {
            Some((held, done)) => self.session.append(partition, &held, done),
            None => Ok(()),
        }
    }
}

/// Writes a foreign record to partition 0, and after it an offset without a record: the marker of a
/// transaction.
pub(super) async fn leave_a_gap(address: &LogAddress) {
    let LogAddress::Kafka { brokers, topic } = address.clone() else {
        panic!("no topic");
    };
    let written = tokio::task::spawn_blocking(move || {
        let patience = Duration::from_secs(30);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("transactional.id", &topic)
            .create()
            .unwrap();
        producer.init_transactions(patience).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.commit_transaction(patience).unwrap();
    });
    written.await.unwrap();
}
