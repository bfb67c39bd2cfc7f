//! The headers of a single command.
//!
//! Invariant: an invalid header is a 400 that names the header; nothing is guessed. `If-Match`
//! takes exactly one strong tag: a weak tag never matches (RFC 9110 §13.1.1), and `*` would say
//! less than the command's own rule that the stream must exist. Deliberately absent: what these
//! headers mean.

use axum::http::{HeaderMap, HeaderName, header};
use door::header::{IDEMPOTENCY_KEY, TRACEPARENT, invalid, parsed, single, tenant};
use door::{Correlation, Origin, Problem};
use kernel::{Actor, ActorKind, CausationId, CommandId, CorrelationId, TenantId, Timestamp};

use crate::code;

/// The direct cause of a command.
pub(crate) const CAUSATION_ID: HeaderName = HeaderName::from_static("annals-causation-id");
/// Who issued the command: `kind:id`.
pub(crate) const ACTOR: HeaderName = HeaderName::from_static("annals-actor");
/// Business time.
pub(crate) const OCCURRED_AT: HeaderName = HeaderName::from_static("annals-occurred-at");

/// The most characters an actor's id may have.
const ACTOR_ID_LENGTH_MAX: usize = 255;

/// What the headers of a single command say.
#[derive(Debug)]
pub(crate) struct CommandHeaders {
    pub(crate) tenant: TenantId,
    pub(crate) id: CommandId,
    pub(crate) occurred_at: Option<Timestamp>,
    pub(crate) expected: Expected,
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) causation_id: Option<CausationId>,
    pub(crate) actor: Option<Actor>,
    pub(crate) trace: Option<String>,
}

impl CommandHeaders {
    /// # Errors
    /// `header_invalid`.
    pub(crate) fn of(headers: &HeaderMap, correlation: &Correlation) -> Result<Self, Problem> {
        Ok(Self {
            tenant: tenant(headers)?,
            id: idempotency_key(headers)?.unwrap_or_else(|| correlation.command_id()),
            occurred_at: parsed(headers, &OCCURRED_AT)?,
            expected: expected(headers)?,
            correlation_id: given(correlation),
            causation_id: parsed(headers, &CAUSATION_ID)?,
            actor: actor(headers)?,
            trace: trace(headers),
        })
    }
}

/// The correlation id, if the client sent one.
pub(crate) fn given(correlation: &Correlation) -> Option<CorrelationId> {
    (correlation.origin == Origin::Given).then(|| correlation.id.clone())
}

/// The key, in quotes (draft-ietf-httpapi-idempotency-key-header) or bare.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<CommandId>, Problem> {
    let Some(text) = single(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let unquoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let id = unquoted.unwrap_or(text).parse();
    id.map(Some)
        .map_err(|error| invalid(&IDEMPOTENCY_KEY, error))
}

/// The version of the stream that a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any version, or one version.
    Version(Option<u64>),
    /// An impossible expectation: no events yet, and a version above 0.
    Contradiction,
}

impl Expected {
    /// The version, if one is expected. Call this last: a precondition counts only for a request
    /// that is otherwise valid (RFC 9110 §13.2.1).
    ///
    /// # Errors
    /// `preconditions_contradict`.
    pub(crate) fn version(self) -> Result<Option<u64>, Problem> {
        match self {
            Self::Version(version) => Ok(version),
            Self::Contradiction => Err(Problem::new(
                code::PRECONDITIONS_CONTRADICT,
                "If-Match names a version, but If-None-Match: * wants a stream without events",
            )),
        }
    }
}

fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let if_match = single(headers, &header::IF_MATCH)?
        .map(|tag| {
            let wanted =
                "it must be one stream version in quotes, such as \"3\", or the ETag of a stream's \
                 state; without W/ and not *";
            version_of(tag).ok_or_else(|| invalid(&header::IF_MATCH, wanted))
        })
        .transpose()?;
    let if_none_match = single(headers, &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (version, None) => Ok(Expected::Version(version)),
        (None | Some(0), Some("*")) => Ok(Expected::Version(Some(0))),
        (Some(_), Some("*")) => Ok(Expected::Contradiction),
        (_, Some(_)) => Err(invalid(
            &header::IF_NONE_MATCH,
            "only * is supported; it means that the stream has no events yet",
        )),
    }
}

