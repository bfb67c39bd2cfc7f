//! Request bodies that arrive and response bodies that are sent.
//!
//! Invariant: a body that comes too slowly ends with [`TooSlow`]. In a batch, each line has this
//! limit of its own, and between two lines a client may be silent as long as between two requests.
//! A large answer keeps its charge until its last byte is with the client. Deliberately absent:
//! what bodies mean.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::limits::Limits;
use super::pace::Pace;
use super::table::{Connection, Cut, Phase, Table, Waited};
use crate::memory::{ALLOWANCE_BYTES, Charge};

/// The error of a body that comes too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl std::fmt::Display for TooSlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body came too slowly")
    }
}

impl std::error::Error for TooSlow {}

impl TooSlow {
    /// Whether this error ended a body.
    #[must_use]
    pub fn is_cause_of(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// A request's body.
pub(super) struct Arriving {
    body: Incoming,
    pace: Pace,
    waited: Waited,
    idle_timeout: Duration,
    /// Whether the body consists of independent lines.
    is_lines: bool,
    is_between_lines: bool,
    has_ended: bool,
    connection: Arc<Connection>,
    table: Arc<Table>,
}

impl Arriving {
    pub(super) fn new(
        body: Incoming,
        headers: &HeaderMap,
        limits: &Limits,
        connection: Arc<Connection>,
        table: Arc<Table>,
    ) -> Self {
        let media_type = headers.get(header::CONTENT_TYPE);
        let is_lines = media_type.is_some_and(|media_type| {
            let lines = b"application/x-ndjson";
            let start = media_type.as_bytes().get(..lines.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(lines))
        });
        Self {
            body,
            pace: Pace::new(limits.stall_timeout, limits.rate_bytes_min),
            waited: Waited::new(limits),
            idle_timeout: limits.idle_timeout,
            is_lines,
            is_between_lines: is_lines,
            has_ended: false,
            connection,
            table,
        }
    }

    fn came(&mut self, data: &[u8]) {
        if self.is_between_lines {
            self.pace.reset();
        }
        self.pace.moved(data.len());
        self.is_between_lines = self.is_lines && data.last() == Some(&b'\n');
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            let size = data.map_or(0, Bytes::len);
            for phase in [Phase::Resting, Phase::Receiving] {
                this.waited
                    .moved(&this.connection, phase, Phase::Busy, size);
            }
            if let Some(data) = data {
                this.came(data);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let is_over = if this.is_between_lines {
            let (waited, connection) = (&this.waited, &this.connection);
            waited.begin(connection, Phase::Busy, Phase::Resting);
            this.pace.wait_for(this.idle_timeout, context)
        } else {
            let (waited, connection) = (&this.waited, &this.connection);
            waited.begin(connection, Phase::Busy, Phase::Receiving);
            this.pace.wait(context)
        };
        is_over.map(|()| {
            this.has_ended = true;
            this.table.count(Cut::Body);
            Some(Err(TooSlow.into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body.
pub(super) struct Leaving {
    body: Body,
    charge: Charge,
    connection: Arc<Connection>,
}

impl Leaving {
    pub(super) fn new(body: Body, charge: Charge, connection: Arc<Connection>) -> Self {
        Self {
            body,
            charge,
            connection,
        }
    }
}

/// Bytes, with the charge that holds their memory.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| {
                if bytes.len() <= ALLOWANCE_BYTES {
                    return bytes;
                }
                Bytes::from_owner(Charged {
                    bytes,
                    _charge: self.charge.clone(),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.connection.enter(Phase::Answered);
    }
}
