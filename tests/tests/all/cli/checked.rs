//! `annals log dump` and `annals check-history`: compare a real log with the answers that clients
//! got.

use std::path::Path;

use serde_json::{Value, json};

use super::program::{Server, assert_exit, call, folder, stderr, stdout};

const ADDRESS: &str = r#"{"city":"sao paulo","state":"SP","postcode_prefix":"01310"}"#;

/// A line of a history about command `id` of `customer-1`.
fn line(at_ms: u64, id: &str, kind: &str, more: &Value) -> String {
    let mut line = json!({"at_ms": at_ms, "client": "c", "stream": "customer-1", "id": id,
                          "kind": kind});
    let line_members = line.as_object_mut().unwrap();
    line_members.extend(more.as_object().unwrap().clone());
    format!("{line}\n")
}

fn write(folder: &Path, name: &str, lines: &[String]) {
    std::fs::write(folder.join(name), lines.concat()).unwrap();
}

#[test]
fn a_history_is_checked_against_the_log_and_against_its_dump() {
    let folder = folder();
    let run = |arguments: &[&str]| call(folder.path(), arguments);
    assert_exit(&run(&["log", "create", "--partitions", "2"]), 0);
    let mut server = Server::start(folder.path(), &["serve", "--role", "command-api"]);
    let url = server.url.clone();
    let send = [
        "send",
        "customer-1",
        "RegisterCustomer",
        ADDRESS,
        "--id",
        "a",
    ];
    let sent = run(&[&send[..], &["--url", &url, "--output", "json"]].concat());
    assert_exit(&sent, 0);
    let answer: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert!(server.end(rustix::process::Signal::TERM).success());

    let data: Value = serde_json::from_str(ADDRESS).unwrap();
    let invoke = json!({"command": "RegisterCustomer", "data": data});
    let told = ["version", "events", "position", "repeated"];
    let told: serde_json::Map<String, Value> = told
        .map(|name| (name.to_owned(), answer[name].clone()))
        .into_iter()
        .collect();
    let true_lines = [
        line(1, "a", "invoke", &invoke),
        line(2, "a", "ok", &Value::Object(told.clone())),
    ];
    write(folder.path(), "true.jsonl", &true_lines);
    let mut lost = true_lines.to_vec();
    lost.push(line(3, "b", "invoke", &invoke));
    lost.push(line(4, "b", "ok", &Value::Object(told)));
    write(folder.path(), "lost.jsonl", &lost);

    let dumped = run(&["log", "dump"]);
    assert_exit(&dumped, 0);
    assert_eq!(stdout(&dumped).lines().count(), 1 + 2 + 2 + 1);
    std::fs::write(folder.path().join("log.ndjson"), &dumped.stdout).unwrap();
    for source in [&[][..], &["--dump", "log.ndjson"]] {
        let check = |history: &str| {
            let mut all = vec!["check-history", "--complete", "--output", "json"];
            all.extend(["--history", history]);
            all.extend(source);
            run(&all)
        };
        let kept = check("true.jsonl");
        assert_exit(&kept, 0);
        let report: Value = serde_json::from_slice(&kept.stdout).unwrap();
        assert_eq!(report["summary"]["accepted"], 1);
        assert_eq!(report["violations"], json!([]));
        let broken = check("lost.jsonl");
        assert_exit(&broken, 1);
        let report: Value = serde_json::from_slice(&broken.stdout).unwrap();
        assert_eq!(report["counts"], json!({"lost": 1}));
        assert!(stderr(&broken).contains("VIOLATION: lost: main/customer-1 command b"));
        assert_exit(&check("nowhere.jsonl"), 7);
    }
    let expected = ["--history", "lost.jsonl", "--expect-loss"];
    assert_exit(&run(&[&["check-history"], &expected[..]].concat()), 0);
    assert_exit(&run(&["check-history"]), 2);
}
