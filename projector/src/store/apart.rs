//! The read models of one projection in a schema of their own, apart from the live ones: for a replay,
//! or to try another version.
//!
//! Invariant: nothing live changes: no table, no view, no checkpoint, no registered generation. A
//! schema that was made otherwise is never touched, and what others built on one is never dropped.
//! What stands in it is said in its table `annals_made`, in the transaction of the rows. Deliberately
//! absent: which commits are written (`run::uptake`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event_log::log::EventLog;
use event_log::subscription::Placed;
use position::{Partition, Position};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::declare::model::models_of;
use crate::declare::own_sql::{SqlCommit, with_names};
use crate::declare::projection::Projection;
use crate::declare::table::Table;
use crate::error::RuntimeError;
use crate::fold::batch::{Failure, takes_up};
use crate::fold::changes::Changes;
use crate::run::projector::connect_options;
use crate::store::generation::{Generation, name_in};
use crate::store::held::{self, NamedLog};
use crate::store::history::Order;
use crate::store::reader::show_schema_to_reader;
use crate::store::sql::{self, identifier, qualified_table, view_in};
use crate::store::write::{Way, WriteError, write_rows};
use crate::store::{describe, indexes, own_sql};

/// No registered generation has this number.
const APART: i32 = 0;
/// The table that says what stands in a schema, and marks it as one that was made here.
const MADE: &str = "annals_made";
/// The most bytes of a schema's name in Postgres.
const NAME_BYTES_MAX: usize = 63;
/// How often and how long one waits for a schema that somebody holds.
const HELD_TRIES: u32 = 10;
const HELD_PAUSE: Duration = Duration::from_millis(100);

/// What becomes of a schema that was made for the same purpose before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is done.
    Refused,
    /// It is dropped.
    Replaced,
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewApart<'a> {
    /// The schema.
    pub schema: &'a str,
    /// Who makes it, as in `annals replay`.
    pub by: &'a str,
    /// What becomes of an earlier one.
    pub existing: Existing,
}

/// Whether everything that was asked for is in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApartState {
    /// It is being filled, or its process died.
    Unfinished,
    /// It was left before the end on purpose.
    Stopped,
    /// All of it is there.
    Finished,
}

impl ApartState {
    /// Its name in the table `annals_made`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }
}

/// Where a schema stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether everything is there.
    pub state: ApartState,
    /// What stands there, for people.
    pub says: String,
    /// How many commits were folded.
    pub commits: u64,
    /// The last of them in each partition.
    pub positions: BTreeMap<Partition, Position>,
}

impl Standing {
    /// Nothing was written yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            state: ApartState::Unfinished,
            says: "nothing yet".to_owned(),
            commits: 0,
            positions: BTreeMap::new(),
        }
    }
}

