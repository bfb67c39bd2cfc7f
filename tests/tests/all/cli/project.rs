//! The workflow of a new project: the step that compares its messages with those of the commit before.
//!
//! The step runs as it stands in the template, in a repository of its own; the program is the shop.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::program::{call, folder, program};

const WORKFLOW: &str = include_str!("../../../../cli/template/ci.yml");
const STEP: &str = "Old events can be read";

/// The script of the step.
fn script() -> String {
    let (_, step) = WORKFLOW.split_once(STEP).unwrap();
    let (_, script) = step.split_once("run: |\n").unwrap();
    let lines = script
        .lines()
        .map(|line| line.strip_prefix("          ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn git(folder: &Path, words: &[&str]) -> String {
    let git = Command::new("git")
        .args(["-c", "user.name=ann", "-c", "user.email=ann@example.com"])
        .args(words)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(git.status.success(), "{words:?}: {git:?}");
    String::from_utf8(git.stdout).unwrap().trim().to_owned()
}

/// Commits everything; the commit's id.
fn commit(folder: &Path) -> String {
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "--quiet", "--message", "a change"]);
    git(folder, &["rev-parse", "HEAD"])
}

/// Runs the step after `base`.
fn run(folder: &Path, tools: &Path, base: &str) -> Output {
    let temp = tools.join(format!("temp-{base}"));
    fs::create_dir_all(&temp).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    // As GitHub runs a script.
    program("bash", folder)
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script()])
        .env("PATH", path)
        .env("RUNNER_TEMP", temp)
        .env("BASE", base)
        .output()
        .unwrap()
}

#[test]
fn the_workflow_of_a_project_fails_for_a_change_that_cannot_read_old_events() {
    let (project, tools) = (folder(), folder());
    let (project, tools) = (project.path(), tools.path());
    // The program is built already.
    let cargo = tools.join("cargo");
    let annals = env!("CARGO_BIN_EXE_annals-under-test");
    let text = format!("#!/bin/sh\nshift 2\nexec '{annals}' \"$@\"\n");
    fs::write(&cargo, text).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    git(project, &["init", "--quiet"]);
    fs::write(project.join("README.md"), "a project").unwrap();
    let before = commit(project);
    assert!(call(project, &["schema", "schemas"]).status.success());
    let first = commit(project);
    // The first schemas have no base, and neither has a branch that is new.
    for base in [&*before, &first, &"0".repeat(40)] {
        let done = run(project, tools, base);
        assert!(done.status.success(), "{base}: {done:?}");
    }
    // A base whose event had another shape under the same number.
    let path = project.join("schemas/events/order/OrderApproved.v1.json");
    let current = fs::read_to_string(&path).unwrap();
    let mut schema: Value = serde_json::from_str(&current).unwrap();
    schema["properties"]["by"] = serde_json::json!({"type": "string"});
    schema["required"] = serde_json::json!(["by"]);
    fs::write(&path, schema.to_string()).unwrap();
    let other = commit(project);
    let stale = run(project, tools, &first);
    assert!(!stale.status.success(), "they are not current: {stale:?}");
    let rewritten = fs::read_to_string(&path).unwrap();
    assert_eq!(rewritten, current);
    commit(project);
    let broken = run(project, tools, &other);
    let said = String::from_utf8_lossy(&broken.stdout);
    assert!(
        !broken.status.success() && said.contains("OrderApproved"),
        "{broken:?}"
    );
}
