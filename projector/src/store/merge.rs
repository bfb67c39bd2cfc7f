//! The rules of merging in SQL, for whatever statement merges one row into another.
//!
//! Invariant: they are the rules that memory also applies (`fold::cell`). Null contributes nothing.
//! Deliberately absent: statements (`upsert`, `history`).

use crate::declare::table::{Empty, Merge, ValueColumn};
use crate::store::sql::identifier;

/// Whether a column may become empty again.
pub(super) fn may_be_emptied(value: &ValueColumn) -> bool {
    value.merge == Merge::Set && value.empty != Empty::Never
}

/// The stored columns of a value, each with the expression that merges the row `given` into the row
/// `held`.
pub(super) fn merged(value: &ValueColumn, held: &str, given: &str) -> Vec<(String, String)> {
    let name = identifier(value.name);
    let (h, g) = (format!("{held}.{name}"), format!("{given}.{name}"));
    let merged = match value.merge {
        Merge::Set => format!("coalesce({g}, {h})"),
        // Adding null would give null.
        Merge::Add => format!("coalesce({h} + {g}, {h}, {g})"),
        // LEAST and GREATEST ignore nulls.
        Merge::Min => format!("LEAST({h}, {g})"),
        Merge::Max => format!("GREATEST({h}, {g})"),
        Merge::Latest { .. } => return latest(value.name, held, given),
    };
    vec![(name, merged)]
}

fn latest(column: &str, held: &str, given: &str) -> Vec<(String, String)> {
    let part = |suffix: &str| identifier(&format!("{column}{suffix}"));
    let rank = |row: &str| {
        let [by, partition, position] = [part("_by"), part("_partition"), part("_position")];
        format!("({row}.{by}, {row}.{partition}, {row}.{position})")
    };
    let by = part("_by");
    let newer = format!(
        "{given}.{by} IS NOT NULL AND ({held}.{by} IS NULL OR {} >= {})",
        rank(given),
        rank(held)
    );
    ["", "_by", "_partition", "_position"]
        .map(|suffix| {
            let name = part(suffix);
            let merged = format!("CASE WHEN {newer} THEN {given}.{name} ELSE {held}.{name} END");
            (name, merged)
        })
        .into()
}
