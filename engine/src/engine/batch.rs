//! Commands that were sent together: in order per stream, none attempted behind one that had no
//! answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Held, Inner, Load, Pending, Prepared, Sender, Share, wrap};
use crate::command::TurnedAway;
use crate::commit::stream_key;
use crate::seat::{Guard, turned_away};

/// How many streams' guards are kept before those that nobody needs are dropped.
const GUARDS_MAX: usize = 16_384;

/// Commands that were sent together.
pub struct Batch {
    inner: Arc<Inner>,
    sender: Sender,
    share: Share,
    guards: HashMap<Bytes, Arc<Guard>>,
}

impl Batch {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            sender: inner.sender(),
            share: Share::default(),
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
        let size = command.submission.size();
        let tenant = request.tenant.clone();
        let load = Load {
            sender: self.sender,
            tenant: &tenant,
            bytes: size,
        };
        let (inner, kind) = (Arc::clone(&self.inner), command.kind);
        let queued = async {
            let part = self.inner.room.take(&self.share, size).await;
            let (command, waiting) = wrap(
                command.submission,
                Some(Arc::clone(&guard)),
                None,
                deadline,
                part,
            );
            let place = ways.commands.push(load, command).await;
            place.map(|place| (place, waiting))
        };
        let queued = tokio::time::timeout_at(deadline.into(), queued).await;
        let reason = match queued {
            Ok(Ok((place, mut waiting))) => {
                waiting.hold(Held::new(
                    Arc::clone(&ways.commands),
                    ways.desk.way(),
                    place,
                ));
                // The next command is prepared meanwhile.
                ways.desk.call();
                return Box::pin(async move {
                    let result = waiting.answer(deadline).await;
                    inner.counts.note(kind, &result);
                    result
                });
            }
            Ok(Err(why)) => why.into(),
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
