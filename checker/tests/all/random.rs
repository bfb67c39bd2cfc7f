//! Random runs: valid runs pass, and any single change to a valid run is found.

use checker::Report;
use checker::history::What;
use checker::rules::NoRules;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::world::{World, Written, claim, complete, ok, refused, turned_away, unknown};

/// What happens to one command.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// The first answer is lost, and the client sends the command again.
    AskedAgain,
    UnknownAndThere,
    UnknownAndAbsent,
    TurnedAway,
    /// A new owner claims first.
    Moved,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    stream: u8,
    by: i64,
    fate: Fate,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        4 => Just(Fate::Answered),
        1 => Just(Fate::AskedAgain),
        1 => Just(Fate::UnknownAndThere),
        1 => Just(Fate::UnknownAndAbsent),
        1 => Just(Fate::TurnedAway),
        1 => Just(Fate::Moved),
    ];
    (0..3_u8, -60..60_i64, fate).prop_map(|(stream, by, fate)| Step { stream, by, fate })
}

/// A valid run of the counter.
fn run(steps: &[Step]) -> World {
    let mut world = World::new(1);
    let mut versions = [0_u64; 3];
    let mut term = 1;
    for (number, step) in steps.iter().enumerate() {
        let (stream, id) = (format!("s-{}", step.stream), format!("id-{number}"));
        world.invoke(&stream, &id, step.by);
        match step.fate {
            Fate::UnknownAndAbsent => {
                world.line(&stream, &id, unknown());
                continue;
            }
            Fate::TurnedAway => {
                world.line(&stream, &id, turned_away());
                continue;
            }
            Fate::Moved => {
                term += 1;
                world.partitions[0].push(claim(term));
            }
            Fate::Answered | Fate::AskedAgain | Fate::UnknownAndThere => {}
        }
        let version = &mut versions[usize::from(step.stream)];
        let from = *version;
        let answer = if !(0..=100).contains(&(world.total(&stream) + step.by)) {
            world.refuse(&stream, &id, from, step.by, "counter_out_of_range");
            refused("counter_out_of_range")
        } else {
            world.accept(&stream, &id, from, step.by);
            *version += u64::from(step.by != 0);
            let event = format!("{id}-e");
            match step.by {
                0 => ok(from, &[]),
                _ => ok(*version, &[(event.as_str(), "Added", *version)]),
            }
        };
        match step.fate {
            Fate::UnknownAndThere => {
                world.line(&stream, &id, unknown());
            }
            Fate::AskedAgain => {
                world.line(&stream, &id, unknown());
                world.invoke(&stream, &id, step.by);
                world.line(&stream, &id, answer);
            }
            _ => {
                world.line(&stream, &id, answer);
            }
        }
    }
    world
}

/// A single change.
#[derive(Clone, Debug)]
enum Mutation {
    /// The store loses a record that is not the last.
    StoreLoses(Index),
    /// The store swaps two neighbouring records.
    StoreSwaps(Index),
    /// The store changes a byte of a value.
    StoreChanges(Index, Index),
    /// The engine forgets an answered commit.
    EngineLoses(Index),
    /// The engine decides a command twice.
    EngineDoubles(Index),
    /// The engine swaps two commits of one stream.
    EngineSwaps(Index),
    /// The engine records other data.
    EngineChanges(Index),
    /// An answer has another version.
    AnswerChanges(Index),
    /// A command that is in the log was answered *not attempted*.
    AnswerTurnsAway(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Mutation::StoreLoses),
        index().prop_map(Mutation::StoreSwaps),
        (index(), index()).prop_map(|(a, b)| Mutation::StoreChanges(a, b)),
        index().prop_map(Mutation::EngineLoses),
        index().prop_map(Mutation::EngineDoubles),
        index().prop_map(Mutation::EngineSwaps),
        index().prop_map(Mutation::EngineChanges),
        index().prop_map(Mutation::AnswerChanges),
        index().prop_map(Mutation::AnswerTurnsAway),
    ]
}

/// The places in partition 0 of commits that a client has an answer to.
fn answered(world: &World) -> Vec<usize> {
    let has_answer = |id: &str| {
        let mut lines = world.history.iter().filter(|entry| entry.id == id);
        lines.any(|entry| matches!(entry.what, What::Ok(_) | What::Refused(_)))
    };
    let commits = world.partitions[0].iter().enumerate();
    let of_answered = commits.filter_map(|(at, written)| match written {
        Written::Commit { value, .. } => has_answer(value["command"]["id"].as_str()?).then_some(at),
        Written::Claim { .. } | Written::Raw(_) => None,
    });
    of_answered.collect()
}

