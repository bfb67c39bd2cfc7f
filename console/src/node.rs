//! What the console asks of its node: requests to the node's own routes, in process.
//!
//! Invariant: an answer is either what the route said, or a [`Trouble`] in words; a route that is not
//! served is told apart from a thing that is not there. Deliberately absent: what is shown of it.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use door::{Correlation, Problem};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

/// The most bytes of an answer that a room reads. The largest page of events has two megabytes of data.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What stays as it is in a part of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A part of a path, with what would end it escaped.
#[must_use]
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A path with these parameters.
#[must_use]
pub(crate) fn with_query<'q>(
    path: &str,
    query: impl IntoIterator<Item = (&'q str, &'q str)>,
) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query);
    let text = text.finish();
    if text.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{text}")
}

/// Why a room cannot show what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// A headline.
    pub(crate) title: String,
    /// What happened.
    pub(crate) detail: String,
    /// The stable code of the problem, if the route gave one.
    pub(crate) code: Option<String>,
    /// The id under which the server's own log says more.
    pub(crate) correlation_id: Option<String>,
}

impl Trouble {
    /// A trouble of the console's own.
    pub(crate) fn new(status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title: title.to_owned(),
            detail: detail.into(),
            code: None,
            correlation_id: None,
        }
    }

    /// Whether this node does not serve the route, whatever it was asked for.
    pub(crate) fn is_not_served(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.code.is_none()
    }

    /// Whether a later try may go well.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        )
    }
}

/// The members of a problem document that are shown.
#[derive(Deserialize)]
struct Said {
    title: String,
    detail: String,
    code: String,
    correlation_id: Option<String>,
}

/// One way to the node: its routes, and what each request carries.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) routes: Router,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: axum::http::Extensions,
}

impl Node {
    /// The JSON at a path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let bytes = self.bytes(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            tracing::warn!(%error, path, "the console cannot read an answer of its own node");
            let title = "An answer that this console cannot read";
            let detail = format!("what the node answered for {path} is of another form: {error}");
            Trouble::new(StatusCode::BAD_GATEWAY, title, detail)
        })
    }

    /// The text at a path.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Trouble> {
        let bytes = self.bytes(path).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn bytes(&self, path: &str) -> Result<Bytes, Trouble> {
        let response = self.ask(Method::GET, path, None).await?;
        self.whole(path, response).await
    }

    /// Sends JSON to a path; the answer is of no interest beyond its success.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), Trouble> {
        let response = self.ask(Method::POST, path, Some(body.to_string())).await?;
        self.whole(path, response).await.map(|_| ())
    }

    /// The body of an answer, or what went wrong.
    async fn whole(&self, path: &str, response: Response) -> Result<Bytes, Trouble> {
        let (mut parts, body) = response.into_parts();
        if let Some(problem) = parts.extensions.remove::<Problem>() {
            // This also writes the cause of a bug into the log.
            let correlation = self.extensions.get::<Correlation>();
            let id = correlation.map_or("", |correlation| correlation.id.as_str());
            let problem = serde_json::to_vec(&problem.complete(path, id));
            return Err(trouble(parts.status, &problem.unwrap_or_default()));
        }
        let bytes = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| {
            let title = "An answer that is too large";
            Trouble::new(StatusCode::BAD_GATEWAY, title, error.to_string())
        })?;
        if parts.status.is_success() {
            return Ok(bytes);
        }
        Err(trouble(parts.status, &bytes))
    }

    /// The answer of a route as it is.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        json: Option<String>,
    ) -> Result<Response, Trouble> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| {
            let detail = "the address of the page holds what no address may hold";
            Trouble::new(StatusCode::BAD_REQUEST, "Not an address", detail)
        })?;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        if let Some(json) = json {
            *request.body_mut() = Body::from(json);
            let media_type = HeaderValue::from_static("application/json");
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, media_type);
        }
        let Ok(response) = self.routes.clone().oneshot(request).await;
        Ok(response)
    }
}

fn trouble(status: StatusCode, body: &[u8]) -> Trouble {
    if let Ok(said) = serde_json::from_slice::<Said>(body) {
        return Trouble {
            status,
            title: said.title,
            detail: said.detail,
            code: Some(said.code),
            correlation_id: said.correlation_id,
        };
    }
    let reason = status.canonical_reason().unwrap_or("An error");
    let detail = format!("the node answered {}", status.as_u16());
    Trouble::new(status, reason, detail)
}

/// The headers of a visitor that go on to the node: what says who they are.
pub(crate) const PASSED_ON: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_part_of_a_path_is_escaped() {
        assert_eq!(segment("order-1"), "order-1");
        assert_eq!(segment("a/b?c#d e%é,f"), "a%2Fb%3Fc%23d%20e%25%C3%A9%2Cf");
        assert_eq!(with_query("/x", []), "/x");
        assert_eq!(with_query("/x", [("a", "1&2"), ("b", "")]), "/x?a=1%262&b=");
    }

    #[test]
    fn a_missing_thing_is_told_apart_from_a_missing_route() {
        let body = br#"{"title":"Stream not found","detail":"nothing is recorded","code":"stream_not_found"}"#;
        let missing = trouble(StatusCode::NOT_FOUND, body);
        assert!(!missing.is_not_served());
        assert_eq!(missing.code.as_deref(), Some("stream_not_found"));
        assert!(trouble(StatusCode::NOT_FOUND, b"").is_not_served());
        assert!(trouble(StatusCode::SERVICE_UNAVAILABLE, b"").is_passing());
    }
}
