//! Commands that were sent together: in order per stream, none attempted behind one that had no
//! answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Inner, Pending, Prepared, wrap};
use crate::command::TurnedAway;
use crate::commit::stream_key;
use crate::seat::{Guard, turned_away};

/// How many streams' guards are kept before those that nobody needs are dropped.
const GUARDS_MAX: usize = 16_384;

/// Commands that were sent together.
pub struct Batch {
    inner: Arc<Inner>,
    guards: HashMap<Bytes, Arc<Guard>>,
}

impl Batch {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            guards: HashMap::new(),
        }
    }

    /// Queues a command, waiting while the partition's queue is full, but not beyond `deadline`.
    ///
    /// After a command that was answered unknown or turned away, later commands of the same stream
    /// are not attempted and are turned away.
    pub async fn submit(&mut self, command: Prepared, deadline: Instant) -> Pending {
        let request = &command.submission.request;
        let guard = self.guard(stream_key(&request.tenant, &request.stream));
        if let Some(error) = guard.closed() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let ways = &self.inner.partitions[command.partition.0 as usize];
        let queue = &ways.commands;
        let size = command.submission.size();
        let room = async {
            let held = Arc::clone(&self.inner.room).acquire_many_owned(size).await;
            // It is never closed.
            let held = held.ok()?;
            Some((queue.reserve().await.ok()?, held))
        };
        let (inner, kind) = (Arc::clone(&self.inner), command.kind);
        let room = tokio::time::timeout_at(deadline.into(), room).await;
        let reason = match room {
            Ok(Some((permit, held))) => {
                let (message, waiting) =
                    wrap(command.submission, Some(guard), None, deadline, held);
                permit.send(message);
                // The next command is prepared meanwhile.
                ways.desk.call();
                return Box::pin(async move {
                    let result = waiting.answer(deadline).await;
                    inner.counts.note(kind, &result);
                    result
                });
            }
            Ok(None) => TurnedAway::Stopping,
            Err(_) => TurnedAway::Overloaded,
        };
        let error = turned_away(reason);
        guard.close(&error);
        Box::pin(std::future::ready(Err(error)))
    }

    fn guard(&mut self, key: Bytes) -> Arc<Guard> {
        if self.guards.len() >= GUARDS_MAX {
            // A guard that only this map holds and that is open has nothing left to keep.
            self.guards
                .retain(|_, guard| Arc::strong_count(guard) > 1 || guard.closed().is_some());
        }
        Arc::clone(self.guards.entry(key).or_default())
    }
}