fn pick(among: &[usize], index: &Index) -> Option<usize> {
    (!among.is_empty()).then(|| among[index.index(among.len())])
}

/// Applies a mutation; `None` if the run has no place for it.
fn spoiled(world: &World, mutation: &Mutation) -> Option<Report> {
    let mut world = world.clone();
    let mut records = world.records();
    let log = &mut records[0];
    match mutation {
        Mutation::StoreLoses(index) => {
            // Without its last record, the rest is a valid log, and the checker need not notice.
            let inner: Vec<usize> = (0..log.len().saturating_sub(1)).collect();
            let at = pick(&inner, index)?;
            // The same holds for a claim that is followed by another claim.
            if log[at].key.is_none() && log[at + 1].key.is_none() {
                return None;
            }
            log.remove(at);
            return Some(world.check_records(&records, complete()));
        }
        Mutation::StoreSwaps(index) => {
            let is_pair = |at: &usize| log[*at].key.is_some() || log[*at + 1].key.is_some();
            let pairs: Vec<usize> = (0..log.len().saturating_sub(1)).filter(is_pair).collect();
            let at = pick(&pairs, index)?;
            log.swap(at, at + 1);
            (0..)
                .zip(log.iter_mut())
                .for_each(|(offset, record)| record.offset = offset);
            return Some(world.check_records(&records, complete()));
        }
        Mutation::StoreChanges(index, byte) => {
            let inner: Vec<usize> = (0..log.len().saturating_sub(1)).collect();
            let at = pick(&inner, index)?;
            // A claim's value is hashed only into the commits that follow it.
            log[at + 1].key.as_ref()?;
            let value = log[at].value.as_mut()?;
            let byte = byte.index(value.len());
            value[byte] ^= 1;
            return Some(world.check_records(&records, complete()));
        }
        Mutation::EngineLoses(index) => {
            let at = pick(&answered(&world), index)?;
            world.partitions[0].remove(at);
        }
        Mutation::EngineDoubles(index) => {
            let at = pick(&answered(&world), index)?;
            let again = world.partitions[0][at].clone();
            world.partitions[0].push(again);
        }
        Mutation::EngineSwaps(index) => {
            let key = |at: usize| match &world.partitions[0][at] {
                Written::Commit { key, .. } => Some(key.clone()),
                Written::Claim { .. } | Written::Raw(_) => None,
            };
            let all = answered(&world);
            let pairs: Vec<(usize, usize)> = all
                .iter()
                .flat_map(|a| all.iter().map(move |b| (*a, *b)))
                .filter(|(a, b)| a < b && key(*a) == key(*b))
                .collect();
            let (a, b) = *pairs.get(index.index(pairs.len().max(1)))?;
            world.partitions[0].swap(a, b);
        }
        Mutation::EngineChanges(index) => {
            let at = pick(&answered(&world), index)?;
            if let Written::Commit { value, .. } = &mut world.partitions[0][at] {
                value["command"]["data"] = json!({"by": 1_000});
            }
        }
        Mutation::AnswerChanges(index) => {
            let is_ok = |at: &usize| matches!(world.history[*at].what, What::Ok(_));
            let oks: Vec<usize> = (0..world.history.len()).filter(is_ok).collect();
            if let What::Ok(answer) = &mut world.history[pick(&oks, index)?].what {
                answer.version += 1;
            }
        }
        Mutation::AnswerTurnsAway(index) => {
            let at = pick(&answered(&world), index)?;
            let Written::Commit { value, .. } = &world.partitions[0][at] else {
                return None;
            };
            let id = value["command"]["id"].as_str()?.to_owned();
            for entry in world.history.iter_mut().filter(|entry| entry.id == id) {
                if !matches!(entry.what, What::Invoke(_)) {
                    entry.what = turned_away();
                }
            }
        }
    }
    // The checker must find most changes without the rules of the domain.
    Some(world.check_as(&world.records(), complete(), Box::new(NoRules)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_valid_run_passes_and_any_single_change_to_it_is_caught(
        steps in prop::collection::vec(step(), 1..30),
        mutations in prop::collection::vec(mutation(), 8),
    ) {
        let world = run(&steps);
        let report = world.check();
        prop_assert!(report.is_clean(), "{:#?}", report.violations);
        for mutation in mutations {
            if let Some(report) = spoiled(&world, &mutation) {
                prop_assert!(!report.is_clean(), "{mutation:?}: {steps:?}");
            }
        }
    }
}
