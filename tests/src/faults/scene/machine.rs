//! Makes parts of the machine small or wrong for one process: disk, memory, files, clock.
//!
//! Most of this needs root; what is impossible reports why and is left out. Invariant: everything
//! is undone when its owner is dropped. Deliberately absent: when it happens.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::unique_name;

const CGROUPS: &str = "/sys/fs/cgroup/memory";
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
const FILL_BYTES: usize = 64 * 1024;

/// A small disk in memory (`tmpfs`).
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size on a folder.
    ///
    /// # Errors
    /// Any error of the system; for a user other than root there is always one.
    pub fn mount(folder: &Path, size_mb: u32) -> io::Result<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size_mb}m"))
            .arg("annals")
            .arg(folder);
        run(&mut mount)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Fills the disk to the last byte.
    ///
    /// # Errors
    /// Any error of the system, except that the disk is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = fs::File::create(self.ballast())?;
        let zeros = vec![0; FILL_BYTES];
        for size in [FILL_BYTES, 1] {
            loop {
                match file.write_all(&zeros[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Frees the room again.
    pub fn clear(&self) {
        // If nothing was filled, there is no file.
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Unmount lazily: a process that is about to end may still have files open there.
        let _ = run(Command::new("umount").arg("-l").arg(&self.folder));
    }
}

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

pub(super) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}
