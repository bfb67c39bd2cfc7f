//! Read models by page and by key.
//!
//! Invariant: an answer's rows, their count, its cursor and its position are of one snapshot.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use door::header::tenant;
use door::{Charge, NoQuery, Path, Problem, Query};
use position::PositionToken;
use projector::{KeyIs, Model, Null, RowsVersion, Value};
use serde::Serialize;
use sqlx::postgres::PgRow;

use super::answer::{Asker, Known, Wanted};
use super::as_of::PastPage;
use super::asked::{Asked, Count};
use super::cache::Kept;
use super::cursor::Cursor;
use super::format::{Format, write_header, write_line};
use super::lookups::Lookup;
use super::offered::Offered;
use super::parameters::{LIMIT_DEFAULT, LIMIT_MAX, OneParameters, Wait};
use super::parked::{PARKED, key_asked, require_current};
use super::shown::ShownModel;
use super::snapshot::Snapshot;
use super::statement::{COUNT_MAX, ROW_FROM, Statement};
use super::values::{Cell, text_of};
use super::{Inner, QueryDoor, code, failed};

/// How many bytes a row takes in JSON, about.
pub(super) const ROW_BYTES_TYPICAL: usize = 1_024;

#[derive(Serialize)]
struct Models<'a> {
    models: Vec<ModelInfo<'a>>,
}

#[derive(Serialize)]
struct ModelInfo<'a> {
    name: &'static str,
    about: &'static str,
    key: Vec<&'static str>,
    columns: Vec<ColumnInfo>,
    sorts: Vec<&'a str>,
}

#[derive(Serialize)]
struct ColumnInfo {
    name: &'static str,
    #[serde(rename = "type")]
    column_type: &'static str,
    nullable: bool,
    about: &'static str,
    filters: Vec<String>,
}

/// `GET /v1/read`
pub(super) async fn models(State(door): State<QueryDoor>, _: NoQuery) -> Response {
    let models = door.inner.models.iter().map(info).collect();
    Json(Models { models }).into_response()
}

fn info(shown: &ShownModel) -> ModelInfo<'_> {
    let columns = shown.model.columns.iter().enumerate();
    let offered = &shown.offered;
    ModelInfo {
        name: shown.model.name,
        about: shown.model.about,
        key: shown.model.key.iter().map(|key| key.name).collect(),
        columns: columns
            .map(|(index, column)| ColumnInfo {
                name: column.name,
                column_type: column.column_type.sql(),
                nullable: column.null == Null::Possible,
                about: column.about,
                filters: filters(&shown.model, offered, index),
            })
            .collect(),
        sorts: offered
            .sorts
            .iter()
            .map(|at| shown.model.columns[*at].name)
            .collect(),
    }
}

/// The parameters that filter a column.
fn filters(model: &Model, offered: &Offered, column: usize) -> Vec<String> {
    let name = model.columns[column].name;
    let operators = offered.operators(column).iter();
    operators.map(|operator| operator.parameter(name)).collect()
}

