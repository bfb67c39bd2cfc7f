//! Rows by key that several requests want at the same time: one statement reads them together.
//!
//! Invariants: a request that comes while few statements are under way does not wait for others. A
//! row is read after its request came, with the version of that moment, and for the tenant of its
//! request. A statement for several rows that fails, or that finds parked streams, concerns none of
//! them: each is then read by itself, and has its own error. The request whose turn it is reads for
//! those that wait; if it goes away, they read by themselves. Deliberately absent: what the statements
//! are.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use projector::Value;
use sqlx::Row as _;
use sqlx::postgres::PgPool;
use tokio::sync::{Semaphore, oneshot};

use super::shown::ShownModel;
use super::snapshot::{self, Snapshot, Versions};
use super::statement::{HeadForm, SOME_MAX, Statement};

/// How many statements for rows of one read model are under way at most.
const TURNS: usize = 2;

/// A row that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    pub(super) tenant: String,
    pub(super) key: Vec<Value>,
}

/// The requests for rows of one read model.
pub(super) struct Lookups {
    turns: Semaphore,
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    lookup: Lookup,
    answer: oneshot::Sender<Snapshot>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(TURNS),
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a row.
    pub(super) async fn read(
        &self,
        shown: &ShownModel,
        pool: &PgPool,
        versions: &Versions,
        lookup: &Lookup,
    ) -> Result<Snapshot, sqlx::Error> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push_back(Waiting {
            lookup: lookup.clone(),
            answer,
        });
        tokio::select! {
            biased;
            read = &mut answered => {
                if let Ok(snapshot) = read {
                    return Ok(snapshot);
                }
            }
            Ok(_turn) = self.turns.acquire() => {
                // Turns come in the order of the requests, so that this one is among the next.
                let next = self.next();
                if next.len() > 1 {
                    read_together(shown, pool, versions, next).await;
                    if let Ok(snapshot) = answered.try_recv() {
                        return Ok(snapshot);
                    }
                }
                return snapshot::read(pool, versions, &Statement::one(shown, lookup)).await;
            }
        }
        snapshot::read(pool, versions, &Statement::one(shown, lookup)).await
    }

    /// The requests that have waited longest and still wait.
    fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let mut next = Vec::new();
        while next.len() < SOME_MAX
            && let Some(one) = waiting.pop_front()
        {
            if !one.answer.is_closed() {
                next.push(one);
            }
        }
        next
    }
}

/// Reads the rows of some requests. Those that get no answer read by themselves.
async fn read_together(
    shown: &ShownModel,
    pool: &PgPool,
    versions: &Versions,
    requests: Vec<Waiting>,
) {
    let (lookups, answers): (Vec<Lookup>, Vec<_>) = requests
        .into_iter()
        .map(|request| (request.lookup, request.answer))
        .unzip();
    let statement = Statement::some(shown, &lookups);
    let read = snapshot::read_as(pool, versions, &statement, HeadForm::Plain).await;
    let Ok(Snapshot { head, rows }) = read else {
        return;
    };
    if head.version.parked() > 0 {
        return;
    }
    let mut found: Vec<Vec<_>> = lookups.iter().map(|_| Vec::new()).collect();
    for row in rows {
        let Ok(place) = row.try_get::<i64, _>(1) else {
            return;
        };
        // A place beyond the requests is there only to fill the statement up.
        if let Some(found) = usize::try_from(place).ok().and_then(|p| found.get_mut(p)) {
            found.push(row);
        }
    }
    for (answer, rows) in answers.into_iter().zip(found) {
        let head = head.clone();
        // A request that has gone is not told.
        let _ = answer.send(Snapshot { head, rows });
    }
}
