//! How far a reader's effects are durable, and the proof that it goes on in the log it knows.
//!
//! Invariant: a checkpoint changes in one step with what was made of the records, with
//! compare-and-set on the whole of it.

use kernel::Timestamp;
use position::{ChainHash, LogId, Offset, Partition, Position, RecordHash, Term, WriterId};
use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::damage::{Damage, DamageKind};
use crate::record::{self, Kind, Record};

/// A reader's place in one partition. The rows made from the log stand at exactly this place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The log that was read; absent while only foreign records were.
    pub log: Option<LogId>,
    /// The record format of the current term.
    pub version: u16,
    /// The offset of the last record read, accepted or not.
    pub offset: Offset,
    /// That record's hash.
    pub record_hash: RecordHash,
    /// The epoch of the leader that served it, where the log has leaders.
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
    /// The checkpoint of a reader whose last record was `last`, with the chain behind it.
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

    /// The chain to go on with.
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

    /// Whether the log that holds `found` at this checkpoint's offset, and ends at `end`, is the
    /// one that was read.
    ///
    /// # Errors
    /// Damage of the kind `ProofFailed`.
    pub fn prove(
        &self,
        partition: Partition,
        end: Offset,
        found: Option<&Record>,
    ) -> Result<(), Damage> {
        let failed = |reason: String| {
            let kind = DamageKind::ProofFailed(reason);
            Err(Damage {
                partition,
                offset: self.offset,
                kind,
            })
        };
        if end <= self.offset {
            return failed(format!(
                "the log ends at offset {end}, but more had been read"
            ));
        }
        match found {
            None => failed("the record that was read here is gone".to_owned()),
            Some(record) if record.offset != self.offset => {
                failed("the record that was read here is gone".to_owned())
            }
            Some(record) if record::record_hash(record) != self.record_hash => {
                failed("another record stands where one was read before".to_owned())
            }
            Some(record) if self.is_of_another_leader(record) => {
                failed("the record that was read here is gone, and its like was written".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether `found`, which is not the record that was read here, is that record with another content.
    /// Who lost the end of a log and wrote on has other records there, or another leader: no writer gives
    /// one position of its claim to two records.
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

    /// Whether a record was written by another leader than the one that was read. Whoever writes the
    /// same bytes again and again can put them where they stood before the log was cut; what a
    /// record's leader was stands in the log and is never changed.
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
        // Where the log has no leaders, or the reading of before knew none, the bytes must do.
        assert_eq!(prove(&heartbeat(None)), Ok(()));
        let damage = prove(&heartbeat(Some(4))).unwrap_err();
        assert!(
            matches!(damage.kind, DamageKind::ProofFailed(_)),
            "{damage}"
        );
    }
}
