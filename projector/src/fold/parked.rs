//! Parked streams, as the fold sees them: their commits are set aside, in their order.
//!
//! Deliberately absent: where they are stored (`store::parked`).

use event_log::record::record_hash;
use event_log::subscription::Placed;
use kernel::Timestamp;
use position::{Offset, Partition, Position, RecordHash};

use crate::fold::batch::Failure;

/// A stream of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId {
    pub(crate) tenant: String,
    pub(crate) stream: String,
}

impl StreamId {
    pub(crate) fn of(placed: &Placed) -> Self {
        Self {
            tenant: placed.commit.tenant.as_str().to_owned(),
            stream: placed.commit.stream.as_str().to_owned(),
        }
    }
}

/// A stream that is parked from one of its commits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Park {
    pub(crate) stream: StreamId,
    pub(crate) partition: Partition,
    pub(crate) position: Position,
    pub(crate) offset: Offset,
    /// The type of the commit's first event.
    pub(crate) event_type: Option<String>,
    /// Why the commit cannot be taken up.
    pub(crate) failure: Failure,
}

impl Park {
    pub(crate) fn at(placed: &Placed, failure: Failure) -> Self {
        let first = placed.commit.events.first();
        Self {
            stream: StreamId::of(placed),
            partition: placed.partition,
            position: placed.position,
            offset: placed.record.offset,
            event_type: first.map(|event| event.type_name.as_str().to_owned()),
            failure,
        }
    }
}

/// A commit of a parked stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParkedCommit {
    pub(crate) stream: StreamId,
    pub(crate) position: Position,
    pub(crate) offset: Offset,
    /// When it was recorded ([`Placed::at`]).
    pub(crate) at: Timestamp,
    pub(crate) record_hash: RecordHash,
}

impl ParkedCommit {
    pub(crate) fn of(placed: &Placed) -> Self {
        Self {
            stream: StreamId::of(placed),
            position: placed.position,
            offset: placed.record.offset,
            at: placed.at,
            record_hash: record_hash(&placed.record),
        }
    }
}
