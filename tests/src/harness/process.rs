//! Programs that must not outlive the test process.
//!
//! A test may be killed, and then no destructor runs. So a small shell runs beside each server and
//! reads from a pipe whose other end only the test process holds. When the test process is gone,
//! the read ends; the shell then ends the server, unmounts what is mounted in the server's folder,
//! and removes the folder. Invariant: the shell signals a process id only while the server is our
//! child or is running, so never a stranger. (`PR_SET_PDEATHSIG` would be shorter, but it fires
//! when the *thread* that started the server ends, and each test has a thread of its own.)

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// `$1`: the signal that ends the server. `$2`: its process id. `$3`: its folder.
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

/// Ends a server and removes its folder when the test process is gone. After a drop, does nothing.
#[derive(Debug)]
pub struct Watch {
    shell: Child,
}

impl Watch {
    /// Watches over the server with this process id; `signal` (its name without `SIG`) ends the
    /// server.
    ///
    /// # Panics
    /// If there is no `sh`.
    pub fn over(pid: u32, signal: &str, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", WATCH, "watch", signal])
            .arg(pid.to_string())
            .arg(folder);
        // In a process group of its own, the shell survives Ctrl-C and can end the other processes.
        // It gets none of our output pipes: a reader would see them open for too long.
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
        // Kill the shell before its pipe is closed; otherwise it would end the server.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A server that ends with the test: on drop, or when the test process is gone.
#[derive(Debug)]
pub struct Process {
    child: Child,
    _watch: Watch,
}

impl Process {
    /// Starts a program in a process group of its own, with its output in a file. `folder` is
    /// removed if the test process ends without removing it.
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

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child of ours can be waited for")
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child of ours takes signals");
    }

    /// Kills the process as `kill -9` does, and returns when it is gone.
    pub fn kill9(&mut self) {
        // The process may have ended already.
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

/// Whether a process with this id runs; a zombie does not count.
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
