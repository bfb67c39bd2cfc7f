//! What a request asks of a read model: filters, order, page and form, read from its parameters.
//!
//! Invariant: exactly the parameters that the OpenAPI document describes are accepted, each at most
//! once but for `.in`; columns are found by their place in the declaration, so that no name from a
//! request reaches a statement. Deliberately absent: SQL.

use door::Problem;
use projector::{ColumnType, Value};

use super::as_of::AsOf;
use super::code;
use super::offered::{Direction, Operator, PARAMETERS};
use super::parameters::limit;
use super::shown::ShownModel;
use super::values::{form_of, text_of, value_of};

/// The most values of one `.in` filter.
pub(super) const IN_VALUES_MAX: usize = 100;

/// A condition on one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filter {
    /// The column's place among the model's.
    pub(super) column: usize,
    pub(super) condition: Condition,
}

/// What a filter demands of its column's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// A comparison with one value; for [`Operator::In`] with any of several.
    Compared(Operator, Vec<Value>),
    Null,
    NotNull,
}

impl Condition {
    pub(super) fn operator(&self) -> Operator {
        match self {
            Self::Compared(operator, _) => *operator,
            Self::Null | Self::NotNull => Operator::Null,
        }
    }
}

/// What a request asks of a read model, in one canonical order.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) filters: Vec<Filter>,
    /// The columns of `sort`; empty: the key.
    pub(super) sort: Vec<(usize, Direction)>,
    pub(super) after: Option<String>,
    /// The most rows of the page, if the client names a number.
    pub(super) limit: Option<u32>,
    pub(super) count: Count,
    pub(super) format: Option<String>,
    pub(super) min_position: Option<String>,
    /// The moment as of which the rows are shown; absent: now.
    pub(super) as_of: Option<AsOf>,
}

/// Whether the rows are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Unwanted,
    Wanted,
}

/// Collects parameters that may stand only once.
#[derive(Default)]
struct Once {
    limit: Option<String>,
    after: Option<String>,
    sort: Option<String>,
    count: Option<String>,
    format: Option<String>,
    min_position: Option<String>,
    as_of: Option<String>,
}

impl Once {
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "limit" => &mut self.limit,
            "after" => &mut self.after,
            "sort" => &mut self.sort,
            "count" => &mut self.count,
            "format" => &mut self.format,
            "min_position" => &mut self.min_position,
            "as_of" => &mut self.as_of,
            _ => return None,
        })
    }
}

impl Asked {
    /// What these parameters ask of a read model.
    ///
    /// # Errors
    /// `query_invalid` with the name of the parameter.
    pub(super) fn of(shown: &ShownModel, pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut once = Once::default();
        let mut filters: Vec<Filter> = Vec::new();
        for (name, text) in pairs {
            match once.place(&name) {
                Some(place) if place.is_some() => return Err(twice(&name)),
                Some(place) => *place = Some(text),
                None => add_filter(shown, &mut filters, &name, &text)?,
            }
        }
        for filter in &mut filters {
            if let Condition::Compared(_, values) = &mut filter.condition {
                values.sort_unstable();
                values.dedup();
            }
        }
        filters.sort_by_key(|filter| (filter.column, filter.condition.operator()));
        let sort = once.sort.as_deref();
        let sort = sort.map_or(Ok(Vec::new()), |sort| sort_of(shown, sort))?;
        Ok(Self {
            limit: once.limit.map(|text| limit(Some(&text))).transpose()?,
            after: after(once.after, shown.cursor_length_max)?,
            count: match truth("count", once.count.as_deref())? {
                Some(true) => Count::Wanted,
                Some(false) | None => Count::Unwanted,
            },
            format: once.format,
            min_position: once.min_position,
            as_of: once.as_of.as_deref().map(AsOf::read).transpose()?,
            filters,
            sort,
        })
    }

    /// Checks that the key or an index serves the query.
    ///
    /// # Errors
    /// `query_unindexed`.
    pub(super) fn require_served(&self, shown: &ShownModel) -> Result<(), Problem> {
        let filters = self.filters.iter();
        let filters: Vec<_> = filters
            .map(|f| (f.column, f.condition.operator()))
            .collect();
        match shown.offered.refuses(&shown.model, &filters, &self.sort) {
            Some(why) => Err(Problem::new(code::QUERY_UNINDEXED, why)),
            None => Ok(()),
        }
    }

    /// The filters and the order, as parameters in one canonical order: what a cursor belongs to.
    pub(super) fn pairs(&self, shown: &ShownModel) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for filter in &self.filters {
            let name = shown.model.columns[filter.column].name;
            let parameter = filter.condition.operator().parameter(name);
            match &filter.condition {
                Condition::Compared(_, values) => {
                    pairs.extend(values.iter().map(|v| (parameter.clone(), text_of(v))));
                }
                Condition::Null => pairs.push((parameter, "true".to_owned())),
                Condition::NotNull => pairs.push((parameter, "false".to_owned())),
            }
        }
        if !self.sort.is_empty() {
            let sort = self.sort.iter().map(|(at, direction)| match direction {
                Direction::Ascending => shown.model.columns[*at].name.to_owned(),
                Direction::Descending => format!("-{}", shown.model.columns[*at].name),
            });
            pairs.push(("sort".to_owned(), sort.collect::<Vec<_>>().join(",")));
        }
        if let Some(moment) = &self.as_of {
            pairs.push(("as_of".to_owned(), moment.text()));
        }
        pairs
    }
}

