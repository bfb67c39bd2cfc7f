//! One client's feed: finds and reads what it lacks, then follows the end of the log with the others.
//!
//! Three sources give commits, each up to where the next one begins: the index, which tells where the
//! commits are that a filter takes; the log itself, from the last place that the index knows, or from
//! the client's; and the end of the log, which all followers share (`tail`). Invariants: the bookmark
//! moves with each commit that was looked at, and never into a commit; nothing is sent before the log
//! has proven that it holds what the bookmark says; a client that reads slowly holds one piece of the
//! body and its bookmark, and no piece of the log. Deliberately absent: HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use door::Problem;
use event_log::bookmark::{BookmarkProofError, prove};
use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::commit::Commit;
use event_log::log::{Bounds, LogError};
use event_log::subscription::{Pull, SubscriptionError, is_other_log};
use kernel::Timestamp;
use kernel::registry::MessageError;
use position::{Bookmark, Mark, Offset, Partition};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::asked::Asked;
use super::items::{Writer, items_of};
use super::tail::{Seat, TailCommit, Taken};
use super::{Feeds, unavailable};
use crate::parameters::Shape;
use crate::{Inner, QueryDoor, code};

/// A piece of the body is sent when it has this many bytes; one commit may make it longer.
const PIECE_BYTES: usize = 16 << 10;
/// How long a piece may wait for its client before the follower lets go of what it read of the log.
const STALL: Duration = Duration::from_millis(250);
/// After this long without an item, the feed says that it is alive, and how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How many commits are taken from the end of the log at once.
const TAKEN_MAX: usize = 64;
/// The pause before a log or an index that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// When a client of server-sent events comes back, in milliseconds.
const COMES_BACK_MS: u64 = 1_000;

/// Why a feed ends before its end.
pub(super) enum Ended {
    /// The client went away.
    Client,
    /// The node is to end: the client goes on elsewhere.
    Closing,
    /// The client is told why.
    Problem(Problem),
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What a filter leaves to be read of the log.
enum Caught {
    /// The feed has come to where it was to end.
    End,
    /// The feed has reached the end that all followers share.
    Tail(Seat),
}

pub(super) struct Follower {
    pub(super) door: QueryDoor,
    pub(super) asked: Asked,
    pub(super) bookmark: Bookmark,
    /// Nothing before these offsets is shown.
    pub(super) shown_from: BTreeMap<Partition, Offset>,
    /// Nothing that was recorded before is shown.
    pub(super) shown_since: Option<Timestamp>,
    /// Where a feed that does not follow ends.
    pub(super) ends: BTreeMap<Partition, Bounds>,
    pub(super) pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    pub(super) writer: Writer,
    pub(super) said_at: Instant,
    pub(super) searches: bool,
    pub(super) gauge: super::Gauge,
    /// Whether the client has its answer's head, so that the feed may wait for a log or an index.
    pub(super) has_begun: bool,
}

impl Follower {
    pub(super) async fn run(mut self) {
        self.has_begun = true;
        self.writer.begin(COMES_BACK_MS);
        let ended = match self.follow().await {
            Ok(()) => {
                self.writer.end(&self.bookmark);
                self.flush().await
            }
            Err(ended) => Err(ended),
        };
        if let Err(Ended::Problem(problem)) = ended {
            let problem = serde_json::to_value(problem.complete("/v1/events", ""));
            let problem = problem.unwrap_or_default();
            tracing::debug!(%problem, "a feed ends with a problem");
            self.writer.problem(&problem);
            let _ = self.flush().await;
        }
    }

    pub(super) fn feeds(&self) -> &Feeds {
        &self.door.inner.feeds
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.door.inner
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        loop {
            if self.searches && self.search().await? {
                return Ok(());
            }
            match self.catch_up().await? {
                Caught::End => return Ok(()),
                Caught::Tail(seat) => self.at_the_end(seat).await?,
            }
        }
    }

