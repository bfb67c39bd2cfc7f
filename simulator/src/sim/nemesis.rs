//! Injects the faults.
//!
//! Invariant: every fault ends when the quiet phase begins, and everything that it delayed arrives
//! by then.

use bytes::Bytes;
use engine::seat::Control;
use event_log::directory::Hint;
use event_log::record::NewRecord;
use position::{LogId, Term};
use uuid::Uuid;

use super::client::Loss;
use super::event::Ask;
use super::faults::{Fault, Kind};
use super::net::Link;
use super::node::address;
use super::store::LocalStore;
use super::trace::Who;
use super::world::World;

impl World {
    /// Injects the next fault, and schedules the one after it.
    pub(super) fn next_fault(&mut self) {
        if self.quiet {
            return;
        }
        let total: u64 = self.plan.faults.iter().map(|(_, share)| share).sum();
        let mut drawn = self.random.below(total);
        for (fault, share) in self.plan.faults.clone() {
            if drawn < share {
                (fault.inject)(self, fault);
                break;
            }
            drawn -= share;
        }
        let mean_us = self.plan.fault_every_us;
        let at_us = self.now_us + self.random.between(mean_us / 4, 2 * mean_us);
        self.schedule.at(at_us, Self::next_fault);
    }

    fn any_partition(&mut self, fault: Fault) -> usize {
        let partition = self.random.index(self.logs.len());
        self.note(fault, || format!("partition {partition}"));
        partition
    }

    /// A moment after now, but no later than the end of the faults.
    pub(super) fn later_us(&mut self, least_us: u64, most_us: u64) -> u64 {
        let after_us = self.random.between(least_us, most_us);
        let end_us = self.plan.quiet_from_us.max(self.now_us);
        (self.now_us + after_us).min(end_us)
    }

    fn note(&mut self, fault: Fault, text: impl FnOnce() -> String) {
        *self.counts.faults.entry(fault.name).or_default() += 1;
        self.say(Who::Fault, fault.name, text);
    }

    pub(super) fn inject_into_world(&mut self, fault: Fault) {
        if fault.kind == Kind::Night {
            let minutes = match self.aside.chance(500) {
                true => self.aside.between(1, 30),
                false => self.aside.between(60, 3 * 24 * 60),
            };
            self.note(fault, || format!("{minutes} minutes"));
            self.slept_us += minutes * 60_000_000;
            return;
        }
        self.note(fault, String::new);
        match fault.kind {
            Kind::Disconnect => self.disconnects = true,
            Kind::ProjectorCrash => {
                let projector = self.random.index(self.projectors.len());
                if self.projectors[projector].up {
                    self.projectors[projector].up = false;
                    let at_us = self.later_us(1_000, 1_000_000);
                    self.start_projector_at(at_us, projector);
                }
            }
            Kind::LockLost if !self.projectors[1].up => self.start_projector(1),
            _ => {}
        }
    }

    pub(super) fn inject_into_node(&mut self, fault: Fault) {
        let node = self.random.index(self.nodes.len());
        if !self.nodes[node].up || self.nodes[node].paused_until_us > 0 {
            return;
        }
        self.note(fault, || format!("node {node}"));
        match fault.kind {
            Kind::Crash => self.crash(node),
            Kind::CrashWithLoss => {
                let lose = match self.random.chance(500) {
                    true => LocalStore::lose_last_save,
                    false => LocalStore::lose_all,
                };
                self.nodes[node].stores.iter().for_each(lose);
                self.crash(node);
            }
            Kind::Pause | Kind::Suspension => {
                let until_us = self.later_us(10_000, 4_000_000);
                self.nodes[node].paused_until_us = until_us;
                if fault.kind == Kind::Suspension {
                    self.nodes[node].suspended_from_us = self.now_us;
                }
                self.schedule.at(until_us, move |world| world.resume(node));
                self.notice_gone(node);
            }
            Kind::PlannedStop if self.nodes[node].leaving.is_none() => self.begin_leave(node),
            Kind::SmallClockJump => self.jump(node, 1, 55),
            Kind::LargeClockJump => {
                let most_s = [600, 3 * 86_400][self.aside.index(2)];
                self.jump(node, 61, most_s);
            }
            Kind::ProducerFails => self.fail_producer(self.nodes[node].producer, 3_000_000),
            Kind::QueueFull => {
                self.nodes[node].queue_full_until_us = self.later_us(10_000, 1_000_000);
            }
            Kind::HeldAppends => {
                self.nodes[node].appends_held_until_us = self.later_us(10_000, 4_000_000);
            }
            Kind::StoreAway => {
                let until_us = self.later_us(10_000, 8_000_000);
                self.nodes[node].store_away_until_us = until_us;
                let stores = &self.nodes[node].stores;
                stores.iter().for_each(|store| store.set_away(true));
                self.schedule.at(until_us, move |world| {
                    let node = &world.nodes[node];
                    // It may have failed once more since.
                    if node.store_away_until_us <= world.now_us {
                        node.stores.iter().for_each(|store| store.set_away(false));
                    }
                });
            }
            _ => {}
        }
    }

