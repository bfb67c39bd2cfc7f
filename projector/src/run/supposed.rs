//! Read models of a history as other rules would have made it, beside those of the history as it is.
//!
//! Invariant: both are folded from the same commits, as far as the log was read, and are compared row by
//! row; nothing live changes. Deliberately absent: what the other rules decide; the caller hands it in.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_log::log::EventLog;
use event_log::subscription::Placed;
use position::{Partition, Position};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::filling;
use crate::run::rebuild::ends_of;
use crate::run::uptake::{Discarded, Uptake};
use crate::store::apart::{Apart, ApartState, Existing, NewApart, Standing};
use crate::store::compare::{Comparison, compare_apart};
use crate::store::parked;

/// What the name of the schema with the rows of the history as it is ends with.
pub const AS_IT_IS: &str = "_as_it_is";

/// The read models of one projection twice: from the history as it would be, and as it is.
pub struct Supposed {
    would_be: Half,
    is: Half,
}

struct Half {
    apart: Apart,
    uptake: Uptake,
    positions: BTreeMap<Partition, Position>,
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
        let partitions: Vec<Partition> = ends_of(log).await?.into_keys().collect();
        // The one whose name nobody chose is the more likely to be in the way.
        let mut is = Half::make(log, url, projection, (&as_it_is, existing)).await?;
        let name = projection.name();
        let others = async {
            let discarded = parked::discarded(is.connection(), name, &partitions).await?;
            let would_be = Half::make(log, url, projection, (schema, existing)).await?;
            Ok((discarded, would_be))
        };
        match others.await {
            Ok((discarded, would_be)) => Ok(Self {
                is: Half::begin(is, discarded.clone()),
                would_be: Half::begin(would_be, discarded),
            }),
            Err(error) => {
                // Nothing was made of it yet; what hinders that is less than what happened.
                let _ = is.discard().await;
                Err(error)
            }
        }
    }

    /// Folds a commit: as it is, and as it would be. A stream that cannot be taken up is set aside, as a
    /// live projection would park it, in the history in which it cannot.
    ///
    /// # Errors
    /// `Stopped` if the projection stops at it; `Postgres`.
    pub async fn take(&mut self, is: &Placed, would_be: &Placed) -> Result<(), RuntimeError> {
        self.is.take(is).await?;
        self.would_be.take(would_be).await
    }

    /// Writes what is left, and compares the rows. Returns, too, how many streams were set aside in the
    /// history as it is, and as it would be.
    ///
    /// # Errors
    /// `Stopped`, `Postgres`.
    pub async fn finish(
        mut self,
        state: ApartState,
    ) -> Result<(Comparison, [usize; 2]), RuntimeError> {
        self.is.write(state).await?;
        self.would_be.write(state).await?;
        let compared = compare_apart(&mut self.is.apart, &mut self.would_be.apart).await?;
        let set_aside = [&self.is, &self.would_be].map(|half| half.uptake.set_aside.len());
        for half in [self.is, self.would_be] {
            let standing = half.standing(state);
            half.apart.finish(&standing).await?;
        }
        Ok((compared, set_aside))
    }
}

impl Half {
    async fn make(
        log: &dyn EventLog,
        url: &str,
        projection: &Arc<dyn Projection>,
        (schema, existing): (&str, Existing),
    ) -> Result<Apart, RuntimeError> {
        let new = NewApart {
            schema,
            by: "annals what-if",
            existing,
        };
        Apart::make(log, url, projection, new).await
    }

    fn begin(apart: Apart, discarded: Discarded) -> Self {
        Self {
            uptake: Uptake::new(apart.generation().clone(), discarded),
            apart,
            positions: BTreeMap::new(),
        }
    }

    async fn take(&mut self, placed: &Placed) -> Result<(), RuntimeError> {
        self.positions.insert(placed.partition, placed.position);
        if !self.uptake.wants(placed) || !self.uptake.concerns(placed) {
            return Ok(());
        }
        self.uptake.add(placed.clone());
        match self.uptake.is_full() || self.uptake.stopped().is_some() {
            true => self.write(ApartState::Unfinished).await,
            false => Ok(()),
        }
    }

    async fn write(&mut self, state: ApartState) -> Result<(), RuntimeError> {
        if let Some(mut work) = self.uptake.folded() {
            work.standing = self.standing(state);
            let left = filling::write(&mut self.apart, *work).await?;
            self.uptake.uncount(&left.commits);
            self.uptake.refuse(left.parks);
            // A row that was written may get more contributions.
            self.apart.has_rows();
        }
        match self.uptake.stopped() {
            Some(stopped) => Err(stopped.clone().into()),
            None => Ok(()),
        }
    }

    fn standing(&self, state: ApartState) -> Standing {
        Standing {
            state,
            says: "rows of annals what-if".to_owned(),
            commits: self.uptake.commits,
            positions: self.positions.clone(),
        }
    }
}