/// What is to be written.
#[derive(Clone, Copy)]
pub(crate) enum Portion<'a> {
    /// Contributions.
    Changes(&'a Changes),
    /// Commits, for a projection with SQL of its own.
    Commits(&'a [Placed]),
}

/// The read models of one projection in a schema of their own.
pub struct Apart {
    generation: Generation,
    schema: String,
    /// Which command made it.
    by: String,
    connection: PgConnection,
    /// How rows get into the tables.
    way: Way,
}

impl Generation {
    /// Tables without a past in a schema of their own. No registry knows them.
    pub(crate) fn apart(projection: &Arc<dyn Projection>, schema: &str) -> Self {
        let name =
            |table: &Table| format!("{schema}.{}", name_in(&**projection, APART, table.name));
        Self {
            schema: Some(schema.into()),
            ..Self::without_history(projection, APART, &name)
        }
    }
}

impl Apart {
    /// Makes the schema with empty tables and views. It holds a lock on the schema's name as long as
    /// it lives, so that nobody else fills or replaces it meanwhile.
    ///
    /// # Errors
    /// `Apart` if the schema cannot be used; `InPlace`; `OtherLog`; `Postgres`, `Log`.
    pub async fn make(
        log: &dyn EventLog,
        url: &str,
        projection: &Arc<dyn Projection>,
        new: NewApart<'_>,
    ) -> Result<Self, RuntimeError> {
        require_name(new.schema)?;
        let own = projection.own_sql();
        if own.is_some_and(|own| own.reset().is_some()) {
            return Err(RuntimeError::InPlace {
                projection: projection.name().to_owned(),
                what: "built in another schema",
            });
        }
        let connect = RuntimeError::postgres("connect to Postgres");
        let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
        if let Some(named) = NamedLog::of(log).await? {
            held::require(&mut connection, &named).await?;
        }
        hold(&mut connection, new.schema).await?;
        let generation = Generation::apart(projection, new.schema);
        let begin = RuntimeError::postgres("begin a transaction");
        let mut tx = connection.begin().await.map_err(begin)?;
        make_room(&mut tx, new).await?;
        create(&mut tx, &generation, new).await?;
        let commit = RuntimeError::postgres("make a schema");
        tx.commit().await.map_err(commit)?;
        Ok(Self {
            generation,
            schema: new.schema.to_owned(),
            by: new.by.to_owned(),
            connection,
            way: Way::Copy,
        })
    }

    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The connection, and whose tables it fills.
    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &Generation) {
        (&mut self.connection, &self.generation)
    }

    /// From now on the tables may have rows.
    pub(crate) fn has_rows(&mut self) {
        self.way = Way::Merge;
    }

    /// Writes a portion, and where the schema then stands, in one transaction. After an error, nothing of
    /// the portion is there.
    pub(crate) async fn write(
        &mut self,
        portion: Portion<'_>,
        standing: &Standing,
    ) -> Result<(), Unwritten> {
        loop {
            self.begin().await?;
            match self.put(portion).await {
                Ok(()) => break,
                Err(error) => {
                    self.roll_back().await?;
                    match error {
                        // Some of the rows are there already, so that they cannot be copied.
                        Unwritten::Repeated => self.way = Way::Merge,
                        error => return Err(error),
                    }
                }
            }
        }
        Ok(self.commit(standing).await?)
    }

    /// Begins a transaction, which ends with [`Self::commit`] or [`Self::roll_back`].
    pub(crate) async fn begin(&mut self) -> Result<(), RuntimeError> {
        self.run("BEGIN", "begin a transaction").await
    }

    /// Writes a portion in the transaction that was begun. After an error, nothing but to roll it
    /// back can be done.
    pub(crate) async fn put(&mut self, portion: Portion<'_>) -> Result<(), Unwritten> {
        let connection = &mut self.connection;
        let written = match portion {
            Portion::Changes(changes) => {
                let (way, order) = (self.way, Order::Behind);
                write_rows(connection, &self.generation, 0, changes, way, order).await
            }
            Portion::Commits(commits) => apply(connection, &self.generation, commits).await,
        };
        Ok(written?)
    }

    /// Ends the transaction, and says where the schema stands.
    pub(crate) async fn commit(&mut self, standing: &Standing) -> Result<(), RuntimeError> {
        let update = format!(
            "UPDATE {} SET state = $1, says = $2, commits = $3, positions = $4::jsonb, \
                 changed_at = clock_timestamp()",
            self.made()
        );
        let positions = standing.positions.iter();
        let positions: BTreeMap<String, u64> =
            positions.map(|(p, at)| (p.to_string(), at.0)).collect();
        let positions = serde_json::to_string(&positions).expect("numbers can be written as JSON");
        sqlx::query(AssertSqlSafe(update))
            .bind(standing.state.name())
            .bind(&standing.says)
            .bind(i64::try_from(standing.commits).unwrap_or(i64::MAX))
            .bind(positions)
            .execute(&mut self.connection)
            .await
            .map_err(RuntimeError::postgres("say where a schema stands"))?;
        self.run("COMMIT", "commit rows").await
    }

    /// Gives up the transaction.
    pub(crate) async fn roll_back(&mut self) -> Result<(), RuntimeError> {
        self.run("ROLLBACK", "roll back a transaction").await
    }

    async fn run(&mut self, sql: &'static str, what: &'static str) -> Result<(), RuntimeError> {
        sqlx::raw_sql(sql)
            .execute(&mut self.connection)
            .await
            .map_err(RuntimeError::postgres(what))?;
        Ok(())
    }

    fn made(&self) -> String {
        qualified_table(&format!("{}.{MADE}", self.schema))
    }

    /// Drops the schema again, in which nothing was made yet.
    pub(crate) async fn discard(mut self) -> Result<(), RuntimeError> {
        // A transaction may be under way, or not.
        self.roll_back().await?;
        self.begin().await?;
        let all = NewApart {
            schema: &self.schema,
            by: &self.by,
            existing: Existing::Replaced,
        };
        make_room(&mut self.connection, all).await?;
        self.run("COMMIT", "drop a schema").await?;
        self.let_go().await
    }

    /// Makes the indexes of the tables beside those of their keys, and says where the schema stands.
    ///
    /// # Errors
    /// `Postgres`.
    pub async fn finish(mut self, standing: &Standing) -> Result<(), RuntimeError> {
        self.begin().await?;
        indexes::make_all(&mut self.connection, &self.generation).await?;
        self.commit(standing).await?;
        self.let_go().await
    }

    /// Gives the schema's name free. Closing the connection would do so a moment later.
    async fn let_go(mut self) -> Result<(), RuntimeError> {
        let let_go = "SELECT pg_advisory_unlock_all()";
        self.run(let_go, "give a schema free").await?;
        let _ = self.connection.close().await;
        Ok(())
    }
}

