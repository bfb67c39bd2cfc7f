//! Limits the memory for bodies and answers of all connections of a listener together.
//!
//! Every request has a small allowance, which is part of the cost of a connection. Larger needs are
//! taken from the shared memory, of which one address gets at most half. Invariant: held memory is
//! returned when it is dropped, wherever that happens; a request that finds no room waits for a
//! bounded time and is then told to try again. Small and large parts come from two separate halves,
//! and a request that keeps a small part ([`Charge::keep`]) never waits for another small part, so
//! that waiting requests never wait for each other. Deliberately absent: the memory of the engine,
//! which bounds its own.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::code;
use crate::problem::Problem;

/// The default size of the shared memory.
pub const MEMORY_BYTES_DEFAULT: usize = 64 << 20;
/// The bytes that a request may hold without taking shared memory.
pub const ALLOWANCE_BYTES: usize = 16 << 10;
/// The largest part that counts as small.
pub const SMALL_BYTES_MAX: usize = 1 << 20;
/// How long a request waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// When to try again if there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The shared memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// One half for small parts, the other for large parts.
    halves: [Arc<Semaphore>; 2],
    /// The most that one address may have of each half.
    share_bytes: u32,
    held: Gauge,
    refused: Counter,
}

impl Memory {
    /// A shared memory of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let half = bytes.clamp(4, Semaphore::MAX_PERMITS) / 2;
        let refused = counter!("annals_http_memory_refused_total");
        refused.increment(0);
        let held = gauge!("annals_http_memory_bytes");
        held.increment(0);
        Self {
            halves: [(); 2].map(|()| Arc::new(Semaphore::new(half))),
            share_bytes: u32::try_from(half / 2).unwrap_or(u32::MAX),
            held,
            refused,
        }
    }

    /// The share of one address.
    #[must_use]
    pub fn share(&self) -> Share {
        let own = || Arc::new(Semaphore::new(self.share_bytes as usize));
        Share {
            own: [own(), own()],
            memory: self.clone(),
        }
    }
}

/// The part of the memory that one address may use.
#[derive(Clone, Debug)]
pub struct Share {
    memory: Memory,
    own: [Arc<Semaphore>; 2],
}

impl Share {
    #[cfg(test)]
    fn is_whole(&self) -> bool {
        let whole = self.memory.share_bytes as usize;
        self.own.iter().all(|own| own.available_permits() == whole)
    }

    /// The charge of a new request, which holds nothing yet.
    #[must_use]
    pub fn charge(&self) -> Charge {
        self.charge_of(Arc::default())
    }

    /// The charge of a new request on the connection that `open` belongs to.
    pub(crate) fn charge_of(&self, open: Arc<Open>) -> Charge {
        Charge::of(Some(self.clone()), open)
    }

    async fn take(&self, size: usize) -> Result<Shared, AcquireError> {
        let half = usize::from(size > SMALL_BYTES_MAX);
        // A part larger than the share takes the whole share.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let size = size.min(self.memory.share_bytes);
        let own = Arc::clone(&self.own[half]).acquire_many_owned(size).await?;
        let all = Arc::clone(&self.memory.halves[half]);
        let all = all.acquire_many_owned(size).await?;
        self.memory.held.increment(size);
        Ok(Shared {
            own,
            all,
            held: self.memory.held.clone(),
        })
    }
}

/// A part of the shared memory.
#[derive(Debug)]
struct Shared {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    held: Gauge,
}

impl Shared {
    fn size(&self) -> usize {
        self.all.num_permits()
    }

    /// Returns this many bytes.
    fn give_back(&mut self, size: usize) {
        let size = size.min(self.size());
        drop((self.own.split(size), self.all.split(size)));
        self.held.decrement(u32::try_from(size).unwrap_or(u32::MAX));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let size = u32::try_from(self.size()).unwrap_or(u32::MAX);
        self.held.decrement(size);
    }
}

