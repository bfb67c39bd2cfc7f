//! Who takes up what: which partitions of which generations a process should hold, and which of
//! them it runs together.
//!
//! Pure: every process computes the same shares from the same look. Invariant: each partition of a
//! generation that runs has at most one process that should hold it, and one that holds it is never
//! asked to run it in two lanes. Deliberately absent: I/O, and the lanes themselves (`lane`).

use std::collections::{BTreeMap, BTreeSet};

use position::Partition;
use uuid::Uuid;

use crate::store::members::{GenerationId, GenerationState, Look, Member, Pair, Seen};

/// Generations whose places differ by at most so many records, summed over the partitions in which a
/// process runs both, are read for together.
const LEVEL_RECORDS: u64 = 5_000;

/// What is run with one subscription and one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneSpec {
    pub(crate) generations: BTreeSet<GenerationId>,
    pub(crate) partitions: BTreeSet<Partition>,
}

/// What `own` should hold: its share of each generation whose rule it has. The members that may hold
/// a generation divide its partitions evenly among them. One that only helps with rebuilds holds what
/// no other can: those keep their share of the work beside the live read models, as operators set it.
pub(crate) fn shares(look: &Look, own: Uuid, partition_count: u32) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for (id, seen) in &look.generations {
        if seen.is_paused {
            continue;
        }
        let may = |member: &&Member| {
            let is_built = matches!(
                seen.state,
                GenerationState::Building | GenerationState::Ready
            );
            member.rules.contains(&seen.rule) && (is_built || !member.builds_only)
        };
        let able: Vec<&Member> = look.members.iter().filter(may).collect();
        for partition in (0..partition_count).map(Partition) {
            let pair = (id.clone(), partition);
            let is_new = |member: &&&Member| !member.too_old.contains(&pair);
            let mut new: Vec<&Member> = able.iter().filter(is_new).copied().collect();
            if new.iter().any(|member| !member.builds_only) {
                new.retain(|member| !member.builds_only);
            }
            let holder = match new.len() {
                0 => None,
                count => new.get(partition.0 as usize % count),
            };
            if holder.is_some_and(|holder| holder.id == own) {
                pairs.insert(pair);
            }
        }
    }
    pairs
}

/// The pairs that `own` holds.
pub(crate) fn held(look: &Look, own: Uuid) -> BTreeSet<Pair> {
    let pairs = look.generations.iter().flat_map(|(id, seen)| {
        let own = seen
            .leases
            .iter()
            .filter(move |(_, holder)| **holder == own);
        own.map(|(partition, _)| (id.clone(), *partition))
    });
    pairs.collect()
}

/// The lanes for what a process holds and should hold: generations that are level share one, and
/// each of those in `apart` has its own. The partitions of a lane are divided among `tasks` tasks;
/// one that is apart has one task, so that a fault which meets all of them, such as a full disk,
/// does not use up the connections of Postgres.
pub(crate) fn lanes(
    look: &Look,
    pairs: &BTreeSet<Pair>,
    apart: &BTreeSet<GenerationId>,
    tasks: usize,
) -> BTreeSet<LaneSpec> {
    let mut running: BTreeMap<&GenerationId, BTreeSet<Partition>> = BTreeMap::new();
    for (id, partition) in pairs {
        let is_stopped = |seen: &Seen| seen.stopped.contains_key(partition);
        if look
            .generations
            .get(id)
            .is_some_and(|seen| !is_stopped(seen))
        {
            running.entry(id).or_default().insert(*partition);
        }
    }
    let mut lanes = BTreeSet::new();
    for together in level(look, &running, apart) {
        // Partitions in which not all of them run are lanes of their own.
        let mut by_partition: BTreeMap<Partition, BTreeSet<GenerationId>> = BTreeMap::new();
        for id in &together {
            for partition in &running[id] {
                by_partition
                    .entry(*partition)
                    .or_default()
                    .insert((*id).clone());
            }
        }
        let mut by_generations: BTreeMap<BTreeSet<GenerationId>, Vec<Partition>> = BTreeMap::new();
        for (partition, generations) in by_partition {
            by_generations
                .entry(generations)
                .or_default()
                .push(partition);
        }
        for (generations, partitions) in by_generations {
            let is_apart = generations.iter().all(|id| apart.contains(id));
            let tasks = if is_apart { 1 } else { tasks };
            for partitions in divided(&partitions, tasks) {
                lanes.insert(LaneSpec {
                    generations: generations.clone(),
                    partitions: partitions.into_iter().collect(),
                });
            }
        }
    }
    lanes
}

