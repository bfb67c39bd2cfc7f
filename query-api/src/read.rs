//! Read models by page and by key.
//!
//! Invariant: an answer's rows, their count, its cursor and its position are of one snapshot.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use door::header::{POSITION, tenant};
use door::tag::{self, Tag};
use door::{NoQuery, Path, Problem, Query};
use position::PositionToken;
use projector::{Model, Null, Value};
use serde::Serialize;

use super::asked::{Asked, Count};
use super::cursor::Cursor;
use super::levels::{Behind, Level, Reached, is_reached, position_of};
use super::offered::Offered;
use super::parameters::{LIMIT_DEFAULT, OneParameters, Wait};
use super::shown::ShownModel;
use super::snapshot::Snapshot;
use super::statement::{COUNT_MAX, ROW_FROM, Statement};
use super::values::Cell;
use super::{Inner, QueryDoor, code, failed};

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
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = page_of(&door.inner, shown, parameters, &headers).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn page_of(
    inner: &Inner,
    shown: &ShownModel,
    parameters: Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let asked = Asked::of(shown, parameters)?;
    // What is malformed is refused before what cannot be served.
    let wait = Wait::of(asked.min_position.as_deref(), headers)?;
    asked.require_served(shown)?;
    let after = asked.after.as_deref();
    let after = after.map(|after| Cursor::read(after, shown, &asked));
    let after = after.transpose()?;
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    // One row more than asked for shows whether there is a next page.
    let statement = {
        let after = after.as_ref().map(|after| &after.values[..]);
        let rows = Some(i64::from(limit) + 1);
        Statement::page(shown, tenant.as_str(), &asked, after, rows)
    };
    inner.reach(shown.projection, &wait).await?;
    let snapshot = inner.snapshot(shown, &statement, &wait).await?;
    let generation = snapshot
        .version
        .as_ref()
        .map(projector::RowsVersion::generation);
    if after.is_some_and(|after| Some(after.generation) != generation) {
        let detail = "the read model was rebuilt since the page before; begin with the first page";
        return Err(Problem::new(code::CURSOR_EXPIRED, detail));
    }
    let (body, next) = body_of(shown, &asked, &snapshot, limit as usize)?;
    let mut response = json(body);
    put_position(&mut response, position_of(snapshot.version.as_ref()));
    if let Some(next) = next {
        let mut pairs = asked.pairs(shown);
        pairs.push(("limit".to_owned(), limit.to_string()));
        if asked.count == Count::Wanted {
            pairs.push(("count".to_owned(), "true".to_owned()));
        }
        pairs.push(("after".to_owned(), next));
        link_next(&mut response, &target(shown, &pairs));
    }
    Ok(wait.applied(response))
}

/// The path of a page.
fn target(shown: &ShownModel, pairs: &[(String, String)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("/v1/read/{}?{}", shown.model.name, query.finish())
}

/// A page's JSON, and the cursor of the next page.
fn body_of(
    shown: &ShownModel,
    asked: &Asked,
    snapshot: &Snapshot,
    limit: usize,
) -> Result<(Vec<u8>, Option<String>), Problem> {
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"model\":\"");
    body.extend_from_slice(shown.model.name.as_bytes());
    body.extend_from_slice(b"\",\"rows\":[");
    let rows = &snapshot.rows[..snapshot.rows.len().min(limit)];
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        shown
            .write_json(row, ROW_FROM, &mut body)
            .map_err(Problem::internal)?;
    }
    let more = snapshot.rows.len() > rows.len();
    let next = match rows.last().filter(|_| more) {
        Some(last) => Some(cursor_behind(shown, asked, snapshot, last)?),
        None => None,
    };
    let end = PageEnd {
        next: next.as_deref(),
        count: snapshot.count.map(|count| RowCount {
            rows: count.min(COUNT_MAX),
            complete: count <= COUNT_MAX,
        }),
        position: position_of(snapshot.version.as_ref()),
    };
    let end = serde_json::to_vec(&end).map_err(Problem::internal)?;
    body.extend_from_slice(b"],");
    // Its members follow in the same object.
    body.extend_from_slice(&end[1..]);
    Ok((body, next))
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
    row: &sqlx::postgres::PgRow,
) -> Result<String, Problem> {
    let version = snapshot.version.as_ref();
    let generation = version.map_or(0, projector::RowsVersion::generation);
    let value = |(column, _): (usize, _)| {
        let column_type = shown.model.columns[column].column_type;
        Cell::of(row, ROW_FROM + column, column_type).map(|cell| cell.value())
    };
    let values = shown.order(asked).into_iter().map(value);
    let values = values
        .collect::<Result<_, _>>()
        .map_err(Problem::internal)?;
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
    let statement = Statement::one(shown, tenant.as_str(), key);
    inner.reach(shown.projection, &wait).await?;
    let snapshot = inner.snapshot(shown, &statement, &wait).await?;
    let row = snapshot.rows.first().ok_or_else(|| {
        let (name, names) = (shown.model.name, key_names(shown));
        let detail = format!("{name} has no row with this {names}{}", wait.advice());
        Problem::new(code::ROW_NOT_FOUND, detail)
    })?;
    let mut body = Vec::new();
    let written = shown.write_json(row, ROW_FROM, &mut body);
    written.map_err(Problem::internal)?;
    let mut response = json(body);
    put_position(&mut response, position_of(snapshot.version.as_ref()));
    Ok(wait.applied(response))
}

