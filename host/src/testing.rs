//! A program that runs for a test: the real one, on a log and a Postgres of its own (feature
//! `testing`).
//!
//! Invariant: the drop ends the program in order, so that its Postgres ends, too, and nothing is left
//! behind. Deliberately absent: asking it anything; that is what clients do.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::schema::NO_SAMPLE;

/// Asserts that every command and event of `program` has a sample: an example that fits, from which
/// `schema` makes the file that later versions of the program must be able to read.
///
/// # Panics
/// If one is missing; the message names it.
pub fn assert_samples(program: impl AsRef<OsStr>) {
    let folder = tempfile::tempdir().expect("a folder for the schemas");
    let made = Command::new(program)
        .arg("schema")
        .arg(folder.path())
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&made.stderr);
    let missing = said.contains(NO_SAMPLE);
    assert!(made.status.success() && !missing, "{said}");
}

/// A running program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    url: String,
    data: TempDir,
}

impl Running {
    /// Starts `program dev` in a folder of its own, on a free port, and waits until it is ready. In
    /// an integration test `program` is `env!("CARGO_BIN_EXE_…")`.
    ///
    /// # Panics
    /// If the program does not start; it says why on stderr.
    #[must_use]
    pub fn dev(program: impl AsRef<OsStr>) -> Self {
        let data = tempfile::tempdir().expect("a folder for the log and Postgres");
        let mut child = Command::new(program)
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--output",
                "json",
                "--data",
            ])
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let ready: Value = match read {
            Ok(_) => serde_json::from_str(&line).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let Some(url) = ready.get("http").and_then(Value::as_str) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the program was not ready; it said on stdout: {line:?}");
        };
        Self {
            url: url.to_owned(),
            child,
            data,
        }
    }

    /// Where it listens, such as `http://127.0.0.1:41213`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its folder, with the log and Postgres.
    #[must_use]
    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to end.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
