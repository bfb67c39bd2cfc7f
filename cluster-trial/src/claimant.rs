//! A claimant: claims a partition and writes to it as an owner does, with a window of records in
//! flight. Its answer for each record follows from the acknowledgement, or from reading the log.
//!
//! Invariant: a claimant follows the owner's protocol. It keeps what it learned and what it would
//! have answered, so that the end of the trial can compare both with the log. Deliberately absent:
//! commands and rules (`owner`), which no cluster can break.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use event_log::chain::{Chain, Stop, Verdict};
use event_log::log::{AppendResult, AppendSession, Appended, Appender, LogError};
use event_log::record::{self, ClaimHeaders, CommitHeaders, NewRecord, RECORD_VERSION};
use position::{ChainHash, Offset, Partition, Position, Term, WriterId};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::commits::{Commits, Content, claim_value};
use super::ledger::{Acknowledged, Key, Ledger};
use super::trial::Trial;

/// After this time without an acknowledgement, a record is in doubt.
pub(super) const DOUBT_AFTER: Duration = Duration::from_secs(30);
/// How long reading is tried again while the log does not answer or does not yet show an
/// acknowledged record.
const READ_WITHIN: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// How a burst of records is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    /// How many records.
    pub(super) records: u64,
    /// How many records may be in flight.
    pub(super) window: usize,
    /// The size of each value, in bytes.
    pub(super) value_bytes: usize,
    /// After this many acknowledgements, the producer is dropped together with what is in flight.
    pub(super) throw_after: Option<u64>,
}

/// How a burst ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Every record was acknowledged and counts.
    Written,
    /// Another claim counts now.
    Deposed,
    /// The producer was dropped with this many records in flight.
    Thrown(u64),
    /// A record's fate is in doubt, for this reason.
    Doubt(String),
}

/// Why a claimant cannot go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The log is damaged.
    Stop(Stop),
    /// The log does not answer, or accepts no records.
    Log(LogError),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// A claim that counts, and the state of writing under it.
pub(super) struct Held {
    session: Arc<dyn AppendSession>,
    term: Term,
    writer: WriterId,
    commits: Commits,
    head: ChainHash,
    position: Position,
}

struct Sent {
    headers: CommitHeaders,
    head: ChainHash,
    content: Content,
    sent_at: Instant,
}

type Told = (Position, AppendResult, Instant);

/// A client of the log that claims and writes.
pub(super) struct Claimant {
    trial: Arc<Trial>,
    appender: Option<Arc<dyn Appender>>,
    partition: Partition,
    node: String,
    chain: Chain,
    /// The offset after the last verified record.
    next: Offset,
    /// Own records that were read and count.
    read: HashSet<Key>,
    /// Own records without an answer.
    open: Vec<Key>,
    pub(super) ledger: Ledger,
}

impl Claimant {
    pub(super) fn new(trial: &Arc<Trial>, partition: Partition, name: &str) -> Self {
        Self {
            trial: Arc::clone(trial),
            appender: None,
            partition,
            node: format!("{} {name}", trial.node),
            chain: Chain::genesis(partition),
            next: Offset(0),
            read: HashSet::new(),
            open: Vec::new(),
            ledger: Ledger::default(),
        }
    }

    async fn session(&mut self) -> Result<Arc<dyn AppendSession>, LogError> {
        let appender = match &self.appender {
            Some(appender) => appender,
            None => self.appender.insert(self.trial.log.appender().await?),
        };
        appender.session()
    }

    /// Claims until a claim counts; `None` if the trial ends first.
    pub(super) async fn claim(&mut self) -> Result<Option<Held>, Trouble> {
        while !self.trial.is_over() {
            if let Some(held) = self.claim_once().await? {
                return Ok(Some(held));
            }
            self.ledger.claims_lost += 1;
            self.trial.back_off().await;
        }
        Ok(None)
    }

    async fn claim_once(&mut self) -> Result<Option<Held>, Trouble> {
        self.fold(None).await?;
        let headers = ClaimHeaders {
            term: Term(self.chain.term.0 + 1),
            writer: WriterId(Uuid::new_v4()),
            log: self.trial.log_id,
            version: RECORD_VERSION,
        };
        let record = headers.record(claim_value(&self.node));
        let session = self.session().await?;
        let (teller, mut told) = mpsc::unbounded_channel();
        let sent_at = Instant::now();
        append(&*session, self.partition, &record, Position(0), &teller)?;
        let appended = match tokio::time::timeout(DOUBT_AFTER, told.recv()).await {
            Ok(Some((_, Ok(appended), at))) => {
                let key = (headers.term, headers.writer, None);
                let content = Content::of(&record);
                self.note(key, content, &appended, (sent_at, at));
                appended
            }
            Ok(Some((_, Err(_), _)) | None) | Err(_) => {
                self.ledger.doubts += 1;
                return Ok(None);
            }
        };
        self.fold(appended.offset).await?;
        self.settle_open();
        if (self.chain.term, self.chain.writer) != (headers.term, headers.writer) {
            return Ok(None);
        }
        self.ledger.claims_won += 1;
        Ok(Some(Held {
            session,
            term: headers.term,
            writer: headers.writer,
            commits: Commits::of(headers.writer),
            head: self.chain.head,
            position: self.chain.position,
        }))
    }

