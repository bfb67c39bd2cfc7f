//! Connections for operators: a command has one of its own, a node keeps a few.
//!
//! Invariant: a statement on a kept connection has a time limit, so that one that hangs holds up
//! nobody for long. Deliberately absent: what operators do (`control`).

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions, Postgres};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::projector::connect_options;
use crate::store::control::Operator;

/// The most connections that a node keeps for operators.
const CONNECTIONS_MAX: u32 = 2;
/// How long a request waits for one of them.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);
/// A connection that was idle for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The longest time of one statement, in milliseconds.
const STATEMENT_TIMEOUT_MS: &str = "10000";

/// The connections that a node keeps for operators.
pub struct Operators {
    pool: PgPool,
    projections: Vec<Arc<dyn Projection>>,
}

impl Operators {
    /// Connections to the Postgres at `url`, which need not be reachable yet. `projections` are those
    /// of this program.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn new(url: &str, projections: &[Arc<dyn Projection>]) -> Result<Self, RuntimeError> {
        let options = connect_options(url)?.application_name("annals-admin");
        let options = options.options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECTION_WAIT)
            .idle_timeout(IDLE_MAX)
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            projections: projections.to_vec(),
        })
    }

    /// One of the connections, which goes back when it is dropped.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn operator(&self) -> Result<Operator, RuntimeError> {
        let connect = RuntimeError::postgres("connect to Postgres");
        let connection = self.pool.acquire().await.map_err(connect)?;
        let projections = self.projections.clone();
        Ok(Operator::over(Held::Pooled(connection), projections))
    }
}

/// An operator's connection.
pub(crate) enum Held {
    Own(Box<PgConnection>),
    Pooled(PoolConnection<Postgres>),
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Pooled(connection) => connection,
        }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Pooled(connection) => connection,
        }
    }
}
