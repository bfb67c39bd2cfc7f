//! The owner of one partition: decides commands, chains and pipelines their records, and answers
//! when the log has. A state machine without I/O, clock or chance: inputs go in, [`Action`]s come
//! out, and a thin driver performs them on Kafka, on SQLite, in a simulator or in a model.
//!
//! Invariants (protocol.md "The writer"): accepted and rejected are said only when the log has said
//! so; after a doubt nothing more is sent under that claim, ever; the same command id never leads
//! to two commits within the idempotency window. Deliberately absent: who should own, which it is
//! told ([`Owner::want`]), and how other nodes are reached.

mod decide;
mod known_bad;
mod machine;
mod memory;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use event_log::chain::Stop;
use event_log::record::{NewRecord, RECORD_VERSION};
use kernel::registry::DecodedCommand;
use kernel::{CommandId, StreamName, TenantId, Timestamp};
use position::{Offset, Position};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::ClockOff;
use crate::command::{Answer, Request, SubmitError};

pub use decide::VERSION_CONFLICT;
pub use machine::{Lists, Owner, Phase};
pub use store::{
    FirstId, NoStore, SaveBatch, Saved, StateStore, Store, StoreError, StoredId, StoredState,
};

/// What a command takes in memory beside its data, about, in bytes.
const COMMAND_BYTES: usize = 1_024;
/// How often a command's data is held while it waits: as sent, as read, in its record and event.
const DATA_COPIES: usize = 4;

/// How many bytes a stream's state may have as JSON, unless said otherwise.
pub const STREAM_STATE_BYTES_MAX: usize = 1 << 20;

/// The present moment, as an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The clock on the wall.
    pub wall: Timestamp,
    /// A clock that never goes back, in milliseconds from any start.
    pub monotonic_ms: u64,
    /// The same for one that also counts while the machine is suspended.
    pub boottime_ms: u64,
}

/// Where ids and chance come from.
pub trait Entropy: Send {
    /// Sixteen random bytes.
    fn bytes(&mut self) -> [u8; 16];

    /// Sixteen random bytes that name a claim. A checker gives names here that do not depend on
    /// what else was asked for before.
    fn writer(&mut self) -> [u8; 16] {
        self.bytes()
    }
}

/// What a command needs for being decided, and what names it among the inputs and answers.
#[derive(Clone)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// Its data, read.
    pub command: DecodedCommand,
}

impl Submission {
    /// Whether this is the command that is asked for.
    #[must_use]
    pub fn is(&self, asked: &Inquiry) -> bool {
        let Request {
            tenant, stream, id, ..
        } = &self.request;
        id == &asked.id && stream == &asked.stream && tenant == &asked.tenant
    }

    /// Gives its data back; what is left only names it.
    pub fn strip(&mut self) {
        self.request.data = RawValue::NULL.to_owned();
        self.command = DecodedCommand::emptied();
    }

    /// What it takes in memory while it waits, about, in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        let size = COMMAND_BYTES + DATA_COPIES * self.request.data.get().len();
        u32::try_from(size).unwrap_or(u32::MAX)
    }
}

/// The bounds and times of an owner.
#[derive(Clone, Debug)]
pub struct OwnerSettings {
    /// The node's name, for its claims.
    pub node: String,
    /// Where the node listens, if it does, for its claims.
    pub address: Option<String>,
    /// The newest record format that the program reads and writes: [`RECORD_VERSION`], unless it stands
    /// for another program.
    pub record_version_max: u16,
    /// The idempotency window that a first claim states, in milliseconds of recorded time.
    pub idempotency_window_ms: u64,
    /// How many records may be unacknowledged at once.
    pub in_flight_max: usize,
    /// How many bytes of records may be unacknowledged at once.
    pub in_flight_bytes_max: usize,
    /// How long an append may go without acknowledgement before all in flight are in doubt, in
    /// milliseconds.
    pub append_doubt_after_ms: u64,
    /// How far the node's clock may be from the time that it should show, in milliseconds.
    pub clock_skew_max_ms: i64,
    /// The least pause before claiming again after losing, in milliseconds; up to twice of it by
    /// chance.
    pub back_off_ms: u64,
    /// The same after the partition's broker stamped a record with a time too far away; each further time
    /// twice as long.
    pub clock_back_off_ms: u64,
    /// How many bytes the streams' states may take that are kept in memory, as estimated from what
    /// they take in the local store.
    pub states_bytes_max: usize,
    /// How many bytes a stream's state may have as JSON: what enlarges it beyond that is not taken.
    pub stream_state_bytes_max: usize,
    /// How many bytes may be kept in memory that the local store does not take, about, before the
    /// partition is given up until it does.
    pub unsaved_bytes_max: usize,
    /// How many commits are folded before the local checkpoint is written.
    pub save_every_commits: usize,
    /// How long the present owner may take to hand over before the partition is claimed all the
    /// same, in milliseconds.
    pub hand_over_wait_ms: u64,
    /// How often a partition that is not wanted is read on, so that a take-over folds only its
    /// tail, in milliseconds; absent: not at all.
    pub standby_read_every_ms: Option<u64>,
    /// How often an owner reads on in the log, and proves that what it wrote last is still there, in
    /// milliseconds; absent: only when something is in doubt. Without commands nothing else tells it
    /// that another has claimed; and whoever loses just what it wrote last may be none the wiser.
    pub look_every_ms: Option<u64>,
}

