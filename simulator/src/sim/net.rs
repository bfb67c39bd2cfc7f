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
use kernel::CommandId;

use super::event::{Ask, Event, NodeEvent};
use super::node::node_at;
use super::plan::Mistake;
use super::world::World;

/// How long a question to another node may take, in microseconds.
const ASK_US: u64 = 1_000_000;
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

/// A link, for both of its ends.
pub struct Link {
    /// The node that opened it.
    pub from: usize,
    from_incarnation: u32,
    /// The node at the other end.
    pub to: usize,
    to_incarnation: u32,
    partition: usize,
    id: LinkId,
    /// Whether the node that opened it still uses it.
    pub open: bool,
    forth_us: u64,
    back_us: u64,
    /// From when on nothing arrives at the other end, in microseconds.
    pub forth_cut_us: u64,
    /// From when on nothing comes back, in microseconds.
    pub back_cut_us: u64,
}

/// The subject of a question to another node.
#[derive(Clone, Copy, Debug)]
pub enum About {
    /// The other node should hand this partition over.
    HandOver(usize),
    /// The other node should take this partition over.
    TakeOver(usize),
}

/// A link, on the side of the node that serves it.
pub struct Served {
    partition: usize,
    guard: Arc<Guard>,
    /// Commands for which there is no room yet: number, command, and deadline.
    pending: VecDeque<(u64, Request, u64)>,
}

impl World {
    fn path_us(&mut self, from: usize, to: usize) -> u64 {
        let free_us = self.blocked[from][to].max(self.now_us);
        free_us + self.delay_us() + self.slow_us()
    }

    pub(super) fn open_link(
        &mut self,
        node: usize,
        partition: usize,
        id: LinkId,
        address: &str,
    ) -> u64 {
        let number = self.number();
        let to = node_at(address)
            .filter(|to| *to < self.nodes.len())
            .unwrap_or(node);
        let refused = !self.nodes[to].up || to == node;
        let link = Link {
            from: node,
            from_incarnation: self.nodes[node].incarnation,
            to,
            to_incarnation: self.nodes[to].incarnation,
            partition,
            id,
            open: true,
            forth_us: self.now_us,
            back_us: self.now_us,
            forth_cut_us: if refused { 0 } else { u64::MAX },
            back_cut_us: u64::MAX,
        };
        self.links.insert(number, link);
        if refused {
            let at_us = self.now_us + self.delay_us();
            self.tell_node(at_us, node, NodeEvent::LinkBroken(number));
        } else {
            let served = Served {
                partition,
                guard: Arc::default(),
                pending: VecDeque::new(),
            };
            self.nodes[to].served.insert(number, served);
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
        let Some(link) = self.links.get(&number) else {
            return;
        };
        let (from, to) = (link.from, link.to);
        let arrives_us = self.path_us(from, to);
        if self.plan.mistake == Some(Mistake::ForwardsUnderNewId) {
            let id = format!("{}-{}", request.id.as_str(), self.number());
            request.id = id
                .parse::<CommandId>()
                .expect("it is as short as the first");
        }
        let left_us = deadline_us.saturating_sub(self.now_us);
        let said = || format!("#{sequence} {} to node {to}", request.id.as_str());
        self.trace
            .say(self.now_us, super::trace::Who::Node(from), "forwards", said);
        let link = self.links.get_mut(&number).expect("it was looked at");
        let at_us = arrives_us.max(link.forth_us);
        link.forth_us = at_us;
        let incarnation = link.to_incarnation;
        if at_us >= link.forth_cut_us {
            return;
        }
        let event = NodeEvent::Forwarded {
            link: number,
            sequence,
            request: Box::new(request),
            left_us,
        };
        self.schedule.at(
            at_us,
            Event::Node {
                node: to,
                incarnation,
                event,
            },
        );
    }

    /// The node that opened a link closes it; what was sent may still arrive.
    pub(super) fn close_link(&mut self, number: u64) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        link.open = false;
        let (from, to, incarnation) = (link.from, link.to, link.to_incarnation);
        let forth_us = link.forth_us;
        let at_us = self.path_us(from, to).max(forth_us);
        let event = NodeEvent::LinkClosed(number);
        self.schedule.at(
            at_us,
            Event::Node {
                node: to,
                incarnation,
                event,
            },
        );
    }

