//! Query parameters as this door reads them: each at most once; unknown ones are refused.
//!
//! Invariant: exactly the values that the OpenAPI document describes are accepted.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use door::header::{MIN_POSITION, TIMEOUT_MS, TIMEOUT_MS_MAX, single};
use door::{Deadline, Problem};
use kernel::{StreamName, Timestamp};
use position::{PositionToken, TokenError};
use serde::Deserialize;

use super::as_of::AsOf;
use super::code;

/// The number of rows or events of a page if the client names none.
pub(super) const LIMIT_DEFAULT: u32 = 100;
/// The most rows or events of a page.
pub(super) const LIMIT_MAX: u32 = 1_000;
/// The largest stream version that a client can ask for: 2^53, which every JSON reader represents
/// exactly.
pub(super) const VERSION_MAX: u64 = 9_007_199_254_740_992;
/// How long a query waits for its read model if the client names no time.
pub(super) const WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// The header that says which preference was applied (RFC 7240).
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The beginning and the least length of position tokens; their check sum says the rest.
pub(super) const POSITION_PATTERN: &str = "^A[g-v][A-Za-z0-9_-]{29,}$";

/// The parameters of one row or a state.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneParameters {
    min_position: Option<String>,
    as_of: Option<String>,
}

/// The parameters of what made a row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyParameters {
    pub(super) column: Option<String>,
    as_of: Option<String>,
    limit: Option<String>,
    pub(super) after: Option<String>,
    min_position: Option<String>,
}

/// The parameters of a state.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateParameters {
    at_version: Option<String>,
    at_time: Option<String>,
    time: Option<String>,
    min_position: Option<String>,
}

/// The parameters of what differs between two places.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffParameters {
    from: Option<String>,
    to: Option<String>,
    from_time: Option<String>,
    to_time: Option<String>,
    time: Option<String>,
    min_position: Option<String>,
}

/// A moment in the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// After its last event.
    Newest,
    /// After this many events.
    Version(u64),
    /// After what was recorded up to this time.
    Recorded(Timestamp),
    /// After what happened up to this time, as the business says it.
    Occurred(Timestamp),
}

/// The parameters of a page of events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParameters {
    limit: Option<String>,
    from_version: Option<String>,
    schema: Option<String>,
    min_position: Option<String>,
}

/// In which shape events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they stand in the log.
    Recorded,
    /// In the newest shape of their type.
    Latest,
}

impl Shape {
    /// Its name in a query.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Latest => "latest",
        }
    }
}

impl OneParameters {
    pub(super) fn as_of(&self) -> Result<Option<AsOf>, Problem> {
        self.as_of.as_deref().map(AsOf::read).transpose()
    }

    pub(super) fn wait(&self, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::of(self.min_position.as_deref(), headers)
    }
}

impl WhyParameters {
    pub(super) fn as_of(&self) -> Result<Option<AsOf>, Problem> {
        self.as_of.as_deref().map(AsOf::read).transpose()
    }

    pub(super) fn limit(&self) -> Result<u32, Problem> {
        limit(self.limit.as_deref())
    }

    pub(super) fn wait(&self, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::of(self.min_position.as_deref(), headers)
    }
}

impl StateParameters {
    /// The moment that is asked for.
    pub(super) fn moment(&self) -> Result<Moment, Problem> {
        let version = ("at_version", self.at_version.as_deref());
        let time = ("at_time", self.at_time.as_deref());
        // What is malformed is refused before what does not go together.
        let given = given(version, time)?;
        let is_occurred = is_occurred(self.time.as_deref())?;
        let moment = given.moment(is_occurred)?;
        // Clients may send the default.
        if is_occurred && self.at_time.is_none() {
            return Err(unclear(
                "time",
                "time says what at_time means; give at_time, too",
            ));
        }
        Ok(moment.unwrap_or(Moment::Newest))
    }

    pub(super) fn wait(&self, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::of(self.min_position.as_deref(), headers)
    }
}

impl DiffParameters {
    /// The two moments; the first is absent if it is the version before the second.
    pub(super) fn moments(&self) -> Result<(Option<Moment>, Moment), Problem> {
        let from = given(
            ("from", self.from.as_deref()),
            ("from_time", self.from_time.as_deref()),
        )?;
        let to = given(
            ("to", self.to.as_deref()),
            ("to_time", self.to_time.as_deref()),
        )?;
        let is_occurred = is_occurred(self.time.as_deref())?;
        let (from, to) = (from.moment(is_occurred)?, to.moment(is_occurred)?);
        if is_occurred && self.from_time.is_none() && self.to_time.is_none() {
            let detail = "time says what from_time and to_time mean; give one of them, too";
            return Err(unclear("time", detail));
        }
        let is_backwards = match (from, to) {
            (Some(Moment::Version(from)), Some(Moment::Version(to))) => from > to,
            (Some(Moment::Recorded(from)), Some(Moment::Recorded(to)))
            | (Some(Moment::Occurred(from)), Some(Moment::Occurred(to))) => from > to,
            _ => false,
        };
        match is_backwards {
            true => Err(backwards()),
            false => Ok((from, to.unwrap_or(Moment::Newest))),
        }
    }

