//! A body whose sender must send something from time to time, or counts as gone.
//!
//! Invariant: a wait for the next chunk ends after the longest allowed silence. Time in which no
//! task waits for a chunk does not count, since nothing was read then. Deliberately absent: the
//! content of chunks.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

/// The chunks of a body, until its end or too long a silence.
pub(super) struct Heard<S> {
    chunks: S,
    silence_max: Duration,
    silence: Pin<Box<Sleep>>,
    is_waiting: bool,
    ended: Option<String>,
}

impl<S> Heard<S> {
    pub(super) fn new(chunks: S, silence_max: Duration) -> Self {
        Self {
            chunks,
            silence_max,
            silence: Box::pin(sleep(silence_max)),
            is_waiting: false,
            ended: None,
        }
    }

    /// Why the body ended early, if it did.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    fn end(&mut self, why: String) -> Option<Result<Bytes, Error>> {
        let error = Error::new(std::io::Error::other(why.clone()));
        self.ended = Some(why);
        Some(Err(error))
    }
}

impl<S, E> Stream for Heard<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error,
{
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended.is_some() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(chunk) = this.chunks.poll_next_unpin(context) {
            this.is_waiting = false;
            return Poll::Ready(match chunk {
                Some(Ok(chunk)) => Some(Ok(chunk)),
                Some(Err(error)) => this.end(explained(&error)),
                None => None,
            });
        }
        if !this.is_waiting {
            this.is_waiting = true;
            this.silence
                .as_mut()
                .reset(Instant::now() + this.silence_max);
        }
        this.silence.as_mut().poll(context).map(|()| {
            let why = format!(
                "the node sent nothing for {} ms",
                this.silence_max.as_millis()
            );
            this.end(why)
        })
    }
}

/// An error's text with those of its sources.
pub(super) fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
