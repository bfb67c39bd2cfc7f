//! Batches: commands that were sent together. Per stream they keep their order, and no command is
//! attempted after one that had no answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use event_log::commit::stream_key;

use super::{Inner, Pending, Prepared, Sender, Share, sides};
use crate::command::{TurnedAway, turned_away};
use crate::seat::Guard;

/// How many streams a batch remembers before it forgets those that need nothing remembered.
const STREAMS_MAX: usize = 16_384;
/// How many of these streams may have a command without an answer.
const UNANSWERED_MAX: usize = STREAMS_MAX / 2;

/// Commands that were sent together.
pub struct Batch {
    inner: Arc<Inner>,
    sender: Sender,
    share: Share,
    guards: Guards,
}

/// The streams of a batch that must be remembered.
#[derive(Default)]
struct Guards {
    by_stream: HashMap<Bytes, Arc<Guard>>,
    /// At how many streams the unneeded ones are next removed: twice as many as were needed last
    /// time. So the cost per command is constant, however many streams are under way.
    swept_at: usize,
    /// Whether so many streams had no answer that no more are remembered.
    is_full: bool,
}

impl Batch {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            sender: inner.sender(),
            share: Share::default(),
            inner,
            guards: Guards::default(),
        }
    }

    /// Queues a command. Waits while the partition's queue is full, but no longer than until
    /// `deadline`.
    ///
    /// After a command that was answered unknown or turned away, later commands of the same stream
    /// are not attempted and are turned away.
    pub async fn submit(&mut self, command: Prepared, deadline: Instant) -> Pending {
        let request = &command.submission.request;
        let guard = self.guards.of(stream_key(&request.tenant, &request.stream));
        if guard.is_closed() {
            let error = turned_away(TurnedAway::AfterUnanswered);
            return Box::pin(std::future::ready(Err(error)));
        }
        let desk = self.inner.desk(command.partition);
        let size = command.submission.size();
        let tenant = request.tenant.clone();
        let (inner, kind) = (Arc::clone(&self.inner), command.kind);
        let queued = async {
            let under_way = self.inner.yielding.begin().await;
            let part = self.inner.room.take(&self.share, size).await;
            let (sent, waiting) = sides(Some(Arc::clone(&guard)), deadline, None, Some(part));
            let sent = sent.traced(command.walk);
            let command = (Box::new((command.submission, sent)), waiting);
            let waiting = desk
                .queues
                .commands
                .push((self.sender, &tenant), command)
                .await;
            waiting.map(|waiting| (waiting, under_way))
        };
        let queued = tokio::time::timeout_at(deadline.into(), queued).await;
        let reason = match queued {
            Ok(Ok((waiting, under_way))) => {
                // The next command can be prepared meanwhile.
                desk.call();
                return Box::pin(async move {
                    let result = waiting.answer_until(deadline).await.unwrap_or_else(Err);
                    under_way.answered();
                    inner.counts.note(kind, &result);
                    result
                });
            }
            Ok(Err(why)) => why.into(),
            Err(_) => TurnedAway::Overloaded,
        };
        guard.close();
        Box::pin(std::future::ready(Err(turned_away(reason))))
    }
}

impl Guards {
    /// The guard of a stream. Once no more unanswered streams can be remembered, the guard of every
    /// new stream is closed: its commands are not attempted.
    fn of(&mut self, stream: Bytes) -> Arc<Guard> {
        if let Some(guard) = self.by_stream.get(&stream) {
            return Arc::clone(guard);
        }
        if !self.is_full && self.by_stream.len() >= self.swept_at.max(STREAMS_MAX) {
            let mut unanswered = 0;
            self.by_stream.retain(|_, guard| {
                let is_unanswered = guard.is_closed();
                unanswered += usize::from(is_unanswered);
                // An open guard that only this map holds is no longer needed.
                is_unanswered || Arc::strong_count(guard) > 1
            });
            self.swept_at = 2 * self.by_stream.len();
            self.is_full = unanswered > UNANSWERED_MAX;
        }
        if self.is_full {
            return Arc::new(Guard::new_closed());
        }
        Arc::clone(self.by_stream.entry(stream).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: usize) -> Bytes {
        number.to_string().into()
    }

    #[test]
    fn a_batch_remembers_so_many_streams_without_an_answer_and_attempts_no_others_then() {
        let mut guards = Guards::default();
        for number in 0..10 * STREAMS_MAX {
            guards.of(stream(number)).close();
        }
        assert!(guards.by_stream.len() <= STREAMS_MAX);
        for number in [0, STREAMS_MAX, 20 * STREAMS_MAX] {
            assert!(guards.of(stream(number)).is_closed(), "{number}");
        }
    }

    #[test]
    fn a_batch_goes_on_over_any_number_of_streams_that_are_answered() {
        let mut guards = Guards::default();
        guards.of(stream(0)).close();
        for number in 1..10 * STREAMS_MAX {
            assert!(!guards.of(stream(number)).is_closed(), "{number}");
        }
        assert!(guards.by_stream.len() <= STREAMS_MAX);
        assert!(guards.of(stream(0)).is_closed());
    }

    #[test]
    fn however_many_streams_are_under_way_others_are_attempted() {
        let mut guards = Guards::default();
        let under_way: Vec<Arc<Guard>> = (0..10 * STREAMS_MAX)
            .map(|number| guards.of(stream(number)))
            .collect();
        assert!(under_way.iter().all(|guard| !guard.is_closed()));
        drop(under_way);
        for number in 0..30 * STREAMS_MAX {
            guards.of(stream(number));
        }
        assert!(
            guards.by_stream.len() <= 2 * STREAMS_MAX,
            "they are forgotten"
        );
    }
}