    fn jump(&mut self, node: usize, least_s: u64, most_s: u64) {
        let off_us = (self.random.between(least_s, most_s) * 1_000_000).cast_signed();
        let forward = self.random.chance(500);
        self.nodes[node].clock_off_us = if forward { off_us } else { -off_us };
    }

    pub(super) fn inject_into_log(&mut self, fault: Fault) {
        let partition = self.any_partition(fault);
        let until_us = self.later_us(20_000, 4_000_000);
        let soon_us = self.later_us(20_000, 1_000_000);
        match fault.kind {
            Kind::SlowAcknowledgements => self.slow_acknowledgements_until_us = until_us,
            Kind::NoOffsets => self.no_offsets_until_us = soon_us,
            Kind::DuplicateRecord => self.duplicate_next = true,
            Kind::Imitation => self.imitate_next = true,
            Kind::SlowLog => self.logs[partition].slow_until_us = until_us,
            Kind::LogAway => self.logs[partition].away_until_us = soon_us,
            Kind::ForeignRecord => {
                let record = NewRecord {
                    key: None,
                    value: Some(Bytes::from_static(b"hello")),
                    headers: [(&[0xff], None::<&[u8]>)].into_iter().collect(),
                };
                self.append_to_log(partition, record);
            }
            Kind::SkippedOffset => self.logs[partition].skip(),
            Kind::LeaderChange => self.logs[partition].epoch += 1,
            _ => {}
        }
    }

    pub(super) fn inject_into_group(&mut self, fault: Fault) {
        let partition = self.any_partition(fault);
        let nodes = self.nodes.len();
        let (one, other) = (self.random.index(nodes), self.random.index(nodes));
        match fault.kind {
            Kind::Churn => self.assign(partition, vec![one]),
            Kind::Nobody => {
                self.assign(partition, Vec::new());
                let at_us = self.later_us(100_000, 2_000_000);
                self.schedule.at(at_us, Self::share);
            }
            Kind::TwoBelieve => {
                self.assign(partition, vec![one, other]);
                let at_us = self.later_us(100_000, 3_000_000);
                self.schedule.at(at_us, Self::share);
            }
            Kind::WrongHint => {
                let term = self.histories[partition].term;
                // Outdated hints, hints that were never true, and hints of another log.
                let term = match self.random.chance(500) {
                    true => self.random.below(term.0),
                    false => term.0 + self.random.between(1, 1_000_000),
                };
                let mut hint = self.hint(one, term);
                if self.random.chance(200) {
                    hint.log = LogId(Uuid::from_u128(1));
                }
                self.group.directory[partition] = self.random.chance(500).then(|| hint.clone());
                if self.nodes[other].up {
                    self.tell_hint(self.now_us, other, partition, hint);
                }
            }
            _ => {}
        }
    }

    fn hint(&self, node: usize, term: u64) -> Hint {
        Hint {
            log: self.log_id,
            term: Term(term),
            node: format!("node-{node}"),
            address: address(node),
        }
    }

