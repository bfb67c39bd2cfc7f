//! What an answer of a running server means for the exit code.
//!
//! Deliberately absent: sending requests (`client`).

use std::time::Duration;

use client::{Client, ClientError, Problem};

use crate::exit::{Exit, Failure, explained};
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// A client of the server that the settings name. It sends each command only once, so that a person
/// at a terminal learns at once what is wrong.
pub(super) fn client(settings: &Settings) -> Result<Client, Failure> {
    let client = Client::to(&settings.url).map_err(|error| failed(settings, error))?;
    Ok(client.retry_for(Duration::ZERO))
}

/// The error of a request as a failure. With JSON output, also prints the problem document.
pub(super) fn failed(settings: &Settings, error: ClientError) -> Failure {
    let url = &settings.url;
    match error {
        ClientError::Address { source, .. } => Failure::of(Exit::Usage, &source)
            .while_trying(&format!("understand the server's address {url}")),
        ClientError::Header { .. } => Failure::of(Exit::Usage, &error),
        ClientError::Unreachable { ref source, .. } => {
            let failure = Failure::new(Exit::Unavailable, explained(source));
            let failure = failure.while_trying(&format!("ask {url} ({})", settings.source("url")));
            match error.is_connect() {
                true => failure.hint("check that a server runs there; to start one: annals dev"),
                false => failure,
            }
        }
        ClientError::NotADoor { source, .. } => {
            Failure::of(Exit::Failed, &source).while_trying("understand the server's answer")
        }
        ClientError::Problem(problem) => {
            let is_document = settings.output == OutputFormat::Json && !problem.text.is_empty();
            if is_document && let Err(failure) = output::json(&output::pretty(&problem.text)) {
                return failure;
            }
            of_problem(&problem)
        }
    }
}

/// What a problem document says, as a failure.
fn of_problem(problem: &Problem) -> Failure {
    let (exit, word) = match problem.status {
        _ if problem.is_refusal() => (Exit::Refused, "refused"),
        _ if problem.is_repeatable() => (Exit::Unavailable, "no answer yet"),
        404 => (Exit::NotFound, "not found"),
        400 | 401 | 403 | 405 | 413 | 415 => (Exit::Usage, "not understood"),
        _ => (Exit::Failed, "the server failed"),
    };
    let place = match (&problem.pointer, &problem.header) {
        (Some(pointer), _) if !pointer.is_empty() => format!(" (at {pointer})"),
        (_, Some(header)) => format!(" (header {header})"),
        _ => String::new(),
    };
    let (detail, code) = (&problem.detail, problem.code.name());
    Failure::new(exit, format!("{word}: {detail}{place} [{code}]"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_becomes_an_exit_code() {
        let body = json!({"code": "order_not_placed", "detail": "the order was never placed"});
        let mut problem: Problem = serde_json::from_value(body).unwrap();
        for (status, exit) in [
            (400, Exit::Usage),
            (404, Exit::NotFound),
            (412, Exit::Refused),
            (500, Exit::Failed),
            (503, Exit::Unavailable),
            (422, Exit::Refused),
        ] {
            problem.status = status;
            assert_eq!(of_problem(&problem).exit, exit);
        }
        assert_eq!(
            of_problem(&problem).message,
            "refused: the order was never placed [order_not_placed]"
        );
    }
}
