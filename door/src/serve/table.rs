//! Which connections there are, and who makes room where there are too many.
//!
//! Invariant: a connection that waits for nobody but its client (for a request, for the rest of one,
//! or for an answer to be taken) makes room for a new one, the longest-waiting first; one whose
//! request the node itself is busy with never does. Above the limits there is a reserve on which only health and metrics are
//! answered. Deliberately absent: sockets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{Limits, RESERVE_CONNECTIONS};
use crate::memory::{Memory, Share};

/// How long a body or an answer must have stood still before its connection makes room.
const STILL_MIN: Duration = Duration::from_secs(1);
/// How long a batch must have said nothing between two lines before it makes room: its last
/// commands are answered by then, unless their clients wait very long.
const RESTING_MIN: Duration = Duration::from_secs(15);

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
        let state = (self.now_ms() << PHASE_BITS) | phase as u64;
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

    /// For how long it has been waiting for its client alone, if it may make room.
    fn waiting(&self) -> Option<Duration> {
        match self.phase() {
            (Phase::Idle | Phase::Head, time) => Some(time),
            (Phase::Receiving | Phase::Stalled, time) if time >= STILL_MIN => Some(time),
            (Phase::Resting, time) if time >= RESTING_MIN => Some(time),
            _ => None,
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
