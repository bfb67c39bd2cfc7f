//! Traffic from node to node over HTTP: forwarded commands, hand-over, take-over; and the public
//! topology.
//!
//! - `POST /v1/peer/partitions/{partition}/commands`: a link, NDJSON in both directions at once
//! - `POST /v1/peer/partitions/{partition}/hand-over`, `…/take-over`: one request, one answer
//! - `GET /v1/topology`: public
//!
//! Invariant: only peers are served, and every wait and buffer is bounded. Deliberately absent:
//! what a link's order means (`engine::peers`), and which node owns a partition (the log).

mod auth;
mod client;
mod code;
mod connection;
mod heard;
mod link;
mod refusals;
mod server;
mod topology;
mod wire;

pub use auth::{
    AddressError, Identity, Key, Secret, SecretTooShort, Unprotected, authority_of, is_loopback,
};
pub use client::{HttpPeers, PeersOptions};
pub use server::{Server, ServerOptions};
pub(crate) use topology::describe as describe_topology;
pub use topology::topology_router;
