//! The versions of rows that commits leave: for each partition, what its commits made of a row.
//!
//! Contributions of different partitions to one row arrive in any order. So a version holds what the
//! commits of *one* partition, in their order, made of the row; the row as of a moment is what its
//! last versions of all partitions up to that moment merge to. No version has to be changed because
//! another partition was slower.
//!
//! Invariant: a version holds everything that its partition's commits in the batch contributed up to
//! it; what they had contributed before the batch is merged in when it is written (`store::history`).
//! Deliberately absent: the present rows (`changes`), SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::{StreamName, Timestamp};
use position::{Partition, Position};

use crate::declare::history::History;
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::nothing;

/// A version of a row.
#[derive(Clone, Debug)]
pub(crate) struct RowVersion {
    pub(crate) key: Arc<[Value]>,
    pub(crate) place: Place,
    pub(crate) cells: Box<[Cell]>,
    /// Whether it is the first one that the batch leaves of the row in its partition.
    pub(crate) is_first: bool,
    /// Whose the row is, in a table whose rows belong to one stream each.
    pub(crate) life: Option<VersionLife>,
}

/// What became of a row that belongs to one stream.
#[derive(Clone, Debug)]
pub(crate) struct VersionLife {
    pub(crate) owner: StreamName,
    /// Whether the row began anew in the batch, so that what was before does not count.
    pub(crate) is_reset: bool,
    pub(crate) is_gone: bool,
}

/// The commit that left a version, and from when on it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    pub(crate) at: Timestamp,
    pub(crate) position: Position,
}

/// What the commits of one partition made of a row so far.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    partition: Partition,
    pub(super) cells: Box<[Cell]>,
    life: Option<VersionLife>,
    /// The last commit that touched the row.
    touched: Position,
    /// Its last version.
    last: Option<usize>,
}

/// All rows of a stream went away.
#[derive(Clone, Debug)]
pub(crate) struct Cleared {
    pub(crate) tenant: Value,
    pub(crate) owner: StreamName,
    pub(crate) place: Place,
}

/// The versions that a batch leaves of the rows of one table.
pub(crate) struct Versions {
    history: History,
    pub(crate) versions: Vec<RowVersion>,
    /// The streams that removed all of their rows, each with the first time that it did so.
    pub(crate) clears: Vec<Cleared>,
    /// The rows that the present commit touched.
    touched: Vec<Arc<[Value]>>,
    /// The rows that streams got in this batch; a row may stand there that is gone by now.
    owned: BTreeMap<(Value, StreamName), Vec<Arc<[Value]>>>,
}

impl Versions {
    pub(super) fn new(history: History) -> Self {
        Self {
            history,
            versions: Vec::new(),
            clears: Vec::new(),
            touched: Vec::new(),
            owned: BTreeMap::new(),
        }
    }

    fn place(&self, now: Place) -> Place {
        Place {
            at: self.history.seen_from(now.at),
            ..now
        }
    }

