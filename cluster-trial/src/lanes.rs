//! The lanes of the trial, one partition each: a writer whose connections are cut, producers that
//! are dropped, and two claimants at the same time.
//!
//! Invariant: each lane is bounded by its number of records and by the trial's end, whatever the
//! cluster does. Deliberately absent: the verdict on the result (`judge`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_log::commit::COMMIT_SIZE_MAX;
use event_log::log::LogError;
use position::Partition;

use super::claimant::{Burst, Claimant, Ended, Held, Trouble, explained, retried};
use super::ledger::Ledger;
use super::report::Places;
use super::trial::{Phase, Trial};

/// How many partitions the trial needs.
pub const PARTITIONS: u32 = 3;
const STEADY: Partition = Partition(0);
const THROWN: Partition = Partition(1);
const DUEL: Partition = Partition(2);

/// The size of an ordinary value, in bytes.
const VALUE_BYTES: usize = 600;
/// How many records are in flight: a tenth of the lane's records, within these bounds.
const WINDOW: std::ops::RangeInclusive<u64> = 20..=200;
/// How many records are written between two checks of the log's end.
const STEADY_BURST: u64 = 500;
/// How many records of the largest size are written.
const LARGEST: u64 = 3;
/// How many times writing the largest records is tried while their fate is in doubt.
const LARGEST_ATTEMPTS_MAX: u32 = 3;
/// How many producers are dropped: one for this many records, within these bounds.
const THROW_EVERY: u64 = 50;
const THROWS: std::ops::RangeInclusive<u64> = 4..=10;
/// How many times connections are cut: once for this many records, within these bounds.
const CUT_EVERY: u64 = 100;
const CUTS: std::ops::RangeInclusive<u64> = 6..=12;
/// How many bursts the two claimants write at least, and how many of their claims must count.
const DUEL_BURSTS: u64 = 60;
const DUEL_CLAIMS: u64 = 12;
/// How many records one paced burst has, and the pause between two. Paced bursts let time pass
/// while writing goes on.
const PACED_BURST: u64 = 10;
const PACED_EVERY: Duration = Duration::from_millis(50);
/// How many claims a claimant makes at the end to settle its open records.
const SETTLE_ATTEMPTS_MAX: u32 = 3;
/// How long the log's end is asked for.
const END_WITHIN: Duration = Duration::from_secs(30);

/// The result of one lane.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) ledger: Ledger,
    /// How many times a producer was dropped.
    pub(super) throws: u64,
    /// How many records were in flight in these producers.
    pub(super) thrown_records: u64,
    /// How many times a claimant took over from another.
    pub(super) take_overs: u64,
    /// How many of the largest records were acknowledged.
    pub(super) largest: u64,
    /// Why the cluster did not accept the largest records.
    pub(super) largest_refused: Option<String>,
    /// Reported ends of the log that lay before an acknowledged record.
    pub(super) ends_behind: Places,
    /// How many times the end was checked.
    pub(super) ends_seen: u64,
    /// Why the lane ended early.
    pub(super) trouble: Option<String>,
    /// Whether damage ended the lane.
    pub(super) is_damaged: bool,
}

impl Lane {
    fn note(&mut self, trouble: &Trouble) {
        let text = match trouble {
            Trouble::Stop(stop) => {
                self.is_damaged = true;
                stop.to_string()
            }
            Trouble::Log(error) => explained(error),
        };
        self.trouble.get_or_insert(text);
    }

    async fn end(mut self, mut claimant: Claimant) -> Self {
        if !self.is_damaged
            && let Err(trouble) = claimant.settle(SETTLE_ATTEMPTS_MAX).await
        {
            self.note(&trouble);
        }
        self.ledger = claimant.ledger;
        self
    }

    /// Adds the result of another lane.
    pub(super) fn extend(&mut self, other: Self) {
        let Self {
            ledger,
            throws,
            thrown_records,
            take_overs,
            largest,
            largest_refused,
            ends_behind,
            ends_seen,
            trouble,
            is_damaged,
        } = other;
        self.ledger.extend(ledger);
        self.throws += throws;
        self.thrown_records += thrown_records;
        self.take_overs += take_overs;
        self.largest += largest;
        self.largest_refused = self.largest_refused.take().or(largest_refused);
        self.ends_behind.extend(ends_behind);
        self.ends_seen += ends_seen;
        self.trouble = self.trouble.take().or(trouble);
        self.is_damaged |= is_damaged;
    }
}

