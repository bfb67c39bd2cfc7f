//! Parked streams: listed, shown with what waits, taken up again, or discarded.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use door::header::tenant;
use door::{JsonText, NoQuery, Path, Problem, Query};
use projector::{ParkedStream, ParkedWish, WAITING_MAX};
use serde::{Deserialize, Serialize};

use super::{AdminDoor, Asked, actor, code, failed, said};

/// The most streams in a page, and how many if nobody says.
pub(super) const LIMIT_MAX: u32 = 1_000;
pub(super) const LIMIT_DEFAULT: u32 = 100;

/// How many waiting commits are shown if nobody says.
pub(super) const WAITING_DEFAULT: u32 = 20;

/// The parameters of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// Only those of this projection.
    projection: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Page {
    parked: Vec<ParkedStream>,
    next: Option<String>,
}

/// `GET /v1/parked`
pub(super) async fn list(
    State(door): State<AdminDoor>,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let limit = limit_of(parameters.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = match &parameters.after {
        None => None,
        Some(after) => Some(parts(after).ok_or_else(|| {
            let detail = "after takes the next of an earlier page";
            Problem::new(door::code::QUERY_INVALID, detail)
        })?),
    };
    let mut operator = door.operator().await?;
    let projection = parameters.projection.as_deref();
    // One more than asked for shows whether there is a next page.
    let found = operator.parked(projection, after, i64::from(limit) + 1);
    let mut parked = found.await.map_err(|error| failed(&error))?;
    let more = parked.len() > limit as usize;
    parked.truncate(limit as usize);
    let next = parked.last().filter(|_| more).map(cursor);
    Ok(Json(Page { parked, next }).into_response())
}

/// No name of a projection, tenant or stream holds a slash.
fn cursor(parked: &ParkedStream) -> String {
    format!("{}/{}/{}", parked.projection, parked.tenant, parked.stream)
}

fn parts(cursor: &str) -> Option<(&str, &str, &str)> {
    let mut parts = cursor.split('/');
    let place = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(place)
}

/// The parameters of one parked stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneParameters {
    /// How many waiting commits are shown.
    limit: Option<u32>,
}

/// `GET /v1/parked/{projection}/{stream}`
pub(super) async fn one(
    State(door): State<AdminDoor>,
    Path((projection, stream)): Path<(String, String)>,
    Query(parameters): Query<OneParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = limit_of(parameters.limit, WAITING_DEFAULT, WAITING_MAX)?;
    let tenant = tenant(&headers)?;
    let mut operator = door.operator().await?;
    let log = &*door.inner.log;
    let found = operator.parked_stream(log, &projection, tenant.as_str(), &stream, limit);
    match found.await.map_err(|error| failed(&error))? {
        Some(found) => Ok(Json(found).into_response()),
        None => Err(not_parked(&projection, &stream)),
    }
}

fn limit_of(given: Option<u32>, default: u32, most: u32) -> Result<u32, Problem> {
    let limit = given.unwrap_or(default);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit is 1 to {most}");
    Err(Problem::new(door::code::QUERY_INVALID, detail))
}

fn not_parked(projection: &str, stream: &str) -> Problem {
    let detail = format!("{projection} has not parked {stream}");
    Problem::new(code::STREAM_NOT_PARKED, detail)
}

#[derive(Serialize)]
struct Wished<'a> {
    projection: &'a str,
    tenant: &'a str,
    stream: &'a str,
    wish: &'a str,
}

/// `POST /v1/parked/{projection}/{stream}/{action}`
pub(super) async fn control(
    State(door): State<AdminDoor>,
    Path((projection, stream, action)): Path<(String, String, String)>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    door.require_controls()?;
    let (asked, by, tenant) = (Asked::of(&body)?, actor(&headers)?, tenant(&headers)?);
    let wish = match action.as_str() {
        "retry" => ParkedWish::Retry,
        "discard" => ParkedWish::Discard,
        _ => {
            let detail = format!("there is no action {action:?}; the actions are: retry, discard");
            return Err(Problem::new(code::ACTION_UNKNOWN, detail));
        }
    };
    let mut operator = door.operator().await?;
    let who = said(&by, &asked);
    let is_parked = operator.wish(&projection, tenant.as_str(), &stream, wish, who);
    if !is_parked.await.map_err(|error| failed(&error))? {
        return Err(not_parked(&projection, &stream));
    }
    let wished = Wished {
        projection: &projection,
        tenant: tenant.as_str(),
        stream: &stream,
        wish: &action,
    };
    Ok((StatusCode::ACCEPTED, Json(wished)).into_response())
}