    pub(super) fn inject_into_net(&mut self, fault: Fault) {
        let nodes = self.nodes.len();
        let (one, other) = (self.random.index(nodes), self.random.index(nodes));
        let partition = self.random.index(self.logs.len());
        match fault.kind {
            Kind::LinkCut => {
                let open = self.open_links(|_| true);
                if open.is_empty() {
                    return;
                }
                let number = open[self.random.index(open.len())];
                let which = self.random.index(3);
                self.note(fault, || ["requests", "answers", "both"][which].to_owned());
                let link = self.links.get_mut(&number).expect("it is open");
                if which != 1 {
                    link.forth.cut_us = self.now_us;
                }
                if which != 0 {
                    link.back.cut_us = self.now_us;
                }
                let at_us = self.later_us(500, 1_500_000);
                self.break_link(number, at_us);
            }
            Kind::OneWayPartition if one != other => {
                self.note(fault, || format!("from node {one} to node {other}"));
                self.blocked[one][other] = self.later_us(100_000, 4_000_000);
                let ends = [(one, other), (other, one)];
                for number in self.open_links(|link| ends.contains(&link.ends())) {
                    if self.random.chance(700) {
                        let at_us = self.later_us(300_000, 1_200_000);
                        self.break_link(number, at_us);
                    }
                }
            }
            Kind::SlowNetwork => {
                self.note(fault, String::new);
                self.slow_network_until_us = self.later_us(200_000, 3_000_000);
            }
            Kind::StrayHandOver | Kind::StrayTakeOver if self.nodes[one].up => {
                self.note(fault, || format!("node {one} partition {partition}"));
                let from = self.process_of(other);
                let reply = Ask { from, number: 0 };
                let successor = self.hint(other, self.histories[partition].term.0 + 1);
                let control = match fault.kind {
                    Kind::StrayTakeOver => Control::TakeOver { reply },
                    _ => Control::HandOver { successor, reply },
                };
                self.tell_control(self.now_us, one, partition, control);
            }
            _ => {}
        }
    }

    fn open_links(&self, are_meant: impl Fn(&Link) -> bool) -> Vec<u64> {
        let links = self.links.iter();
        let open = links.filter(|(_, link)| link.open && are_meant(link));
        open.map(|(number, _)| *number).collect()
    }

    /// Ends a node's process without warning.
    fn crash(&mut self, node: usize) {
        self.notice_gone(node);
        self.end_process(node);
    }

    /// Applies the end of a process to everything around it; the node starts again after a while.
    pub(super) fn end_process(&mut self, node: usize) {
        let now_us = self.now_us;
        self.say(Who::Node(node), "is gone", String::new);
        self.fail_producer(self.nodes[node].producer, 3_000_000);
        let gone = &mut self.nodes[node];
        gone.up = false;
        gone.paused_until_us = 0;
        gone.suspended_from_us = 0;
        gone.backlog.clear();
        gone.tasks.clear();
        gone.handlers.clear();
        gone.waiting.clear();
        gone.served.clear();
        gone.asks.clear();
        gone.leaving = None;
        let concerned = |link: &Link| link.ends().0 == node || link.ends().1 == node;
        for number in self.open_links(concerned) {
            let link = self.links.get_mut(&number).expect("it is open");
            if link.ends().0 == node {
                self.close_link(number);
            } else {
                link.forth.cut_us = now_us;
                let at_us = now_us + self.random.between(100, 1_000_000);
                self.break_link(number, at_us);
            }
        }
        for (&number, connection) in self.connections.iter().filter(|(_, c)| c.node == node) {
            let at_us = now_us + self.random.between(100, 50_000);
            let client = connection.client;
            let lost = move |world: &mut Self| world.lost(client, number, Loss::Broken);
            self.schedule.at(at_us, lost);
        }
        let at_us = self.later_us(20_000, 3_000_000);
        self.schedule.at(at_us, move |world| world.start_node(node));
    }

    pub(super) fn cut(&mut self) {
        let partition = self.random.index(self.logs.len());
        let count = 1 + self.random.index(10);
        let end = self.logs[partition].cut(count);
        self.was_cut = true;
        let said = || format!("partition {partition} ends at offset {end} now");
        self.say(Who::Fault, "records are cut off", said);
        let records = &self.logs[partition].records;
        self.histories[partition] = self.histories[partition].read_again(records, &self.asked);
        self.counts.cuts += 1;
    }
}
