//! One request, and its answer as text.
//!
//! Deliberately absent: what the text means.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::batch::is_worth_another_try;
use crate::{Client, ClientError, Problem};

/// A successful answer.
pub(crate) struct Answered {
    headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    pub(crate) fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable {
            url: self.url.clone(),
            source,
        }
    }

    /// Sends a request; a problem document is an error.
    pub(crate) async fn ask(&self, request: RequestBuilder) -> Result<Answered, ClientError> {
        let response = self.begin(request).await?;
        let headers = response.headers().clone();
        let text = response.text().await;
        let text = text.map_err(|source| self.unreachable(source))?;
        Ok(Answered { headers, text })
    }

    /// The same, before the content of a successful answer is read.
    pub(crate) async fn begin(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await;
        let response = response.map_err(|source| self.unreachable(source))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await;
        let text = text.map_err(|source| self.unreachable(source))?;
        let mut problem = match serde_json::from_str(&text) {
            Ok(problem) => problem,
            // An intermediary, such as a proxy, answered instead of the door.
            Err(_) if is_worth_another_try(status.as_u16()) => Problem::without_document(status),
            Err(_) => self.read(&text)?,
        };
        problem.status = status.as_u16();
        problem.retry_after = retry_after(&headers);
        problem.text = text;
        Err(ClientError::Problem(Box::new(problem)))
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, ClientError> {
        serde_json::from_str(text).map_err(|source| ClientError::NotADoor {
            url: self.url.clone(),
            source,
        })
    }
}

/// A header's value from a text.
///
/// # Errors
/// [`ClientError::Header`]: the HTTP client would report the same only when the request is sent, as if
/// nobody had answered.
pub(crate) fn header(name: &'static str, text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::Header { name })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A path segment; all but unreserved characters are percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment_of_a_path() {
        assert_eq!(segment("order-1.a~b_c"), "order-1.a~b_c");
        assert_eq!(segment("a/b?c ü"), "a%2Fb%3Fc%20%C3%BC");
    }
}
