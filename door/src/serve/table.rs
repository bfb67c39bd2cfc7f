//! The open connections of a listener, and which of them makes room if there are too many.
//!
//! Invariant: a connection that waits for its client (for a request, for the rest of a request, for
//! the client to read an answer) or for memory makes room for a new one; the connection that has
//! waited longest goes first. A connection whose request the node is working on, or that is owed
//! the answer to a command, never makes room. Bytes that trickle do not end a wait: they count only
//! for the time that they take at the lowest rate. Above the limits there is a reserve on which
//! only health and metrics are answered. Deliberately absent: sockets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{Limits, RESERVE_CONNECTIONS};
use super::pace::worth;
use crate::memory::{Memory, Open, Share};

/// How long a connection must have waited before it makes room: longer than a client needs that
/// continues as soon as it can. It is short, since a client that opens connections faster than they
/// reach this age keeps others out.
const WAITING_MIN: Duration = Duration::from_millis(100);

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for a request.
    Idle,
    /// The head of a request has begun and is not complete.
    Head,
    /// The node works on a request.
    Busy,
    /// The rest of the request's body has not arrived yet.
    Receiving,
    /// The answer is complete, but not yet completely sent.
    Answered,
    /// The client does not read the answer.
    Stalled,
    /// A batch waits for its next line.
    Resting,
}

const PHASES: [Phase; 7] = [
    Phase::Idle,
    Phase::Head,
    Phase::Busy,
    Phase::Receiving,
    Phase::Answered,
    Phase::Stalled,
    Phase::Resting,
];
const PHASE_BITS: u32 = 3;

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It was silent for too long.
    Idle,
    /// The head of a request took too long.
    Head,
    /// A body came too slowly.
    Body,
    /// An answer was taken too slowly.
    Answer,
    /// It made room for another connection.
    Room,
    /// There was no room for it.
    Full,
}

impl Cut {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Head,
        Self::Body,
        Self::Answer,
        Self::Room,
        Self::Full,
    ];

    fn reason(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "header_timeout",
            Self::Body => "body_too_slow",
            Self::Answer => "answer_not_taken",
            Self::Room => "made_room",
            Self::Full => "no_room",
        }
    }
}

/// The shared state of one connection.
pub(super) struct Connection {
    /// The time at which the table was created.
    epoch: Instant,
    /// The phase and its start, in milliseconds after `epoch`.
    state: AtomicU64,
    /// Asks its task to end.
    pub(super) cut: Notify,
    /// The memory share of its address.
    pub(super) share: Share,
    /// The open work of its request.
    pub(super) open: Arc<Open>,
    address: IpAddr,
    /// Whether it is above the limits, so that only health and metrics are answered on it.
    pub(super) is_reserve: bool,
}

impl Connection {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> PHASE_BITS)
    }

    /// Enters a phase now.
    pub(super) fn enter(&self, phase: Phase) {
        self.enter_since(phase, Duration::ZERO);
    }

    /// Enters a phase as if it had begun `time` ago.
    fn enter_since(&self, phase: Phase, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since_ms = self.now_ms().saturating_sub(time_ms);
        let state = (since_ms << PHASE_BITS) | phase as u64;
        self.state.store(state, Ordering::Relaxed);
    }

    /// Enters `to` if the phase is `from`.
    pub(super) fn advance(&self, from: Phase, to: Phase) {
        if self.phase().0 == from {
            self.enter(to);
        }
    }

    /// The phase, and how long it has lasted.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let state = self.state.load(Ordering::Relaxed);
        let index = (state & ((1 << PHASE_BITS) - 1)) as usize;
        let since_ms = state >> PHASE_BITS;
        let time = Duration::from_millis(self.now_ms().saturating_sub(since_ms));
        (PHASES[index.min(PHASES.len() - 1)], time)
    }

    /// How long it has been waiting for its client or for memory; absent if it must not make room.
    fn waiting(&self) -> Option<Duration> {
        let (phase, time) = self.phase();
        let waits = match phase {
            Phase::Busy => self.open.is_queued(),
            Phase::Answered => false,
            Phase::Idle | Phase::Head | Phase::Receiving | Phase::Stalled | Phase::Resting => true,
        };
        let min = match self.is_reserve {
            // Connections of the reserve make room at once.
            true => Duration::ZERO,
            false => WAITING_MIN,
        };
        (waits && time >= min && !self.open.is_owed()).then_some(time)
    }
}

/// How long a client has delayed one request or answer, minus the time that its bytes were worth.
pub(super) struct Waited {
    time: Duration,
    rate_bytes_min: u64,
}

