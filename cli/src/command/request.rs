//! One request to a running server, and what its answer means for the exit code.
//!
//! Deliberately absent: batches (`client`).

use reqwest::RequestBuilder;
use serde_json::Value;

use crate::exit::{Exit, Failure, explained};
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// A client, and the address of a path of the server.
pub(super) fn to(settings: &Settings, path: &str) -> Result<(reqwest::Client, String), Failure> {
    let client = reqwest::Client::builder().build();
    let client = client.map_err(|error| Failure::of(Exit::Failed, &error))?;
    Ok((client, format!("{}{path}", settings.url)))
}

/// Sends a request and reads a JSON answer; a problem document becomes a failure.
///
/// # Errors
/// `Unavailable` where nobody answers; else as the problem says.
pub(super) async fn json(settings: &Settings, request: RequestBuilder) -> Result<Value, Failure> {
    let text = text(settings, request).await?;
    serde_json::from_str(&text).map_err(|error| not_understood(&error))
}

/// Sends a request and reads the text of its JSON answer; a problem document becomes a failure.
///
/// # Errors
/// As [`json`].
pub(super) async fn text(settings: &Settings, request: RequestBuilder) -> Result<String, Failure> {
    let url = &settings.url;
    let response = request.send().await.map_err(|error| {
        if error.is_builder() {
            let what = format!("understand the server's address {url}");
            return Failure::of(Exit::Usage, &error).while_trying(&what);
        }
        let failure = Failure::new(Exit::Unavailable, explained(&error));
        let failure = failure.while_trying(&format!("ask {url} ({})", settings.source("url")));
        if error.is_connect() {
            failure.hint("is a server running there? Start one with: annals dev")
        } else {
            failure
        }
    })?;
    let status = response.status().as_u16();
    let body = response.text().await.map_err(|error| {
        Failure::of(Exit::Unavailable, &error).while_trying("read the server's answer")
    })?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let document = serde_json::from_str(&body).map_err(|error| not_understood(&error))?;
    if settings.output == OutputFormat::Json {
        output::json(&output::pretty(&body))?;
    }
    Err(problem(status, &document))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying("understand the server's answer")
}

/// What a problem document says, as a failure.
fn problem(status: u16, body: &Value) -> Failure {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, detail) = (text("code"), text("detail"));
    let (exit, word) = match status {
        412 | 422 => (Exit::Refused, "refused"),
        404 => (Exit::NotFound, "not found"),
        408 | 429 | 502..=504 => (Exit::Unavailable, "no answer yet"),
        400 | 401 | 403 | 405 | 413 | 415 => (Exit::Usage, "not understood"),
        _ => (Exit::Failed, "the server failed"),
    };
    let place = match (text("pointer"), text("header")) {
        ("", "") => String::new(),
        ("", header) => format!(" (header {header})"),
        (pointer, _) => format!(" (at {pointer})"),
    };
    Failure::new(exit, format!("{word}: {detail}{place} [{code}]"))
}

/// A segment of a path; what a URL could misread is escaped.
pub(super) fn segment(text: &str) -> String {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_becomes_an_exit_code() {
        let body = json!({"code": "order_not_placed", "detail": "the order was never placed"});
        let refused = problem(422, &body);
        assert_eq!(refused.exit, Exit::Refused);
        assert_eq!(
            refused.message,
            "refused: the order was never placed [order_not_placed]"
        );
        for (status, exit) in [
            (400, Exit::Usage),
            (404, Exit::NotFound),
            (412, Exit::Refused),
            (500, Exit::Failed),
            (503, Exit::Unavailable),
        ] {
            assert_eq!(problem(status, &body).exit, exit);
        }
    }

    #[test]
    fn a_segment_is_one_segment() {
        assert_eq!(segment("order-1.a~b_c"), "order-1.a~b_c");
        assert_eq!(segment("a/b?c ü"), "a%2Fb%3Fc%20%C3%BC");
    }
}
