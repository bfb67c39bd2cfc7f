//! Which connections there are, and who makes room where there are too many.
//!
//! Invariant: a connection that waits for its client (for a request, for the rest of one, for an
//! answer to be taken) or for memory makes room for a new one, the longest-waiting first; one whose
//! request the node itself is busy with, or to which the answer to a command is owed, never does.
//! Bytes that trickle do not end a wait: they are worth as much time as they take at the least rate.
//! Above the limits there is a reserve on which only health and metrics are answered. Deliberately
//! absent: sockets.

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

/// How long a connection must have waited before it makes room: longer than a client takes that goes
/// on as soon as it can. It is short, since whoever opens connections faster than they come to this
/// keeps others out.
const WAITING_MIN: Duration = Duration::from_millis(100);

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for a request.
    Idle,
    /// The head of a request has begun and not ended.
    Head,
    /// A request is under way.
    Busy,
    /// The rest of its body has not come yet.
    Receiving,
    /// Its answer is complete, and not all of it is with the client.
    Answered,
    /// The client takes nothing of it.
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
    /// It said nothing for too long.
    Idle,
    /// The head of a request took too long.
    Head,
    /// A body came too slowly.
    Body,
    /// An answer was taken too slowly.
    Answer,
    /// It made room for another one.
    Room,
    /// There was no room at all.
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

/// One connection, as everybody sees it who has to do with it.
pub(super) struct Connection {
    /// When the table was made.
    epoch: Instant,
    /// The phase, and since when, in milliseconds after `epoch`.
    state: AtomicU64,
    /// Asks its task to end.
    pub(super) cut: Notify,
    /// The memory of its address.
    pub(super) share: Share,
    /// What of its request is open.
    pub(super) open: Arc<Open>,
    address: IpAddr,
    /// Above the limits: only health and metrics are answered.
    pub(super) is_reserve: bool,
}

impl Connection {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> PHASE_BITS)
    }

    /// From now on it does this.
    pub(super) fn enter(&self, phase: Phase) {
        self.enter_since(phase, Duration::ZERO);
    }

    /// From now on it does this, and has been doing so for some time.
    fn enter_since(&self, phase: Phase, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since_ms = self.now_ms().saturating_sub(time_ms);
        let state = (since_ms << PHASE_BITS) | phase as u64;
        self.state.store(state, Ordering::Relaxed);
    }

    /// Enters `to` where it is in `from`.
    pub(super) fn advance(&self, from: Phase, to: Phase) {
        if self.phase().0 == from {
            self.enter(to);
        }
    }

    /// What it does, and for how long.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let state = self.state.load(Ordering::Relaxed);
        let index = (state & ((1 << PHASE_BITS) - 1)) as usize;
        let since_ms = state >> PHASE_BITS;
        let time = Duration::from_millis(self.now_ms().saturating_sub(since_ms));
        (PHASES[index.min(PHASES.len() - 1)], time)
    }

    /// For how long it has been waiting for its client or for memory, if it may make room.
    fn waiting(&self) -> Option<Duration> {
        let (phase, time) = self.phase();
        let waits = match phase {
            Phase::Busy => self.open.is_queued(),
            Phase::Answered => false,
            Phase::Idle | Phase::Head | Phase::Receiving | Phase::Stalled | Phase::Resting => true,
        };
        let min = match self.is_reserve {
            // Nobody has a right to stay there.
            true => Duration::ZERO,
            false => WAITING_MIN,
        };
        (waits && time >= min && !self.open.is_owed()).then_some(time)
    }
}

/// For how long a client has kept one request or answer waiting, less what its bytes were worth.
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

    /// Nothing of it counts any more.
    pub(super) fn reset(&mut self) {
        self.time = Duration::ZERO;
    }

    /// The connection waits for its client in this phase, which it enters from `from`.
    pub(super) fn begin(&self, connection: &Connection, from: Phase, phase: Phase) {
        if connection.phase().0 == from {
            connection.enter_since(phase, self.time);
        }
    }

    /// The client moved so many bytes; where the connection waited in this phase, it goes on to `to`.
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

/// Whoever has connections.
struct Address {
    /// How many, the reserve's included.
    all: usize,
    ordinary: usize,
    share: Share,
}

/// A connection's place in the table; dropped, it is free.
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

    /// A place for a new connection of `address`; none where there is no room at all.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let mut inner = self.lock();
        let inner = &mut *inner;
        let of_address = inner.addresses.get(&address).map_or(0, |of| of.ordinary);
        let ordinary = inner.connections.len() - inner.in_reserve;
        // Its own address first: who has many makes room for himself.
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
        // Its place is free now, not when its task has noticed.
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
            // What is still held of its share is a part of the whole all the same.
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

/// What counts as one address: somebody with IPv6 has at least a /64.
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
    async fn who_waits_longest_makes_room_and_who_is_busy_never_does() {
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
        // Nobody can make room: the reserve, and then nothing.
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
    async fn a_command_s_answer_is_waited_for_and_so_is_nobody_who_goes_on_at_once() {
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
        // Between two requests, and between two lines.
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
    async fn whoever_waits_for_memory_makes_room() {
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
