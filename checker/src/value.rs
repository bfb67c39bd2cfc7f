//! The value of a commit as design.md has it: what one command left, as JSON.
//!
//! Invariant: only what the checker judges is read; members that are not known here are passed.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What one command left.
#[derive(Debug, Deserialize)]
pub(crate) struct Commit<'a> {
    #[serde(default = "main_tenant")]
    pub(crate) tenant: String,
    pub(crate) stream: String,
    pub(crate) from_version: u64,
    pub(crate) recorded_at: String,
    #[serde(borrow)]
    pub(crate) command: Command<'a>,
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
pub(crate) struct Command<'a> {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    #[serde(default)]
    pub(crate) occurred_at: Option<String>,
    #[serde(default)]
    pub(crate) expected_version: Option<u64>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) facts: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Event<'a> {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Left out where it follows from the place.
    #[serde(default)]
    pub(crate) version: Option<u64>,
    /// Left out where it is the one that the command gave, or else `recorded_at`.
    #[serde(default)]
    pub(crate) occurred_at: Option<String>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

impl<'a> Commit<'a> {
    /// Reads a record's value and holds it against its key.
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
        Ok(commit)
    }
}

impl Commit<'_> {
    /// Whether the business times of command and events are times.
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
    /// Whether size and digest stand in the place of the data, as in a large refused command.
    pub(crate) fn is_digest_only(&self) -> bool {
        self.data.get().starts_with("{\"$digest\":")
    }
}

/// A moment in UTC: seconds since 1970 and nanoseconds.
pub(crate) type Moment = (i64, u32);

/// Reads an RFC 3339 time in UTC.
pub(crate) fn moment(text: &str) -> Option<Moment> {
    let text = text.strip_suffix('Z')?;
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
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let is_fraction = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (1..10_000).contains(&year);
    if !in_range || !is_fraction || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    // Days since 1970 of the proleptic Gregorian calendar; years are taken to begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second, nanos))
}

/// Whole milliseconds from one moment to another.
pub(crate) fn millis_between(from: Moment, to: Moment) -> i64 {
    let nanos = i128::from(to.0 - from.0) * 1_000_000_000 + i128::from(to.1) - i128::from(from.1);
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// The idempotency window that a claim's value names, in milliseconds.
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
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2018-06-05",
            "2018-06-05T10:00:00",
            "2018-13-05T10:00:00Z",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
        assert_eq!(millis_between((1, 999_000_000), (3, 0)), 1_001);
    }
}
