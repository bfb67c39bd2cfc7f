//! What may be asked of a read model: its filters and orders, as they follow from the declaration.
//!
//! Invariant: each query that is offered begins in the key or an index of the table, except for
//! views that are declared to have few rows. So no request reads all of a large table. Deliberately
//! absent: SQL, and the values of filters.

use projector::{ColumnType, IndexColumn, IndexOrder, Model, ModelColumn, Null, Queries, Source};

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operator {
    /// `column=value`
    Equal,
    /// `column.gte=value`
    AtLeast,
    /// `column.gt=value`
    Above,
    /// `column.lte=value`
    AtMost,
    /// `column.lt=value`
    Below,
    /// `column.prefix=text`
    Prefix,
    /// `column.in=value`, once for each value
    In,
    /// `column.null=true` or `false`
    Null,
}

impl Operator {
    /// What stands behind the column's name and a dot; empty for equality, which has no dot.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Equal => "",
            Self::AtLeast => "gte",
            Self::Above => "gt",
            Self::AtMost => "lte",
            Self::Below => "lt",
            Self::Prefix => "prefix",
            Self::In => "in",
            Self::Null => "null",
        }
    }

    /// The name of the parameter that filters a column so.
    pub(super) fn parameter(self, column: &str) -> String {
        match self {
            Self::Equal => column.to_owned(),
            _ => format!("{column}.{}", self.suffix()),
        }
    }
}

/// The names of a page's parameters that are no filters.
pub(super) const PARAMETERS: [&str; 6] =
    ["limit", "after", "sort", "count", "format", "min_position"];

/// Which way an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// The columns of an index, each with its direction.
type Path = Vec<(usize, Direction)>;

/// The filters and orders that a read model offers.
#[derive(Debug)]
pub(super) struct Offered {
    /// The columns that may be filtered, by their place among the model's, each with its operators.
    pub(super) filters: Vec<(usize, Vec<Operator>)>,
    /// The columns that may be sorted by, by their place among the model's.
    pub(super) sorts: Vec<usize>,
    /// The key and the indexes, as places of columns; absent if every query may read all rows.
    paths: Option<Vec<Path>>,
}

impl Offered {
    pub(super) fn of(model: &Model) -> Self {
        let place = |name: &str| model.columns.iter().position(|column| column.name == name);
        let paths = model.indexes.iter().map(|index| {
            // An index that begins with a column that is not shown serves nobody here.
            let column = |column: &IndexColumn| Some((place(column.name)?, way_of(column.order)));
            index.iter().map_while(column).collect()
        });
        let paths: Vec<Path> = paths.filter(|path: &Path| !path.is_empty()).collect();
        let is_in_path = |index: &usize| {
            let mut columns = paths.iter().flatten();
            columns.any(|(at, _)| at == index)
        };
        let is_few = model.queries == Queries::FewRows;
        let all = 0..model.columns.len();
        let filters = all.clone().filter(|index| is_few || is_in_path(index));
        let filters = filters.map(|index| (index, operators(&model.columns[index])));
        let filters = filters.filter(|(_, operators)| !operators.is_empty());
        // Text outside the key and the indexes may be too long for a cursor.
        let is_short = |index: &usize| model.columns[*index].column_type != ColumnType::Text;
        let sorts = all.filter(|index| is_in_path(index) || (is_few && is_short(index)));
        let sorts = sorts.filter(|index| orders_pages(model.columns[*index].column_type));
        Self {
            filters: filters.collect(),
            sorts: sorts.collect(),
            paths: (!is_few).then_some(paths),
        }
    }

    /// The operators that the filter of a column has.
    pub(super) fn operators(&self, column: usize) -> &[Operator] {
        let found = self.filters.iter().find(|(index, _)| *index == column);
        found.map_or(&[], |(_, operators)| operators)
    }

    /// Why these filters and this order are not served by the key or an index; absent if they are.
    pub(super) fn refuses(
        &self,
        model: &Model,
        filters: &[(usize, Operator)],
        sort: &[(usize, Direction)],
    ) -> Option<String> {
        let paths = self.paths.as_ref()?;
        let names = |path: &Path| {
            let name = |(at, way): &(usize, Direction)| match way {
                Direction::Ascending => model.columns[*at].name.to_owned(),
                Direction::Descending => format!("-{}", model.columns[*at].name),
            };
            path.iter().map(name).collect::<Vec<_>>().join(",")
        };
        let is_filtered = |path: &&Path| filters.iter().any(|(at, _)| path[0].0 == *at);
        if !filters.is_empty() && !paths.iter().any(|path| is_filtered(&path)) {
            let mut firsts: Vec<&str> = paths.iter().map(|p| model.columns[p[0].0].name).collect();
            firsts.dedup();
            return Some(format!(
                "these filters would read all rows; filter also by {}",
                firsts.join(" or ")
            ));
        }
        if sort.is_empty() || paths.iter().any(|path| is_order_of(path, filters, sort)) {
            return None;
        }
        let all: Vec<String> = paths.iter().map(names).collect();
        Some(format!(
            "no index has this order; the orders are {}, each also reversed as a whole, and from a \
             column on if those before it are filtered by equality",
            all.join(" and ")
        ))
    }
}

/// Whether an index has its rows in this order, read forwards or backwards, once they are filtered
/// so.
fn is_order_of(
    path: &[(usize, Direction)],
    filters: &[(usize, Operator)],
    sort: &[(usize, Direction)],
) -> bool {
    let is_equal = |at: usize| filters.contains(&(at, Operator::Equal));
    let equal = path.iter().take_while(|(at, _)| is_equal(*at)).count();
    let begins = |from: usize| {
        let rest = &path[from..];
        let has_columns = rest.len() >= sort.len();
        let pairs = || rest.iter().zip(sort);
        let is_forward = pairs().all(|(index, by)| index == by);
        let is_backward = pairs().all(|(index, by)| index.0 == by.0 && index.1 != by.1);
        has_columns && (is_forward || is_backward)
    };
    (0..=equal).any(begins)
}