    /// After an own claim, or another claim that deposed this one, a commit that was not read as
    /// counting can never count.
    fn settle_open(&mut self) {
        for key in std::mem::take(&mut self.open) {
            let counts = self.read.contains(&key);
            self.ledger.answers.push((key, counts));
        }
    }

    /// Writes a burst of commits under a claim.
    pub(super) async fn write(&mut self, held: &mut Held, burst: Burst) -> Result<Ended, Trouble> {
        let (teller, mut told) = mpsc::unbounded_channel();
        let mut in_flight: VecDeque<Sent> = VecDeque::new();
        let (mut sent, mut acknowledged) = (0, 0);
        loop {
            while sent < burst.records && in_flight.len() < burst.window {
                match self.send(held, burst.value_bytes, &teller) {
                    Ok(one) => in_flight.push_back(one),
                    Err(LogError::Full) if !in_flight.is_empty() => break,
                    Err(error) => return Ok(self.doubt(in_flight, error.to_string())),
                }
                sent += 1;
            }
            if burst.throw_after.is_some_and(|after| acknowledged >= after) {
                let count = in_flight.len() as u64;
                self.throw_away(held, &in_flight);
                return Ok(Ended::Thrown(count));
            }
            let Some(front) = in_flight.front() else {
                return Ok(Ended::Written);
            };
            let (position, result, at) = match tokio::time::timeout(DOUBT_AFTER, told.recv()).await
            {
                Ok(Some(told)) => told,
                Ok(None) | Err(_) => {
                    return Ok(self.doubt(in_flight, "no acknowledgement in time".to_owned()));
                }
            };
            if position != front.headers.position {
                let expected = front.headers.position;
                self.ledger.out_of_order.add(format!(
                    "partition {}: position {position} was acknowledged before {expected}",
                    self.partition
                ));
                return Ok(self.doubt(in_flight, "acknowledged out of order".to_owned()));
            }
            let appended = match result {
                Ok(appended) => appended,
                Err(error) => return Ok(self.doubt(in_flight, explained(&error))),
            };
            acknowledged += 1;
            let one = in_flight.pop_front().expect("its front was looked at");
            let key = self.note_commit(&one, &appended, at);
            if self.counts(&one, key, &appended).await? {
                continue;
            }
            self.collect(in_flight, &mut told).await?;
            return Ok(Ended::Deposed);
        }
    }

    fn send(
        &mut self,
        held: &mut Held,
        value_bytes: usize,
        teller: &mpsc::UnboundedSender<Told>,
    ) -> Result<Sent, LogError> {
        let (key, value): (Bytes, Bytes) = held.commits.next(now_ms(), value_bytes);
        let headers = CommitHeaders {
            term: held.term,
            writer: held.writer,
            position: held.position.next(),
            previous: held.head,
        };
        let head = record::chain_commit(&headers, &key, &value);
        let record = headers.record(key, value);
        let content = Content::of(&record);
        let sent_at = Instant::now();
        let appended = append(
            &*held.session,
            self.partition,
            &record,
            headers.position,
            teller,
        );
        if let Err(error) = appended {
            // The commit will be made again, with the same version.
            held.commits.take_back();
            return Err(error);
        }
        held.head = head;
        held.position = headers.position;
        Ok(Sent {
            headers,
            head,
            content,
            sent_at,
        })
    }

    /// Whether an acknowledged commit counts. If it directly follows the last verified record, it
    /// counts; otherwise the log is read.
    async fn counts(&mut self, one: &Sent, key: Key, at: &Appended) -> Result<bool, Trouble> {
        if at.offset == Some(self.next) {
            self.chain.accept_commit(one.headers, one.head, self.next);
            self.next = self.next.next();
            self.ledger.answers.push((key, true));
            return Ok(true);
        }
        self.ledger.slow += 1;
        if !self.read.contains(&key) {
            self.fold(at.offset).await?;
        }
        let counts = self.read.contains(&key);
        self.ledger.answers.push((key, counts));
        Ok(counts)
    }

    /// Deposed: takes the acknowledgements that still come, and answers from what was read.
    async fn collect(
        &mut self,
        in_flight: VecDeque<Sent>,
        told: &mut mpsc::UnboundedReceiver<Told>,
    ) -> Result<(), Trouble> {
        for one in in_flight {
            let key = key_of(&one);
            self.open.push(key);
            match tokio::time::timeout(DOUBT_AFTER, told.recv()).await {
                Ok(Some((position, Ok(appended), at))) if position == one.headers.position => {
                    self.note_commit(&one, &appended, at);
                }
                Ok(_) | Err(_) => self.ledger.doubts += 1,
            }
        }
        self.fold(None).await?;
        self.settle_open();
        Ok(())
    }

