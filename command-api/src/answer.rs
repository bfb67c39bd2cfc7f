//! Translates the engine's answers into HTTP: bodies of 200 answers, and problems.
//!
//! Invariant: errors are mapped to statuses only here, for single commands and for lines of a
//! batch. Deliberately absent: how an answer is sent.

use std::time::Duration;

use axum::http::{HeaderName, StatusCode, header};
use door::header::{IDEMPOTENCY_KEY, POSITION};
use door::{Code, Problem};
use engine::command::{Answer, Decision, EventRef, Request, RequestError, SubmitError, TurnedAway};
use kernel::{CommandId, CorrelationId, RecordedRejection, ShapeError, StreamName};
use position::PositionToken;
use serde::Serialize;

use crate::code;

/// When to try again after an unknown outcome.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to try again if the log is damaged: an operator must act first.
const DAMAGED_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The part of a request that is kept while the engine has the command.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: CommandId,
    expected_version: Option<u64>,
    /// The correlation id; absent if it is the command's own id.
    correlation_id: Option<CorrelationId>,
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            id: request.id.clone(),
            expected_version: request.expected_version,
            correlation_id: request.correlation_id.clone(),
        }
    }

    /// The correlation id, which is the command's own id by default.
    pub(crate) fn correlation_id(&self) -> &str {
        self.correlation_id
            .as_ref()
            .map_or(self.id.as_str(), CorrelationId::as_str)
    }
}

/// The body of an accepted command.
#[derive(Serialize)]
pub(crate) struct Accepted<'a> {
    stream: &'a StreamName,
    version: u64,
    position: &'a PositionToken,
    events: &'a [EventRef],
    repeated: bool,
}

/// The log's answer: a body for a 200, or the problem of a refusal.
pub(crate) fn said<'a>(answer: &'a Answer, asked: &Asked) -> Result<Accepted<'a>, Problem> {
    match &answer.decision {
        Decision::Accepted(events) => Ok(Accepted {
            stream: &answer.stream,
            version: answer.version,
            position: &answer.position,
            events,
            repeated: answer.repeated,
        }),
        Decision::Rejected(rejection) => Err(refused(answer, rejection, asked)),
    }
}

/// The headers of every answer that comes from the log.
pub(crate) fn headers(answer: &Answer) -> [(HeaderName, String); 3] {
    [
        (header::ETAG, format!("\"{}\"", answer.version)),
        (POSITION, answer.position.to_string()),
        (IDEMPOTENCY_KEY, quoted(&answer.command_id)),
    ]
}

/// A command id in quotes, as in `Idempotency-Key`; ids contain no quotes.
pub(crate) fn quoted(id: &CommandId) -> String {
    format!("\"{id}\"")
}