/// Divides the partitions among `tasks` tasks, but at least one and at most one for each partition.
pub(crate) fn divided(partitions: &[Partition], tasks: usize) -> Vec<Vec<Partition>> {
    let tasks = tasks.clamp(1, partitions.len().max(1));
    let share = |index| partitions.iter().copied().skip(index).step_by(tasks);
    (0..tasks).map(|index| share(index).collect()).collect()
}

/// The running generations in groups that are level. A building is always alone: its lane obeys a
/// ceiling, and its load must not reach the live ones.
fn level<'a>(
    look: &Look,
    running: &BTreeMap<&'a GenerationId, BTreeSet<Partition>>,
    apart: &BTreeSet<GenerationId>,
) -> Vec<Vec<&'a GenerationId>> {
    let mut alone = Vec::new();
    let mut groups: Vec<Vec<&GenerationId>> = Vec::new();
    for (&id, partitions) in running {
        let seen = &look.generations[id];
        if seen.state == GenerationState::Building || apart.contains(id) {
            alone.push(vec![id]);
            continue;
        }
        let is_level = |group: &&mut Vec<&GenerationId>| {
            let first = group[0];
            let common = partitions.intersection(&running[first]);
            let next = |seen: &Seen, partition| seen.places.get(partition).map_or(0, |at| at.0 + 1);
            let others = &look.generations[first];
            let apart = common.map(|p| next(seen, p).abs_diff(next(others, p)));
            apart.sum::<u64>() <= LEVEL_RECORDS
        };
        match groups.iter_mut().find(is_level) {
            Some(group) => group.push(id),
            None => groups.push(vec![id]),
        }
    }
    alone.extend(groups);
    alone
}

#[cfg(test)]
mod tests {
    use position::Offset;
    use proptest::prelude::*;

    use super::*;
    use crate::store::stops::Stopped;

    const PARTITIONS: u32 = 7;
    const RULES: [&str; 3] = ["a v1", "b v1", "b v2"];
    const STATES: [GenerationState; 4] = [
        GenerationState::Building,
        GenerationState::Ready,
        GenerationState::Live,
        GenerationState::Retired,
    ];

    fn id(number: usize) -> GenerationId {
        GenerationId {
            projection: format!("p{number}"),
            number: 1,
        }
    }

