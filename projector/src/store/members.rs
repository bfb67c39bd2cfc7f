//! The processes that run projections, what each of them holds, and what they all see.
//!
//! Invariant: a process that has not been seen for [`DEAD_AFTER`], by Postgres's clock, loses its
//! leases, and its sessions are ended, so that none of its transactions holds a lock. Leases only
//! avoid double work: what keeps rows exact is the compare-and-set on the checkpoint (`checkpoint`).
//! Deliberately absent: who should hold what (`run::plan`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use position::{Offset, Partition};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::RuntimeError;
use crate::store::stops::{self, Stopped};

/// How long a process may be silent before the others take over.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// A generation of a projection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GenerationId {
    pub(crate) projection: String,
    pub(crate) number: i32,
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GenerationState {
    Building,
    Ready,
    Live,
    Retired,
}

impl GenerationState {
    pub(crate) fn of(text: &str) -> Option<Self> {
        Some(match text {
            "building" => Self::Building,
            "ready" => Self::Ready,
            "live" => Self::Live,
            "retired" => Self::Retired,
            _ => return None,
        })
    }
}

/// A process that runs projections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: Uuid,
    /// Its machine and process id, for people.
    pub(crate) name: String,
    /// The rules that it has (`generation::rule_of`).
    pub(crate) rules: BTreeSet<String>,
    /// Whether it helps with rebuilds only.
    pub(crate) builds_only: bool,
    /// What it must leave to a newer program.
    pub(crate) too_old: BTreeSet<Pair>,
}

/// A pair as text, and back.
fn text_of((id, partition): &Pair) -> String {
    format!("{} {} {partition}", id.projection, id.number)
}

fn pair_of(text: &str) -> Option<Pair> {
    let mut parts = text.split(' ');
    let id = GenerationId {
        projection: parts.next()?.to_owned(),
        number: parts.next()?.parse().ok()?,
    };
    Some((id, Partition(parts.next()?.parse().ok()?)))
}

/// A generation as every process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: GenerationState,
    pub(crate) rule: String,
    /// The version of that rule.
    pub(crate) version: i32,
    /// The offset of the last record that it has taken up.
    pub(crate) places: BTreeMap<Partition, Offset>,
    /// Who holds which partition.
    pub(crate) leases: BTreeMap<Partition, Uuid>,
    /// Whether it waits for an operator once it is ready.
    pub(crate) waits: bool,
    /// Whether a process began to build it because it has a new version.
    pub(crate) by_itself: bool,
    /// Whether an operator paused its projection.
    pub(crate) is_paused: bool,
    /// The partitions in which it stopped.
    pub(crate) stopped: BTreeMap<Partition, Stopped>,
}

impl Seen {
    /// Whether somebody must bring it to its end: build it, or do what it was built for.
    pub(crate) fn is_conducted(&self) -> bool {
        match self.state {
            GenerationState::Building => true,
            GenerationState::Ready => !self.waits,
            GenerationState::Live | GenerationState::Retired => false,
        }
    }
}

/// What one look at Postgres shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The members alive, the eldest first.
    pub(crate) members: Vec<Member>,
    pub(crate) generations: BTreeMap<GenerationId, Seen>,
}

/// The name of a member's sessions: by it, others end them if the member dies.
pub(crate) fn session_name(member: Uuid) -> String {
    format!("annals-projector {}", member.simple())
}