/// A recorded refusal. A version conflict is 412 if the client named the version; any other refusal
/// is 422.
fn refused(answer: &Answer, rejection: &RecordedRejection, asked: &Asked) -> Problem {
    let conflict = asked
        .expected_version
        .filter(|_| rejection.code == code::VERSION_CONFLICT.name);
    let status = match conflict {
        Some(_) => StatusCode::PRECONDITION_FAILED,
        None => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let facts = &rejection.facts;
    let mut problem = Problem::rejection(status, &rejection.code, rejection.detail.clone(), facts)
        .member("command_id", asked.id.as_str())
        .member("stream", answer.stream.as_str())
        .member("version", answer.version)
        .member("position", answer.position.to_string())
        .member("repeated", answer.repeated);
    if let Some(expected) = conflict {
        if !facts.contains_key("current_version") {
            problem = problem.member("current_version", answer.version);
        }
        if !facts.contains_key("expected_version") {
            problem = problem.member("expected_version", expected);
        }
    }
    for (name, value) in headers(answer) {
        problem = problem.header(name, &value);
    }
    problem
}

/// A request that could not become a command; `base` is the JSON pointer to its data.
pub(crate) fn malformed(error: RequestError, base: &str) -> Problem {
    match error {
        RequestError::UnknownCategory { .. } => {
            Problem::new(code::CATEGORY_UNKNOWN, error.to_string())
        }
        RequestError::Shape(ShapeError::UnknownType { .. }) => {
            Problem::new(code::COMMAND_UNKNOWN, error.to_string())
        }
        RequestError::Shape(ShapeError::UnknownSchema { .. }) => {
            Problem::new(door::code::SHAPE_INVALID, error.to_string()).pointer("/schema")
        }
        RequestError::Shape(ShapeError::Data { pointer, detail }) => {
            Problem::new(door::code::SHAPE_INVALID, detail).pointer(format!("{base}{pointer}"))
        }
        RequestError::Rule(error) => Problem::internal(error),
    }
}

/// A command without an answer from the log.
pub(crate) fn unanswered(error: &SubmitError, id: &CommandId) -> Problem {
    let plain = |code: Code| Problem::new(code, error.to_string());
    let problem = match error {
        SubmitError::IdReused => plain(code::COMMAND_ID_REUSED),
        SubmitError::Unknown => plain(code::OUTCOME_UNKNOWN).retry_after(UNKNOWN_RETRY_AFTER),
        SubmitError::TurnedAway {
            reason,
            retry_after,
        } => {
            let code = match reason {
                TurnedAway::Overloaded => code::OVERLOADED,
                TurnedAway::Late => code::DEADLINE_PASSED,
                TurnedAway::NotReady => code::NOT_OWNER,
                TurnedAway::Stopping => code::STOPPING,
                TurnedAway::AfterUnanswered => code::AFTER_UNANSWERED,
            };
            plain(code).retry_after(*retry_after)
        }
        SubmitError::TooLarge { size, max } => plain(code::COMMIT_TOO_LARGE)
            .member("size", *size)
            .member("max", *max),
        SubmitError::StreamTooLarge { size, max } => plain(code::STREAM_TOO_LARGE)
            .member("size", *size)
            .member("max", *max),
        SubmitError::Failed => {
            Problem::internal("a rule panicked, or its result could not be written and read again")
        }
        // The place goes only into the server's log, for the operator.
        SubmitError::Damaged(_) => Problem::new(
            code::LOG_DAMAGED,
            "the log of this partition is damaged; an operator must examine it",
        )
        .retry_after(DAMAGED_RETRY_AFTER),
        // What the rules or an operator wrote about the stream is only for the operator of the
        // server.
        SubmitError::Frozen(frozen) => Problem::new(
            code::STREAM_FROZEN,
            format!(
                "the stream is frozen by the record at offset {} of partition {}; an operator \
                 must examine it",
                frozen.offset, frozen.partition
            ),
        )
        .member("partition", frozen.partition.0)
        .member("offset", frozen.offset.0)
        .retry_after(DAMAGED_RETRY_AFTER),
    };
    problem
        .member("command_id", id.as_str())
        .header(IDEMPOTENCY_KEY, &quoted(id))
}

#[cfg(test)]
mod tests {
    use position::{LogId, Partition, Position};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn answer(decision: Decision) -> Answer {
        Answer {
            tenant: kernel::TenantId::default(),
            stream: "order-1".parse().unwrap(),
            command_id: "k1".parse().unwrap(),
            version: 3,
            position: PositionToken::at(LogId(Uuid::nil()), Partition(0), Position(9)),
            decision,
            repeated: false,
        }
    }

    fn asked(expected_version: Option<u64>) -> Asked {
        Asked {
            id: "k1".parse().unwrap(),
            expected_version,
            correlation_id: None,
        }
    }

    fn rejected(code: &str, facts: &Value) -> Answer {
        answer(Decision::Rejected(RecordedRejection {
            code: code.to_owned(),
            detail: "no".to_owned(),
            facts: facts.as_object().unwrap().clone(),
        }))
    }

    fn shown(problem: &Problem) -> Value {
        serde_json::to_value(problem).unwrap()
    }

    #[test]
    fn an_accepted_command_shows_its_events() {
        let event = EventRef {
            id: Uuid::nil(),
            type_name: "OrderShipped".into(),
            version: 3,
        };
        let answer = answer(Decision::Accepted(vec![event]));
        let body = serde_json::to_value(said(&answer, &asked(None)).ok().unwrap()).unwrap();
        assert_eq!(
            body,
            json!({
                "stream": "order-1",
                "version": 3,
                "position": answer.position.to_string(),
                "events": [{"id": Uuid::nil(), "type": "OrderShipped", "version": 3}],
                "repeated": false,
            })
        );
        assert_eq!(headers(&answer)[0].1, "\"3\"");
    }

    #[test]
    fn a_refusal_shows_its_facts() {
        let facts = json!({"shipped_at": "2018-01-01T00:00:00Z", "version": 1});
        let answer = rejected("order_already_shipped", &facts);
        let problem = shown(&said(&answer, &asked(None)).err().unwrap());
        assert_eq!(problem["status"], 422);
        assert_eq!(problem["code"], "order_already_shipped");
        assert_eq!(problem["shipped_at"], "2018-01-01T00:00:00Z");
        assert_eq!(
            (&problem["version"], &problem["fact_version"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(problem["command_id"], "k1");
    }

    #[test]
    fn a_stale_version_is_412_only_where_the_client_named_one() {
        for facts in [
            json!({}),
            json!({"current_version": 3, "expected_version": 1}),
        ] {
            let answer = rejected("version_conflict", &facts);
            let problem = shown(&said(&answer, &asked(Some(1))).err().unwrap());
            assert_eq!(problem["status"], 412);
            assert_eq!(problem["current_version"], 3);
            assert_eq!(problem["expected_version"], 1);
            assert_eq!(problem["fact_current_version"], Value::Null);
        }
        let answer = rejected("version_conflict", &json!({}));
        assert_eq!(
            shown(&said(&answer, &asked(None)).err().unwrap())["status"],
            422
        );
    }

    #[test]
    fn an_error_says_whether_the_command_was_attempted() {
        let away = |reason| SubmitError::TurnedAway {
            reason,
            retry_after: Duration::from_millis(20),
        };
        for (error, status, code) in [
            (SubmitError::IdReused, 422, "command_id_reused"),
            (SubmitError::Unknown, 503, "outcome_unknown"),
            (away(TurnedAway::Overloaded), 503, "overloaded"),
            (away(TurnedAway::Late), 503, "deadline_passed"),
            (away(TurnedAway::NotReady), 503, "not_owner"),
            (away(TurnedAway::Stopping), 503, "stopping"),
            (away(TurnedAway::AfterUnanswered), 503, "after_unanswered"),
            (
                SubmitError::TooLarge { size: 2, max: 1 },
                413,
                "commit_too_large",
            ),
            (SubmitError::Failed, 500, "internal"),
        ] {
            let problem = shown(&unanswered(&error, &"k1".parse().unwrap()));
            assert_eq!(problem["status"], status);
            assert_eq!(problem["code"], code);
            assert_eq!(problem["command_id"], "k1");
            assert_eq!(
                problem["retry_after_ms"].is_u64(),
                status == 503,
                "{problem}"
            );
        }
    }

    #[test]
    fn a_malformed_request_points_into_its_data() {
        let data = |pointer: &str| {
            RequestError::Shape(ShapeError::Data {
                pointer: pointer.into(),
                detail: "x".into(),
            })
        };
        assert_eq!(
            shown(&malformed(data("/items/0"), ""))["pointer"],
            "/items/0"
        );
        assert_eq!(shown(&malformed(data(""), "/data"))["pointer"], "/data");
        let name = || "Fly".to_owned();
        let unknown = RequestError::Shape(ShapeError::UnknownType { name: name() });
        assert_eq!(shown(&malformed(unknown, ""))["status"], 404);
        let unknown = RequestError::UnknownCategory {
            category: name(),
            known: "order".into(),
        };
        assert_eq!(shown(&malformed(unknown, ""))["code"], "category_unknown");
    }
}
