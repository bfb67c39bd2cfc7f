//! Programs that must not outlive the test process.
//!
//! A test may be killed, and then no destructor runs. So a small shell sits beside each server and
//! reads from a pipe whose other end only the test process holds: when that process is gone, the
//! read ends, and the shell ends the server and removes its folder, with what is mounted in it. Invariant: the shell acts on a
//! process number only while the server is our child or is running, so never on a stranger.
//! (`PR_SET_PDEATHSIG` would be shorter, but fires when the *thread* that started the server ends,
//! and each test has a thread of its own.)

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// `$1`: the signal that ends the server. `$2`: its process. `$3`: its folder.
const WATCH: &str = r#"
trap '' HUP INT TERM
read -r _
kill -CONT "$2"
kill -"$1" "$2"
tries=0
while kill -0 "$2" && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$2"
while read -r _ at _; do
  case "$at" in "$3"/*) umount -l "$at" ;; esac
done </proc/mounts
rm -rf "$3"
"#;

/// Ends a server and removes its folder when the test process is gone. Does nothing once dropped.
#[derive(Debug)]
pub struct Watch {
    shell: Child,
}

impl Watch {
    /// Watches over the server with this process number, which is ended by `signal` (its name
    /// without `SIG`).
    ///
    /// # Panics
    /// If there is no `sh`.
    pub fn over(pid: u32, signal: &str, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", WATCH, "watch", signal])
            .arg(pid.to_string())
            .arg(folder);
        // A process group of its own, so that Ctrl-C leaves it to see to the end of the others;
        // and none of our output pipes, which a waiting reader would see open for too long.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let shell = command
            .spawn()
            .expect("every system that runs these tests has `sh`");
        Self { shell }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before its pipe is closed, or it would act.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A server that ends with the test: when it is dropped, or when the test process is gone.
#[derive(Debug)]
pub struct Process {
    child: Child,
    _watch: Watch,
}

impl Process {
    /// Starts a program in a process group of its own, with its output in a file. `folder` is
    /// removed if the test process does not live to do it.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn start(mut command: Command, output: File, folder: &Path) -> io::Result<Self> {
        let errors = output.try_clone()?;
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = command.spawn()?;
        let watch = Watch::over(child.id(), "KILL", folder);
        Ok(Self {
            child,
            _watch: watch,
        })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child of ours can be waited for")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child of ours takes signals");
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    pub fn kill9(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child
            .wait()
            .expect("a child of ours can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Whether a process of this number runs. A zombie, dead and not yet counted, does not.
pub fn is_running(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "state=", "-p"])
        .arg(pid.to_string())
        .output();
    let state = output
        .expect("every system that runs these tests has `ps`")
        .stdout;
    !state.trim_ascii().is_empty() && !state.trim_ascii_start().starts_with(b"Z")
}
