//! The traffic between nodes: links for forwarded commands, and questions about ownership.
//!
//! Invariant: each direction of a link keeps its order; a cut lets nothing through from some moment
//! on. Deliberately absent: the contents of commands and answers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use engine::command::{Request, TurnedAway, turned_away};
use engine::peers::{LinkAnswer, LinkEvent, LinkId};
use engine::seat::{Control, Guard, Input, Peer, Waiter};
use event_log::directory::Hint;

use super::event::{Ask, Process};
use super::node::node_at;
use super::plan::Mistake;
use super::trace::Who;
use super::world::World;

/// How long a question to another node may take, in microseconds.
const ASK_US: u64 = 1_000_000;
/// How long another node may take for the take-over of one partition, in microseconds.
const TAKE_OVER_US: u64 = 1_500_000;
/// How many forwarded commands may wait for one partition.
const FORWARDED_MAX: usize = 8;

/// Another node's command, as a seat holds it.
pub struct SimPeer {
    link: u64,
    sequence: u64,
    deadline_us: u64,
    waiter: Arc<Waiter>,
    clock: Rc<Cell<u64>>,
}

impl Peer for SimPeer {
    fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    fn is_late(&self) -> bool {
        self.deadline_us <= self.clock.get()
    }
}

/// A link, for both of its ends. It stays in the world once it is closed.
pub struct Link {
    partition: usize,
    id: LinkId,
    /// Whether the node that opened it still uses it.
    pub open: bool,
    /// The way to the node that serves it.
    pub forth: Way,
    /// The way back to the node that opened it.
    pub back: Way,
}

/// One direction of a link.
pub struct Way {
    pub to: Process,
    /// When the last thing sent arrives, in microseconds.
    last_us: u64,
    /// From when on nothing arrives, in microseconds.
    pub cut_us: u64,
}

impl Link {
    /// The node that opened it, and the one that serves it.
    pub fn ends(&self) -> (usize, usize) {
        (self.back.to.node, self.forth.to.node)
    }
}

/// A link, on the side of the node that serves it.
#[derive(Default)]
pub struct Served {
    guard: Arc<Guard>,
    /// Commands for which there is no room yet.
    pending: VecDeque<(Request, SimPeer)>,
}

impl World {
    fn path_us(&mut self, from: usize, to: usize) -> u64 {
        let free_us = self.blocked[from][to].max(self.now_us);
        let delay_us = self.delay_us();
        let slow_us = match self.slow_network_until_us > self.now_us {
            true => self.random.below(300_000),
            false => 0,
        };
        free_us + delay_us + slow_us
    }

    pub(super) fn process_of(&self, node: usize) -> Process {
        let incarnation = self.nodes[node].incarnation;
        Process { node, incarnation }
    }

    pub(super) fn open_link(
        &mut self,
        node: usize,
        partition: usize,
        id: LinkId,
        address: &str,
    ) -> u64 {
        let number = self.number();
        let to = node_at(address).unwrap_or(node);
        let refused = !self.nodes[to].up || to == node;
        let way = |to, cut_us| Way {
            to: self.process_of(to),
            last_us: self.now_us,
            cut_us,
        };
        let link = Link {
            partition,
            id,
            open: true,
            forth: way(to, if refused { 0 } else { u64::MAX }),
            back: way(node, u64::MAX),
        };
        self.links.insert(number, link);
        if refused {
            let at_us = self.now_us + self.delay_us();
            self.tell_node(at_us, node, move |world, _| world.link_broken(number));
        } else {
            self.nodes[to].served.insert(number, Served::default());
        }
        number
    }

    pub(super) fn send_over(
        &mut self,
        number: u64,
        sequence: u64,
        mut request: Request,
        deadline_us: u64,
    ) {
        let (from, to) = self.links[&number].ends();
        let arrives_us = self.path_us(from, to);
        if self.plan.mistake == Some(Mistake::ForwardsUnderNewId) {
            let id = format!("{}-{}", request.id.as_str(), self.number());
            request.id = id.parse().expect("it is as short as the first");
        }
        let left_us = deadline_us.saturating_sub(self.now_us);
        let said = || format!("#{sequence} {} to node {to}", request.id.as_str());
        self.say(Who::Node(from), "forwards", said);
        let forth = &mut self.links.get_mut(&number).expect("links stay").forth;
        forth.last_us = forth.last_us.max(arrives_us);
        if forth.last_us < forth.cut_us {
            self.schedule
                .tell(forth.last_us, forth.to, move |world, _| {
                    world.forwarded(number, sequence, request, left_us);
                });
        }
    }