/// Says that `own` is alive, removes the dead, and looks at everything.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    own: &Member,
) -> Result<Look, RuntimeError> {
    let failed = || RuntimeError::postgres("say that this projector is alive");
    let say = "INSERT INTO annals.member (member, name, rules, builds_only, too_old) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (member) DO UPDATE \
               SET seen_at = clock_timestamp(), too_old = excluded.too_old";
    let rules: Vec<&str> = own.rules.iter().map(String::as_str).collect();
    sqlx::query(say)
        .bind(own.id)
        .bind(&own.name)
        .bind(rules)
        .bind(own.builds_only)
        .bind(own.too_old.iter().map(text_of).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    let bury = "DELETE FROM annals.member \
                WHERE seen_at < clock_timestamp() - make_interval(secs => $1) RETURNING member";
    let dead: Vec<Uuid> = sqlx::query_scalar(bury)
        .bind(DEAD_AFTER.as_secs_f64())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for member in dead {
        tracing::warn!(
            %member,
            "another projector has not been seen for {} s: its partitions are taken over",
            DEAD_AFTER.as_secs()
        );
        end_sessions(connection, member).await?;
    }
    look(connection).await
}

/// Ends the sessions of a member. A member that was only paused connects again.
async fn end_sessions(connection: &mut PgConnection, member: Uuid) -> Result<(), RuntimeError> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = $1 AND usename = current_user";
    sqlx::query(end)
        .bind(session_name(member))
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres(
            "end the sessions of a dead projector",
        ))?;
    Ok(())
}

/// Leaves: the others take over at once.
pub(crate) async fn leave(connection: &mut PgConnection, own: Uuid) -> Result<(), RuntimeError> {
    sqlx::query("DELETE FROM annals.member WHERE member = $1")
        .bind(own)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("leave the other projectors"))?;
    Ok(())
}

/// Looks at members, generations, checkpoints, leases, pauses and stops.
pub(crate) async fn look(connection: &mut PgConnection) -> Result<Look, RuntimeError> {
    let failed = || RuntimeError::postgres("look at the other projectors");
    let members = "SELECT member, name, rules, builds_only, too_old FROM annals.member \
                   ORDER BY started_at, member";
    let members = sqlx::query(members)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let member = |row: &sqlx::postgres::PgRow| -> Result<Member, sqlx::Error> {
        let rules: Vec<String> = row.try_get("rules")?;
        let too_old: Vec<String> = row.try_get("too_old")?;
        Ok(Member {
            id: row.try_get("member")?,
            name: row.try_get("name")?,
            rules: rules.into_iter().collect(),
            builds_only: row.try_get("builds_only")?,
            too_old: too_old.iter().filter_map(|text| pair_of(text)).collect(),
        })
    };
    let members = members.iter().map(member).collect::<Result<_, _>>();
    let mut look = Look {
        members: members.map_err(failed())?,
        generations: BTreeMap::new(),
    };
    let generations = "SELECT g.projection, g.generation, g.state, g.rule, \
                           g.version, g.purpose = 'wait' AS waits, g.by_itself, \
                           p.projection IS NOT NULL AS is_paused \
                       FROM annals.generation AS g \
                       LEFT JOIN annals.pause AS p ON p.projection = g.projection";
    let generations = sqlx::query(generations)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for row in &generations {
        let read = || -> Result<_, sqlx::Error> {
            let id = GenerationId {
                projection: row.try_get("projection")?,
                number: row.try_get("generation")?,
            };
            Ok((id, row.try_get::<String, _>("state")?))
        };
        let (id, state) = read().map_err(failed())?;
        // A state that this program does not know belongs to a newer one.
        let Some(state) = GenerationState::of(&state) else {
            continue;
        };
        let seen = || -> Result<Seen, sqlx::Error> {
            Ok(Seen {
                state,
                rule: row.try_get("rule")?,
                version: row.try_get("version")?,
                places: BTreeMap::new(),
                leases: BTreeMap::new(),
                waits: row.try_get("waits")?,
                by_itself: row.try_get("by_itself")?,
                is_paused: row.try_get("is_paused")?,
                stopped: BTreeMap::new(),
            })
        };
        look.generations.insert(id, seen().map_err(failed())?);
    }
    let places = "SELECT projection, generation, partition, \"offset\" FROM annals.checkpoint";
    let places: Vec<(String, i32, i32, i64)> = sqlx::query_as(places)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for (projection, number, partition, offset) in places {
        let id = GenerationId { projection, number };
        if let Some(seen) = look.generations.get_mut(&id) {
            let offset = Offset(offset.cast_unsigned());
            seen.places.insert(partition_of(partition), offset);
        }
    }
    let leases = "SELECT projection, generation, partition, member FROM annals.lease";
    let leases: Vec<(String, i32, i32, Uuid)> = sqlx::query_as(leases)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for (projection, number, partition, member) in leases {
        let id = GenerationId { projection, number };
        if let Some(seen) = look.generations.get_mut(&id) {
            seen.leases.insert(partition_of(partition), member);
        }
    }
    for stop in stops::all(connection).await? {
        let id = GenerationId {
            projection: stop.projection.clone(),
            number: stop.generation,
        };
        if let Some(seen) = look.generations.get_mut(&id) {
            seen.stopped.insert(stop.partition, stop);
        }
    }
    Ok(look)
}

