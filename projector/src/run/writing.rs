//! The one transaction of a task that may be running. It runs on a task of its own, so that the
//! next batch is read and folded meanwhile.
//!
//! Invariant: a transaction begins only after the one before it is known to be durable.
//! Deliberately absent: what a transaction writes (`write`), and what follows from a failure
//! (`lane`).

use std::sync::Arc;
use std::time::Instant;

use event_log::subscription::Batch;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::store::generation::Generation;
use crate::store::write::{self, Folded, Way, WriteError};

/// Some batches, and what was folded from them.
pub(crate) struct Work {
    pub(crate) batches: Vec<Batch>,
    pub(crate) folds: Vec<Folded>,
    pub(crate) began: Instant,
}

impl Work {
    /// Tells the traces of its commits that the transaction is durable.
    pub(crate) fn trace(&self, generations: &[Generation]) {
        if !spans::are_on() {
            return;
        }
        let name = |fold: &Folded| generations[fold.index].projection.name();
        let names = || self.folds.iter().map(name).collect::<Vec<_>>().join(",");
        let commits = self.batches.iter().flat_map(|batch| &batch.commits);
        let traceparents = commits
            .clone()
            .filter_map(|placed| placed.commit.trace.as_deref());
        spans::project(self.began, names, commits.count(), traceparents);
    }
}

/// The result of a transaction.
pub(crate) struct Written {
    pub(crate) work: Work,
    pub(crate) outcome: Result<(), WriteError>,
}

/// An idle connection, or the running transaction that uses it.
pub(crate) struct Writing {
    generations: Arc<[Generation]>,
    way: Way,
    idle: Option<PgConnection>,
    under_way: JoinSet<(PgConnection, Way, Written)>,
}

impl Writing {
    pub(crate) fn new(connection: PgConnection, generations: &Arc<[Generation]>, way: Way) -> Self {
        Self {
            generations: Arc::clone(generations),
            way,
            idle: Some(connection),
            under_way: JoinSet::new(),
        }
    }

    /// Begins a transaction. The transaction before it must be [`Self::done`].
    pub(crate) fn begin(&mut self, work: Work) {
        let mut connection = self.idle.take().expect("one transaction at a time");
        let (generations, mut way) = (Arc::clone(&self.generations), self.way);
        self.under_way.spawn(async move {
            let outcome = loop {
                match write::write(&mut connection, &generations, &work, way).await {
                    Err(WriteError::Repeated) => way = Way::Merge,
                    outcome => break outcome,
                }
            };
            (connection, way, Written { work, outcome })
        });
    }

    /// Waits for the running transaction and returns its result; absent if none is running.
    /// Cancelling the call loses nothing.
    pub(crate) async fn done(&mut self) -> Option<Written> {
        let (connection, way, written) = match self.under_way.join_next().await? {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.idle = Some(connection);
        self.way = way;
        Some(written)
    }

    /// The connection, with its locks; absent while a transaction runs.
    pub(crate) fn idle(&mut self) -> Option<&mut PgConnection> {
        self.idle.as_mut()
    }

    /// Closes the connection, which releases its locks.
    pub(crate) async fn close(self) {
        if let Some(connection) = self.idle {
            let _ = connection.close().await;
        }
    }
}
