//! Extractors that refuse with problem documents.
//!
//! Invariant: at most [`BODY_SIZE_MAX`] bytes of a body are kept, and reading a body has a time
//! limit. Deliberately absent: what a body means.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header, request::Parts};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::BODY_SIZE_MAX;
use crate::code;
use crate::memory::{ALLOWANCE_BYTES, Charge};
use crate::problem::Problem;
use crate::serve::TooSlow;

/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// The parameters of the path, as `axum::extract::Path` reads them.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_server_error() => {
                Err(Problem::internal(rejection.body_text()))
            }
            Err(rejection) => Err(Problem::new(code::PATH_INVALID, rejection.body_text())),
        }
    }
}

/// The query parameters. `T` must refuse unknown fields itself (`deny_unknown_fields`); serde
/// refuses repeated ones.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(code::QUERY_INVALID, rejection.body_text())),
        }
    }
}

/// Refuses any query parameter.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// For routes that take no query parameters.
pub type NoQuery = Query<Nothing>;

/// A JSON body as UTF-8 text. The reader must check that it is JSON.
#[derive(Clone, Debug)]
pub struct JsonText(pub String);

impl<S: Send + Sync> FromRequest<S> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        require_media_type(request.headers(), &["application/json"])?;
        if declared_length(request.headers()).is_some_and(|length| length > BODY_SIZE_MAX as u64) {
            return Err(too_large());
        }
        let charge = Charge::of_request(request.extensions());
        let declared = declared_length(request.headers());
        let read = read_text(request.into_body(), declared, &charge);
        tokio::time::timeout(BODY_WAIT, read).await.map_err(|_| {
            Problem::new(
                code::REQUEST_TIMEOUT,
                "the body did not arrive within 30 seconds",
            )
        })?
    }
}

/// The problem of a body that breaks off.
#[must_use]
pub fn broken_off(error: &axum::Error) -> Problem {
    if TooSlow::is_cause_of(error) {
        let detail = "the body came too slowly; send it faster, or send smaller requests";
        return Problem::new(code::REQUEST_TIMEOUT, detail);
    }
    let detail = "the body could not be read to its end";
    Problem::new(code::REQUEST_INVALID, detail)
}

async fn read_text(
    body: Body,
    declared: Option<u64>,
    charge: &Charge,
) -> Result<JsonText, Problem> {
    // Take memory for the whole body at once: otherwise two half-read bodies could wait for each
    // other.
    let mut room = match declared.map(usize::try_from) {
        Some(Ok(size)) if size <= BODY_SIZE_MAX => size,
        _ => ALLOWANCE_BYTES,
    };
    charge.keep(room).await?;
    let mut text = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| broken_off(&error))?;
        if text.len() + chunk.len() > BODY_SIZE_MAX {
            return Err(too_large());
        }
        if text.len() + chunk.len() > room {
            room = BODY_SIZE_MAX;
            charge.keep(room).await?;
        }
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text)
        .map_err(|_| Problem::new(code::JSON_INVALID, "the body is not UTF-8"))?;
    Ok(JsonText(text))
}

/// The problem of a body or line above [`BODY_SIZE_MAX`].
#[must_use]
pub fn too_large() -> Problem {
    let detail = format!("more than {BODY_SIZE_MAX} bytes");
    Problem::new(code::BODY_TOO_LARGE, detail).member("max", BODY_SIZE_MAX)
}

/// Checks that a body has one of the media types in `accepted`, in UTF-8 and not compressed.
///
/// A missing `Content-Type` is refused, too: a page in a browser can send a request without one, or
/// with one of a form's types, to any address without a preflight. It cannot do so with the
/// accepted types.
///
/// # Errors
/// `media_type_unsupported`.
pub fn require_media_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    let refuse = |detail: String| {
        let problem = Problem::new(code::MEDIA_TYPE_UNSUPPORTED, detail);
        Err(problem.header(header::ACCEPT, &accepted.join(", ")))
    };
    let wanted = accepted.join(" or ");
    if !accepted.iter().any(|one| is_of_media_type(headers, one)) {
        return refuse(format!(
            "the body's Content-Type must be {wanted}, in UTF-8"
        ));
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("compressed bodies are not supported".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether a body has this media type, in UTF-8.
#[must_use]
pub fn is_of_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let given = types.next().and_then(|value| value.to_str().ok());
    let Some(given) = given.filter(|_| types.next().is_none()) else {
        return false;
    };
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    media_type.eq_ignore_ascii_case(essence)
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// The value of `Content-Length`.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(given: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, given.parse().unwrap())]);
        is_of_media_type(&headers, "application/json")
    }

    #[test]
    fn json_is_utf_8_whatever_the_letter_case() {
        for given in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;a=b",
        ] {
            assert!(is_json(given), "{given}");
        }
        for given in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json;charset=latin1",
        ] {
            assert!(!is_json(given), "{given}");
        }
    }
}
