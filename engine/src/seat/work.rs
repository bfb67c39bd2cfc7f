//! A seat at work in a real node: its driver, with the node's effects.
//!
//! Deliberately absent: on whose thread this happens (`desk`).

use std::sync::Arc;
use std::time::Instant;

use event_log::directory::DirectoryEntries;
use event_log::log::EventLog;
use event_log::record::RECORD_VERSION_FIRST;
use position::{Offset, Partition};
use tokio::sync::oneshot;

use super::Seat;
use super::desk::WayToDesk;
use super::driver::{Control, Driver, Effects as _};
use super::effects::NodeEffects;
use super::shared::{Queues, Shared};
use super::ticket::{ClientTicket, PeerTicket};
use crate::owner::Lists;

/// What a node's seat is asked by other nodes, apart from commands. The reply says whether this node
/// owned (a hand-over) or owns (a take-over).
pub(crate) type NodeControl = Control<oneshot::Sender<bool>>;

/// A seat's driver and what it works on.
pub(super) struct Work {
    // Dropped first: who looks finds that nobody owns before the seat's clients are let go.
    effects: NodeEffects,
    driver: Driver<ClientTicket, PeerTicket, oneshot::Sender<bool>>,
    /// When the task looks again by itself.
    planned: Instant,
    is_stopping: bool,
}

impl Work {
    pub(super) fn new(
        seat: Seat<ClientTicket, PeerTicket>,
        shared: Shared,
        queues: Queues,
        desk: WayToDesk,
    ) -> Self {
        Self {
            effects: NodeEffects::new(seat.partition(), shared, queues, desk),
            driver: Driver::new(seat),
            planned: Instant::now(),
            is_stopping: false,
        }
    }

    /// Says that a defect has ended this partition's part of the node.
    pub(super) fn end_by_defect(&mut self) {
        self.effects.end_by_defect();
    }

    pub(super) fn partition(&self) -> Partition {
        self.driver.seat().partition()
    }

    pub(super) fn log(&self) -> (Arc<dyn EventLog>, Partition) {
        (Arc::clone(&self.effects.shared.log), self.partition())
    }

    /// Takes what is there, and shows what came of it; `false` once nobody can send commands any more.
    pub(super) fn turn(&mut self) -> bool {
        self.driver.turn(&mut self.effects);
        self.answer_questions();
        self.effects.publish(self.driver.seat());
        self.effects.is_open()
    }

    pub(super) fn answer_questions(&mut self) {
        self.effects.answer_questions(self.driver.seat());
    }

    /// How much of this seat's is on its way or waits.
    pub(super) fn load(&self) -> usize {
        self.driver.load()
    }

    pub(super) fn has_more(&self) -> bool {
        self.effects.has_more(self.driver.seat())
    }

    /// Whether the task has something to do before the moment that it waits for.
    pub(super) fn needs_task(&self) -> bool {
        let wakes_at = self.effects.wakes_at(self.driver.seat());
        self.has_more()
            || wakes_at.is_some_and(|at| at < self.planned)
            || (self.is_stopping && self.is_done())
    }

    /// Notes when the task looks again by itself, at `latest` in any case, and says so.
    pub(super) fn plan(&mut self, latest: Instant) -> Instant {
        let wakes_at = self.effects.wakes_at(self.driver.seat());
        self.planned = wakes_at.map_or(latest, |at| at.min(latest));
        self.planned
    }

    /// Begins with the first record that the log keeps.
    pub(super) fn start(&mut self, first_offset: Offset, assigned: bool) {
        self.driver.start(first_offset, assigned, &self.effects);
    }

    pub(super) fn assign(&mut self, assigned: bool) {
        self.driver.assign(assigned, self.effects.now());
    }

    pub(super) fn control(&mut self, control: NodeControl) {
        self.driver.control(control, &mut self.effects);
    }

    /// Looks into the directory for who owns this partition, and what the nodes can read.
    pub(super) fn look_up(&mut self, known: &DirectoryEntries) {
        let now = self.effects.shared.log_clock.now();
        let in_group = self.effects.shared.in_group;
        let hint = known.owners.get(&self.partition()).cloned();
        // The directory is published whole: nobody in it means that it has not been read yet.
        let unheard = in_group.then_some(RECORD_VERSION_FIRST);
        let version = known.read_by_all(now).or(unheard);
        let lists = match in_group {
            false => Lists::Alone,
            true => known.lists(now).map_or(Lists::Unheard, Lists::Of),
        };
        let now = self.effects.now();
        self.driver.look_up(hint, version, lists, now);
    }

    pub(super) fn tick(&mut self) {
        self.driver.tick(&mut self.effects);
    }

    /// Decides nothing more that was not begun.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.driver.stop();
    }

    /// Whether everything that was begun is over, after a stop.
    pub(super) fn is_done(&self) -> bool {
        self.driver.seat().is_done()
    }

    /// Turns away what still waits.
    pub(super) fn end(&mut self) {
        self.effects.close();
        self.driver.end(&mut self.effects);
        self.answer_questions();
        self.effects.publish(self.driver.seat());
    }

    pub(super) fn is_save_due(&self, it_is_time: bool) -> bool {
        self.driver.seat().is_save_due(it_is_time)
    }

    pub(super) fn save(&mut self) {
        self.driver.save();
    }
}
