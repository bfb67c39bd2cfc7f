//! The command door: HTTP in, commands to the engine, one answer out.
//!
//! - `POST /v1/streams/{stream}/{command}`: one command ([`single`](crate) in the code)
//! - `POST /v1/commands`: a batch as NDJSON, streamed both ways
//! - `GET /v1/streams/{stream}/commands/{id}`: what became of a command
//! - `GET /v1/topology`: which node owns which partition, so that clients can route commands
//!   themselves
//!
//! Requests between nodes have their own router ([`peer::Server`]).
//!
//! Invariant: the door answers *accepted* (200) or *refused* (412, 422) only if the log says so;
//! every other answer is a problem that says whether anything was attempted. Deliberately absent:
//! any aggregate's name, reading, and the layer that completes problems ([`door::finish`]).

mod answer;
mod batch;
pub mod code;
mod headers;
mod line;
mod lines;
mod openapi;
pub mod peer;
mod single;
mod traced;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use engine::Engine;

pub use openapi::fragment;

/// Limits of the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most commands of one batch request that wait for their answers at once.
    pub batch_in_flight_max: usize,
    /// The most bytes that the lines of these commands have together; at least one line's limit.
    pub batch_in_flight_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_in_flight_max: 1_024,
            batch_in_flight_bytes_max: 8 << 20,
        }
    }
}

/// The state that all routes share.
#[derive(Clone)]
struct Door {
    engine: Engine,
    options: Options,
}

/// The routes, to be merged with others and passed through [`door::finish`].
pub fn router(engine: Engine, options: Options) -> Router {
    let topology = peer::topology_router(Arc::new(engine.clone()));
    let door = Door { engine, options };
    Router::new()
        .route("/v1/streams/{stream}/{command}", post(single::submit))
        .route("/v1/streams/{stream}/commands/{id}", get(single::outcome))
        .route("/v1/commands", post(batch::submit))
        .with_state(door)
        .merge(topology)
}
