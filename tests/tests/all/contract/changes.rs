//! What changed in the contract since the last release: a breaking change needs a line with its reason.
//!
//! Invariant: each kind of change is seen as what it is; changes made on purpose show it. Deliberately
//! absent: what oasdiff knows (`ops/contract/changes`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{run, schemas, tool, tools};
use crate::cli::program::folder;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/contract/changes")
}

/// The script's call for two folders.
fn changes(new: &Path, released: &Path) -> Command {
    let mut python = tool("python", &tools());
    python.arg(script()).arg(new).arg(released);
    python.env("ANNALS_CONTRACT_TOOLS", tools());
    python
}

#[test]
fn the_contract_breaks_nothing_that_was_released_without_saying_so() {
    run(&mut changes(
        &schemas(),
        &script().parent().unwrap().join("released"),
    ));
}

#[test]
fn each_kind_of_change_is_seen_as_what_it_is() {
    let mutations = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/contract/mutations.py");
    let mut python = tool("python", &tools());
    python
        .arg(mutations)
        .arg(script())
        .arg(schemas())
        .env("ANNALS_CONTRACT_TOOLS", tools());
    assert_eq!(run(&mut python), "34 7 2\n");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_breaking_change_needs_a_line_and_a_line_needs_a_change() {
    let made = folder();
    let released = made.path().join("released");
    copy(&schemas(), &released);
    let document = released.join("openapi.json");
    let present = std::fs::read_to_string(&document).unwrap();
    // The released contract had a command that is gone.
    let path = "/v1/streams/{stream}/ShipOrder";
    let before = present.replace(path, "/v1/streams/{stream}/SendOrder");
    assert_ne!(before, present);
    std::fs::write(&document, &before).unwrap();
    let ends = |code: i32| -> Output {
        let output = changes(&schemas(), &released).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        output
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let refused = ends(1);
    let said = text(&refused.stdout);
    assert!(said.contains("breaking: api-path-removed"), "{said}");
    assert!(said.contains("compatible: endpoint-added"), "{said}");
    let lines = text(&refused.stderr);
    let lines: Vec<_> = lines
        .lines()
        .filter(|line| line.starts_with("- "))
        .collect();
    assert!(!lines.is_empty(), "{refused:?}");
    let listed = released.join("breaking.md");
    let reasons: String = lines
        .iter()
        .map(|line| format!("{line}\n  It has another name.\n"))
        .collect();
    std::fs::write(&listed, reasons).unwrap();
    ends(0);
    std::fs::write(&document, &present).unwrap();
    let stale = ends(1);
    assert!(
        text(&stale.stderr).contains("but no such change"),
        "{stale:?}"
    );
}