    pub(super) fn wait(&self, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::of(self.min_position.as_deref(), headers)
    }
}

/// The problem of two moments in the wrong order.
pub(super) fn backwards() -> Problem {
    unclear("from", "from lies behind to; give the earlier one as from")
}

/// Each parameter is right, but they do not go together.
fn unclear(parameter: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(code::MOMENT_UNCLEAR, detail).member("parameter", parameter)
}

fn invalid(parameter: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(door::code::QUERY_INVALID, detail).member("parameter", parameter)
}

/// A moment by version or by time, as it is given: the names of its two parameters, and what they say.
struct Given {
    names: [&'static str; 2],
    version: Option<u64>,
    at: Option<Timestamp>,
}

/// What two parameters say, each by itself.
fn given(
    version: (&'static str, Option<&str>),
    at: (&'static str, Option<&str>),
) -> Result<Given, Problem> {
    let number = |text| number_from(0, version.0, Some(text), 0, VERSION_MAX);
    let time = |text: &str| {
        text.parse::<Timestamp>().map_err(|error| {
            let detail = format!(
                "{} must be a time such as 2026-03-01T12:00:00Z ({error}); in a URL, + is written %2B",
                at.0
            );
            invalid(at.0, detail)
        })
    };
    Ok(Given {
        names: [version.0, at.0],
        version: version.1.map(number).transpose()?,
        at: at.1.map(time).transpose()?,
    })
}

/// Whether times are those at which events happened.
fn is_occurred(time: Option<&str>) -> Result<bool, Problem> {
    match time {
        None | Some("recorded") => Ok(false),
        Some("occurred") => Ok(true),
        Some(_) => Err(invalid("time", "time must be recorded or occurred")),
    }
}

impl Given {
    /// The moment; absent if neither parameter is given.
    fn moment(&self, is_occurred: bool) -> Result<Option<Moment>, Problem> {
        match (self.version, self.at) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                let [version, at] = self.names;
                Err(unclear(at, format!("give {version} or {at}, not both")))
            }
            (Some(version), None) => Ok(Some(Moment::Version(version))),
            (None, Some(at)) => Ok(Some(match is_occurred {
                true => Moment::Occurred(at),
                false => Moment::Recorded(at),
            })),
        }
    }
}

impl EventParameters {
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        limit(self.limit.as_deref())
    }

    pub(super) fn shape(&self) -> Result<Shape, Problem> {
        match self.schema.as_deref() {
            None | Some("recorded") => Ok(Shape::Recorded),
            Some("latest") => Ok(Shape::Latest),
            Some(_) => {
                let detail = "schema must be recorded or latest";
                let problem = Problem::new(door::code::QUERY_INVALID, detail);
                Err(problem.member("parameter", "schema"))
            }
        }
    }

    pub(super) fn first_version(&self) -> Result<u64, Problem> {
        number("from_version", self.from_version.as_deref(), 1, VERSION_MAX)
    }

    pub(super) fn wait(&self, headers: &HeaderMap) -> Result<Wait, Problem> {
        Wait::of(self.min_position.as_deref(), headers)
    }
}

/// The number of rows or events of a page.
pub(super) fn limit(text: Option<&str>) -> Result<u32, Problem> {
    let text = text.map_or_else(|| LIMIT_DEFAULT.to_string(), str::to_owned);
    let limit = number("limit", Some(&text), 1, u64::from(LIMIT_MAX))?;
    Ok(u32::try_from(limit).unwrap_or(LIMIT_MAX))
}

/// An integer from 1 to `max`, written with digits only.
fn number(name: &'static str, text: Option<&str>, absent: u64, max: u64) -> Result<u64, Problem> {
    number_from(1, name, text, absent, max)
}

/// An integer from `min` to `max`, written with digits only.
fn number_from(
    min: u64,
    name: &'static str,
    text: Option<&str>,
    absent: u64,
    max: u64,
) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(absent) };
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_digits);
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| {
            invalid(
                name,
                format!("{name} must be an integer from {min} to {max}"),
            )
        })
}

/// What a query waits for, and its deadline.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) min_position: Option<PositionToken>,
    pub(super) deadline: Deadline,
    /// The time of `Prefer: wait`, as it is applied.
    pub(super) preferred: Option<Duration>,
}

