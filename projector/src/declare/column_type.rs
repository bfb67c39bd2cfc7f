//! The types of columns, and what each of them can do.
//!
//! Invariant: the order of a type in memory is the order in which Postgres sorts it, so that both
//! choose the same least and greatest value. `jsonb` has no such order. Deliberately absent: values
//! (`value`).

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Text, ordered by its bytes (`COLLATE "C"`), as in memory.
    Text,
    /// A 64-bit integer.
    Bigint,
    /// A whole number of any size: a sum. Views show it as `bigint` ([`add`](super::table::add)).
    Numeric,
    /// An exact number with this many digits after the point. A value with more digits is rounded
    /// to the nearest one, and to the even one if two are equally near.
    Decimal {
        /// At most [`DECIMAL_SCALE_MAX`].
        scale: u8,
    },
    /// A number as computers approximate it: finite, and 0 instead of −0. It cannot be summed: such
    /// a sum would depend on the order in which streams are read.
    Double,
    /// True or false; false is less than true.
    Boolean,
    /// A UUID, ordered by its bytes.
    Uuid,
    /// A moment.
    Timestamptz,
    /// A day.
    Date,
    /// Bytes.
    Bytea,
    /// A JSON document: a typed value, given as [`Json`](super::value::Json). It has no order.
    Jsonb,
    /// A list of texts, ordered by its first different text; a list comes after its beginning.
    TextArray,
}

/// The most digits after the point of a [`ColumnType::Decimal`].
pub const DECIMAL_SCALE_MAX: u8 = 28;

impl ColumnType {
    /// Its name in SQL.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bigint => "bigint",
            Self::Numeric | Self::Decimal { .. } => "numeric",
            Self::Double => "double precision",
            Self::Boolean => "boolean",
            Self::Uuid => "uuid",
            Self::Timestamptz => "timestamptz",
            Self::Date => "date",
            Self::Bytea => "bytea",
            Self::Jsonb => "jsonb",
            Self::TextArray => "text[]",
        }
    }

    /// Whether its values have an order, which `min`, `max`, `latest` and indexes need.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Jsonb)
    }

    /// Whether it may be in a key: its values are short, and two forms of one value do not exist.
    #[must_use]
    pub const fn may_be_key(self) -> bool {
        match self {
            Self::Text
            | Self::Bigint
            | Self::Boolean
            | Self::Uuid
            | Self::Timestamptz
            | Self::Date
            | Self::Bytea => true,
            Self::Numeric | Self::Decimal { .. } | Self::Double | Self::Jsonb | Self::TextArray => {
                false
            }
        }
    }

    /// Whether its values can be summed in any order with the same result.
    #[must_use]
    pub const fn may_be_summed(self) -> bool {
        matches!(self, Self::Bigint | Self::Numeric | Self::Decimal { .. })
    }

    /// What a view may show instead of nothing, as SQL: 0, or false; absent if the type has neither.
    #[must_use]
    pub fn zero(self) -> Option<String> {
        match self {
            Self::Bigint | Self::Numeric | Self::Double => Some("0".to_owned()),
            // With its digits, so that 0 looks like the other values.
            Self::Decimal { scale: 0 } => Some("0".to_owned()),
            Self::Decimal { scale } => Some(format!("0.{}", "0".repeat(scale.into()))),
            Self::Boolean => Some("false".to_owned()),
            Self::Text
            | Self::Uuid
            | Self::Timestamptz
            | Self::Date
            | Self::Bytea
            | Self::Jsonb
            | Self::TextArray => None,
        }
    }

    /// Whether its values are ordered by bytes in Postgres only if the column says so.
    pub(crate) const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::TextArray)
    }

    /// Refuses a type that does not exist: a compile error in a constant.
    pub(crate) const fn checked(self) -> Self {
        if let Self::Decimal { scale } = self {
            assert!(
                scale <= DECIMAL_SCALE_MAX,
                "a decimal has at most 28 digits after the point"
            );
        }
        self
    }
}
