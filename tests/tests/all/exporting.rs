//! Exports for analysts' own tools: they hold what the log holds, survive kills, and are held against
//! the log.

pub(crate) mod amounts;
mod models;
pub(crate) mod ocel;
mod resumed;
mod tampered;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::harness::logs::{Kind, NewLog};

use crate::cli::program::{annals, assert_exit, stdout};
use crate::projections::{log_of, shop_history};

/// A log with a shop's history, in one file.
async fn shop(orders: u32) -> NewLog {
    log_of(Kind::Sqlite, shop_history(11, orders)).await
}

/// A call of `annals export` in the log's folder.
fn export(log: &NewLog, arguments: &[&str]) -> Command {
    let mut command = annals(log.folder.path());
    let address = log.address.to_string();
    command
        .arg("export")
        .args(arguments)
        .args(["--log", &address]);
    command.args(["--output", "json"]);
    command
}

/// Exports; returns the summary.
fn exported(log: &NewLog, arguments: &[&str]) -> Value {
    let output = export(log, arguments).output().unwrap();
    assert_exit(&output, 0);
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// What verification finds, one text for each finding; the exit code must be `code`.
fn findings(log: &NewLog, folder: &str, code: i32) -> Vec<String> {
    let output = export(log, &["verify", folder]).output().unwrap();
    assert_exit(&output, code);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = found["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let file = finding["file"].as_str().unwrap_or("-");
            let place = |name: &str| finding[name].as_u64().map_or("-".into(), |n| n.to_string());
            let what = finding["what"].as_str().unwrap();
            format!(
                "{file} {} {}: {what}",
                place("partition"),
                place("position")
            )
        })
        .collect()
}

/// The files of an export with their bytes, by their path in its folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(inner) = waiting.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            files.push((path.strip_prefix(folder).unwrap().to_owned(), bytes));
        }
    }
    files.sort();
    files
}