fn version_of(tag: &str) -> Option<u64> {
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    // The tag of a stream's state begins with the version; what follows names the state's content.
    let (digits, rest) = tag.split_once('-').unwrap_or((tag, ""));
    if rest.contains('"') {
        return None;
    }
    // `parse` alone would accept a sign.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

fn actor(headers: &HeaderMap) -> Result<Option<Actor>, Problem> {
    let Some(text) = single(headers, &ACTOR)? else {
        return Ok(None);
    };
    let parts = text.split_once(':');
    let actor = parts.and_then(|(kind, id)| {
        let kind = match kind {
            "user" => ActorKind::User,
            "service" => ActorKind::Service,
            "process" => ActorKind::Process,
            "import" => ActorKind::Import,
            _ => return None,
        };
        Some(Actor {
            id: id.to_owned(),
            kind,
        })
    });
    let fitting = actor.filter(|actor| is_actor_id(&actor.id));
    fitting.map(Some).ok_or_else(|| {
        invalid(
            &ACTOR,
            "it must be kind:id, where kind is user, service, process or import",
        )
    })
}

/// Whether a text is a valid actor id: 1 to 255 characters without control characters.
pub(crate) fn is_actor_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= ACTOR_ID_LENGTH_MAX && !id.chars().any(char::is_control)
}

/// The trace, if it is well formed; W3C Trace Context §4.2 requires any other to be ignored.
pub(crate) fn trace(headers: &HeaderMap) -> Option<String> {
    let text = single(headers, &TRACEPARENT).ok()??;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return None;
    };
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let fits = version == "00"
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && !is_zero(trace)
        && !is_zero(parent);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Result<CommandHeaders, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let correlation = Correlation {
            id: "made-up".parse().unwrap(),
            origin: Origin::MadeUp,
        };
        CommandHeaders::of(&headers, &correlation)
    }

    #[test]
    fn without_headers_everything_has_its_default() {
        let headers = read(&[]).unwrap();
        assert!(headers.tenant.is_main());
        assert_eq!(headers.id.as_str(), "made-up");
        assert_eq!(headers.expected, Expected::Version(None));
        assert_eq!(headers.correlation_id, None);
        assert_eq!(headers.actor, None);
    }

    #[test]
    fn a_key_may_be_quoted_or_bare() {
        for text in ["k-1", "\"k-1\""] {
            assert_eq!(
                read(&[("idempotency-key", text)]).unwrap().id.as_str(),
                "k-1"
            );
        }
        let long = "x".repeat(256);
        for text in ["", "\"\"", "\"k", "k\"", "a b", "a\\b", long.as_str()] {
            assert!(read(&[("idempotency-key", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_version_is_expected_by_a_strong_tag_or_by_a_star() {
        let version = |pairs: &[(&'static str, &str)]| {
            read(pairs).and_then(|headers| headers.expected.version())
        };
        for tag in ["\"3\"", "\"3-0123456789abcdef01234567\"", "\"3-01-gzip\""] {
            assert_eq!(version(&[("if-match", tag)]).unwrap(), Some(3), "{tag}");
        }
        assert_eq!(version(&[("if-none-match", "*")]).unwrap(), Some(0));
        let big = "\"99999999999999999999\"";
        for text in [
            "3",
            "*",
            "W/\"3\"",
            "\"3\", \"4\"",
            "\"3-a\", \"4-b\"",
            "\"\"",
            "\"+3\"",
            "\"-1\"",
            "\"x\"",
            big,
            "\"",
        ] {
            assert!(version(&[("if-match", text)]).is_err(), "{text}");
        }
        assert!(version(&[("if-none-match", "\"3\"")]).is_err());
        let both = |tag| version(&[("if-match", tag), ("if-none-match", "*")]);
        assert_eq!(both("\"0\"").unwrap(), Some(0));
        assert_eq!(
            both("\"1\"").unwrap_err().code(),
            "preconditions_contradict"
        );
    }

    #[test]
    fn an_actor_is_a_kind_and_an_id() {
        let actor = read(&[("annals-actor", "service:till:7")])
            .unwrap()
            .actor
            .unwrap();
        assert_eq!(
            (actor.kind, actor.id.as_str()),
            (ActorKind::Service, "till:7")
        );
        for text in ["", "service", "service:", ":x", "robot:x", "USER:x"] {
            assert!(read(&[("annals-actor", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_malformed_trace_is_ignored() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            read(&[("traceparent", good)]).unwrap().trace.as_deref(),
            Some(good)
        );
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(
                read(&[("traceparent", text)]).unwrap().trace,
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_is_rfc_3339() {
        let time = read(&[("annals-occurred-at", "2018-06-04T13:44:48-03:00")])
            .unwrap()
            .occurred_at;
        assert_eq!(time.unwrap().to_string(), "2018-06-04T16:44:48Z");
        assert!(read(&[("annals-occurred-at", "now")]).is_err());
    }
}
