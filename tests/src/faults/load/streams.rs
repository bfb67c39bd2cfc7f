//! The streams of a load, and the commands on them.
//!
//! Invariant: each stream name is used once in a run. Deliberately absent: sending.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use event_log::record::partition_of;
use kernel::TenantId;
use position::Partition;
use rand::{Rng, RngExt};
use serde_json::{Value, json};
use uuid::Uuid;

/// How many streams are in use at the same time.
const ACTIVE: usize = 300;
/// After this many commands, a new stream takes the stream's place.
const COMMANDS_MAX: u32 = 40;
const CITIES: [&str; 6] = [
    "são paulo",
    "rio de janeiro",
    "belo horizonte",
    "curitiba",
    "salvador",
    "manaus",
];

/// A command that is chosen and not yet sent.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) stream: String,
    /// The index of the stream's slot.
    slot: usize,
    pub(super) id: String,
    pub(super) command: &'static str,
    pub(super) data: Value,
    pub(super) expected_version: Option<u64>,
}

#[derive(Clone, Debug)]
struct Slot {
    name: String,
    commands: u32,
    /// The highest version that any client got in an answer.
    version_seen: u64,
}

/// The partitions whose streams are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// All partitions.
    Anywhere,
    /// One partition, of a log with this many partitions.
    In(Partition, u32),
}

/// All streams in use.
#[derive(Debug)]
pub(super) struct Streams {
    prefix: String,
    place: Where,
    made: AtomicU64,
    slots: Vec<Mutex<Slot>>,
}

impl Streams {
    pub(super) fn new(place: Where) -> Self {
        let mut streams = Self {
            // The tail of the UUID is random; its head is the time.
            prefix: Uuid::now_v7().simple().to_string()[20..].to_owned(),
            place,
            made: AtomicU64::new(0),
            slots: Vec::new(),
        };
        streams.slots = (0..ACTIVE).map(|_| Mutex::new(streams.fresh())).collect();
        streams
    }

    fn fresh(&self) -> Slot {
        let name = loop {
            let number = self.made.fetch_add(1, Ordering::SeqCst);
            let name = format!("customer-{}-{number}", self.prefix);
            match self.place {
                Where::In(partition, count)
                    if partition_of(&TenantId::default(), &name, count) != partition => {}
                Where::In(..) | Where::Anywhere => break name,
            }
        };
        Slot {
            name,
            commands: 0,
            version_seen: 0,
        }
    }

    /// Chooses the next command, on any of the active streams.
    pub(super) fn ask(&self, random: &mut impl Rng) -> Asked {
        let place = random.random_range(0..ACTIVE);
        let mut slot = self.slots[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if slot.commands >= COMMANDS_MAX {
            *slot = self.fresh();
        }
        slot.commands += 1;
        // Most commands are valid; some are refused by a rule.
        let registers = match slot.commands {
            1 => random.random_ratio(4, 5),
            2 => random.random_ratio(1, 2),
            _ => random.random_ratio(1, 20),
        };
        let (command, data) = if registers {
            ("RegisterCustomer", with_name(address(random), random))
        } else {
            ("CorrectAddress", address(random))
        };
        let expected_version = match random.random_range(0..10) {
            0..2 => Some(slot.version_seen),
            2 => Some(slot.version_seen + random.random_range(0..2)),
            _ => None,
        };
        Asked {
            stream: slot.name.clone(),
            slot: place,
            id: Uuid::now_v7().to_string(),
            command,
            data,
            expected_version,
        }
    }

    /// Notes the version that a client got in an answer.
    pub(super) fn saw(&self, asked: &Asked, version: u64) {
        let mut slot = self.slots[asked.slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if slot.name == asked.stream {
            slot.version_seen = slot.version_seen.max(version);
        }
    }
}

fn address(random: &mut impl Rng) -> Value {
    // Never use an address twice: the checker does not know the rule for repeated corrections at
    // one moment, and a clock that was set forward gives many commits the same moment.
    let city = CITIES[random.random_range(0..CITIES.len())];
    let city = format!("{city} {:016x}", random.random::<u64>());
    let prefix = format!("{:05}", random.random_range(0..100_000));
    json!({"city": city, "state": "SP", "postcode_prefix": prefix})
}

fn with_name(mut address: Value, random: &mut impl Rng) -> Value {
    address["name"] = format!("Customer {}", random.random_range(0..1_000_000)).into();
    address
}
