//! Projections with SQL of their own, for what declarations cannot say: ranges, full-text search,
//! PostGIS, tables that another program made.
//!
//! Such a projection gets the transaction that also moves its checkpoint, and the commits of one
//! partition in their order; so what it writes has the effect of each commit exactly once. It
//! stops at a commit that it cannot take up, since only its author knows what one stream means for
//! the rows. Deliberately absent: the runtime around it (`store::own_sql`).

use std::future::Future;
use std::pin::Pin;

use event_log::commit::{Commit, EventPart};
use event_log::subscription::Placed;
use kernel::{Decider, Message as _, Timestamp};
use position::{Offset, Partition, Position};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::history::History;
use crate::declare::projection::{OnError, Projection, Takes};
use crate::declare::table::Table;
use crate::fold::changes::Changes;

/// A projection that writes its rows with SQL of its own. [`with_sql`] makes a [`Projection`] of it.
///
/// Its tables are declared as others are, so that they have keys, views, descriptions and indexes,
/// are built anew beside the live ones, compared and switched. Only their rows come from here.
pub trait SqlProjection: Send + Sync + 'static {
    /// As [`Projection::name`].
    fn name(&self) -> &'static str;

    /// As [`Projection::version`].
    fn version(&self) -> u32;

    /// The tables that it writes. The merge rules of their columns are not used, but for their
    /// types. Empty if it writes tables that others made; then [`reset`](Self::reset) is needed.
    fn tables(&self) -> &'static [Table] {
        &[]
    }

    /// The events that it takes up: it gets the commits that have one of them. Empty: it gets
    /// all accepted commits, also refusals.
    fn takes(&self) -> Vec<Takes> {
        Vec::new()
    }

    /// Statements for what the declarations of its tables cannot say: further columns, indexes,
    /// triggers. They run once, in the transaction that creates the tables. The name of a table in
    /// braces stands for the table, as `{loan_periods}`.
    fn prepare(&self) -> &'static str {
        ""
    }

    /// Statements that remove all of its rows from tables that others made. They run in the
    /// transaction with which a rebuild begins: until the rebuild has caught up, readers see the
    /// rows come back. Such a read model cannot be built beside the live one, nor be compared.
    fn reset(&self) -> Option<&'static str> {
        None
    }

    /// Writes what `commits` mean, all of one partition, in its order. Other partitions are written
    /// at the same time, on other connections.
    ///
    /// It must not end the transaction, and must not read what the transaction does not hold: a
    /// clock, a random number, rows of other projections. Then a rebuild makes the same rows.
    ///
    /// # Errors
    /// An event that cannot be read, or what Postgres said. If it is of the moment, as a deadlock or
    /// a lost connection, the transaction is tried again; otherwise the projection stops at the
    /// commit.
    fn apply(
        &self,
        commits: &[SqlCommit<'_>],
        transaction: &mut SqlTransaction<'_>,
    ) -> impl Future<Output = Result<(), SqlError>> + Send;
}

/// Why commits could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// An event cannot be read.
    #[error(transparent)]
    Event(#[from] ProjectError),
    /// Postgres refused a statement.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// One accepted commit, as a projection with SQL of its own sees it.
#[derive(Clone, Copy)]
pub struct SqlCommit<'a>(&'a Placed);

impl<'a> SqlCommit<'a> {
    pub(crate) fn new(placed: &'a Placed) -> Self {
        Self(placed)
    }

    /// The commit.
    #[must_use]
    pub fn commit(&self) -> &'a Commit {
        &self.0.commit
    }

    /// The tenant of its stream: the first column of each declared table.
    #[must_use]
    pub fn tenant(&self) -> &'a str {
        self.0.commit.tenant.as_str()
    }

    /// The id of its stream.
    #[must_use]
    pub fn stream_id(&self) -> &'a str {
        self.0.commit.stream.id()
    }

    /// The version of its stream after it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.commit.version()
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.0.partition
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.0.record.offset
    }

    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.position
    }

    /// Its events with their business times; none if it is of another aggregate.
    ///
    /// # Errors
    /// [`ProjectError::Event`] if one of them cannot be read.
    pub fn events<A: Decider>(&self) -> Result<Vec<(A::Event, Timestamp)>, ProjectError> {
        let commit = self.commit();
        if commit.stream.category() != A::CATEGORY {
            return Ok(Vec::new());
        }
        let read = |(index, event): (usize, &EventPart)| {
            let read = A::Event::decode(&event.type_name, event.schema, event.data.get());
            match read {
                Ok(read) => Ok((read, commit.occurred_at(event))),
                Err(source) => Err(ProjectError::Event {
                    index,
                    type_name: event.type_name.clone(),
                    source,
                }),
            }
        };
        commit.events.iter().enumerate().map(read).collect()
    }

    /// Whether it has one of these events.
    fn has(&self, takes: &[Takes]) -> bool {
        let category = self.0.commit.stream.category();
        let events = || self.0.commit.events.iter();
        takes.iter().any(|takes| {
            takes.category == category && events().any(|e| e.type_name.as_str() == takes.event)
        })
    }
}