pub(super) fn invalid(parameter: &str, detail: String) -> Problem {
    Problem::new(door::code::QUERY_INVALID, detail).member("parameter", parameter)
}

fn twice(parameter: &str) -> Problem {
    invalid(parameter, format!("{parameter} may be given only once"))
}

fn unknown(shown: &ShownModel, parameter: &str) -> Problem {
    let name = shown.model.name;
    let detail = match parameter.split('.').next() {
        Some(column) if shown.model.columns.iter().any(|c| c.name == column) => format!(
            "{name} has no filter {parameter:?}; GET /v1/read lists the filters of each column"
        ),
        _ => format!(
            "there is no parameter {parameter:?}; there are {} and the filters that GET /v1/read \
             lists",
            PARAMETERS.join(", ")
        ),
    };
    invalid(parameter, detail)
}

fn add_filter(
    shown: &ShownModel,
    filters: &mut Vec<Filter>,
    parameter: &str,
    text: &str,
) -> Result<(), Problem> {
    let (name, suffix) = parameter.split_once('.').unwrap_or((parameter, ""));
    let columns = &shown.model.columns;
    let column = columns.iter().position(|column| column.name == name);
    let column = column.ok_or_else(|| unknown(shown, parameter))?;
    let mut operators = shown.offered.operators(column).iter();
    // `column.` is no spelling of equality.
    let operator = operators
        .find(|operator| operator.suffix() == suffix && operator.parameter(name) == parameter)
        .ok_or_else(|| unknown(shown, parameter))?;
    let is_same = |f: &&mut Filter| f.column == column && f.condition.operator() == *operator;
    let given = filters.iter_mut().find(is_same);
    let condition = if *operator == Operator::Null {
        match truth(parameter, Some(text))? {
            Some(true) => Condition::Null,
            Some(false) | None => Condition::NotNull,
        }
    } else {
        let value = filter_value(shown, column, *operator, text).ok_or_else(|| {
            let form = form_of(columns[column].column_type);
            invalid(parameter, format!("{parameter} must be {form}"))
        })?;
        Condition::Compared(*operator, vec![value])
    };
    match (given, condition) {
        (None, condition) => filters.push(Filter { column, condition }),
        (Some(given), Condition::Compared(Operator::In, more)) => {
            let Condition::Compared(_, values) = &mut given.condition else {
                return Err(twice(parameter));
            };
            values.extend(more);
            if values.len() > IN_VALUES_MAX {
                let detail = format!("{parameter} may be given at most {IN_VALUES_MAX} times");
                return Err(invalid(parameter, detail));
            }
        }
        (Some(_), _) => return Err(twice(parameter)),
    }
    Ok(())
}

/// The value of a filter. A text in the key or an index may be given whole, or shortened as its row
/// shows it.
fn filter_value(
    shown: &ShownModel,
    column: usize,
    operator: Operator,
    text: &str,
) -> Option<Value> {
    let column = &shown.model.columns[column];
    let value = match column.column_type {
        // As in rows, U+FFFD stands for U+0000, which Postgres cannot store.
        ColumnType::Text => Value::from(text),
        other => value_of(other, text)?,
    };
    let is_whole = matches!(operator, Operator::Equal | Operator::In);
    let mut indexed = shown.model.indexes.iter().flatten();
    let is_indexed = indexed.any(|indexed| indexed.name == column.name);
    match is_whole && is_indexed && column.column_type == ColumnType::Text {
        true if !value.is_shortened() => Some(value.into_key()),
        _ => Some(value),
    }
}

fn sort_of(shown: &ShownModel, text: &str) -> Result<Vec<(usize, Direction)>, Problem> {
    let mut sort: Vec<(usize, Direction)> = Vec::new();
    for part in text.split(',') {
        let (name, direction) = match part.strip_prefix('-') {
            Some(name) => (name, Direction::Descending),
            None => (part, Direction::Ascending),
        };
        let names = |at: &usize| shown.model.columns[*at].name;
        let column = shown.offered.sorts.iter().find(|at| names(at) == name);
        let column = *column.ok_or_else(|| {
            let all: Vec<&str> = shown.offered.sorts.iter().map(names).collect();
            let all = all.join(", ");
            invalid(
                "sort",
                format!("sort takes these columns, separated by commas: {all}"),
            )
        })?;
        // Named once more, a column decides nothing.
        if sort.iter().all(|(at, _)| *at != column) {
            sort.push((column, direction));
        }
    }
    Ok(sort)
}

/// The cursor, if there is one, of at most `length_max` characters.
fn after(after: Option<String>, length_max: usize) -> Result<Option<String>, Problem> {
    let count = after.as_ref().map(|after| after.chars().count());
    if count.is_none_or(|count| (1..=length_max).contains(&count)) {
        return Ok(after);
    }
    Err(invalid(
        "after",
        format!("after must have 1 to {length_max} characters"),
    ))
}

fn truth(parameter: &str, text: Option<&str>) -> Result<Option<bool>, Problem> {
    match text {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(invalid(
            parameter,
            format!("{parameter} must be true or false"),
        )),
    }
}