impl Default for OwnerSettings {
    fn default() -> Self {
        Self {
            node: "annals".to_owned(),
            address: None,
            record_version_max: RECORD_VERSION,
            idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
            in_flight_max: 1_024,
            in_flight_bytes_max: 8 << 20,
            append_doubt_after_ms: 30_000,
            clock_skew_max_ms: 60_000,
            back_off_ms: 250,
            clock_back_off_ms: 3_000,
            states_bytes_max: 16 << 20,
            stream_state_bytes_max: STREAM_STATE_BYTES_MAX,
            unsaved_bytes_max: 16 << 20,
            save_every_commits: 1_000,
            hand_over_wait_ms: 1_000,
            standby_read_every_ms: Some(1_000),
            look_every_ms: Some(2_000),
        }
    }
}

/// What is asked of the log.
#[derive(Clone, Debug)]
pub enum LogAction {
    /// Hand a record to the log; its result comes back under `sequence`. A claim takes a new
    /// session, and what the old one had no room for is gone.
    Append {
        /// Names the append among the inputs.
        sequence: u64,
        /// The record.
        record: NewRecord,
        /// Whether it is a claim.
        claim: bool,
    },
    /// Read a piece of the log.
    Read {
        /// From this offset on.
        from: Offset,
    },
    /// Look at the log's end and at the record at this offset, and report with [`Owner::proven`].
    Prove {
        /// The offset of the last record that was folded.
        offset: Offset,
    },
    /// Look where the log ends, and report with [`Owner::peeked`].
    Peek,
}

/// What the driver is to do. `T` stands for whoever waits for an answer.
#[derive(Clone)]
pub enum Action<T> {
    /// Ask something of the log.
    Log(LogAction),
    /// Ask whoever owns the partition to hand over, and report with [`Owner::owner_answered`] when
    /// that is done, refused or hopeless; at once where nobody else is known to own.
    AskOwner,
    /// A command that is not in the log and never will be as it was decided: it is for whoever owns
    /// now, under the same command id. Several come in the order in which they were decided.
    Release {
        /// The command.
        submission: Submission,
        /// Who waits, and whether the first answer is a repetition for them.
        waiters: Vec<(T, bool)>,
    },
    /// Tell whoever waits.
    Answer {
        /// Who waits.
        ticket: T,
        /// The answer.
        answer: Result<Answer, SubmitError>,
    },
}

/// Why an owner does not own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwning {
    /// Another node should own the partition.
    #[error("another node should own the partition")]
    StandingBy,
    /// It reads the log, or waits for its claim.
    #[error("taking the partition over")]
    TakingOver,
    /// Some of its appends are in doubt.
    #[error("finding out what became of appends in doubt")]
    InDoubt,
    /// The local checkpoint cannot be read now.
    #[error("the local checkpoint cannot be read; trying again")]
    StoreAway,
    /// The local checkpoint store takes nothing, and memory has no room for what it was to take.
    #[error(
        "the local checkpoint store takes nothing, and memory has no room for more; make room on its \
         disk"
    )]
    NoRoom,
    /// The local checkpoint store has room, and refuses again and again what this partition keeps.
    #[error(
        "the local checkpoint store refuses what this partition keeps: {0}; stop this node, delete \
         the folder of its store, which is made again from the log, or give it another disk, and \
         start it again"
    )]
    StoreRefuses(String),
    /// Another writer claimed.
    #[error("another writer holds the partition")]
    Deposed,
    /// The node's clock is wrong, or was set while the process ran.
    #[error("{0}")]
    Clock(ClockOff),
    /// Nodes with another list of acknowledged damage own.
    #[error(
        "another node acknowledges other damaged places: make `acknowledged_damage` the same in all \
         nodes, and start them again"
    )]
    OtherList,
    /// A defect of this program ended what this node does for the partition.
    #[error("a defect has ended this node's part in the partition: start the node again")]
    Defect,
    /// The reader must not go on.
    #[error(transparent)]
    Stopped(#[from] Stop),
}

/// A question about a command that was sent earlier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inquiry {
    /// For whom the stream is kept.
    pub tenant: TenantId,
    /// The stream.
    pub stream: StreamName,
    /// The command's id.
    pub id: CommandId,
}

/// What an owner knows of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Inquired {
    /// What the log says of it.
    Known(Answer),
    /// It may be in the log or not; that is being found out.
    InFlight,
    /// It is not in the log up to here, as far as ids are remembered, and not on its way to the log
    /// from here. An owner that is deposed and has not noticed says so too.
    NotKnown {
        /// The last position that was read.
        up_to: Position,
    },
    /// The same, and another node owns, or nobody.
    NotHere {
        /// The last position that was read.
        up_to: Position,
    },
}
