//! An owner whose local store fails: it waits for the store, folds the log without it, or gives the
//! partition up if memory has no room for the unsaved data.
//!
//! Deliberately absent: what failed in the store (`memory`), and when the store is tried again
//! (`settle`).

use std::fmt::Display;

use kernel::explained;

use super::{Owner, Phase};
use crate::owner::NotOwning;

/// How often a partition may be given up. Each time but the last, it is taken again once the store
/// takes a trial write as large as the unsaved data. The last time is final, because then the store
/// does not lack room.
const GIVEN_UP_MAX: u32 = 2;

/// What the local store refused since it last took something of this partition.
#[derive(Clone, Debug, Default)]
pub(in crate::owner) struct Refusals {
    /// The latest error.
    pub(super) reason: Option<String>,
    /// How often the partition was given up because of it.
    pub(super) given_up: u32,
    /// How much unsaved data there was at the last of these times, in bytes.
    pub(super) bytes: usize,
}

/// How often in a row the local checkpoint may fail before the log is folded without it.
const STORE_FAILURES_MAX: u32 = 20;

impl<T> Owner<T> {
    /// Gives the partition up until the local store takes something: memory has no room for more
    /// unsaved data. The owner first waits for what is in flight.
    pub(super) fn abandon(&mut self) {
        if !std::mem::replace(&mut self.without_room, true) {
            self.refusals.given_up += 1;
            self.refusals.bytes = self.memory.unsaved_bytes();
            let partition = self.reader.chain.partition;
            tracing::error!(%partition, "the partition is given up: {}", self.without_store());
        }
        match &self.phase {
            Phase::Stopped(_) => {}
            Phase::Owning | Phase::Doubt | Phase::Claiming { .. } => self.letting_go = true,
            _ if self.must_settle() => self.letting_go = true,
            _ => self.await_room(),
        }
    }

    /// Whether the store takes trial writes as large as the unsaved data, but never the data
    /// itself. If the owner took the partition again, the same would happen again.
    pub(super) fn is_refused_for_good(&self) -> bool {
        self.without_room && self.refusals.given_up >= GIVEN_UP_MAX
    }

    /// Why the partition is given up over its store.
    pub(super) fn without_store(&self) -> NotOwning {
        match &self.refusals.reason {
            Some(reason) if self.is_refused_for_good() => NotOwning::StoreRefuses(reason.clone()),
            _ => NotOwning::NoRoom,
        }
    }

    pub(super) fn await_room(&mut self) {
        self.release();
        self.memory.drop_all();
        self.reader.stop();
        self.phase = Phase::AwaitingStore { retry_at_ms: None };
    }

    /// Goes back to the local checkpoint, or to the first record if that checkpoint is not
    /// understood: nothing may be decided on what memory holds.
    pub(super) fn go_back(&mut self) {
        if self.memory.may_read_again() {
            self.await_store(&"it could not be read");
        } else {
            self.start_over();
        }
    }

    /// Waits for the local checkpoint; after too many failures in a row, folds the log without it.
    pub(super) fn await_store(&mut self, reason: &dyn Display) {
        let partition = self.reader.chain.partition;
        match self.store_failures {
            0 => tracing::warn!(%reason, %partition, "waiting for the local checkpoint store"),
            _ => {
                tracing::debug!(%reason, %partition, "still waiting for the local checkpoint store")
            }
        }
        self.store_failures += 1;
        if self.store_failures > STORE_FAILURES_MAX && !self.without_room {
            tracing::warn!(%partition, "folding the log without the local checkpoint store");
            return self.start_over();
        }
        self.release_unless_mine();
        self.reader.stop();
        self.phase = Phase::AwaitingStore { retry_at_ms: None };
    }

    /// Releases the commands that wait for the local store, if other nodes are to decide them.
    pub(super) fn release_unless_mine(&mut self) {
        if !self.may_claim() && !self.must_settle() {
            self.release();
        }
    }

    /// Goes on from the local checkpoint if it can be read by now.
    pub(super) fn try_store(&mut self) {
        if self.without_room {
            if let Err(error) = self.memory.try_store(self.refusals.bytes) {
                return self.await_store(&explained(&error));
            }
            tracing::info!(partition = %self.reader.chain.partition, "the local checkpoint store has room again");
            self.without_room = false;
            self.store_failures = 0;
        }
        match self.memory.load() {
            Ok(saved) if !self.may_go_on_from(saved.as_ref()) => self.start_over(),
            Ok(saved) => {
                self.go_to(saved.map(|saved| saved.place));
                self.resume();
            }
            Err(error) => self.await_store(&explained(&error)),
        }
    }
}