/// The claim that is held, or a new one; `None` if the trial is over.
async fn holding<'a>(
    claimant: &mut Claimant,
    held: &'a mut Option<Held>,
) -> Result<Option<&'a mut Held>, Trouble> {
    if held.is_none() {
        *held = claimant.claim().await?;
    }
    Ok(held.as_mut())
}

/// Pauses briefly if the log did not answer; `false` if the lane should end.
async fn may_go_on(trial: &Trial, lane: &mut Lane, trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Log(
            LogError::Unavailable { .. }
            | LogError::Closed
            | LogError::Full
            | LogError::OffsetGone { .. },
        ) if !trial.is_over() => {
            trial.back_off().await;
            true
        }
        Trouble::Log(_) | Trouble::Stop(_) => {
            lane.note(trouble);
            false
        }
    }
}

/// One writer with a full window, while connections are cut.
pub(super) struct Steady {
    trial: Arc<Trial>,
    claimant: Claimant,
    held: Option<Held>,
    lane: Lane,
    quota: u64,
    window: usize,
    is_ended: bool,
}

impl Steady {
    pub(super) fn new(trial: &Arc<Trial>, quota: u64) -> Self {
        Self {
            quota,
            window: window_of(quota),
            trial: Arc::clone(trial),
            claimant: Claimant::new(trial, STEADY, "steady"),
            held: None,
            lane: Lane::default(),
            is_ended: false,
        }
    }

    /// Writes the largest records, then ordinary ones up to the quota.
    pub(super) async fn work(mut self) -> Self {
        let tried = largest(&mut self.claimant, &mut self.held, &mut self.lane).await;
        self.go_on_after(tried).await;
        while !self.is_ended && self.trial.phase() == Phase::Working {
            let written = self.claimant.ledger.acknowledged.len() as u64;
            let rest = self.quota.saturating_sub(written);
            if rest == 0 {
                break;
            }
            self.burst(STEADY_BURST.min(rest)).await;
        }
        self
    }

    /// Writes a little at a time while brokers are restarted.
    pub(super) async fn pace(mut self) -> Self {
        while !self.is_ended && !self.trial.is_over() {
            self.burst(PACED_BURST).await;
            tokio::time::sleep(PACED_EVERY).await;
        }
        self
    }

    pub(super) async fn end(self) -> Lane {
        self.lane.end(self.claimant).await
    }

    async fn burst(&mut self, records: u64) {
        let wrote = burst(&mut self.claimant, &mut self.held, records, self.window).await;
        self.go_on_after(wrote).await;
        look_at_end(&self.trial, &self.claimant, &mut self.lane).await;
    }

    async fn go_on_after(&mut self, wrote: Result<(), Trouble>) {
        let Err(trouble) = wrote else {
            return;
        };
        self.held = None;
        self.is_ended = !may_go_on(&self.trial, &mut self.lane, &trouble).await;
    }
}

fn window_of(quota: u64) -> usize {
    (quota / 10).clamp(*WINDOW.start(), *WINDOW.end()) as usize
}

/// Writes `records` records, at most `window` in flight, under the claim that is held or a new one.
async fn burst(
    claimant: &mut Claimant,
    held: &mut Option<Held>,
    records: u64,
    window: usize,
) -> Result<(), Trouble> {
    let Some(claim) = holding(claimant, held).await? else {
        return Ok(());
    };
    let burst = Burst {
        records,
        window,
        value_bytes: VALUE_BYTES,
        throw_after: None,
    };
    match claimant.write(claim, burst).await? {
        Ended::Written => {}
        Ended::Deposed | Ended::Thrown(_) | Ended::Doubt(_) => *held = None,
    }
    Ok(())
}

async fn largest(
    claimant: &mut Claimant,
    held: &mut Option<Held>,
    lane: &mut Lane,
) -> Result<(), Trouble> {
    let burst = Burst {
        records: LARGEST,
        window: LARGEST as usize,
        value_bytes: COMMIT_SIZE_MAX,
        throw_after: None,
    };
    for _ in 0..LARGEST_ATTEMPTS_MAX {
        let Some(claim) = holding(claimant, held).await? else {
            return Ok(());
        };
        match claimant.write(claim, burst).await? {
            Ended::Written => {
                lane.largest = LARGEST;
                lane.largest_refused = None;
                return Ok(());
            }
            Ended::Doubt(why) => lane.largest_refused = Some(why),
            Ended::Deposed | Ended::Thrown(_) => {}
        }
        *held = None;
    }
    Ok(())
}

