//! The circumstances of a run; without them its figures mean nothing.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// For how long the disk is measured.
const DISK_TRIAL: Duration = Duration::from_secs(1);

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    /// When the run began.
    pub began: String,
    /// The measured commit, and whether the tree had changes.
    pub commit: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// The system's load when the run began.
    pub load: f64,
    /// How many small writes per second the disk made durable.
    pub fdatasync_per_second: f64,
    /// The versions of Kafka, Postgres and the compiler.
    pub versions: Vec<String>,
    /// The seed of what is written.
    pub seed: u64,
    /// Whether it is the short run.
    pub quick: bool,
}

impl Circumstances {
    /// The present circumstances.
    #[must_use]
    pub fn now(seed: u64, quick: bool) -> Self {
        Self {
            began: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            commit: said_by("git", &["describe", "--always", "--dirty"]),
            processors: processors(),
            load: load(),
            fdatasync_per_second: fdatasync_per_second(),
            versions: vec![
                tests::harness::kafka::version(),
                said_by("postgres", &["--version"]),
                said_by("rustc", &["--version"]),
            ],
            seed,
            quick,
        }
    }
}

/// How many processors this process may use; at least one.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The memory that this process uses now, in megabytes (its resident set).
///
/// # Panics
/// If the system does not tell; only Linux does.
#[must_use]
pub fn resident_mb() -> f64 {
    status_mb("self", "VmRSS:").expect("Linux")
}

/// The most memory that a process has had, in megabytes; absent if it has ended, or if the system does not
/// tell.
#[must_use]
pub fn peak_mb(pid: u32) -> Option<f64> {
    status_mb(&pid.to_string(), "VmHWM:")
}

fn status_mb(process: &str, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1_024.0)
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => format!("{program} unknown"),
    }
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn fdatasync_per_second() -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut file = File::create(folder.path().join("trial")).expect("a file in a folder of ours");
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < DISK_TRIAL {
        file.write_all(b"annals").expect("a file that takes bytes");
        file.sync_data().expect("a disk that answers");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
