//! The byte stream of a connection.
//!
//! Invariant: a client that does not read its answer, or reads it too slowly, is cut off.
//! Deliberately absent: what the bytes mean.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::limits::Limits;
use super::pace::Pace;
use super::table::{Connection, Cut, Phase, Table, Waited};

/// A socket that keeps the phase of its connection up to date.
pub(super) struct Socket {
    stream: TcpStream,
    pace: Pace,
    waited: Waited,
    connection: Arc<Connection>,
    table: Arc<Table>,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        limits: &Limits,
        connection: Arc<Connection>,
        table: Arc<Table>,
    ) -> Self {
        Self {
            stream,
            pace: Pace::new(limits.stall_timeout, limits.rate_bytes_min),
            waited: Waited::new(limits),
            connection,
            table,
        }
    }

    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(size)) = written {
            self.pace.moved(size);
            let (waited, connection) = (&mut self.waited, &self.connection);
            waited.moved(connection, Phase::Stalled, Phase::Answered, size);
        } else if written.is_pending() {
            let (waited, connection) = (&self.waited, &self.connection);
            waited.begin(connection, Phase::Answered, Phase::Stalled);
        }
        if written.is_pending() && self.pace.wait(context).is_ready() {
            self.table.count(Cut::Answer);
            let why = "the client does not read its answer";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.advance(Phase::Idle, Phase::Head);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All output was handed to the operating system.
        self.pace.reset();
        self.waited.reset();
        self.connection.advance(Phase::Answered, Phase::Idle);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
