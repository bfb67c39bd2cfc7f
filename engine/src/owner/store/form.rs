//! The form of a command id, in memory and on disk, and of a stream's row: big-endian numbers, one
//! after the other.
//!
//! Most ids are never looked up again, and there are millions of them, so their form is small.
//! Versions of events are left out, since the last event's version is the stream's. A rejection is
//! JSON, since its facts may be anything. Deliberately absent: the keys.

use bytes::{Buf, BufMut};
use kernel::{RecordedRejection, Timestamp};
use position::{Offset, Position};
use uuid::Uuid;

use super::{FirstId, StoreError, StoredState};
use crate::command::{Decision, EventRef};

const ACCEPTED: u8 = 0;
const REJECTED: u8 = 1;
/// The size of everything before the decision, with the byte that says which kind of decision it
/// is.
const HEAD_BYTES: usize = 8 + 8 + 8 + 16 + 8 + 1;

/// Where a command's commit is, and how the command is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::owner) struct IdHead {
    /// The offset of its commit.
    pub(in crate::owner) offset: Offset,
    /// The log position of its commit.
    pub(in crate::owner) position: Position,
    /// When it was recorded.
    pub(in crate::owner) recorded_at: Timestamp,
    pub(in crate::owner) fingerprint: [u8; 16],
    /// The stream's version after the commit.
    pub(in crate::owner) version: u64,
}

/// What is known of a command id, in its stored form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredId(Box<[u8]>);

impl StoredId {
    /// What is known of a command that left these events.
    pub(in crate::owner) fn accepted<'a>(
        head: &IdHead,
        events: impl Iterator<Item = (Uuid, &'a str)> + Clone,
    ) -> Self {
        let each =
            |(id, name): (Uuid, &str)| size_of_val(id.as_bytes()) + size_of::<u32>() + name.len();
        let size = events.clone().map(each).sum();
        let mut bytes = Self::begun(head, ACCEPTED, size);
        for (id, name) in events {
            let length = u32::try_from(name.len()).expect("a name that fits into a record");
            bytes.put_slice(id.as_bytes());
            bytes.put_u32(length);
            bytes.put_slice(name.as_bytes());
        }
        Self(bytes.into())
    }

    /// What is known of a command that was refused.
    pub(in crate::owner) fn rejected(head: &IdHead, rejection: &RecordedRejection) -> Self {
        let mut bytes = Self::begun(head, REJECTED, 128);
        serde_json::to_writer(&mut bytes, rejection).expect("facts that are JSON");
        Self(bytes.into())
    }

    /// What is known of a command with this decision.
    pub(in crate::owner) fn of(head: &IdHead, decision: &Decision) -> Self {
        match decision {
            Decision::Accepted(events) => {
                let events = events.iter();
                Self::accepted(head, events.map(|event| (event.id, &*event.type_name)))
            }
            Decision::Rejected(rejection) => Self::rejected(head, rejection),
        }
    }

    fn begun(head: &IdHead, decision: u8, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + size);
        bytes.put_u64(head.offset.0);
        bytes.put_u64(head.position.0);
        bytes.put_i64(head.recorded_at.micros());
        bytes.put_slice(&head.fingerprint);
        bytes.put_u64(head.version);
        bytes.put_u8(decision);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(in crate::owner) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When its commit was recorded; absent if the bytes have another form.
    #[must_use]
    pub fn recorded_at(&self) -> Option<Timestamp> {
        recorded_at(&self.0)
    }

    /// Decodes the stored form.
    pub(in crate::owner) fn read(&self) -> Result<(IdHead, Decision), StoreError> {
        take(&self.0).ok_or(StoreError::Form)
    }
}

/// A stream's row: its version, the command with which it begins, why it is frozen, its state.
pub(super) fn row_of(stored: &StoredState) -> Vec<u8> {
    const EACH: usize = size_of::<u32>();
    let first = stored.first.as_ref();
    let first = first.map_or((&b""[..], &b""[..]), |first| {
        (first.id.as_str().as_bytes(), first.known.as_bytes())
    });
    let frozen = stored.frozen.as_ref().map(serde_json::to_vec);
    let frozen = frozen.transpose().expect("texts and numbers");
    let frozen = frozen.unwrap_or_default();
    let size = size_of::<u64>() + 3 * EACH + first.0.len() + first.1.len() + frozen.len();
    let mut row = Vec::with_capacity(size + stored.state.len());
    row.put_u64(stored.version);
    for part in [first.0, first.1, &frozen] {
        row.put_u32(u32::try_from(part.len()).expect("a part that fits into a record"));
        row.put_slice(part);
    }
    row.put_slice(&stored.state);
    row
}

