//! Compares a few random streams with the live rows from time to time, beside the running projector.
//!
//! Invariant: one process at a time checks a projection, and a check changes nothing. What differs is
//! said until a later check of the same stream finds it equal, or other tables are live. The streams
//! that differ are looked at again in turns, so that each is.
//! Deliberately absent: the comparison itself (`sample`), and rows that many streams feed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_log::log::EventLog;
use kernel::explained;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use uuid::Uuid;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::measure;
use crate::run::sample::{Choice, Chosen, SampleOf, Sampled, Snapshot};
use crate::store::held;

/// How many streams one check chooses, and how many that differed it looks at again.
const STREAMS: usize = 4;
/// The most streams with differences that are remembered of a projection.
const REMEMBERED_MAX: usize = 100;
/// The most differences that are said of a projection one by one.
const SAID_MAX: usize = 5;
/// How long a check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// A stream whose rows differ.
#[derive(Clone, Debug)]
struct Differing {
    chosen: Chosen,
    rows: u64,
    /// What differs, for people.
    said: Vec<String>,
    /// When it was last looked at, or that was last tried.
    looked_at: Instant,
}

/// What is known to differ in one projection.
#[derive(Debug, Default)]
struct Known {
    generation: i32,
    /// By the tenant and the name of the stream.
    streams: BTreeMap<String, Differing>,
}

impl Known {
    /// Takes in a check of `chosen`, which was made at `now`.
    fn take(&mut self, projection: &str, chosen: &[Chosen], sampled: &Sampled, now: Instant) {
        if self.generation != sampled.generation {
            *self = Self {
                generation: sampled.generation,
                streams: BTreeMap::new(),
            };
        }
        let is_left_out = |name: &String| sampled.left_out.iter().any(|one| one.stream == *name);
        for one in chosen {
            let name = format!("{}/{}", one.0.tenant, one.0.stream);
            if is_left_out(&name) {
                if let Some(differing) = self.streams.get_mut(&name) {
                    differing.looked_at = now;
                }
                continue;
            }
            let (mut said, mut rows) = (Vec::new(), std::collections::BTreeSet::new());
            for table in &sampled.tables {
                let own = table.differences.iter().filter(|(of, _)| *of == name);
                for (_, difference) in own {
                    let column = match &difference.column {
                        Some(column) => format!("column {column} of row {}", difference.key),
                        None => format!("row {}", difference.key),
                    };
                    rows.insert((table.table.as_str(), difference.key.as_str()));
                    said.push(format!(
                        "{projection}: {column} in {} differs from the log; annals projections \
                         verify {projection}",
                        table.table
                    ));
                }
            }
            if said.is_empty() {
                self.streams.remove(&name);
            } else if self.streams.len() < REMEMBERED_MAX || self.streams.contains_key(&name) {
                let differing = Differing {
                    chosen: one.clone(),
                    rows: rows.len() as u64,
                    said,
                    looked_at: now,
                };
                self.streams.insert(name, differing);
            }
        }
    }

    fn rows(&self) -> u64 {
        self.streams.values().map(|stream| stream.rows).sum()
    }

    /// Some of what differs, one sentence for each value, and how much more.
    fn said(&self, projection: &str) -> Vec<String> {
        let all = self.streams.values().flat_map(|stream| &stream.said);
        let more = all.clone().skip(SAID_MAX).count();
        let mut said: Vec<String> = all.take(SAID_MAX).cloned().collect();
        if more > 0 {
            said.push(format!(
                "{projection}: {more} more values or rows differ from the log"
            ));
        }
        said
    }

    /// The streams that differ and were looked at longest ago. They count as looked at from now on,
    /// even if the check fails: then it is the turn of others.
    fn due_again(&mut self, now: Instant) -> Vec<Chosen> {
        let mut streams: Vec<&mut Differing> = self.streams.values_mut().collect();
        streams.sort_by_key(|one| one.looked_at);
        let first = streams.into_iter().take(STREAMS);
        let chosen = first.map(|one| {
            one.looked_at = now;
            one.chosen.clone()
        });
        chosen.collect()
    }
}

