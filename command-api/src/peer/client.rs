//! The client side of requests to other nodes, over HTTP.
//!
//! Invariant: every wait is bounded. Deliberately absent: where the other nodes are (`Directory`),
//! and what to do if they do not answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use door::header::TIMEOUT_MS;
use engine::command::{Became, SubmitError};
use engine::owner::Inquiry;
use engine::peers::{LinkEvent, PeerError, PeerLink, Peers};
use event_log::directory::Hint;
use http_body_util::Full;
use hyper::Request;
use position::Partition;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::auth::{Identity, PEER, authority_of};
use super::connection::{Open, problem};
use super::link::{self, Target};
use super::wire::read_outcome;

/// The part of a node's own wait that is reserved for the network, both ways.
const WAY: Duration = Duration::from_millis(100);

/// The bounds of requests to peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeersOptions {
    /// How long connecting may take.
    pub connect_wait: Duration,
    /// How often a link sends a sign of life.
    pub keep_alive: Duration,
    /// A link that receives nothing for this long is broken; several times `keep_alive`.
    pub silence_max: Duration,
    /// How long an owner may take to let its partition go.
    pub hand_over_wait: Duration,
    /// How long a node may take to own a partition.
    pub take_over_wait: Duration,
    /// How long a node may take to say what became of a command.
    pub outcome_wait: Duration,
}

impl Default for PeersOptions {
    fn default() -> Self {
        Self {
            connect_wait: Duration::from_millis(500),
            keep_alive: Duration::from_millis(250),
            silence_max: Duration::from_millis(1_500),
            hand_over_wait: Duration::from_secs(2),
            take_over_wait: Duration::from_secs(10),
            outcome_wait: Duration::from_secs(2),
        }
    }
}

/// The request to let a partition go.
#[derive(Serialize, Deserialize)]
pub(super) struct HandOver {
    pub(super) successor: Hint,
}

/// The answer to a [`HandOver`].
#[derive(Serialize, Deserialize)]
pub(super) struct LetGo {
    pub(super) let_go: bool,
}

/// Peers over HTTP.
pub struct HttpPeers {
    identity: Arc<Identity>,
    options: PeersOptions,
    runtime: Handle,
}

impl HttpPeers {
    /// The peers of `identity`; links run on the tokio runtime of the caller.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(identity: Identity, options: PeersOptions) -> Self {
        Self {
            identity: Arc::new(identity),
            options,
            runtime: Handle::current(),
        }
    }

    /// Sends one short request.
    async fn ask(
        &self,
        address: &str,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<Bytes, PeerError> {
        let answered = tokio::time::timeout(wait, self.answer(address, path, body, wait)).await;
        let (status, body) = answered
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", wait.as_millis())))
            .map_err(PeerError::Unreachable)?;
        if status.is_success() {
            Ok(body)
        } else if status.is_server_error() {
            Err(PeerError::Unreachable(problem(status, &body)))
        } else {
            Err(PeerError::Refused(problem(status, &body)))
        }
    }

    async fn answer(
        &self,
        address: &str,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let authority = authority_of(address).map_err(|error| error.to_string())?;
        let connection = Open::connect(&authority, self.options.connect_wait).await?;
        // The other node's time limit ends first, so that its answer can still arrive and give the
        // reason.
        let wait_there = wait.saturating_sub(WAY).max(Duration::from_millis(1));
        let request = Request::post(path)
            .header(header::HOST, &authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(TIMEOUT_MS, wait_there.as_millis().to_string())
            .header(PEER, self.identity.header(&Method::POST, path, &authority))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let (response, mut driven) = connection.ask(request, wait).await?;
        let status = response.status();
        Ok((status, driven.read(response.into_body(), wait).await?))
    }
}

#[async_trait]
impl Peers for HttpPeers {
    fn open(
        &self,
        address: &str,
        partition: Partition,
        events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    ) -> Box<dyn PeerLink> {
        let target = Target {
            identity: Arc::clone(&self.identity),
            address: address.to_owned(),
            path: format!("/v1/peer/partitions/{partition}/commands"),
            options: self.options,
        };
        link::open(&self.runtime, target, events)
    }

    async fn hand_over(
        &self,
        address: &str,
        partition: Partition,
        successor: &Hint,
    ) -> Result<bool, PeerError> {
        let path = format!("/v1/peer/partitions/{partition}/hand-over");
        let successor = successor.clone();
        let body = serde_json::to_vec(&HandOver { successor })
            .expect("strings and numbers are always written to memory");
        let wait = self.options.hand_over_wait;
        let answer = self.ask(address, &path, body, wait).await?;
        match serde_json::from_slice::<LetGo>(&answer) {
            Ok(answer) => Ok(answer.let_go),
            Err(error) => Err(PeerError::Refused(format!("no answer of a peer: {error}"))),
        }
    }

    async fn outcome(
        &self,
        address: &str,
        partition: Partition,
        inquiry: &Inquiry,
    ) -> Result<Result<Became, SubmitError>, PeerError> {
        let path = format!("/v1/peer/partitions/{partition}/outcome");
        let body = serde_json::to_vec(inquiry).expect("strings are always written to memory");
        let answer = self
            .ask(address, &path, body, self.options.outcome_wait)
            .await?;
        read_outcome(&answer).ok_or_else(|| {
            PeerError::Refused("no answer of a peer: its form is unknown".to_owned())
        })
    }

    async fn take_over(&self, address: &str, partition: Partition) -> Result<(), PeerError> {
        let path = format!("/v1/peer/partitions/{partition}/take-over");
        let wait = self.options.take_over_wait;
        self.ask(address, &path, b"{}".to_vec(), wait)
            .await
            .map(|_| ())
    }
}