/// Decodes a stream's row; absent if the bytes have another form.
pub(super) fn state_of(mut row: &[u8]) -> Option<StoredState> {
    let version = row.try_get_u64().ok()?;
    let (id, known) = (take_part(&mut row)?, take_part(&mut row)?);
    let frozen = match take_part(&mut row)? {
        b"" => None,
        frozen => Some(serde_json::from_slice(frozen).ok()?),
    };
    let first = match id {
        b"" => None,
        id => {
            recorded_at(known)?;
            let id = str::from_utf8(id).ok()?.parse().ok()?;
            let known = StoredId::from_bytes(known);
            Some(FirstId { id, known })
        }
    };
    Some(StoredState {
        version,
        first,
        frozen,
        state: row.to_vec(),
    })
}

/// Takes a part that stands after its length.
fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

/// When the command of an id was recorded.
pub(super) fn recorded_at(bytes: &[u8]) -> Option<Timestamp> {
    moment(bytes.get(2 * size_of::<u64>()..)?)
}

/// A moment at the beginning of some bytes.
pub(super) fn moment(mut bytes: &[u8]) -> Option<Timestamp> {
    Timestamp::from_micros(bytes.try_get_i64().ok()?).ok()
}

fn take(mut bytes: &[u8]) -> Option<(IdHead, Decision)> {
    let offset = Offset(bytes.try_get_u64().ok()?);
    let position = Position(bytes.try_get_u64().ok()?);
    let recorded_at = Timestamp::from_micros(bytes.try_get_i64().ok()?).ok()?;
    let mut fingerprint = [0; 16];
    bytes.try_copy_to_slice(&mut fingerprint).ok()?;
    let version = bytes.try_get_u64().ok()?;
    let decision = match bytes.try_get_u8().ok()? {
        ACCEPTED => Decision::Accepted(take_events(bytes, version)?),
        REJECTED => Decision::Rejected(serde_json::from_slice(bytes).ok()?),
        _ => return None,
    };
    let head = IdHead {
        offset,
        position,
        recorded_at,
        fingerprint,
        version,
    };
    Some((head, decision))
}

fn take_events(mut bytes: &[u8], last: u64) -> Option<Vec<EventRef>> {
    let mut events = Vec::new();
    while bytes.has_remaining() {
        let mut id = [0; 16];
        bytes.try_copy_to_slice(&mut id).ok()?;
        let name = take_part(&mut bytes)?;
        events.push(EventRef {
            id: Uuid::from_bytes(id),
            type_name: str::from_utf8(name).ok()?.into(),
            version: 0,
        });
    }
    let first = last.checked_add(1)?.checked_sub(events.len() as u64)?;
    for (event, version) in events.iter_mut().zip(first..) {
        event.version = version;
    }
    Some(events)
}

#[cfg(test)]
mod tests {
    use position::Partition;

    use super::*;
    use crate::frozen::{Frozen, FrozenBy};

    #[test]
    fn a_row_is_read_back_and_one_that_is_cut_is_none() {
        let head = IdHead {
            offset: Offset(9),
            position: Position(8),
            recorded_at: Timestamp::from_micros(7).unwrap(),
            fingerprint: [6; 16],
            version: 1,
        };
        let first = FirstId {
            id: "place-1".parse().unwrap(),
            known: StoredId::accepted(&head, std::iter::empty()),
        };
        let frozen = || Frozen {
            partition: Partition(1),
            offset: Offset(9),
            why: FrozenBy::Rules("they failed".to_owned()),
        };
        for first in [None, Some(first)] {
            let stored = StoredState {
                version: 3,
                frozen: first.is_some().then(frozen),
                first,
                state: b"{}".to_vec(),
            };
            let row = row_of(&stored);
            assert_eq!(state_of(&row), Some(stored));
            for cut in 0..row.len() - 2 {
                assert_eq!(state_of(&row[..cut]), None, "{cut}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_cut_is_not() {
        let event = |number: u64| EventRef {
            id: Uuid::from_u128(number.into()),
            type_name: format!("Event{number}").into(),
            version: number,
        };
        let facts = [("least".to_owned(), 3.into())];
        let rejection = RecordedRejection {
            code: "too_late".to_owned(),
            detail: "It is too late.".to_owned(),
            facts: facts.into_iter().collect(),
        };
        let decisions = [
            Decision::Accepted(vec![event(4), event(5)]),
            Decision::Accepted(Vec::new()),
            Decision::Rejected(rejection),
        ];
        let head = IdHead {
            offset: Offset(9),
            position: Position(8),
            recorded_at: Timestamp::from_micros(-7).unwrap(),
            fingerprint: [6; 16],
            version: 5,
        };
        for decision in decisions {
            let id = StoredId::of(&head, &decision);
            assert_eq!(id.recorded_at(), Some(head.recorded_at));
            assert_eq!(id.read().unwrap(), (head, decision.clone()));
            for cut in 1..id.0.len() {
                // Bytes that are cut right after an event are valid, but have fewer events.
                if let Ok((_, shorter)) = StoredId::from_bytes(&id.0[..cut]).read() {
                    assert_ne!(shorter, decision);
                }
            }
            assert!(
                StoredId::from_bytes(&id.0[..HEAD_BYTES - 1])
                    .read()
                    .is_err()
            );
        }
    }
}
