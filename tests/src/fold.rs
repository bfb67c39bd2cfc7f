//! What the shop's read models must hold, folded in SQL from an export of the log.
//!
//! Invariant: the SQL shares nothing with the projections, their runtime or the readers of the log
//! but the export (`annals log dump --accepted`), and gives every column of every view that the log
//! tells. It suits any history of the shop, however the records came into the log, and any moment of
//! it. Deliberately absent: whether the events are right; `olist::oracle` judges those of an import
//! by the files.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use sqlx::postgres::{PgPoolCopyExt, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

/// How many differing cells or rows of a read model are kept.
const SHOWN_MAX: i64 = 20;

/// The setting of a session, and the literal, for everything that the log holds.
const ALL: &str = "infinity";

/// A read model: its view, the columns of its key, the query for its rows, the columns that only the
/// engine knows, and whether it can be asked as of a moment.
struct Model {
    name: &'static str,
    key: &'static [&'static str],
    query: &'static str,
    unknown: &'static [&'static str],
    has_past: bool,
}

macro_rules! model {
    ($name:literal, [$($key:literal),+]) => {
        Model {
            name: $name,
            key: &["tenant", $($key),+],
            query: include_str!(concat!("../fold/", $name, ".sql")),
            unknown: &[],
            has_past: true,
        }
    };
    // An index of the log, of the present only.
    (index $name:literal, [$($key:literal),+] $(, without $unknown:literal)?) => {
        Model {
            unknown: &[$($unknown)?],
            has_past: false,
            ..model!($name, [$($key),+])
        }
    };
}

const MODELS: [Model; 11] = [
    model!(index "commit_index", ["partition", "position"], without "record_hash"),
    model!(index "commit_types", ["event_type", "partition", "position"]),
    model!("customer_orders", ["customer_id"]),
    model!("daily_sales", ["day", "currency"]),
    model!("delivery_days", ["month"]),
    model!("order_summary", ["order_id"]),
    model!("payment_mix", ["method", "currency"]),
    model!("rejections", ["stream", "position"]),
    model!("seller_sales", ["seller_id", "currency"]),
    model!(index "stream_commits", ["stream", "version"], without "record_hash"),
    model!(index "stream_index", ["stream"]),
];

const EXPORT: &str = include_str!("../fold/1_export.sql");
const FACTS: &str = include_str!("../fold/2_facts.sql");

/// One JSON line in each row: no JSON text has these two characters.
const COPY: &str = "COPY export.lines FROM STDIN (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')";

/// A cell or row in which a read model differs from the fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The read model.
    pub model: String,
    /// The row's key, as JSON.
    pub key: String,
    /// The column; absent if the whole row is missing or too many.
    pub column: Option<String>,
    /// What the fold gives; absent for null, and for a row that should not be there.
    pub expected: Option<String>,
    /// What the view shows; absent for null, and for a row that is missing.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, key, .. } = self;
        let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "null".to_owned());
        match &self.column {
            Some(column) => write!(
                f,
                "read.{model} {key} {column}: {} expected, {} found",
                text(&self.expected),
                text(&self.found)
            ),
            None if self.found.is_none() => write!(f, "read.{model} {key}: the row is missing"),
            None => write!(f, "read.{model} {key}: the row should not be there"),
        }
    }
}

/// Loads an export of the log and folds it: one table for each read model, in the schema `fold`.
///
/// Earlier tables of the schemas `export` and `fold` are dropped.
///
/// # Errors
/// Any error of the file or of the database.
pub async fn load(pool: &PgPool, export: &Path) -> Result<(), sqlx::Error> {
    read(pool, export).await?;
    fold(pool, ALL, &mut MODELS.iter()).await
}

/// Loads an export of the log and folds nothing yet: see [`fold_as_of`].
///
/// # Errors
/// Any error of the file or of the database.
pub async fn read(pool: &PgPool, export: &Path) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(EXPORT).execute(pool).await?;
    let mut copy = pool.copy_in_raw(COPY).await?;
    let file = tokio::fs::File::open(export).await?;
    copy.read_from(file).await?;
    copy.finish().await?;
    sqlx::raw_sql(FACTS).execute(pool).await?;
    Ok(())
}

/// Folds what [`read`] loaded up to a moment, for the read models that can be asked as of one. A
/// moment has all commits of a partition up to the last that was recorded by then.
///
/// # Errors
/// Any error of the database, as for a moment that it cannot read.
pub async fn fold_as_of(pool: &PgPool, moment: &str) -> Result<(), sqlx::Error> {
    fold(pool, moment, &mut with_past()).await
}

/// The read models that can be asked as of a moment.
fn with_past() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(|model| model.has_past)
}

/// Their names.
#[must_use]
pub fn names_with_past() -> Vec<&'static str> {
    with_past().map(|model| model.name).collect()
}

