//! A conversation as a tree: what caused what.
//!
//! Invariant: every commit stands in the tree exactly once, whatever the causes say. A cause is a
//! command or an event of the conversation; a commit that names none is a root, one that names
//! something else is an orphan, and where causes go in a circle, the earliest commit of the circle
//! begins it. Deliberately absent: what the commits say.

use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

/// What a commit is known by, and what caused it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) command_id: String,
    pub(super) causation_id: String,
    pub(super) events: Vec<Uuid>,
}

/// What kind of cause a commit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// It names none: it is a root.
    None,
    /// A command of the conversation.
    Command,
    /// An event of the conversation.
    Event,
    /// Something outside of the conversation, or of what is shown of it.
    Outside,
    /// It is the earliest of some that name each other as causes.
    Circle,
}

/// A commit in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its number among the links.
    pub(super) link: usize,
    pub(super) depth: usize,
    pub(super) cause: Cause,
    /// The number of the commit below which it stands.
    pub(super) parent: Option<usize>,
    /// Which of that commit's events caused it.
    pub(super) event: Option<usize>,
}

/// The commits in the order of the tree: each before what it caused, otherwise in their own order.
pub(super) fn placed(links: &[Link]) -> Vec<Placed> {
    let parents = parents(links);
    let mut children = vec![Vec::new(); links.len()];
    for (link, parent) in parents.iter().enumerate() {
        if let Parent::Of(parent, _) = parent {
            children[*parent].push(link);
        }
    }
    let mut tree = Tree {
        parents: &parents,
        children: &children,
        is_placed: vec![false; links.len()],
        placed: Vec::with_capacity(links.len()),
    };
    // Circles hang below nothing, so they come after everything that does; each then takes the place
    // of its time.
    let mut starts: Vec<(usize, Cause)> = Vec::new();
    for (link, parent) in parents.iter().enumerate() {
        match parent {
            Parent::None => starts.push((link, Cause::None)),
            Parent::Outside => starts.push((link, Cause::Outside)),
            Parent::Of(..) => {}
        }
    }
    starts.extend(circles(&parents).map(|link| (link, Cause::Circle)));
    starts.sort_unstable_by_key(|(link, _)| *link);
    for (link, cause) in starts {
        tree.place(link, cause);
    }
    tree.placed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    None,
    Outside,
    Of(usize, Option<usize>),
}

fn parents(links: &[Link]) -> Vec<Parent> {
    let mut commands: HashMap<&str, usize> = HashMap::new();
    let mut events: HashMap<String, (usize, usize)> = HashMap::new();
    for (number, link) in links.iter().enumerate() {
        commands.entry(&link.command_id).or_insert(number);
        for (event, id) in link.events.iter().enumerate() {
            events.insert(id.to_string(), (number, event));
        }
    }
    let parent = |(number, link): (usize, &Link)| {
        if link.causation_id == link.command_id {
            return Parent::None;
        }
        let by_event = events.get(&link.causation_id.to_ascii_lowercase());
        let by_command = commands.get(&*link.causation_id);
        match (by_event, by_command) {
            (Some((of, event)), _) if *of != number => Parent::Of(*of, Some(*event)),
            (_, Some(of)) if *of != number => Parent::Of(*of, None),
            _ => Parent::Outside,
        }
    };
    links.iter().enumerate().map(parent).collect()
}

/// The earliest commit of each circle of causes.
fn circles(parents: &[Parent]) -> impl Iterator<Item = usize> {
    // By which walk a commit was seen first; 0: by none.
    let mut seen = vec![0_usize; parents.len()];
    let mut found = Vec::new();
    for start in 0..parents.len() {
        let walk = start + 1;
        let mut at = start;
        while seen[at] == 0 {
            seen[at] = walk;
            match parents[at] {
                Parent::Of(parent, _) => at = parent,
                Parent::None | Parent::Outside => break,
            }
        }
        let is_circle = matches!(parents[at], Parent::Of(..)) && seen[at] == walk;
        if is_circle {
            let (first, mut earliest) = (at, at);
            while let Parent::Of(parent, _) = parents[at] {
                at = parent;
                earliest = earliest.min(at);
                if at == first {
                    break;
                }
            }
            found.push(earliest);
        }
    }
    found.into_iter()
}