fn partition_of(number: i32) -> Partition {
    Partition(number.cast_unsigned())
}

/// A generation and a partition.
pub(crate) type Pair = (GenerationId, Partition);

/// Takes leases; returns those that were free. A stop that an earlier holder met is forgotten: the
/// new one tries again.
pub(crate) async fn take(
    connection: &mut PgConnection,
    own: Uuid,
    pairs: &BTreeSet<Pair>,
) -> Result<(), RuntimeError> {
    if pairs.is_empty() {
        return Ok(());
    }
    // A generation that was dropped meanwhile has no row any more.
    let take = "INSERT INTO annals.lease (projection, generation, partition, member) \
                SELECT n.projection, n.generation, n.partition, $4 \
                FROM UNNEST($1::text[], $2::int[], $3::int[]) \
                    AS n(projection, generation, partition) \
                JOIN annals.generation AS g USING (projection, generation) \
                JOIN annals.member AS m ON m.member = $4 \
                ON CONFLICT DO NOTHING";
    bind(take, pairs, own)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("take partitions"))?;
    Ok(())
}

/// Gives leases back.
pub(crate) async fn give_back(
    connection: &mut PgConnection,
    own: Uuid,
    pairs: &BTreeSet<Pair>,
) -> Result<(), RuntimeError> {
    if pairs.is_empty() {
        return Ok(());
    }
    let give = "DELETE FROM annals.lease AS l \
                USING UNNEST($1::text[], $2::int[], $3::int[]) \
                    AS n(projection, generation, partition) \
                WHERE l.projection = n.projection AND l.generation = n.generation \
                    AND l.partition = n.partition AND l.member = $4";
    bind(give, pairs, own)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("give partitions back"))?;
    Ok(())
}

/// Tells all processes why `own` cannot go on with what it holds; what is not named goes on.
pub(crate) async fn tell_troubles(
    connection: &mut PgConnection,
    own: Uuid,
    troubles: &BTreeMap<Pair, String>,
) -> Result<(), RuntimeError> {
    let tell = "UPDATE annals.lease AS l SET trouble = n.trouble \
                FROM (SELECT o.projection, o.generation, o.partition, t.trouble \
                    FROM annals.lease AS o LEFT JOIN \
                        UNNEST($1::text[], $2::int[], $3::int[], $5::text[]) \
                        AS t(projection, generation, partition, trouble) \
                    USING (projection, generation, partition) WHERE o.member = $4) AS n \
                WHERE l.projection = n.projection AND l.generation = n.generation \
                    AND l.partition = n.partition AND l.member = $4 \
                    AND l.trouble IS DISTINCT FROM n.trouble";
    let pairs: BTreeSet<Pair> = troubles.keys().cloned().collect();
    bind(tell, &pairs, own)
        .bind(troubles.values().collect::<Vec<_>>())
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres(
            "tell why a projection does not go on",
        ))?;
    Ok(())
}

/// A statement with pairs as three arrays, and a member.
fn bind<'q>(
    statement: &'static str,
    pairs: &'q BTreeSet<Pair>,
    own: Uuid,
) -> Query<'q, Postgres, PgArguments> {
    let projections = pairs.iter().map(|(id, _)| id.projection.as_str());
    let numbers = pairs.iter().map(|(id, _)| id.number);
    let partitions = pairs.iter().map(|(_, partition)| partition.0.cast_signed());
    sqlx::query(statement)
        .bind(projections.collect::<Vec<_>>())
        .bind(numbers.collect::<Vec<_>>())
        .bind(partitions.collect::<Vec<_>>())
        .bind(own)
}