/// The transaction that also moves the projection's checkpoint.
pub struct SqlTransaction<'t> {
    connection: &'t mut PgConnection,
    name_of: &'t (dyn Fn(&str) -> String + Send + Sync),
    tables: &'static [Table],
}

impl<'t> SqlTransaction<'t> {
    pub(crate) fn new(
        connection: &'t mut PgConnection,
        name_of: &'t (dyn Fn(&str) -> String + Send + Sync),
        tables: &'static [Table],
    ) -> Self {
        Self {
            connection,
            name_of,
            tables,
        }
    }

    /// A statement in which each name of a declared table in braces, as `{loan_periods}`, is replaced
    /// by the table of the generation that is written.
    #[must_use]
    pub fn statement(&self, sql: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(with_names(sql, self.tables, self.name_of))
    }

    /// The connection. It is in a transaction, which the runtime ends.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.connection
    }
}

/// Replaces each declared table's name in braces by its name in Postgres.
pub(crate) fn with_names(sql: &str, tables: &[Table], name_of: &dyn Fn(&str) -> String) -> String {
    let replace = |sql: String, table: &Table| {
        let braced = format!("{{{}}}", table.name);
        match sql.contains(&braced) {
            true => sql.replace(&braced, &name_of(table.name)),
            false => sql,
        }
    };
    tables.iter().fold(sql.to_owned(), replace)
}

/// What the runtime calls of an [`SqlProjection`], whatever its type.
pub trait OwnSql: Send + Sync {
    /// As [`SqlProjection::prepare`].
    fn prepare(&self) -> &'static str;

    /// As [`SqlProjection::reset`].
    fn reset(&self) -> Option<&'static str>;

    /// Whether it takes up a commit.
    fn takes_up(&self, commit: &SqlCommit<'_>) -> bool;

    /// As [`SqlProjection::apply`].
    fn apply<'a>(
        &'a self,
        commits: &'a [SqlCommit<'a>],
        transaction: &'a mut SqlTransaction<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SqlError>> + Send + 'a>>;
}

/// A [`Projection`] made of an [`SqlProjection`].
pub struct WithSql<P> {
    own: P,
    takes: Vec<Takes>,
}

/// Makes a [`Projection`] of one with SQL of its own.
pub fn with_sql<P: SqlProjection>(own: P) -> WithSql<P> {
    let takes = own.takes();
    WithSql { own, takes }
}

impl<P: SqlProjection> Projection for WithSql<P> {
    fn name(&self) -> &'static str {
        self.own.name()
    }

    fn version(&self) -> u32 {
        self.own.version()
    }

    fn tables(&self) -> &'static [Table] {
        self.own.tables()
    }

    fn takes(&self) -> Vec<Takes> {
        self.takes.clone()
    }

    fn on_error(&self) -> OnError {
        OnError::Stop
    }

    /// None: only the fold knows what became of a row.
    fn history(&self) -> History {
        History::Off
    }

    fn own_sql(&self) -> Option<&dyn OwnSql> {
        Some(self)
    }

    /// Nothing: its SQL does it.
    fn project(&self, _: &Entry<'_>, _: &mut Changes) -> Result<(), ProjectError> {
        Ok(())
    }
}

impl<P: SqlProjection> OwnSql for WithSql<P> {
    fn prepare(&self) -> &'static str {
        self.own.prepare()
    }

    fn reset(&self) -> Option<&'static str> {
        self.own.reset()
    }

    fn takes_up(&self, commit: &SqlCommit<'_>) -> bool {
        self.takes.is_empty() || commit.has(&self.takes)
    }

    fn apply<'a>(
        &'a self,
        commits: &'a [SqlCommit<'a>],
        transaction: &'a mut SqlTransaction<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SqlError>> + Send + 'a>> {
        Box::pin(self.own.apply(commits, transaction))
    }
}