    /// The chain of a row in a partition, to which the present commit contributes.
    pub(super) fn chain<'r>(
        &mut self,
        chains: &'r mut Vec<Chain>,
        key: &Arc<[Value]>,
        count: usize,
        now: Place,
        owner: Option<&StreamName>,
    ) -> &'r mut Chain {
        let index = self.touch(chains, key, count, now, owner);
        let chain = &mut chains[index];
        if let (Some(life), Some(owner)) = (&mut chain.life, owner)
            && (life.is_gone || life.owner != *owner)
        {
            *life = VersionLife {
                owner: owner.clone(),
                is_reset: true,
                is_gone: false,
            };
            chain.cells.fill(Cell::Null);
            self.own(key, owner);
        }
        chain
    }

    /// Notes that the row goes away.
    pub(super) fn remove(
        &mut self,
        chains: &mut Vec<Chain>,
        key: &Arc<[Value]>,
        count: usize,
        now: Place,
        owner: &StreamName,
    ) {
        let index = self.touch(chains, key, count, now, Some(owner));
        chains[index].end(owner);
    }

    /// Notes that all rows of a stream go away. Returns those that the batch knows of.
    pub(super) fn clear(
        &mut self,
        tenant: &Value,
        owner: &StreamName,
        now: Place,
    ) -> Vec<Arc<[Value]>> {
        let known = |cleared: &Cleared| cleared.owner == *owner && cleared.tenant == *tenant;
        if !self.clears.iter().any(known) {
            self.clears.push(Cleared {
                tenant: tenant.clone(),
                owner: owner.clone(),
                place: self.place(now),
            });
        }
        let key = (tenant.clone(), owner.clone());
        self.owned.remove(&key).unwrap_or_default()
    }

    /// Notes that one of the rows that [`Self::clear`] returned goes away, if it is still the stream's.
    pub(super) fn cleared(
        &mut self,
        chains: &mut [Chain],
        key: &Arc<[Value]>,
        now: Place,
        owner: &StreamName,
    ) {
        let is_owned = |chain: &&mut Chain| {
            let life = chain.life.as_ref();
            chain.partition == now.partition
                && life.is_some_and(|life| life.owner == *owner && !life.is_gone)
        };
        if let Some(chain) = chains.iter_mut().find(is_owned) {
            chain.end(owner);
            if chain.touched != now.position {
                chain.touched = now.position;
                self.touched.push(Arc::clone(key));
            }
        }
    }

    /// The index of the row's chain in the present commit's partition.
    fn touch(
        &mut self,
        chains: &mut Vec<Chain>,
        key: &Arc<[Value]>,
        count: usize,
        now: Place,
        owner: Option<&StreamName>,
    ) -> usize {
        let found = chains
            .iter()
            .position(|chain| chain.partition == now.partition);
        let index = found.unwrap_or_else(|| {
            let life = owner.map(|owner| {
                self.own(key, owner);
                let was_cleared =
                    |cleared: &Cleared| cleared.owner == *owner && cleared.tenant == key[0];
                VersionLife {
                    owner: owner.clone(),
                    is_reset: self.clears.iter().any(was_cleared),
                    is_gone: false,
                }
            });
            chains.push(Chain {
                partition: now.partition,
                cells: nothing(count),
                life,
                // No commit has this position.
                touched: Position(0),
                last: None,
            });
            chains.len() - 1
        });
        let chain = &mut chains[index];
        if chain.touched != now.position {
            chain.touched = now.position;
            self.touched.push(Arc::clone(key));
        }
        index
    }

    fn own(&mut self, key: &Arc<[Value]>, owner: &StreamName) {
        let of = (key[0].clone(), owner.clone());
        self.owned.entry(of).or_default().push(Arc::clone(key));
    }

    /// The rows that the commit touched, which ends.
    pub(super) fn end(&mut self) -> Vec<Arc<[Value]>> {
        std::mem::take(&mut self.touched)
    }

    /// Leaves a version of one of the rows that [`Self::end`] returned.
    pub(super) fn leave(&mut self, chains: &mut [Chain], key: Arc<[Value]>, now: Place) {
        let is_of = |chain: &&mut Chain| chain.partition == now.partition;
        let Some(chain) = chains.iter_mut().find(is_of) else {
            return;
        };
        let place = self.place(now);
        if let Some(last) = chain.last.map(|last| &mut self.versions[last])
            && self.history != History::Full
            && last.place.at == place.at
        {
            last.place = place;
            last.cells.clone_from(&chain.cells);
            last.life.clone_from(&chain.life);
            return;
        }
        let is_first = chain.last.is_none();
        chain.last = Some(self.versions.len());
        self.versions.push(RowVersion {
            key,
            place,
            cells: chain.cells.clone(),
            is_first,
            life: chain.life.clone(),
        });
    }
}

impl Chain {
    fn end(&mut self, owner: &StreamName) {
        self.cells.fill(Cell::Null);
        self.life = Some(VersionLife {
            owner: owner.clone(),
            is_reset: true,
            is_gone: true,
        });
    }
}
