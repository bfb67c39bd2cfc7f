//! `annals generate`: a history of any size, into a file, through a pipe, or into a server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::program::{Server, annals, assert_exit, call, folder, stderr, stdout};

/// How much more memory a history thirty times as long may take.
const MORE_KB_MAX: u64 = 8 * 1024;

#[test]
fn the_same_lines_come_into_a_file_and_out_of_a_pipe() {
    let folder = folder();
    let wanted = ["generate", "--seed", "7", "--events", "300"];
    let file = [&wanted[..], &["--out", "history"]].concat();
    let piped = [&wanted[..], &["--out", "-"]].concat();
    let written = call(folder.path(), &file);
    assert_exit(&written, 0);
    assert!(
        stderr(&written).contains("commands, of which"),
        "{written:?}"
    );
    let piped = stdout(&call(folder.path(), &piped));
    assert_eq!(
        fs::read_to_string(folder.path().join("history")).unwrap(),
        piped
    );
    assert!(piped.lines().count() >= 300);
    for wrong in [["--from", "2024-02-30"], ["--days", "0"], ["--events", "0"]] {
        assert_exit(&call(folder.path(), &[&wanted[..3], &wrong].concat()), 2);
    }
}

#[test]
fn memory_does_not_grow_with_the_history() {
    let folder = folder();
    let (short, long) = (
        peak_kb(folder.path(), 5_000),
        peak_kb(folder.path(), 150_000),
    );
    assert!(long < short + MORE_KB_MAX, "{short} kB, then {long} kB");
}

/// The most memory that the program had until it was about to write its last lines.
fn peak_kb(folder: &Path, events: usize) -> u64 {
    let mut command = annals(folder);
    command.args(["generate", "--seed", "7", "--out", "-", "--events"]);
    command.arg(events.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut program = command.spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    // It still has more lines than the pipe can hold, so it waits.
    assert_eq!(
        lines.by_ref().take(events * 9 / 10).count(),
        events * 9 / 10
    );
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB").parse();
    assert!(lines.count() >= events / 10);
    assert!(program.wait().unwrap().success());
    peak.unwrap()
}

#[test]
fn a_server_answers_as_declared_and_a_repetition_changes_nothing() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let send = |seed: &str, more: &[&str]| {
        let wanted = [
            "generate", "--seed", seed, "--events", "1500", "--output", "json",
        ];
        let through = ["--url", &server.url];
        call(folder.path(), &[&wanted[..], &through, more].concat())
    };
    let report = |output: &std::process::Output| -> Value {
        assert_exit(output, 0);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = report(&send("7", &[]));
    assert!(first["total"]["accepted"].as_u64().unwrap() >= 1_500);
    assert!(first["total"]["refused"].as_u64().unwrap() > 0);
    let records = || {
        let verified = call(folder.path(), &["log", "info", "--output", "json"]);
        stdout(&verified)
    };
    let before = records();
    let again = report(&send("7", &[]));
    assert_eq!(again["total"], first["total"]);
    assert_eq!(again["refused"], first["refused"]);
    assert_eq!(records(), before);
    // Commands that are refused because of something that was sent by hand are noticed.
    let lines = call(
        folder.path(),
        &["generate", "--seed", "8", "--events", "1500", "--out", "-"],
    );
    let lines = stdout(&lines);
    let begin = lines
        .lines()
        .find(|line| line.contains("RegisterCustomer"))
        .unwrap();
    let begin: Value = serde_json::from_str(begin).unwrap();
    let (stream, data) = (begin["stream"].as_str().unwrap(), begin["data"].to_string());
    let by_hand = [
        "send",
        stream,
        "RegisterCustomer",
        &data,
        "--url",
        &server.url,
    ];
    assert_exit(&call(folder.path(), &by_hand), 0);
    let other = send("8", &[]);
    assert_exit(&other, 3);
    assert!(
        stderr(&other).contains("commands were accepted, not"),
        "{other:?}"
    );
}
