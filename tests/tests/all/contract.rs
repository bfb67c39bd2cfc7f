//! The contract as the tools of others read it: linters of the OpenAPI document, strict validators of
//! the JSON Schemas, clients that generators make from the document, and the page in a browser.
//!
//! Invariant: what is linted, generated and driven is the document that the real program serves.
//! Deliberately absent: what the doors answer (`command_door`, `query_door`). `ops/setup`, which `make
//! test` calls, installs the tools.

mod changes;
mod clients;
mod docs_page;
mod lint;
mod topic;

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use docs_page::chromium;

/// The folder with the tools.
pub(crate) fn tools() -> PathBuf {
    std::env::var_os("ANNALS_CONTRACT_TOOLS")
        .expect(
            "ANNALS_CONTRACT_TOOLS names the contract's tools: run `make test`, or `eval \
             \"$(ops/setup --print-env)\"` after `ops/setup`",
        )
        .into()
}

/// A tool, or a program of this machine, to be run in `folder`.
pub(crate) fn tool(name: &str, folder: &Path) -> Command {
    let tools = tools();
    let npm = tools.join("node_modules/.bin").join(name);
    let path = std::env::var("PATH").unwrap_or_default();
    let here = [npm, tools.join("bin").join(name)];
    let program = here.into_iter().find(|program| program.exists());
    let mut command = Command::new(program.unwrap_or_else(|| name.into()));
    command
        .current_dir(folder)
        // Node.js is among the tools.
        .env("PATH", format!("{}:{path}", tools.join("bin").display()))
        .env("NO_COLOR", "1");
    command
}

/// Runs a command, and returns what it said, also on stderr.
///
/// # Panics
/// If it fails, with what it said.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}\n{failed}");
    format!("{said}{failed}")
}

/// The committed schemas, which another test compares with those of the program.
fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}
