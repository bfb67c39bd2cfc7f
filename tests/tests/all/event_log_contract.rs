//! What every log must do, on each kind of store that one is kept in.
//!
//! Invariant tested: acknowledged means durable and in order, what is read back is what was
//! written, and everything else is said to be an error of its own kind.

mod appending;
mod creating;
mod deposed;
mod following;
pub(crate) mod reading;
mod settings;

use std::time::{Duration, Instant};

use bytes::Bytes;
use event_log::record::NewRecord;
use position::Offset;
use tests::harness::logs::Kind;

const PATIENCE: Duration = Duration::from_secs(30);

async fn each_kind(test: impl AsyncFn(Kind)) {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        test(kind).await;
    }
}

/// Polls: what takes a moment is waited for, and no longer than it takes.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A small record that says its number.
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