/// What the checks of a process have found.
#[derive(Clone, Default)]
pub(crate) struct Findings(Arc<Mutex<BTreeMap<&'static str, Known>>>);

impl Findings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Known>> {
        // No code that could panic half-way runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs, for people: a few sentences for each projection.
    pub(crate) fn said(&self) -> Vec<String> {
        let all = self.lock();
        let said = all.iter().flat_map(|(name, known)| known.said(name));
        said.collect()
    }

    /// Some of the streams that differed, if these tables are live.
    fn to_check_again(&self, projection: &str, generation: i32, now: Instant) -> Vec<Chosen> {
        let mut all = self.lock();
        let own = all.get_mut(projection);
        let own = own.filter(|known| known.generation == generation);
        own.map_or_else(Vec::new, |known| known.due_again(now))
    }

    /// Forgets what differed in a projection. Returns whether anything was known.
    fn forget(&self, projection: &str) -> bool {
        self.lock().remove(projection).is_some()
    }
}

/// Checks one projection after the other, one every `every`, until the task is dropped.
pub(crate) async fn run(
    log: Arc<dyn EventLog>,
    postgres: PgConnectOptions,
    projections: Vec<Arc<dyn Projection>>,
    every: Duration,
    findings: Findings,
) {
    let is_cheap = |p: &Arc<dyn Projection>| Snapshot::is_cheap(&**p);
    let checked: Vec<_> = projections.into_iter().filter(is_cheap).collect();
    if checked.is_empty() {
        return;
    }
    let mut kept = None;
    for projection in checked.iter().cycle() {
        tokio::time::sleep(every).await;
        let check = check(&*log, &postgres, &mut kept, projection, &findings);
        match tokio::time::timeout(CHECK_LIMIT, check).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(
                projection = projection.name(),
                reason = explained(&error),
                "a read model was not checked"
            ),
            Err(_elapsed) => tracing::debug!(
                projection = projection.name(),
                "the check of a read model took too long"
            ),
        }
    }
}

async fn check(
    log: &dyn EventLog,
    postgres: &PgConnectOptions,
    kept: &mut Option<PgConnection>,
    projection: &Arc<dyn Projection>,
    findings: &Findings,
) -> Result<(), RuntimeError> {
    // It is taken out, so that after an error the next check connects again.
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let connect = RuntimeError::postgres("connect to Postgres");
            let mut connection = postgres.connect().await.map_err(connect)?;
            held::take(&mut connection, log).await?;
            connection
        }
    };
    let name = projection.name();
    if lock(&mut connection, "pg_try_advisory_lock", name).await? {
        let began = Instant::now();
        match compare(log, &mut connection, projection, findings, began).await? {
            Some((chosen, sampled)) => {
                let mut all = findings.lock();
                let known = all.entry(name).or_default();
                let before = known.rows();
                known.take(name, &chosen, &sampled, began);
                let rows = known.rows();
                measure::verified(name, sampled.streams as u64, rows);
                if rows > before {
                    tracing::error!(projection = name, rows, "rows differ from the log");
                }
            }
            // What differed is no longer live.
            None if findings.forget(name) => measure::verified(name, 0, 0),
            None => {}
        }
        lock(&mut connection, "pg_advisory_unlock", name).await?;
    }
    *kept = Some(connection);
    Ok(())
}