/// Why a portion was not written.
pub(crate) enum Unwritten {
    /// The tables already have some of the rows, so they cannot be copied.
    Repeated,
    /// Postgres refuses some rows.
    Refused {
        reason: String,
    },
    /// The projection's own SQL cannot take up a commit.
    Failed(Failure),
    Runtime(RuntimeError),
}

impl From<RuntimeError> for Unwritten {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

impl From<WriteError> for Unwritten {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Repeated => Self::Repeated,
            WriteError::Refused { reason, .. } => Self::Refused { reason },
            WriteError::Failed(failure) => Self::Failed(failure),
            WriteError::Blocked { reason, .. } => Self::Runtime(RuntimeError::Blocked { reason }),
            WriteError::Runtime(error) => Self::Runtime(error),
        }
    }
}

/// Applies the commits that a projection's own SQL takes up: each run of commits of one partition at
/// once.
async fn apply(
    connection: &mut PgConnection,
    generation: &Generation,
    commits: &[Placed],
) -> Result<(), WriteError> {
    let Some(own) = generation.projection.own_sql() else {
        return Ok(());
    };
    let commits = commits.iter().filter(|placed| takes_up(generation, placed));
    let commits: Vec<&Placed> = commits.collect();
    for run in commits.chunk_by(|one, next| one.partition == next.partition) {
        let run: Vec<SqlCommit<'_>> = run.iter().map(|placed| SqlCommit::new(placed)).collect();
        own_sql::apply(connection, generation, own, 0, &run).await?;
    }
    Ok(())
}

/// Refuses a name that would have to be quoted, and those that belong to Postgres.
fn require_name(schema: &str) -> Result<(), RuntimeError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let is_plain = schema.bytes().all(|b| is_letter(b) || b.is_ascii_digit())
        && schema.bytes().next().is_some_and(is_letter)
        && schema.len() <= NAME_BYTES_MAX
        && !schema.starts_with("pg_");
    match is_plain {
        true => Ok(()),
        false => Err(RuntimeError::Apart {
            schema: schema.to_owned(),
            reason: format!(
                "a name has letters a-z, digits and _, does not begin with a digit or pg_, and has at \
                 most {NAME_BYTES_MAX} characters"
            ),
        }),
    }
}

/// Holds the name of a schema as long as the connection lives. Postgres takes a moment to notice that
/// a process which had it is gone.
async fn hold(connection: &mut PgConnection, schema: &str) -> Result<(), RuntimeError> {
    let take = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
    for _ in 0..HELD_TRIES {
        let is_held: bool = sqlx::query_scalar(take)
            .bind(format!("annals.apart/{schema}"))
            .fetch_one(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("hold a schema"))?;
        if is_held {
            return Ok(());
        }
        tokio::time::sleep(HELD_PAUSE).await;
    }
    Err(RuntimeError::Apart {
        schema: schema.to_owned(),
        reason: "another process fills it now; name another one".to_owned(),
    })
}