    /// The node that opened a link closes it; what was sent may still arrive.
    pub(super) fn close_link(&mut self, number: u64) {
        let link = self.links.get_mut(&number).expect("links stay");
        link.open = false;
        let (from, to) = link.ends();
        let arrives_us = self.path_us(from, to);
        let forth = &self.links[&number].forth;
        let at_us = forth.last_us.max(arrives_us);
        self.schedule.tell(at_us, forth.to, move |world, node| {
            world.nodes[node].served.remove(&number);
        });
    }

    /// Lets the node that opened a link find it broken at some moment.
    pub(super) fn break_link(&mut self, number: u64, at_us: u64) {
        let link = &self.links[&number];
        if link.open {
            let broken = move |world: &mut Self, _| world.link_broken(number);
            self.schedule.tell(at_us, link.back.to, broken);
        }
    }

    /// The node that opened a link finds it broken.
    fn link_broken(&mut self, number: u64) {
        let link = self.links.get_mut(&number).expect("links stay");
        if !std::mem::replace(&mut link.open, false) {
            return;
        }
        link.back.cut_us = 0;
        let (node, partition, id) = (link.back.to.node, link.partition, link.id);
        let broken = LinkEvent::Broken("it broke".to_owned());
        self.input(node, partition, Input::Link(id, broken));
    }

    /// A forwarded command arrives over a link. Its sender still waits for `left_us`.
    fn forwarded(&mut self, number: u64, sequence: u64, request: Request, left_us: u64) {
        let deadline_us = self.now_us + left_us;
        let Link { partition, .. } = self.links[&number];
        let Way { to, cut_us, .. } = self.links[&number].forth;
        let (node, late) = (to.node, self.now_us >= cut_us);
        let Some(served) = self.nodes[node].served.get_mut(&number).filter(|_| !late) else {
            return;
        };
        let peer = SimPeer {
            link: number,
            sequence,
            deadline_us,
            waiter: Waiter::new(Some(Arc::clone(&served.guard))),
            clock: Rc::clone(&self.clock),
        };
        served.pending.push_back((request, peer));
        self.tell_node(deadline_us, node, move |world, node| {
            world.no_room(node, number, sequence);
        });
        self.feed_links(node, partition);
    }

    /// Moves commands of links into a partition's queue, as far as there is room.
    pub(super) fn feed_links(&mut self, node: usize, partition: usize) {
        loop {
            let task = self.task(node, partition);
            let ended = task.ended;
            if !ended && task.queues.from_peers.len() >= FORWARDED_MAX {
                return;
            }
            let served = self.nodes[node].served.iter_mut();
            let mut served = served.filter(|(link, _)| self.links[link].partition == partition);
            let first = served.find_map(|(_, served)| served.pending.pop_front());
            let Some((request, peer)) = first else {
                return;
            };
            if ended {
                peer.waiter.give_up();
                self.answer_link(peer.link, peer.sequence, LinkAnswer::Moved(None));
                continue;
            }
            let forwarded = (self.submission(request), peer);
            let queues = &mut self.task(node, partition).queues;
            queues.from_peers.push_back(forwarded);
            self.wake(node, partition);
        }
    }

    /// A forwarded command has waited for room until its deadline.
    fn no_room(&mut self, node: usize, number: u64, sequence: u64) {
        let Some(served) = self.nodes[node].served.get_mut(&number) else {
            return;
        };
        let is_late = |(_, peer): &mut (Request, SimPeer)| peer.sequence == sequence;
        if served.pending.pop_front_if(is_late).is_some() {
            served.guard.close();
            let error = turned_away(TurnedAway::Overloaded);
            self.answer_link(number, sequence, LinkAnswer::Answered(Err(error)));
            self.feed_links(node, self.links[&number].partition);
        }
    }

