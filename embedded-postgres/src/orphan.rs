//! A server that outlived the `annals` that started it, and the `postmaster.pid` it left.
//!
//! Invariant: no process is signalled unless its command line names this cluster, because the
//! process id in an old file may belong to any process by now. The file is never deleted: it also
//! holds the key by which Postgres finds out whether processes of a killed server still use its
//! memory.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::Error;

const STOP_TIMEOUT_SECONDS: u64 = 15;
const STOP_POLL_MS: u64 = 5;

/// What a running server says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) ready: bool,
}

impl PidFile {
    /// Reads `postmaster.pid`; `None` if there is none, or if it is incomplete.
    pub(super) fn read(cluster: &Path) -> Result<Option<Self>, Error> {
        let path = pid_file(cluster);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Line 1 is the process id, line 8 the status, padded with spaces.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let ready = lines.nth(6).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid, ready })
    }
}

/// Stops a server that still runs on this cluster, and makes a stale `postmaster.pid` harmless.
///
/// The old server is stopped, not adopted. That takes a tenth of a second. The new server is a
/// child, so this process sees its end, and it has the current settings.
pub(super) fn stop(cluster: &Path) -> Result<(), Error> {
    let Some(PidFile { pid, .. }) = PidFile::read(cluster)? else {
        return Ok(());
    };
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    if !serves(process, cluster) {
        if test_kill_process(process).is_ok() {
            disown(cluster)?;
        }
        return Ok(());
    }
    tracing::info!(
        pid,
        "stopping the private Postgres that an earlier run left behind"
    );
    for signal in [Signal::INT, Signal::QUIT] {
        // It may have ended on its own by now; the loop below sees that.
        let _ = kill_process(process, signal);
        let deadline = Instant::now() + Duration::from_secs(STOP_TIMEOUT_SECONDS);
        while Instant::now() < deadline {
            if !serves(process, cluster) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(STOP_POLL_MS));
        }
    }
    Err(Error::OrphanStays { pid })
}

/// Handles a process id that another program has got since the server was killed. Postgres would
/// take that program for a live server and refuse to start. But Postgres knows that its own parent
/// is not a server: so this process's id is written into the file. The rest of the file stays, see
/// the header. A server that was about to end has removed the file; then nothing is left to do.
fn disown(cluster: &Path) -> Result<(), Error> {
    let path = pid_file(cluster);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(&path, format!("{}\n{rest}", std::process::id())).map_err(Error::io("write", &path))
}

fn pid_file(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Whether the process runs and its command line names the cluster. A zombie has no command line.
fn serves(process: Pid, cluster: &Path) -> bool {
    let pid = process.as_raw_nonzero();
    let command_line = if Path::new("/proc/self/cmdline").exists() {
        fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
    } else {
        let mut ps = Command::new("ps");
        ps.args(["-ww", "-o", "command=", "-p"])
            .arg(pid.to_string());
        ps.output().map(|output| output.stdout).unwrap_or_default()
    };
    let cluster = cluster.as_os_str().as_bytes();
    command_line
        .windows(cluster.len())
        .any(|window| window == cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_process_and_the_status() {
        let text = "4711\n/data\n1758\n5433\n\n127.0.0.1\n  5433001   32768\nready   \n";
        assert_eq!(
            PidFile::parse(text),
            Some(PidFile {
                pid: 4711,
                ready: true
            })
        );
        let text = "4711\n/data\n1758\n5433\n\n127.0.0.1\n  5433001   32768\nstarting\n";
        assert_eq!(
            PidFile::parse(text),
            Some(PidFile {
                pid: 4711,
                ready: false
            })
        );
        assert_eq!(
            PidFile::parse("4711\n"),
            Some(PidFile {
                pid: 4711,
                ready: false
            })
        );
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn a_server_that_ended_meanwhile_leaves_nothing_to_disown() {
        let cluster = tempfile::tempdir().expect("a folder");
        disown(cluster.path()).expect("no file is no failure");
        assert!(!pid_file(cluster.path()).exists());
    }

    #[test]
    fn does_not_take_a_stranger_for_a_server() {
        let ours = Pid::from_raw(std::process::id().cast_signed()).expect("we have a number");
        assert!(!serves(ours, Path::new("/nowhere/annals/data")));
    }
}