    /// Reads the log from the bookmark on, up to where the feed ends or the shared end begins.
    async fn catch_up(&mut self) -> Result<Caught, Ended> {
        'anew: loop {
            let mut pulls = self.pulls().await?;
            loop {
                let mut is_all_read = true;
                for partition in self.partitions() {
                    if self.is_over(partition, &pulls) {
                        continue;
                    }
                    let turn = self.turn().await?;
                    let Some(pull) = pulls.get_mut(&partition) else {
                        continue;
                    };
                    let pulled = match pull.next().await {
                        Ok(pulled) => pulled,
                        Err(SubscriptionError::Stop(stop)) => return Err(stopped(&stop).into()),
                        Err(SubscriptionError::Log(error)) => {
                            drop(turn);
                            self.wait_for_log(&error).await?;
                            continue 'anew;
                        }
                    };
                    is_all_read &= pulled.at_end;
                    let commits = pulled.batch.map(|batch| batch.commits).unwrap_or_default();
                    for placed in commits {
                        if let Some(commit) = TailCommit::of(placed) {
                            self.hand(&commit)?;
                        }
                        if self.writer.bytes.len() < PIECE_BYTES {
                            continue;
                        }
                        // Those who follow must not take the threads from those who command.
                        yield_now().await;
                        if !self.try_flush().await? {
                            drop((turn, pulls));
                            self.flush().await?;
                            continue 'anew;
                        }
                    }
                    drop(turn);
                    self.say_progress();
                    if !self.writer.bytes.is_empty() && !self.try_flush().await? {
                        drop(pulls);
                        self.flush().await?;
                        continue 'anew;
                    }
                }
                if !self.asked.follows {
                    let mut partitions = self.partitions();
                    if partitions.all(|partition| self.is_over(partition, &pulls)) {
                        return Ok(Caught::End);
                    }
                } else if is_all_read {
                    let next = pulls
                        .iter()
                        .map(|(&p, pull)| (p, pull.next_offset()))
                        .collect();
                    let checkpoints = pulls.iter().filter_map(|(&partition, pull)| {
                        Some((partition, pull.handed_out().cloned()?))
                    });
                    let checkpoints: BTreeMap<_, Checkpoint> = checkpoints.collect();
                    if let Some(seat) = self.feeds().tail.join(&next, &checkpoints) {
                        return Ok(Caught::Tail(seat));
                    }
                }
            }
        }
    }

    /// Follows the shared end of the log until the follower falls behind it.
    async fn at_the_end(&mut self, mut seat: Seat) -> Result<(), Ended> {
        loop {
            match seat.take(TAKEN_MAX) {
                Taken::Commits(commits) => {
                    for commit in &commits {
                        self.hand(commit)?;
                    }
                    self.gauge.behind(seat.behind());
                    yield_now().await;
                    self.say_progress();
                    if self.writer.bytes.len() >= PIECE_BYTES {
                        self.flush().await?;
                    }
                }
                Taken::Nothing => {
                    self.flush().await?;
                    let pause = PROGRESS_EVERY.saturating_sub(self.said_at.elapsed());
                    let mut closing = self.feeds().closing();
                    let pieces = self.pieces.clone();
                    tokio::select! {
                        () = seat.changed() => {}
                        () = sleep(pause) => self.say_progress(),
                        () = pieces.closed() => return Err(Ended::Client),
                        _ = closing.wait_for(|closing| *closing) => return Err(Ended::Closing),
                    }
                }
                Taken::Behind => return self.flush().await,
                Taken::Stopped(stop) => return Err(stopped(&stop).into()),
            }
        }
    }

    /// The readers of all partitions, each behind its mark. The log has proven the marks.
    async fn pulls(&mut self) -> Result<BTreeMap<Partition, Pull>, Ended> {
        let proven = self.prove().await?;
        let mut proven: BTreeMap<Partition, Checkpoint> = proven.into_iter().collect();
        let log = &self.inner().log;
        let pull = |partition| {
            let from = proven.remove(&partition);
            (partition, Pull::new(Arc::clone(log), partition, from))
        };
        Ok(self.partitions().map(pull).collect())
    }

    /// Proves the bookmark.
    pub(super) async fn prove(&mut self) -> Result<Vec<(Partition, Checkpoint)>, Ended> {
        loop {
            match prove(&*self.inner().log, &self.bookmark).await {
                Ok(proven) => return Ok(proven),
                Err(BookmarkProofError::Log(error)) => self.wait_for_log(&error).await?,
                Err(error @ BookmarkProofError::Changed(_)) => {
                    return Err(log_changed(&error.to_string()).into());
                }
            }
        }
    }

    /// Waits a moment, and says that the feed is alive.
    pub(super) async fn wait_for_log(&mut self, error: &LogError) -> Result<(), Ended> {
        if error.is_final() {
            return Err(log_changed("the log is not the one that was opened").into());
        }
        if !self.has_begun {
            return Err(unavailable(error).into());
        }
        tracing::debug!(%error, "the log does not answer a feed; trying again");
        self.pause().await
    }

    pub(super) async fn pause(&mut self) -> Result<(), Ended> {
        self.say_progress();
        self.flush().await?;
        let mut closing = self.feeds().closing();
        tokio::select! {
            () = sleep(RETRY_AFTER) => Ok(()),
            () = self.pieces.closed() => Err(Ended::Client),
            _ = closing.wait_for(|closing| *closing) => Err(Ended::Closing),
        }
    }

