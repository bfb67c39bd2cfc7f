//! The statements of queries: one reads the version of the rows and the rows.
//!
//! Invariants: names come from declarations; values are bound. A page is a range of its order, so
//! that a late page costs no more than the first, and rows that are added or removed meanwhile do
//! not move other rows across pages. Null counts as greater than every value, as in Postgres.
//! Deliberately absent: running them.

use std::fmt::Write as _;
use std::sync::OnceLock;

use projector::{ColumnType, Model, ModelColumn, Null, OWNER_COLUMN, ROWS_VERSION, Value, quoted};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::asked::{Asked, Condition, Count, Filter};
use super::lookups::Lookup;
use super::offered::{Direction, Operator};
use super::parked::{NamedStream, key_asked};
use super::shown::ShownModel;
use super::values::bind;

/// Up to this many rows are counted exactly.
pub(super) const COUNT_MAX: i64 = 100_000;
/// The place of the first column of a row; before it stand the columns of the head.
pub(super) const ROW_FROM: usize = 4;

/// Whether a statement's head tells which streams are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadForm {
    /// It only tells, in the version, whether any is. Most of the time none is, and looking for them
    /// would cost as much as the rows.
    Plain,
    /// It tells how many streams of the tenant are parked, and which.
    WithParked,
}

/// A statement with its values. Its first row is the head: the version of the rows, their count if it
/// is wanted, how many streams of the tenant are parked, and those of them that the query may name.
/// Every other row is one of the read model.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    sql: Sql,
    values: Vec<Value>,
}

/// A statement without its values.
#[derive(Clone, Debug)]
pub(super) struct Sql {
    plain: SqlStr,
    /// Where the columns [`NO_PARKED`] begin, and what is read in their place; absent if the head
    /// never tells which streams are parked.
    parked: Option<(usize, Box<str>)>,
}

impl Sql {
    fn of(&self, head: HeadForm) -> SqlStr {
        match (head, &self.parked) {
            (HeadForm::Plain, _) | (HeadForm::WithParked, None) => self.plain.clone(),
            (HeadForm::WithParked, Some((at, parked))) => {
                let (before, rest) = self.plain.as_str().split_at(*at);
                let sql = format!("{before}{parked}{}", &rest[NO_PARKED.len()..]);
                AssertSqlSafe(sql).into_sql_str()
            }
        }
    }
}

/// How many lengths the statement for some rows has.
const SOME_LENGTHS: usize = 5;
/// The most rows that one statement finds by their keys.
pub(super) const SOME_MAX: usize = 1 << SOME_LENGTHS;

/// The columns of the head that tell which streams are parked, if nothing is to be told.
const NO_PARKED: &str = "0::bigint, NULL::text";

/// Parts of every statement on a read model.
pub(super) struct Parts {
    /// The columns by name.
    names: String,
    /// The columns as they are read: some types as text.
    columns: String,
    /// As many columns without a value.
    nothing: String,
    view: String,
    /// The view that shows the rows as of a moment.
    view_as_of: String,
    /// The statement for one row, once it was needed.
    one: OnceLock<Sql>,
    /// The statements for 2, 4, 8 and so on rows, once they were needed.
    some: [OnceLock<Sql>; SOME_LENGTHS],
}

impl Parts {
    pub(super) fn of(model: &Model) -> Self {
        let join = |part: &dyn Fn(&ModelColumn) -> String| {
            let parts: Vec<String> = model.columns.iter().map(part).collect();
            parts.join(", ")
        };
        Self {
            names: join(&|column| quoted(column.name)),
            columns: join(&|column| match is_read_as_text(column.column_type) {
                true => format!("p.{}::text", quoted(column.name)),
                false => format!("p.{}", quoted(column.name)),
            }),
            nothing: join(&|column| match is_read_as_text(column.column_type) {
                true => "NULL::text".to_owned(),
                false => format!("NULL::{}", column.column_type.sql()),
            }),
            view: format!("read.{}", quoted(model.name)),
            view_as_of: format!("read_as_of.{}", quoted(model.name)),
            one: OnceLock::new(),
            some: Default::default(),
        }
    }
}

impl Statement {
    /// The page of at most `limit` rows after `after`.
    pub(super) fn page(
        shown: &ShownModel,
        tenant: &str,
        asked: &Asked,
        after: Option<&[Option<Value>]>,
        limit: Option<i64>,
    ) -> Self {
        let mut writer = Writer::new(shown, tenant);
        if asked.as_of.is_some() {
            writer.view = &shown.parts.view_as_of;
        }
        let base = writer.conditions(&asked.filters);
        let count = (asked.count == Count::Wanted).then(|| writer.count(&base));
        let limit = limit.map(|limit| writer.value(Value::Bigint(limit)));
        let limit = limit.map_or(String::new(), |place| format!(" LIMIT {place}"));
        let order = shown.order(asked);
        let rows = match after {
            None => writer.rows(&base, &order, &limit),
            Some(after) => writer.rows_after(&base, &order, after, &limit),
        };
        let suspects = writer.suspects(&key_asked(shown, asked));
        writer.finish(count, suspects, &rows)
    }