fn way_of(order: IndexOrder) -> Direction {
    match order {
        IndexOrder::Ascending => Direction::Ascending,
        IndexOrder::Descending => Direction::Descending,
    }
}

/// Whether a page may be in the order of a column of this type: its values fit into cursors.
fn orders_pages(column_type: ColumnType) -> bool {
    match column_type {
        ColumnType::Text
        | ColumnType::Bigint
        | ColumnType::Numeric
        | ColumnType::Double
        | ColumnType::Boolean
        | ColumnType::Uuid
        | ColumnType::Timestamptz
        | ColumnType::Date
        | ColumnType::Bytea => true,
        ColumnType::Decimal { .. } | ColumnType::Jsonb | ColumnType::TextArray => false,
    }
}

fn operators(column: &ModelColumn) -> Vec<Operator> {
    use Operator as O;
    let mut operators = match column.column_type {
        ColumnType::Text => vec![O::Equal, O::Prefix, O::In],
        ColumnType::Bigint | ColumnType::Numeric | ColumnType::Timestamptz | ColumnType::Date => {
            vec![O::Equal, O::AtLeast, O::Above, O::AtMost, O::Below, O::In]
        }
        ColumnType::Double => vec![O::AtLeast, O::Above, O::AtMost, O::Below],
        ColumnType::Uuid | ColumnType::Bytea => vec![O::Equal, O::In],
        ColumnType::Boolean => vec![O::Equal],
        ColumnType::Decimal { .. } | ColumnType::Jsonb | ColumnType::TextArray => Vec::new(),
    };
    if !is_ordered_by_bytes(column) {
        operators.retain(|operator| *operator != O::Prefix);
    }
    if column.null == Null::Possible {
        operators.push(O::Null);
    }
    // A filter may not take the name of another parameter.
    operators.retain(|operator| !PARAMETERS.contains(&&*operator.parameter(column.name)));
    operators
}

/// Whether the column's text is ordered by its bytes, as the text of tables is.
fn is_ordered_by_bytes(column: &ModelColumn) -> bool {
    matches!(column.source, Source::Same)
}

#[cfg(test)]
mod tests {
    use projector::{Rules, Table, asc, desc, index, key, models_of, set, tally};

    use super::*;

    const ORDERS: Table = Table {
        name: "orders",
        about: "Orders.",
        key: &[key("order_id", ColumnType::Text, "The order.")],
        values: &[
            set("status", ColumnType::Text, "Its status."),
            set("placed_at", ColumnType::Timestamptz, "When."),
            set("note", ColumnType::Text, "A note.").nullable(),
            tally("count", "How many."),
        ],
        indexes: &[index(&[asc("status"), desc("placed_at")])],
        ..Table::PLAIN
    };

    fn orders(queries: Queries) -> Model {
        let mut model = models_of(&Rules::new("orders", 1, &[ORDERS])).remove(0);
        model.queries = queries;
        model
    }

    fn parameters(model: &Model) -> Vec<String> {
        let offered = Offered::of(model);
        let all = offered.filters.iter().flat_map(|(at, operators)| {
            let name = model.columns[*at].name;
            operators.iter().map(|operator| operator.parameter(name))
        });
        all.collect()
    }

    #[test]
    fn what_is_offered_follows_from_key_and_indexes() {
        let indexed = parameters(&orders(Queries::Indexed));
        let expected = "order_id order_id.prefix order_id.in status status.prefix status.in \
                        placed_at placed_at.gte placed_at.gt placed_at.lte placed_at.lt \
                        placed_at.in";
        assert_eq!(indexed.join(" "), expected);
        let few = parameters(&orders(Queries::FewRows));
        // A column that is named like a parameter has no filter by equality.
        let more = "note note.prefix note.in note.null count.gte count.gt count.lte count.lt \
                    count.in";
        assert_eq!(few.join(" "), format!("{expected} {more}"));
    }

    #[test]
    fn a_query_that_no_index_serves_is_refused() {
        let (order, status, placed) = (0, 1, 2);
        use Direction::{Ascending as Up, Descending as Down};
        use Operator::{AtLeast, Equal, In};
        type Asked<'a> = (&'a [(usize, Operator)], &'a [(usize, Direction)]);
        let cases: &[(Asked<'_>, bool)] = &[
            ((&[], &[]), true),
            ((&[(status, In)], &[]), true),
            ((&[(placed, AtLeast)], &[]), false),
            ((&[(placed, AtLeast), (status, Equal)], &[]), true),
            ((&[], &[(order, Down)]), true),
            ((&[], &[(placed, Down)]), false),
            ((&[], &[(status, Up), (placed, Up)]), false),
            ((&[], &[(status, Up), (placed, Down)]), true),
            ((&[], &[(status, Down), (placed, Up)]), true),
            ((&[(status, Equal)], &[(placed, Down)]), true),
            ((&[(status, In)], &[(placed, Down)]), false),
            ((&[(order, Equal)], &[(status, Up)]), true),
        ];
        let model = orders(Queries::Indexed);
        for ((filters, sort), served) in cases {
            let refused = Offered::of(&model).refuses(&model, filters, sort);
            assert_eq!(
                refused.is_none(),
                *served,
                "{filters:?} {sort:?}: {refused:?}"
            );
        }
        let few = orders(Queries::FewRows);
        assert_eq!(
            Offered::of(&few).refuses(&few, &[(placed, AtLeast)], &[(placed, Up)]),
            None
        );
    }
}
