//! Postgres without any library for events: a prepared INSERT in a transaction of its own, on one
//! connection for each client. The primary key checks that the stream does not exist yet.

use anyhow::{Result, ensure};
use sqlx::types::Json;
use sqlx::{ConnectOptions, PgConnection};
use uuid::Uuid;

use crate::load::{self, Client};
use crate::order::Order;
use crate::{Arguments, Outcome, rows, version_of};

const TABLE: &str = "CREATE TABLE events (
    stream text NOT NULL,
    version bigint NOT NULL,
    data jsonb NOT NULL,
    PRIMARY KEY (stream, version)
)";

const APPEND: &str = "INSERT INTO events (stream, version, data) VALUES ($1, $2, $3)";

/// Measures this peer.
pub async fn run(arguments: &Arguments) -> Result<Outcome> {
    let pool = arguments.pool().await?;
    sqlx::query(TABLE).execute(&pool).await?;
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        clients.push(arguments.connection()?.connect().await?);
    }
    let load = load::run(arguments, clients).await?;
    Ok(Outcome {
        version: format!("sqlx {}", version_of("sqlx")),
        load,
        stored: rows(&pool, "events").await?,
    })
}

impl Client for PgConnection {
    async fn place(&mut self, order: Order) -> Result<()> {
        // sqlx prepares a statement at its first use, and keeps it.
        let append = sqlx::query(APPEND)
            .bind(format!("order-{}", Uuid::new_v4().simple()))
            .bind(1_i64)
            .bind(Json(&order));
        let done = append.execute(self).await?;
        ensure!(done.rows_affected() == 1, "an event was not stored");
        Ok(())
    }
}
