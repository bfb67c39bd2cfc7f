//! What comes for a seat from the log and from other nodes, and where it goes.
//!
//! Deliberately absent: commands (`route`), and how these inputs come about (`effects`).

use event_log::log::{AppendResult, Bounds, Chunk, LogError};
use event_log::record::Record;
use kernel::explained;
use position::Offset;

use super::{Client, Peer, Seat};
use crate::owner::Now;
use crate::peers::{LinkEvent, LinkId};

/// What comes for a seat from the log and from other nodes.
pub enum Input {
    /// An append was acknowledged, or its outcome is unknown.
    Appended(u64, AppendResult),
    /// A read has ended.
    Read(Result<Chunk, LogError>),
    /// The result of a look at this offset, for a proof: the log's end, and the record there.
    Proven(Offset, Result<(Offset, Option<Record>), LogError>),
    /// The result of a look at the log's end.
    Peeked(Result<Bounds, LogError>),
    /// The owner that was asked to hand over has answered, or will not.
    OwnerAnswered,
    /// An answer on a link, or its end.
    Link(LinkId, LinkEvent),
}

impl<C: Client, P: Peer> Seat<C, P> {
    /// Takes an input. What is to be done comes from [`Self::take_actions`].
    pub fn input(&mut self, input: Input, now: Now) {
        let partition = self.partition();
        let owner = &mut self.owner;
        let warn = |error: &LogError| {
            tracing::warn!(error = explained(error), %partition, "reading the log failed");
        };
        match input {
            Input::Appended(_, Err(error))
            | Input::Read(Err(error))
            | Input::Proven(_, Err(error))
            | Input::Peeked(Err(error))
                if error.is_final() =>
            {
                owner.log_gone(error.to_string());
            }
            Input::Appended(sequence, Ok(appended)) => owner.acknowledged(sequence, appended, now),
            Input::Appended(sequence, Err(error)) => {
                tracing::warn!(error = explained(&error), %partition, "an append failed");
                owner.append_failed(sequence, now);
            }
            Input::Read(read) => owner.read(read.inspect_err(warn), now),
            Input::Proven(offset, found) => owner.proven(offset, found.inspect_err(warn)),
            Input::Peeked(bounds) => owner.peeked(bounds.ok().map(|bounds| bounds.end), now),
            Input::OwnerAnswered => owner.owner_answered(now),
            Input::Link(link, event) => self.link_event(link, event, now),
        }
    }
}
