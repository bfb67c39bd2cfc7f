//! A projection whose rows Postgres refuses from some commit on: their date is before Postgres's
//! first one.

use chrono::NaiveDate;
use projector::{
    Changes, ColumnType, Entry, ProjectError, Projection, Table, Value, View, key, set,
};

pub(super) const NAME: &str = "refused";

/// Batches have about 2,000 commits, so the next batch is folded before Postgres refuses this one.
const POSITION_KEPT_MAX: u64 = 4_500;

const TABLES: &[Table] = &[Table {
    name: NAME,
    about: "A sample.",
    key: &[key("stream", ColumnType::Text, "The stream.")],
    values: &[set("day", ColumnType::Date, "A day.")],
    view: View::NONE,
    ..Table::PLAIN
}];

pub(super) struct Refused;

impl Projection for Refused {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let day = match entry.position().0 {
            0..=POSITION_KEPT_MAX => NaiveDate::default(),
            _ => NaiveDate::MIN,
        };
        let stream = entry.commit().stream.as_str();
        changes
            .row(&TABLES[0], [Value::from(stream)])
            .put("day", day);
        Ok(())
    }
}
