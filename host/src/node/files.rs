//! How many files the process may have open: connections are files too.
//!
//! Invariant: connections leave enough files to the log, the checkpoints and Postgres, so that a
//! client can never make those fail. Deliberately absent: what happens if there are too few files
//! all the same (`door`).

use door::{Limits, RESERVE_CONNECTIONS};
use rustix::process::{Resource, getrlimit, setrlimit};

/// The limit of open files that the process asks for, if the system allows it.
const FILES_WANTED: u64 = 65_536;
/// Files for the node itself: the log, the owners' checkpoints, its clients of Kafka and Postgres.
const FILES_OF_OUR_OWN: u64 = 320;
/// The minimum number of connections, even if there are not enough files for it.
const CONNECTIONS_MIN: u64 = 16;

/// Raises the limit of open files to [`FILES_WANTED`], or to the most that the system allows.
/// Returns the limit that then holds.
fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    if now >= wanted {
        return now;
    }
    limit.current = Some(wanted);
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "could not raise the limit of open files; it stays at {now}");
            now
        }
    }
}

/// Lowers the connection limits to what the limit of open files allows.
pub(super) fn fit(limits: Limits) -> Limits {
    let files = raise();
    let connections_max = fitting(files, limits.connections_max);
    let mut connections_per_address_max = limits.connections_per_address_max;
    if connections_max < limits.connections_max {
        // One address still gets at most half of the connections.
        connections_per_address_max = connections_per_address_max.min(connections_max.div_ceil(2));
        tracing::warn!(
            files,
            connections_max,
            "connections_max was lowered, because the process may open too few files; raise the \
             limit with ulimit -n, or LimitNOFILE of the service"
        );
    }
    Limits {
        connections_max,
        connections_per_address_max,
        ..limits
    }
}

fn fitting(files: u64, connections_max: usize) -> usize {
    let reserve = RESERVE_CONNECTIONS as u64;
    let free = files.saturating_sub(FILES_OF_OUR_OWN + reserve);
    let free = usize::try_from(free.max(CONNECTIONS_MIN)).unwrap_or(usize::MAX);
    connections_max.min(free)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn connections_leave_files_to_the_node() {
        assert_eq!(fitting(65_536, 1_024), 1_024);
        assert_eq!(fitting(1_024, 1_024), 640);
        assert_eq!(fitting(256, 1_024), 16);
        assert_eq!(fitting(u64::MAX, 4_096), 4_096);
    }
}
