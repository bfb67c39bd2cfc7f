//! Points in time in UTC with microseconds, as on the wire and in Postgres.
//!
//! Deliberately absent: a clock. Time arrives as data.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::deserialize_text;

/// The most bytes of a timestamp on the wire.
const WRITTEN_MAX: usize = 27;
/// 0001-01-01T00:00:00Z in microseconds since 1970.
const MICROS_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds since 1970.
const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// A point in time in UTC with a resolution of one microsecond, in the years 1 to 9999.
///
/// It is read from RFC 3339 with any offset; digits beyond the microsecond are cut off. It is
/// written with `Z` and 0, 3 or 6 fractional digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    micros: i64,
}

/// Why a text is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// It is not RFC 3339.
    #[error("not a date and time as in RFC 3339, such as 2018-06-04T16:44:48Z")]
    NotRfc3339,
    /// It is outside the years 1 to 9999.
    #[error("outside the years 1 to 9999")]
    OutOfRange,
}

impl Timestamp {
    /// The time `micros` microseconds after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// `OutOfRange` outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        match (MICROS_MIN..=MICROS_MAX).contains(&micros) {
            true => Ok(Self { micros }),
            false => Err(TimestampError::OutOfRange),
        }
    }

    /// The time of a chrono date and time, cut off to the microsecond. A leap second becomes the
    /// second after it.
    ///
    /// # Errors
    /// `OutOfRange` outside the years 1 to 9999.
    pub fn from_utc(date: DateTime<Utc>) -> Result<Self, TimestampError> {
        // Check the range after conversion: a leap second at the end of 9999 lies in the next year.
        Self::from_micros(date.timestamp_micros())
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.micros
    }

    /// Writes the wire form into the beginning of `room` and returns it. Without allocation,
    /// because each commit has several timestamps.
    fn written(self, room: &mut [u8; WRITTEN_MAX]) -> &str {
        let moment = self.to_utc();
        *room = *b"0000-00-00T00:00:00.000000Z";
        put(&mut room[0..4], moment.year().unsigned_abs());
        put(&mut room[5..7], moment.month());
        put(&mut room[8..10], moment.day());
        put(&mut room[11..13], moment.hour());
        put(&mut room[14..16], moment.minute());
        put(&mut room[17..19], moment.second());
        let micros = moment.timestamp_subsec_micros();
        put(&mut room[20..26], micros);
        let end = match micros {
            0 => 19,
            _ if micros.is_multiple_of(1_000) => 23,
            _ => 26,
        };
        room[end] = b'Z';
        str::from_utf8(&room[..=end]).expect("digits and what is between them")
    }

    /// The same time as a chrono date and time.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros).expect("only valid moments are constructed")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(moment) = plain(text.as_bytes()) {
            return Ok(moment);
        }
        // chrono accepts more than RFC 3339: a space instead of the T, and a typographic minus.
        if !text.is_ascii() || text.as_bytes().get(10) == Some(&b' ') {
            return Err(TimestampError::NotRfc3339);
        }
        let date = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::NotRfc3339)?;
        Self::from_utc(date.with_timezone(&Utc))
    }
}

/// A fast path for the form in which this type writes: UTC with 0, 3 or 6 fractional digits. Most
/// timestamps have it, and every read of a commit or event parses some.
fn plain(text: &[u8]) -> Option<Timestamp> {
    let (date, time) = text.split_first_chunk::<11>()?;
    let (time, rest) = time.split_first_chunk::<8>()?;
    let &[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T'] = date else {
        return None;
    };
    let &[h0, h1, b':', n0, n1, b':', s0, s1] = time else {
        return None;
    };
    let micros = match *rest {
        [b'Z'] => 0,
        [b'.', a, b, c, b'Z'] => number([a, b, c])? * 1_000,
        [b'.', a, b, c, d, e, f, b'Z'] => number([a, b, c, d, e, f])?,
        _ => return None,
    };
    let year = i32::try_from(number([y0, y1, y2, y3])?).ok()?;
    NaiveDate::from_ymd_opt(year, number([m0, m1])?, number([d0, d1])?)?
        .and_hms_micro_opt(
            number([h0, h1])?,
            number([n0, n1])?,
            number([s0, s1])?,
            micros,
        )
        .and_then(|moment| Timestamp::from_utc(moment.and_utc()).ok())
}