/// Memory that is held until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Held {
    _allowance: Option<OwnedSemaphorePermit>,
    _shared: Option<Shared>,
}

/// The open work of a connection's request.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// How many of its parts wait for memory.
    queued: AtomicUsize,
    /// How many of its commands were taken and not yet answered.
    owed: AtomicUsize,
}

impl Open {
    /// Whether the request waits for memory.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// Whether the request has commands that were taken and not yet answered.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
    }
}

/// Adds 1 to a counter until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn by(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Stands for a command that was taken and not yet answered; dropped with the answer. While a
/// connection has one, it is not cut to make room for another.
#[derive(Debug)]
#[must_use]
pub struct Owed(Arc<Open>);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The memory of one request, an extension of every request that is served; cheap to clone. Without
/// a server, as in tests of a router, nothing is counted.
#[derive(Clone, Debug)]
pub struct Charge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    share: Option<Share>,
    open: Arc<Open>,
    allowance: Arc<Semaphore>,
    kept: Mutex<Vec<Shared>>,
}

impl Charge {
    fn of(share: Option<Share>, open: Arc<Open>) -> Self {
        Self(Arc::new(Inner {
            share,
            open,
            allowance: Arc::new(Semaphore::new(ALLOWANCE_BYTES)),
            kept: Mutex::default(),
        }))
    }

    /// The charge of a request.
    #[must_use]
    pub fn of_request(extensions: &Extensions) -> Self {
        let found = extensions.get::<Self>().cloned();
        found.unwrap_or_else(|| Self::of(None, Arc::default()))
    }

    /// Notes that a command was taken. Its answer is owed until the returned value is dropped.
    pub fn owe(&self) -> Owed {
        self.0.open.owed.fetch_add(1, Ordering::Relaxed);
        Owed(Arc::clone(&self.0.open))
    }

    /// Waits for memory for something that is dropped before the request ends.
    ///
    /// # Errors
    /// `memory_exhausted`.
    pub async fn take(&self, size: usize) -> Result<Held, Problem> {
        let held = |allowance, shared| Held {
            _allowance: allowance,
            _shared: shared,
        };
        let Some(share) = &self.0.share else {
            return Ok(held(None, None));
        };
        let allowance = match u32::try_from(size) {
            Ok(size) if size as usize <= ALLOWANCE_BYTES => size,
            _ => return Ok(held(None, Some(self.wait(share, share.take(size)).await?))),
        };
        let of_allowance = Arc::clone(&self.0.allowance);
        if let Ok(permit) = of_allowance.try_acquire_many_owned(allowance) {
            return Ok(held(Some(permit), None));
        }
        let of_allowance = Arc::clone(&self.0.allowance);
        self.wait(share, async {
            tokio::select! {
                biased;
                permit = of_allowance.acquire_many_owned(allowance) => Ok(held(Some(permit?), None)),
                shared = share.take(size) => Ok(held(None, Some(shared?))),
            }
        })
        .await
    }

    /// Waits for `size` bytes of memory. They are held as long as this charge has a clone: until
    /// the client has the request's answer. Call this at most once for a small part and once for a
    /// large part.
    ///
    /// # Errors
    /// `memory_exhausted`.
    pub async fn keep(&self, size: usize) -> Result<(), Problem> {
        if let Some(share) = &self.0.share
            && size > ALLOWANCE_BYTES
        {
            let part = self.wait(share, share.take(size)).await?;
            self.kept().push(part);
        }
        Ok(())
    }

    /// Changes the kept memory to `size` bytes.
    ///
    /// # Errors
    /// `memory_exhausted`; then the charge keeps nothing.
    pub async fn settle(&self, size: usize) -> Result<(), Problem> {
        let needed = size.saturating_sub(ALLOWANCE_BYTES);
        let has_enough = {
            let mut kept = self.kept();
            let mut excess = kept.iter().map(Shared::size).sum::<usize>();
            let has_enough = excess >= needed;
            excess = excess.saturating_sub(needed);
            // The larger parts first. If the kept parts are too small, they are returned before the
            // charge waits for more.
            kept.sort_by_key(Shared::size);
            while let Some(mut part) = kept.pop() {
                if !has_enough || part.size() <= excess {
                    excess = excess.saturating_sub(part.size());
                    continue;
                }
                part.give_back(excess);
                kept.push(part);
                break;
            }
            has_enough
        };
        match has_enough {
            true => Ok(()),
            false => self.keep(size).await,
        }
    }