    /// The row with a key.
    pub(super) fn one(shown: &ShownModel, Lookup { tenant, key }: &Lookup) -> Self {
        let mut writer = Writer::new(shown, tenant);
        let suspects = writer.suspects(key);
        let key: Vec<String> = key.iter().map(|v| writer.value(v.clone())).collect();
        let sql = shown.parts.one.get_or_init(|| {
            let rows = writer.rows(&writer.key_conditions(&key), &[], "");
            writer.sql(None, suspects, &rows)
        });
        Self {
            sql: sql.clone(),
            values: writer.values,
        }
    }

    /// The rows with some keys, at least 2 and at most [`SOME_MAX`] of them. Its head never tells which
    /// streams are parked. In the place of the head's count, each row has the place of its key.
    ///
    /// Each row is found by a subquery with a limit, so that Postgres must plan it as the statement for
    /// one row: a plan that was made for an empty table never reads a whole one.
    pub(super) fn some(shown: &ShownModel, keys: &[Lookup]) -> Self {
        let mut writer = Writer::new(shown, "");
        writer.values.pop();
        // Statements of few lengths, so that each is prepared soon.
        let length = keys.len().next_power_of_two().clamp(2, SOME_MAX);
        let padded = keys.iter().chain(keys.last().into_iter().cycle());
        let mut places = Vec::with_capacity(length);
        for Lookup { tenant, key } in padded.take(length) {
            let tenant = writer.value(Value::from(tenant.as_str()));
            let key: Vec<String> = key.iter().map(|v| writer.value(v.clone())).collect();
            places.push((tenant, key));
        }
        let which = length.ilog2() as usize - 1;
        let sql = shown.parts.some[which].get_or_init(|| writer.some_sql(&places));
        Self {
            sql: sql.clone(),
            values: writer.values,
        }
    }

    /// The row with a key as of a moment.
    pub(super) fn one_as_of(shown: &ShownModel, tenant: &str, key: Vec<Value>) -> Self {
        let mut writer = Writer::new(shown, tenant);
        writer.view = &shown.parts.view_as_of;
        let suspects = writer.suspects(&key);
        let key: Vec<String> = key.into_iter().map(|value| writer.value(value)).collect();
        let rows = writer.rows(&writer.key_conditions(&key), &[], "");
        writer.finish(None, suspects, &rows)
    }

    /// No row; the head names the stream that the row with a key belongs to in `table`, if that stream
    /// is parked.
    pub(super) fn owner(shown: &ShownModel, tenant: &str, key: Vec<Value>, table: &str) -> Self {
        let mut writer = Writer::new(shown, tenant);
        let key: Vec<String> = key.into_iter().map(|value| writer.value(value)).collect();
        let conditions = writer.key_conditions(&key);
        let owner = quoted(OWNER_COLUMN);
        let is_owner = format!("k.stream = (SELECT {owner} FROM {table} AS r WHERE {conditions})");
        let rows = writer.rows("false", &[], "");
        writer.finish(None, Some(is_owner), &rows)
    }

    /// The statement as a query.
    pub(super) fn query(&self, head: HeadForm) -> Query<'_, Postgres, PgArguments> {
        self.values
            .iter()
            .fold(sqlx::query(self.sql.of(head)), bind)
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        self.sql.plain.as_str()
    }
}

const TENANT: &str = "tenant = $2";
/// The tenant's parked streams of the generation `v`.
const PARKED: &str = "FROM annals.parked AS k \
    WHERE k.projection = $1 AND k.generation = v.generation AND k.tenant = $2";
/// Parked streams as a JSON text.
const SUSPECTS: &str = "json_agg(json_build_object(\
    'stream', k.stream, 'partition', k.partition, 'position', k.position, 'parked_at', \
    to_char(k.parked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))::text";

/// A statement that is being written.
struct Writer<'m> {
    shown: &'m ShownModel,
    values: Vec<Value>,
    view: &'m str,
}

impl<'m> Writer<'m> {
    fn new(shown: &'m ShownModel, tenant: &str) -> Self {
        Self {
            shown,
            view: &shown.parts.view,
            values: vec![Value::from(shown.projection), Value::from(tenant)],
        }
    }

