//! Read models apart from the live ones that begin as the live ones were at a time, as their history
//! tells it.
//!
//! Invariant: rows, the places up to which they count, and the streams that are set aside come from one
//! snapshot of Postgres. Deliberately absent: what is folded behind them (`run::replay`).

use std::collections::BTreeMap;

use event_log::bookmark::{mark_of, prove_mark};
use event_log::log::EventLog;
use event_log::record::record_hash;
use kernel::Timestamp;
use position::{LogId, Partition, Position};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::RuntimeError;
use crate::fold::batch::Places;
use crate::fold::parked::StreamId;
use crate::models::search::{FoundCommit, last_until};
use crate::store::apart::Apart;
use crate::store::as_of::table_as_of_setting;
use crate::store::generation::{self, Generation};
use crate::store::sql::{key_columns, names_of, owner_column, qualified_table, value_columns};
use crate::store::{checkpoint, parked};

/// What the rows hold that a replay begins with.
pub(crate) struct Past {
    /// Of each partition, the commits up to here that were recorded by then.
    pub(crate) places: Places,
    /// Streams of which the rows hold nothing from a position on.
    pub(crate) parked: BTreeMap<StreamId, Position>,
}

/// Fills empty tables with the rows as of `at`.
pub(crate) async fn fill(apart: &mut Apart, at: Timestamp) -> Result<Past, RuntimeError> {
    let projection = std::sync::Arc::clone(&apart.generation().projection);
    let asked = |reason: String| RuntimeError::Asked { reason };
    let name = projection.name();
    let failed = || RuntimeError::postgres("fill tables with the rows of a past moment");
    let connection = apart.connection();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    sqlx::raw_sql(begin)
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    let live = generation::of_live(connection, &projection).await?;
    let live = live.ok_or_else(|| {
        asked(format!(
            "there are no live rows of {name} of this program's version to begin with; leave out \
             --from-snapshot"
        ))
    })?;
    let id = live.id();
    let places = checkpoint::load(connection, &id.projection, id.number).await?;
    let partitions: Vec<Partition> = places.keys().copied().collect();
    let parked = parked::load_places(connection, &id, &partitions).await?;
    sqlx::query("SELECT set_config('annals.as_of', $1, true)")
        .bind(at.to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    let copies = copies(apart.generation(), &live);
    let connection = apart.connection();
    for copy in copies {
        sqlx::raw_sql(AssertSqlSafe(copy))
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
    }
    sqlx::raw_sql("COMMIT")
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    apart.has_rows();
    Ok(Past { places, parked })
}

/// The statements that copy the rows of each table as of the moment of the session.
fn copies(own: &Generation, live: &Generation) -> Vec<String> {
    let tables = own.projection.tables().iter();
    let copies = tables.map(|table| {
        let mut columns = key_columns(table);
        columns.extend(owner_column(table));
        columns.extend(value_columns(table));
        let names = names_of(&columns);
        let into = qualified_table(&own.table_name(table.name));
        let past = table_as_of_setting(table, &live.table_name(table.name));
        format!("INSERT INTO {into} ({names}) SELECT {names} FROM ({past}) AS past")
    });
    copies.collect()
}

/// The places behind which a replay reads the log: of each partition the last commit that was recorded
/// by then, but none that the rows do not hold. A partition that is absent is read from its beginning.
///
/// The places only save reading: which commits count follows from [`Past`].
pub(crate) async fn places(
    connection: &mut PgConnection,
    log: &dyn EventLog,
    id: LogId,
    past: &Past,
    at: Timestamp,
) -> Result<Places, RuntimeError> {
    let mut found = Places::new();
    for (partition, last) in last_by(connection, past, at).await? {
        let record = log
            .read_at(partition, &[last.offset])
            .await?
            .pop()
            .flatten();
        let Some(record) = record.filter(|one| record_hash(one).0[..] == last.record_hash) else {
            continue;
        };
        let Some(mark) = mark_of(&record).filter(|mark| mark.position == last.position) else {
            continue;
        };
        if let Ok(mut place) = prove_mark(log, id, partition, mark).await {
            place.last_recorded_at = Some(last.recorded_at);
            found.insert(partition, place);
        }
    }
    Ok(found)
}

/// The last commit of each partition that the index of commits has by then, and the rows hold. It is
/// searched by halves: times never fall from one position to the next.
async fn last_by(
    connection: &mut PgConnection,
    past: &Past,
    at: Timestamp,
) -> Result<BTreeMap<Partition, FoundCommit>, RuntimeError> {
    let failed = || RuntimeError::postgres("look into the index of commits");
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('read.commit_index') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    if !is_there {
        return Ok(BTreeMap::new());
    }
    // All positions up to `low` were recorded by then, and none behind `high`.
    let mut ranges: BTreeMap<Partition, (u64, u64)> = BTreeMap::new();
    for (partition, place) in &past.places {
        ranges.insert(*partition, (0, place.position.0));
    }
    let mut last = BTreeMap::new();
    loop {
        let middles: BTreeMap<Partition, Position> = ranges
            .iter()
            .filter(|(_, (low, high))| low < high)
            .map(|(partition, (low, high))| (*partition, Position(low + (high - low).div_ceil(2))))
            .collect();
        if middles.is_empty() {
            return Ok(last);
        }
        let found = last_until(&mut *connection, &middles)
            .await
            .map_err(failed())?;
        for (partition, middle) in middles {
            let Some((low, high)) = ranges.get_mut(&partition) else {
                continue;
            };
            match found.get(&partition) {
                Some(commit) if commit.recorded_at <= at => {
                    // Between the commit and the middle, there is none.
                    *low = middle.0;
                    last.insert(partition, commit.clone());
                }
                Some(commit) => *high = commit.position.0 - 1,
                None => *low = middle.0,
            }
        }
    }
}
