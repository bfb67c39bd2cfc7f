//! The size of the modelled world, and the faults that may happen in it.

use event_log::known_bad::Flaw;

/// A command that clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The version that the client saw.
    pub expected_version: Option<u64>,
    /// How many entries the ledger may have before it; with more, the command is refused.
    pub at_most: Option<u64>,
}

/// When the log serves a read that an owner asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// As soon as the owner asks.
    AtOnce,
    /// At any later time, and the result arrives at the same time.
    Later,
    /// At any later time; the result arrives at any time after that.
    LaterAndLate,
    /// At any later time, one record at a time, as a broker may answer with the records it has
    /// ready.
    OneByOne,
}

impl Reads {
    /// How many records one answer holds at most.
    #[must_use]
    pub const fn records_max(self) -> usize {
        match self {
            Self::AtOnce | Self::Later | Self::LaterAndLate => usize::MAX,
            Self::OneByOne => 1,
        }
    }
}

/// What a producer may do against the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// Lands records in order, each at most once, and lands none after one that it lost.
    Sound,
    /// May also lose a record and continue, land the next record before it, or land it twice.
    Careless,
}

/// A configuration of the model of writing. The numbers are maxima.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nodes; each believes that it should own the partition.
    pub nodes: u8,
    /// Commands, all for one stream, in the order in which they are first sent.
    pub commands: Vec<Write>,
    /// Claims in the whole run.
    pub claims_max: u8,
    /// Crashes of a node, with restart.
    pub crashes_max: u8,
    /// How often commands are sent again under the same id.
    pub resends_max: u8,
    /// Appends that are reported as failed although they have landed or may still land.
    pub failures_max: u8,
    /// Acknowledgements that never arrive.
    pub lost_acks_max: u8,
    /// Acknowledgements without an offset.
    pub blind_acks_max: u8,
    /// How often the last records of the log are lost.
    pub cuts_max: u8,
    /// Faults of a careless producer.
    pub mishaps_max: u8,
    /// Foreign records that carry the headers of a node's next commit with another value, and land
    /// before that commit.
    pub imitations_max: u8,
    /// Records in flight at once.
    pub in_flight_max: usize,
    /// Whether nodes have a local store; a crash may lose it or keep it.
    pub stores: bool,
    /// When reads are served.
    pub reads: Reads,
    /// A fault-free continuation is run from one in this many states, chosen by digest.
    pub finish_every: u64,
    /// The mistake that is built in on purpose, if any.
    pub flaw: Flaw,
}

impl Config {
    /// Two nodes, two commands, three claims, one crash.
    #[must_use]
    pub fn small() -> Self {
        Self {
            nodes: 2,
            commands: vec![
                Write {
                    expected_version: None,
                    at_most: None,
                },
                Write {
                    expected_version: Some(0),
                    at_most: None,
                },
            ],
            claims_max: 3,
            crashes_max: 1,
            resends_max: 1,
            failures_max: 1,
            lost_acks_max: 1,
            blind_acks_max: 1,
            cuts_max: 0,
            mishaps_max: 0,
            imitations_max: 0,
            in_flight_max: 2,
            stores: true,
            reads: Reads::AtOnce,
            finish_every: 16,
            flaw: Flaw::default(),
        }
    }
}

impl Config {
    /// What producers may do.
    #[must_use]
    pub fn producer(&self) -> Producer {
        if self.mishaps_max > 0 {
            Producer::Careless
        } else {
            Producer::Sound
        }
    }

    /// Whether log and producers keep their promises and nobody forges records. Then there is never
    /// damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.producer() == Producer::Sound && self.cuts_max == 0 && self.imitations_max == 0
    }
}
