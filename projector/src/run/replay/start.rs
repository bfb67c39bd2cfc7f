//! What a replay starts from, and whether it may.
//!
//! Deliberately absent: what it does then (`machine`).

use std::collections::BTreeMap;

use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use kernel::Timestamp;
use position::{LogId, Partition};

use super::condition::Watched;
use super::{NewReplay, Until};
use crate::declare::history::History;
use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::uptake::Discarded;
use crate::store::apart::Apart;
use crate::store::from_past::{self, Past};
use crate::store::held::NamedLog;
use crate::store::parked;

/// Whether recorded time can pass so many times faster.
pub(super) fn require_speed(times: Option<f64>) -> Result<(), RuntimeError> {
    match times {
        Some(times) if !(times.is_finite() && times > 0.0) => Err(RuntimeError::Asked {
            reason: "a speed is a number above 0".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether what is asked for fits the projection and the log; the condition, if there is one.
pub(super) fn judged(
    projection: &dyn Projection,
    new: &NewReplay<'_>,
    log: Option<&NamedLog>,
) -> Result<Option<Watched>, RuntimeError> {
    let asked = |reason: String| RuntimeError::Asked { reason };
    require_speed(new.times)?;
    if let (Some(from), Until::Time(until)) = (new.from, &new.until)
        && from > *until
    {
        return Err(asked(format!(
            "a replay cannot begin at {from} and end at {until}"
        )));
    }
    if let Until::Position(token) = &new.until {
        let log = log.map(|log| log.id).filter(|id| *id != LogId::default());
        if log != Some(token.log) {
            return Err(asked(
                "the position token belongs to another log".to_owned(),
            ));
        }
        if new.from.is_some() {
            let reason = "a replay that begins with the rows of a time ends at a time or at the end: \
                          leave out --from-snapshot, or name a time with --until";
            return Err(asked(reason.to_owned()));
        }
    }
    if projection.own_sql().is_some() && new.from.is_some() {
        let name = projection.name();
        return Err(asked(format!(
            "{name} writes its rows with SQL of its own, and keeps no past of them; leave out \
             --from-snapshot"
        )));
    }
    if new.from.is_some() && projection.history() != History::Full {
        let name = projection.name();
        return Err(asked(format!(
            "{name} does not keep all of its past, so that a replay cannot begin with its rows; leave \
             out --from-snapshot"
        )));
    }
    let Until::Condition(condition) = &new.until else {
        return Ok(None);
    };
    if projection.own_sql().is_some() {
        let name = projection.name();
        return Err(asked(format!(
            "{name} writes its rows with SQL of its own, so that it is not known which rows a commit \
             changes; name a time or a position with --until"
        )));
    }
    condition.on(projection).map(Some).map_err(asked)
}

/// What a replay starts from.
pub(super) struct Start {
    pub(super) discarded: Discarded,
    pub(super) past: Option<(Timestamp, Past)>,
    /// Behind which places the log is read; of a partition without one, from its beginning.
    pub(super) places: BTreeMap<Partition, Checkpoint>,
}

impl Start {
    /// Reads it, and copies the rows as of `from` into the empty tables.
    pub(super) async fn read(
        log: &dyn EventLog,
        named: Option<&NamedLog>,
        apart: &mut Apart,
        partitions: &[Partition],
        from: Option<Timestamp>,
    ) -> Result<Self, RuntimeError> {
        let name = apart.generation().projection.name();
        let mut start = Self {
            discarded: parked::discarded(apart.connection(), name, partitions).await?,
            past: None,
            places: BTreeMap::new(),
        };
        if let Some(at) = from {
            let past = from_past::fill(apart, at).await?;
            if let Some(named) = named {
                let connection = apart.connection();
                start.places = from_past::places(connection, log, named.id, &past, at).await?;
            }
            start.past = Some((at, past));
        }
        Ok(start)
    }
}
