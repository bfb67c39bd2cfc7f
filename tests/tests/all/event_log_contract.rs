//! What every log must do, for each kind of store.
//!
//! Invariant tested: an acknowledged record is durable and in order, a record is read back as it
//! was written, and each failure is an error of its own kind.

mod appending;
mod creating;
mod deposed;
mod following;
pub(crate) mod reading;
mod settings;

use std::time::Duration;

use bytes::Bytes;
use event_log::record::NewRecord;
use position::Offset;
use tests::harness::logs::Kind;

use crate::projections::until;

const PATIENCE: Duration = Duration::from_secs(30);

async fn each_kind(test: impl AsyncFn(Kind)) {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        test(kind).await;
    }
}

/// A small record that holds its number.
fn numbered(number: u64) -> NewRecord {
    NewRecord {
        key: Some(Bytes::from(format!("key {number}"))),
        value: Some(Bytes::from(format!("value {number}"))),
        headers: [("number", Some(number.to_string()))].into_iter().collect(),
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<NewRecord> {
    range.map(numbered).collect()
}

fn offsets(range: std::ops::Range<u64>) -> Vec<Offset> {
    range.map(Offset).collect()
}
