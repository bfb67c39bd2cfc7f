//! How far a reader's effects are durable, with the data that prove that it continues the same log.
//!
//! Invariant: a checkpoint and the effects of its records change in one step. The step compares the
//! whole old checkpoint before it sets the new one (compare-and-set).

use kernel::Timestamp;
use position::{ChainHash, LogId, Offset, Partition, Position, RecordHash, Term, WriterId};
use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::damage::{Damage, DamageKind};
use crate::record::{self, Kind, Record};

/// A reader's place in one partition. The rows made from the log are exactly as of this place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The log that was read; absent while only foreign records were read.
    pub log: Option<LogId>,
    /// The record format of the current term.
    pub version: u16,
    /// The offset of the last record read, accepted or not.
    pub offset: Offset,
    /// The hash of that record.
    pub record_hash: RecordHash,
    /// The epoch of the leader that served that record; absent if the log has no leaders.
    pub leader_epoch: Option<i32>,
    /// The current term.
    pub term: Term,
    /// The current writer.
    pub writer: WriterId,
    /// The head of the chain.
    pub head: ChainHash,
    /// The number of accepted records.
    pub position: Position,
    /// The latest `recorded_at` of the accepted commits.
    pub last_recorded_at: Option<Timestamp>,
}

impl Checkpoint {
    /// The checkpoint of a reader that read `last` last; `chain` is the chain after that record.
    #[must_use]
    pub fn new(chain: &Chain, last: &Record, last_recorded_at: Option<Timestamp>) -> Self {
        Self {
            log: chain.log,
            version: chain.version,
            offset: last.offset,
            record_hash: record::record_hash(last),
            leader_epoch: last.leader_epoch,
            term: chain.term,
            writer: chain.writer,
            head: chain.head,
            position: chain.position,
            last_recorded_at,
        }
    }

    /// The chain to continue with.
    #[must_use]
    pub fn chain(&self, partition: Partition) -> Chain {
        Chain {
            log: self.log,
            version: self.version,
            term: self.term,
            writer: self.writer,
            head: self.head,
            position: self.position,
            ..Chain::genesis(partition)
        }
    }

    /// Proves that this is the log that was read. `found` is the log's record at this checkpoint's
    /// offset, and `end` is the log's end.
    ///
    /// # Errors
    /// [`Damage`] of the kind `ProofFailed` if it is another log.
    pub fn prove(
        &self,
        partition: Partition,
        end: Offset,
        found: Option<&Record>,
    ) -> Result<(), Damage> {
        let reason = match found.filter(|record| record.offset == self.offset) {
            _ if end <= self.offset => {
                &*format!("the log ends at offset {end}, but more had been read")
            }
            None => "the record that was read here is gone",
            Some(record) if record::record_hash(record) != self.record_hash => {
                "another record stands where one was read before"
            }
            Some(record) if self.is_of_another_leader(record) => {
                "the record that was read here is gone, and an equal one was written"
            }
            Some(_) => return Ok(()),
        };
        Err(Damage {
            partition,
            offset: self.offset,
            kind: DamageKind::ProofFailed(reason.to_owned()),
        })
    }

    /// Whether `found` is the record that was read here, with changed content. `found` is known to
    /// differ from the record that was read. If a log lost its end and was written on, it has
    /// another record or another leader here, because no writer gives one position of its claim to
    /// two records.
    #[must_use]
    pub fn is_changed(&self, found: Option<&Record>) -> bool {
        found.is_some_and(|found| {
            found.offset == self.offset
                && !self.is_of_another_leader(found)
                && match Kind::of(found) {
                    Kind::Commit(commit) => {
                        (commit.term, commit.writer, commit.position)
                            == (self.term, self.writer, self.position)
                    }
                    Kind::Claim(claim) => (claim.term, claim.writer) == (self.term, self.writer),
                    Kind::Foreign => false,
                }
        })
    }

    /// Whether the record was written under another leader than the record that was read. A program
    /// that repeats the same bytes can restore them at their old place after the log was cut. The
    /// leader of a record is stored in the log and never changes.
    fn is_of_another_leader(&self, record: &Record) -> bool {
        let epochs = self.leader_epoch.zip(record.leader_epoch);
        epochs.is_some_and(|(read, found)| read != found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    #[test]
    fn the_same_bytes_written_again_by_another_leader_prove_nothing() {
        let heartbeat = |leader_epoch| Record {
            offset: Offset(7),
            key: None,
            value: Some("alive".into()),
            headers: Headers::default(),
            leader_epoch,
            appended_at_ms: None,
        };
        let partition = Partition(0);
        let chain = Chain::genesis(partition);
        let place = Checkpoint::new(&chain, &heartbeat(Some(3)), None);
        let prove = |found: &Record| place.prove(partition, Offset(9), Some(found));
        assert_eq!(prove(&heartbeat(Some(3))), Ok(()));
        // If the log has no leaders, or the earlier reading knew none, only the bytes are compared.
        assert_eq!(prove(&heartbeat(None)), Ok(()));
        let damage = prove(&heartbeat(Some(4))).unwrap_err();
        assert!(
            matches!(damage.kind, DamageKind::ProofFailed(_)),
            "{damage}"
        );
    }
}
