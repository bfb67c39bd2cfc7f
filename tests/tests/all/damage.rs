//! A log that was changed, cut, or written to by others. Readers find damage, name its place, and
//! do not pass it. Records that are no damage stop no reader.

mod followed;
pub(crate) mod hostile;
mod verified;

use std::time::Duration;

use tests::harness::logs::Kind;

use crate::history::Scribe;

const PATIENCE: Duration = Duration::from_secs(30);

async fn each_kind(test: impl AsyncFn(Kind)) {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        test(kind).await;
    }
}

/// Two claims, at offsets 0 and 6, each followed by five commits.
fn history() -> Scribe {
    let mut scribe = Scribe::new();
    scribe.claim();
    scribe.commits(&["thing-a", "thing-b", "thing-a", "thing-c", "thing-a"]);
    scribe.claim();
    scribe.commits(&["thing-b", "thing-a", "thing-c", "thing-b", "thing-a"]);
    scribe
}

/// How many records [`history`] has.
const HISTORY: u64 = 12;
