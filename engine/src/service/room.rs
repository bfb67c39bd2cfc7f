//! The bytes that waiting commands may take, over all partitions.
//!
//! Invariant: a sender may hold at most as many bytes as are free, so there is always room for a
//! new sender; a command's bytes become free when it is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub(super) struct Room {
    /// The size of the whole room.
    bytes: usize,
    free: Mutex<usize>,
    /// Notified once for each part that becomes free.
    freed: Notify,
}

/// How much of the room one sender holds.
#[derive(Clone, Default)]
pub(super) struct Share(Arc<AtomicUsize>);

/// A part of the room that a command holds; dropping it gives it back.
pub(crate) struct Part {
    room: Arc<Room>,
    share: Share,
    bytes: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            free: Mutex::new(bytes),
            freed: Notify::new(),
        })
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are held.
    pub(super) fn used(&self) -> usize {
        self.bytes.saturating_sub(*self.free())
    }

    /// Takes a part, if the sender may have this many bytes now.
    pub(super) fn try_take(self: &Arc<Self>, share: &Share, bytes: u32) -> Option<Part> {
        let bytes = bytes as usize;
        let mut free = self.free();
        let held = share.0.load(Ordering::Relaxed);
        if held.saturating_add(bytes) > *free {
            return None;
        }
        *free -= bytes;
        share.0.store(held + bytes, Ordering::Relaxed);
        drop(free);
        Some(Part {
            room: Arc::clone(self),
            share: share.clone(),
            bytes,
        })
    }

    /// Waits until the sender may have this many bytes, and takes them.
    pub(super) async fn take(self: &Arc<Self>, share: &Share, bytes: u32) -> Part {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if let Some(part) = self.try_take(share, bytes) {
                return part;
            }
            freed.await;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        {
            let mut free = self.room.free();
            *free += self.bytes;
            self.share.0.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.room.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sender_holds_no_more_than_it_leaves_to_others() {
        let room = Room::new(100);
        let (greedy, other) = (Share::default(), Share::default());
        let mut held = Vec::new();
        while let Some(part) = room.try_take(&greedy, 10) {
            held.push(part);
        }
        assert_eq!(held.len(), 5);
        let part = room.try_take(&other, 25).expect("half is left");
        assert!(room.try_take(&other, 1).is_none(), "as much as is free");
        let mut waits = std::pin::pin!(room.take(&other, 20));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(held);
        drop(part);
        assert_eq!(waits.await.bytes, 20);
        assert_eq!(*room.free(), 100);
    }
}
