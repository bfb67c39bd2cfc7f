//! Finds the commits whose rows Postgres refuses.
//!
//! Streams are tried apart, half of them at a time, and then the beginnings of a refused stream, in
//! transactions that are rolled back. Deliberately absent: what follows from it (`lane`, `filling`).

use std::collections::BTreeMap;

use event_log::subscription::Placed;
use sqlx::{Connection as _, PgConnection};

use crate::declare::entry::Entry;
use crate::error::RuntimeError;
use crate::fold::batch;
use crate::fold::parked::StreamId;
use crate::store::generation::Generation;
use crate::store::history::Order;
use crate::store::write::{self, Way, WriteError};

/// A commit whose rows are refused.
pub(crate) struct Refused<'a> {
    pub(crate) placed: &'a Placed,
    pub(crate) reason: String,
    /// Whether the refused row belongs to one stream.
    pub(crate) is_owned: bool,
}

/// For each stream whose rows Postgres refuses, its first refused commit; at most `limit` of them. If
/// only what several streams contribute to a row is refused, the first commit with which it is.
///
/// # Errors
/// `Postgres`; `Blocked` if the rows cannot be tried now.
pub(crate) async fn find<'a>(
    connection: &mut PgConnection,
    generation: &Generation,
    commits: &[&'a Placed],
    limit: usize,
) -> Result<Vec<Refused<'a>>, RuntimeError> {
    let mut streams: BTreeMap<StreamId, Vec<&Placed>> = BTreeMap::new();
    for placed in commits {
        streams
            .entry(StreamId::of(placed))
            .or_default()
            .push(placed);
    }
    let mut found = Vec::new();
    let mut of_all = None;
    // Halves of the streams, tried one after the other; whatever is not refused is done with.
    let mut untried: Vec<Vec<Vec<&Placed>>> = vec![streams.into_values().collect()];
    while let Some(mut streams) = untried.pop() {
        if found.len() >= limit {
            break;
        }
        let all = streams.concat();
        let Some(refusal) = refusal(connection, generation, &all).await? else {
            continue;
        };
        if streams.len() > 1 {
            of_all.get_or_insert_with(|| refusal.clone());
            let half = streams.split_off(streams.len() / 2);
            untried.extend([half, streams]);
        } else {
            found.push(first(connection, generation, &all, refusal).await?);
        }
    }
    if let Some(refusal) = of_all.filter(|_| found.is_empty()) {
        found.push(first(connection, generation, commits, refusal).await?);
    }
    Ok(found)
}

/// The first of some commits with which their rows are refused.
async fn first<'a>(
    connection: &mut PgConnection,
    generation: &Generation,
    commits: &[&'a Placed],
    mut refused: (String, bool),
) -> Result<Refused<'a>, RuntimeError> {
    let (mut good, mut bad) = (0, commits.len());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match refusal(connection, generation, &commits[..middle]).await? {
            Some(refusal) => (bad, refused) = (middle, refusal),
            None => good = middle,
        }
    }
    let (reason, is_owned) = refused;
    Ok(Refused {
        placed: commits[bad - 1],
        reason,
        is_owned,
    })
}

/// Why the rows of these commits are refused, and whether the row belongs to one stream.
async fn refusal(
    connection: &mut PgConnection,
    generation: &Generation,
    commits: &[&Placed],
) -> Result<Option<(String, bool)>, RuntimeError> {
    let mut changes = generation.changes();
    for placed in commits {
        // One that cannot be projected is met, and set aside, by the lane.
        let _ = batch::project(generation, &mut changes, &Entry::new(placed));
    }
    let failed = || RuntimeError::postgres("try the rows of a batch");
    let mut tx = connection.begin().await.map_err(failed())?;
    let written =
        write::write_rows(&mut tx, generation, 0, &changes, Way::Merge, Order::Behind).await;
    tx.rollback().await.map_err(failed())?;
    match written {
        Ok(()) => Ok(None),
        Err(WriteError::Refused {
            reason, is_owned, ..
        }) => Ok(Some((reason, is_owned))),
        Err(WriteError::Blocked { reason, .. }) => Err(RuntimeError::Blocked { reason }),
        Err(WriteError::Runtime(error)) => Err(error),
        Err(WriteError::Repeated | WriteError::Failed(_)) => unreachable!("rows are merged"),
    }
}