/// `GET /v1/read/{model}`
pub(super) async fn page(
    State(door): State<QueryDoor>,
    Path(name): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = page_of(&door, shown, parameters, &headers, charge).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn page_of(
    door: &QueryDoor,
    shown: &ShownModel,
    parameters: Vec<(String, String)>,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let inner = &*door.inner;
    let tenant = tenant(headers)?;
    let asked = Asked::of(shown, parameters)?;
    // What is malformed is refused before what cannot be served.
    let format = Format::of(asked.format.as_deref(), headers)?;
    let wait = Wait::of(asked.min_position.as_deref(), headers)?;
    asked.require_served(shown)?;
    let after = asked.after.as_deref();
    let after = after.map(|after| Cursor::read(after, shown, &asked));
    let after = after.transpose()?;
    let key = key_asked(shown, &asked);
    let limit = match (asked.limit, format) {
        (Some(limit), _) => Some(limit),
        (None, Format::Json) => Some(LIMIT_DEFAULT),
        // One row at most is a page.
        (None, _) if key.len() == shown.model.key.len() => Some(LIMIT_DEFAULT),
        // All rows.
        (None, Format::Csv | Format::Ndjson) => None,
    };
    let asker = Asker {
        shown,
        headers,
        wait: &wait,
        asked: key_of_page(shown, tenant.as_str(), &asked, format, limit),
        format,
    };
    if let Some(moment) = &asked.as_of {
        let rows = limit.ok_or_else(|| {
            let detail = format!(
                "with as_of, {} comes in pages: give a limit of at most {LIMIT_MAX}, and follow the \
                 Link; an export writes all rows as of a moment",
                format.name()
            );
            Problem::new(code::LIMIT_NEEDED, detail)
        })?;
        let asking = PastPage {
            asker: &asker,
            asked: &asked,
            after: after.as_ref(),
            limit: rows,
        };
        return inner.page_as_of(tenant.as_str(), moment, asking).await;
    }
    let known = match inner.known(&asker).await? {
        Known::Answered(response) => return Ok(response),
        Known::Rows => None,
        Known::Version(version) => Some(version),
    };
    let values = after.as_ref().map(|after| &after.values[..]);
    // One row more than asked for shows whether there is a next page.
    let rows = limit.map(|limit| i64::from(limit) + 1);
    let statement = Statement::page(shown, tenant.as_str(), &asked, values, rows);
    let require_generation = |version: &RowsVersion| match &after {
        Some(after) if after.generation != version.generation() => {
            let detail = "the read model was rebuilt since the page before; begin with the first \
                          page";
            Err(Problem::new(code::CURSOR_EXPIRED, detail))
        }
        _ => Ok(()),
    };
    let Some(limit) = limit else {
        if let Some(version) = &known {
            require_generation(version)?;
        }
        let exports = &inner.exports;
        let export = exports.begin(door, shown.model.name, statement, format, charge);
        let export = export.await?;
        let head = &export.head;
        require_generation(&head.version)?;
        inner.require_reached(shown, &wait, &head.version)?;
        require_current(shown, tenant.as_str(), &key, &head.parked)?;
        return Ok(asker.answer(&head.version, head.parked.streams, export.body, None));
    };
    let wanted = Wanted::Page(statement);
    let snapshot = inner.current(shown, tenant.as_str(), &wanted, &key, &wait);
    let snapshot = snapshot.await?;
    require_generation(&snapshot.head.version)?;
    let (body, next) = body_of(shown, &asked, &snapshot, limit as usize, format)?;
    let next = next.map(|next| link(shown, &asked, limit, format, next));
    let kept = Kept {
        version: snapshot.head.version,
        parked: snapshot.head.parked.streams,
        body: body.into_boxed_slice().into(),
        next,
    };
    Ok(inner.keep(asker, kept))
}

/// The path of the page behind one whose cursor is `next`.
pub(super) fn link(
    shown: &ShownModel,
    asked: &Asked,
    limit: u32,
    format: Format,
    next: String,
) -> Box<str> {
    let mut pairs = asked.pairs(shown);
    pairs.push(("limit".to_owned(), limit.to_string()));
    if asked.count == Count::Wanted {
        pairs.push(("count".to_owned(), "true".to_owned()));
    }
    if asked.format.is_some() {
        pairs.push(("format".to_owned(), format.name().to_owned()));
    }
    pairs.push(("after".to_owned(), next));
    target(shown, &pairs).into_boxed_str()
}

/// What makes two requests for a page ask the same.
fn key_of_page(
    shown: &ShownModel,
    tenant: &str,
    asked: &Asked,
    format: Format,
    limit: Option<u32>,
) -> String {
    let limit = limit.unwrap_or_default();
    let counted = u8::from(asked.count == Count::Wanted);
    // The links of a form that was asked for by name have the name.
    let named = u8::from(asked.format.is_some());
    let (name, format) = (shown.model.name, format.name());
    let mut key = format!("{name}\0{tenant}\0{format}{named}\0{limit}\0{counted}");
    for (name, value) in asked.pairs(shown) {
        key.extend(["\0", &name, "\0", &value]);
    }
    if let Some(after) = &asked.after {
        key.extend(["\0after\0", after]);
    }
    key
}

/// The path of a page.
fn target(shown: &ShownModel, pairs: &[(String, String)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("/v1/read/{}?{}", shown.model.name, query.finish())
}

/// A page, and the cursor of the next one.
pub(super) fn body_of(
    shown: &ShownModel,
    asked: &Asked,
    snapshot: &Snapshot,
    limit: usize,
    format: Format,
) -> Result<(Vec<u8>, Option<String>), Problem> {
    let rows = &snapshot.rows[..snapshot.rows.len().min(limit)];
    let more = snapshot.rows.len() > rows.len();
    let next = match rows.last().filter(|_| more) {
        Some(last) => Some(cursor_behind(shown, asked, snapshot, last)?),
        None => None,
    };
    let mut body = Vec::new();
    if format == Format::Json {
        write_page(shown, snapshot, rows, next.as_deref(), &mut body)?;
        return Ok((body, next));
    }
    if format == Format::Csv {
        write_header(shown, &mut body);
    }
    for row in rows {
        let written = write_line(shown, format, row, ROW_FROM, &mut body);
        written.map_err(|error| failed(&error))?;
    }
    Ok((body, next))
}

fn write_page(
    shown: &ShownModel,
    snapshot: &Snapshot,
    rows: &[PgRow],
    next: Option<&str>,
    body: &mut Vec<u8>,
) -> Result<(), Problem> {
    body.extend_from_slice(b"{\"model\":\"");
    body.extend_from_slice(shown.model.name.as_bytes());
    body.extend_from_slice(b"\",\"rows\":[");
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        let written = shown.write_json(row, ROW_FROM, body);
        written.map_err(|error| failed(&error))?;
    }
    let end = PageEnd {
        next,
        count: snapshot.head.count.map(|count| RowCount {
            rows: count.min(COUNT_MAX),
            complete: count <= COUNT_MAX,
        }),
        position: snapshot.head.version.position(),
    };
    let end = serde_json::to_vec(&end).map_err(Problem::internal)?;
    body.extend_from_slice(b"],");
    // Its members follow in the same object.
    body.extend_from_slice(&end[1..]);
    Ok(())
}

/// The members of a page behind its rows.
#[derive(Serialize)]
struct PageEnd<'a> {
    next: Option<&'a str>,
    count: Option<RowCount>,
    position: Option<&'a PositionToken>,
}

