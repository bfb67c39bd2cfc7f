//! A condition over a row of a read model, at which a replay stops:
//! `[MODEL.]COLUMN OP VALUE [and KEYCOLUMN = VALUE …]`.
//!
//! Invariant: names and values are checked against the declarations before anything is read.
//! Deliberately absent: how it is asked of Postgres (`store::looked`).

use std::str::FromStr;

use chrono::NaiveDate;
use kernel::Timestamp;
use uuid::Uuid;

use crate::declare::column_type::ColumnType;
use crate::declare::model::{Model, models_of};
use crate::declare::projection::Projection;
use crate::declare::value::Value;

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// The longer ones first: `<` is the beginning of `<=`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Comparison {
    /// The operator in SQL.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "<>",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// A condition as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    model: Option<String>,
    column: String,
    comparison: Comparison,
    value: String,
    keys: Vec<(String, String)>,
}

/// A condition on a read model of a projection.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) model: Model,
    pub(crate) column: &'static str,
    pub(crate) column_type: ColumnType,
    pub(crate) comparison: Comparison,
    pub(crate) value: String,
    /// The columns of the key that are given, each with its place in the key.
    pub(crate) keys: Vec<GivenKey>,
}

/// A column of a key with the value that it must have.
#[derive(Clone, Debug)]
pub(crate) struct GivenKey {
    pub(crate) index: usize,
    pub(crate) name: &'static str,
    pub(crate) column_type: ColumnType,
    pub(crate) value: Value,
    pub(crate) text: String,
}

/// What a condition looks like.
const FORM: &str = "a condition is [MODEL.]COLUMN OP VALUE [and KEYCOLUMN = VALUE …], where OP is =, \
                    !=, <, <=, > or >=, and texts with spaces stand in quotes";

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        let malformed = |why: &str| format!("{text:?} is no condition: {why}; {FORM}");
        let (name, comparison, value) = compared(&mut rest).map_err(malformed)?;
        let (model, column) = match name.split_once('.') {
            Some((model, column)) => (Some(model.to_owned()), column.to_owned()),
            None => (None, name),
        };
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            if !word.eq_ignore_ascii_case("and") {
                return Err(malformed(&format!("{word:?} is not \"and\"")));
            }
            rest = behind.trim_start();
            let (name, comparison, value) = compared(&mut rest).map_err(malformed)?;
            if comparison != Comparison::Equal {
                return Err(malformed(
                    "behind \"and\", a column of the key has = and a value",
                ));
            }
            keys.push((name, value));
        }
        Ok(Self {
            model,
            column,
            comparison,
            value,
            keys,
        })
    }
}

/// Takes a name, an operator and a value.
fn compared(rest: &mut &str) -> Result<(String, Comparison, String), &'static str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    if name.is_empty() {
        return Err("a column is missing");
    }
    let behind = behind.trim_start();
    let found = COMPARISONS
        .iter()
        .find(|(sign, _)| behind.starts_with(sign));
    let (sign, comparison) = found.ok_or("an operator is missing")?;
    let behind = behind[sign.len()..].trim_start();
    let (value, behind) = value_of(behind)?;
    *rest = behind.trim_start();
    Ok((name.to_owned(), *comparison, value))
}

/// Takes a value: a word, or a text in quotes, in which a quote is doubled.
fn value_of(text: &str) -> Result<(String, &str), &'static str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return match end {
            0 => Err("a value is missing"),
            end => Ok((text[..end].to_owned(), &text[end..])),
        };
    };
    let (mut value, mut rest) = (String::new(), &text[1..]);
    loop {
        let end = rest.find(quote).ok_or("a quote is not closed")?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(behind) => {
                value.push(quote);
                rest = behind;
            }
            None => return Ok((value, rest)),
        }
    }
}

impl Condition {
    /// The condition on the read models of a projection.
    pub(crate) fn on(&self, projection: &dyn Projection) -> Result<Watched, String> {
        let models = models_of(projection);
        let named = |model: &&Model| self.model.as_ref().is_none_or(|name| *name == model.name);
        let mut having = models.iter().filter(named).filter_map(|model| {
            let column = model
                .columns
                .iter()
                .find(|column| column.name == self.column)?;
            Some((model, column))
        });
        let Some((model, column)) = having.next() else {
            return Err(self.unknown(projection, &models));
        };
        if let Some((other, _)) = having.next() {
            let (column, one, other) = (column.name, model.name, other.name);
            return Err(format!(
                "several read models have a column {column}: write {one}.{column} or {other}.{column}"
            ));
        }
        let is_ordered = !matches!(self.comparison, Comparison::Equal | Comparison::Unequal);
        if is_ordered && column.column_type == ColumnType::Boolean {
            return Err(format!(
                "{} is true or false: compare it with = or !=",
                column.name
            ));
        }
        let of_column = |name: &str, column_type: ColumnType, text: &str| {
            literal(column_type, text).map_err(|what| format!("{name} is {what}; {text:?} is not"))
        };
        of_column(column.name, column.column_type, &self.value)?;
        let mut keys = Vec::new();
        for (name, text) in &self.keys {
            let declared = model.key.iter().map(|key| (key.name, key.column_type));
            let mut all = [("tenant", ColumnType::Text)].into_iter().chain(declared);
            let found = all.by_ref().enumerate().find(|(_, (key, _))| key == name);
            let Some((index, (name, column_type))) = found else {
                let key: Vec<&str> = model.key.iter().map(|key| key.name).collect();
                return Err(format!(
                    "{name} is not in the key of {}, which is tenant, {}",
                    model.name,
                    key.join(", ")
                ));
            };
            let value = of_column(name, column_type, text)?;
            let value = value
                .ok_or_else(|| format!("{name} cannot be compared"))?
                .into_key();
            let text = match &value {
                Value::Text(text) => text.to_string(),
                _ => text.clone(),
            };
            keys.push(GivenKey {
                index,
                name,
                column_type,
                value,
                text,
            });
        }
        Ok(Watched {
            model: model.clone(),
            column: column.name,
            column_type: column.column_type,
            comparison: self.comparison,
            value: self.value.clone(),
            keys,
        })
    }

