//! Read models of a history as other rules would have made it, beside those of the history as it is.
//!
//! Invariant: both are folded from the same commits, as far as the log was read, and are compared row by
//! row; nothing live changes. Deliberately absent: what the other rules decide; the caller hands it in.

use std::sync::Arc;

use event_log::log::EventLog;
use event_log::subscription::Placed;

use crate::declare::entry::Entry;
use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::project;
use crate::fold::changes::Changes;
use crate::store::apart::{Apart, ApartState, Existing, NewApart, Portion, Standing};
use crate::store::compare::{Comparison, compare_apart};

/// How many commits are folded before their rows are written, at most.
const COMMITS_MAX: usize = 2_000;
/// How many bytes of commits are folded before their rows are written, at most.
const BYTES_MAX: usize = 8 << 20;
/// What the name of the schema with the rows of the history as it is ends with.
pub const AS_IT_IS: &str = "_as_it_is";

/// The read models of one projection twice: from the history as it would be, and as it is.
pub struct Supposed {
    would_be: Half,
    is: Half,
}

struct Half {
    apart: Apart,
    changes: Changes,
    /// Commits, for a projection with SQL of its own.
    commits: Vec<Placed>,
    count: usize,
    bytes: usize,
    standing: Standing,
}

impl Supposed {
    /// Makes two schemas with empty tables and views: `schema` and `schema` with [`AS_IT_IS`].
    ///
    /// # Errors
    /// As [`Apart::make`].
    pub async fn make(
        log: &dyn EventLog,
        url: &str,
        projection: &Arc<dyn Projection>,
        (schema, existing): (&str, Existing),
    ) -> Result<Self, RuntimeError> {
        let as_it_is = format!("{schema}{AS_IT_IS}");
        Ok(Self {
            would_be: Half::make(log, url, projection, (schema, existing)).await?,
            is: Half::make(log, url, projection, (&as_it_is, existing)).await?,
        })
    }

    /// Folds a commit: as it is, and as it would be.
    ///
    /// # Errors
    /// `Stopped` if the projection cannot take it up; `Postgres`.
    pub async fn take(&mut self, is: &Placed, would_be: &Placed) -> Result<(), RuntimeError> {
        self.is.take(is).await?;
        self.would_be.take(would_be).await
    }

    /// Writes what is left, and compares the rows.
    ///
    /// # Errors
    /// `Stopped`, `Postgres`.
    pub async fn finish(mut self, state: ApartState) -> Result<Comparison, RuntimeError> {
        self.is.write(state).await?;
        self.would_be.write(state).await?;
        let compared = compare_apart(&mut self.is.apart, &mut self.would_be.apart).await?;
        for half in [self.is, self.would_be] {
            half.apart.finish(&half.standing).await?;
        }
        Ok(compared)
    }
}

impl Half {
    async fn make(
        log: &dyn EventLog,
        url: &str,
        projection: &Arc<dyn Projection>,
        (schema, existing): (&str, Existing),
    ) -> Result<Self, RuntimeError> {
        let new = NewApart {
            schema,
            by: "annals what-if",
            existing,
        };
        let apart = Apart::make(log, url, projection, new).await?;
        Ok(Self {
            changes: apart.generation().changes(),
            apart,
            commits: Vec::new(),
            count: 0,
            bytes: 0,
            standing: Standing {
                state: ApartState::Unfinished,
                says: "rows of annals what-if".to_owned(),
                commits: 0,
                positions: std::collections::BTreeMap::new(),
            },
        })
    }

    async fn take(&mut self, placed: &Placed) -> Result<(), RuntimeError> {
        let generation = self.apart.generation();
        match generation.projection.own_sql() {
            Some(_) => self.commits.push(placed.clone()),
            None => {
                project(generation, &mut self.changes, &Entry::new(placed)).map_err(|failure| {
                    StoppedProjection {
                        projection: generation.projection.name().to_owned(),
                        partition: Some(placed.partition),
                        offset: Some(placed.record.offset),
                        reason: failure.reason,
                    }
                })?
            }
        }
        self.count += 1;
        self.bytes += placed.record.value.as_ref().map_or(0, |value| value.len());
        let positions = &mut self.standing.positions;
        positions.insert(placed.partition, placed.position);
        self.standing.commits += 1;
        match self.count >= COMMITS_MAX || self.bytes >= BYTES_MAX {
            true => self.write(ApartState::Unfinished).await,
            false => Ok(()),
        }
    }

    async fn write(&mut self, state: ApartState) -> Result<(), RuntimeError> {
        self.standing.state = state;
        let portion = match self.apart.generation().projection.own_sql() {
            Some(_) => Portion::Commits(&self.commits),
            None => Portion::Changes(&self.changes),
        };
        self.apart.write(portion, &self.standing).await?;
        // A row that was written may get more contributions.
        self.apart.has_rows();
        self.changes = self.apart.generation().changes();
        self.commits.clear();
        (self.count, self.bytes) = (0, 0);
        Ok(())
    }
}
