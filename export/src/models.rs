//! Exports the rows of a read model: all that one snapshot of Postgres shows.
//!
//! Invariants: the rows are of one snapshot, and the manifest says at which places of the log they
//! stand. The rows have a total order, so that the same rows give the same bytes. Memory is bounded:
//! Postgres sends on only as the rows are written. Rows as of an earlier moment are read from the views
//! that show them. Deliberately absent: how those views know them.

use std::path::Path;

use chrono::{DateTime, NaiveDate, Utc};
use futures::TryStreamExt as _;
use position::LogId;
use projector::{
    ColumnType, Model, ModelColumn, Null, query_options, quoted, read_checkpoint, rows_versions,
};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use uuid::Uuid;

use crate::cell::{Cell, Column, Kind, day_number, decimal_of};
use crate::error::ExportError;
use crate::journal::{Journal, Plan, Step};
use crate::manifest::{FORM, FileEntry, Manifest, PartitionEntry, Program, Request};
use crate::output::Part;
use crate::run::{FILE_BYTES, FILE_ROWS, RowsFile, Watch, differs, finish, is_there};

/// The schema with the views of the read models.
const SCHEMA: &str = "read";
/// The schema with their views as of the moment in the setting `annals.as_of`.
const AS_OF_SCHEMA: &str = "read_as_of";
/// How many rows are written between two looks at the watch.
const ROWS_PER_LOOK: u64 = 1_024;

/// An export of a read model that is wanted.
pub struct ModelExport<'a> {
    /// The address of the Postgres with its rows.
    pub postgres: &'a str,
    /// The projection that writes it.
    pub projection: &'a str,
    /// The read model.
    pub model: &'a Model,
    /// The folder of the export.
    pub folder: &'a Path,
    /// What is wanted.
    pub request: Request,
    /// The program that exports.
    pub program: Program,
}

/// Exports a read model; goes on with an unfinished export if the rows have not changed since. `None`
/// if the folder has this export already, whole.
///
/// # Errors
/// [`ExportError`].
pub async fn export_model(
    export: ModelExport<'_>,
    watch: &mut Watch<'_>,
) -> Result<Option<Manifest>, ExportError> {
    let failed = || ExportError::postgres("read the read model");
    let options = query_options(export.postgres).map_err(|error| {
        ExportError::Asked(format!("the address of Postgres cannot be used: {error}"))
    })?;
    let mut connection = options.connect().await.map_err(failed())?;
    let snapshot = Snapshot::begin(&mut connection, &export).await?;
    if is_there(export.folder, &export.request, snapshot.log)? {
        return Ok(None);
    }
    let plan = Plan {
        form: FORM,
        program: export.program.clone(),
        request: export.request.clone(),
        columns: columns_of(export.model),
        log: snapshot.log,
        ranges: Vec::new(),
        rows_version: Some(snapshot.version.clone()),
    };
    let is_equal = |begun: &Plan| {
        differs(begun, &plan)?;
        match begun.rows_version == plan.rows_version {
            true => Ok(()),
            false => Err("the rows of the read model have changed since".to_owned()),
        }
    };
    let (mut journal, plan) = Journal::open(export.folder, is_equal, || plan.clone())?;
    journal.require_files()?;
    let mut run = Run {
        export: &export,
        columns: &plan.columns,
        file: None,
        count: journal.files().count(),
        written: journal.files().map(|file| file.bytes).sum(),
    };
    let behind = journal.files().map(|file| file.rows).sum();
    if let Err(error) = run.all(&mut connection, behind, &mut journal, watch).await {
        if let Some(file) = run.file.take() {
            file.part.discard();
        }
        return Err(run.explained(error));
    }
    for place in snapshot.places {
        journal.note(Step::Done(place))?;
    }
    let _ = connection.close().await;
    finish(export.folder, journal, plan).map(Some)
}

/// What a transaction sees of a read model, beside its rows.
struct Snapshot {
    log: LogId,
    version: String,
    places: Vec<PartitionEntry>,
}

