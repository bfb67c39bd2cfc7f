//! Folds a few streams afresh and compares what they give with the live rows.
//!
//! Invariant: rows, checkpoints and the places of commits come from one snapshot of Postgres, and a
//! stream is folded up to the checkpoint of that snapshot: so a difference is one, however busy the
//! log is. Memory holds one piece of the log and the rows of the sampled streams. Deliberately
//! absent: rows that many streams feed; only a fold of the whole log tells them (`conduct`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event_log::accepted::read_accepted;
use event_log::checkpoint::Checkpoint;
use event_log::commit::Commit;
use event_log::log::{EventLog, LogError};
use event_log::record::{Record, record_hash};
use event_log::subscription::Placed;
use kernel::{StreamName, TenantId};
use position::{Offset, Partition, Position};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqlStr};

use crate::STREAM_INDEX;
use crate::declare::entry::Entry;
use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::fold::batch::{self, Places};
use crate::fold::changes::Changes;
use crate::fold::parked::StreamId;
use crate::models::places::{self, StreamPlaces};
use crate::run::projector::connect_options;
use crate::store::compare::Difference;
use crate::store::generation::{self, Generation};
use crate::store::sample::{self, Told};
use crate::store::sql::qualified_table;
use crate::store::{checkpoint, held, parked};

/// The most streams of one sample.
pub const SAMPLE_STREAMS_MAX: usize = 10_000;
/// How many commits of a stream are read at once.
const COMMITS_READ_MAX: u32 = 64;
/// A stream that gives more rows than this is left out.
const ROWS_MAX: usize = 20_000;
/// For how long the snapshot may be silent while the log is read; a command has no limit.
const SNAPSHOT: &str = "SET idle_in_transaction_session_timeout = '60s'; \
                        BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Which streams are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOf {
    /// How many.
    pub streams: usize,
    /// Decides which; the same number gives the same streams as long as there are the same.
    pub seed: i64,
}

/// What a sample found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The live generation that was compared.
    pub generation: i32,
    /// How many streams were folded and compared.
    pub streams: usize,
    /// How many of their commits were read.
    pub commits: u64,
    /// The tables that were compared.
    pub tables: Vec<SampledTable>,
    /// The tables of which one stream tells nothing, because many streams feed their rows.
    pub skipped: Vec<String>,
    /// The streams that were left out.
    pub left_out: Vec<LeftOut>,
}

/// What a sample found in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledTable {
    /// Its name.
    pub table: String,
    /// How many rows the streams give.
    pub rows: u64,
    /// How many rows differ.
    pub differing: u64,
    /// The columns that many streams feed, which were not compared.
    pub not_compared: Vec<String>,
    /// Some of the differences, each with its stream.
    pub differences: Vec<(String, Difference)>,
}

/// A stream that could not be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The tenant and the stream.
    pub stream: String,
    /// Why.
    pub reason: String,
}

impl Sampled {
    /// Whether no row differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(|table| table.differing == 0)
    }

    /// Whether everything that was asked for was compared.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_whole = |table: &SampledTable| table.not_compared.is_empty();
        self.skipped.is_empty() && self.left_out.is_empty() && self.tables.iter().all(is_whole)
    }
}

/// Compares a sample of streams with the live rows of a projection.
///
/// # Errors
/// `Unknown`; `NotReady` if there are no live rows of this program's rule, or no stream index;
/// `Postgres`, `Log`, `Stop`.
pub async fn verify_sample(
    log: &Arc<dyn EventLog>,
    url: &str,
    projections: &[Arc<dyn Projection>],
    name: &str,
    sample: SampleOf,
) -> Result<Sampled, RuntimeError> {
    let found = projections.iter().find(|p| p.name() == name);
    let projection = found.ok_or_else(|| RuntimeError::unknown(projections, name))?;
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    held::take(&mut connection, &**log).await?;
    let mut snapshot = Snapshot::begin(&mut connection, projection).await?;
    snapshot.lift_limit().await?;
    let streams = snapshot.choose(sample, Choice::Even).await?;
    let sampled = snapshot.compare(&**log, streams).await;
    let _ = connection.close().await;
    sampled
}

/// How streams are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Each with the same chance: reads the whole stream index.
    Even,
    /// From a few random pages of the stream index.
    Pages,
}

/// A stream and its partition.
pub(crate) type Chosen = (StreamId, Partition);

