//! The texts in the cells of a CSV file, read as amounts, times, names and numbers.
//!
//! Invariant: a value is read exactly as written or not at all. Nothing is trimmed, rounded or
//! guessed, and no amount passes through a float. Deliberately absent: files and rows.

use std::fmt;
use std::str::FromStr;

use domain::vocabulary::{AMOUNT_MINOR_MAX, VocabularyError};
use kernel::{StreamName, Timestamp};

use super::quoting::QuoteFault;

/// How many characters of a cell a reason quotes.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// The longest key of a row, in bytes; a key is kept in memory, and shown if it repeats.
const KEY_SIZE_MAX: usize = 1_000;

/// Why a row cannot be read, or why no command can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The row has too few or too many fields.
    #[error("the row has {found} fields, but the header has {expected}{reach}")]
    FieldCount {
        /// Fields in the row.
        found: usize,
        /// Fields in the header.
        expected: usize,
        /// The row's last line, if the row spans several lines.
        reach: Reach,
    },
    /// The row has a quoting fault, so the ends of its fields are unknown.
    #[error(transparent)]
    Quoting(QuoteFault),
    /// A cell is not UTF-8.
    #[error("{column} is not UTF-8")]
    NotUtf8 {
        /// The cell's column.
        column: String,
    },
    /// A cell that is needed is empty.
    #[error("{column} is empty")]
    Empty {
        /// The cell's column.
        column: &'static str,
    },
    /// A cell does not have the form that its column requires.
    #[error("{column} is not {expected}: {text:?}")]
    NotA {
        /// The cell's column.
        column: &'static str,
        /// What the column requires.
        expected: &'static str,
        /// The text of the cell, cut to a maximal length.
        text: String,
    },
    /// A cell holds a text that the domain does not allow.
    #[error("{column} holds {source}")]
    NotText {
        /// The cell's column.
        column: &'static str,
        /// What is wrong with it.
        source: VocabularyError,
    },
    /// Another row has the same key.
    #[error("{column} {key} is already in line {line}")]
    Repeated {
        /// The key's column.
        column: &'static str,
        /// The key.
        key: String,
        /// The line of the row that counts.
        line: u64,
    },
    /// The row belongs to an order that is not in the orders file.
    #[error("order {order} is not in the orders file")]
    OrderMissing {
        /// The order's id.
        order: String,
    },
    /// The row belongs to an order whose own row cannot be read.
    #[error("its order {order}, in line {line} of the orders file, cannot be read")]
    OrderUnreadable {
        /// The order's id.
        order: String,
        /// The line of the order's row.
        line: u64,
    },
    /// The row belongs to an order that is missing or unreadable. Which of the two is not known:
    /// there were too many unreadable orders to keep all their ids.
    #[error("order {order} is not among the orders that can be read")]
    OrderNotRead {
        /// The order's id.
        order: String,
    },
    /// The row belongs to an order that is not sent.
    #[error("its order {order}, in line {line} of the orders file, cannot be placed")]
    OrderHeldBack {
        /// The order's id.
        order: String,
        /// The line of the order's row.
        line: u64,
    },
    /// An item of the order cannot be read.
    #[error(
        "an item of the order, in line {line} of the items file, cannot be read; no command for \
         the order is sent until it can be read"
    )]
    ItemUnreadable {
        /// The line of the item's row.
        line: u64,
    },
    /// The order names a customer who is not in the customers file.
    #[error("customer {customer} is not in the customers file")]
    CustomerMissing {
        /// The customer id of the order row.
        customer: String,
    },
    /// The order names a customer whose row does not even have a readable person's id.
    #[error("its customer {customer}, in line {line} of the customers file, cannot be read")]
    CustomerUnreadable {
        /// The customer id of the order row.
        customer: String,
        /// The line of the customer's row.
        line: u64,
    },
    /// The order has more items than a command may hold.
    #[error("the order has {items} items, and a command may have at most {items_max}")]
    TooManyItems {
        /// Items of the order.
        items: usize,
        /// The maximum of a command.
        items_max: usize,
    },
    /// The line is not a JSON object (in a file of command lines).
    #[error("not a JSON object: {detail}")]
    NotAnObject {
        /// What the JSON reader says.
        detail: String,
    },
}

/// The last line of a row, if the row spans several lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach(Option<u64>);

impl Reach {
    /// The reach of a row that begins and ends in these lines.
    #[must_use]
    pub fn between(line: u64, last_line: u64) -> Self {
        Self((last_line > line).then_some(last_line))
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(line) => write!(
                f,
                "; the row reaches to line {line}: perhaps a quote is missing"
            ),
        }
    }
}

impl Reason {
    fn not_a(column: &'static str, expected: &'static str, text: &str) -> Self {
        Self::NotA {
            column,
            expected,
            text: text.chars().take(SHOWN_CHARACTERS_MAX).collect(),
        }
    }
}

