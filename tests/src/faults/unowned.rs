//! For how long nobody decided anything in a partition when its owner changed, by the log.
//!
//! Each commit holds the time of its decision. So the time between the last commit of a term and
//! the first of the next is never shorter than the time without an owner, however late clients on a
//! busy machine got their answers. Deliberately absent: which move caused a change (`moves`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use checker::dump::DumpReader;
use checker::rule::{Fold, Verdict};
use kernel::Timestamp;
use position::Partition;
use serde::Deserialize;

use super::judge::open;

/// A change of owner of a partition, with commits on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The partition.
    pub partition: Partition,
    /// When the last commit before the change was decided.
    pub last: Timestamp,
    /// When the first commit after the change was decided.
    pub first: Timestamp,
}

impl Change {
    /// For how long nobody decided anything.
    #[must_use]
    pub fn gap(&self) -> Duration {
        let micros = self.first.micros() - self.last.micros();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

#[derive(Deserialize)]
struct Decided {
    recorded_at: Timestamp,
}

/// Every change of owner in a dumped log.
///
/// # Errors
/// If the dump cannot be read.
pub fn changes(dump: &Path) -> Result<Vec<Change>, String> {
    let explain = |error: checker::InputError| error.to_string();
    let mut reader = DumpReader::open("dump", open(dump)?).map_err(explain)?;
    let mut folds: BTreeMap<u32, (Fold, Option<(u64, Timestamp)>)> = BTreeMap::new();
    let mut changes = Vec::new();
    while let Some((number, record)) = reader.next_record().map_err(explain)? {
        let (fold, last) = folds
            .entry(number)
            .or_insert_with(|| (Fold::new(number), None));
        let Verdict::Commit(headers) = fold.take(&record) else {
            continue;
        };
        let value = record.value.as_deref().unwrap_or_default();
        let decided: Decided = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if let Some((term, last)) = *last
            && term != headers.term
        {
            changes.push(Change {
                partition: Partition(number),
                last,
                first: decided.recorded_at,
            });
        }
        *last = Some((headers.term, decided.recorded_at));
    }
    Ok(changes)
}