    /// The node that opened a link finds it broken after a while.
    pub(super) fn break_link(&mut self, number: u64, after_us: u64) {
        let Some(link) = self.links.get(&number).filter(|link| link.open) else {
            return;
        };
        let (node, incarnation) = (link.from, link.from_incarnation);
        let at_us = self.now_us + after_us;
        let event = NodeEvent::LinkBroken(number);
        self.schedule.at(
            at_us,
            Event::Node {
                node,
                incarnation,
                event,
            },
        );
    }

    pub(super) fn link_broken(&mut self, node: usize, number: u64) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        if !std::mem::replace(&mut link.open, false) {
            return;
        }
        link.back_cut_us = 0;
        let (partition, id) = (link.partition, link.id);
        let broken = LinkEvent::Broken("it broke".to_owned());
        self.input(node, partition, Input::Link(id, broken));
    }

    /// A forwarded command arrives.
    pub(super) fn forwarded(
        &mut self,
        node: usize,
        number: u64,
        sequence: u64,
        request: Request,
        left_us: u64,
    ) {
        let deadline_us = self.now_us + left_us;
        let late = self
            .links
            .get(&number)
            .is_none_or(|link| self.now_us >= link.forth_cut_us);
        let Some(served) = self.nodes[node].served.get_mut(&number).filter(|_| !late) else {
            return;
        };
        let partition = served.partition;
        served.pending.push_back((sequence, request, deadline_us));
        let event = NodeEvent::NoRoom(number, sequence);
        self.tell_node(deadline_us, node, event);
        self.feed_links(node, partition);
    }

    /// Moves commands of links into a partition's queue, as far as there is room.
    pub(super) fn feed_links(&mut self, node: usize, partition: usize) {
        let served = self.nodes[node].served.iter();
        let waiting: Vec<u64> = served
            .filter(|(_, served)| served.partition == partition && !served.pending.is_empty())
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            loop {
                let task = self.task(node, partition);
                let ended = task.ended;
                if !ended && task.queues.from_peers.len() >= FORWARDED_MAX {
                    return;
                }
                let served = self.nodes[node].served.get_mut(&number);
                let served = served.expect("it was looked at");
                let guard = Arc::clone(&served.guard);
                let Some((sequence, request, deadline_us)) = served.pending.pop_front() else {
                    break;
                };
                if ended {
                    guard.close();
                    self.answer_link(number, sequence, LinkAnswer::Moved(None));
                    continue;
                }
                let peer = SimPeer {
                    link: number,
                    sequence,
                    deadline_us,
                    waiter: Waiter::new(Some(guard)),
                    clock: Rc::clone(&self.clock),
                };
                let submission = self.submission(request);
                self.task(node, partition)
                    .queues
                    .from_peers
                    .push_back((submission, peer));
                self.wake(node, partition);
            }
        }
    }

    /// A forwarded command has waited for room until its deadline.
    pub(super) fn no_room(&mut self, node: usize, number: u64, sequence: u64) {
        let Some(served) = self.nodes[node].served.get_mut(&number) else {
            return;
        };
        let is_first = served
            .pending
            .front()
            .is_some_and(|first| first.0 == sequence);
        if is_first {
            served.pending.pop_front();
            served.guard.close();
            let error = turned_away(TurnedAway::Overloaded);
            self.answer_link(number, sequence, LinkAnswer::Answered(Err(error)));
            let partition = self.nodes[node].served[&number].partition;
            self.feed_links(node, partition);
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
        let said = || {
            format!(
                "partition {partition} #{}: {}",
                peer.sequence,
                described(&answer)
            )
        };
        let who = super::trace::Who::Node(node);
        self.trace.say(self.now_us, who, "answers peer", said);
        self.answer_link(peer.link, peer.sequence, answer);
    }

    fn answer_link(&mut self, number: u64, sequence: u64, answer: LinkAnswer) {
        let Some(link) = self.links.get(&number) else {
            return;
        };
        let (from, to) = (link.from, link.to);
        let arrives_us = self.path_us(to, from);
        let link = self.links.get_mut(&number).expect("it was looked at");
        let at_us = arrives_us.max(link.back_us);
        link.back_us = at_us;
        let incarnation = link.from_incarnation;
        let event = NodeEvent::LinkAnswer(number, sequence, Box::new(answer));
        self.schedule.at(
            at_us,
            Event::Node {
                node: from,
                incarnation,
                event,
            },
        );
    }

    pub(super) fn link_answered(
        &mut self,
        node: usize,
        number: u64,
        sequence: u64,
        answer: LinkAnswer,
    ) {
        let Some(link) = self.links.get(&number) else {
            return;
        };
        if !link.open || self.now_us >= link.back_cut_us {
            return;
        }
        let (partition, id) = (link.partition, link.id);
        let event = LinkEvent::Answer(sequence, answer);
        self.input(node, partition, Input::Link(id, event));
    }

    pub(super) fn link_closed(&mut self, node: usize, number: u64) {
        self.nodes[node].served.remove(&number);
    }

    /// Asks the owner of a partition to hand over.
    pub(super) fn ask_owner(
        &mut self,
        node: usize,
        partition: usize,
        owner: &Hint,
        successor: Hint,
    ) {
        let (ask, number) = self.new_ask(node, About::HandOver(partition));
        let to = node_at(&owner.address).filter(|to| *to < self.nodes.len());
        let give_up_us = match to {
            Some(to) if self.nodes[to].up => {
                let event = NodeEvent::HandOver {
                    partition,
                    successor,
                    ask,
                };
                let at_us = self.path_us(node, to);
                self.tell_node(at_us, to, event);
                ASK_US
            }
            _ => self.delay_us(),
        };
        let at_us = self.now_us + give_up_us;
        self.tell_node(at_us, node, NodeEvent::AskAnswered(number));
    }

    /// Asks a node to take a partition over; `None` if that node is not running.
    pub(super) fn ask_take_over(
        &mut self,
        node: usize,
        to: usize,
        partition: usize,
    ) -> Option<u64> {
        if !self.nodes[to].up {
            return None;
        }
        let (ask, number) = self.new_ask(node, About::TakeOver(partition));
        let at_us = self.path_us(node, to);
        self.tell_node(at_us, to, NodeEvent::TakeOver(partition, ask));
        Some(number)
    }

    fn new_ask(&mut self, node: usize, about: About) -> (Ask, u64) {
        let number = self.number();
        self.nodes[node].asks.insert(number, about);
        let incarnation = self.nodes[node].incarnation;
        let ask = Ask {
            node,
            incarnation,
            number,
        };
        (ask, number)
    }

    /// Answers a question of another node; the answer may get lost.
    pub(super) fn answer_ask(&mut self, node: usize, ask: Ask) {
        if !self.quiet && self.random.chance(50) {
            return;
        }
        let at_us = self.path_us(node, ask.node);
        let event = NodeEvent::AskAnswered(ask.number);
        self.schedule.at(
            at_us,
            Event::Node {
                node: ask.node,
                incarnation: ask.incarnation,
                event,
            },
        );
    }

    /// A question was answered, or its time is over.
    pub(super) fn ask_answered(&mut self, node: usize, number: u64) {
        match self.nodes[node].asks.remove(&number) {
            Some(About::HandOver(partition)) => {
                self.input(node, partition, Input::OwnerAnswered);
            }
            Some(About::TakeOver(partition)) => self.taken_over(node, partition),
            None => {}
        }
    }

    pub(super) fn control(&mut self, node: usize, partition: usize, control: Control<Ask>) {
        if self.task(node, partition).ended {
            return;
        }
        self.task(node, partition).control.push_back(control);
        self.wake(node, partition);
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
