//! The value of a commit as design.md defines it: what one command left, as JSON.
//!
//! Invariant: a value that no reader could read is not read here either; it is damage.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What one command left.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit<'a> {
    commit: String,
    #[serde(default = "main_tenant")]
    pub(crate) tenant: String,
    pub(crate) stream: String,
    pub(crate) from_version: u64,
    pub(crate) recorded_at: String,
    #[serde(borrow)]
    pub(crate) command: Command<'a>,
    #[serde(default, rename = "actor")]
    _actor: Option<Actor>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    causation_id: Option<String>,
    #[serde(default, rename = "trace")]
    _trace: Option<String>,
    pub(crate) outcome: Outcome,
    #[serde(default)]
    pub(crate) rejection: Option<Rejection>,
    #[serde(default, borrow)]
    pub(crate) events: Vec<Event<'a>>,
}

fn main_tenant() -> String {
    "main".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Command<'a> {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Left out if the client named none.
    #[serde(rename = "schema", default)]
    _schema: Option<u16>,
    #[serde(default)]
    pub(crate) occurred_at: Option<String>,
    #[serde(default)]
    pub(crate) expected_version: Option<u64>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Actor {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "kind")]
    _kind: ActorKind,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActorKind {
    User,
    Service,
    Process,
    Import,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rejection {
    pub(crate) code: String,
    #[serde(rename = "detail")]
    _detail: String,
    #[serde(default)]
    pub(crate) facts: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event<'a> {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    #[serde(rename = "schema")]
    _schema: u16,
    /// Left out if it follows from the event's place in the commit.
    #[serde(default)]
    pub(crate) version: Option<u64>,
    /// Left out if it equals the command's time or, without one, `recorded_at`.
    #[serde(default)]
    pub(crate) occurred_at: Option<String>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

impl<'a> Commit<'a> {
    /// Reads a record's value and checks it against the record's key.
    pub(crate) fn read(key: &[u8], value: &'a [u8]) -> Result<Self, String> {
        let commit: Self = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if key != format!("{}/{}", commit.tenant, commit.stream).as_bytes() {
            return Err("the key does not name the stream of the value".to_owned());
        }
        let is_consistent = match commit.outcome {
            Outcome::Accepted => commit.rejection.is_none(),
            Outcome::Rejected => commit.rejection.is_some() && commit.events.is_empty(),
        };
        if !is_consistent {
            return Err("outcome, rejection and events contradict each other".to_owned());
        }
        commit
            .fault()
            .map_or(Ok(commit), |fault| Err(fault.to_owned()))
    }

    /// A part of the commit that cannot be valid, whatever the rest says.
    fn fault(&self) -> Option<&'static str> {
        let ids = std::iter::once(&self.commit).chain(self.events.iter().map(|event| &event.id));
        let names = [
            Some(&self.command.id),
            self.correlation_id.as_ref(),
            self.causation_id.as_ref(),
        ];
        let version = self.from_version.checked_add(self.events.len() as u64);
        let checks = [
            (is_tenant(&self.tenant), "the tenant's name is malformed"),
            (is_stream(&self.stream), "the stream's name is malformed"),
            (ids.into_iter().all(|id| is_id(id)), "an id is malformed"),
            (
                names.into_iter().flatten().all(|name| is_name(name)),
                "the id of a command or a conversation is malformed",
            ),
            (
                moment(&self.recorded_at).is_some() && self.times_are_readable(),
                "a time is malformed",
            ),
            (
                version.is_some_and(|version| i64::try_from(version).is_ok()),
                "the stream's version is out of range",
            ),
        ];
        let found = checks.into_iter().find(|(is_right, _)| !is_right);
        found.map(|(_, fault)| fault)
    }
}

fn is_tenant(text: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_of_it)
}

fn is_stream(text: &str) -> bool {
    let Some((category, id)) = text.split_once('-') else {
        return false;
    };
    let is_of_category =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    category.len() <= 63
        && category.starts_with(|first: char| first.is_ascii_lowercase())
        && category.bytes().all(is_of_category)
        && (1..=128).contains(&id.len())
        && id.bytes().all(is_of_id)
}

fn is_name(text: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=255).contains(&text.len()) && text.bytes().all(is_of_it)
}

/// Whether a text of a UUID's length is a UUID. Other lengths pass: other programs name events in
/// another way.
fn is_id(text: &str) -> bool {
    let is_hyphen = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() != 36 || text.bytes().enumerate().all(is_hyphen)
}

impl Commit<'_> {
    /// Whether the business times of the command and its events can be read.
    pub(crate) fn times_are_readable(&self) -> bool {
        let events = self
            .events
            .iter()
            .filter_map(|event| event.occurred_at.as_deref());
        let mut times = events.chain(self.command.occurred_at.as_deref());
        times.all(|text| moment(text).is_some())
    }
}

impl Command<'_> {
    /// Whether the data is replaced by its size and digest, as in a large refused command.
    pub(crate) fn is_digest_only(&self) -> bool {
        self.data.get().starts_with("{\"$digest\":")
    }
}

/// A moment in UTC: seconds since 1970 and nanoseconds.
pub(crate) type Moment = (i64, u32);

/// Reads an RFC 3339 time.
pub(crate) fn moment(text: &str) -> Option<Moment> {
    let text = text.to_ascii_uppercase();
    let (text, offset_minutes) = match text.strip_suffix('Z') {
        Some(text) => (text, 0),
        None => {
            let (text, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let two = |text: &str| {
                let is_two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                is_two.then(|| text.parse::<i64>().ok()).flatten()
            };
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            match offset.as_bytes()[0] {
                b'+' => (text, minutes),
                b'-' => (text, -minutes),
                _ => return None,
            }
        }
    };
    let (date, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
        let parts: Vec<i64> = text
            .split(by)
            .map(
                |part| match part.bytes().all(|byte| byte.is_ascii_digit()) {
                    true => part.parse().ok(),
                    false => None,
                },
            )
            .collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    // Four digits for the year, and two for everything else.
    if date.len() != 10 || date.find('-') != Some(4) || time.len() != 8 || time.find(':') != Some(2)
    {
        return None;
    }
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_fraction = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let in_range = (1..=12).contains(&month)
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (1..10_000).contains(&year);
    if !in_range || !is_fraction || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let minutes = hour * 60 + minute - offset_minutes;
    Some((days * 86_400 + minutes * 60 + second, nanos))
}

/// Whole milliseconds from one moment to another.
pub(crate) fn millis_between(from: Moment, to: Moment) -> i64 {
    let nanos = i128::from(to.0 - from.0) * 1_000_000_000 + i128::from(to.1) - i128::from(from.1);
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// The idempotency window in a claim's value, in milliseconds.
pub(crate) fn window_ms(claim: &[u8]) -> Option<i64> {
    let value: Value = serde_json::from_slice(claim).ok()?;
    value.get("idempotency_window_ms")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("2018-06-05T10:00:00.123456Z", (1_528_192_800, 123_456_000)),
            ("2000-02-29T23:59:59.000000001Z", (951_868_799, 1)),
            ("1969-12-31T23:59:59.5Z", (-1, 500_000_000)),
            ("2026-11-25T03:56:21Z", (1_795_578_981, 0)),
            ("2026-11-25T05:26:21+01:30", (1_795_578_981, 0)),
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2018-06-05",
            "2018-06-05T10:00:00",
            "2018-13-05T10:00:00Z",
            "2018-02-29T10:00:00Z",
            "2018-06-05T10:00:00+24:00",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
        assert_eq!(millis_between((1, 999_000_000), (3, 0)), 1_001);
    }
}
