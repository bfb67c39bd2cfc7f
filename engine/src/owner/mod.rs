//! The owner of one partition: it decides commands, chains their records, appends them without
//! waiting for each acknowledgement, and answers once the log holds them. It is a state machine
//! without I/O, clock or randomness: inputs go in, [`Action`]s come out, and a thin driver performs
//! them on Kafka, on SQLite, in a simulator or in a model.
//!
//! Invariants (protocol.md "The writer"): a client hears "accepted" or "rejected" only after the
//! log has confirmed the record; after a doubt, nothing more is ever sent under that claim; the
//! same command id never leads to two commits within the idempotency window. Deliberately absent:
//! the choice of the node that should own the partition (the owner learns it through
//! [`Owner::want`]), and how other nodes are reached.

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
use crate::command::{Answer, Reply, Request};

pub use decide::VERSION_CONFLICT;
pub use machine::{Lists, Owner, Phase};
pub use store::{
    FirstId, NoStore, SaveBatch, Saved, SavedPlace, StateStore, Store, StoreError, StoredId,
    StoredState,
};

/// The approximate memory of a command apart from its data, in bytes.
const COMMAND_BYTES: usize = 1_024;
/// How many copies of a command's data exist while it waits: as sent, as read, in its record, in
/// its event.
const DATA_COPIES: usize = 4;

/// The default limit for a stream's state as JSON, in bytes.
pub const STREAM_STATE_BYTES_MAX: usize = 1 << 20;

/// The present moment, as an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// A monotonic clock, in milliseconds since an arbitrary start.
    pub monotonic_ms: u64,
    /// A monotonic clock that also counts while the machine is suspended, in milliseconds since an
    /// arbitrary start.
    pub boottime_ms: u64,
}

/// The source of ids and random bytes.
pub trait Entropy: Send {
    /// Sixteen random bytes.
    fn bytes(&mut self) -> [u8; 16];

    /// Sixteen random bytes that name a claim. A model checker gives names here that do not depend
    /// on earlier calls.
    fn writer(&mut self) -> [u8; 16] {
        self.bytes()
    }
}

/// A command as it is decided. It also identifies the command in inputs and answers.
#[derive(Clone)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// Its data, decoded.
    pub command: DecodedCommand,
}

impl Submission {
    /// Whether this is the command that `asked` names.
    #[must_use]
    pub fn is(&self, asked: &Inquiry) -> bool {
        let Request {
            tenant, stream, id, ..
        } = &self.request;
        id == &asked.id && stream == &asked.stream && tenant == &asked.tenant
    }

    /// Frees the command's data; what is left only identifies the command.
    pub fn strip(&mut self) {
        self.request.data = RawValue::NULL.to_owned();
        self.command = DecodedCommand::emptied();
    }

