//! Batches of any size in any interleaving give the same rows.

use event_log::commit::Commit;
use event_log::record::{Headers, NewRecord, Record};
use position::Offset;
use proptest::prelude::*;

use super::*;
use crate::declare::column_type::ColumnType;
use crate::declare::table::{add, key, latest, max, min, set, tally};
use crate::fold::stored::Stored;

/// Every merge rule; only one stream writes the column `own`.
const TABLE: Table = Table {
    name: "sample",
    about: "",
    key: &[key("id", ColumnType::Bigint, "")],
    values: &[
        add("total", ""),
        tally("number", ""),
        min("least", ColumnType::Text, ""),
        max("greatest", ColumnType::Bigint, ""),
        latest("state", ColumnType::Text, ColumnType::Bigint, ""),
        set("own", ColumnType::Bigint, ""),
    ],
    view: crate::View::NONE,
    ..Table::PLAIN
};

fn placed(partition: u32, position: u64) -> Placed {
    let value = r#"{"commit":"0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d","stream":"s-1",
        "from_version":0,"recorded_at":"2018-01-01T00:00:00Z",
        "command":{"id":"c","type":"T","schema":1,"data":{}},"outcome":"accepted"}"#;
    let record = NewRecord {
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let commit = Commit::read(b"main/s-1", value.as_bytes()).unwrap();
    Placed {
        partition: Partition(partition),
        position: Position(position),
        record: Record::at(Offset(position), record),
        at: commit.recorded_at,
        commit,
        is_checked: true,
    }
}

#[derive(Clone, Debug)]
struct Contribution {
    id: i64,
    total: Option<i64>,
    least: Option<String>,
    greatest: Option<i64>,
    state: Option<(String, i64)>,
}

fn contribution() -> impl Strategy<Value = Contribution> {
    let text = || proptest::option::of("[a-cé]{0,2}");
    let number = || proptest::option::of(-5_i64..5);
    let state = proptest::option::of(("[a-c]", 0_i64..3));
    (0_i64..3, number(), text(), number(), state).prop_map(|(id, total, least, greatest, state)| {
        Contribution {
            id,
            total,
            least,
            greatest,
            state,
        }
    })
}

/// Folds each contribution at its place; only partition 0 writes `own`.
fn fold(given: &[(u32, u64, Contribution)]) -> Changes {
    const TABLES: &[Table] = &[TABLE];
    let mut changes = Changes::new(TABLES);
    for (partition, position, one) in given {
        changes.begin(&placed(*partition, *position));
        let mut row = changes.row(&TABLES[0], [Value::from(one.id)]);
        row.put_if("total", one.total)
            .put("number", 1_i64)
            .put_if("least", one.least.as_deref())
            .put_if("greatest", one.greatest);
        if let Some((state, by)) = &one.state {
            row.put_latest("state", state.as_str(), *by);
        }
        if *partition == 0 {
            row.put_if("own", one.greatest);
        }
    }
    changes
}

/// The rows that a batch leaves.
fn upsert(stored: &mut Stored, changes: Changes) {
    stored.apply(&changes).unwrap();
}

proptest! {
    #[test]
    fn batches_of_any_size_in_any_interleaving_give_the_same_rows(
        given in proptest::collection::vec((0_u32..3, contribution()), 0..40),
        sizes in proptest::collection::vec(1_usize..7, 40),
        choices in proptest::collection::vec(0_usize..3, 40),
    ) {
        let given: Vec<(u32, u64, Contribution)> = given
            .into_iter()
            .enumerate()
            .map(|(index, (partition, one))| (partition, index as u64 + 1, one))
            .collect();
        let mut at_once = Stored::default();
        upsert(&mut at_once, fold(&given));

        // The same commits: the order within each partition stays, the order between partitions
        // changes.
        let mut queues: Vec<Vec<_>> = (0..3)
            .map(|p| given.iter().filter(|(q, ..)| *q == p).rev().cloned().collect())
            .collect();
        let mut interleaved: Vec<(u32, u64, Contribution)> = Vec::new();
        for choice in choices {
            interleaved.extend(queues[choice].pop());
        }
        for queue in &mut queues {
            interleaved.extend(std::iter::from_fn(|| queue.pop()));
        }
        let mut stored = Stored::default();
        let mut rest = &interleaved[..];
        for size in sizes {
            let (batch, behind) = rest.split_at(size.min(rest.len()));
            upsert(&mut stored, fold(batch));
            rest = behind;
        }
        prop_assert!(rest.is_empty());
        if at_once.0.is_empty() {
            // Nothing was contributed.
            at_once.apply(&fold(&[])).unwrap();
        }
        prop_assert_eq!(stored, at_once);
    }
}

/// A table whose rows belong to one stream each.
const LINES: Table = Table {
    name: "lines",
    about: "",
    key: &[key("id", ColumnType::Bigint, "")],
    values: &[
        tally("number", ""),
        set("own", ColumnType::Bigint, "").nullable(),
        max("greatest", ColumnType::Bigint, ""),
    ],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
};
const OWNED: &[Table] = &[LINES];

/// What a commit does to one row, or to all of its stream.
#[derive(Clone, Debug)]
enum Step {
    Put(i64, i64),
    Empty(i64),
    Remove(i64),
    RemoveAll,
}

