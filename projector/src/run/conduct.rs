//! How a new generation takes the place of the live one: it follows the live one up to the same
//! places, is compared with it there, and then the views switch in one transaction.
//!
//! Invariant: the building never goes beyond places that the live one has reached, until they were
//! compared: so that there is a moment at which both stand at the same places, however busy the
//! log is and even if no process runs the live one any more. The live one never waits. A conductor
//! that dies leaves a building that the next one goes on with. Deliberately absent: the lanes that
//! do the work (`supervisor`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use kernel::explained;
use position::{Offset, Partition};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::Places;
use crate::run::projector::Projector;
use crate::run::rebuild::{LOOK_EVERY, OnReading, Purpose, ends_of, reach};
use crate::store::compare::{Comparison, compare};
use crate::store::generation::{self, Generation, Live};
use crate::store::{checkpoint, indexes, purpose, stops, switch};

/// The live rows are held in a snapshot while the building goes the last part of the way: at most
/// so many records.
const REST_RECORDS: u64 = 20_000;
/// For how long a live read model that is behind the building is waited for.
const LIVE_LIMIT: Duration = Duration::from_secs(10);
/// The pause before a process tries again to conduct a building.
const CONDUCT_PAUSE: Duration = Duration::from_secs(1);
/// The same if only an operator can help.
const CONDUCT_PAUSE_LONG: Duration = Duration::from_secs(10);
/// For how long a switch is tried while somebody reads the views, and the pause between two tries.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
const SWITCH_PAUSE: Duration = Duration::from_millis(500);

/// Takes the lock that only one conductor of a projection's rebuild has, until the connection ends.
///
/// # Errors
/// `Rebuilding` if another process has it.
pub(crate) async fn hold(connection: &mut PgConnection, name: &str) -> Result<(), RuntimeError> {
    let held: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("annals.rebuild/{name}"))
        .fetch_one(connection)
        .await
        .map_err(RuntimeError::postgres("begin a rebuild"))?;
    if held {
        return Ok(());
    }
    Err(RuntimeError::Rebuilding {
        projection: name.to_owned(),
    })
}

/// What conducts one building.
pub(crate) struct Conductor<'a> {
    pub(crate) log: &'a dyn EventLog,
    pub(crate) postgres: &'a PgConnectOptions,
    /// The connection that has the lock.
    pub(crate) connection: &'a mut PgConnection,
    /// The projector that must go on; absent if others do the work.
    pub(crate) projector: Option<&'a Projector>,
    pub(crate) building: &'a Generation,
    pub(crate) on_reading: OnReading,
}

