//! A seat at work in a real node: its driver, with the node's effects.
//!
//! Deliberately absent: the choice of the thread (`desk`).

use std::sync::Arc;
use std::time::Instant;

use event_log::directory::DirectoryEntries;
use event_log::record::RECORD_VERSION_FIRST;
use tokio::sync::{oneshot, watch};

use super::desk::WayToDesk;
use super::driver::{Control, Driver, Effects as _};
use super::effects::NodeEffects;
use super::shared::{Queues, Shared, Status};
use super::{Seat, SentByClient, SentByPeer};
use crate::owner::Lists;

pub(crate) type NodeSeat = Seat<SentByClient, SentByPeer>;
/// A request of another node, apart from commands. The reply says whether this node owned the
/// partition (a hand-over) or owns it (a take-over).
pub(crate) type NodeControl = Control<oneshot::Sender<bool>>;

/// A seat's driver and what it works on.
pub(super) struct Work {
    // Dropped first: others see that nobody owns before the seat's clients are let go.
    pub(super) effects: NodeEffects,
    pub(super) driver: Driver<SentByClient, SentByPeer, oneshot::Sender<bool>>,
    /// When the task looks again by itself.
    planned: Instant,
}

impl Work {
    pub(super) fn new(
        seat: NodeSeat,
        shared: Shared,
        (queues, status): (Arc<Queues>, watch::Sender<Status>),
        desk: WayToDesk,
    ) -> Self {
        Self {
            effects: NodeEffects::new(seat.partition(), shared, (queues, status), desk),
            driver: Driver::new(seat),
            planned: Instant::now(),
        }
    }

    /// Does what there is to do; `false` once no commands can come any more.
    pub(super) fn turn(&mut self) -> bool {
        self.driver.turn(&mut self.effects);
        self.publish();
        self.effects.is_open()
    }

    /// Answers questions, and publishes the seat's state.
    fn publish(&mut self) {
        self.effects.answer_questions(self.driver.seat());
        self.effects.publish(self.driver.seat());
    }

    /// Whether something waits for which the seat has room.
    pub(super) fn has_more(&self) -> bool {
        self.effects.has_more(self.driver.seat())
    }

    /// Whether the task has something to do before the moment that it waits for.
    pub(super) fn needs_task(&self) -> bool {
        let seat = self.driver.seat();
        let wakes_at = self.effects.wakes_at(seat);
        self.has_more() || wakes_at.is_some_and(|at| at < self.planned) || seat.is_done()
    }

    /// Decides when the task looks again by itself: at `latest` in any case.
    pub(super) fn plan(&mut self, latest: Instant) -> Instant {
        let wakes_at = self.effects.wakes_at(self.driver.seat());
        self.planned = wakes_at.map_or(latest, |at| at.min(latest));
        self.planned
    }

    /// Takes from the directory who owns this partition, and what the nodes can read.
    pub(super) fn look_up(&mut self, known: &DirectoryEntries) {
        let now = self.effects.shared.log_clock.now();
        let in_group = self.effects.shared.in_group;
        // The directory is published whole: nobody in it means that it has not been read yet.
        let unheard = in_group.then_some(RECORD_VERSION_FIRST);
        let version = known.read_by_all(now).or(unheard);
        let lists = match in_group {
            false => Lists::Alone,
            true => known.lists(now).map_or(Lists::Unheard, Lists::Of),
        };
        let now = self.effects.now();
        let seat = self.driver.seat_mut();
        seat.owner_mut().set_read_by_all(version);
        seat.owner_mut().set_lists(lists, now);
        if let Some(hint) = known.owners.get(&seat.partition()) {
            seat.learn(hint.clone(), now);
        }
    }

    /// Turns away the commands that still wait, before the end.
    pub(super) fn end(&mut self) {
        self.effects.queues.close();
        self.driver.end(&mut self.effects);
        self.publish();
    }
}