/// The live rows at one moment.
pub(crate) struct Snapshot<'c> {
    connection: &'c mut PgConnection,
    live: Generation,
    places: Places,
    /// How far the stream index has come, its table of streams, and how the places of a stream are
    /// read. The tables are those of the snapshot: the views may name others meanwhile, of which
    /// the snapshot sees no rows.
    index: Places,
    index_table: String,
    index_places: SqlStr,
}

impl<'c> Snapshot<'c> {
    /// Begins a read-only transaction, which ends with the connection or [`Self::leave`].
    pub(crate) async fn begin(
        connection: &'c mut PgConnection,
        projection: &Arc<dyn Projection>,
    ) -> Result<Self, RuntimeError> {
        let name = projection.name();
        sqlx::raw_sql(SNAPSHOT)
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("hold the live rows in a snapshot"))?;
        let not_ready = |reason: &str| RuntimeError::NotVerified {
            projection: name.to_owned(),
            reason: reason.to_owned(),
        };
        if projection.own_sql().is_some() {
            return Err(not_ready(
                "it writes its rows with SQL of its own; leave out --sample",
            ));
        }
        let live = generation::of_live(connection, projection).await?;
        let live =
            live.ok_or_else(|| not_ready("there are no live rows of this program's rule"))?;
        let index = generation::live(connection, STREAM_INDEX).await?;
        let index = index.ok_or_else(|| not_ready("there is no stream index yet"))?;
        let index_table = |table| qualified_table(&index.table_name(table));
        let (streams, commits) = (index_table(STREAM_INDEX), index_table("stream_commits"));
        Ok(Self {
            places: checkpoint::load(connection, name, live.number).await?,
            index: checkpoint::load(connection, STREAM_INDEX, index.number).await?,
            index_places: places::select(&streams, &commits),
            index_table: streams,
            live,
            connection,
        })
    }

    /// Lets the snapshot be silent for any time: a scan of the log may take minutes.
    async fn lift_limit(&mut self) -> Result<(), RuntimeError> {
        sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            .execute(&mut *self.connection)
            .await
            .map_err(RuntimeError::postgres("hold the live rows in a snapshot"))?;
        Ok(())
    }

    pub(crate) fn generation(&self) -> i32 {
        self.live.number
    }

    /// Ends the transaction, so that the connection can be used on.
    pub(crate) async fn leave(connection: &mut PgConnection) -> Result<(), RuntimeError> {
        sqlx::raw_sql("ROLLBACK")
            .execute(connection)
            .await
            .map_err(RuntimeError::postgres("end a snapshot"))?;
        Ok(())
    }

    /// The categories whose events the projection takes up; empty: it looks at whole commits.
    fn categories(&self) -> Vec<String> {
        let takes = self.live.projection.takes().into_iter();
        let categories: BTreeSet<&str> = takes.map(|takes| takes.category).collect();
        categories.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Streams that the projection may have rows of.
    pub(crate) async fn choose(
        &mut self,
        sample: SampleOf,
        choice: Choice,
    ) -> Result<Vec<Chosen>, RuntimeError> {
        let failed = || RuntimeError::postgres("choose streams");
        let mut from = self.index_table.clone();
        if choice == Choice::Pages {
            let pages = "SELECT greatest(1, pg_relation_size(to_regclass($1)) \
                         / current_setting('block_size')::bigint)";
            let pages: i64 = sqlx::query_scalar(pages)
                .bind(&self.index_table)
                .fetch_one(&mut *self.connection)
                .await
                .map_err(failed())?;
            // About four pages. The share is a number, and no text of a request.
            from = format!("{from} TABLESAMPLE SYSTEM (least(100, 400.0 / {pages}))");
        }
        let select = format!(
            "SELECT tenant, stream, partition FROM {from} \
             WHERE $1::text[] = '{{}}' OR category = ANY($1) \
             ORDER BY hashtextextended(tenant || '/' || stream, $2), tenant, stream LIMIT $3"
        );
        let streams = sample.streams.min(SAMPLE_STREAMS_MAX);
        let rows: Vec<(String, String, i64)> = sqlx::query_as(AssertSqlSafe(select))
            .bind(self.categories())
            .bind(sample.seed)
            .bind(i64::try_from(streams).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.connection)
            .await
            .map_err(failed())?;
        let chosen = |(tenant, stream, partition)| {
            let partition = u32::try_from(partition).unwrap_or(u32::MAX);
            (StreamId { tenant, stream }, Partition(partition))
        };
        Ok(rows.into_iter().map(chosen).collect())
    }

    /// Whether a sample tells anything, and the stream index is enough to read it.
    pub(crate) fn is_cheap(projection: &dyn Projection) -> bool {
        let mut tables = projection.tables().iter();
        !projection.takes().is_empty()
            && projection.own_sql().is_none()
            && tables.any(|table| Told::of(table) != Told::Nothing)
    }

    /// Folds the streams, and compares what they give with the rows.
    pub(crate) async fn compare(
        &mut self,
        log: &dyn EventLog,
        streams: Vec<Chosen>,
    ) -> Result<Sampled, RuntimeError> {
        let tables = self.live.projection.tables();
        let told = tables.iter().map(|table| (table, Told::of(table)));
        let (skipped, compared): (Vec<_>, Vec<_>) = told.partition(|(_, t)| *t == Told::Nothing);
        let mut sampled = Sampled {
            generation: self.live.number,
            streams: 0,
            commits: 0,
            tables: Vec::new(),
            skipped: skipped.iter().map(|(t, _)| t.name.to_owned()).collect(),
            left_out: Vec::new(),
        };
        for (table, told) in &compared {
            sampled.tables.push(SampledTable {
                table: table.name.to_owned(),
                rows: 0,
                differing: 0,
                not_compared: told.not_compared(table),
                differences: Vec::new(),
            });
        }
        if compared.is_empty() {
            return Ok(sampled);
        }
        let mut folds = self.begin_folds(streams).await?;
        if self.categories().is_empty() {
            // Also refused commands count, which have no place in the index.
            self.scan(log, &mut folds).await?;
            for fold in folds {
                self.compare_one(fold, &mut sampled).await?;
            }
        } else {
            for mut fold in folds {
                self.read(log, &mut fold).await?;
                self.compare_one(fold, &mut sampled).await?;
            }
        }
        Ok(sampled)
    }

    async fn begin_folds(&mut self, streams: Vec<Chosen>) -> Result<Vec<Fold>, RuntimeError> {
        let partitions: BTreeSet<Partition> = streams.iter().map(|(_, p)| *p).collect();
        let partitions: Vec<Partition> = partitions.into_iter().collect();
        let id = self.live.id();
        let parked = parked::load(self.connection, &id, &partitions).await?;
        let discarded = parked::discarded(self.connection, &id.projection, &partitions).await?;
        let discarded = Arc::new(discarded);
        let tables = self.live.projection.tables();
        let begin = |(stream, partition): Chosen| Fold {
            left_out: parked.contains(&stream).then(|| "it is parked".to_owned()),
            until: self.places.get(&partition).cloned(),
            discarded: Arc::clone(&discarded),
            changes: Changes::new(tables),
            commits: 0,
            partition,
            stream,
        };
        Ok(streams.into_iter().map(begin).collect())
    }

    /// Reads the commits of one stream, found by the stream index.
    async fn read(&mut self, log: &dyn EventLog, fold: &mut Fold) -> Result<(), RuntimeError> {
        let (Some(until), None) = (fold.until.clone(), &fold.left_out) else {
            return Ok(());
        };
        let index = self.index.get(&fold.partition);
        if index.is_none_or(|index| index.offset < until.offset) {
            fold.left_out = Some("the stream index is behind the read model".to_owned());
            return Ok(());
        }
        let names = (fold.stream.tenant.parse(), fold.stream.stream.parse());
        let (Ok(tenant), Ok(stream)): (Result<TenantId, _>, Result<StreamName, _>) = names else {
            fold.left_out = Some("its name cannot be read".to_owned());
            return Ok(());
        };
        let mut from = 1;
        loop {
            let places = StreamPlaces::by(
                self.index_places.clone(),
                &mut *self.connection,
                &tenant,
                &stream,
                from,
                COMMITS_READ_MAX,
            );
            let places = places
                .await
                .map_err(RuntimeError::postgres("find the places of a stream"))?;
            let Some(places) = places else { return Ok(()) };
            let commits = places.commits.iter();
            let commits: Vec<_> = commits.filter(|c| c.offset <= until.offset).collect();
            let offsets: Vec<Offset> = commits.iter().map(|place| place.offset).collect();
            let records = log.read_at(fold.partition, &offsets).await?;
            for (place, record) in commits.iter().zip(records) {
                let is_same = |record: &Record| record_hash(record).0[..] == place.record_hash[..];
                let Some(record) = record.filter(is_same) else {
                    let (partition, offset) = (fold.partition, place.offset);
                    fold.left_out = Some(format!(
                        "the record at {partition}:{offset} is not the one that was read before"
                    ));
                    return Ok(());
                };
                from = fold.take(&self.live, record, place.position)? + 1;
            }
            if fold.left_out.is_some() || commits.len() < COMMITS_READ_MAX as usize {
                return Ok(());
            }
        }
    }

    /// Reads the partitions of the streams once, up to the checkpoints.
    async fn scan(&self, log: &dyn EventLog, folds: &mut [Fold]) -> Result<(), RuntimeError> {
        let mut by_partition: BTreeMap<Partition, BTreeMap<StreamId, &mut Fold>> = BTreeMap::new();
        for fold in folds {
            let own = by_partition.entry(fold.partition).or_default();
            own.insert(fold.stream.clone(), fold);
        }
        for (partition, mut own) in by_partition {
            let Some(until) = self.places.get(&partition).map(|at| at.offset) else {
                continue;
            };
            let read = read_accepted(log, partition, |record, position| {
                if record.offset > until {
                    return Err(Scan::Done);
                }
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                let read = Commit::read(key.unwrap_or_default(), value.unwrap_or_default());
                // What counts was read before.
                let Ok(commit) = read else { return Ok(()) };
                let stream = StreamId {
                    tenant: commit.tenant.as_str().to_owned(),
                    stream: commit.stream.as_str().to_owned(),
                };
                if let Some(fold) = own.get_mut(&stream) {
                    fold.fold(&self.live, record.clone(), position, commit);
                }
                Ok(())
            });
            match read.await {
                Ok(None) | Err(Scan::Done) => {}
                Ok(Some(stop)) => return Err(stop.into()),
                Err(Scan::Log(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn compare_one(&mut self, fold: Fold, sampled: &mut Sampled) -> Result<(), RuntimeError> {
        let name = format!("{}/{}", fold.stream.tenant, fold.stream.stream);
        if let Some(reason) = fold.left_out {
            let stream = name;
            sampled.left_out.push(LeftOut { stream, reason });
            return Ok(());
        }
        sampled.streams += 1;
        sampled.commits += fold.commits;
        for table in fold.changes.tables() {
            let shown = sampled.tables.iter_mut();
            let Some(shown) = shown.into_iter().find(|one| one.table == table.table.name) else {
                continue;
            };
            let physical = self.live.table_name(table.table.name);
            let found = sample::compare(self.connection, table, &physical, &fold.stream).await?;
            shown.rows += table.remaining().len() as u64;
            shown.differing += found.rows;
            let differences = found.differences.into_iter();
            shown
                .differences
                .extend(differences.map(|d| (name.clone(), d)));
        }
        Ok(())
    }
}

/// Why a scan ended before the log's end.
enum Scan {
    /// The checkpoint was reached.
    Done,
    Log(LogError),
}

impl From<LogError> for Scan {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// One stream, being folded.
struct Fold {
    stream: StreamId,
    partition: Partition,
    /// How far the rows have come.
    until: Option<Checkpoint>,
    discarded: Arc<BTreeMap<(Partition, Position), Vec<u8>>>,
    changes: Changes,
    commits: u64,
    left_out: Option<String>,
}

impl Fold {
    /// Takes up the commit in a record. Returns the version behind it.
    fn take(
        &mut self,
        live: &Generation,
        record: Record,
        position: Position,
    ) -> Result<u64, RuntimeError> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        match Commit::read(key.unwrap_or_default(), value.unwrap_or_default()) {
            Ok(commit) => {
                let version = commit.version();
                self.fold(live, record, position, commit);
                Ok(version)
            }
            Err(error) => {
                self.left_out = Some(format!("a commit cannot be read: {error}"));
                Ok(0)
            }
        }
    }

    fn fold(&mut self, live: &Generation, record: Record, position: Position, commit: Commit) {
        if self.left_out.is_some() {
            return;
        }
        let discarded = self.discarded.get(&(self.partition, position));
        if discarded.is_some_and(|hash| hash[..] == record_hash(&record).0[..]) {
            return;
        }
        let placed = Placed {
            partition: self.partition,
            position,
            at: commit.recorded_at,
            record,
            commit,
            is_checked: true,
        };
        self.commits += 1;
        if let Err(failure) = batch::project(live, &mut self.changes, &Entry::new(&placed)) {
            self.left_out = Some(format!("it cannot be folded: {}", failure.reason));
        } else if self.changes.row_count() > ROWS_MAX {
            self.left_out = Some(format!("it gives more than {ROWS_MAX} rows"));
        }
    }
}