    /// Adds a value; returns its placeholder.
    fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn name(&self, column: usize) -> String {
        quoted(self.shown.model.columns[column].name)
    }

    /// The conditions on the row whose key has these placeholders.
    fn key_conditions(&self, key: &[String]) -> String {
        let mut conditions = TENANT.to_owned();
        for (column, place) in self.shown.model.key.iter().zip(key) {
            write!(conditions, " AND {} = {place}", quoted(column.name)).unwrap_or_default();
        }
        conditions
    }

    /// The condition on parked streams that may be the one that a key names.
    fn suspects(&mut self, key: &[Value]) -> Option<String> {
        let prefix = NamedStream::of(self.shown, key)?.prefix();
        let place = self.value(Value::from(prefix.as_str()));
        Some(format!("starts_with(k.stream, {place})"))
    }

    fn conditions(&mut self, filters: &[Filter]) -> String {
        let mut all = TENANT.to_owned();
        for filter in filters {
            let name = self.name(filter.column);
            all.push_str(" AND ");
            all.push_str(&self.condition(&name, &filter.condition));
        }
        all
    }

    fn condition(&mut self, name: &str, condition: &Condition) -> String {
        let (operator, values) = match condition {
            Condition::Null => return format!("{name} IS NULL"),
            Condition::NotNull => return format!("{name} IS NOT NULL"),
            Condition::Compared(operator, values) => (*operator, values),
        };
        if operator == Operator::In {
            // Statements of few lengths, so that most are prepared already.
            let count = values.len().next_power_of_two();
            let last = values.last().into_iter().cycle();
            let padded = values.iter().chain(last).take(count).cloned();
            let places: Vec<String> = padded.map(|value| self.value(value)).collect();
            return format!("{name} IN ({})", places.join(", "));
        }
        let value = values[0].clone();
        let behind = match &value {
            Value::Text(text) if operator == Operator::Prefix => successor(text),
            _ => None,
        };
        let place = self.value(value);
        match (operator, behind) {
            (Operator::Prefix, Some(behind)) => {
                let behind = self.value(Value::from(&*behind));
                format!("{name} >= {place} AND {name} < {behind}")
            }
            _ => format!("{name} {} {place}", comparison(operator)),
        }
    }

    /// The number of rows, as far as they are counted.
    fn count(&self, conditions: &str) -> String {
        let (view, most) = (self.view, COUNT_MAX + 1);
        format!("(SELECT count(*) FROM (SELECT FROM {view} WHERE {conditions} LIMIT {most}) AS n)")
    }

    fn order_by(&self, order: &[(usize, Direction)]) -> String {
        if order.is_empty() {
            return String::new();
        }
        let parts = order.iter().map(|(column, direction)| match direction {
            Direction::Ascending => self.name(*column),
            Direction::Descending => format!("{} DESC", self.name(*column)),
        });
        format!(" ORDER BY {}", parts.collect::<Vec<_>>().join(", "))
    }

    fn rows(&self, conditions: &str, order: &[(usize, Direction)], limit: &str) -> String {
        let (names, view) = (&self.shown.parts.names, self.view);
        let order = self.order_by(order);
        format!("SELECT {names} FROM {view} WHERE {conditions}{order}{limit}")
    }

    fn rows_after(
        &mut self,
        base: &str,
        order: &[(usize, Direction)],
        after: &[Option<Value>],
        limit: &str,
    ) -> String {
        let places: Vec<Option<String>> = after
            .iter()
            .map(|value| value.clone().map(|value| self.value(value)))
            .collect();
        let is_plain = |(column, direction): &(usize, Direction)| {
            let never_null = self.shown.model.columns[*column].null == Null::Never;
            never_null && *direction == order[0].1
        };
        if order.iter().all(is_plain) {
            let names: Vec<String> = order.iter().map(|(column, _)| self.name(*column)).collect();
            let places: Vec<String> = places.into_iter().flatten().collect();
            let sign = sign(order[0].1);
            let (names, places) = (names.join(", "), places.join(", "));
            let conditions = format!("{base} AND ({names}) {sign} ({places})");
            return self.rows(&conditions, order, limit);
        }
        // One range of the order for each column that may be the first to differ.
        let mut ranges = Vec::new();
        let mut same = String::new();
        for ((column, direction), place) in order.iter().zip(&places) {
            let name = self.name(*column);
            let may_be_null = self.shown.model.columns[*column].null == Null::Possible;
            let mut differs = Vec::new();
            match (direction, place) {
                (Direction::Ascending, Some(place)) => {
                    differs.push(format!("{name} > {place}"));
                    if may_be_null {
                        differs.push(format!("{name} IS NULL"));
                    }
                }
                (Direction::Descending, Some(place)) => differs.push(format!("{name} < {place}")),
                (Direction::Ascending, None) => {}
                (Direction::Descending, None) => differs.push(format!("{name} IS NOT NULL")),
            }
            for differs in differs {
                let conditions = format!("{base}{same} AND {differs}");
                ranges.push(format!("({})", self.rows(&conditions, order, limit)));
            }
            match place {
                Some(place) => write!(same, " AND {name} = {place}"),
                None => write!(same, " AND {name} IS NULL"),
            }
            .unwrap_or_default();
        }
        let (ranges, order_by) = (ranges.join(" UNION ALL "), self.order_by(order));
        format!("SELECT * FROM ({ranges}) AS r{order_by}{limit}")
    }

