//! Read models by page and by key.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use door::header::{POSITION, tenant};
use door::tag::{self, Tag};
use door::{NoQuery, Path, Problem, Query};
use position::PositionToken;
use projector::Null;
use serde::Serialize;

use super::parameters::{OneParameters, PageParameters};
use super::rows::{ShownModel, ShownRow};
use super::{QueryDoor, code, failed};

#[derive(Serialize)]
struct Models {
    models: Vec<ModelInfo>,
}

#[derive(Serialize)]
struct ModelInfo {
    name: &'static str,
    about: &'static str,
    key: Vec<&'static str>,
    columns: Vec<ColumnInfo>,
}

#[derive(Serialize)]
struct ColumnInfo {
    name: &'static str,
    #[serde(rename = "type")]
    column_type: &'static str,
    nullable: bool,
    about: &'static str,
}

/// `GET /v1/read`
pub(super) async fn models(State(door): State<QueryDoor>, _: NoQuery) -> Response {
    let info = |shown: &ShownModel| ModelInfo {
        name: shown.model.name,
        about: shown.model.about,
        key: shown.model.key.iter().map(|key| key.name).collect(),
        columns: shown
            .model
            .columns
            .iter()
            .map(|column| ColumnInfo {
                name: column.name,
                column_type: column.column_type.sql(),
                nullable: column.null == Null::Possible,
                about: column.about,
            })
            .collect(),
    };
    let models = door.inner.models.iter().map(info).collect();
    Json(Models { models }).into_response()
}

#[derive(Serialize)]
struct Page<'a> {
    model: &'static str,
    rows: &'a [ShownRow],
    next: Option<String>,
    position: Option<&'a PositionToken>,
}

/// `GET /v1/read/{model}`
pub(super) async fn page(
    State(door): State<QueryDoor>,
    Path(name): Path<String>,
    Query(parameters): Query<PageParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = page_of(&door, shown, &parameters, &headers).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn page_of(
    door: &QueryDoor,
    shown: &ShownModel,
    parameters: &PageParameters,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let limit = parameters.limit()?;
    let after = parameters.after(shown.cursor_length_max)?;
    let wait = parameters.wait(headers)?;
    let after = after.map(|cursor| {
        shown.key_of_cursor(cursor).ok_or_else(|| {
            let detail = format!("after is not a cursor of {}", shown.model.name);
            Problem::new(code::CURSOR_UNKNOWN, detail)
        })
    });
    let after = after.transpose()?;
    let position = door.inner.reach(shown.projection, &wait).await?;
    // One row more than asked for shows whether there is a next page.
    let found = shown
        .page(tenant.as_str(), after.as_deref(), i64::from(limit) + 1)
        .fetch_all(&door.inner.pool)
        .await
        .map_err(|error| failed(&error))?;
    let rows = found.iter().take(limit as usize);
    let rows = rows
        .map(|row| shown.show(row))
        .collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(Problem::internal)?;
    let more = found.len() > rows.len();
    let body = Page {
        model: shown.model.name,
        next: rows.last().filter(|_| more).map(|row| shown.cursor_of(row)),
        rows: &rows,
        position: position.as_ref(),
    };
    let mut response = answer(&body, position.as_ref());
    if let Some(next) = &body.next {
        let name = shown.model.name;
        link_next(
            &mut response,
            &format!("/v1/read/{name}?limit={limit}&after={next}"),
        );
    }
    Ok(response)
}

/// `GET /v1/read/{model}/{key}`
pub(super) async fn one(
    State(door): State<QueryDoor>,
    Path((name, key)): Path<(String, String)>,
    Query(parameters): Query<OneParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = row_of(&door, shown, &key, &parameters, &headers).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn row_of(
    door: &QueryDoor,
    shown: &ShownModel,
    key: &str,
    parameters: &OneParameters,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tenant = tenant(headers)?;
    let wait = parameters.wait(headers)?;
    let names: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    let (name, names) = (shown.model.name, names.join(","));
    let missing = |detail| Problem::new(code::ROW_NOT_FOUND, detail);
    let key = shown.key_of_path(key).ok_or_else(|| {
        missing(format!(
            "no row of {name} can have this key; its key is {names}"
        ))
    })?;
    let position = door.inner.reach(shown.projection, &wait).await?;
    let found = shown
        .one(tenant.as_str(), &key)
        .fetch_optional(&door.inner.pool)
        .await
        .map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| {
        missing(format!(
            "{name} has no row with this {names}{}",
            wait.advice()
        ))
    })?;
    let row = shown.show(&found).map_err(Problem::internal)?;
    Ok(answer(&row, position.as_ref()))
}

/// An answer with a JSON body and the position as a header.
fn answer(body: &impl Serialize, position: Option<&PositionToken>) -> Response {
    let mut response = Json(body).into_response();
    put_position(&mut response, position);
    response
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