impl Waited {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            time: Duration::ZERO,
            rate_bytes_min: limits.rate_bytes_min.max(1),
        }
    }

    pub(super) fn reset(&mut self) {
        self.time = Duration::ZERO;
    }

    /// If the connection is in the phase `from`, it now waits for its client in `phase`.
    pub(super) fn begin(&self, connection: &Connection, from: Phase, phase: Phase) {
        if connection.phase().0 == from {
            connection.enter_since(phase, self.time);
        }
    }

    /// The client moved `size` bytes. If the connection was waiting in `phase`, it enters `to`.
    pub(super) fn moved(&mut self, connection: &Connection, phase: Phase, to: Phase, size: usize) {
        let (now, time) = connection.phase();
        if now == phase {
            self.time = time.saturating_sub(worth(size, self.rate_bytes_min));
            connection.enter(to);
        }
    }
}

/// All connections of a listener.
pub(super) struct Table {
    limits: Limits,
    memory: Memory,
    epoch: Instant,
    inner: Mutex<Inner>,
    open: Gauge,
    cuts: [Counter; Cut::ALL.len()],
}

#[derive(Default)]
struct Inner {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    addresses: HashMap<IpAddr, Address>,
    in_reserve: usize,
}

/// The connections and the memory share of one address.
struct Address {
    /// The number of its connections, including those of the reserve.
    all: usize,
    ordinary: usize,
    share: Share,
}

/// A connection's place in the table. Dropping it frees the place.
pub(super) struct Place {
    table: Arc<Table>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Table {
    pub(super) fn new(limits: Limits, memory: Memory) -> Arc<Self> {
        let cut =
            |cut: Cut| counter!("annals_http_connections_cut_total", "reason" => cut.reason());
        let cuts = Cut::ALL.map(cut);
        cuts.iter().for_each(|cut| cut.increment(0));
        let open = gauge!("annals_http_connections");
        open.increment(0);
        Arc::new(Self {
            limits,
            memory,
            epoch: Instant::now(),
            inner: Mutex::default(),
            open,
            cuts,
        })
    }

    /// A place for a new connection of `address`; none if there is no room at all.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let mut inner = self.lock();
        let inner = &mut *inner;
        let of_address = inner.addresses.get(&address).map_or(0, |of| of.ordinary);
        let ordinary = inner.connections.len() - inner.in_reserve;
        // An address with too many connections makes room among its own.
        let has_room = if of_address >= self.limits.connections_per_address_max {
            self.make_room(inner, |other| !other.is_reserve && other.address == address)
        } else if ordinary >= self.limits.connections_max {
            self.make_room(inner, |other| !other.is_reserve)
        } else {
            true
        };
        if !has_room
            && inner.in_reserve >= RESERVE_CONNECTIONS
            && !self.make_room(inner, |other| other.is_reserve)
        {
            self.count(Cut::Full);
            return None;
        }
        Some(self.insert(inner, address, !has_room))
    }

    fn insert(self: &Arc<Self>, inner: &mut Inner, address: IpAddr, is_reserve: bool) -> Place {
        let of_address = inner.addresses.entry(address).or_insert_with(|| Address {
            all: 0,
            ordinary: 0,
            share: self.memory.share(),
        });
        of_address.all += 1;
        of_address.ordinary += usize::from(!is_reserve);
        inner.in_reserve += usize::from(is_reserve);
        let connection = Arc::new(Connection {
            epoch: self.epoch,
            state: AtomicU64::new(0),
            cut: Notify::new(),
            share: of_address.share.clone(),
            open: Arc::default(),
            address,
            is_reserve,
        });
        connection.enter(Phase::Idle);
        inner.next += 1;
        let number = inner.next;
        inner.connections.insert(number, Arc::clone(&connection));
        self.open.increment(1);
        Place {
            table: Arc::clone(self),
            number,
            connection,
        }
    }

    /// Cuts the connection that has been waiting for its client for the longest time.
    pub(super) fn make_any_room(&self) -> bool {
        self.make_room(&mut self.lock(), |_| true)
    }

    fn make_room(&self, inner: &mut Inner, may: impl Fn(&Connection) -> bool) -> bool {
        let waiting = inner.connections.iter().filter(|(_, other)| may(other));
        let waiting =
            waiting.filter_map(|(number, other)| Some((other.waiting()?, *number, other)));
        let Some((_, number, other)) = waiting.max_by_key(|(time, ..)| *time) else {
            return false;
        };
        other.cut.notify_one();
        self.count(Cut::Room);
        // Its place is free at once, before its task ends.
        self.remove(inner, number);
        true
    }

    fn remove(&self, inner: &mut Inner, number: u64) {
        let Some(gone) = inner.connections.remove(&number) else {
            return;
        };
        self.open.decrement(1);
        inner.in_reserve -= usize::from(gone.is_reserve);
        let Some(of_address) = inner.addresses.get_mut(&gone.address) else {
            return;
        };
        of_address.all -= 1;
        of_address.ordinary -= usize::from(!gone.is_reserve);
        if of_address.all == 0 {
            // Memory of its share that is still held stays counted in the shared memory.
            inner.addresses.remove(&gone.address);
        }
    }