/// Commits of three streams, which mostly use keys of their own.
fn steps() -> impl Strategy<Value = Vec<(usize, Vec<Step>)>> {
    let commit = (0..3_usize, 0..40_u8).prop_flat_map(|(stream, odd)| {
        let key = (0..3_i64).prop_map(move |key| match odd {
            // A key that another stream may have, too.
            0 => key,
            _ => 3 * key + i64::try_from(stream).unwrap(),
        });
        let step = prop_oneof![
            6 => (key.clone(), -5..5_i64).prop_map(|(key, value)| Step::Put(key, value)),
            1 => key.clone().prop_map(Step::Empty),
            2 => key.prop_map(Step::Remove),
            1 => Just(Step::RemoveAll),
        ];
        (Just(stream), proptest::collection::vec(step, 1..4))
    });
    proptest::collection::vec(commit, 0..24)
}

fn step_fold(commits: &[(usize, Vec<Step>)]) -> Result<Changes, ProjectError> {
    let mut changes = Changes::new(OWNED);
    for (position, (stream, steps)) in commits.iter().enumerate() {
        let mut commit = placed(0, position as u64);
        commit.commit.stream = format!("s-{stream}").parse().unwrap();
        changes.begin(&commit);
        for step in steps {
            let key = |id: i64| [Value::from(id)];
            match *step {
                Step::Put(id, value) => {
                    let mut row = changes.row(&OWNED[0], key(id));
                    row.put("number", 1_i64)
                        .put("own", value)
                        .put("greatest", value);
                }
                Step::Empty(id) => {
                    changes.row(&OWNED[0], key(id)).put_nothing("own");
                }
                Step::Remove(id) => changes.remove(&OWNED[0], key(id)),
                Step::RemoveAll => changes.remove_all(&OWNED[0]),
            }
        }
        changes.end()?;
    }
    Ok(changes)
}

/// The rows after the commits in batches of these sizes, or that a row belongs to another stream.
fn stored_in(commits: &[(usize, Vec<Step>)], sizes: &[usize]) -> Result<Stored, ProjectError> {
    let mut stored = Stored::default();
    stored.apply(&Changes::new(OWNED))?;
    let (mut rest, mut sizes) = (commits, sizes.iter().cycle());
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        stored.apply(&step_fold(batch)?)?;
        rest = behind;
    }
    Ok(stored)
}

/// The same rows, without any of the runtime's ways.
fn plainly(commits: &[(usize, Vec<Step>)]) -> Option<Vec<(i64, [Option<i64>; 3])>> {
    let mut rows: BTreeMap<i64, (usize, [Option<i64>; 3])> = BTreeMap::new();
    for (stream, steps) in commits {
        for step in steps {
            let (Step::Put(id, _) | Step::Empty(id) | Step::Remove(id)) = *step else {
                rows.retain(|_, (owner, _)| owner != stream);
                continue;
            };
            if rows.get(&id).is_some_and(|(owner, _)| owner != stream) {
                return None;
            }
            if let Step::Remove(_) = step {
                rows.remove(&id);
                continue;
            }
            let (_, cells) = rows.entry(id).or_insert((*stream, [None; 3]));
            match *step {
                Step::Put(_, value) => {
                    let [number, own, greatest] = cells;
                    *number = Some(number.unwrap_or(0) + 1);
                    *own = Some(value);
                    *greatest = (*greatest).max(Some(value));
                }
                _ => cells[1] = None,
            }
        }
    }
    Some(
        rows.into_iter()
            .map(|(id, (_, cells))| (id, cells))
            .collect(),
    )
}

fn numbers(stored: &Stored) -> Vec<(i64, [Option<i64>; 3])> {
    let number = |cell: &Cell| match cell {
        Cell::Value(Value::Bigint(number)) => Some(*number),
        _ => None,
    };
    let rows = stored.0[0].iter().map(|(key, row)| {
        let Value::Bigint(id) = key[1] else {
            unreachable!()
        };
        (id, [0, 1, 2].map(|index| number(&row.cells[index])))
    });
    rows.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn rows_go_away_as_if_each_commit_were_applied_alone(
        commits in steps(),
        sizes in proptest::collection::vec(1_usize..9, 1..24),
    ) {
        let expected = plainly(&commits);
        for sizes in [&sizes[..], &[1], &[99]] {
            let rows = stored_in(&commits, sizes);
            prop_assert_eq!(rows.ok().as_ref().map(numbers), expected.clone(), "{:?}", sizes);
        }
    }
}

#[test]
fn a_row_of_another_stream_is_named() {
    let commits = [(0, vec![Step::Put(7, 1)]), (1, vec![Step::Put(7, 1)])];
    let error = step_fold(&commits).err().unwrap();
    let expected = ProjectError::OtherStream {
        table: "lines",
        key: "7".to_owned(),
        owner: "s-0".to_owned(),
        stream: "s-1".to_owned(),
    };
    assert_eq!(error, expected);
    assert_eq!(stored_in(&commits, &[1]), Err(expected));
}

#[test]
fn a_sum_has_room_for_whatever_is_added() {
    const TABLES: &[Table] = &[TABLE];
    let mut changes = Changes::new(TABLES);
    for amount in [i64::MAX, i64::MAX, 7] {
        let mut row = changes.row(&TABLES[0], [Value::from(1_i64)]);
        row.put("total", amount);
    }
    let row = changes.tables[0].rows.values().next().unwrap();
    let sum = Value::Numeric(2 * i128::from(i64::MAX) + 7);
    assert_eq!(row.cells[0], Cell::Value(sum));
}

#[test]
fn rows_belong_to_the_tenant_of_their_commit() {
    const TABLES: &[Table] = &[TABLE];
    let mut changes = Changes::new(TABLES);
    let mut commit = placed(0, 1);
    for tenant in ["main", "other"] {
        commit.commit.tenant = tenant.parse().unwrap();
        changes.begin(&commit);
        changes
            .row(&TABLES[0], [Value::from(1_i64)])
            .put("total", 1_i64);
    }
    assert_eq!(changes.row_count(), 2);
}
