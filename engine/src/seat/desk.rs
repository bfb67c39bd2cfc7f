//! The desk of a seat: whoever brings something works on it at once where nobody else does, and calls
//! the seat's task otherwise.
//!
//! A command that somebody waits for passes through few hands this way: its client's thread decides and
//! appends, and the thread that hears the acknowledgement answers. Where much is on its way the task
//! takes all of it in turn, which costs less for each. Invariant: everything passes through the queues,
//! so that who works on it changes no order; nobody waits for the desk but the task. Deliberately
//! absent: what is done (`driver`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::Seat;
use super::driver::{Control, Driver, Queues, RETRY_AFTER, Shared};
use super::ticket::{ClientTicket, PeerTicket};
use crate::cluster::Known;
use crate::explained;

/// How often a seat looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// How often the local checkpoint is written when there is little to write.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How much may be on its way or wait where whoever brings something more works on it at once.
const AT_ONCE_MAX: usize = 16;

/// What a seat's task hears beside what comes through the queues.
pub(crate) struct Events {
    pub(crate) control: mpsc::Receiver<Control>,
    /// Whether the group says that this node should own.
    pub(crate) assigned: watch::Receiver<bool>,
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The desk of a seat.
pub(crate) struct Desk {
    driver: Mutex<Driver>,
    runtime: Handle,
    called: Notify,
    /// What was on its way or waited when somebody last worked here.
    load: AtomicUsize,
}

/// A way to a desk that does not keep it: a result may come when everybody has gone.
#[derive(Clone)]
pub(super) struct WayToDesk(Weak<Desk>);

impl WayToDesk {
    pub(super) fn call(&self) {
        if let Some(desk) = self.0.upgrade() {
            desk.call();
            desk.leave();
        }
    }

    pub(super) fn work(&self) {
        if let Some(desk) = self.0.upgrade() {
            desk.work();
            desk.leave();
        }
    }
}

impl Desk {
    /// A desk whose task is still to come, in the runtime that this is called in.
    pub(crate) fn open(
        seat: Seat<ClientTicket, PeerTicket>,
        shared: Shared,
        queues: Queues,
    ) -> Arc<Self> {
        Arc::new_cyclic(|desk| Self {
            driver: Mutex::new(Driver::new(
                seat,
                shared,
                queues,
                WayToDesk(Weak::clone(desk)),
            )),
            runtime: Handle::current(),
            called: Notify::new(),
            load: AtomicUsize::new(0),
        })
    }

    /// Lets the task look at what there is.
    pub(crate) fn call(&self) {
        self.called.notify_one();
    }

    /// Works on what there is, or lets the task do so.
    pub(crate) fn work(&self) {
        if self.load.load(Ordering::Relaxed) > AT_ONCE_MAX {
            return self.call();
        }
        match self.driver.try_lock() {
            Ok(mut driver) => {
                // This may be a thread of the log's client.
                let _entered = self.runtime.enter();
                driver.turn();
                self.load.store(driver.load(), Ordering::Relaxed);
                if driver.needs_task() {
                    self.call();
                }
            }
            Err(_) => self.call(),
        }
    }

    /// Whoever works here last must not take the log's client down with it: it may be one of that
    /// client's threads, which would wait for its own end.
    fn leave(self: Arc<Self>) {
        if let Some(last) = Arc::into_inner(self) {
            std::thread::spawn(move || drop(last));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seat's task: begins, looks at the clock, hears what is not in the queues, and ends.
    pub(crate) async fn attend(self: Arc<Self>, mut events: Events) {
        let mut ticked_at = Instant::now();
        let mut saved_at = ticked_at;
        let (mut group_is_there, mut directory_is_there) = (true, true);
        self.begin(&mut events).await;
        loop {
            let stopping = *events.stopping.borrow();
            let wakes_at = {
                let mut driver = self.lock();
                if ticked_at.elapsed() >= TICK {
                    ticked_at = Instant::now();
                    driver.tick();
                }
                let is_open = driver.turn();
                self.load.store(driver.load(), Ordering::Relaxed);
                let eager = saved_at.elapsed() >= SAVE_EVERY;
                driver.seat.save(eager);
                if eager {
                    saved_at = Instant::now();
                }
                if !is_open || (stopping && driver.seat.is_done()) {
                    break;
                }
                if driver.has_more() {
                    self.call();
                }
                driver.plan(ticked_at + TICK)
            };
            tokio::select! {
                biased;
                () = self.called.notified() => tokio::task::consume_budget().await,
                Some(control) = events.control.recv() => self.lock().control(control),
                changed = events.assigned.changed(), if group_is_there => {
                    group_is_there = changed.is_ok();
                    let assigned = *events.assigned.borrow_and_update();
                    let mut driver = self.lock();
                    let now = driver.now();
                    driver.seat.assign(assigned, now);
                }
                changed = events.known.changed(), if directory_is_there => {
                    directory_is_there = changed.is_ok();
                    self.lock().look_up(&events.known.borrow_and_update());
                }
                _ = events.stopping.changed(), if !stopping => self.lock().stop(),
                () = tokio::time::sleep_until(wakes_at.into()) => {}
            }
        }
        self.end().await;
    }

    async fn begin(&self, events: &mut Events) {
        let (log, partition) = {
            let mut driver = self.lock();
            driver.look_up(&events.known.borrow_and_update());
            driver.log()
        };
        loop {
            match log.bounds(partition).await {
                Ok(bounds) => {
                    let assigned = *events.assigned.borrow_and_update();
                    let mut driver = self.lock();
                    let now = driver.now();
                    return driver.seat.start(bounds.first, assigned, now);
                }
                Err(error) => {
                    tracing::warn!(error = explained(&error), %partition, "the log is away");
                    tokio::time::sleep(RETRY_AFTER).await;
                    if *events.stopping.borrow() {
                        return;
                    }
                }
            }
        }
    }

    /// Turns away what still waits, and keeps what was folded.
    async fn end(&self) {
        let (mut commands, mut from_peers) = self.lock().close();
        while let Some(message) = commands.recv().await {
            self.lock().message(message);
        }
        while let Some((submission, ticket)) = from_peers.recv().await {
            self.lock().seat.forwarded(submission, ticket);
        }
        let mut driver = self.lock();
        driver.seat.give_up();
        driver.turn();
        driver.seat.save(true);
    }
}