    fn unknown(&self, projection: &dyn Projection, models: &[Model]) -> String {
        let columns = |model: &Model| {
            let names: Vec<&str> = model.columns.iter().map(|column| column.name).collect();
            format!("{}: {}", model.name, names.join(", "))
        };
        let all: Vec<String> = models.iter().map(columns).collect();
        let what = match &self.model {
            Some(model) => format!("{model}.{}", self.column),
            None => self.column.clone(),
        };
        let name = projection.name();
        format!(
            "{name} has no column {what}; its read models and columns are {}",
            all.join("; ")
        )
    }
}

/// Whether a text is a value of a column, and which, if it may be in a key; else what it should be.
fn literal(column_type: ColumnType, text: &str) -> Result<Option<Value>, &'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match column_type {
        ColumnType::Text => Ok(Some(Value::from(text))),
        ColumnType::Bigint => {
            let number: i64 = text.parse().map_err(|_| "a whole number")?;
            Ok(Some(Value::Bigint(number)))
        }
        ColumnType::Numeric if digits(unsigned) => Ok(None),
        ColumnType::Numeric => Err("a whole number"),
        ColumnType::Decimal { .. } | ColumnType::Double => {
            let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
            match digits(whole) && digits(part) {
                true => Ok(None),
                false => Err("a number, such as 12.5"),
            }
        }
        ColumnType::Boolean => match text {
            "true" => Ok(Some(Value::Boolean(true))),
            "false" => Ok(Some(Value::Boolean(false))),
            _ => Err("true or false"),
        },
        ColumnType::Uuid => {
            let id = Uuid::parse_str(text).map_err(|_| "a UUID")?;
            Ok(Some(Value::Uuid(id)))
        }
        ColumnType::Timestamptz => {
            let wanted = "a time with its offset from UTC, such as 2026-03-01T12:00:00Z";
            let at: Timestamp = text.parse().map_err(|_| wanted)?;
            Ok(Some(Value::Timestamptz(at)))
        }
        ColumnType::Date => {
            let day: NaiveDate = text.parse().map_err(|_| "a day, such as 2026-03-01")?;
            Ok(Some(Value::Date(day)))
        }
        ColumnType::Bytea | ColumnType::Jsonb | ColumnType::TextArray => {
            Err("of a type that cannot be compared here")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::rules::Rules;
    use crate::declare::table::{Table, View, add, key, set, tally};

    const TABLES: &[Table] = &[
        Table {
            name: "daily",
            key: &[
                key("day", ColumnType::Date, ""),
                key("currency", ColumnType::Text, ""),
            ],
            values: &[
                tally("orders", ""),
                add("total", ""),
                set("closed", ColumnType::Boolean, "").nullable(),
                set("notes", ColumnType::Jsonb, "").nullable(),
            ],
            ..Table::PLAIN
        },
        Table {
            name: "weekly",
            key: &[key("week", ColumnType::Bigint, "")],
            values: &[tally("orders", "")],
            ..Table::PLAIN
        },
        Table {
            name: "hidden",
            key: &[key("id", ColumnType::Bigint, "")],
            values: &[tally("secret", "")],
            view: View::NONE,
            ..Table::PLAIN
        },
    ];

    fn judged(text: &str) -> Result<Watched, String> {
        let condition: Condition = text.parse()?;
        condition.on(&Rules::new("sales", 1, TABLES))
    }

    #[test]
    fn a_condition_names_a_column_a_value_and_parts_of_the_key() {
        let text = "daily.orders>=-5 AND currency = 'it''s' and day=2026-03-01";
        let watched = judged(text).unwrap();
        assert_eq!((watched.model.name, watched.column), ("daily", "orders"));
        assert_eq!(
            (watched.comparison, &*watched.value),
            (Comparison::AtLeast, "-5")
        );
        let keys: Vec<_> = watched
            .keys
            .iter()
            .map(|k| (k.index, k.name, &*k.text))
            .collect();
        assert_eq!(keys, [(2, "currency", "it's"), (1, "day", "2026-03-01")]);
        assert_eq!(judged("total != 12").unwrap().model.name, "daily");
        assert_eq!(
            judged("closed = true and tenant = \"a b\"").unwrap().keys[0].text,
            "a b"
        );
    }

    #[test]
    fn what_is_wrong_with_a_condition_is_said_before_anything_is_read() {
        for (text, said) in [
            ("", "a column is missing"),
            ("orders", "an operator is missing"),
            ("orders >", "a value is missing"),
            ("total = 'a", "a quote is not closed"),
            ("total = 1 or orders = 2", "\"or\" is not \"and\""),
            ("total = 1 and day > 2026-03-01", "has = and a value"),
            ("orders > 1", "write daily.orders or weekly.orders"),
            (
                "sum > 1",
                "sales has no column sum; its read models and columns are daily: day, currency, orders",
            ),
            ("daily.week > 1", "no column daily.week"),
            ("secret > 1", "no column secret"),
            ("total > 1.5", "total is a whole number; \"1.5\" is not"),
            ("day = yesterday", "a day, such as 2026-03-01"),
            ("closed > true", "compare it with = or !="),
            ("notes = x", "cannot be compared"),
            (
                "total = 1 and orders = 2",
                "not in the key of daily, which is tenant, day, currency",
            ),
            ("total = 1 and day = x", "a day"),
        ] {
            let error = judged(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