/// Sees to it that there is no schema of this name.
async fn make_room(tx: &mut PgConnection, new: NewApart<'_>) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("look for a schema");
    let refused = |reason: String| RuntimeError::Apart {
        schema: new.schema.to_owned(),
        reason,
    };
    let is_there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(identifier(new.schema))
        .fetch_one(&mut *tx)
        .await
        .map_err(failed())?;
    if !is_there {
        return Ok(());
    }
    let made = qualified_table(&format!("{}.{MADE}", new.schema));
    // Another role may have made a table of this name, and what it says is not to be believed.
    let is_ours = "SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n \
                   ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid \
                   WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r' \
                       AND c.relowner = current_user::regrole \
                       AND n.nspowner = current_user::regrole AND a.attname = 'made_by')";
    let is_ours: bool = sqlx::query_scalar(is_ours)
        .bind(new.schema)
        .bind(MADE)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed())?;
    if !is_ours {
        let by = new.by;
        return Err(refused(format!(
            "it exists, and {by} did not make it; name another one"
        )));
    }
    let select = format!("SELECT made_by, projection, state, views, tables FROM {made}");
    type Made = (String, String, String, Vec<String>, Vec<String>);
    let found: Option<Made> = sqlx::query_as(AssertSqlSafe(select))
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed())?;
    let Some((by, projection, state, views, tables)) = found else {
        return Err(refused(
            "its table annals_made is empty; drop the schema, or name another one".into(),
        ));
    };
    if new.existing == Existing::Refused {
        return Err(refused(format!(
            "it has {projection} as {by} made it ({state}); replace it with --replace, or name another \
             one"
        )));
    }
    if by != new.by {
        return Err(refused(format!(
            "it has {projection} as {by} made it, and is not replaced by {}; name another one",
            new.by
        )));
    }
    let schema = identifier(new.schema);
    let drop_of = |kind: &'static str, names: Vec<String>| {
        let schema = schema.clone();
        let names = names.into_iter();
        names.map(move |name| format!("DROP {kind} IF EXISTS {schema}.{}", identifier(&name)))
    };
    let drops = drop_of("VIEW", views)
        .chain(drop_of("TABLE", tables))
        .chain([
            format!("DROP TABLE {made}"),
            format!("DROP SCHEMA {schema}"),
        ]);
    let drops = drops.collect::<Vec<_>>().join(";\n");
    match sqlx::raw_sql(AssertSqlSafe(drops)).execute(&mut *tx).await {
        Ok(_) => Ok(()),
        // 2BP01: something depends on it.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("2BP01") => {
            Err(refused(format!(
                "others built something on it, and it was not replaced: {}; drop that first, or name \
                 another one",
                error.message()
            )))
        }
        Err(error) => Err(RuntimeError::postgres("drop a schema")(error)),
    }
}

/// Makes the schema, its tables and its views.
async fn create(
    tx: &mut PgConnection,
    generation: &Generation,
    new: NewApart<'_>,
) -> Result<(), RuntimeError> {
    let projection = &*generation.projection;
    let schema = identifier(new.schema);
    let mut statements = vec![format!("CREATE SCHEMA {schema}")];
    let physical = |table: &str| generation.table_name(table);
    let mut tables = Vec::new();
    for table in projection.tables() {
        let name = physical(table.name);
        statements.push(sql::create_table(table, &name));
        statements.push(indexes::create_at_once(table, &name).replace(';', ""));
        statements.push(describe::describe_table(table, &name));
        tables.push(name_in(projection, APART, table.name));
    }
    if let Some(own) = projection.own_sql() {
        let name_of = |table: &str| qualified_table(&physical(table));
        statements.push(with_names(own.prepare(), projection.tables(), &name_of));
    }
    let mut views = Vec::new();
    for model in models_of(projection) {
        let view = view_in(&schema, model.name);
        let select = sql::select_of(&model, "", &|table| qualified_table(&physical(table)));
        statements.push(format!("CREATE VIEW {view} AS\n{select}"));
        let comments = describe::comments(&model, sql::VIEW_SCHEMA).into_iter();
        statements.extend(comments.map(|comment| comment.on_view(&schema, model.name)));
        views.push(model.name.to_owned());
    }
    let made = qualified_table(&format!("{}.{MADE}", new.schema));
    statements.push(format!(
        "CREATE TABLE {made} (made_by text NOT NULL, projection text NOT NULL, \
         version integer NOT NULL, state text NOT NULL, says text NOT NULL, commits bigint NOT NULL, \
         positions jsonb NOT NULL, views text[] NOT NULL, tables text[] NOT NULL, \
         started_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
         changed_at timestamptz NOT NULL DEFAULT clock_timestamp());\n\
         COMMENT ON TABLE {made} IS \
         'What stands in this schema. state: unfinished, stopped before the end, or finished.'"
    ));
    statements.retain(|statement| !statement.trim().is_empty());
    let failed = || RuntimeError::postgres("make a schema");
    sqlx::raw_sql(AssertSqlSafe(statements.join(";\n")))
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let insert = format!(
        "INSERT INTO {made} (made_by, projection, version, state, says, commits, positions, views, \
         tables) VALUES ($1, $2, $3, $4, 'nothing yet', 0, '{{}}', $5, $6)"
    );
    sqlx::query(AssertSqlSafe(insert))
        .bind(new.by)
        .bind(projection.name())
        .bind(i32::try_from(projection.version()).expect("versions are small numbers"))
        .bind(ApartState::Unfinished.name())
        .bind(&views)
        .bind(tables)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    show_schema_to_reader(tx, &schema, &views, &made).await
}
