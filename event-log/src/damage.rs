//! What stops a reader, with its place.
//!
//! Deliberately absent: orphans; `chain` only counts them.

use position::{Offset, Partition, Position};

/// A place in the log past which no reader goes unless an operator has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damage in partition {partition} at offset {offset}: {kind}")]
pub struct Damage {
    /// The partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// The kinds of damage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// A commit of the current claim that does not link to the accepted record before it.
    #[error(
        "unlinked: this commit (position {found}) does not link to position {}, which should \
         precede it{}",
        .expected.0 - 1,
        since(.after)
    )]
    Unlinked {
        /// The position that should come next.
        expected: Position,
        /// The position that the record takes.
        found: Position,
        /// The offset of the last accepted record. That record, or one between it and this record,
        /// was changed.
        after: Option<Offset>,
    },
    /// A commit of a term that no claim has announced.
    #[error("unclaimed: a commit of a term above every claim")]
    Unclaimed,
    /// An accepted commit whose value cannot be read.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// An accepted commit that was decided on another version than its stream has.
    #[error(
        "version gap: stream {stream} is at version {expected}, the commit was decided upon {found}"
    )]
    VersionGap {
        /// The stream.
        stream: String,
        /// The stream's version so far.
        expected: u64,
        /// The version on which the commit says it was decided.
        found: u64,
    },
    /// The log is not the log that was read before.
    #[error("proof failed: {0}")]
    ProofFailed(String),
}

fn since(accepted: &Option<Offset>) -> String {
    let text = |offset| {
        format!(
            "; the accepted record at offset {offset}, or one between, was changed, removed or \
             inserted"
        )
    };
    accepted.map(text).unwrap_or_default()
}