    fn doubt(&mut self, in_flight: VecDeque<Sent>, why: String) -> Ended {
        self.ledger.doubts += 1;
        self.open.extend(in_flight.iter().map(key_of));
        Ended::Doubt(why)
    }

    /// Imitates the end of a process: first its connections end, then its client.
    fn throw_away(&mut self, held: &mut Held, in_flight: &VecDeque<Sent>) {
        self.open.extend(in_flight.iter().map(key_of));
        self.trial.cut();
        let session = std::mem::replace(&mut held.session, Arc::new(Gone));
        let appender = self.appender.take();
        // Dropping a client joins its threads.
        tokio::task::spawn_blocking(move || drop((session, appender)));
    }

    fn note_commit(&mut self, one: &Sent, appended: &Appended, at: Instant) -> Key {
        let key = key_of(one);
        self.note(key, one.content, appended, (one.sent_at, at));
        self.trial.count_acknowledged();
        key
    }

    fn note(&mut self, key: Key, content: Content, appended: &Appended, times: (Instant, Instant)) {
        self.ledger.note(
            Acknowledged {
                partition: self.partition,
                key,
                content,
                offset: appended.offset,
            },
            appended.appended_at_ms,
            now_ms(),
            times,
        );
    }

    /// Reads and folds up to and including an offset, or to the log's present end.
    async fn fold(&mut self, up_to: Option<Offset>) -> Result<(), Trouble> {
        let deadline = Instant::now() + READ_WITHIN;
        let log = Arc::clone(&self.trial.log);
        let (up_to, must_be_there) = match up_to {
            Some(offset) => (offset.next(), true),
            None => {
                let bounds = retried(deadline, || log.bounds(self.partition)).await?;
                // Offsets without records are possible before the end.
                (bounds.end, false)
            }
        };
        while self.next < up_to {
            let (partition, from) = (self.partition, self.next);
            let chunk = retried(deadline, || log.read(partition, from)).await?;
            for record in chunk.records {
                if record.offset >= up_to {
                    break;
                }
                let verdict = self.chain.judge(&record).map_err(Trouble::Stop)?;
                if let Verdict::Commit(headers) = verdict {
                    let key = (headers.term, headers.writer, Some(headers.position));
                    self.read.insert(key);
                }
                self.next = record.offset.next();
            }
            self.next = self.next.max(chunk.next.min(up_to));
            if chunk.at_end && !must_be_there {
                self.next = self.next.max(up_to);
            }
            if chunk.at_end && self.next < up_to {
                if Instant::now() >= deadline {
                    self.ledger.unseen.add(format!(
                        "partition {partition}: the log ended at offset {} for a reader, {READ_WITHIN:?} \
                         after offset {} was acknowledged",
                        self.next,
                        up_to.0 - 1
                    ));
                    return Ok(());
                }
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
        Ok(())
    }

    /// Claims if any record is without an answer: after an own claim, the log decides its fate.
    pub(super) async fn settle(&mut self, attempts_max: u32) -> Result<(), Trouble> {
        for _ in 0..attempts_max {
            if self.open.is_empty() {
                break;
            }
            self.claim_once().await?;
        }
        Ok(())
    }

    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    pub(super) fn next(&self) -> Offset {
        self.next
    }
}

/// A session whose client was dropped.
struct Gone;

impl AppendSession for Gone {
    fn append(
        &self,
        _: Partition,
        _: &NewRecord,
        _: event_log::log::AppendDone,
    ) -> Result<(), LogError> {
        Err(LogError::Closed)
    }
}

fn key_of(one: &Sent) -> Key {
    let CommitHeaders {
        term,
        writer,
        position,
        ..
    } = one.headers;
    (term, writer, Some(position))
}

fn append(
    session: &dyn AppendSession,
    partition: Partition,
    record: &NewRecord,
    position: Position,
    teller: &mpsc::UnboundedSender<Told>,
) -> Result<(), LogError> {
    let teller = teller.clone();
    let done = Box::new(move |result| {
        // The claimant may have stopped waiting.
        let _ = teller.send((position, result, Instant::now()));
    });
    session.append(partition, record, done)
}

/// Repeats `ask` while the log does not answer.
pub(super) async fn retried<T, F>(
    deadline: Instant,
    mut ask: impl FnMut() -> F,
) -> Result<T, LogError>
where
    F: Future<Output = Result<T, LogError>>,
{
    loop {
        match ask().await {
            Err(LogError::Unavailable { .. } | LogError::OffsetGone { .. })
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(RETRY_EVERY).await;
            }
            result => return result,
        }
    }
}

pub(super) fn explained(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The present, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
