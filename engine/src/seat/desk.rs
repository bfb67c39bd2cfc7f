//! The desk of a seat: a thread that brings work does the work at once if no other thread is
//! working here; otherwise it wakes the seat's task.
//!
//! So a command passes through few threads: its client's thread decides and appends, and the thread
//! that receives the acknowledgement answers. Under load, the task takes all the work in turn,
//! which costs less per command. Invariants: all work passes through the queues, so the order does
//! not depend on which thread works; only the task ever waits for the desk; a panic ends the
//! partition's driver and not the thread, which may be a thread of the log's client that carries
//! all acknowledgements of the node. Deliberately absent: the work itself (`driver`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use event_log::directory::DirectoryEntries;
use kernel::explained;
use position::Partition;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::driver::Effects as _;
use super::effects::RETRY_AFTER;
use super::shared::{Queues, Shared, Status};
use super::work::{NodeControl, NodeSeat, Work};

/// How often a seat looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// How often the local checkpoint is written while little changes.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Up to this many commands in flight or waiting, a thread that brings work does it itself.
const AT_ONCE_MAX: usize = 16;

/// How many hand-over and take-over requests of other nodes may wait for one partition.
const CONTROL_MAX: usize = 64;

/// What a seat's task is told apart from commands and requests.
pub(crate) struct News {
    /// Whether the group says that this node should own.
    pub(crate) assigned: watch::Receiver<bool>,
    pub(crate) known: watch::Receiver<DirectoryEntries>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// All ways to one partition's seat.
pub(crate) struct Desk {
    pub(crate) queues: Arc<Queues>,
    pub(crate) control: mpsc::Sender<NodeControl>,
    pub(crate) status: watch::Receiver<Status>,
    /// `None` after the task has ended.
    work: Mutex<Option<Work>>,
    runtime: Handle,
    /// How many commands were in flight or waited when a thread last worked here; `usize::MAX`
    /// before the task has begun.
    load: AtomicUsize,
}

/// A weak reference to a desk: a result may arrive after the desk is gone.
#[derive(Clone)]
pub(crate) struct WayToDesk(Weak<Desk>);

impl WayToDesk {
    pub(super) fn work(&self) {
        let Some(desk) = self.0.upgrade() else {
            return;
        };
        desk.work();
        // Drop the last reference on a fresh thread: a thread of the log's client would wait for
        // its own end.
        if let Some(last) = Arc::into_inner(desk) {
            std::thread::spawn(move || drop(last));
        }
    }
}

/// Drops the driver when the seat's task ends, for whatever reason: everybody who still waits gets
/// an answer, and later callers find no driver.
struct Closing<'a>(&'a Desk);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let work = self.0.work.lock();
        let gone = work.unwrap_or_else(PoisonError::into_inner).take();
        drop(gone);
    }
}

/// When a partition that begins now saves for the first time. The partitions' moments differ: a few
/// saves at the same time would take all processors for tens of milliseconds.
fn first_save_after(partition: Partition) -> Duration {
    // Multiples of the golden ratio's fraction spread evenly over 0 to 1, whatever their number.
    SAVE_EVERY.mul_f64((f64::from(partition.0) * 0.618_034).fract())
}

/// Runs work that blocks its thread for long. On a runtime with several threads, other tasks go on
/// meanwhile.
fn aside<R>(work: impl FnOnce() -> R) -> R {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}

impl Desk {
    /// Starts a seat's task on the runtime of the caller.
    pub(crate) fn start(
        seat: NodeSeat,
        shared: Shared,
        queue_max: usize,
        news: News,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let queues = Queues::new(queue_max);
        let (control, requests) = mpsc::channel(CONTROL_MAX);
        let (show, status) = watch::channel(Status::of(&seat));
        let desk = Arc::new_cyclic(|desk| {
            let way = WayToDesk(Weak::clone(desk));
            let work = Work::new(seat, shared, (Arc::clone(&queues), show), way);
            Self {
                queues,
                control,
                status,
                work: Mutex::new(Some(work)),
                runtime: Handle::current(),
                load: AtomicUsize::new(usize::MAX),
            }
        });
        let task = tokio::spawn(Arc::clone(&desk).attend(news, requests));
        (desk, task)
    }

    /// Wakes the task.
    pub(crate) fn call(&self) {
        self.queues.task.notify_one();
    }

    /// How many commands were in flight or waited when a thread last worked here.
    pub(crate) fn open_commands(&self) -> usize {
        match self.load.load(Ordering::Relaxed) {
            usize::MAX => 0,
            load => load,
        }
    }

    /// Does the waiting work, or wakes the task for it.
    pub(crate) fn work(&self) {
        if self.load.load(Ordering::Relaxed) > AT_ONCE_MAX {
            return self.call();
        }
        match self.work.try_lock() {
            Ok(mut work) => {
                // The current thread may belong to the log's client.
                let _entered = self.runtime.enter();
                self.guarded(&mut work, |work| {
                    work.turn();
                    self.load.store(work.driver.load(), Ordering::Relaxed);
                    if work.needs_task() {
                        self.call();
                    }
                });
            }
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => self.call(),
        }
    }