    fn member() -> impl Strategy<Value = Member> {
        let too_old = proptest::collection::btree_set((0_usize..5, 0..PARTITIONS), 0..6);
        (any::<u128>(), any::<[bool; 3]>(), any::<bool>(), too_old).prop_map(
            |(id_, has, builds_only, too_old)| Member {
                id: Uuid::from_u128(id_),
                name: String::new(),
                rules: RULES
                    .iter()
                    .zip(has)
                    .filter(|(_, has)| *has)
                    .map(|(rule, _)| (*rule).to_owned())
                    .collect(),
                builds_only,
                too_old: too_old
                    .into_iter()
                    .map(|(number, partition)| (id(number), Partition(partition)))
                    .collect(),
            },
        )
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let place = proptest::option::of(0_u64..20_000);
        let stopped = proptest::collection::btree_set(0..PARTITIONS, 0..3);
        let places = proptest::collection::vec(place, PARTITIONS as usize);
        (0_usize..4, 0_usize..3, any::<bool>(), places, stopped).prop_map(
            |(state, rule, is_paused, places, stopped)| Seen {
                state: STATES[state],
                rule: RULES[rule].to_owned(),
                version: 1,
                places: (0..)
                    .map(Partition)
                    .zip(places)
                    .filter_map(|(partition, at)| Some((partition, Offset(at?))))
                    .collect(),
                leases: BTreeMap::new(),
                waits: false,
                by_itself: false,
                is_paused,
                stopped: stopped
                    .into_iter()
                    .map(|partition| {
                        let stop = Stopped {
                            projection: String::new(),
                            generation: 1,
                            partition: Partition(partition),
                            offset: None,
                            reason: String::new(),
                        };
                        (Partition(partition), stop)
                    })
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn each_partition_has_one_holder_and_each_holder_one_lane_for_it(
            members in proptest::collection::vec(member(), 0..5),
            generations in proptest::collection::vec(seen(), 0..5),
            apart in proptest::collection::btree_set(0_usize..5, 0..3),
            tasks in 1_usize..5,
        ) {
            let look = Look {
                members,
                generations: generations.into_iter().enumerate().map(|(n, g)| (id(n), g)).collect(),
            };
            let apart: BTreeSet<GenerationId> = apart.into_iter().map(id).collect();
            let mut held: BTreeMap<Pair, usize> = BTreeMap::new();
            for member in &look.members {
                let pairs = shares(&look, member.id, PARTITIONS);
                let mut run: BTreeMap<Pair, usize> = BTreeMap::new();
                for lane in lanes(&look, &pairs, &apart, tasks) {
                    let is_building =
                        |id: &GenerationId| look.generations[id].state == GenerationState::Building;
                    let alone = lane.generations.iter().any(|id| is_building(id) || apart.contains(id));
                    prop_assert!(!alone || lane.generations.len() == 1, "{lane:?}");
                    for id in &lane.generations {
                        for partition in &lane.partitions {
                            *run.entry((id.clone(), *partition)).or_default() += 1;
                        }
                    }
                }
                for pair in pairs {
                    let is_stopped = look.generations[&pair.0].stopped.contains_key(&pair.1);
                    let count = run.remove(&pair).unwrap_or_default();
                    prop_assert_eq!(count, usize::from(!is_stopped), "{:?}", pair);
                    *held.entry(pair).or_default() += 1;
                }
                prop_assert!(run.is_empty(), "{run:?}");
            }
            for (id, seen) in &look.generations {
                for partition in (0..PARTITIONS).map(Partition) {
                    let pair = (id.clone(), partition);
                    let is_built =
                        matches!(seen.state, GenerationState::Building | GenerationState::Ready);
                    let may = |member: &&Member| {
                        member.rules.contains(&seen.rule)
                            && (is_built || !member.builds_only)
                            && !member.too_old.contains(&pair)
                    };
                    let able = || look.members.iter().filter(may);
                    let expected = !seen.is_paused && able().next().is_some();
                    if able().any(|member| !member.builds_only) {
                        let helper = able().find(|member| {
                            let holds = || shares(&look, member.id, PARTITIONS).contains(&pair);
                            member.builds_only && holds()
                        });
                        prop_assert_eq!(helper, None, "{:?}", pair);
                    }
                    let count = held.get(&pair).copied().unwrap_or_default();
                    prop_assert_eq!(count, usize::from(expected), "{:?}", pair);
                }
            }
        }
    }

    #[test]
    fn the_members_divide_the_partitions_evenly() {
        let member = |id: u128| Member {
            id: Uuid::from_u128(id),
            name: String::new(),
            rules: BTreeSet::from([RULES[0].to_owned()]),
            builds_only: false,
            too_old: BTreeSet::new(),
        };
        let live = Seen {
            state: GenerationState::Live,
            rule: RULES[0].to_owned(),
            version: 1,
            places: BTreeMap::new(),
            leases: BTreeMap::new(),
            waits: false,
            by_itself: false,
            is_paused: false,
            stopped: BTreeMap::new(),
        };
        let look = Look {
            members: (1..=3).map(member).collect(),
            generations: BTreeMap::from([(id(0), live)]),
        };
        let count = |member: &Member| shares(&look, member.id, PARTITIONS).len();
        let counts: Vec<usize> = look.members.iter().map(count).collect();
        assert_eq!(counts, [3, 2, 2]);
    }
}
