//! The library's program from start to end: the same code as `annals`, with another domain.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lending");

/// A running program. Its drop ends it properly, so that its Postgres ends, too.
struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(PROGRAM)
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--output",
                "json",
                "--data",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url = ready["http"].as_str().unwrap().to_owned();
        Self { child, url }
    }

    fn send(&self, command: &str, data: &Value, at: &str) -> Output {
        let data = data.to_string();
        let arguments = [
            "send",
            "book-1",
            command,
            &data,
            "--occurred-at",
            at,
            "--output",
            "json",
        ];
        Command::new(PROGRAM)
            .args(arguments)
            .args(["--url", &self.url])
            .output()
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_library_runs_on_the_same_binary_code() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path());
    let loan = json!({"reader": 7, "due": "2030-01-31T12:00:00Z"});
    assert!(
        running
            .send("LendBook", &loan, "2030-01-01T12:00:00Z")
            .status
            .success()
    );
    // The book is lent already: the command is refused, and the exit code says so.
    let other = json!({"reader": 8, "due": "2030-01-31T12:00:00Z"});
    let refused = running.send("LendBook", &other, "2030-01-02T12:00:00Z");
    assert_eq!(refused.status.code(), Some(3));
    let returned = running.send("ReturnBook", &json!({}), "2030-02-01T12:00:00Z");
    let returned: Value = serde_json::from_slice(&returned.stdout).unwrap();
    let position = returned["position"].as_str().unwrap();
    let ask = format!("{}/v1/read/readers/7?min_position={position}", running.url);
    let reader: Value = reqwest::get(ask).await.unwrap().json().await.unwrap();
    let expected = json!({
        "reader": 7, "borrowed": 1, "returned": 1, "late": 1,
        "last_borrowed_at": "2030-01-01T12:00:00Z",
    });
    assert_eq!(reader, expected);
}