/// Reads decimal text with at most two decimals ("21.99", "16.5", "14") as minor units.
///
/// # Errors
/// [`Reason::NotA`] for everything else: signs other than a leading minus, exponents, separators,
/// more than two decimals, and amounts beyond ±2^53.
pub fn amount_minor(column: &'static str, text: &str) -> Result<i64, Reason> {
    let not_an_amount = || {
        Reason::not_a(
            column,
            "an amount with at most two decimals, such as 21.99",
            text,
        )
    };
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text), |digits| (-1, digits));
    let (whole, decimals) = match digits.split_once('.') {
        Some((whole, decimals)) if (1..=2).contains(&decimals.len()) => (whole, decimals),
        Some(_) => return Err(not_an_amount()),
        None => (digits, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(decimals) {
        return Err(not_an_amount());
    }
    format!("{whole}{decimals:0<2}")
        .parse::<i64>()
        .ok()
        .filter(|minor| *minor <= AMOUNT_MINOR_MAX)
        .map(|minor| sign * minor)
        .ok_or_else(not_an_amount)
}

/// Reads `2018-06-04 16:44:48` as a time in UTC.
///
/// # Errors
/// [`Reason::NotA`] for every other form, and for days and times that do not exist.
pub fn moment(column: &'static str, text: &str) -> Result<Timestamp, Reason> {
    let not_a_moment =
        || Reason::not_a(column, "a date and time, such as 2018-06-04 16:44:48", text);
    let has_the_form = text.len() == 19
        && text
            .bytes()
            .zip("dddd-dd-dd dd:dd:dd".bytes())
            .all(|(byte, form)| match form {
                b'd' => byte.is_ascii_digit(),
                other => byte == other,
            });
    // RFC 3339 allows leap seconds; the data has none.
    if !has_the_form || text.ends_with(":60") {
        return Err(not_a_moment());
    }
    format!("{}T{}Z", &text[..10], &text[11..])
        .parse()
        .map_err(|_| not_a_moment())
}

/// Reads an id that may follow the category in a stream's name.
///
/// # Errors
/// [`Reason::Empty`]; [`Reason::NotA`] if it has other characters or is too long.
pub fn id(column: &'static str, text: &str) -> Result<String, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty { column });
    }
    format!("any-{text}").parse::<StreamName>().map_err(|_| {
        Reason::not_a(
            column,
            "an id of at most 128 letters, digits and . _ ~ -",
            text,
        )
    })?;
    Ok(text.to_owned())
}

/// Reads a key that joins two files: any text of 1 to 1,000 bytes.
///
/// # Errors
/// [`Reason::Empty`]; [`Reason::NotA`] if it is too long.
pub fn key(column: &'static str, text: &str) -> Result<String, Reason> {
    if text.is_empty() {
        Err(Reason::Empty { column })
    } else if text.len() > KEY_SIZE_MAX {
        Err(Reason::not_a(column, "an id of at most 1,000 bytes", text))
    } else {
        Ok(text.to_owned())
    }
}

/// Checks a text of the business against the limits of `T`, and returns it unchanged.
///
/// # Errors
/// [`Reason::NotText`] with the error of `T`.
pub fn text<T>(column: &'static str, text: &str) -> Result<String, Reason>
where
    T: FromStr<Err = VocabularyError>,
{
    match T::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(source) => Err(Reason::NotText { column, source }),
    }
}

/// Reads a whole number between `min` and `max`, both included: digits, optionally after a minus.
///
/// # Errors
/// [`Reason::NotA`] for everything else.
pub fn number(
    column: &'static str,
    expected: &'static str,
    (min, max): (i64, i64),
    text: &str,
) -> Result<i64, Reason> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    Some(text)
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| Reason::not_a(column, expected, text))
}

/// The reason for a cell whose text is none of the words that its column allows.
#[must_use]
pub fn unknown_word(column: &'static str, expected: &'static str, text: &str) -> Reason {
    Reason::not_a(column, expected, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_amounts_to_the_last_cent_and_nothing_doubtful() {
        for (text, minor) in [
            ("21.99", 2199),
            ("16.5", 1650),
            ("14", 1400),
            ("0.0", 0),
            ("0.07", 7),
            ("-3.10", -310),
            ("007.50", 750),
            ("90071992547409.92", 1 << 53),
        ] {
            assert_eq!(amount_minor("price", text), Ok(minor), "{text}");
        }
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1.005",
            "1e3",
            "+1",
            " 1",
            "1 ",
            "1,50",
            "1.-5",
            "NaN",
            "--1",
            "90071992547409.93",
            "99999999999999999999",
            "١",
        ] {
            assert!(amount_minor("price", text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_moments_as_utc_and_nothing_doubtful() {
        assert_eq!(
            moment("at", "2018-06-04 16:44:48").unwrap().to_string(),
            "2018-06-04T16:44:48Z"
        );
        assert!(moment("at", "2016-02-29 00:00:00").is_ok());
        for text in [
            "",
            "2018-06-04",
            "2018-06-04T16:44:48",
            "2018-02-29 00:00:00",
            "2018-06-04 24:00:00",
            "2018-06-04 23:59:60",
            "2018-6-4 16:44:48",
            "2018-06-04 16:44:48Z",
            "2018-06-04 16:44:4é",
            "0000-01-01 00:00:00",
        ] {
            assert!(moment("at", text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_what_a_stream_can_be_named_after() {
        assert_eq!(id("order_id", "0aF~._-9"), Ok("0aF~._-9".to_owned()));
        assert_eq!(
            id("order_id", ""),
            Err(Reason::Empty { column: "order_id" })
        );
        for text in ["a b", "a/b", "é", &"x".repeat(129)] {
            assert!(id("order_id", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reason_shows_only_the_beginning_of_a_cell() {
        let reason = amount_minor("price", &"x".repeat(10_000)).unwrap_err();
        assert!(reason.to_string().len() < 200, "{reason}");
    }
}
