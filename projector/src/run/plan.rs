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
/// a generation divide its partitions evenly among them.
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
            let new: Vec<Uuid> = able.iter().filter(is_new).map(|m| m.id).collect();
            let holder = match new.len() {
                0 => None,
                count => new.get(partition.0 as usize % count),
            };
            if holder == Some(&own) {
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
/// each of those in `apart` has its own. The partitions of a lane are divided among `tasks` tasks.
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
