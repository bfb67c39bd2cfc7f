//! One watcher for all requests that wait for the same thing.
//!
//! Invariant: however many requests wait, one task reads, with a pause before each read; it ends soon
//! after the last request has stopped waiting. A request that begins to wait is not delayed by the
//! long pauses of those that already wait. Deliberately absent: what is read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The first and the longest pause between two reads.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Reads something again and again while somebody waits for it.
pub(super) struct Watcher<T> {
    seen: watch::Sender<Option<T>>,
    newcomer: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + Sync + 'static> Watcher<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: watch::Sender::new(None),
            newcomer: Notify::new(),
            task: Mutex::default(),
        })
    }

    /// What is read from now on, as long as the receiver is kept.
    pub(super) fn watch<R>(
        self: &Arc<Self>,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) -> watch::Receiver<Option<T>>
    where
        R: Future<Output = T> + Send + 'static,
    {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.seen.subscribe();
        match &*task {
            Some(task) if !task.is_finished() => self.newcomer.notify_one(),
            _ => *task = Some(tokio::spawn(Arc::clone(self).run(read))),
        }
        receiver
    }

    async fn run<R: Future<Output = T> + Send + 'static>(
        self: Arc<Self>,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) {
        let mut pause = PAUSE_MIN;
        loop {
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = self.newcomer.notified() => {
                    sleep(PAUSE_MIN).await;
                    pause = PAUSE_MIN;
                }
            }
            if self.is_alone() {
                return;
            }
            self.seen.send_replace(Some(read().await));
        }
    }

    /// Whether nobody waits any more. Then the next one to wait starts another task.
    fn is_alone(&self) -> bool {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alone = self.seen.receiver_count() == 0;
        if is_alone {
            *task = None;
        }
        is_alone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{Instant, advance};

    use super::*;

    /// Counts up with each read.
    fn counting(reads: &Arc<AtomicU32>) -> impl Fn() -> std::future::Ready<u32> + use<> {
        let reads = Arc::clone(reads);
        move || std::future::ready(reads.fetch_add(1, Ordering::Relaxed) + 1)
    }

    async fn wait_for(mut seen: watch::Receiver<Option<u32>>, wanted: u32) {
        let reached = |seen: &Option<u32>| seen.is_some_and(|seen| seen >= wanted);
        seen.wait_for(reached).await.expect("the watcher lives on");
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_that_wait_read_no_more_than_one() {
        let (watcher, reads) = (Watcher::new(), Arc::default());
        let began = Instant::now();
        let all = (0..200).map(|_| wait_for(watcher.watch(counting(&reads)), 44));
        futures::future::join_all(all).await;
        let took = began.elapsed();
        assert_eq!(reads.load(Ordering::Relaxed), 44);
        assert!(took >= Duration::from_millis(1_900), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_wait_is_not_delayed_by_long_pauses() {
        let (watcher, reads) = (Watcher::new(), Arc::default());
        let first = watcher.watch(counting(&reads));
        wait_for(first.clone(), 20).await;
        let began = Instant::now();
        let mut next = watcher.watch(counting(&reads));
        next.changed().await.unwrap();
        assert!(began.elapsed() <= 2 * PAUSE_MIN, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_when_nobody_waits() {
        let (watcher, reads) = (Watcher::new(), Arc::default());
        wait_for(watcher.watch(counting(&reads)), 3).await;
        advance(PAUSE_MAX).await;
        tokio::task::yield_now().await;
        let until_then = reads.load(Ordering::Relaxed);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(reads.load(Ordering::Relaxed), until_then);
        assert!(watcher.task.lock().unwrap().is_none());
        wait_for(watcher.watch(counting(&reads)), until_then + 1).await;
    }
}
