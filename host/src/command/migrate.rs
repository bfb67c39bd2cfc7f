//! `annals migrate`: brings the fixed part of the Postgres schema up to date.

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::node::{Postgres, open_log};
use crate::output;
use crate::settings::Settings;

#[derive(Serialize)]
struct Row {
    version: i64,
    migration: String,
    status: &'static str,
}

/// Migrates, and shows what there is.
pub(super) async fn run(settings: &Settings) -> Result<Exit, Failure> {
    let postgres = Postgres::open(settings).await?;
    // The state before tells present migrations from new ones below. If the server is down, this
    // call fails.
    let before = postgres.migrations().await?;
    // Only a log that the user named tells whose database this must be.
    if settings.is_named("log")
        && let Ok(log) = open_log(settings).await
    {
        postgres.require_log(&*log).await?;
    }
    let after = postgres.migrate().await?;
    let was_applied = |version| before.iter().any(|m| m.version == version && m.applied);
    let rows: Vec<Row> = after
        .into_iter()
        .map(|migration| Row {
            version: migration.version,
            status: if was_applied(migration.version) {
                "present"
            } else {
                "applied"
            },
            migration: migration.description,
        })
        .collect();
    let shown = output::rows(settings.output, &["version", "migration", "status"], &rows);
    postgres.close().await;
    shown?;
    Ok(Exit::Done)
}
