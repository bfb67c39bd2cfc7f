//! Headers that both doors read: each at most once. A problem names the header that is refused.
//!
//! Invariant: an unknown header is ignored; a known header with an invalid value is a 400.
//! Deliberately absent: headers that only one door knows.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};
use kernel::TenantId;

use crate::code;
use crate::problem::Problem;

/// The correlation id of a request; generated if absent; on every response.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("annals-correlation-id");
/// The tenant of the stream or row; `main` if absent.
pub const TENANT: HeaderName = HeaderName::from_static("annals-tenant");
/// How long the client waits for the answer.
pub const TIMEOUT_MS: HeaderName = HeaderName::from_static("annals-timeout-ms");
/// The client's name for one intent.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The caller's trace (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// A position token: the place of a command's commit.
pub const POSITION: HeaderName = HeaderName::from_static("annals-position");
/// A position token that a query waits for.
pub const MIN_POSITION: HeaderName = HeaderName::from_static("annals-min-position");

/// How long a client waits if it names no time, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// The longest that a client may wait, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 60_000;

/// The only value of a header, if it is present.
///
/// # Errors
/// `header_invalid` if it is present twice or is not visible ASCII.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid(name, "it may be given only once"));
    }
    let text = value
        .to_str()
        .map_err(|_| invalid(name, "its value is not visible ASCII"))?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

/// The parsed value of a header, if it is present.
///
/// # Errors
/// `header_invalid`.
pub fn parsed<T>(headers: &HeaderMap, name: &HeaderName) -> Result<Option<T>, Problem>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    single(headers, name)?
        .map(|text| text.parse().map_err(|error| invalid(name, error)))
        .transpose()
}

/// A problem with the header `name`.
#[must_use]
pub fn invalid(name: &HeaderName, why: impl fmt::Display) -> Problem {
    let name = shown(name);
    Problem::new(code::HEADER_INVALID, format!("header {name}: {why}")).member("header", name)
}

/// A header's name in its usual letter case: `annals-tenant` becomes `Annals-Tenant`.
fn shown(name: &HeaderName) -> String {
    let mut shown = String::with_capacity(name.as_str().len());
    let mut starts = true;
    for letter in name.as_str().chars() {
        shown.push(if starts {
            letter.to_ascii_uppercase()
        } else {
            letter
        });
        starts = letter == '-';
    }
    shown
}

/// The tenant that a request is for.
///
/// # Errors
/// `header_invalid`.
pub fn tenant(headers: &HeaderMap) -> Result<TenantId, Problem> {
    Ok(parsed(headers, &TENANT)?.unwrap_or_default())
}

/// The time at which a client stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// How long the client waits from the start.
    pub wait: Duration,
    /// When the wait ends.
    pub at: Instant,
}

impl Deadline {
    /// The deadline of a request that arrived now, from `Annals-Timeout-Ms`: 1 to 60,000, by
    /// default 10,000.
    ///
    /// # Errors
    /// `header_invalid`.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let wait = wait_of(headers)?;
        Ok(Self::after(wait))
    }

    /// The deadline `wait` from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self {
            wait,
            at: Instant::now() + wait,
        }
    }

    /// The output of `work` if it is ready before the deadline.
    pub async fn limit<F: Future>(self, work: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at.into(), work).await.ok()
    }
}

fn wait_of(headers: &HeaderMap) -> Result<Duration, Problem> {
    let millis = match single(headers, &TIMEOUT_MS)? {
        None => TIMEOUT_MS_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|millis| (1..=TIMEOUT_MS_MAX).contains(millis))
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| invalid(&TIMEOUT_MS, "an integer from 1 to 60000"))?,
    };
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn a_known_header_stands_once_and_in_ascii() {
        assert_eq!(tenant(&headers(&[])).unwrap(), TenantId::default());
        assert_eq!(
            tenant(&headers(&[("annals-tenant", b"acme ")]))
                .unwrap()
                .as_str(),
            "acme"
        );
        for pairs in [
            &[("annals-tenant", &b"a"[..]), ("annals-tenant", b"a")][..],
            &[("annals-tenant", b"\xff")],
            &[("annals-tenant", b"Main")],
            &[("annals-tenant", b"")],
        ] {
            let problem = tenant(&headers(pairs)).unwrap_err();
            assert_eq!(problem.code(), "header_invalid");
            assert!(format!("{problem:?}").contains("\"header\":\"Annals-Tenant\""));
        }
    }

    #[test]
    fn a_timeout_is_a_bounded_integer() {
        let wait =
            |text: &'static str| wait_of(&headers(&[("annals-timeout-ms", text.as_bytes())]));
        assert_eq!(wait_of(&headers(&[])).unwrap(), Duration::from_secs(10));
        assert_eq!(wait("1").unwrap(), Duration::from_millis(1));
        assert_eq!(wait("60000").unwrap(), Duration::from_secs(60));
        for text in [
            "0",
            "60001",
            "-1",
            "+1",
            "1.5",
            "",
            "x",
            "99999999999999999999999",
        ] {
            assert!(wait(text).is_err(), "{text}");
        }
    }
}
