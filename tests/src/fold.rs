//! What the shop's read models must hold, folded in SQL from an export of the log.
//!
//! Invariant: the SQL shares nothing with the projections, their runtime or the readers of the log
//! but the export (`annals log dump --accepted`), and gives every column of every view that the log
//! tells. It suits any history of the shop, however the records came into the log. Deliberately
//! absent: whether the events are right; `olist::oracle` judges those of an import by the files.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use sqlx::postgres::{PgPoolCopyExt, PgRow};
use sqlx::{AssertSqlSafe, PgPool, Row};

/// How many differing cells or rows of a read model are kept.
const SHOWN_MAX: i64 = 20;

/// A read model: its view, the columns of its key, the query for its rows, and the columns that only
/// the engine knows.
struct Model {
    name: &'static str,
    key: &'static [&'static str],
    query: &'static str,
    unknown: &'static [&'static str],
}

macro_rules! model {
    ($name:literal, [$($key:literal),+] $(, without $unknown:literal)?) => {
        Model {
            name: $name,
            key: &["tenant", $($key),+],
            query: include_str!(concat!("../fold/", $name, ".sql")),
            unknown: &[$($unknown)?],
        }
    };
}

const MODELS: [Model; 11] = [
    model!("commit_index", ["partition", "position"], without "record_hash"),
    model!("commit_types", ["event_type", "partition", "position"]),
    model!("customer_orders", ["customer_id"]),
    model!("daily_sales", ["day", "currency"]),
    model!("delivery_days", ["month"]),
    model!("order_summary", ["order_id"]),
    model!("payment_mix", ["method", "currency"]),
    model!("rejections", ["stream", "position"]),
    model!("seller_sales", ["seller_id", "currency"]),
    model!("stream_commits", ["stream", "version"], without "record_hash"),
    model!("stream_index", ["stream"]),
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
    sqlx::raw_sql(EXPORT).execute(pool).await?;
    let mut copy = pool.copy_in_raw(COPY).await?;
    let file = tokio::fs::File::open(export).await?;
    copy.read_from(file).await?;
    copy.finish().await?;
    sqlx::raw_sql(FACTS).execute(pool).await?;
    for Model {
        name, query, key, ..
    } in &MODELS
    {
        let statement = format!(
            "CREATE UNLOGGED TABLE fold.{name} AS {query}; \
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
    for model in &MODELS {
        differences.extend(compare_model(pool, model).await?);
    }
    Ok(differences)
}

async fn compare_model(pool: &PgPool, model: &Model) -> Result<Vec<Difference>, sqlx::Error> {
    let name = model.name;
    let expected = columns(pool, "fold", name).await?;
    let shown = columns(pool, "read", name).await?;
    let unknown = model.unknown.iter().map(|&column| column.to_owned());
    let known: BTreeSet<String> = expected.iter().cloned().chain(unknown).collect();
    if let Some(column) = known.symmetric_difference(&shown).next() {
        return Err(sqlx::Error::ColumnNotFound(format!("{name}.{column}")));
    }
    let statement = difference_of(model, &expected);
    let rows = sqlx::query(AssertSqlSafe(statement));
    let rows = rows.fetch_all(pool).await?;
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
fn difference_of(model: &Model, columns: &BTreeSet<String>) -> String {
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
         FROM fold.{name} e FULL JOIN read.{name} r ON {same}
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

async fn columns(pool: &PgPool, schema: &str, name: &str) -> Result<BTreeSet<String>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = $2",
    )
    .bind(schema)
    .bind(name)
    .fetch_all(pool)
    .await?;
    Ok(names.into_iter().collect())
}
