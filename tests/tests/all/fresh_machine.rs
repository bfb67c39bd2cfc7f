//! `ops/setup` installs every program that tests, the demo and README call on a fresh machine.
//! `ops/fresh-machine` shows that on a bare Debian; it is run by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// Programs of every Debian, even the smallest: their packages are marked essential.
const ESSENTIAL: [&str; 15] = [
    "bash", "cat", "chroot", "cut", "grep", "head", "id", "sed", "sh", "sleep", "sort", "tail",
    "tar", "true", "umount",
];

/// Programs that come with a package that `ops/setup` names otherwise.
const COMES_WITH: [(&str, &str); 1] = [("pg_config", "postgres")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The programs that Rust code starts by a literal name.
fn started() -> BTreeSet<String> {
    let pattern = Regex::new(r#"Command::new\("([^"/]+)"\)"#).unwrap();
    let folders = [
        "cli/src",
        "host/src",
        "tests/src",
        "tests/tests",
        "examples",
    ];
    let files = folders
        .iter()
        .flat_map(|folder| sources(&root().join(folder)));
    let mut programs = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        programs.extend(
            pattern
                .captures_iter(&text)
                .map(|found| found[1].to_owned()),
        );
    }
    programs
}

/// The programs in the commands of README's tour: the first word, and the first word after each
/// pipe.
fn toured() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let command = Regex::new(r"(?m)(?:^\$ |\|\s+)([a-z][a-z0-9_-]*) ").unwrap();
    let mut programs = BTreeSet::new();
    let mut rest = text.as_str();
    while let Some(begin) = rest.find("```console\n") {
        let block = &rest[begin + 11..];
        let end = block.find("```\n").unwrap();
        programs.extend(
            command
                .captures_iter(&block[..end])
                .map(|found| found[1].to_owned()),
        );
        rest = &block[end..];
    }
    programs
}

#[test]
fn setup_installs_every_program_that_tests_and_readme_call() {
    let setup = fs::read_to_string(root().join("ops/setup")).unwrap();
    let words: Vec<&str> = setup.split([' ', '\n', ';']).collect();
    let in_loop = setup
        .lines()
        .find(|line| line.contains("for program in gcc"));
    let in_loop = in_loop.expect("the loop over what a compiler needs");
    let is_brought = |program: &str| {
        let with = COMES_WITH.iter().find(|(name, _)| *name == program);
        let program = with.map_or(program, |(_, with)| with);
        let asked = words.windows(2).any(|pair| pair == ["have", program]);
        ESSENTIAL.contains(&program) || asked || in_loop.contains(program)
    };
    let called: BTreeSet<_> = started().into_iter().chain(toured()).collect();
    for program in ["curl", "python3", "ps", "openssl", "ip"] {
        assert!(called.contains(program), "{program} of {called:?}");
    }
    let missing: Vec<_> = called.iter().filter(|name| !is_brought(name)).collect();
    assert!(missing.is_empty(), "ops/setup does not install {missing:?}");
}

/// `make demo` starts the program with them.
#[test]
fn the_program_takes_no_variable_of_setup_for_a_setting() {
    let mut setup = Command::new("bash");
    let setup = setup.arg(root().join("ops/setup")).arg("--print-env");
    let printed = String::from_utf8(setup.output().unwrap().stdout).unwrap();
    let name = Regex::new(r"(?m)^export (ANNALS_[A-Z_]+)=").unwrap();
    let names: Vec<_> = name
        .captures_iter(&printed)
        .map(|found| found[1].to_owned())
        .collect();
    assert!(names.len() > 5, "{printed}");
    let folder = crate::cli::program::folder();
    let mut config = crate::cli::program::annals(folder.path());
    let config = config
        .arg("config")
        .envs(names.iter().map(|name| (name, "x")));
    let output = config.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_scripts_in_ops_are_in_order() {
    for script in ["setup", "fresh-machine", "release"] {
        let path = root().join("ops").join(script);
        let output = Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("set -euo pipefail"), "{script}");
    }
}