    /// Runs `with` on the driver; `None` if the driver is gone.
    fn with<R>(&self, with: impl FnOnce(&mut Work) -> R) -> Option<R> {
        let work = self.work.lock();
        self.guarded(&mut work.unwrap_or_else(PoisonError::into_inner), with)
    }

    /// Runs `with` on the driver; `None` if the driver is gone. A panic leaves the driver in an
    /// undefined state: it is dropped, its clients are answered, and the log is folded again at the
    /// next start.
    fn guarded<R>(&self, work: &mut Option<Work>, with: impl FnOnce(&mut Work) -> R) -> Option<R> {
        let present = work.as_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| with(present)));
        if done.is_err()
            && let Some(mut ended) = work.take()
        {
            ended.effects.end_by_defect();
            self.load.store(usize::MAX, Ordering::Relaxed);
            self.call();
            // Dropping the driver answers everybody who waits. This must not happen on a thread of
            // the log's client, which might wait for its own end.
            let runtime = self.runtime.clone();
            std::thread::spawn(move || {
                let _entered = runtime.enter();
                drop(ended);
            });
        }
        done.ok()
    }

    /// The seat's task: starts the seat, looks at the clock, handles what does not come through the
    /// queues, and ends.
    async fn attend(self: Arc<Self>, mut news: News, mut requests: mpsc::Receiver<NodeControl>) {
        let _closing = Closing(&self);
        if self.begin(&mut news).await.is_none() {
            return;
        }
        let mut ticked_at = Instant::now();
        let partition = self.with(|work| work.driver.seat().partition());
        let mut save_at = ticked_at + partition.map_or(SAVE_EVERY, first_save_after);
        let (mut group_is_there, mut directory_is_there) = (true, true);
        loop {
            let stopping = *news.stopping.borrow();
            let planned = self.with(|work| {
                if stopping {
                    work.driver.seat_mut().stop();
                }
                if ticked_at.elapsed() >= TICK {
                    ticked_at = Instant::now();
                    work.driver.tick(&mut work.effects);
                }
                let is_open = work.turn();
                self.load.store(work.driver.load(), Ordering::Relaxed);
                if work.has_more() {
                    self.call();
                }
                let is_over = !is_open || work.driver.seat().is_done();
                let now = Instant::now();
                let is_save_due = work.driver.seat().owner().is_save_due(now >= save_at);
                // Also if nothing was saved: otherwise all partitions would save at the first
                // command.
                while save_at <= now {
                    save_at += SAVE_EVERY;
                }
                (!is_over).then(|| (work.plan(ticked_at + TICK), is_save_due))
            });
            let Some(Some((wakes_at, is_save_due))) = planned else {
                break;
            };
            if is_save_due {
                self.save();
            }
            tokio::select! {
                biased;
                () = self.queues.task.notified() => tokio::task::consume_budget().await,
                Some(control) = requests.recv() => {
                    self.with(|work| work.driver.control(control, &mut work.effects));
                }
                changed = news.assigned.changed(), if group_is_there => {
                    group_is_there = changed.is_ok();
                    let assigned = *news.assigned.borrow_and_update();
                    self.with(|work| {
                        let now = work.effects.now();
                        work.driver.seat_mut().assign(assigned, now);
                    });
                }
                changed = news.known.changed(), if directory_is_there => {
                    directory_is_there = changed.is_ok();
                    self.with(|work| work.look_up(&news.known.borrow_and_update()));
                }
                // The value is read at the top of the loop, whichever branch comes first.
                _ = news.stopping.changed(), if !stopping => {}
                () = tokio::time::sleep_until(wakes_at.into()) => {}
            }
        }
        self.end().await;
    }

    /// Reads where the log begins, unless this node is told to stop first.
    async fn begin(&self, news: &mut News) -> Option<()> {
        let (log, partition) = self.with(|work| {
            work.look_up(&news.known.borrow_and_update());
            let log = Arc::clone(&work.effects.shared.log);
            (log, work.driver.seat().partition())
        })?;
        loop {
            match log.bounds(partition).await {
                Ok(bounds) => {
                    let assigned = *news.assigned.borrow_and_update();
                    return self.with(|work| {
                        work.driver.start(bounds.first, assigned, &work.effects);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = explained(&error), %partition, "the log is away");
                    tokio::time::sleep(RETRY_AFTER).await;
                    self.with(|work| work.effects.answer_questions(work.driver.seat()));
                    if *news.stopping.borrow() {
                        return Some(());
                    }
                }
            }
        }
    }

    /// Turns away the commands that still wait, and saves what was folded.
    async fn end(&self) -> Option<()> {
        self.load.store(usize::MAX, Ordering::Relaxed);
        self.with(Work::end)?;
        self.save()
    }

    /// Writes the local checkpoint, which blocks for long.
    fn save(&self) -> Option<()> {
        aside(|| self.with(|work| work.driver.seat_mut().owner_mut().save()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_begin_together_save_at_moments_that_lie_apart() {
        for count in [2_u32, 4, 16, 64] {
            let mut moments: Vec<Duration> =
                (0..count).map(Partition).map(first_save_after).collect();
            moments.push(SAVE_EVERY);
            moments.sort();
            let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
            let least = gaps.min().expect("two moments");
            assert!(least > SAVE_EVERY / count / 3, "{least:?} of {count}");
        }
    }
}
