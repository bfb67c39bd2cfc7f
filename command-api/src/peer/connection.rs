//! One connection to a peer, for one request.
//!
//! Invariant: connecting has a time limit, and nothing is shared: a failed link or request affects
//! no other. The task that waits for something from the connection also drives it, so that a line
//! on its way wakes only one task. Deliberately absent: a pool, TLS, and proxies.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::heard::explained;

/// The most bytes that are read of a short answer.
const ANSWER_SIZE_MAX: usize = 64 << 10;

/// A connection that was not used yet.
pub(super) struct Open<B: Body + 'static> {
    sender: SendRequest<B>,
    driven: Driven<B>,
}

/// Moves the bytes of a connection until it ends.
pub(super) struct Driven<B: Body + 'static>(Option<Pin<Box<Moving<B>>>>);

type Moving<B> = Connection<TokioIo<TcpStream>, B>;

impl<B> Open<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// The reason for the failure.
    pub(super) async fn connect(authority: &str, wait: Duration) -> Result<Self, String> {
        let connect = async {
            let stream = TcpStream::connect(authority).await?;
            // Lines are small, and a reader waits for each of them.
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = match tokio::time::timeout(wait, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(explained(&error)),
            Err(_) => return Err(format!("no connection within {} ms", wait.as_millis())),
        };
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| explained(&error))?;
        Ok(Self {
            sender,
            driven: Driven(Some(Box::pin(connection))),
        })
    }

    /// Sends the request and waits for the head of its response.
    ///
    /// # Errors
    /// The reason for the failure.
    pub(super) async fn ask(
        self,
        request: Request<B>,
        wait: Duration,
    ) -> Result<(Response<Incoming>, Driven<B>), String> {
        let Self {
            mut sender,
            mut driven,
        } = self;
        let response = tokio::time::timeout(wait, sender.send_request(request));
        match driven.drive(response).await {
            Ok(Ok(response)) => Ok((response, driven)),
            Ok(Err(error)) => Err(explained(&error)),
            Err(_) => Err(format!("no answer within {} ms", wait.as_millis())),
        }
    }
}

impl<B> Driven<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// Drives the connection while `work` waits for its bytes. After the connection has ended,
    /// `work` still gets the bytes that arrived, and then the reason for the end.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// The whole body of a short answer.
    ///
    /// # Errors
    /// The reason for the failure.
    pub(super) async fn read(&mut self, body: Incoming, wait: Duration) -> Result<Bytes, String> {
        let read = Limited::new(body, ANSWER_SIZE_MAX).collect();
        match self.drive(tokio::time::timeout(wait, read)).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(explained(&*error)),
            Err(_) => Err(format!("no complete answer within {} ms", wait.as_millis())),
        }
    }
}

/// The text of a peer's problem document, for people.
pub(super) fn problem(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        code: String,
        detail: String,
    }
    match serde_json::from_slice::<Said>(body) {
        Ok(Said { code, detail }) => format!("{} {code}: {detail}", status.as_u16()),
        Err(_) => format!("the node answered {status}"),
    }
}