impl Conductor<'_> {
    /// Brings the building to the live read model, compares them, brings it to the end that the log
    /// has at the call, and does what the building is for. Returns the number of records read, and
    /// how the two compared.
    ///
    /// # Errors
    /// The first error after which another try would not help.
    pub(crate) async fn conduct(
        &mut self,
        purpose: Purpose,
    ) -> Result<(u64, Option<Comparison>), RuntimeError> {
        let ends = ends_of(self.log).await?;
        let comparison = self.approach().await?;
        let id = self.building.id();
        if purpose != Purpose::Verify {
            checkpoint::set_ceiling(self.connection, &id.projection, id.number, None).await?;
            self.reach(&ends).await?;
        }
        let name = &id.projection;
        if purpose != Purpose::Verify {
            indexes::make_all(self.connection, self.building).await?;
        }
        generation::set_ready(self.connection, &id, comparison.as_ref()).await?;
        if let (Purpose::Verify, Some(comparison)) = (purpose, &comparison) {
            generation::set_verified(self.connection, name, comparison).await?;
        }
        if let Some(comparison) = &comparison {
            let equal = comparison.equal;
            tracing::info!(projection = name, equal, "the new tables were compared");
        }
        if let Purpose::Switch { keep } = purpose {
            self.switch(keep).await?;
            let generation = id.number;
            tracing::info!(
                projection = name,
                generation,
                "the rebuilt read model is live"
            );
        }
        Ok((ends.values().map(|end| end.0).sum(), comparison))
    }

    /// Brings the building to places of the live read model, and compares them there. Returns
    /// nothing if there is no live one, or if the building is ahead of one that does not move.
    async fn approach(&mut self) -> Result<Option<Comparison>, RuntimeError> {
        let id = self.building.id();
        let name = &id.projection;
        let mut ahead_since = None;
        loop {
            let Some(live) = generation::live(self.connection, name).await? else {
                return Ok(None);
            };
            let reached = checkpoint::load(self.connection, name, live.number).await?;
            let own = checkpoint::load(self.connection, name, id.number).await?;
            if checkpoint::is_behind(&reached, &own) {
                // It is gone on with: it had been let go on beyond the live one.
                let since = *ahead_since.get_or_insert_with(Instant::now);
                if since.elapsed() > LIVE_LIMIT {
                    return Ok(None);
                }
                checkpoint::set_ceiling(self.connection, name, id.number, Some(&own)).await?;
                require_going(self.connection, self.projector, &[]).await?;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            if rest(&own, &reached) > REST_RECORDS {
                self.follow(&reached).await?;
                continue;
            }
            if let Some(comparison) = self.meet(&live).await? {
                return Ok(Some(comparison));
            }
        }
    }

    /// Lets the building go as far as `places`, and waits until it is there.
    async fn follow(&mut self, places: &Places) -> Result<(), RuntimeError> {
        let id = self.building.id();
        checkpoint::set_ceiling(self.connection, &id.projection, id.number, Some(places)).await?;
        let next = places.iter().map(|(p, at)| (*p, at.offset.next()));
        self.reach(&next.collect()).await
    }

    async fn reach(&mut self, ends: &BTreeMap<Partition, Offset>) -> Result<(), RuntimeError> {
        reach(
            self.log,
            self.connection,
            self.projector,
            std::slice::from_ref(self.building),
            ends,
            &mut self.on_reading,
        )
        .await
    }

    /// Holds the live rows in a snapshot, brings the building to their places and compares.
    /// Returns nothing if the live read model was replaced.
    async fn meet(&mut self, live: &Live) -> Result<Option<Comparison>, RuntimeError> {
        let failed = || RuntimeError::postgres("hold the live rows in a snapshot");
        let name = self.building.projection.name();
        let mut snapshot = self.postgres.connect().await.map_err(failed())?;
        let begin = "SET idle_in_transaction_session_timeout = 0; \
                     BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::raw_sql(begin)
            .execute(&mut snapshot)
            .await
            .map_err(failed())?;
        let now = generation::live(&mut snapshot, name).await?;
        if now.is_none_or(|now| now.number != live.number) {
            return Ok(None);
        }
        let reached = checkpoint::load(&mut snapshot, name, live.number).await?;
        self.follow(&reached).await?;
        let comparison = compare(&mut snapshot, live, self.connection, self.building).await?;
        Ok(Some(comparison))
    }

    /// Switches. While somebody reads the views for long, tries again for a while.
    async fn switch(&mut self, keep: Duration) -> Result<(), RuntimeError> {
        let name = self.building.projection.name();
        let began = Instant::now();
        loop {
            match switch::switch(self.connection, self.building, keep).await {
                Ok(true) => return Ok(()),
                // The live read model has come further meanwhile.
                Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error @ RuntimeError::Postgres { .. }) if began.elapsed() < SWITCH_LIMIT => {
                    let reason = explained(&error);
                    tracing::info!(projection = name, reason, "the switch is tried again");
                    tokio::time::sleep(SWITCH_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
            let one = std::slice::from_ref(self.building);
            require_going(self.connection, self.projector, one).await?;
        }
    }
}

/// Conducts a building that operators asked for, unless another process does. Waits for a while
/// before it ends after an error, so that the next try comes later.
pub(crate) async fn for_others(
    log: Arc<dyn EventLog>,
    postgres: PgConnectOptions,
    building: Generation,
) {
    let conducted = try_for_others(&*log, &postgres, &building).await;
    let pause = match conducted {
        Ok(()) | Err(RuntimeError::Rebuilding { .. }) => CONDUCT_PAUSE,
        Err(error) => {
            let projection = building.projection.name();
            let reason = explained(&error);
            tracing::warn!(projection, reason, "a rebuild does not go on");
            match error.may_pass() {
                true => CONDUCT_PAUSE,
                false => CONDUCT_PAUSE_LONG,
            }
        }
    };
    tokio::time::sleep(pause).await;
}

async fn try_for_others(
    log: &dyn EventLog,
    postgres: &PgConnectOptions,
    building: &Generation,
) -> Result<(), RuntimeError> {
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = postgres.connect().await.map_err(connect)?;
    let id = building.id();
    hold(&mut connection, &id.projection).await?;
    let Some((purpose, is_ready)) = purpose::of(&mut connection, &id).await? else {
        return Ok(());
    };
    let mut conductor = Conductor {
        log,
        postgres,
        connection: &mut connection,
        projector: None,
        building,
        on_reading: Box::new(|_| {}),
    };
    match (is_ready, purpose) {
        (false, _) => {
            conductor.conduct(purpose).await?;
        }
        // It was compared, and whoever conducted it came no further.
        (true, Purpose::Switch { keep }) => conductor.switch(keep).await?,
        (true, Purpose::Verify | Purpose::Wait) => {}
    }
    if purpose == Purpose::Verify {
        generation::drop_unused(&mut connection, &id).await?;
    }
    Ok(())
}

/// The number of records between two places, over all partitions.
fn rest(own: &Places, reached: &Places) -> u64 {
    let next = |places: &Places, partition| {
        let at = places.get(partition);
        at.map_or(0, |checkpoint| checkpoint.offset.next().0)
    };
    let rest = |partition| next(reached, partition).saturating_sub(next(own, partition));
    reached.keys().map(rest).sum()
}

/// Fails if one of the generations has stopped or is gone, or if the projector has.
pub(crate) async fn require_going(
    connection: &mut PgConnection,
    projector: Option<&Projector>,
    generations: &[Generation],
) -> Result<(), RuntimeError> {
    for generation in generations {
        if !generation::exists(connection, &generation.id()).await? {
            return Err(RuntimeError::Cancelled {
                projection: generation.projection.name().to_owned(),
            });
        }
    }
    let stops = stops::all(connection).await?;
    let is_ours = |stop: &&stops::Stopped| {
        let of = |generation: &Generation| {
            let id = generation.id();
            id.projection == stop.projection && id.number == stop.generation
        };
        generations.iter().any(of)
    };
    if let Some(stop) = stops.iter().find(is_ours) {
        return Err(StoppedProjection {
            projection: stop.projection.clone(),
            partition: Some(stop.partition),
            offset: stop.offset,
            reason: stop.reason.clone(),
        }
        .into());
    }
    match projector.and_then(Projector::ended) {
        Some(reason) => Err(RuntimeError::Ended { reason }),
        None => Ok(()),
    }
}
