//! Server-sent events: a part of a page, made anew every few seconds while a browser looks at it.
//!
//! Invariants: at most [`crate::LISTENERS_MAX`] browsers are followed; a part that has not changed is
//! not sent again; a stream ends when the console closes, and after [`STREAM_MAX`], so that no
//! connection is held for ever (a browser asks again by itself). Deliberately absent: the parts.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use maud::Markup;

use crate::LOOK_EVERY;
use crate::visit::Visit;

/// How long one stream lasts.
const STREAM_MAX: Duration = Duration::from_secs(120);
/// When a browser asks again after a stream has ended, in milliseconds.
const AGAIN_MS: u64 = 2_000;

/// A stream of what `part` makes.
pub(crate) fn stream<F, R>(visit: Visit, part: F) -> Response
where
    F: Fn(Visit) -> R + Send + 'static,
    R: Future<Output = Markup> + Send,
{
    let console = visit.console.clone();
    let Ok(()) = console
        .0
        .listeners
        .try_acquire()
        .map(tokio::sync::SemaphorePermit::forget)
    else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let follower = Follower {
        place: Place(console),
        until: tokio::time::Instant::now() + STREAM_MAX,
        shown: None,
        visit,
        part,
    };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok::<Bytes, Infallible>(event), follower))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

/// One of the places for listeners, until it is dropped.
struct Place(crate::Console);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.listeners.add_permits(1);
    }
}

struct Follower<F> {
    place: Place,
    until: tokio::time::Instant,
    /// The part as it was sent last.
    shown: Option<String>,
    visit: Visit,
    part: F,
}

impl<F, R> Follower<F>
where
    F: Fn(Visit) -> R,
    R: Future<Output = Markup>,
{
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut closing = self.place.0.0.closing.subscribe();
        if self.shown.is_none() {
            // The page has just been made: only say how to come back.
            self.shown = Some(String::new());
            return Some(Bytes::from(format!("retry: {AGAIN_MS}\n\n")));
        }
        loop {
            let next = tokio::time::Instant::now() + LOOK_EVERY;
            if next > self.until {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                _ = closing.wait_for(|closing| *closing) => return None,
            }
            let mut visit = self.visit.clone();
            visit.node.routes = visit.console.routes();
            let part = (self.part)(visit).await.into_string();
            if self.shown.as_deref() != Some(&*part) {
                let event = event(&part);
                self.shown = Some(part);
                return Some(event);
            }
        }
    }
}

/// A part as one event: each of its lines is a line of data.
fn event(part: &str) -> Bytes {
    let mut text = String::with_capacity(part.len() + 64);
    for line in part.lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    Bytes::from(text)
}
