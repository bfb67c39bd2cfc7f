//! Entity tags, and the answer that a client has the current content already (RFC 9110 §8.8, §13.1).
//!
//! Invariant: a tag is made from the content that it stands for, so that it never says "not modified"
//! of content that another program, another log or another tenant would show differently. An answer
//! with a tag may be kept, and must be asked for again before each use. Deliberately absent: dates of
//! modification.

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

/// How many bytes of the digest a tag shows.
const DIGEST_BYTES: usize = 12;
/// The end of the tag of an answer that is compressed.
const GZIP: &str = "-gzip";

/// The tag of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    prefix: &'static str,
    opaque: String,
}

impl Tag {
    /// A tag that two answers share only if they are the same, byte by byte.
    #[must_use]
    pub fn strong(opaque: String) -> Self {
        Self { prefix: "", opaque }
    }

    /// A tag that two answers share if they say the same.
    #[must_use]
    pub fn weak(opaque: String) -> Self {
        Self {
            prefix: "W/",
            opaque,
        }
    }

    /// The answer with this tag; without content if the client of a request with these `headers` has
    /// it already.
    #[must_use]
    pub fn answer(&self, headers: &HeaderMap, mut response: Response) -> Response {
        let known = self.known(headers);
        if known.is_some() {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let opaque = known.unwrap_or_else(|| self.opaque.clone());
        let tag = format!("{}\"{opaque}\"", self.prefix);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        let again = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, again);
        response
    }

    /// Whether the client of a request with these `headers` names this tag, so that it has content
    /// of which nobody needs to look whether there is any; `*` names none.
    #[must_use]
    pub fn is_named(&self, headers: &HeaderMap) -> bool {
        let mut texts = headers.get_all(header::IF_NONE_MATCH).iter();
        let is_star = texts.any(|value| value.as_bytes().trim_ascii() == b"*");
        !is_star && self.known(headers).is_some()
    }

    /// The tag by which the client knows this representation, compressed or not.
    fn known(&self, headers: &HeaderMap) -> Option<String> {
        let texts = headers.get_all(header::IF_NONE_MATCH).iter();
        for text in texts.filter_map(|value| value.to_str().ok()) {
            if text.trim() == "*" {
                return Some(self.opaque.clone());
            }
            // What stands between quotes is a tag. Whether it is weak does not matter here.
            let mut tags = text.split('"').skip(1).step_by(2);
            if let Some(tag) = tags.find(|tag| tag.strip_suffix(GZIP).unwrap_or(tag) == self.opaque)
            {
                return Some(tag.to_owned());
            }
        }
        None
    }
}

/// A short text that stands for this content.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    hex::encode(&Sha256::digest(content)[..DIGEST_BYTES])
}

/// The strong tag of the same content in its compressed form; absent if the tag is weak and holds
/// for both.
pub(crate) fn of_gzip(tag: &HeaderValue) -> Option<HeaderValue> {
    let opaque = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    HeaderValue::from_str(&format!("\"{opaque}{GZIP}\"")).ok()
}

/// Gives each document of these routes a tag.
pub fn of_documents(routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn(document))
}

async fn document(request: Request, next: Next) -> Response {
    let is_get = request.method() == Method::GET;
    let headers = request.headers().clone();
    let response = next.run(request).await;
    let is_whole = response.body().size_hint().exact().is_some();
    if !is_get || response.status() != StatusCode::OK || !is_whole {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(content) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let tag = Tag::strong(digest(&content));
    tag.answer(&headers, Response::from_parts(parts, Body::from(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(tag: &Tag, known: &[&'static str]) -> (u16, String) {
        let known = known.iter().map(|known| HeaderValue::from_static(known));
        let headers = known.map(|known| (header::IF_NONE_MATCH, known)).collect();
        let response = tag.answer(&headers, "content".into_response());
        let tag = response.headers()[header::ETAG]
            .to_str()
            .unwrap()
            .to_owned();
        (response.status().as_u16(), tag)
    }

    #[test]
    fn content_that_the_client_has_is_not_sent_again() {
        let [strong, weak] = [Tag::strong("3-a".into()), Tag::weak("3-a".into())];
        for (known, expected, answered) in [
            (&[][..], 200, "3-a"),
            (&["\"3-a\""], 304, "3-a"),
            (&["W/\"3-a\""], 304, "3-a"),
            (&["\"3-a-gzip\""], 304, "3-a-gzip"),
            (&["\"1\", W/\"2\",\"3-a\""], 304, "3-a"),
            (&["\"1\"", "\"3-a\""], 304, "3-a"),
            (&["*"], 304, "3-a"),
            (&["\"3\""], 200, "3-a"),
            (&["3-a"], 200, "3-a"),
            (&["\"3-a"], 304, "3-a"),
            (&["\"3-b\"", "\"\"", ""], 200, "3-a"),
        ] {
            let (code, tag) = status(&strong, known);
            assert_eq!(
                (code, tag),
                (expected, format!("\"{answered}\"")),
                "{known:?}"
            );
            assert_eq!(
                status(&weak, known),
                (expected, format!("W/\"{answered}\""))
            );
        }
    }

    #[test]
    fn a_compressed_answer_has_a_strong_tag_of_its_own() {
        let of = |tag| of_gzip(&HeaderValue::from_static(tag));
        assert_eq!(of("\"3\"").unwrap(), "\"3-gzip\"");
        assert_eq!(of("W/\"3\""), None);
    }
}
