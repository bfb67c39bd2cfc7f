//! Tests that turns are shared fairly, however much each sender sends.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const CAPACITY: usize = 64;

fn tenant(number: u8) -> TenantId {
    format!("t{number}").parse().expect("letters and digits")
}

/// A queue of (sender, tenant, number).
fn queue() -> FairQueue<(u64, u8, usize)> {
    FairQueue::new(CAPACITY)
}

fn push(
    queue: &mut FairQueue<(u64, u8, usize)>,
    from: u64,
    of: u8,
    number: usize,
) -> Option<Place> {
    queue
        .push(Sender(from), &tenant(of), 1_000, (from, of, number))
        .ok()
}

/// How many of the next `pops` items belong to each sender.
fn shares(queue: &mut FairQueue<(u64, u8, usize)>, pops: usize) -> BTreeMap<u64, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..pops {
        let (from, ..) = queue.pop().expect("enough waits");
        *shares.entry(from).or_default() += 1;
    }
    shares
}

#[test]
fn whoever_comes_new_finds_a_place_and_is_next_but_one_however_much_another_sent() {
    let mut queue = queue();
    let mut held = 0;
    while push(&mut queue, 1, 0, held).is_some() {
        held += 1;
    }
    assert_eq!(held, CAPACITY / 2, "as many as are left free");
    for newcomer in 2..6 {
        assert!(push(&mut queue, newcomer, 0, 0).is_some());
    }
    assert_eq!(
        shares(&mut queue, 5),
        (1..6).map(|from| (from, 1)).collect()
    );
}

#[test]
fn tenants_take_turns_and_within_a_tenant_its_senders_do() {
    let mut queue = FairQueue::new(1_024);
    for number in 0..20 {
        for from in 1..=4 {
            push(&mut queue, from, 0, number);
        }
        push(&mut queue, 9, 1, number);
    }
    let shares = shares(&mut queue, 40);
    assert_eq!(shares[&9], 20, "half of them is the other tenant's");
    assert!((1..=4).all(|from| shares[&from] == 5), "{shares:?}");
}

#[test]
fn a_sender_that_names_many_tenants_gets_no_more_for_it() {
    let mut queue = FairQueue::new(1_024);
    for number in 0..40 {
        push(&mut queue, 1, u8::try_from(number).unwrap() + 10, number);
        push(&mut queue, 2, 0, number);
    }
    assert_eq!(shares(&mut queue, 20), BTreeMap::from([(1, 10), (2, 10)]));
}

#[test]
fn tenants_that_share_a_sender_take_turns_within_it() {
    let mut queue = queue();
    for number in 0..20 {
        push(&mut queue, 1, 0, number);
    }
    push(&mut queue, 1, 1, 0);
    let tenants: Vec<u8> = (0..2).map(|_| queue.pop().unwrap().1).collect();
    assert_eq!(tenants, [0, 1]);
}

#[test]
fn large_commands_take_more_turns_than_small_ones_and_none_where_nobody_else_waits() {
    let mut queue = FairQueue::new(1_024);
    for _ in 0..40 {
        let (main, large) = (tenant(0), 3 * TURN_BYTES);
        queue.push(Sender(1), &main, large, 1).unwrap();
        queue.push(Sender(2), &main, 10, 2).unwrap();
    }
    let of_first = (0..20).filter(|_| queue.pop() == Some(1)).count();
    assert_eq!(of_first, 4, "one turn in four");
    let rest = std::iter::from_fn(|| queue.pop()).count();
    assert_eq!(rest, 60);
}

#[test]
fn what_is_taken_out_before_its_turn_leaves_nothing_behind() {
    let mut queue = queue();
    for round in 0..1_000 {
        let place = push(&mut queue, round, u8::try_from(round % 200).unwrap(), 0).unwrap();
        assert!(queue.remove(&place).is_some());
        assert!(queue.remove(&place).is_none());
    }
    assert_eq!((queue.len(), queue.iter().count()), (0, 0));
    assert!(queue.tenants.is_empty() && queue.groups.is_empty() && queue.senders.is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Push { from: u64, of: u8, bytes: u32 },
    Pop,
    Remove(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let push = (0..5_u64, 0..4_u8, 0..6 * TURN_BYTES);
    prop_oneof![
        4 => push.prop_map(|(from, of, bytes)| Op::Push { from, of, bytes }),
        3 => Just(Op::Pop),
        1 => (0..200_usize).prop_map(Op::Remove),
    ]
}

proptest! {
    /// Nothing is lost, duplicated or reordered within a sender and a tenant. The number of places
    /// is bounded. Every waiting sender has a turn after a bounded number of turns of all others.
    #[test]
    fn turns_are_fair_and_orderly(ops in prop::collection::vec(op(), 1..400)) {
        let mut queue = queue();
        let mut lanes: BTreeMap<(u64, u8), VecDeque<usize>> = BTreeMap::new();
        let mut places: Vec<(Place, (u64, u8, usize))> = Vec::new();
        let mut waited: BTreeMap<u64, usize> = BTreeMap::new();
        for (number, op) in ops.into_iter().enumerate() {
            let count: usize = lanes.values().map(VecDeque::len).sum();
            prop_assert_eq!(queue.len(), count);
            prop_assert_eq!(queue.iter().count(), count);
            match op {
                Op::Push { from, of, bytes } => {
                    let of_sender = lanes.iter().filter(|((sender, _), _)| *sender == from);
                    let held: usize = of_sender.map(|(_, lane)| lane.len()).sum();
                    let item = (from, of, number);
                    let place = queue.push(Sender(from), &tenant(of), bytes, item);
                    prop_assert_eq!(place.is_ok(), held < CAPACITY - count);
                    if let Ok(place) = place {
                        places.push((place, item));
                        lanes.entry((from, of)).or_default().push_back(number);
                        waited.entry(from).or_default();
                    }
                }
                Op::Pop => {
                    let popped = queue.pop();
                    prop_assert_eq!(popped.is_none(), count == 0);
                    let Some((from, of, number)) = popped else { continue };
                    let first = lanes.get_mut(&(from, of)).and_then(VecDeque::pop_front);
                    prop_assert_eq!(first, Some(number));
                    waited.values_mut().for_each(|pops| *pops += 1);
                    waited.insert(from, 0);
                }
                Op::Remove(index) => {
                    if places.is_empty() { continue }
                    let (place, (from, of, number)) = places.swap_remove(index % places.len());
                    let lane = lanes.entry((from, of)).or_default();
                    let there = lane.iter().position(|waiting| *waiting == number);
                    prop_assert_eq!(queue.remove(&place).is_some(), there.is_some());
                    there.map(|index| lane.remove(index));
                }
            }
            waited.retain(|from, _| {
                lanes.iter().any(|((sender, _), lane)| sender == from && !lane.is_empty())
            });
            // Four tenants, five senders, and at most six turns for one command.
            prop_assert!(waited.values().all(|pops| *pops <= 5 * 4 * 6), "{:?}", waited);
        }
    }
}