    /// The approximate memory of the command while it waits, in bytes.
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
    /// The newest record format that the program reads and writes: [`RECORD_VERSION`], unless this
    /// owner stands for another program.
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
    /// How far the node's clock may be off, in milliseconds.
    pub clock_skew_max_ms: i64,
    /// The shortest pause before the next claim after a lost one, in milliseconds. A random part
    /// makes it up to twice as long.
    pub back_off_ms: u64,
    /// The shortest pause after the partition's broker stamped a record with a time too far from
    /// this node's clock, in milliseconds. The pause doubles each further time.
    pub clock_back_off_ms: u64,
    /// How many bytes of memory the states of streams may take, estimated from their size in the
    /// local store.
    pub states_bytes_max: usize,
    /// The limit for a stream's state as JSON, in bytes. A command that enlarges the state beyond
    /// it is refused.
    pub stream_state_bytes_max: usize,
    /// About how many bytes memory keeps for a local store that does not take them. Beyond that,
    /// the owner gives the partition up until the store takes them.
    pub unsaved_bytes_max: usize,
    /// After how many folded commits the local checkpoint is written.
    pub save_every_commits: usize,
    /// How long to wait for the present owner to hand over, in milliseconds. After that the
    /// partition is claimed all the same.
    pub hand_over_wait_ms: u64,
    /// How often a standby reads on, in milliseconds, so that a take-over folds only the log's
    /// tail; absent: never.
    pub standby_read_every_ms: Option<u64>,
    /// How often an owner reads on in the log and proves that its last record is still there, in
    /// milliseconds; absent: only when something is in doubt. Without commands, nothing else tells
    /// the owner that another writer has claimed. And an owner might otherwise not notice that the
    /// log lost only its last record.
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

/// A request to the log.
#[derive(Clone, Debug)]
pub enum LogAction {
    /// Append a record; the result comes back under `sequence`. A claim begins a new append
    /// session; records for which the old session had no room are dropped.
    Append {
        /// Identifies the append in the inputs.
        sequence: u64,
        /// The record.
        record: NewRecord,
        /// Whether it is a claim.
        claim: bool,
    },
    /// Read a chunk of the log.
    Read {
        /// From this offset on.
        from: Offset,
    },
    /// Look at the log's end and at the record at this offset, and report with [`Owner::proven`].
    Prove {
        /// The offset of the last record that was folded.
        offset: Offset,
    },
    /// Find the log's end, and report with [`Owner::peeked`].
    Peek,
}

/// A task for the driver. `T` identifies a client that waits for an answer.
#[derive(Clone)]
pub enum Action<T> {
    /// Ask something of the log.
    Log(LogAction),
    /// Ask the present owner to hand over, and report with [`Owner::owner_answered`] once it has
    /// done so, refuses or cannot be reached; report at once if no other owner is known.
    AskOwner,
    /// Pass a command on to the present owner, under the same command id: what was decided here is
    /// not in the log and never will be. Several commands come in the order in which they were
    /// decided.
    Release {
        /// The command.
        submission: Submission,
        /// The clients that wait, each with whether the first answer is a repetition for it.
        waiters: Vec<(T, bool)>,
    },
    /// Answer a client.
    Answer {
        /// The client that waits.
        ticket: T,
        /// The answer.
        answer: Reply,
    },
}

/// Why an owner does not own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwning {
    /// Another node should own the partition.
    #[error("another node should own the partition")]
    Standby,
    /// The owner reads the log, or waits for its claim.
    #[error("taking the partition over")]
    TakingOver,
    /// Some of the owner's appends are in doubt.
    #[error("finding out whether appends without an answer are in the log")]
    InDoubt,
    /// The local checkpoint cannot be read now.
    #[error("the local checkpoint cannot be read; trying again")]
    StoreAway,
    /// The local checkpoint store takes nothing, and memory has no room for more unsaved data.
    #[error(
        "the local checkpoint store cannot be written, and memory has no room for more; make room on \
         its disk"
    )]
    NoRoom,
    /// The local checkpoint store has room, but refuses the data of this partition again and again.
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
    /// The nodes that own have another list of acknowledged damage.
    #[error(
        "another node has another list of acknowledged damage: make `acknowledged_damage` the same in \
         all nodes, and start them again"
    )]
    OtherList,
    /// A defect of this program ended what this node does for the partition.
    #[error("an internal error has ended this node's work on the partition: start the node again")]
    Defect,
    /// The reader must not go on.
    #[error(transparent)]
    Stopped(#[from] Stop),
}

/// A question about a command that was sent earlier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inquiry {
    /// The stream's tenant.
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
    /// The command may or may not be in the log; the owner is finding out.
    InFlight,
    /// The command is not in the log up to `up_to`, as far as ids are remembered, and this owner is
    /// not appending it. An owner that was deposed and has not noticed says so, too.
    NotKnown {
        /// The last position that was read.
        up_to: Position,
    },
    /// The same as [`Self::NotKnown`], but another node owns the partition, or nobody does.
    NotHere {
        /// The last position that was read.
        up_to: Position,
    },
}
