//! The form in which a command id is kept: numbers big-endian, one behind the other.
//!
//! Versions of events are left out, since the last event's is the stream's. A refusal is JSON: its facts
//! may be anything. Deliberately absent: the key.

use bytes::{Buf, BufMut};
use kernel::Timestamp;
use uuid::Uuid;

use super::{StoreError, StoredId};
use crate::command::{Decision, EventRef};
use crate::ids::{Offset, Position};

const ACCEPTED: u8 = 0;
const REJECTED: u8 = 1;

pub(super) fn write(id: &StoredId) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(128);
    bytes.put_u64(id.offset.0);
    bytes.put_u64(id.position.0);
    bytes.put_i64(id.recorded_at.micros());
    bytes.put_slice(&id.fingerprint);
    bytes.put_u64(id.version);
    match &id.decision {
        Decision::Accepted(events) => {
            bytes.put_u8(ACCEPTED);
            for event in events {
                let name = event.type_name.as_bytes();
                let length = u16::try_from(name.len()).map_err(|_| StoreError::Form)?;
                bytes.put_slice(event.id.as_bytes());
                bytes.put_u16(length);
                bytes.put_slice(name);
            }
        }
        Decision::Rejected(rejection) => {
            bytes.put_u8(REJECTED);
            serde_json::to_writer(&mut bytes, rejection)?;
        }
    }
    Ok(bytes)
}

pub(super) fn read(bytes: &[u8]) -> Result<StoredId, StoreError> {
    take(bytes).ok_or(StoreError::Form)
}

/// When the command of an id was recorded.
pub(super) fn recorded_at(bytes: &[u8]) -> Option<Timestamp> {
    moment(bytes.get(2 * size_of::<u64>()..)?)
}

/// A moment at the beginning of some bytes.
pub(super) fn moment(mut bytes: &[u8]) -> Option<Timestamp> {
    Timestamp::from_micros(bytes.try_get_i64().ok()?).ok()
}

fn take(mut bytes: &[u8]) -> Option<StoredId> {
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
    Some(StoredId {
        offset,
        position,
        recorded_at,
        fingerprint,
        version,
        decision,
    })
}

fn take_events(mut bytes: &[u8], last: u64) -> Option<Vec<EventRef>> {
    let mut events = Vec::new();
    while bytes.has_remaining() {
        let mut id = [0; 16];
        bytes.try_copy_to_slice(&mut id).ok()?;
        let length = bytes.try_get_u16().ok()?.into();
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        events.push(EventRef {
            id: Uuid::from_bytes(id),
            type_name: str::from_utf8(name).ok()?.to_owned(),
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
    use super::*;
    use crate::commit::RecordedRejection;

    #[test]
    fn what_is_written_is_read_back_and_what_is_cut_is_not() {
        let event = |number: u64| EventRef {
            id: Uuid::from_u128(number.into()),
            type_name: format!("Event{number}"),
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
        for decision in decisions {
            let id = StoredId {
                offset: Offset(9),
                position: Position(8),
                recorded_at: Timestamp::from_micros(-7).unwrap(),
                fingerprint: [6; 16],
                version: 5,
                decision,
            };
            let bytes = write(&id).unwrap();
            let again = read(&bytes).unwrap();
            assert_eq!(again.decision, id.decision);
            let place = |id: &StoredId| (id.offset, id.position, id.recorded_at, id.version);
            assert_eq!(place(&again), place(&id));
            assert_eq!(again.fingerprint, id.fingerprint);
            for cut in 1..bytes.len() {
                // Behind a whole event there may be none.
                if let Ok(shorter) = read(&bytes[..cut]) {
                    assert_ne!(shorter.decision, id.decision);
                }
            }
            assert!(read(&bytes[..48]).is_err());
        }
    }
}