fn put(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn number<const N: usize>(digits: [u8; N]) -> Option<u32> {
    digits.into_iter().try_fold(0, |number, digit| {
        let digit = char::from(digit).to_digit(10)?;
        Some(number * 10 + digit)
    })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.written(&mut [0; WRITTEN_MAX]))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.written(&mut [0; WRITTEN_MAX]))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    /// RFC 3339 texts of all forms, most of them near the limits of the range.
    fn text() -> impl Strategy<Value = String> {
        let year = prop_oneof![Just(0), Just(1), Just(9_999), 0..10_000];
        let day = prop_oneof![Just((1, 1)), Just((12, 31)), (1..13, 1..32)];
        let time = prop_oneof![
            Just((0, 0, 0)),
            Just((23, 59, 59)),
            Just((23, 59, 60)),
            (0..24, 0..60, 0..61),
        ];
        let fraction = prop_oneof![
            Just(String::new()),
            Just(".999999999".to_owned()),
            r"\.[0-9]{1,12}"
        ];
        let offset = prop_oneof![
            Just("Z".to_owned()),
            r"[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"
        ];
        (year, day, time, fraction, offset).prop_map(
            |(year, (month, day), (hour, minute, second), fraction, offset)| {
                format!(
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}"
                )
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_read_is_written_and_read_again(text in text()) {
            if let Ok(moment) = text.parse::<Timestamp>() {
                let written = moment.to_string();
                prop_assert_eq!(written.parse(), Ok(moment), "{} {}", text, written);
                prop_assert_eq!(Timestamp::from_micros(moment.micros()), Ok(moment));
                let json = serde_json::to_string(&moment).unwrap();
                prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), moment);
            }
        }

        #[test]
        fn every_moment_that_is_kept_is_written_and_read_again(
            micros in prop_oneof![
                MICROS_MIN..=MICROS_MAX,
                MICROS_MIN..=MICROS_MIN + 2_000_000,
                MICROS_MAX - 2_000_000..=MICROS_MAX,
            ],
        ) {
            let moment = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
            prop_assert_eq!(Timestamp::from_utc(moment.to_utc()), Ok(moment));
        }
    }

    #[test]
    fn the_edges_are_the_first_and_the_last_moment_of_the_years() {
        for (text, micros) in [
            ("0001-01-01T00:00:00Z", MICROS_MIN),
            ("9999-12-31T23:59:59.999999Z", MICROS_MAX),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().micros(), micros);
        }
        for micros in [MICROS_MIN - 1, MICROS_MAX + 1, i64::MIN, i64::MAX] {
            let refused = Err(TimestampError::OutOfRange);
            assert_eq!(Timestamp::from_micros(micros), refused);
        }
    }

    #[test]
    fn reads_any_offset_and_writes_utc() {
        for (given, written) in [
            ("2018-06-04T16:44:48Z", "2018-06-04T16:44:48Z"),
            ("2018-06-04T13:44:48-03:00", "2018-06-04T16:44:48Z"),
            ("2018-06-04T16:44:48.120Z", "2018-06-04T16:44:48.120Z"),
            (
                "2018-06-04T16:44:48.123456789Z",
                "2018-06-04T16:44:48.123456Z",
            ),
            ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500Z"),
            (
                "1969-12-31T23:59:59.9999999Z",
                "1969-12-31T23:59:59.999999Z",
            ),
        ] {
            assert_eq!(given.parse::<Timestamp>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn reads_and_writes_as_chrono_does() {
        let day = 24 * 60 * 60 * 1_000_000_i64;
        let moments = (-719_162..2_932_896).step_by(97).map(|days| days * day);
        let parts = [
            0,
            1,
            1_000,
            123_456,
            59_999_999,
            day / 2,
            day - 1_000,
            day - 1,
        ];
        for micros in moments.flat_map(|moment| parts.map(|part| moment + part)) {
            let moment = Timestamp::from_micros(micros).unwrap();
            let written = moment.to_string();
            let theirs = moment.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true);
            assert_eq!(written, theirs);
            assert_eq!(plain(written.as_bytes()), Some(moment), "{written}");
            let read = DateTime::parse_from_rfc3339(&written).unwrap();
            assert_eq!(read.timestamp_micros(), micros, "{written}");
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "2018-06-04",
            "2018-06-04 16:44:48",
            "2018-06-04 16:44:48Z",
            "2018-06-04T16:44:48\u{2212}03:00",
            "2018-13-04T00:00:00Z",
            "2018-02-29T00:00:00Z",
            "2018-06-04T24:00:00Z",
            "2018-06-04T16:4a:48Z",
            "now",
        ] {
            assert_eq!(
                text.parse::<Timestamp>(),
                Err(TimestampError::NotRfc3339),
                "{text}"
            );
        }
        for text in [
            "0000-01-01T00:00:00Z",
            "0000-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59-01:00",
            "9999-12-31T23:59:60Z",
            "9999-12-31T22:59:60-01:00",
        ] {
            assert_eq!(
                text.parse::<Timestamp>(),
                Err(TimestampError::OutOfRange),
                "{text}"
            );
        }
    }
}