async fn compare(
    log: &dyn EventLog,
    connection: &mut PgConnection,
    projection: &Arc<dyn Projection>,
    findings: &Findings,
    now: Instant,
) -> Result<Option<(Vec<Chosen>, Sampled)>, RuntimeError> {
    let mut snapshot = match Snapshot::begin(connection, projection).await {
        Ok(snapshot) => snapshot,
        // There are no rows of this program's rule.
        Err(RuntimeError::NotVerified { .. }) => {
            Snapshot::leave(connection).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut chosen = findings.to_check_again(projection.name(), snapshot.generation(), now);
    let sample = SampleOf {
        streams: STREAMS,
        seed: Uuid::new_v4().as_u64_pair().0.cast_signed(),
    };
    chosen.extend(snapshot.choose(sample, Choice::Pages).await?);
    chosen.sort_unstable();
    chosen.dedup();
    let sampled = snapshot.compare(log, chosen.clone()).await?;
    Snapshot::leave(connection).await?;
    Ok(Some((chosen, sampled)))
}

/// Takes or gives back the lock of the one process that checks a projection.
async fn lock(
    connection: &mut PgConnection,
    how: &'static str,
    projection: &str,
) -> Result<bool, RuntimeError> {
    let statement = match how {
        "pg_advisory_unlock" => "SELECT pg_advisory_unlock(hashtextextended($1, 0))",
        _ => "SELECT pg_try_advisory_lock(hashtextextended($1, 0))",
    };
    sqlx::query_scalar(statement)
        .bind(format!("annals.verify/{projection}"))
        .fetch_one(connection)
        .await
        .map_err(RuntimeError::postgres(
            "take turns at checking a read model",
        ))
}

#[cfg(test)]
mod tests {
    use position::Partition;

    use super::*;
    use crate::fold::parked::StreamId;
    use crate::run::sample::{LeftOut, SampledTable};
    use crate::store::compare::Difference;

    fn chosen(stream: &str) -> Chosen {
        let stream = StreamId {
            tenant: "main".to_owned(),
            stream: stream.to_owned(),
        };
        (stream, Partition(0))
    }

    fn sampled(generation: i32, differing: &[&str], left_out: &[&str]) -> Sampled {
        let difference = |stream: &&str| {
            let difference = Difference {
                key: "(main,7)".to_owned(),
                column: Some("status".to_owned()),
                live: Some("lost".to_owned()),
                new: Some("found".to_owned()),
            };
            (format!("main/{stream}"), difference)
        };
        Sampled {
            generation,
            streams: 1,
            commits: 1,
            tables: vec![SampledTable {
                table: "orders".to_owned(),
                rows: 1,
                differing: differing.len() as u64,
                not_compared: Vec::new(),
                differences: differing.iter().map(difference).collect(),
            }],
            skipped: Vec::new(),
            left_out: left_out
                .iter()
                .map(|stream| LeftOut {
                    stream: format!("main/{stream}"),
                    reason: "it is parked".to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_difference_is_said_until_the_stream_is_equal_or_other_tables_are_live() {
        let mut known = Known::default();
        let now = Instant::now();
        let both = [chosen("a-1"), chosen("a-2")];
        known.take("sales", &both, &sampled(1, &["a-1", "a-2"], &[]), now);
        assert_eq!(known.rows(), 2);
        let said = &known.streams["main/a-1"].said;
        let expected = "sales: column status of row (main,7) in orders differs from the log; annals \
                        projections verify sales";
        assert_eq!(said, &[expected]);
        // Another stream is equal; this one could not be compared.
        known.take("sales", &[chosen("a-3")], &sampled(1, &[], &[]), now);
        known.take("sales", &both[..1], &sampled(1, &[], &["a-1"]), now);
        assert_eq!(known.rows(), 2);
        known.take("sales", &both[..1], &sampled(1, &[], &[]), now);
        assert_eq!(known.rows(), 1);
        known.take("sales", &[chosen("a-3")], &sampled(2, &[], &[]), now);
        assert_eq!(known.rows(), 0);
    }

    #[test]
    fn each_stream_that_differs_is_looked_at_again_and_a_few_are_said() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let names = ["a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7"];
        let all = names.map(chosen);
        let findings = Findings::default();
        let take = |chosen: &[Chosen], sampled: &Sampled, now| {
            let mut all = findings.lock();
            let known = all.entry("sales").or_default();
            known.take("sales", chosen, sampled, now);
        };
        take(&all, &sampled(1, &names, &[]), at(0));
        let said = findings.said();
        assert_eq!(said.len(), SAID_MAX + 1);
        let more = "sales: 2 more values or rows differ from the log";
        assert_eq!(said[SAID_MAX], more);
        // The first four still differ, or cannot be compared.
        let first = findings.to_check_again("sales", 1, at(1));
        assert_eq!(first, all[..4]);
        let left_out = ["a-3", "a-4"];
        take(&first, &sampled(1, &["a-1", "a-2"], &left_out), at(1));
        // The rest is next, even if the check of the first four had failed.
        let next = findings.to_check_again("sales", 1, at(2));
        assert_eq!(next[..3], all[4..]);
        take(&next[..3], &sampled(1, &[], &[]), at(2));
        assert_eq!(findings.said().len(), 4);
        assert_eq!(findings.to_check_again("sales", 2, at(3)), []);
        // Another rule is live.
        assert!(findings.forget("sales"));
        assert_eq!(findings.said(), Vec::<String>::new());
        assert!(!findings.forget("sales"));
    }
}
