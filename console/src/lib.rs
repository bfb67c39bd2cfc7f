//! The console: pages for people at `/console` of a node, made from what the node's own routes answer.
//!
//! Invariants: each room asks the routes of its node, in process, and shows what they answer, so that
//! limits, tenants and refusals are theirs; each page works without a script; nothing is loaded from
//! elsewhere. Deliberately absent: a database, the log, and any rule about who may do what. A room
//! whose routes this node does not serve says so.

mod assets;
mod exposition;
mod form;
mod format;
mod json;
mod layout;
mod live;
mod node;
mod parts;
mod plot;
mod rooms;
mod samples;
#[cfg(test)]
mod testing;
mod visit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use door::Program;
use tokio::sync::{Semaphore, watch};

use crate::samples::Samples;

/// How often the node's metrics are looked at, and live parts are made anew.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The most browsers that follow live parts at once; each keeps one connection.
const LISTENERS_MAX: usize = 32;

/// One setting of the process, for the room that lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value; absent: none. A secret must be hidden already.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: String,
    /// Its environment variable.
    pub variable: String,
    /// What it means.
    pub meaning: String,
}

/// What the console says about the process that serves it.
#[derive(Clone, Debug)]
pub struct About {
    /// The program.
    pub program: Program,
    /// The name of the node.
    pub node: String,
    /// The settings; absent: this listener must not show them.
    pub settings: Option<Vec<Setting>>,
}

/// The console of a process; cheap to clone. It ends when it is closed.
#[derive(Clone, Debug)]
pub struct Console(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    about: About,
    /// The node's routes, which are replaced when Postgres has become available.
    routes: RwLock<Router>,
    samples: Mutex<Samples>,
    listeners: Semaphore,
    closing: watch::Sender<bool>,
}

impl Console {
    /// A console that begins to look at the node's metrics. Call this within a Tokio runtime.
    #[must_use]
    pub fn begin(about: About) -> Self {
        let inner = Arc::new(Inner {
            about,
            routes: RwLock::default(),
            samples: Mutex::default(),
            listeners: Semaphore::new(LISTENERS_MAX),
            closing: watch::Sender::new(false),
        });
        let console = Self(inner);
        tokio::spawn(samples::keep(
            Arc::downgrade(&console.0),
            console.0.closing.subscribe(),
        ));
        console
    }

    /// The routes of the console, which asks `node`: all routes of the process that it shows.
    pub fn router(&self, node: &Router) -> Router {
        *self
            .0
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = node.clone();
        rooms::router()
            .route("/console/files/{name}", get(assets::serve))
            .with_state(self.clone())
    }

    /// Ends what is live: pages stay as they are. The server must be closed afterwards.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    fn about(&self) -> &About {
        &self.0.about
    }

    fn routes(&self) -> Router {
        self.0.routes()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.0.samples()
    }
}

impl Inner {
    fn routes(&self) -> Router {
        let routes = self.routes.read();
        routes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