impl Wait {
    /// What to do if something that was just written is not found.
    pub(super) fn advice(&self) -> &'static str {
        match self.min_position {
            Some(_) => " up to the position that was asked for",
            None => {
                "; if it was written just now, pass the position from the command's answer as \
                 min_position, or in the header Annals-Min-Position, and the query waits for it"
            }
        }
    }

    /// The answer, with `Preference-Applied` if the request preferred a wait.
    pub(super) fn applied(&self, mut response: Response) -> Response {
        if let Some(value) = self.applied_value().and_then(|value| value.parse().ok()) {
            response.headers_mut().insert(APPLIED, value);
        }
        response
    }

    /// The same for a problem.
    pub(super) fn applied_to(&self, problem: Problem) -> Problem {
        match self.applied_value() {
            Some(value) => problem.header(APPLIED, &value),
            None => problem,
        }
    }

    fn applied_value(&self) -> Option<String> {
        let wait = self.preferred?;
        Some(format!("wait={}", wait.as_secs()))
    }

    /// What a request asks to wait for. The shorter of both times counts: that of `Prefer: wait`,
    /// and that of `Annals-Timeout-Ms`.
    pub(super) fn of(parameter: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let preferred = preferred_wait(headers);
        let own = headers.contains_key(TIMEOUT_MS);
        let own = own.then(|| Deadline::of(headers)).transpose()?;
        let times = preferred.into_iter().chain(own.map(|own| own.wait));
        let deadline = Deadline::after(times.min().unwrap_or(WAIT_DEFAULT));
        let header = single(headers, &MIN_POSITION)?;
        let mut min_position: Option<PositionToken> = None;
        for text in [parameter, header].into_iter().flatten() {
            let token = text.parse::<PositionToken>().map_err(refused)?;
            min_position = Some(match min_position {
                None => token,
                Some(other) => other.merge(&token).map_err(refused)?,
            });
        }
        Ok(Self {
            preferred: preferred.filter(|_| min_position.is_some()),
            min_position,
            deadline,
        })
    }
}

/// The time of `Prefer: wait=…` in seconds (RFC 7240 §4.3), at most the longest wait; absent if
/// there is none that can be understood: a preference is never an error.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let texts = headers.get_all("prefer").iter();
    let texts = texts.filter_map(|value| value.to_str().ok());
    let waits = texts
        .flat_map(|text| text.split([',', ';']))
        .filter_map(|one| {
            let (name, value) = one.split_once('=')?;
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            let seconds = value.trim().trim_matches('"');
            is_wait.then(|| seconds.parse::<u32>().ok())
        });
    // The first one counts (§2).
    let seconds = waits.into_iter().next()??;
    let most = Duration::from_millis(TIMEOUT_MS_MAX);
    Some(Duration::from_secs(seconds.into()).min(most))
}

fn refused(error: TokenError) -> Problem {
    let code = match error {
        TokenError::Malformed => code::POSITION_INVALID,
        TokenError::OtherLog => code::POSITION_OF_OTHER_LOG,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn stream_of(text: &str) -> Result<StreamName, Problem> {
    text.parse().map_err(|error: kernel::NameError| {
        Problem::new(door::code::PATH_INVALID, error.to_string()).member("parameter", "stream")
    })
}

#[cfg(test)]
mod tests {
    use position::{LogId, Partition, Position};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn numbers_are_digits_within_bounds() {
        for (text, expected) in [
            ("1", Some(1)),
            ("1000", Some(1000)),
            ("0", None),
            ("1001", None),
            ("+1", None),
            ("-1", None),
            ("1.0", None),
            ("", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(limit(Some(text)).ok(), expected, "{text}");
        }
        assert_eq!(limit(None).unwrap(), LIMIT_DEFAULT);
    }

    #[test]
    fn a_preference_for_a_wait_is_understood_or_ignored() {
        for (text, seconds) in [
            ("wait=5", Some(5)),
            ("respond-async, Wait=3", Some(3)),
            ("wait=\"7\"; foo", Some(7)),
            ("wait=0", Some(0)),
            ("wait=4000000000", Some(60)),
            ("wait", None),
            ("wait=x, wait=1", None),
            ("wait=-1", None),
            ("return=minimal", None),
        ] {
            let headers = [(
                axum::http::HeaderName::from_static("prefer"),
                text.parse().unwrap(),
            )];
            let wait = preferred_wait(&headers.into_iter().collect());
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn every_token_has_the_form_that_is_documented() {
        let mut token = PositionToken::at(LogId(Uuid::max()), Partition(3), Position(u64::MAX));
        let nothing = PositionToken {
            positions: [].into(),
            ..token
        };
        assert_eq!(nothing.to_string().len(), "A_".len() + 29);
        for partition in 0..5 {
            let text = token.to_string();
            let rest = text.strip_prefix('A').unwrap();
            assert!(
                ('g'..='v').contains(&rest.chars().next().unwrap()),
                "{text}"
            );
            assert!(text.len() >= nothing.to_string().len(), "{text}");
            token
                .positions
                .insert(Partition(partition * 7), Position(1));
        }
    }
}