fn key_names(shown: &ShownModel) -> String {
    let names: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    names.join(",")
}

fn key_of(shown: &ShownModel, text: &str) -> Result<Vec<Value>, Problem> {
    shown.key_of_path(text).ok_or_else(|| {
        let (name, names) = (shown.model.name, key_names(shown));
        let detail = format!("no row of {name} can have this key; its key is {names}");
        Problem::new(code::ROW_NOT_FOUND, detail)
    })
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// An answer to a request with these `headers` that the client may keep: `body`, which is an object
/// with members, and the position as its last member. The tag is made from the body without the
/// position, which only says how far the reader had come; the header says it anew.
pub(super) fn tagged(
    headers: &HeaderMap,
    body: &impl Serialize,
    position: Option<&PositionToken>,
    tag: impl FnOnce(String) -> Tag,
) -> Result<Response, Problem> {
    let mut text = serde_json::to_vec(body).map_err(Problem::internal)?;
    let tag = tag(tag::digest(&text));
    // The brace that closes the object.
    text.pop();
    text.extend_from_slice(b",\"position\":");
    serde_json::to_writer(&mut text, &position).map_err(Problem::internal)?;
    text.push(b'}');
    let own = [
        (header::CONTENT_TYPE, "application/json"),
        (header::VARY, "annals-tenant"),
    ];
    let mut response = (own, text).into_response();
    put_position(&mut response, position);
    Ok(tag.answer(headers, response))
}

fn put_position(response: &mut Response, position: Option<&PositionToken>) {
    let value = position.and_then(|position| position.to_string().parse().ok());
    if let Some(value) = value {
        response.headers_mut().insert(POSITION, value);
    }
}

/// Adds the link to the next page (RFC 8288).
pub(super) fn link_next(response: &mut Response, target: &str) {
    let link = HeaderValue::from_str(&format!("<{target}>; rel=\"next\""));
    if let Ok(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
}

impl Inner {
    /// The version that `projection` shows, if that must be known before rows are read: once it has
    /// reached what the request waits for.
    ///
    /// # Errors
    /// `read_model_behind` if it did not reach it in time.
    pub(super) async fn reach(
        &self,
        projection: &'static str,
        wait: &Wait,
    ) -> Result<Option<Level>, Problem> {
        let Some(wanted) = &wait.min_position else {
            return Ok(None);
        };
        match self.levels.reach(projection, wanted, wait.deadline).await? {
            Reached::There(level) => Ok(Some(level)),
            Reached::Behind(behind) => Err(wait.applied_to(self.behind(projection, &behind))),
        }
    }

    /// The position that `projection` has reached, once it has reached what the request waits for.
    /// Rows that are read afterwards have reached at least this position.
    pub(super) async fn position(
        &self,
        projection: &'static str,
        wait: &Wait,
    ) -> Result<Option<PositionToken>, Problem> {
        let level = match self.reach(projection, wait).await? {
            Some(level) => level,
            None => self.levels.present(projection).await?,
        };
        Ok(level.and_then(|version| version.position().cloned()))
    }

    /// The rows of a statement, at the position that the request waited for.
    async fn snapshot(
        &self,
        shown: &ShownModel,
        statement: &Statement,
        wait: &Wait,
    ) -> Result<Snapshot, Problem> {
        let _turn = match &wait.min_position {
            Some(_) => Some(
                self.waited_reads
                    .acquire()
                    .await
                    .map_err(Problem::internal)?,
            ),
            None => None,
        };
        let snapshot = super::snapshot::read(&self.pool, statement).await;
        let snapshot = snapshot.map_err(|error| failed(&error))?;
        if let Some(wanted) = &wait.min_position {
            // Another generation may have become the live one meanwhile.
            let position = position_of(snapshot.version.as_ref());
            if !is_reached(wanted, position, self.log.partition_count())? {
                let behind = Behind::of(wanted, position);
                return Err(wait.applied_to(self.behind(shown.projection, &behind)));
            }
        }
        Ok(snapshot)
    }
}

impl QueryDoor {
    fn model(&self, name: &str) -> Result<&ShownModel, Problem> {
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
