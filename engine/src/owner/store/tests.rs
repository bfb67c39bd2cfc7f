//! A local store whose library gave up, and one that lost what it had taken.

use super::*;
use crate::chain::Chain;
use crate::record::{Headers, NewRecord, Record};

fn saved(offset: u64) -> Saved {
    let chain = Chain::genesis(Partition(0));
    let record = NewRecord {
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let last = Record::at(Offset(offset), record);
    Saved {
        holder: None,
        checkpoint: Checkpoint::new(&chain, &last, None),
        seen: None,
        idempotency_window_ms: 1,
        fingerprint_key: [0; 16],
    }
}

fn one_state(version: u64) -> SaveBatch {
    let state = StoredState {
        version,
        state: b"{}".to_vec(),
    };
    SaveBatch {
        states: vec![(Bytes::from_static(b"s"), state)],
        ..SaveBatch::default()
    }
}

/// As if the library had refused a write, long enough ago to try again.
fn broken(store: &Store) {
    let mut opened = store.shared.opened.write().unwrap();
    opened.database = None;
    opened.tried_at = Instant::now().checked_sub(OPEN_AGAIN_AFTER).unwrap();
}

#[test]
fn a_store_that_failed_is_opened_anew_and_goes_on_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store"), 1 << 20, 1).unwrap();
    let mut part = store.partition(Partition(0));
    part.load().unwrap();
    part.save(&saved(1), &one_state(1)).unwrap();
    store.shared.close(1);
    assert!(matches!(part.state(b"s"), Err(StoreError::Closed)));
    broken(&store);
    assert_eq!(part.state(b"s").unwrap().unwrap().version, 1);
    part.save(&saved(2), &one_state(2)).unwrap();
    assert_eq!(part.state(b"s").unwrap().unwrap().version, 2);
}

#[test]
fn a_store_that_lost_what_it_had_taken_says_so_until_it_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path, 1 << 20, 1).unwrap();
    let mut part = store.partition(Partition(0));
    part.load().unwrap();
    part.save(&saved(1), &one_state(1)).unwrap();
    broken(&store);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(matches!(part.state(b"s"), Err(StoreError::Lost)));
    assert!(matches!(
        part.save(&saved(2), &one_state(2)),
        Err(StoreError::Lost)
    ));
    part.clear().unwrap();
    assert!(part.state(b"s").unwrap().is_none());
    part.save(&saved(2), &one_state(2)).unwrap();
}