impl Snapshot {
    async fn begin(
        connection: &mut PgConnection,
        export: &ModelExport<'_>,
    ) -> Result<Self, ExportError> {
        let failed = || ExportError::postgres("read the version of the read model");
        // The view is locked before the snapshot is taken, so that a rebuild cannot replace it between.
        let view = view_of(export.model, &export.request);
        // A timestamp's text has digits, dashes, colons, a point, T and Z only.
        let moment = export.request.as_of;
        let moment = moment.map_or_else(String::new, |at| format!("; SET annals.as_of = '{at}'"));
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             LOCK TABLE {view} IN ACCESS SHARE MODE{moment}"
        );
        let begun = sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(&mut *connection)
            .await;
        begun.map_err(
            |error| match error.as_database_error().and_then(|it| it.code()) {
                Some(code) if code == "42P01" && export.request.as_of.is_some() => {
                    ExportError::Asked(format!(
                        "the read model {} keeps no history: it can be exported only as it is now",
                        export.model.name
                    ))
                }
                _ => failed()(error),
            },
        )?;
        let names = [export.projection];
        let versions = rows_versions(&mut *connection, &names)
            .await
            .map_err(failed())?;
        let name = export.model.name;
        let nothing = || {
            ExportError::Asked(format!(
                "the read model {name} shows nothing yet: run a projector, and look at annals \
                 projections list"
            ))
        };
        let version = versions.get(export.projection).ok_or_else(nothing)?;
        let log = version.position().ok_or_else(nothing)?.log;
        let select = "SELECT * FROM annals.checkpoint \
                      WHERE projection = $1 AND generation = $2 ORDER BY partition";
        let rows = sqlx::query(select)
            .bind(export.projection)
            .bind(version.generation())
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
        let places = rows.iter().map(place_of).collect::<Result<_, _>>();
        Ok(Self {
            log,
            version: version.as_str().to_owned(),
            places: places.map_err(failed())?,
        })
    }
}

fn place_of(row: &PgRow) -> Result<PartitionEntry, sqlx::Error> {
    let (partition, checkpoint) = read_checkpoint(row)?;
    Ok(PartitionEntry {
        partition,
        from: None,
        to: Some(checkpoint),
        rows: 0,
    })
}

fn view_of(model: &Model, request: &Request) -> String {
    let schema = match request.as_of {
        Some(_) => AS_OF_SCHEMA,
        None => SCHEMA,
    };
    format!("{schema}.{}", quoted(model.name))
}

/// The columns of a read model, the tenant first.
fn columns_of(model: &Model) -> Vec<Column> {
    let tenant = Column::new("tenant", Kind::Words);
    let columns = model.columns.iter().map(|column| Column {
        name: column.name.to_owned(),
        kind: kind_of(column.column_type),
        nullable: column.null == Null::Possible,
    });
    std::iter::once(tenant).chain(columns).collect()
}

fn kind_of(column_type: ColumnType) -> Kind {
    match column_type {
        ColumnType::Text | ColumnType::Uuid => Kind::Text,
        // Views show a sum as bigint.
        ColumnType::Bigint | ColumnType::Numeric => Kind::Int64,
        ColumnType::Decimal { scale } => Kind::Decimal { scale },
        ColumnType::Double => Kind::Double,
        ColumnType::Boolean => Kind::Boolean,
        ColumnType::Timestamptz => Kind::Moment,
        ColumnType::Date => Kind::Day,
        ColumnType::Bytea => Kind::Bytes,
        ColumnType::Jsonb => Kind::Json,
        ColumnType::TextArray => Kind::Texts,
    }
}

/// The statement that reads all rows; the tenants are bound, if any are wanted.
fn statement(model: &Model, request: &Request) -> String {
    let column = |column: &ModelColumn| match column.column_type {
        ColumnType::Decimal { .. } | ColumnType::Jsonb => {
            format!("{}::text", quoted(column.name))
        }
        _ => quoted(column.name),
    };
    let columns: Vec<String> = model.columns.iter().map(column).collect();
    let columns = columns.join(", ");
    let keys: Vec<String> = model.key.iter().map(|key| quoted(key.name)).collect();
    let order = std::iter::once("tenant".to_owned()).chain(keys);
    let order = order.collect::<Vec<_>>().join(", ");
    let tenants = match request.filter.tenant.is_empty() {
        true => "",
        false => " WHERE tenant = ANY($1)",
    };
    let view = view_of(model, request);
    format!("SELECT tenant, {columns} FROM {view}{tenants} ORDER BY {order}")
}

struct Run<'a> {
    export: &'a ModelExport<'a>,
    columns: &'a [Column],
    file: Option<ModelFile>,
    /// How many whole files there are.
    count: usize,
    /// The bytes of these files.
    written: u64,
}

struct ModelFile {
    part: Part,
    rows_file: RowsFile,
    path: String,
    bytes: u64,
}