    fn finish(self, count: Option<String>, suspects: Option<String>, rows: &str) -> Statement {
        Statement {
            sql: self.sql(count, suspects, rows),
            values: self.values,
        }
    }

    fn sql(&self, count: Option<String>, suspects: Option<String>, rows: &str) -> Sql {
        let Parts {
            columns, nothing, ..
        } = &self.shown.parts;
        let view = self.view;
        let count = count.unwrap_or("NULL::bigint".to_owned());
        let suspects = match suspects {
            Some(suspects) => format!("(SELECT {SUSPECTS} {PARKED} AND {suspects})"),
            None => "NULL::text".to_owned(),
        };
        // Postgres shows only the beginning of a statement that runs: this says what it reads.
        let mut sql = format!("/* {view} */ SELECT v.rows_version, {count}, ");
        let parked_at = sql.len();
        write!(
            sql,
            "{NO_PARKED}, {nothing} FROM ({ROWS_VERSION}$1) AS v \
             UNION ALL SELECT NULL, NULL, NULL, NULL, {columns} FROM ({rows}) AS p"
        )
        .unwrap_or_default();
        let parked = format!("(SELECT count(*) {PARKED}), {suspects}");
        Sql {
            plain: AssertSqlSafe(sql).into_sql_str(),
            parked: Some((parked_at, parked.into())),
        }
    }

    /// The statement for rows whose tenants and keys have these placeholders.
    fn some_sql(&self, places: &[(String, Vec<String>)]) -> Sql {
        let Parts {
            names,
            columns,
            nothing,
            ..
        } = &self.shown.parts;
        let (view, key) = (self.view, &self.shown.model.key);
        let row = |(number, (tenant, values)): (usize, &(String, Vec<String>))| {
            let mut row = format!("({number}::bigint, {tenant}::text");
            for (column, value) in key.iter().zip(values) {
                let sql_type = column.column_type.sql();
                write!(row, ", {value}::{sql_type}").unwrap_or_default();
            }
            row + ")"
        };
        let rows: Vec<String> = places.iter().enumerate().map(row).collect();
        let mut names_of_keys = "number, tenant".to_owned();
        let mut conditions = "v.tenant = k.tenant".to_owned();
        for (place, column) in key.iter().enumerate() {
            let name = quoted(column.name);
            write!(names_of_keys, ", key_{place}").unwrap_or_default();
            write!(conditions, " AND v.{name} = k.key_{place}").unwrap_or_default();
        }
        let rows = rows.join(", ");
        let sql = format!(
            "/* {view} */ SELECT v.rows_version, NULL::bigint, {NO_PARKED}, {nothing} \
             FROM ({ROWS_VERSION}$1) AS v \
             UNION ALL SELECT NULL, k.number, NULL, NULL, {columns} \
             FROM (VALUES {rows}) AS k ({names_of_keys}) CROSS JOIN LATERAL \
             (SELECT {names} FROM {view} AS v WHERE {conditions} LIMIT 1) AS p"
        );
        Sql {
            plain: AssertSqlSafe(sql).into_sql_str(),
            parked: None,
        }
    }
}

fn is_read_as_text(column_type: ColumnType) -> bool {
    matches!(column_type, ColumnType::Decimal { .. } | ColumnType::Jsonb)
}

fn comparison(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "=",
        // A prefix of the last of all texts.
        Operator::AtLeast | Operator::Prefix => ">=",
        Operator::Above => ">",
        Operator::AtMost => "<=",
        Operator::Below => "<",
        Operator::In | Operator::Null => unreachable!("written elsewhere"),
    }
}

fn sign(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    }
}

/// The least text that is greater than all texts with this beginning, by their bytes; absent if
/// there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_of_the_order_by_bytes() {
        for (prefix, behind) in [
            ("a", Some("b")),
            ("order-", Some("order.")),
            ("\u{7f}", Some("\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(successor(prefix).as_deref(), behind, "{prefix:?}");
        }
    }
}