struct Tree<'t> {
    parents: &'t [Parent],
    children: &'t [Vec<usize>],
    is_placed: Vec<bool>,
    placed: Vec<Placed>,
}

impl Tree<'_> {
    /// Places a commit that hangs below nothing, and everything below it.
    fn place(&mut self, start: usize, cause: Cause) {
        let mut open = vec![Placed {
            link: start,
            depth: 0,
            cause,
            parent: None,
            event: None,
        }];
        while let Some(next) = open.pop() {
            if std::mem::replace(&mut self.is_placed[next.link], true) {
                continue;
            }
            self.placed.push(next);
            for child in self.children[next.link].iter().rev() {
                let Parent::Of(parent, event) = self.parents[*child] else {
                    continue;
                };
                open.push(Placed {
                    link: *child,
                    depth: next.depth + 1,
                    cause: match event {
                        Some(_) => Cause::Event,
                        None => Cause::Command,
                    },
                    parent: Some(parent),
                    event,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(command: &str, cause: &str, events: &[u128]) -> Link {
        Link {
            command_id: command.to_owned(),
            causation_id: cause.to_owned(),
            events: events.iter().map(|id| Uuid::from_u128(*id)).collect(),
        }
    }

    fn shown(links: &[Link]) -> Vec<(usize, usize, Cause)> {
        let placed = placed(links).into_iter();
        placed.map(|one| (one.link, one.depth, one.cause)).collect()
    }

    #[test]
    fn causes_are_commands_and_events_and_orphans_stand_alone() {
        let event = Uuid::from_u128(7).to_string();
        let links = [
            link("a", "a", &[6, 7]),
            link("b", "elsewhere", &[]),
            link("c", &event, &[8]),
            link("d", "a", &[]),
            link("e", "c", &[]),
        ];
        let expected = [
            (0, 0, Cause::None),
            (2, 1, Cause::Event),
            (4, 2, Cause::Command),
            (3, 1, Cause::Command),
            (1, 0, Cause::Outside),
        ];
        assert_eq!(shown(&links), expected);
        let placed = placed(&links);
        assert_eq!((placed[1].parent, placed[1].event), (Some(0), Some(1)));
    }

    #[test]
    fn a_circle_begins_with_its_earliest_commit() {
        // d hangs on the circle of a, b and c; e causes itself by an event of its own.
        let own = Uuid::from_u128(9).to_string();
        let links = [
            link("d", "b", &[]),
            link("a", "c", &[]),
            link("b", "a", &[]),
            link("c", "b", &[]),
            link("e", &own, &[9]),
        ];
        let expected = [
            (1, 0, Cause::Circle),
            (2, 1, Cause::Command),
            (0, 2, Cause::Command),
            (3, 2, Cause::Command),
            (4, 0, Cause::Outside),
        ];
        assert_eq!(shown(&links), expected);
    }

    proptest! {
        #[test]
        fn every_commit_stands_in_the_tree_once_and_below_its_cause(
            causes in prop::collection::vec(0..12_usize, 0..10),
        ) {
            let links: Vec<Link> = causes
                .iter()
                .enumerate()
                .map(|(number, cause)| link(&number.to_string(), &cause.to_string(), &[]))
                .collect();
            let placed = placed(&links);
            let mut numbers: Vec<usize> = placed.iter().map(|one| one.link).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..links.len()).collect::<Vec<_>>());
            for (at, one) in placed.iter().enumerate() {
                let Some(parent) = one.parent else {
                    prop_assert_eq!(one.depth, 0);
                    continue;
                };
                prop_assert_eq!(&links[one.link].causation_id, &links[parent].command_id);
                let above = placed[..at].iter().find(|above| above.link == parent);
                prop_assert_eq!(above.map(|above| above.depth + 1), Some(one.depth));
            }
        }
    }
}