    async fn wait<T>(
        &self,
        share: &Share,
        room: impl Future<Output = Result<T, AcquireError>>,
    ) -> Result<T, Problem> {
        let _queued = Counted::by(&self.0.open.queued);
        // The semaphores are never closed; an error would be treated like a lack of room.
        match tokio::time::timeout(ROOM_WAIT, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => {
                share.memory.refused.increment(1);
                let detail = "the memory for bodies and answers is in use; send smaller requests, \
                              or send this request again later";
                Err(Problem::new(code::MEMORY_EXHAUSTED, detail).retry_after(RETRY_AFTER))
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Charge {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of_request(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_what_others_need() {
        let memory = Memory::new(400 * KIB);
        let (one, other) = (memory.share(), memory.share());
        let charge = one.charge();
        charge.keep(90 * KIB).await.unwrap();
        let refused = one.charge().take(20 * KIB).await.unwrap_err();
        assert_eq!(refused.code(), "memory_exhausted");
        assert!(other.charge().take(100 * KIB).await.is_ok());
        // A request within its allowance takes no shared memory.
        one.charge().keep(ALLOWANCE_BYTES).await.unwrap();
        drop(charge);
        assert!(one.is_whole() && other.is_whole());
        assert_eq!(memory.halves[0].available_permits(), 200 * KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_memory_makes_room_for_a_waiting_request() {
        let share = Memory::new(400 * KIB).share();
        let held = share.charge().take(100 * KIB).await.unwrap();
        let charge = share.charge();
        let (waited, ()) = tokio::join!(charge.take(50 * KIB), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(held);
        });
        drop(waited.unwrap());
        // Lines of one request reuse the request's allowance.
        let all = share.charge().take(100 * KIB).await.unwrap();
        let first = charge.take(10 * KIB).await.unwrap();
        let (second, ()) = tokio::join!(charge.take(10 * KIB), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        });
        drop((second.unwrap(), all));
        assert!(share.is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn a_charge_settles_to_what_is_still_held() {
        let share = Memory::new(40 * MIB).share();
        let charge = share.charge();
        charge.keep(MIB).await.unwrap();
        charge.keep(6 * MIB).await.unwrap();
        assert!(share.charge().take(5 * MIB).await.is_err());
        charge.settle(2 * MIB).await.unwrap();
        let free = |half: usize| 10 * MIB - share.own[half].available_permits();
        assert_eq!(free(0) + free(1), 2 * MIB - ALLOWANCE_BYTES);
        drop(share.charge().take(8 * MIB).await.unwrap());
        charge.settle(ALLOWANCE_BYTES).await.unwrap();
        assert!(share.is_whole());
        // A request for more than the total takes the total.
        charge.keep(MIB).await.unwrap();
        charge.settle(900 * MIB).await.unwrap();
        assert_eq!((free(0), free(1)), (0, 10 * MIB));
        drop(charge);
        assert!(share.is_whole());
    }

    /// Requests that hold a small part while they wait for a large part all get one in the end.
    #[tokio::test(start_paused = true)]
    async fn waiting_requests_never_wait_for_each_other() {
        let share = Memory::new(32 * MIB).share();
        let one = || async {
            let charge = share.charge();
            let mut tries = 0;
            while charge.keep(MIB).await.is_err() {
                tries += 1;
            }
            while charge.keep(5 * MIB).await.is_err() {
                tries += 1;
                assert!(tries < 100);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        futures::future::join_all((0..50).map(|_| one())).await;
        assert!(share.is_whole());
    }
}
