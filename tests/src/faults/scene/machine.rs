//! Makes parts of the machine small or wrong for one process: memory, files, clock. A small disk is
//! among the harness (`harness::disk`).
//!
//! Most of this needs root; what is impossible reports why and is left out. Invariant: everything
//! is undone when its owner is dropped. Deliberately absent: when it happens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::unique_name;

const CGROUPS: &str = "/sys/fs/cgroup/memory";
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// A limit on the memory of a process and its children (a control group).
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    limit_mb: u32,
}

impl MemoryLimit {
    /// Makes a control group with this limit.
    ///
    /// # Errors
    /// If control groups cannot be written.
    pub fn make(limit_mb: u32) -> io::Result<Self> {
        let group = Path::new(CGROUPS).join(unique_name("annals"));
        fs::create_dir(&group)?;
        let limit = Self { group, limit_mb };
        limit.restore()?;
        Ok(limit)
    }

    /// A command that enters the control group and then runs the command that follows.
    #[must_use]
    pub fn command_before(&self) -> Vec<String> {
        let script = "echo $$ >\"$0\" && exec \"$@\"".to_owned();
        let list = self.group.join("cgroup.procs").display().to_string();
        vec!["sh".to_owned(), "-c".to_owned(), script, list]
    }

    /// Lowers the limit to half of the current use. The kernel reclaims what it can, and ends the
    /// process if that is not enough.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn squeeze(&self) -> io::Result<()> {
        let usage = fs::read_to_string(self.group.join("memory.usage_in_bytes"))?;
        let usage: u64 = usage.trim().parse().map_err(io::Error::other)?;
        // The kernel refuses a limit that it cannot reach by reclaiming, so go step by step.
        for tenths in [9, 8, 7, 6, 5] {
            let limit = usage * tenths / 10;
            let written = fs::write(self.group.join("memory.limit_in_bytes"), limit.to_string());
            if written.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Restores the original limit.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn restore(&self) -> io::Result<()> {
        fs::write(
            self.group.join("memory.limit_in_bytes"),
            format!("{}M", self.limit_mb),
        )
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The group stays while a process is in it; the process ends right after.
        let _ = fs::remove_dir(&self.group);
    }
}

/// A wall clock that can be set (`libfaketime`); the monotonic clock stays right.
#[derive(Debug)]
pub struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// Makes a clock that shows the right time.
    ///
    /// # Errors
    /// If the library is not installed.
    pub fn make(folder: &Path) -> io::Result<Self> {
        let library = FAKETIME.into_iter().find(|path| Path::new(path).exists());
        let library = library.ok_or_else(|| io::Error::other("libfaketime is not installed"))?;
        let clock = Self {
            library,
            file: folder.join("clock"),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// The environment variables that give a process this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            set("LD_PRELOAD", self.library),
            set("FAKETIME_TIMESTAMP_FILE", &self.file.display().to_string()),
            set("FAKETIME_CACHE_DURATION", "1"),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            set("DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Sets the clock ahead by this many seconds (behind, if negative); processes notice within a
    /// second.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn set(&self, ahead_seconds: i64) -> io::Result<()> {
        // Write a new file and rename it: half a number would be another time.
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("{ahead_seconds:+}\n"))?;
        fs::rename(whole, &self.file)
    }
}

/// How many files a process has open.
#[must_use]
pub fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64)
}

/// Limits the open files of a running process, and returns the limit before.
///
/// # Errors
/// Any error of the system.
pub fn limit_files(pid: u32, files: Option<u64>) -> io::Result<Option<u64>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: files,
        maximum: hard,
    };
    let before = prlimit(pid, Resource::Nofile, limit)?;
    Ok(before.current)
}
