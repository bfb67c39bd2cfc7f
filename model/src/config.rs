//! How large the modelled world is, and what may go wrong in it.

use event_log::known_bad::Flaw;

/// A command that clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The version that the client saw.
    pub expected_version: Option<u64>,
    /// How many entries there may be before it.
    pub at_most: Option<u64>,
}

/// When a read that an owner asks for is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// As soon as it is asked for.
    AtOnce,
    /// At any later time, in one step.
    Later,
    /// At any later time, and what was read arrives at any time after that.
    LaterAndLate,
    /// At any later time, one record at a time: a broker answers with what it has at hand.
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

/// What a producer may do that the protocol forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// Lands records in order, each at most once, and none behind one that it lost.
    Sound,
    /// May also lose a record and go on with the next, land the next before it, or land it twice.
    Careless,
}

/// A configuration of the model of writing. The numbers are the most of each.
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
    /// Sendings of a command under the same id beyond its first.
    pub resends_max: u8,
    /// Appends that are reported failed although they may have landed, or may yet.
    pub failures_max: u8,
    /// Acknowledgements that never come.
    pub lost_acks_max: u8,
    /// Acknowledgements without an offset.
    pub blind_acks_max: u8,
    /// Times at which the last records of the log are lost.
    pub cuts_max: u8,
    /// Records that a careless producer mishandles.
    pub mishaps_max: u8,
    /// Records of a stranger who writes the headers of one of ours over another value, and lands
    /// first.
    pub imitations_max: u8,
    /// Records in flight at once.
    pub in_flight_max: usize,
    /// Whether nodes have a local store, which a crash may take or leave.
    pub stores: bool,
    /// When reads are served.
    pub reads: Reads,
    /// In how many states, one in so many by digest, a fault-free continuation is run.
    pub finish_every: u64,
    /// What is wrong on purpose.
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

    /// Whether log and producers keep what they promise and nobody writes in their names, so that
    /// nothing is ever damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.producer() == Producer::Sound && self.cuts_max == 0 && self.imitations_max == 0
    }
}
