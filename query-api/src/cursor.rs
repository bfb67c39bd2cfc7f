//! Cursors: where a page ended, as an opaque text.
//!
//! Invariant: a cursor names the generation of its rows, the filters and the order of its page, and
//! the place of a row in that order; with other filters, another order, or after a rebuild it is
//! refused instead of giving rows twice or not at all. Deliberately absent: secrecy; a client can
//! make a cursor for any place.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use door::Problem;
use door::tag::digest;
use projector::{ColumnType, KEY_TEXT_BYTES_MAX, Value};

use uuid::fmt::Hyphenated;

use super::asked::Asked;
use super::code;
use super::shown::ShownModel;
use super::values::{text_of, value_of};

/// What stands between the parts of a cursor: no text in Postgres holds it.
const BETWEEN_PARTS: &str = "\0";
/// What a part begins with: a value, or null.
const VALUE: char = '=';
const NULL: &str = "-";
/// The most bytes of an index entry of Postgres, and so of the columns that a cursor holds.
const INDEX_ENTRY_BYTES_MAX: usize = 2_704;
/// How many digits of the digest of filters and order a cursor has.
const ASKED_DIGITS: usize = 12;

/// A place in an order of rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cursor {
    pub(super) generation: i32,
    /// The values of the columns of the order, the key's last; absent: null.
    pub(super) values: Vec<Option<Value>>,
}

/// What stands for the filters and the order of a query.
fn fingerprint(shown: &ShownModel, asked: &Asked) -> String {
    let mut text = String::new();
    for (name, value) in asked.pairs(shown) {
        text.extend([&name, "\0", &value, "\0"]);
    }
    let mut digest = digest(text.as_bytes());
    digest.truncate(ASKED_DIGITS);
    digest
}

impl Cursor {
    /// The cursor as a client gets it; absent if one of its values is too long to be sent back.
    pub(super) fn written(&self, shown: &ShownModel, asked: &Asked) -> Option<String> {
        let mut parts = vec![self.generation.to_string(), fingerprint(shown, asked)];
        parts.extend(self.values.iter().map(|value| match value {
            Some(value) => format!("{VALUE}{}", text_of(value)),
            None => NULL.to_owned(),
        }));
        let text = URL_SAFE_NO_PAD.encode(parts.join(BETWEEN_PARTS));
        (text.len() <= shown.cursor_length_max).then_some(text)
    }

    /// The cursor that `text` is.
    ///
    /// # Errors
    /// `cursor_unknown` if it is none of this read model; `cursor_of_other_query`.
    pub(super) fn read(text: &str, shown: &ShownModel, asked: &Asked) -> Result<Self, Problem> {
        let unknown = || {
            let detail = format!("after is not a cursor of {}", shown.model.name);
            Problem::new(code::CURSOR_UNKNOWN, detail)
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unknown())?;
        let text = String::from_utf8(bytes).map_err(|_| unknown())?;
        let mut parts = text.split(BETWEEN_PARTS);
        let generation = parts.next().and_then(|part| {
            let number: i32 = part.parse().ok()?;
            (number.to_string() == part).then_some(number)
        });
        let generation = generation.ok_or_else(unknown)?;
        let asked_then = parts.next().ok_or_else(unknown)?;
        if asked_then.len() != ASKED_DIGITS {
            return Err(unknown());
        }
        if asked_then != fingerprint(shown, asked) {
            let detail = "after belongs to a page with other filters or another order; pass the \
                          same filters and sort with it, or begin with the first page";
            return Err(Problem::new(code::CURSOR_OF_OTHER_QUERY, detail));
        }
        let order = shown.order(asked);
        let mut values = Vec::with_capacity(order.len());
        for (column, _) in order {
            let part = parts.next().ok_or_else(unknown)?;
            values.push(match part.strip_prefix(VALUE) {
                Some(text) => {
                    let column_type = shown.model.columns[column].column_type;
                    Some(value_of(column_type, text).ok_or_else(unknown)?)
                }
                None if part == NULL => None,
                None => return Err(unknown()),
            });
        }
        match parts.next() {
            None => Ok(Self { generation, values }),
            Some(_) => Err(unknown()),
        }
    }
}

/// The most characters of a cursor of a read model.
pub(super) fn length_max(shown: &ShownModel) -> usize {
    let bytes = |column_type| match column_type {
        ColumnType::Text => KEY_TEXT_BYTES_MAX,
        ColumnType::Bigint | ColumnType::Numeric => "-9223372036854775808".len(),
        ColumnType::Timestamptz => "9999-12-31T23:59:59.999999Z".len(),
        ColumnType::Date => "+262142-12-31".len(),
        ColumnType::Boolean => "false".len(),
        ColumnType::Uuid => Hyphenated::LENGTH,
        // All of its digits, without an exponent.
        ColumnType::Double => 340,
        // Counted below.
        ColumnType::Bytea => 0,
        // These order no page.
        ColumnType::Decimal { .. } | ColumnType::Jsonb | ColumnType::TextArray => 0,
    };
    let key = &shown.model.key;
    let mut all: usize = key.iter().map(|key| 2 + bytes(key.column_type)).sum();
    // All bytes of a key together fit into an index entry; they are shown as hexadecimal digits.
    if key.iter().any(|key| key.column_type == ColumnType::Bytea) {
        all += 2 * INDEX_ENTRY_BYTES_MAX;
    }
    let is_key = |at: &usize| {
        let name = shown.model.columns[*at].name;
        key.iter().any(|key| key.name == name)
    };
    let sorts = shown.offered.sorts.iter().filter(|at| !is_key(at));
    let sorts = sorts.map(|at| shown.model.columns[*at].column_type);
    let (texts, others): (Vec<_>, Vec<_>) =
        sorts.partition(|of| matches!(of, ColumnType::Text | ColumnType::Bytea));
    all += others.into_iter().map(|of| 2 + bytes(of)).sum::<usize>();
    if !texts.is_empty() {
        all += INDEX_ENTRY_BYTES_MAX;
    }
    all += i32::MIN.to_string().len() + BETWEEN_PARTS.len() + ASKED_DIGITS;
    (all * 4).div_ceil(3)
}