    pub(super) fn count(&self, cut: Cut) {
        self.cuts[cut as usize].increment(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.table.lock();
        self.table.remove(&mut inner, self.number);
    }
}

/// The unit that counts as one address: an IPv6 user has at least a /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(connections_max: usize, connections_per_address_max: usize) -> Arc<Table> {
        let limits = Limits {
            connections_max,
            connections_per_address_max,
            ..Limits::default()
        };
        Table::new(limits, Memory::new(1 << 20))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_waiting_connection_makes_room_and_a_busy_one_never_does() {
        let table = table(3, 3);
        let mut places = Vec::new();
        for last in 1..=3 {
            places.push(table.admit(address(last)).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        places[0].connection.enter(Phase::Busy);
        let fourth = table.admit(address(4)).unwrap();
        assert!(!fourth.connection.is_reserve);
        let mut cut = places.iter().map(|place| place.connection.cut.notified());
        let cut: Vec<_> = cut.by_ref().map(futures::FutureExt::now_or_never).collect();
        assert_eq!(cut, [None, Some(()), None]);
        drop(places.remove(1));
        places[1].connection.enter(Phase::Busy);
        fourth.connection.enter(Phase::Busy);
        // No connection can make room: first the reserve is used, then the connection is refused.
        let reserve: Vec<_> = (0..RESERVE_CONNECTIONS)
            .map(|_| table.admit(address(5)).unwrap())
            .collect();
        assert!(reserve.iter().all(|place| place.connection.is_reserve));
        for place in &reserve {
            place.connection.enter(Phase::Busy);
        }
        assert!(table.admit(address(6)).is_none());
        drop(reserve);
        drop((places, fourth));
        assert!(!table.admit(address(6)).unwrap().connection.is_reserve);
        let inner = table.lock();
        assert_eq!((inner.connections.len(), inner.in_reserve), (0, 0));
        assert!(inner.addresses.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_makes_room_for_itself() {
        let table = table(10, 2);
        let other = table.admit(address(9)).unwrap();
        tokio::time::advance(Duration::from_secs(9)).await;
        let first = table.admit(address(1)).unwrap();
        let second = table.admit(address(1)).unwrap();
        tokio::time::advance(WAITING_MIN).await;
        second.connection.enter(Phase::Busy);
        let third = table.admit(address(1)).unwrap();
        assert!(!third.connection.is_reserve);
        let is_cut = |place: &Place| {
            futures::FutureExt::now_or_never(place.connection.cut.notified()).is_some()
        };
        assert!(is_cut(&first) && !is_cut(&second) && !is_cut(&other));
        third.connection.enter(Phase::Busy);
        assert!(table.admit(address(1)).unwrap().connection.is_reserve);
        assert!(!table.admit(address(2)).unwrap().connection.is_reserve);
    }

    #[tokio::test(start_paused = true)]
    async fn no_connection_makes_room_while_it_is_owed_an_answer_or_has_only_begun_to_wait() {
        let table = table(3, 3);
        let places: Vec<_> = (1..=3)
            .map(|last| table.admit(address(last)).unwrap())
            .collect();
        let owed = places[0]
            .connection
            .share
            .charge_of(Arc::clone(&places[0].connection.open))
            .owe();
        tokio::time::advance(Duration::from_secs(60)).await;
        // Two connections wait: between two requests, and between two lines.
        places[1].connection.enter(Phase::Idle);
        places[2].connection.enter(Phase::Resting);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(table.admit(address(4)).unwrap().connection.is_reserve);
        drop(owed);
        let other = table.admit(address(4)).unwrap();
        assert!(!other.connection.is_reserve);
        let is_cut = |place: &Place| {
            futures::FutureExt::now_or_never(place.connection.cut.notified()).is_some()
        };
        assert_eq!(
            places.iter().map(is_cut).collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_memory_makes_room() {
        let table = table(1, 1);
        let place = table.admit(address(1)).unwrap();
        place.connection.enter(Phase::Busy);
        let charge = place
            .connection
            .share
            .charge_of(Arc::clone(&place.connection.open));
        let all = place.connection.share.charge().take(1 << 20).await.unwrap();
        let mut more = std::pin::pin!(charge.keep(1 << 20));
        let waited = tokio::time::timeout(WAITING_MIN, more.as_mut()).await;
        assert!(waited.is_err(), "there is room");
        assert!(!table.admit(address(2)).unwrap().connection.is_reserve);
        drop(all);
    }

    #[test]
    fn a_network_counts_as_one_address() {
        let same =
            |a: &str, b: &str| network_of(a.parse().unwrap()) == network_of(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