/// Checks that the end that any reader is told lies after what was acknowledged.
async fn look_at_end(trial: &Trial, claimant: &Claimant, lane: &mut Lane) {
    let (partition, next) = (claimant.partition(), claimant.next());
    let deadline = Instant::now() + END_WITHIN;
    let Ok(bounds) = retried(deadline, || trial.log.bounds(partition)).await else {
        return;
    };
    lane.ends_seen += 1;
    if bounds.end < next {
        lane.ends_behind.add(format!(
            "partition {partition}: the end was said to be offset {} after offset {} was \
             acknowledged",
            bounds.end,
            next.0 - 1
        ));
    }
}

/// Drops producers with records in flight; after each, another claim follows.
pub(super) async fn thrown(trial: Arc<Trial>, quota: u64) -> Lane {
    let mut claimant = Claimant::new(&trial, THROWN, "thrown");
    let mut lane = Lane::default();
    let throws = (quota / THROW_EVERY).clamp(*THROWS.start(), *THROWS.end());
    let burst = Burst {
        records: u64::MAX,
        window: window_of(quota),
        value_bytes: VALUE_BYTES,
        throw_after: Some((quota / throws).max(1)),
    };
    while lane.throws < throws && trial.phase() == Phase::Working {
        let mut held = None;
        let wrote = match holding(&mut claimant, &mut held).await {
            Ok(Some(claim)) => claimant.write(claim, burst).await,
            Ok(None) => break,
            Err(trouble) => Err(trouble),
        };
        match wrote {
            Ok(Ended::Thrown(count)) => {
                lane.throws += 1;
                lane.thrown_records += count;
            }
            Ok(Ended::Written | Ended::Deposed | Ended::Doubt(_)) => {}
            Err(trouble) => {
                if !may_go_on(&trial, &mut lane, &trouble).await {
                    break;
                }
            }
        }
    }
    lane.end(claimant).await
}

/// The shared state of the two claimants.
struct Duel {
    quota: u64,
    written: AtomicU64,
    claims: AtomicU64,
}

impl Duel {
    /// How many records to write next; `None` once enough was written and taken over.
    fn next_burst(&self) -> Option<u64> {
        let is_written = self.written.load(Ordering::Relaxed) >= self.quota;
        match self.claims.load(Ordering::Relaxed) >= DUEL_CLAIMS {
            true if is_written => None,
            _ if is_written => Some(PACED_BURST),
            _ => Some((self.quota / DUEL_BURSTS).max(1)),
        }
    }
}

/// Two claimants, each with its own producer; both believe that they own the partition.
pub(super) async fn duel(trial: Arc<Trial>, quota: u64) -> Lane {
    let duel = Duel {
        quota,
        written: AtomicU64::new(0),
        claims: AtomicU64::new(0),
    };
    let (mut one, other) = tokio::join!(
        duellist(&trial, "first", &duel),
        duellist(&trial, "second", &duel),
    );
    one.extend(other);
    // The first claim takes over from nobody.
    one.take_overs = one.ledger.claims_won.saturating_sub(1);
    one
}

async fn duellist(trial: &Arc<Trial>, name: &str, duel: &Duel) -> Lane {
    let mut claimant = Claimant::new(trial, DUEL, name);
    let mut lane = Lane::default();
    let mut held = None;
    while trial.phase() == Phase::Working
        && let Some(records) = duel.next_burst()
    {
        let before = (
            claimant.ledger.acknowledged.len(),
            claimant.ledger.claims_won,
        );
        let wrote = burst(&mut claimant, &mut held, records, window_of(duel.quota)).await;
        let ledger = &claimant.ledger;
        let acknowledged = ledger.acknowledged.len() - before.0;
        duel.written
            .fetch_add(acknowledged as u64, Ordering::Relaxed);
        duel.claims
            .fetch_add(ledger.claims_won - before.1, Ordering::Relaxed);
        if let Err(trouble) = wrote {
            held = None;
            if !may_go_on(trial, &mut lane, &trouble).await {
                break;
            }
        }
        if held.is_none() {
            trial.back_off().await;
        } else if records == PACED_BURST {
            tokio::time::sleep(PACED_EVERY).await;
        }
    }
    lane.end(claimant).await
}

/// Cuts all connections at moments spread over the records.
pub(super) async fn cutter(trial: Arc<Trial>, records: u64) {
    let cuts = (records / CUT_EVERY).clamp(*CUTS.start(), *CUTS.end());
    for number in 0..cuts {
        let at = records * (2 * number + 1) / (2 * cuts);
        if !trial.until_acknowledged(at).await {
            return;
        }
        trial.cut();
    }
}
