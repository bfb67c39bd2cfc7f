//! A log that was changed, cut or written to by others: what is damage is found, named with its
//! place, and passed by nobody; what is not stops nobody.

mod followed;
mod hostile;
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

/// Two claims, at offsets 0 and 6, with five commits behind each.
fn history() -> Scribe {
    let mut scribe = Scribe::new();
    scribe.claim();
    scribe.commits(&["thing-a", "thing-b", "thing-a", "thing-c", "thing-a"]);
    scribe.claim();
    scribe.commits(&["thing-b", "thing-a", "thing-c", "thing-b", "thing-a"]);
    scribe
}

/// The records of [`history`].
const HISTORY: u64 = 12;
