//! Starts the servers that tests run against, each on free ports and in its own folder, and ends
//! them with the test process, whatever ends that process. Also holds common helpers for tests.

pub mod annals;
pub mod certificates;
pub mod disk;
pub mod import;
pub mod kafka;
pub mod logs;
pub mod nodes;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod stack;

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A name that no other test uses, for a topic, a database or a group: `orders_0192f0c1…`.
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// A small input that once showed a fault; `None` if the folder of cases is not next to the clone.
#[must_use]
pub fn case(name: &str) -> Option<PathBuf> {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases");
    let path = Path::new(cases).join(name);
    path.exists().then_some(path)
}
