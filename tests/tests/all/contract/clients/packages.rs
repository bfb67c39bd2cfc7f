//! The packages that `clients/build` makes, installed into fresh folders without a network: they do
//! what a shop needs, their README programs run, and they repeat what has no answer.
//!
//! Deliberately absent: what the plain generated clients do (`clients`).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{run, schemas, tool, tools, write};
use crate::cli::program::{Server, folder};

const README_OUTPUT: &str = "version 1\nrefused order_not_approved\nitems 4200\n";

/// The sources of the packages.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

/// Makes the packages of a document.
fn build(document: &Path, into: &Path) {
    let mut build = Command::new(sources().join("build"));
    run(build
        .arg(document)
        .arg(into)
        .env("ANNALS_CONTRACT_TOOLS", tools()));
}

/// The file of a folder with this extension.
fn file_with(folder: &Path, extension: &str) -> PathBuf {
    let mut files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .find(|file| file.extension().is_some_and(|of_file| of_file == extension))
        .unwrap()
}

/// The program in a package's README: its first block of code in this language. It also stands in the
/// README of the repository.
fn program_of(readme: &Path, language: &str) -> String {
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, block) = text.split_once(&format!("```{language}\n")).unwrap();
    let program = block.split_once("```").unwrap().0.to_owned();
    let first_page = std::fs::read_to_string(sources().join("../README.md")).unwrap();
    assert!(first_page.contains(&program), "README.md: {language}");
    program
}

/// Installs the npm package into a folder, with its dependencies as packed from the tools.
fn install_npm(made: &Path) {
    let npm = |arguments: &[&str]| {
        let mut npm = tool("npm", made);
        npm.env("npm_config_cache", made.join("cache"))
            .args(arguments);
        npm.args(["--offline", "--ignore-scripts"]);
        npm
    };
    let dependencies = ["openapi-fetch", "openapi-typescript-helpers"];
    let packages = dependencies.map(|name| tools().join("node_modules").join(name));
    run(npm(&["pack"]).args(packages));
    let tarballs = std::fs::read_dir(made)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let tarballs = tarballs.filter(|file| file.extension().is_some_and(|of_file| of_file == "tgz"));
    run(npm(&["install", "--no-audit", "--no-fund"]).args(tarballs));
}

#[test]
fn the_typescript_package_does_all_that_a_shop_needs() {
    let made = folder();
    let made = made.path();
    let readme = program_of(&sources().join("typescript/README.md"), "ts");
    let readme = format!("declare const process: {{ argv: string[] }};\n{readme}");
    let mut settings: Value = serde_json::from_str(include_str!("tsconfig.json")).unwrap();
    settings["files"] = json!(["package.ts", "readme.ts"]);
    write(
        made,
        &[
            ("package.json", r#"{"type": "module"}"#),
            ("tsconfig.json", &settings.to_string()),
            ("package.ts", include_str!("package.ts")),
            ("readme.ts", &readme),
        ],
    );
    let test = "retry.test.mjs";
    std::fs::copy(
        sources().join("typescript/test").join(test),
        made.join(test),
    )
    .unwrap();
    build(&schemas().join("openapi.json"), made);
    install_npm(made);
    run(tool("tsc", made).args(["--project", "."]));
    run(tool("node", made).args(["--test", test]));
    let data = folder();
    let server = Server::dev(data.path());
    run(tool("node", made).args(["package.js", &server.url]));
    let said = run(tool("node", made).args(["readme.js", &server.url]));
    assert_eq!(said, README_OUTPUT);
}

#[test]
fn the_python_package_does_all_that_a_shop_needs() {
    let made = folder();
    let made = made.path();
    let readme = program_of(&sources().join("python/README.md"), "python");
    write(
        made,
        &[
            ("package.py", include_str!("package.py")),
            ("readme.py", &readme),
        ],
    );
    build(&schemas().join("openapi.json"), made);
    let python = install_wheel(made);
    let mut types = tool("mypy", made);
    types.args(["--strict", "--python-executable"]);
    run(types.arg(made.join("fresh/bin/python")).arg("readme.py"));
    let test = sources().join("python/test/test_retry.py");
    run(python().arg(test));
    let data = folder();
    let server = Server::dev(data.path());
    run(python().args(["package.py", &server.url]));
    let said = run(python().args(["readme.py", &server.url]));
    assert_eq!(said, README_OUTPUT);
}

/// Installs the wheel into a fresh environment that has the tools' libraries; returns its Python.
fn install_wheel(made: &Path) -> impl Fn() -> Command {
    let fresh = made.join("fresh/bin/python");
    run(tool("python", made).args(["-m", "venv", "--without-pip", "fresh"]));
    let mut pip = tool("python", made);
    pip.args(["-m", "pip", "--python"]).arg(&fresh);
    pip.args([
        "install",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
    ]);
    run(pip.arg(file_with(made, "whl")));
    let libraries = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let of_tools = run(tool("python", made).args(["-c", libraries]));
    let of_fresh = run(Command::new(&fresh).args(["-c", libraries]));
    std::fs::write(Path::new(of_fresh.trim()).join("tools.pth"), of_tools).unwrap();
    let made = made.to_owned();
    move || {
        let mut python = Command::new(&fresh);
        python.current_dir(&made).env_remove("PYTHONPATH");
        python
    }
}

#[test]
fn the_packages_of_another_domain_know_its_commands_and_its_refusals() {
    let made = folder();
    let made = made.path();
    let document = made.join("openapi.json");
    std::fs::write(&document, one_command().to_string()).unwrap();
    let program = include_str!("refusals.ts");
    write(
        made,
        &[
            ("package.json", r#"{"type": "module"}"#),
            (
                "tsconfig.json",
                &include_str!("tsconfig.json").replace("drive.ts", "refusals.ts"),
            ),
            ("refusals.ts", program),
        ],
    );
    build(&document, made);
    install_npm(made);
    run(tool("tsc", made).args(["--project", "."]));
    let python = install_wheel(made);
    let names = "import typing, annals_client as a; print(typing.get_args(a.CommandName))";
    let said = run(python().args(["-c", names]));
    assert_eq!(said, "('ShipOrder',)\n");
}

/// A document with one command.
fn one_command() -> Value {
    let text = std::fs::read_to_string(schemas().join("openapi.json")).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let paths = document["paths"].as_object_mut().unwrap();
    paths.retain(|path, operations| path.ends_with("/ShipOrder") || operations["post"].is_null());
    document
}