    /// One of the few turns in which a piece of the log is held.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Ended> {
        let mut closing = self.feeds().closing();
        let turns = Arc::clone(&self.feeds().turns);
        tokio::select! {
            turn = turns.acquire_owned() => turn.map_err(|_| Ended::Closing),
            () = self.pieces.closed() => Err(Ended::Client),
            _ = closing.wait_for(|closing| *closing) => Err(Ended::Closing),
        }
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.inner().log.partition_count()).map(Partition)
    }

    /// Whether nothing more of a partition is to be read.
    fn is_over(&self, partition: Partition, pulls: &BTreeMap<Partition, Pull>) -> bool {
        if self.asked.follows {
            return false;
        }
        let Some(bounds) = self.ends.get(&partition) else {
            return true;
        };
        // An empty partition is over, too.
        bounds.end <= bounds.first
            || pulls
                .get(&partition)
                .is_none_or(|pull| pull.next_offset() >= bounds.end)
    }

    /// Takes a commit that was read: its items, if it is asked for, and the bookmark behind it.
    pub(super) fn hand(&mut self, commit: &TailCommit) -> Result<(), Ended> {
        let TailCommit {
            partition,
            mark,
            latest_recorded_at,
            ..
        } = *commit;
        self.bookmark.marks.insert(partition, mark);
        if !self.is_asked_for(partition, mark, latest_recorded_at, &commit.commit) {
            return Ok(());
        }
        if self.asked.shape == Shape::Latest {
            return self.write(partition, mark, &commit.commit);
        }
        let items = commit.items(&self.door.inner.registry);
        let count = self.writer.commit(items, &self.bookmark, &self.asked);
        self.has_sent(count);
        Ok(())
    }

    /// The same for a commit that no other follower reads.
    pub(super) fn take(
        &mut self,
        partition: Partition,
        mark: Mark,
        latest_recorded_at: Timestamp,
        commit: &Commit,
    ) -> Result<(), Ended> {
        self.bookmark.marks.insert(partition, mark);
        match self.is_asked_for(partition, mark, latest_recorded_at, commit) {
            true => self.write(partition, mark, commit),
            false => Ok(()),
        }
    }

    fn is_asked_for(
        &self,
        partition: Partition,
        mark: Mark,
        latest_recorded_at: Timestamp,
        commit: &Commit,
    ) -> bool {
        let from = self.shown_from.get(&partition);
        from.is_none_or(|from| mark.offset >= *from)
            && self
                .shown_since
                .is_none_or(|since| latest_recorded_at >= since)
            && self
                .asked
                .until
                .is_none_or(|until| latest_recorded_at < until)
            && self.asked.takes(commit)
    }

    fn write(&mut self, partition: Partition, mark: Mark, commit: &Commit) -> Result<(), Ended> {
        let registry = &self.door.inner.registry;
        let items = items_of(commit, partition, mark, self.asked.shape, registry);
        let items = items.map_err(|error| unread(commit, &error))?;
        let count = self.writer.commit(&items, &self.bookmark, &self.asked);
        self.has_sent(count);
        Ok(())
    }

    fn has_sent(&mut self, count: u64) {
        self.said_at = Instant::now();
        self.gauge.sent(count);
    }

    /// Says how far the feed has come, if it said nothing for a while.
    pub(super) fn say_progress(&mut self) {
        if self.said_at.elapsed() >= PROGRESS_EVERY {
            self.said_at = Instant::now();
            self.writer.progress(&self.bookmark);
        }
    }

    /// Sends what was written, once the client has taken what came before.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        while !self.try_flush().await? {}
        Ok(())
    }

    /// The same, if the client has room for it soon; says whether it had.
    pub(super) async fn try_flush(&mut self) -> Result<bool, Ended> {
        if self.writer.bytes.is_empty() {
            return Ok(true);
        }
        let mut closing = self.feeds().closing();
        let pieces = self.pieces.clone();
        let room = tokio::select! {
            room = timeout(STALL, pieces.reserve()) => room,
            _ = closing.wait_for(|closing| *closing) => return Err(Ended::Closing),
        };
        match room {
            Err(_elapsed) => Ok(false),
            Ok(Err(_closed)) => Err(Ended::Client),
            Ok(Ok(room)) => {
                let mut bytes = std::mem::take(&mut self.writer.bytes);
                bytes.shrink_to_fit();
                room.send(Ok(bytes.into()));
                Ok(true)
            }
        }
    }
}

/// The problem of a log that no longer holds what the client has.
pub(super) fn log_changed(why: &str) -> Problem {
    let detail = format!("{why}: what comes next would not continue what you have");
    Problem::new(code::LOG_CHANGED, detail)
}

/// Why no reader goes on.
fn stopped(stop: &Stop) -> Problem {
    if is_other_log(stop) {
        return log_changed("the log is not the one that was read before");
    }
    if stop.asks_for_upgrade() {
        let detail = "the log goes on in a form that this program does not know";
        return Problem::new(code::UPGRADE_NEEDED, detail);
    }
    // The place is for the operator.
    tracing::error!(%stop, "the log is damaged; feeds end here");
    let detail = "no reader goes on from here until an operator has examined the log";
    Problem::new(code::LOG_DAMAGED, detail)
}

fn unread(commit: &Commit, error: &MessageError) -> Problem {
    let stream = &commit.stream;
    let detail = format!("an event of {stream} has no newest shape in this program: {error}");
    Problem::new(code::UPGRADE_NEEDED, detail)
}
