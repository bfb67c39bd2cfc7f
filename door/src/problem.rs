//! Problem documents (RFC 9457).
//!
//! Invariant: the standard's members, `code` and `correlation_id` always have their own meaning; a
//! fact with the same name gets the prefix `fact_`. The cause of a 500 is kept for the log and
//! never sent. Deliberately absent: `instance` and `correlation_id` of a response, which
//! [`crate::finish()`] fills in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::code::{self, Code};

/// The media type of a problem document.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// The prefix of type URIs. It is a URN, since there is no host name that every deployment has.
const TYPE_PREFIX: &str = "urn:annals:problem:";

/// The member names that no fact may use.
const RESERVED: [&str; 7] = [
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "correlation_id",
];

/// An error as a client reads it.
#[derive(Clone, PartialEq)]
pub struct Problem(Box<Inner>);

#[derive(Clone, PartialEq)]
struct Inner {
    code: Cow<'static, str>,
    title: Cow<'static, str>,
    status: StatusCode,
    detail: String,
    instance: Option<String>,
    correlation_id: Option<String>,
    members: BTreeMap<Cow<'static, str>, Value>,
    headers: HeaderMap,
    cause: Option<String>,
}

impl Problem {
    /// A problem of a known kind; `detail` is a sentence about this occurrence.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with(code.name.into(), code.title.into(), status, detail.into())
    }

    /// A refusal by a rule. Its code is not declared here; its facts become members.
    #[must_use]
    pub fn rejection(
        status: StatusCode,
        code: &str,
        detail: impl Into<String>,
        facts: &Map<String, Value>,
    ) -> Self {
        let title = title_of(code).into();
        let mut problem = Self::with(code.to_owned().into(), title, status, detail.into());
        for (name, value) in facts {
            let name = if RESERVED.contains(&name.as_str()) {
                format!("fact_{name}")
            } else {
                name.clone()
            };
            problem.0.members.insert(name.into(), value.clone());
        }
        problem
    }

    /// A bug of this program: the client sees no details; `cause` goes into the log, once.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        let detail = "a bug of the server; the server's own log says more under the correlation id";
        let mut problem = Self::new(code::INTERNAL, detail);
        problem.0.cause = Some(cause.to_string());
        problem
    }

    fn with(
        code: Cow<'static, str>,
        title: Cow<'static, str>,
        status: StatusCode,
        detail: String,
    ) -> Self {
        Self(Box::new(Inner {
            code,
            title,
            status,
            detail,
            instance: None,
            correlation_id: None,
            members: BTreeMap::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// Adds a member; a member with a reserved name is left out.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        if !RESERVED.contains(&name) {
            // A fact with this name is renamed instead of lost.
            if let Some(fact) = self.0.members.insert(name.into(), value.into()) {
                self.0.members.insert(format!("fact_{name}").into(), fact);
            }
        }
        self
    }

    /// Adds the place of the problem in the body, as a JSON pointer (RFC 6901).
    #[must_use]
    pub fn pointer(self, pointer: impl Into<String>) -> Self {
        self.member("pointer", pointer.into())
    }

    /// Adds when to try again: `Retry-After` in whole seconds, and `retry_after_ms`.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.header(header::RETRY_AFTER, &seconds.to_string())
            .member("retry_after_ms", millis)
    }

    /// Adds a header to the response; a value that a header cannot hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Fills in the resource and the correlation id if they are not set yet, and logs the cause of
    /// a bug. Call this once, when the problem is answered; [`crate::finish()`] does so for whole
    /// responses.
    #[must_use]
    pub fn complete(mut self, path: &str, correlation_id: &str) -> Self {
        self.0.instance.get_or_insert_with(|| path.to_owned());
        self.0
            .correlation_id
            .get_or_insert_with(|| correlation_id.to_owned());
        if self.0.status == StatusCode::INTERNAL_SERVER_ERROR {
            let cause = self
                .0
                .cause
                .as_deref()
                .unwrap_or("an error response without a cause");
            tracing::error!(path, correlation_id, cause, "answered with 500");
        }
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }
}

/// A code as a title: `order_not_placed` becomes "Order not placed".
fn title_of(code: &str) -> String {
    let mut title = code.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("{TYPE_PREFIX}{}", inner.code))?;
        map.serialize_entry("title", &inner.title)?;
        map.serialize_entry("status", &inner.status.as_u16())?;
        map.serialize_entry("detail", &inner.detail)?;
        if let Some(instance) = &inner.instance {
            map.serialize_entry("instance", instance)?;
        }
        map.serialize_entry("code", &inner.code)?;
        if let Some(id) = &inner.correlation_id {
            map.serialize_entry("correlation_id", id)?;
        }
        for (name, value) in &inner.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        response.headers_mut().extend(self.0.headers.clone());
        let media_type = HeaderValue::from_static(PROBLEM_MEDIA_TYPE);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        // `finish` takes the problem out again, to fill in the members that only it knows.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rejection_shows_its_facts_but_keeps_the_standard_members() {
        let facts = json!({"placed_at": "2018-01-01T00:00:00Z", "status": "odd", "version": 7});
        let problem = Problem::rejection(
            StatusCode::UNPROCESSABLE_ENTITY,
            "order_already_placed",
            "the order was already placed",
            facts.as_object().unwrap(),
        )
        .member("version", 3)
        .member("title", "never")
        .complete("/v1/x", "c1");
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            json!({
                "type": "urn:annals:problem:order_already_placed",
                "title": "Order already placed",
                "status": 422,
                "detail": "the order was already placed",
                "instance": "/v1/x",
                "code": "order_already_placed",
                "correlation_id": "c1",
                "placed_at": "2018-01-01T00:00:00Z",
                "fact_status": "odd",
                "fact_version": 7,
                "version": 3,
            })
        );
    }

    #[test]
    fn retry_after_is_whole_seconds_and_at_least_one() {
        for (after_ms, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let problem =
                Problem::new(code::NOT_READY, "x").retry_after(Duration::from_millis(after_ms));
            assert_eq!(problem.0.headers["retry-after"], header);
        }
    }

    #[test]
    fn a_bug_is_opaque() {
        let problem = Problem::internal("secret");
        assert!(!format!("{problem:?}").contains("secret"));
        assert_eq!(problem.0.cause.as_deref(), Some("secret"));
    }
}
