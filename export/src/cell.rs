//! Columns, their types, and single values, independent of the format of a file.
//!
//! Invariant: in text, times are RFC 3339 with `Z`, days `YYYY-MM-DD`, bytes hexadecimal, decimals have
//! all digits of their scale: as in the answers of the query door. Deliberately absent: formats.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chrono::{DateTime, Days, NaiveDate};
use serde::{Deserialize, Serialize};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// Text with few different values: encoded by a dictionary.
    Words,
    /// A JSON document, as text.
    Json,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// A floating point number.
    Double,
    /// True or false.
    Boolean,
    /// An exact number of up to 38 digits.
    Decimal {
        /// How many of them stand after the point.
        scale: u8,
    },
    /// A moment in UTC, in microseconds.
    Moment,
    /// A day.
    Day,
    /// Bytes.
    Bytes,
    /// A list of texts.
    Texts,
}

/// The most digits of a decimal.
pub(crate) const DECIMAL_PRECISION: u8 = 38;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
}

impl Column {
    pub(crate) fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            nullable: false,
        }
    }

    pub(crate) fn nullable(self) -> Self {
        Self {
            nullable: true,
            ..self
        }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    /// For the kinds `Text`, `Words` and `Json`.
    Text(Cow<'a, str>),
    /// For the kinds `Int32` and `Int64`.
    Int(i64),
    Double(f64),
    Boolean(bool),
    /// The number without its point.
    Decimal(i128),
    /// Microseconds since 1970.
    Moment(i64),
    /// Days since 1970.
    Day(i32),
    Bytes(Cow<'a, [u8]>),
    Texts(Vec<String>),
}

impl<'a> Cell<'a> {
    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(crate) fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    pub(crate) fn or_null(cell: Option<Self>) -> Self {
        cell.unwrap_or(Self::Null)
    }

    /// About how many bytes the value has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) => 1,
            Self::Text(text) => text.len(),
            Self::Int(_) | Self::Double(_) | Self::Moment(_) => 8,
            Self::Decimal(_) => 16,
            Self::Day(_) => 4,
            Self::Bytes(bytes) => bytes.len(),
            Self::Texts(texts) => texts.iter().map(|text| text.len() + 4).sum(),
        }
    }

    /// The value as text; null is empty.
    pub(crate) fn shown(&self, kind: Kind) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(number) => number.to_string().into(),
            Self::Double(number) => number.to_string().into(),
            Self::Boolean(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
            Self::Decimal(number) => match kind {
                Kind::Decimal { scale } => decimal_text(*number, scale).into(),
                _ => number.to_string().into(),
            },
            Self::Moment(micros) => moment_text(*micros).into(),
            Self::Day(days) => day_text(*days).into(),
            Self::Bytes(bytes) => hex::encode(bytes).into(),
            Self::Texts(texts) => serde_json::to_string(texts).unwrap_or_default().into(),
        }
    }

    /// Adds the value to a JSON text.
    pub(crate) fn write_json(&self, kind: Kind, json: &mut Vec<u8>) -> Result<(), fmt::Error> {
        let written = match self {
            Self::Null => return append(json, "null"),
            // A line break in JSON can only be white space.
            Self::Text(text) if kind == Kind::Json && text.contains(['\n', '\r']) => {
                return append(json, &text.replace(['\n', '\r'], " "));
            }
            Self::Text(text) if kind == Kind::Json => return append(json, text),
            Self::Text(text) => serde_json::to_writer(json, text),
            Self::Int(number) => serde_json::to_writer(json, number),
            Self::Double(number) => serde_json::to_writer(json, number),
            Self::Boolean(truth) => serde_json::to_writer(json, truth),
            Self::Texts(texts) => serde_json::to_writer(json, texts),
            Self::Decimal(_) | Self::Moment(_) | Self::Day(_) | Self::Bytes(_) => {
                serde_json::to_writer(json, &self.shown(kind))
            }
        };
        written.map_err(|_| fmt::Error)
    }
}

fn append(json: &mut Vec<u8>, text: &str) -> Result<(), fmt::Error> {
    json.extend_from_slice(text.as_bytes());
    Ok(())
}

/// A decimal with all digits of its scale.
fn decimal_text(number: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let mut text = String::with_capacity(digits.len() + 2);
    if number < 0 {
        text.push('-');
    }
    text.push_str(whole);
    if scale > 0 {
        let _ = write!(text, ".{fraction}");
    }
    text
}

/// Reads a decimal as Postgres writes it; absent if it has more digits than fit.
pub(crate) fn decimal_of(text: &str, scale: u8) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::from(scale);
    let beyond = fraction.get(scale..).unwrap_or_default();
    if beyond.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(scale)];
    let number: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    let is_within = number < 10_i128.pow(DECIMAL_PRECISION.into());
    is_within.then_some(sign * number)
}

fn moment_text(micros: i64) -> String {
    match kernel::Timestamp::from_micros(micros) {
        Ok(moment) => moment.to_string(),
        // Outside of the years that the log has.
        Err(_) => DateTime::from_timestamp_micros(micros)
            .map_or_else(|| micros.to_string(), |moment| moment.to_rfc3339()),
    }
}

/// The first day of the count of days.
fn epoch() -> NaiveDate {
    NaiveDate::from_ymd_opt(1970, 1, 1).unwrap_or_default()
}

/// The number of a day since 1970.
pub(crate) fn day_number(day: NaiveDate) -> i32 {
    i32::try_from(day.signed_duration_since(epoch()).num_days()).unwrap_or(i32::MAX)
}

/// A day as text.
pub(crate) fn day_text(number: i32) -> String {
    let days = Days::new(number.unsigned_abs().into());
    let day = match number < 0 {
        true => epoch().checked_sub_days(days),
        false => epoch().checked_add_days(days),
    };
    day.map_or_else(|| number.to_string(), |day| day.to_string())
}

/// Microseconds in a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// The day of a moment in UTC.
pub(crate) fn day_of(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_the_digits_of_its_scale() {
        for (text, scale, number) in [
            ("0.00", 2, 0),
            ("-0.05", 2, -5),
            ("12.30", 2, 1230),
            ("7", 0, 7),
            ("-123.456", 3, -123_456),
        ] {
            assert_eq!(decimal_of(text, scale), Some(number), "{text}");
            assert_eq!(decimal_text(number, scale), text);
        }
        assert_eq!(decimal_of("1.5", 3), Some(1500));
        assert_eq!(decimal_of("1.50", 1), Some(15));
        assert_eq!(decimal_of("1.55", 1), None);
        let most = "9".repeat(38);
        assert_eq!(decimal_of(&most, 0), most.parse().ok());
        assert_eq!(decimal_of(&format!("{most}9"), 0), None);
        assert_eq!(decimal_of("NaN", 2), None);
    }

    #[test]
    fn days_and_moments_before_1970_are_counted_down() {
        assert_eq!(day_of(-1), -1);
        assert_eq!(day_text(-1), "1969-12-31");
        assert_eq!(day_text(day_of(0)), "1970-01-01");
        let day = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap_or_default();
        assert_eq!(day_text(day_number(day)), "2026-03-01");
    }
}
