//! The commits that may have contributed to a row whose versions do not name them.
//!
//! Deliberately absent: rows whose versions are all kept (`why`).

use std::collections::{BTreeMap, BTreeSet};

use position::{Partition, Position};
use sqlx::PgConnection;

use super::{Asking, Bounds, Found, WHY_COMMITS_MAX, WhyCommit, WhyError, WhyPlace, WhyUntil};
use crate::declare::table::KeyIs;
use crate::declare::value::Value;
use crate::models::search::{CommitFilter, FoundCommit, PositionRange};
use crate::run::reached::RowsVersion;

/// How many partitions are searched at once.
const PARTITIONS_AT_ONCE: usize = 16;

/// What the commits have in common that can contribute to a row.
fn filters(asking: &Asking<'_>) -> Vec<CommitFilter> {
    let of_tenant = CommitFilter {
        tenant: Some(asking.tenant.clone()),
        ..CommitFilter::default()
    };
    let takes: BTreeSet<_> = asking.projection.takes().into_iter().collect();
    if !takes.is_empty() {
        let filter = |takes: crate::Takes| CommitFilter {
            category: Some(takes.category.to_owned()),
            event_type: Some(takes.event.to_owned()),
            ..of_tenant.clone()
        };
        return takes.into_iter().map(filter).collect();
    }
    // It looks at commits as a whole, and its key names the stream of a commit.
    let stream = match (asking.table.key_is, asking.key.first()) {
        (KeyIs::StreamName, Some(Value::Text(name))) => Some(name.to_string()),
        _ => None,
    };
    vec![CommitFilter {
        stream,
        ..of_tenant
    }]
}

/// The commits that may have contributed to a row, all from the first one on.
pub(super) async fn of_index(
    tx: &mut PgConnection,
    asking: &Asking<'_>,
    found: &Found,
    bounds: &Bounds,
) -> Result<Vec<WhyCommit>, WhyError> {
    let Some(reached) = found.version.position() else {
        return Ok(Vec::new());
    };
    let ranges: Vec<PositionRange> = reached
        .positions
        .iter()
        .map(|(partition, reached)| PositionRange {
            partition: *partition,
            after: Position(0),
            until: (*reached).min(Position(bounds.position_of(*partition).cast_unsigned())),
        })
        .collect();
    let mut commits: BTreeMap<WhyPlace, FoundCommit> = BTreeMap::new();
    for filter in filters(asking) {
        for ranges in ranges.chunks(PARTITIONS_AT_ONCE) {
            let some = filter.search(&mut *tx, ranges, WHY_COMMITS_MAX + 1).await?;
            let mut looked_at: BTreeMap<Partition, u32> = BTreeMap::new();
            for commit in some {
                // A search that is cut off has looked at others too, which do not match.
                let looked_at = looked_at.entry(commit.partition).or_default();
                *looked_at += 1;
                if *looked_at > WHY_COMMITS_MAX {
                    return Err(WhyError::TooMany);
                }
                let place = WhyPlace {
                    at: commit.recorded_at,
                    partition: commit.partition,
                    position: commit.position,
                };
                let is_over =
                    matches!(asking.until, WhyUntil::Time(time) if commit.recorded_at > *time);
                if !is_over && commit.is_match {
                    commits.insert(place, commit);
                }
            }
            if commits.len() > usize::try_from(WHY_COMMITS_MAX).unwrap_or(usize::MAX) {
                return Err(WhyError::TooMany);
            }
        }
    }
    for place in set_aside(tx, asking, &found.version, commits.keys()).await? {
        commits.retain(|at, _| (at.partition, at.position) != place);
    }
    let commits = commits.into_iter();
    Ok(commits
        .map(|(place, commit)| WhyCommit {
            place,
            offset: commit.offset,
            record_hash: commit.record_hash,
        })
        .collect())
}

/// Those of some commits that are parked, or were discarded.
async fn set_aside(
    tx: &mut PgConnection,
    asking: &Asking<'_>,
    version: &RowsVersion,
    places: impl Iterator<Item = &WhyPlace> + Clone,
) -> Result<Vec<(Partition, Position)>, sqlx::Error> {
    let partitions = places.clone().map(|place| place.partition.0.cast_signed());
    let positions = places.map(|place| place.position.0.cast_signed());
    let select = "WITH k AS (SELECT * FROM UNNEST($4::int[], $5::bigint[]) AS k(partition, position)) \
         SELECT k.partition, k.position FROM annals.parked AS p \
             JOIN annals.parked_commit AS c USING (projection, generation, tenant, stream) \
             JOIN k ON k.partition = p.partition AND k.position = c.position \
             WHERE p.projection = $1 AND p.generation = $2 AND p.tenant = $3 \
         UNION ALL SELECT k.partition, k.position FROM annals.discarded AS d \
             JOIN k ON k.partition = d.partition AND k.position = d.position \
             WHERE d.projection = $1";
    let rows: Vec<(i32, i64)> = sqlx::query_as(select)
        .bind(asking.projection.name())
        .bind(version.generation())
        .bind(asking.tenant.as_str())
        .bind(partitions.collect::<Vec<_>>())
        .bind(positions.collect::<Vec<_>>())
        .fetch_all(tx)
        .await?;
    let places = rows.into_iter().map(|(partition, position)| {
        let partition = Partition(partition.cast_unsigned());
        (partition, Position(position.cast_unsigned()))
    });
    Ok(places.collect())
}
