//! The version of a read model's rows: what must be the same for the rows to be the same.
//!
//! Invariant: rows change only in a transaction that moves a checkpoint, raises the epoch, or makes
//! another generation live. So two reads that find the same version found the same rows.
//! Deliberately absent: the rows, waiting, and caches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use position::{LogId, Partition, Position, PositionToken};
use sqlx::PgExecutor;

use crate::store::sql::{physical_name, qualified_table};

/// The version of the rows that a projection shows, as one text in the column `rows_version`: a
/// subquery that the name of the projection must follow. Beside it stands the number of the
/// `generation`.
///
/// It gives no row if nothing is shown. In the statement that reads the rows it sees what they see:
/// a statement has one snapshot, which is taken after its views are locked. The checkpoints in it have
/// no order, because to sort them takes Postgres as long as to read a row: [`RowsVersion::read`] sorts.
pub const ROWS_VERSION: &str = "\
    SELECT concat_ws(' ', g.generation, g.version, g.epoch, g.parked, c.log, c.places) \
        AS rows_version, g.generation \
    FROM annals.generation AS g LEFT JOIN LATERAL (\
        SELECT (array_agg(c.log))[1] AS log, \
            string_agg(c.partition || ':' || c.position, ',') AS places \
        FROM annals.checkpoint AS c \
        WHERE c.projection = g.projection AND c.generation = g.generation AND c.log IS NOT NULL\
    ) AS c ON true WHERE g.state = 'live' AND g.projection = ";

/// The version of a read model's rows. Its copies share what they hold.
#[derive(Clone, Debug)]
pub struct RowsVersion(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    text: Box<str>,
    generation: i32,
    rule_version: i32,
    parked: u64,
    position: Option<PositionToken>,
    /// The position as a client gets it.
    token: Option<Box<str>>,
}

impl PartialEq for RowsVersion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for RowsVersion {}

impl RowsVersion {
    /// The version that [`ROWS_VERSION`] gave as this text.
    ///
    /// # Errors
    /// `Decode` if the text is no version.
    pub fn read(text: &str) -> Result<Self, sqlx::Error> {
        parse(text).ok_or_else(|| sqlx::Error::Decode(format!("no version: {text:?}").into()))
    }

    /// Everything that makes it this version, as a text without control characters: two texts are equal
    /// if the versions are.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The number of the live generation.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.0.generation
    }

    /// The version of the projection whose rules made the rows.
    #[must_use]
    pub fn rule_version(&self) -> u32 {
        self.0.rule_version.cast_unsigned()
    }

    /// The name of one of its tables, with its schema, as an identifier.
    #[must_use]
    pub fn table(&self, table: &str) -> String {
        let version = self.rule_version();
        qualified_table(&physical_name(table, version, self.0.generation))
    }

    /// How many streams of all tenants are parked.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.0.parked
    }

    /// How far the rows have got; absent if they have taken up nothing yet.
    #[must_use]
    pub fn position(&self) -> Option<&PositionToken> {
        self.0.position.as_ref()
    }

    /// The position as a text, which is written once for all copies.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.0.token.as_deref()
    }
}

fn parse(text: &str) -> Option<RowsVersion> {
    let mut parts = text.split(' ');
    let [generation, version, epoch, parked] = std::array::from_fn(|_| parts.next());
    let (generation, version) = (generation?.parse().ok()?, version?.parse().ok()?);
    let (epoch, parked): (i64, u64) = (epoch?.parse().ok()?, parked?.parse().ok()?);
    let mut canonical = format!("{generation} {version} {epoch} {parked}");
    let position = match parts.next() {
        None => None,
        Some(log) => {
            let place = |place: &str| {
                let (partition, position) = place.split_once(':')?;
                let position: i64 = position.parse().ok()?;
                let position = Position(position.cast_unsigned());
                Some((Partition(partition.parse().ok()?), position))
            };
            let positions = parts.next()?.split(',').map(place);
            let positions: BTreeMap<_, _> = positions.collect::<Option<_>>()?;
            canonical = format!("{canonical} {log}");
            for (Partition(partition), Position(position)) in &positions {
                let _ = write!(canonical, " {partition}:{position}");
            }
            Some(PositionToken {
                log: LogId(log.parse().ok()?),
                positions,
            })
        }
    };
    if parts.next().is_some() {
        return None;
    }
    let token = position
        .as_ref()
        .map(|position| position.to_string().into());
    Some(RowsVersion(Arc::new(Parts {
        text: canonical.into(),
        generation,
        rule_version: version,
        parked,
        position,
        token,
    })))
}

/// The version of the rows that each of these projections shows; one that shows nothing is absent.
///
/// # Errors
/// The error of Postgres.
pub async fn rows_versions(
    postgres: impl PgExecutor<'_>,
    projections: &[&str],
) -> Result<BTreeMap<String, RowsVersion>, sqlx::Error> {
    let select = format!(
        "SELECT p.name, v.rows_version FROM unnest($1::text[]) AS p(name) \
         CROSS JOIN LATERAL ({ROWS_VERSION} p.name) AS v"
    );
    let rows: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(select))
        .bind(projections)
        .fetch_all(postgres)
        .await?;
    let versions = rows.into_iter();
    let read = |(name, text): (String, String)| Ok((name, RowsVersion::read(&text)?));
    versions.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_postgres_gives_it() {
        let log = "0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d";
        let version = RowsVersion::read(&format!("3 2 7 1 {log} 0:12,5:1")).unwrap();
        assert_eq!((version.generation(), version.parked()), (3, 1));
        assert_eq!(version.table("loans"), "projection.\"loans_v2_g3\"");
        let position = version.position().unwrap();
        assert_eq!(position.log.0.to_string(), log);
        let places = BTreeMap::from([(Partition(0), Position(12)), (Partition(5), Position(1))]);
        assert_eq!(position.positions, places);
        assert_eq!(RowsVersion::read("1 1 0 0").unwrap().position(), None);
        // Postgres gives the checkpoints in any order.
        let other = RowsVersion::read(&format!("3 2 7 1 {log} 5:1,0:12")).unwrap();
        assert_eq!((&other, other.as_str()), (&version, version.as_str()));
        for text in [
            "",
            "1",
            "1 1",
            "1 1 0",
            "1 1 0 0 x 0:1",
            "1 1 0 0 0:1",
            "1 1 0 0  ",
        ] {
            assert!(RowsVersion::read(text).is_err(), "{text:?}");
        }
        let places = format!("1 1 0 0 {log} 0:1,1");
        assert!(RowsVersion::read(&places).is_err());
    }
}
