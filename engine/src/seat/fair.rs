//! The commands that wait for one partition, taken in turns. Tenants take turns; within a tenant
//! its senders take turns; within a sender its tenants take turns again. So a sender that names
//! many tenants gets no more turns. A state machine without I/O or clock.
//!
//! Invariant: the commands of one sender for one tenant keep their order. A sender may hold at most
//! as many places as are free, so a new sender always finds a place. Deliberately absent: how a
//! sender waits for a place (`queue`).

use std::collections::{HashMap, VecDeque};

use kernel::TenantId;

/// Identifies a sender: one connection's request, or one link from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender(pub u64);

/// A command takes one turn, and one more for every full `TURN_BYTES` of its size.
const TURN_BYTES: u32 = 64 << 10;

/// Where an item waits, to take it out before its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    sender: Sender,
    tenant: TenantId,
    number: u64,
}

/// The items of one sender for one tenant.
struct Lane<T> {
    tenant: TenantId,
    items: VecDeque<Item<T>>,
    /// How many turns this lane must still skip.
    owes: u32,
}

struct Item<T> {
    number: u64,
    turns: u32,
    item: T,
}

/// Everything of one sender.
struct Sending<T> {
    /// The tenant whose turns the sender uses: the first tenant for which it sent.
    tenant: TenantId,
    lanes: VecDeque<Lane<T>>,
    count: usize,
    owes: u32,
}

/// The senders that share one tenant's turns.
#[derive(Default)]
struct Group {
    senders: VecDeque<Sender>,
    owes: u32,
}

/// Waiting items, each with its sender and tenant.
pub struct FairQueue<T> {
    capacity: usize,
    count: usize,
    next_number: u64,
    tenants: VecDeque<TenantId>,
    groups: HashMap<TenantId, Group, ahash::RandomState>,
    senders: HashMap<Sender, Sending<T>, ahash::RandomState>,
}

impl<T> FairQueue<T> {
    /// A queue with `capacity` places.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            count: 0,
            next_number: 0,
            tenants: VecDeque::new(),
            groups: HashMap::default(),
            senders: HashMap::default(),
        }
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no item waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is a place for another item of this sender.
    #[must_use]
    pub fn has_room_for(&self, sender: Sender) -> bool {
        let held = self.senders.get(&sender).map_or(0, |sending| sending.count);
        held < self.capacity.saturating_sub(self.count)
    }

    /// Adds an item of this many bytes, and returns its place.
    ///
    /// # Errors
    /// The item, if there is no place for it.
    pub fn push(
        &mut self,
        sender: Sender,
        tenant: &TenantId,
        bytes: u32,
        item: T,
    ) -> Result<Place, T> {
        if !self.has_room_for(sender) {
            return Err(item);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.count += 1;
        let turns = 1 + bytes / TURN_BYTES;
        let item = Item {
            number,
            turns,
            item,
        };
        let sending = self.senders.entry(sender).or_insert_with(|| {
            let group = self.groups.entry(tenant.clone()).or_insert_with(|| {
                self.tenants.push_back(tenant.clone());
                Group::default()
            });
            group.senders.push_back(sender);
            Sending {
                tenant: tenant.clone(),
                lanes: VecDeque::new(),
                count: 0,
                owes: 0,
            }
        });
        sending.count += 1;
        match sending.lanes.iter_mut().find(|lane| lane.tenant == *tenant) {
            Some(lane) => lane.items.push_back(item),
            None => sending.lanes.push_back(Lane {
                tenant: tenant.clone(),
                items: VecDeque::from([item]),
                owes: 0,
            }),
        }
        Ok(Place {
            sender,
            tenant: tenant.clone(),
            number,
        })
    }

    /// Takes out the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let is_alone = self.tenants.len() == 1;
        let tenant = loop {
            let tenant = self.tenants.front()?;
            let group = self.groups.get_mut(tenant)?;
            if is_alone || group.owes == 0 {
                break tenant.clone();
            }
            group.owes -= 1;
            self.tenants.rotate_left(1);
        };
        let group = self.groups.get_mut(&tenant)?;
        let is_alone = group.senders.len() == 1;
        let sender = loop {
            let sender = *group.senders.front()?;
            let sending = self.senders.get_mut(&sender)?;
            if is_alone || sending.owes == 0 {
                break sender;
            }
            sending.owes -= 1;
            group.senders.rotate_left(1);
        };
        let sending = self.senders.get_mut(&sender)?;
        let item = sending.pop()?;
        self.count -= 1;
        let owes = item.turns - 1;
        (group.owes, sending.owes) = (owes, owes);
        if sending.count == 0 {
            self.senders.remove(&sender);
            group.senders.pop_front();
        } else {
            group.senders.rotate_left(1);
        }
        if group.senders.is_empty() {
            self.groups.remove(&tenant);
            self.tenants.pop_front();
        } else {
            self.tenants.rotate_left(1);
        }
        Some(item.item)
    }

    /// Takes an item out before its turn, if it still waits.
    pub fn remove(&mut self, place: &Place) -> Option<T> {
        let sending = self.senders.get_mut(&place.sender)?;
        let lane = sending
            .lanes
            .iter()
            .position(|l| l.tenant == place.tenant)?;
        let items = &mut sending.lanes[lane].items;
        let index = items.binary_search_by_key(&place.number, |item| item.number);
        let item = items.remove(index.ok()?)?;
        if items.is_empty() {
            sending.lanes.remove(lane);
        }
        sending.count -= 1;
        self.count -= 1;
        if sending.count == 0 {
            self.leave(place.sender);
        }
        Some(item.item)
    }

    /// Removes a sender that has no items left.
    fn leave(&mut self, sender: Sender) {
        let Some(Sending { tenant, .. }) = self.senders.remove(&sender) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&tenant) {
            group.senders.retain(|other| *other != sender);
            if group.senders.is_empty() {
                self.groups.remove(&tenant);
                self.tenants.retain(|other| *other != tenant);
            }
        }
    }

    /// All waiting items, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let lanes = self.senders.values().flat_map(|sending| &sending.lanes);
        lanes.flat_map(|lane| lane.items.iter().map(|item| &item.item))
    }

    /// Takes out the items for which `is_so` holds, in the order in which they came.
    pub fn take_if(&mut self, is_so: impl Fn(&T) -> bool) -> Vec<T> {
        let mut places = Vec::new();
        for (sender, sending) in &self.senders {
            for lane in &sending.lanes {
                let items = lane.items.iter().filter(|item| is_so(&item.item));
                places.extend(items.map(|item| Place {
                    sender: *sender,
                    tenant: lane.tenant.clone(),
                    number: item.number,
                }));
            }
        }
        places.sort_by_key(|place| place.number);
        let taken = places.iter().filter_map(|place| self.remove(place));
        taken.collect()
    }
}

impl<T> Sending<T> {
    fn pop(&mut self) -> Option<Item<T>> {
        let is_alone = self.lanes.len() == 1;
        while !is_alone && self.lanes.front()?.owes > 0 {
            self.lanes.front_mut()?.owes -= 1;
            self.lanes.rotate_left(1);
        }
        let lane = self.lanes.front_mut()?;
        let item = lane.items.pop_front()?;
        lane.owes = item.turns - 1;
        self.count -= 1;
        if lane.items.is_empty() {
            self.lanes.pop_front();
        } else {
            self.lanes.rotate_left(1);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests;
