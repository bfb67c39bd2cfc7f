//! The path of a stranger with a domain of their own: `annals new`, a build against the crates as they
//! would be published, the program, a command, a row, its tests. The shop is not in their program.
//!
//! A test binary of its own: it keeps all processors busy for minutes, which tests beside it would
//! feel. Deliberately absent: what the project's own tests prove (`examples/bank`).

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Not a name that is in the template, and one that is spelled differently as a crate.
const NAME: &str = "my-ledger";

/// The shop, and what only those need who develop Annals.
const NEVER: [&str; 9] = [
    "cli",
    "domain",
    "projections",
    "olist",
    "simulator",
    "model",
    "tests",
    "bench",
    "bank",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Where cargo has built this test: what is built there already is not built again.
fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let profile = exe.parent().and_then(Path::parent).unwrap();
    profile.parent().unwrap().to_owned()
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo
        .current_dir(folder)
        // The stranger's features are their own.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .env_remove("CARGO_UNSTABLE_FEATURE_UNIFICATION")
        .env("CARGO_TARGET_DIR", target());
    cargo
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout
}

/// The packages of the workspace that may be published.
fn published() -> Vec<String> {
    let metadata = done(cargo(&root()).args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    // An empty list of registries is `publish = false`.
    let is_published = |package: &&Value| package["publish"].is_null();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    packages.iter().filter(is_published).map(name).collect()
}

/// Packages the crates and unpacks them below `folder`: what a registry would give.
fn packaged(folder: &Path) -> Vec<(String, PathBuf)> {
    let names = published();
    let mut package = cargo(&root());
    package.args([
        "package",
        "--no-verify",
        "--allow-dirty",
        "--offline",
        "--target-dir",
    ]);
    package.arg(folder);
    for name in &names {
        package.args(["--package", name]);
    }
    done(&mut package);
    let version = env!("CARGO_PKG_VERSION");
    let unpacked = |name: String| {
        let file = folder.join(format!("package/{name}-{version}.crate"));
        done(
            Command::new("tar")
                .arg("-xzf")
                .arg(file)
                .arg("-C")
                .arg(folder),
        );
        let krate = folder.join(format!("{name}-{version}"));
        (name, krate)
    };
    names.into_iter().map(unpacked).collect()
}

/// Writes the project and makes it build on the packaged crates, with the workspace's versions of
/// everybody else's.
fn new_project(folder: &Path, crates: &[(String, PathBuf)]) -> PathBuf {
    let project = folder.join(NAME);
    let mut new = Command::new(env!("CARGO_BIN_EXE_annals-under-test"));
    done(new.args(["new", NAME, "--folder"]).arg(&project));
    let mut config = "[patch.crates-io]\n".to_owned();
    for (name, path) in crates {
        config.push_str(&format!("{name} = {{ path = {path:?} }}\n"));
    }
    // The project has libraries optimised; ours need not be, for this test.
    for (name, _) in crates {
        config.push_str(&format!("[profile.dev.package.{name}]\nopt-level = 0\n"));
    }
    fs::create_dir(project.join(".cargo")).unwrap();
    fs::write(project.join(".cargo/config.toml"), config).unwrap();
    fs::copy(root().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    project
}

/// Every help text of a program, by its command.
fn helps(program: &Path) -> Vec<(String, String)> {
    let help = |words: &[&str]| done(Command::new(program).args(words).arg("--help"));
    let subcommands = |help: &str| -> Vec<String> {
        let (_, rest) = help.split_once("\nCommands:\n").unwrap_or_default();
        let lines = rest.lines().take_while(|line| line.starts_with("  "));
        lines
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    };
    let whole = help(&[]);
    let mut helps = Vec::new();
    for command in subcommands(&whole) {
        let of_command = help(&[&command]);
        for below in subcommands(&of_command) {
            helps.push((format!("{command} {below}"), help(&[&command, &below])));
        }
        helps.push((command, of_command));
    }
    helps.push((String::new(), whole));
    helps
}

#[test]
fn a_stranger_gets_from_a_name_to_a_tested_program() {
    let folder = tempfile::tempdir().unwrap();
    let crates = packaged(&folder.path().join("crates"));
    assert!(crates.iter().any(|(name, _)| name == "annals"));
    let project = new_project(folder.path(), &crates);

    let tree = done(cargo(&project).args([
        "tree",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]));
    let linked: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(linked.contains(&"annals-engine"), "{tree}");
    for never in NEVER {
        assert!(!linked.contains(&never), "{NAME} links {never}");
    }

    done(cargo(&project).args(["fmt", "--check"]));
    done(cargo(&project).args(["build", "--offline"]));
    // Its tests start the program, send it commands and read the row.
    let tested = done(cargo(&project).args(["test", "--offline"]));
    for test in [
        "a_command_becomes_a_row ... ok",
        "an_account_is_never_overdrawn ... ok",
    ] {
        assert!(tested.contains(test), "{tested}");
    }

    let program = target().join("debug").join(NAME);
    let version = done(Command::new(&program).arg("--version"));
    let annals = env!("CARGO_PKG_VERSION");
    assert_eq!(version, format!("{NAME} 0.1.0 (annals {annals})\n"));
    let contract = folder.path().join("contract");
    done(Command::new(&program).arg("schema").arg(&contract));
    let document = fs::read_to_string(contract.join("openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["info"]["title"], NAME);
    let helps = helps(&program);
    assert!(helps.len() > 20, "{} help texts", helps.len());
    let commands: Vec<&str> = helps.iter().map(|(command, _)| command.as_str()).collect();
    for command in ["demo", "new", "simulate", "check-history", "import olist"] {
        assert!(!commands.contains(&command), "{NAME} has {command}");
    }
    for (command, help) in &helps {
        for foreign in commands.iter().filter(|command| !command.is_empty()) {
            let foreign = format!("annals {foreign} ");
            assert!(
                !help.contains(&foreign),
                "{NAME} {command} --help says: {foreign}"
            );
        }
        assert!(
            !help.contains("order-1"),
            "{NAME} {command} --help shows the shop"
        );
    }
    let send = helps.iter().find(|(command, _)| command == "send").unwrap();
    assert!(
        send.1.contains(&format!(
            "{NAME} send account-1 OpenAccount '{{\"owner\":7}}'"
        )),
        "{}",
        send.1
    );
    fs::remove_file(program).unwrap();
}
