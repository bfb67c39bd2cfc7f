//! Why the lanes of this process do not go on, for all processes to see.
//!
//! Invariant: a reason that passes is shown for a while longer: a lane that tries again looks well
//! for a moment. Deliberately absent: what a lane does about it (`lane`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel::explained;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::members::{self, Pair};

/// For how long a reason is shown after it was last met: longer than a lane pauses between two
/// tries.
const SHOWN_FOR: Duration = Duration::from_secs(4);

/// The reasons, and when each was last met.
#[derive(Default)]
pub(crate) struct Troubles {
    met: BTreeMap<Pair, (String, Instant)>,
    /// Whether Postgres holds some.
    is_told: bool,
}

impl Troubles {
    pub(crate) fn meet(&mut self, pair: Pair, reason: &str) {
        self.met.insert(pair, (reason.to_owned(), Instant::now()));
    }

    /// Stores them with the leases of `own`. If that fails, for example because the disk is full,
    /// the next call tries again.
    pub(crate) async fn tell(&mut self, connection: &mut PgConnection, own: Uuid) {
        self.met.retain(|_, (_, at)| at.elapsed() < SHOWN_FOR);
        if self.met.is_empty() && !self.is_told {
            return;
        }
        let met = self.met.iter();
        let troubles = met.map(|(pair, (reason, _))| (pair.clone(), reason.clone()));
        match members::tell_troubles(connection, own, &troubles.collect()).await {
            Ok(()) => self.is_told = !self.met.is_empty(),
            Err(error) => {
                let reason = explained(&error);
                tracing::debug!(reason, "could not tell why a projection does not go on");
            }
        }
    }
}