    pub(super) fn answer_peer(
        &mut self,
        node: usize,
        partition: usize,
        peer: &SimPeer,
        answer: LinkAnswer,
    ) {
        if let LinkAnswer::Answered(Ok(answer)) = &answer {
            self.check_answer(answer);
        }
        let sequence = peer.sequence;
        let said = || format!("partition {partition} #{sequence}: {}", described(&answer));
        self.say(Who::Node(node), "answers peer", said);
        self.answer_link(peer.link, peer.sequence, answer);
    }

    fn answer_link(&mut self, number: u64, sequence: u64, answer: LinkAnswer) {
        let (opened_by, served_by) = self.links[&number].ends();
        let arrives_us = self.path_us(served_by, opened_by);
        let back = &mut self.links.get_mut(&number).expect("links stay").back;
        back.last_us = back.last_us.max(arrives_us);
        self.schedule.tell(back.last_us, back.to, move |world, _| {
            world.link_answered(number, sequence, answer);
        });
    }

    fn link_answered(&mut self, number: u64, sequence: u64, answer: LinkAnswer) {
        let link = &self.links[&number];
        if link.open && self.now_us < link.back.cut_us {
            let event = Input::Link(link.id, LinkEvent::Answer(sequence, answer));
            self.input(link.back.to.node, link.partition, event);
        }
    }

    pub(super) fn ask_owner(
        &mut self,
        node: usize,
        partition: usize,
        owner: &Hint,
        successor: Hint,
    ) {
        let reply = self.new_ask(node, move |world, node| {
            world.input(node, partition, Input::OwnerAnswered);
        });
        let give_up_us = match node_at(&owner.address) {
            Some(to) if self.nodes[to].up => {
                let control = Control::HandOver { successor, reply };
                let at_us = self.path_us(node, to);
                self.tell_control(at_us, to, partition, control);
                ASK_US
            }
            _ => self.delay_us(),
        };
        self.answer_ask_at(self.now_us + give_up_us, reply);
    }

    /// Asks a node to take a partition over.
    pub(super) fn ask_take_over(&mut self, node: usize, to: usize, partition: usize) {
        let reply = self.new_ask(node, move |world, node| world.taken_over(node, partition));
        let at_us = self.path_us(node, to);
        self.tell_control(at_us, to, partition, Control::TakeOver { reply });
        self.answer_ask_at(self.now_us + TAKE_OVER_US, reply);
    }

    fn new_ask(&mut self, node: usize, then: impl FnOnce(&mut Self, usize) + 'static) -> Ask {
        let number = self.number();
        self.nodes[node].asks.insert(number, Box::new(then));
        let from = self.process_of(node);
        Ask { from, number }
    }

    /// Answers a question of another node; the answer may get lost.
    pub(super) fn answer_ask(&mut self, node: usize, ask: Ask) {
        if !self.quiet && self.random.chance(50) {
            return;
        }
        let at_us = self.path_us(node, ask.from.node);
        self.answer_ask_at(at_us, ask);
    }

    /// Schedules the answer to a question, or the end of its time.
    fn answer_ask_at(&mut self, at_us: u64, ask: Ask) {
        self.schedule.tell(at_us, ask.from, move |world, node| {
            if let Some(then) = world.nodes[node].asks.remove(&ask.number) {
                then(world, node);
            }
        });
    }

    /// Asks a node to hand a partition over, or to take it over.
    pub(super) fn tell_control(
        &mut self,
        at_us: u64,
        node: usize,
        partition: usize,
        control: Control<Ask>,
    ) {
        self.tell_node(at_us, node, move |world, node| {
            let is_leaving = world.nodes[node].leaving.is_some();
            let task = world.task(node, partition);
            // A stopping node takes nothing over.
            let refuses = is_leaving && matches!(control, Control::TakeOver { .. });
            if !task.ended && !refuses {
                task.control.push_back(control);
                world.wake(node, partition);
            }
        });
    }
}

fn described(answer: &LinkAnswer) -> String {
    match answer {
        LinkAnswer::Answered(Ok(answer)) => format!("version {}", answer.version),
        LinkAnswer::Answered(Err(error)) => error.to_string(),
        LinkAnswer::Moved(Some(hint)) => format!("moved to {}", hint.node),
        LinkAnswer::Moved(None) => "moved".to_owned(),
    }
}