#[derive(Serialize)]
struct RowCount {
    rows: i64,
    complete: bool,
}

fn cursor_behind(
    shown: &ShownModel,
    asked: &Asked,
    snapshot: &Snapshot,
    row: &PgRow,
) -> Result<String, Problem> {
    let generation = snapshot.head.version.generation();
    let value = |(column, _): (usize, _)| {
        let column_type = shown.model.columns[column].column_type;
        Cell::of(row, ROW_FROM + column, column_type).map(|cell| cell.value())
    };
    let values = shown.order(asked).into_iter().map(value);
    let values = values
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&error))?;
    let cursor = Cursor { generation, values };
    cursor.written(shown, asked).ok_or_else(|| {
        let detail = "the values at the end of the page are too long for a cursor; sort by \
                      another column";
        Problem::new(code::SORT_VALUE_TOO_LONG, detail)
    })
}

/// `GET /v1/read/{model}/{key}`
pub(super) async fn one(
    State(door): State<QueryDoor>,
    Path((name, key)): Path<(String, String)>,
    Query(parameters): Query<OneParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = row_of(&door.inner, shown, &key, &parameters, &headers).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn row_of(
    inner: &Inner,
    shown: &ShownModel,
    key: &str,
    parameters: &OneParameters,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let wait = parameters.wait(headers)?;
    let key = key_of(shown, key)?;
    let mut asked = format!("{}\0{tenant}\0one", shown.model.name);
    for value in &key {
        asked.extend(["\0", &text_of(value)]);
    }
    let moment = parameters.as_of()?;
    if let Some(moment) = &moment {
        asked.extend(["\0as_of\0", &moment.text()]);
    }
    let asker = Asker {
        shown,
        headers,
        wait: &wait,
        asked,
        format: Format::Json,
    };
    if let Some(moment) = &moment {
        return inner.row_as_of(tenant.as_str(), moment, &asker, key).await;
    }
    if let Known::Answered(response) = inner.known(&asker).await? {
        return Ok(response);
    }
    let wanted = Wanted::Row(Lookup {
        tenant: tenant.as_str().to_owned(),
        key: key.clone(),
    });
    let snapshot = inner.current(shown, tenant.as_str(), &wanted, &key, &wait);
    let snapshot = snapshot.await?;
    let row = snapshot.rows.first();
    let row = row.ok_or_else(|| no_row(shown, &wait, snapshot.head.parked.streams))?;
    let mut body = Vec::with_capacity(ROW_BYTES_TYPICAL);
    let written = shown.write_json(row, ROW_FROM, &mut body);
    written.map_err(|error| failed(&error))?;
    let kept = Kept {
        version: snapshot.head.version,
        parked: snapshot.head.parked.streams,
        body: body.into_boxed_slice().into(),
        next: None,
    };
    Ok(inner.keep(asker, kept))
}

pub(super) fn no_row(shown: &ShownModel, wait: &Wait, parked: u64) -> Problem {
    let (name, names) = (shown.model.name, key_names(shown));
    let mut detail = format!("{name} has no row with this {names}{}", wait.advice());
    if parked == 0 {
        return Problem::new(code::ROW_NOT_FOUND, detail);
    }
    if shown.model.key_is == KeyIs::NoStream {
        detail.push_str("; it may be a row of a stream that is parked");
    }
    Problem::new(code::ROW_NOT_FOUND, detail).header(PARKED, &parked.to_string())
}

fn key_names(shown: &ShownModel) -> String {
    let names: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    names.join(",")
}

pub(super) fn key_of(shown: &ShownModel, text: &str) -> Result<Vec<Value>, Problem> {
    shown.key_of_path(text).ok_or_else(|| {
        let (name, names) = (shown.model.name, key_names(shown));
        let detail = format!("no row of {name} can have this key; its key is {names}");
        Problem::new(code::ROW_NOT_FOUND, detail)
    })
}

impl QueryDoor {
    pub(super) fn model(&self, name: &str) -> Result<&ShownModel, Problem> {
        let mut models = self.inner.models.iter();
        models
            .find(|shown| shown.model.name == name)
            .ok_or_else(|| {
                Problem::new(
                    code::MODEL_UNKNOWN,
                    format!("no read model is named {name:?}"),
                )
            })
    }
}