async fn fold(
    pool: &PgPool,
    moment: &str,
    models: &mut (dyn Iterator<Item = &'static Model> + Send),
) -> Result<(), sqlx::Error> {
    let moment = moment.replace('\'', "''");
    let cut = ["commit", "event"].map(|kind| {
        format!(
            "CREATE OR REPLACE VIEW export.{kind}s AS \
             SELECT * FROM export.every_{kind} WHERE moment <= '{moment}'; "
        )
    });
    sqlx::raw_sql(AssertSqlSafe(cut.concat()))
        .execute(pool)
        .await?;
    for Model {
        name, query, key, ..
    } in models
    {
        let statement = format!(
            "DROP TABLE IF EXISTS fold.{name}; CREATE UNLOGGED TABLE fold.{name} AS {query}; \
             ALTER TABLE fold.{name} ADD PRIMARY KEY ({})",
            key.join(", ")
        );
        let statement = AssertSqlSafe(statement);
        sqlx::raw_sql(statement).execute(pool).await?;
    }
    Ok(())
}

/// Compares every view in the schema `read` with what [`load`] folded, cell by cell. The first
/// differences of each read model are returned.
///
/// # Errors
/// Any error of the database; [`sqlx::Error::ColumnNotFound`] for a column on one side only.
pub async fn compare(pool: &PgPool) -> Result<Vec<Difference>, sqlx::Error> {
    let mut differences = Vec::new();
    let mut connection = pool.acquire().await?;
    for model in &MODELS {
        differences.extend(compare_model(&mut connection, "read", model).await?);
    }
    Ok(differences)
}

/// Compares every view in the schema `read_as_of`, as of a moment, with what [`fold_as_of`] folded,
/// cell by cell.
///
/// # Errors
/// As [`compare`].
pub async fn compare_as_of(pool: &PgPool, moment: &str) -> Result<Vec<Difference>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let set = sqlx::query("SELECT set_config('annals.as_of', $1, false)").bind(moment);
    set.execute(&mut *connection).await?;
    let mut differences = Vec::new();
    for model in with_past() {
        differences.extend(compare_model(&mut connection, "read_as_of", model).await?);
    }
    // The next user of the connection sees the present.
    connection.close().await?;
    Ok(differences)
}

async fn compare_model(
    connection: &mut PgConnection,
    schema: &str,
    model: &Model,
) -> Result<Vec<Difference>, sqlx::Error> {
    let name = model.name;
    let expected = columns(connection, "fold", name).await?;
    let shown = columns(connection, schema, name).await?;
    let unknown = model.unknown.iter().map(|&column| column.to_owned());
    let known: BTreeSet<String> = expected.iter().cloned().chain(unknown).collect();
    if let Some(column) = known.symmetric_difference(&shown).next() {
        return Err(sqlx::Error::ColumnNotFound(format!("{name}.{column}")));
    }
    let statement = difference_of(model, schema, &expected);
    let rows = sqlx::query(AssertSqlSafe(statement));
    let rows = rows.fetch_all(connection).await?;
    let difference = |row: &PgRow| {
        Ok(Difference {
            model: name.to_owned(),
            key: row.try_get(0)?,
            column: row.try_get(1)?,
            expected: row.try_get(2)?,
            found: row.try_get(3)?,
        })
    };
    rows.iter().map(difference).collect()
}

/// The statement that lists the differing cells, and the rows that only one side has.
fn difference_of(model: &Model, schema: &str, columns: &BTreeSet<String>) -> String {
    let name = model.name;
    let keys = model.key.iter();
    let same = keys.clone().map(|key| format!("e.{key} = r.{key}"));
    let either = keys.map(|key| format!("coalesce(e.{key}, r.{key})::text"));
    let cells = columns.iter().map(|column| format!("\"{column}\""));
    let of = |side: &str| {
        let cells = cells.clone().map(|cell| format!("{side}.{cell}"));
        cells.collect::<Vec<_>>().join(", ")
    };
    let pairs = columns
        .iter()
        .map(|column| format!("('{column}', e.\"{column}\"::text, r.\"{column}\"::text)"));
    format!(
        "SELECT jsonb_build_array({either})::text, c.name, c.expected, c.found
         FROM fold.{name} e FULL JOIN {schema}.{name} r ON {same}
         CROSS JOIN LATERAL (VALUES
             (NULL, CASE WHEN e.tenant IS NOT NULL THEN 'there' END,
                 CASE WHEN r.tenant IS NOT NULL THEN 'there' END),
             {pairs}
         ) AS c (name, expected, found)
         WHERE ROW({expected}) IS DISTINCT FROM ROW({found})
             AND c.expected IS DISTINCT FROM c.found
             AND (c.name IS NULL OR (e.tenant IS NOT NULL AND r.tenant IS NOT NULL))
         ORDER BY 1, 2 LIMIT {SHOWN_MAX}",
        either = either.collect::<Vec<_>>().join(", "),
        same = same.collect::<Vec<_>>().join(" AND "),
        pairs = pairs.collect::<Vec<_>>().join(", "),
        expected = of("e"),
        found = of("r"),
    )
}

async fn columns(
    connection: &mut PgConnection,
    schema: &str,
    name: &str,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = $2",
    )
    .bind(schema)
    .bind(name)
    .fetch_all(connection)
    .await?;
    Ok(names.into_iter().collect())
}
