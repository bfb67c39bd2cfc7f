//! A local store whose library gave up, and one that lost what it had taken.

use event_log::chain::Chain;
use event_log::record::{Headers, NewRecord, Record};
use position::Position;

use super::*;

fn saved(offset: u64) -> Saved {
    let chain = Chain::genesis(Partition(0));
    let record = NewRecord {
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let last = Record::at(Offset(offset), record);
    let place = SavedPlace {
        holder: None,
        checkpoint: Checkpoint::new(&chain, &last, None),
        seen: None,
        claimed_list: None,
        acknowledged: Vec::new(),
    };
    Saved {
        place,
        idempotency_window_ms: 1,
        fingerprint_key: [0; 16],
        frozen: 0,
        frozen_by_rules: 0,
        rules: BTreeMap::new(),
    }
}

fn opened(folder: &Path) -> (Store, impl StateStore) {
    let store = Store::open(folder, 1 << 20, 1).unwrap();
    let mut part = store.partition(Partition(0));
    part.load().unwrap();
    (store, part)
}

fn one_state(version: u64) -> SaveBatch {
    let state = StoredState {
        version,
        first: None,
        frozen: None,
        state: b"{}".to_vec(),
    };
    SaveBatch {
        states: vec![(Bytes::from_static(b"s"), state)],
        ..SaveBatch::default()
    }
}

/// Makes the store as if the library had refused a write, long enough ago to try again.
fn broken(store: &Store) {
    let mut opened = store.shared.opened.write().unwrap();
    opened.database = None;
    opened.tried_at = Instant::now().checked_sub(OPEN_AGAIN_AFTER).unwrap();
}

#[test]
fn a_store_that_failed_is_opened_anew_and_goes_on_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut part) = opened(folder.path());
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
    let (store, mut part) = opened(folder.path());
    part.save(&saved(1), &one_state(1)).unwrap();
    broken(&store);
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(part.state(b"s"), Err(StoreError::Lost)));
    assert!(matches!(
        part.save(&saved(2), &one_state(2)),
        Err(StoreError::Lost)
    ));
    part.clear().unwrap();
    assert!(part.state(b"s").unwrap().is_none());
    part.save(&saved(2), &one_state(2)).unwrap();
}

#[test]
fn what_another_program_wrote_in_another_form_is_not_taken_for_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut part) = opened(folder.path());
    part.save(&saved(1), &one_state(1)).unwrap();
    assert!(part.load().unwrap().is_some());
    let other = |part: Part<'_>| {
        let place = part.get(PLACE)?.unwrap();
        Ok(part.keyspace.insert(PLACE, &place[1..])?)
    };
    store.shared.with(Partition(0), other).unwrap();
    let error = part.load().unwrap_err();
    assert!(matches!(error, StoreError::Form) && !error.may_pass());
}

#[test]
fn ids_that_are_too_old_go_where_only_new_streams_come() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut part) = opened(folder.path());
    part.save(&saved(1), &ids((0..100).map(|it| (it, 1)), 0))
        .unwrap();
    for _ in 0..100 {
        let mut changes = one_state(1);
        changes.forget_before = Some(at(2));
        part.save(&saved(2), &changes).unwrap();
    }
    assert_eq!(ids_kept(&store), 0);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000).unwrap()
}

/// Ids by their numbers, each recorded in a second of its own.
fn ids(recorded: impl IntoIterator<Item = (u64, i64)>, forget_before: i64) -> SaveBatch {
    let one = |(number, second)| {
        let head = IdHead {
            offset: Offset(number),
            position: Position(number),
            recorded_at: at(second),
            fingerprint: [0; 16],
            version: 1,
        };
        let id = StoredId::accepted(&head, std::iter::empty());
        (Bytes::from(format!("id-{number:06}")), id)
    };
    SaveBatch {
        ids: recorded.into_iter().map(one).collect(),
        forget_before: Some(at(forget_before)),
        ..SaveBatch::default()
    }
}

fn ids_kept(store: &Store) -> usize {
    let count = |part: Part<'_>| Ok(part.keyspace.prefix([ID]).count());
    store.shared.with(Partition(0), count).unwrap()
}

#[test]
fn ids_that_are_too_old_go_and_stay_within_a_part_of_the_others() {
    const WINDOW: i64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let (store, mut part) = opened(folder.path());
    for second in (0..10_000).step_by(100) {
        // Scattered over the keys, as clients choose them.
        let recorded = (second..second + 100).map(|it| ((it as u64 * 7_919) % 100_003, it));
        part.save(&saved(1), &ids(recorded, second - WINDOW))
            .unwrap();
        assert!(ids_kept(&store) <= 2 * WINDOW as usize, "{second}");
        if second == 5_000 {
            part.load().unwrap();
        }
    }
    assert!(ids_kept(&store) >= WINDOW as usize);
}

#[test]
fn an_id_that_came_again_stays_as_long_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, mut part) = opened(folder.path());
    part.save(&saved(1), &ids([(1, 1), (2, 1)], 0)).unwrap();
    // The first comes again in the very save that forgets it, and the second after it.
    part.save(&saved(2), &ids([(1, 10), (3, 10)], 5)).unwrap();
    part.save(&saved(3), &ids([(2, 11)], 6)).unwrap();
    for number in [1, 2, 3] {
        let id = part.id(format!("id-{number:06}").as_bytes()).unwrap();
        assert!(
            id.is_some_and(|id| id.recorded_at() >= Some(at(10))),
            "{number}"
        );
    }
}