impl Run<'_> {
    /// Writes the rows after the first `behind`.
    async fn all(
        &mut self,
        connection: &mut PgConnection,
        behind: u64,
        journal: &mut Journal,
        watch: &mut Watch<'_>,
    ) -> Result<(), ExportError> {
        let failed = || ExportError::postgres("read the rows of the read model");
        let statement = statement(self.export.model, &self.export.request);
        let mut query = sqlx::query(AssertSqlSafe(statement));
        let tenants = &self.export.request.filter.tenant;
        if !tenants.is_empty() {
            query = query.bind(tenants);
        }
        let mut rows = query.fetch(connection);
        let mut count = 0;
        while let Some(row) = rows.try_next().await.map_err(failed())? {
            count += 1;
            if count % ROWS_PER_LOOK == 0 {
                if (watch.is_stopped)() {
                    return Err(ExportError::Stopped);
                }
                (watch.progress)(count, count);
            }
            if count > behind {
                self.write(&row, journal)?;
            }
        }
        self.end_file(journal)
    }

    fn write(&mut self, row: &PgRow, journal: &mut Journal) -> Result<(), ExportError> {
        let is_large = self
            .file
            .as_ref()
            .is_some_and(|file| file.rows_file.rows >= FILE_ROWS || file.bytes >= FILE_BYTES);
        if is_large {
            self.end_file(journal)?;
        }
        let model = self.export.model;
        let cells = cells_of(row, model).map_err(|error| match error {
            RowError::Postgres(source) => ExportError::Postgres {
                what: "read a row of the read model",
                source,
            },
            RowError::Digits(name) => ExportError::Format {
                what: format!("the column {name} of {}", model.name),
                format: "a decimal of 38 digits",
                reason: "a row has more digits; export it as part of a query of your own"
                    .to_owned(),
            },
        })?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let format = self.export.request.format;
                let number = self.count + 1;
                let path = format!("{}-{number:06}.{}", model.name, format.extension());
                let (part, rows_file) =
                    RowsFile::begin(self.export.folder.join(&path), self.columns, format)?;
                self.file.insert(ModelFile {
                    part,
                    rows_file,
                    path,
                    bytes: 0,
                })
            }
        };
        let written = file.rows_file.write(&cells);
        written.map_err(|error| file.part.failed(error))?;
        file.bytes += cells.iter().map(|cell| cell.size() as u64).sum::<u64>();
        Ok(())
    }

    fn end_file(&mut self, journal: &mut Journal) -> Result<(), ExportError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let rows = file.rows_file.rows;
        let whole = file.rows_file.finish(file.part)?;
        self.count += 1;
        self.written += whole.bytes;
        let entry = FileEntry {
            path: file.path,
            rows,
            bytes: whole.bytes,
            sha256: whole.sha256.clone(),
            of: None,
        };
        journal.note(Step::File { entry, next: None })?;
        whole.appear()
    }

    /// The error; if the disk is full, with how much there is already.
    fn explained(&self, error: ExportError) -> ExportError {
        let ExportError::Full { path, .. } = error else {
            return error;
        };
        ExportError::Full {
            path,
            written: self.written,
            missing: self.written.max(1),
        }
    }
}

enum RowError {
    Postgres(sqlx::Error),
    Digits(&'static str),
}

impl From<sqlx::Error> for RowError {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

fn cells_of<'r>(row: &'r PgRow, model: &Model) -> Result<Vec<Cell<'r>>, RowError> {
    let mut cells = Vec::with_capacity(model.columns.len() + 1);
    cells.push(Cell::text(row.try_get(0)?));
    for (index, column) in (1..).zip(&model.columns) {
        cells.push(cell_of(row, index, column)?);
    }
    Ok(cells)
}

fn cell_of<'r>(row: &'r PgRow, index: usize, column: &ModelColumn) -> Result<Cell<'r>, RowError> {
    fn some<'r, T>(value: Option<T>, cell: impl FnOnce(T) -> Cell<'r>) -> Cell<'r> {
        value.map_or(Cell::Null, cell)
    }
    Ok(match column.column_type {
        ColumnType::Text | ColumnType::Jsonb => some(row.try_get(index)?, Cell::text),
        ColumnType::Uuid => some(row.try_get(index)?, |id: Uuid| Cell::owned(id.to_string())),
        ColumnType::Bigint | ColumnType::Numeric => some(row.try_get(index)?, Cell::Int),
        ColumnType::Decimal { scale } => match row.try_get::<Option<&str>, _>(index)? {
            None => Cell::Null,
            Some(text) => match decimal_of(text, scale) {
                Some(number) => Cell::Decimal(number),
                None => return Err(RowError::Digits(column.name)),
            },
        },
        ColumnType::Double => some(row.try_get(index)?, Cell::Double),
        ColumnType::Boolean => some(row.try_get(index)?, Cell::Boolean),
        ColumnType::Timestamptz => some(row.try_get(index)?, |at: DateTime<Utc>| {
            Cell::Moment(at.timestamp_micros())
        }),
        ColumnType::Date => some(row.try_get(index)?, |day: NaiveDate| {
            Cell::Day(day_number(day))
        }),
        ColumnType::Bytea => some(row.try_get(index)?, |bytes: &[u8]| {
            Cell::Bytes(bytes.into())
        }),
        ColumnType::TextArray => some(row.try_get(index)?, Cell::Texts),
    })
}
