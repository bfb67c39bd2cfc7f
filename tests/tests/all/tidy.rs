//! The code keeps its order: crates depend on each other along the arrows of the design, libraries
//! are used only where they belong, and every source file describes itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates of the workspace, each with the crates that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("position", &[]),
    // The checker judges the engine, so it uses no code of the engine.
    ("checker", &[]),
    ("domain", &["kernel"]),
    ("spans", &[]),
    ("door", &["kernel", "spans"]),
    ("event-log", &["kernel", "position"]),
    ("engine", &["event-log", "kernel", "position"]),
    (
        "command-api",
        &["door", "engine", "event-log", "kernel", "position", "spans"],
    ),
    ("projector", &["event-log", "kernel", "position", "spans"]),
    ("projections", &["domain", "kernel", "projector"]),
    (
        "query-api",
        &["door", "event-log", "kernel", "position", "projector"],
    ),
    ("admin-api", &["door", "event-log", "kernel", "projector"]),
    // Pages for people; it knows neither wing.
    ("console", &["door", "kernel"]),
    // A library for any program: it links neither the log nor a door.
    ("client", &["kernel", "position"]),
    ("import", &["client", "kernel", "position"]),
    ("olist", &["client", "domain", "import", "kernel"]),
    ("embedded-postgres", &[]),
    ("cluster-trial", &["event-log", "kernel", "position"]),
    ("export", &["event-log", "kernel", "position", "projector"]),
    // These run the unchanged engine in a simulated world.
    ("simulator", &["engine", "event-log", "kernel", "position"]),
    ("model", &["engine", "event-log", "kernel", "position"]),
    // What every program can do, whatever its domain.
    (
        "host",
        &[
            "admin-api",
            "checker",
            "cluster-trial",
            "client",
            "command-api",
            "console",
            "door",
            "embedded-postgres",
            "engine",
            "event-log",
            "export",
            "import",
            "kernel",
            "position",
            "projector",
            "query-api",
            "spans",
        ],
    ),
    // What other people's programs depend on.
    ("annals", &["client", "host", "kernel", "projector"]),
    // The shop's program, and the tools of those who develop the engine.
    (
        "cli",
        &[
            "checker",
            "client",
            "domain",
            "host",
            "import",
            "kernel",
            "olist",
            "projections",
            "simulator",
        ],
    ),
    // Foreign domains with programs of their own: they do not know ours.
    ("bank", &["annals"]),
    ("cqrs", &["annals"]),
    ("lending", &["annals"]),
    (
        "tests",
        &[
            "admin-api",
            "cli",
            "host",
            "olist",
            "checker",
            "cluster-trial",
            "client",
            "command-api",
            "console",
            "domain",
            "door",
            "embedded-postgres",
            "engine",
            "event-log",
            "import",
            "kernel",
            "position",
            "projections",
            "projector",
            "query-api",
        ],
    ),
    (
        "bench",
        &[
            "client",
            "import",
            "olist",
            "embedded-postgres",
            "command-api",
            "domain",
            "door",
            "engine",
            "event-log",
            "kernel",
            "lending",
            "position",
            "projections",
            "projector",
            "tests",
        ],
    ),
    (
        "guards",
        &[
            "command-api",
            "domain",
            "door",
            "engine",
            "event-log",
            "kernel",
            "position",
            "projections",
            "projector",
        ],
    ),
];

/// Crates that show read models and must not be able to write to the log.
const READ_WING: [&str; 4] = ["projections", "query-api", "admin-api", "export"];
/// What only the write side needs: its crates, and the library of the owner's store.
const WRITE_WING: [&str; 3] = ["engine", "command-api", "fjall"];

/// A word that may be used only below these paths; if it is a library, only these crates depend on
/// it.
struct Belongs {
    word: &'static str,
    to: &'static [&'static str],
}

const BELONGINGS: [Belongs; 5] = [
    Belongs {
        word: "rdkafka",
        to: &["event-log/src/log/kafka/", "tests/", "bench/"],
    },
    Belongs {
        word: "rdkafka_sys",
        to: &["event-log/src/log/kafka/", "tests/", "bench/"],
    },
    Belongs {
        word: "sqlx",
        to: &[
            "event-log/src/log/sqlite/",
            "projector/",
            "query-api/",
            "export/",
            // Reads the checkpoints of any projection for an audit.
            "host/src/command/known.rs",
            "host/src/command/rules/states.rs",
            "examples/lending/src/periods.rs",
            "tests/",
            "bench/",
        ],
    },
    Belongs {
        word: "axum",
        to: &[
            "door/",
            "command-api/",
            "query-api/",
            "admin-api/",
            "console/",
            "host/",
            // A door to test the client with.
            "client/src/tests.rs",
            "client/src/batch/tests.rs",
            // A node of canned answers, for the console.
            "tests/tests/all/console/",
            // The raw routes with which the doors are compared.
            "bench/src/rows/http.rs",
            "bench/src/rows/query.rs",
            "bench/guards/",
        ],
    },
    Belongs {
        word: "domain",
        to: &[
            "domain/",
            "projections/",
            "olist/",
            "cli/",
            "tests/",
            "bench/",
        ],
    },
];

const LINES_MAX: usize = 600;

/// Files that may be longer for now, each with its reason.
const LONG: [(&str, &str); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The packages of the workspace, as cargo sees them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The name of a package in this design: without the prefix under which it is published.
fn short(package: &str) -> &str {
    package.strip_prefix("annals-").unwrap_or(package)
}

/// The direct dependencies of each package, for building and for testing.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let name = |value: &Value| short(value["name"].as_str().unwrap()).to_owned();
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies.iter().map(name).collect()
    };
    packages()
        .iter()
        .map(|package| (name(package), of(package)))
        .collect()
}

/// Where a package's sources are, from the root.
fn folders() -> BTreeMap<String, String> {
    let root = root().canonicalize().unwrap();
    let folder = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap().canonicalize().unwrap();
        let folder = folder.strip_prefix(&root).unwrap();
        (
            short(package["name"].as_str().unwrap()).to_owned(),
            format!("{}/", folder.to_str().unwrap()),
        )
    };
    packages().iter().map(folder).collect()
}

/// Every source file of the workspace: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut waiting: Vec<PathBuf> = folders().values().map(|f| root().join(f)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_hidden = path.file_name().unwrap().to_str().unwrap().starts_with('.');
            if path.is_dir() && !is_hidden && !path.ends_with("target") {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
                sources.push((name.to_owned(), text));
            }
        }
    }
    assert!(sources.len() > 100, "{} sources", sources.len());
    sources
}

/// A line without its comment. If a string in the line holds `//`, the rest of the line is lost
/// too; that does no harm.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether a line uses a crate: the crate's name as a whole word, followed by a path, or imported
/// as a whole.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        let is_root = !before.ends_with("::") && !before.ends_with('.');
        let is_use = before.trim_end().ends_with("use") && after.starts_with([';', ' ']);
        is_whole && is_root && (after.starts_with("::") || is_use)
    })
}

fn arrow_faults(dependencies: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut faults = Vec::new();
    for (package, uses) in dependencies {
        let Some(allowed) = arrows.get(package.as_str()) else {
            faults.push(format!("{package} is not in the design"));
            continue;
        };
        for used in uses
            .iter()
            .filter(|used| arrows.contains_key(used.as_str()))
        {
            // A crate's tests may use it with further features.
            if !allowed.contains(&used.as_str()) {
                faults.push(format!("{package} must not use {used}"));
            }
        }
    }
    faults
}

fn library_faults(
    dependencies: &BTreeMap<String, BTreeSet<String>>,
    folders: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for Belongs { word, to } in BELONGINGS {
        for (package, uses) in dependencies {
            let folder = folders[package].as_str();
            let may = to
                .iter()
                .any(|place| place.starts_with(folder) || folder.starts_with(place));
            if uses.contains(&word.replace('_', "-")) && !may {
                faults.push(format!("{package} must not depend on {word}"));
            }
        }
    }
    faults
}

fn source_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: &str| faults.push(format!("{path}:{line}: {what}"));
    if !text.starts_with("//! ") {
        fault(1, "does not open with what lives here");
    }
    let (count, is_listed) = (text.lines().count(), LONG.iter().any(|long| long.0 == path));
    if count > LINES_MAX && !is_listed {
        fault(count, "is too long to be read in one go");
    }
    if count <= LINES_MAX && is_listed {
        fault(count, "is no longer too long: take it off the list");
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = code(line);
        for Belongs { word, to } in BELONGINGS {
            if names(line, word) && !to.iter().any(|place| path.starts_with(place)) {
                fault(number, &format!("{word} does not belong here"));
            }
        }
        // Split in two, so that this file does not contain them.
        for left in [
            concat!("to", "do!("),
            concat!("unimple", "mented!("),
            concat!("#[", "ignore"),
        ] {
            if line.contains(left) {
                fault(number, &format!("{left} was left behind"));
            }
        }
    }
    faults
}

#[test]
fn crates_depend_on_each_other_along_the_arrows() {
    let dependencies = dependencies();
    let names: Vec<&str> = dependencies.keys().map(String::as_str).collect();
    let mut designed: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    designed.sort_unstable();
    assert_eq!(names, designed);
    assert_eq!(arrow_faults(&dependencies), [""; 0]);
    assert_eq!(library_faults(&dependencies, &folders()), [""; 0]);
}

/// The crates that a crate depends on, directly or not.
fn reached(from: &str) -> BTreeSet<&'static str> {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let (from, _) = arrows.get_key_value(from).unwrap();
    let (mut reached, mut waiting) = (BTreeSet::new(), vec![*from]);
    while let Some(name) = waiting.pop() {
        if reached.insert(name) {
            waiting.extend(arrows[name]);
        }
    }
    reached
}

/// The quoted strings between two places of a text.
fn quoted_between<'a>(text: &'a str, from: &str, to: &str) -> BTreeSet<&'a str> {
    let (_, text) = text.split_once(from).unwrap();
    let (text, _) = text.split_once(to).unwrap();
    text.split('"').skip(1).step_by(2).collect()
}

#[test]
fn the_read_wing_never_links_the_write_wing() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    for package in READ_WING {
        let output = Command::new(&cargo)
            .args(["tree", "--offline", "--edges", "normal", "--prefix", "none"])
            .args(["--format", "{p}", "--manifest-path"])
            .arg(root().join(&folders()[package]).join("Cargo.toml"))
            // Otherwise cargo would print the tree of the whole workspace.
            .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
            .current_dir(root())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let tree = String::from_utf8(output.stdout).unwrap();
        let linked: BTreeSet<&str> = tree
            .lines()
            .filter_map(|l| l.split(' ').next())
            .map(short)
            .collect();
        assert!(linked.contains("event-log"), "{package} reads no log");
        for never in WRITE_WING {
            assert!(!linked.contains(never), "{package} links {never}");
        }
    }
}

#[test]
fn the_log_filter_names_every_crate_of_ours_that_logs() {
    let dependencies = dependencies();
    let logs = |name: &&str| dependencies[*name].contains("tracing");
    let logging: BTreeSet<String> = reached("host")
        .into_iter()
        .filter(logs)
        .map(|name| name.replace('-', "_"))
        .collect();
    let text = std::fs::read_to_string(root().join("host/src/logging.rs")).unwrap();
    let heard = quoted_between(&text, "const OURS", "];");
    assert_eq!(Vec::from_iter(heard), Vec::from_iter(&logging));
}

#[test]
fn the_crates_that_simulator_and_model_run_are_optimised() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in reached("simulator").union(&reached("model")) {
        let wanted = |prefix| format!("[profile.dev.package.{prefix}{name}]\nopt-level = 2\n");
        let is_fast = ["", "annals-"]
            .iter()
            .any(|prefix| text.contains(&wanted(prefix)));
        assert!(is_fast, "{name} runs slowly in tests");
    }
}

#[test]
fn every_source_file_is_in_order() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        faults.extend(source_faults(&path, &text));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (path, _) in LONG {
        let is_there = root().join(path).exists();
        assert!(is_there, "{path} is listed and is not there");
    }
}

#[test]
fn these_checks_notice_what_they_are_for() {
    let uses = |package: &str, used: &str| {
        let names = ARROWS.iter().map(|(name, _)| (*name).to_owned());
        let mut all: BTreeMap<String, BTreeSet<String>> =
            names.map(|name| (name, BTreeSet::new())).collect();
        all.entry(package.to_owned())
            .or_default()
            .insert(used.to_owned());
        all
    };
    for (package, used) in [
        ("command-api", "query-api"),
        ("query-api", "command-api"),
        ("query-api", "engine"),
        ("query-api", "projections"),
        ("console", "query-api"),
        ("console", "projector"),
        ("engine", "domain"),
        ("projections", "engine"),
        ("event-log", "engine"),
        ("domain", "engine"),
        ("kernel", "engine"),
        ("checker", "engine"),
        ("engine", "host"),
        ("host", "domain"),
        ("bank", "domain"),
        ("bank", "host"),
        ("lending", "domain"),
        ("cli", "tests"),
        ("newcomer", "kernel"),
    ] {
        assert_eq!(
            arrow_faults(&uses(package, used)).len(),
            1,
            "{package} {used}"
        );
    }
    for (package, used) in [
        ("domain", "sqlx"),
        ("engine", "axum"),
        ("console", "sqlx"),
        ("projections", "rdkafka"),
        ("cli", "rdkafka-sys"),
        ("bank", "sqlx"),
    ] {
        let faults = library_faults(&uses(package, used), &folders());
        assert_eq!(faults.len(), 1, "{package} {used}: {faults:?}");
    }
    let head = "//! What lives here.\n";
    for (path, line) in [
        ("engine/src/owner/new.rs", "use rdkafka::Message;"),
        (
            "event-log/src/log/kafka_too.rs",
            "fn f(x: rdkafka_sys::rd_kafka_t) {}",
        ),
        ("projections/src/new.rs", "    sqlx::query(\"SELECT 1\");"),
        ("event-log/src/log/mod.rs", "pub use sqlx;"),
        ("projector/src/new.rs", concat!("use ax", "um::Router;")),
        ("engine/src/seat/new.rs", "use domain::Order;"),
        ("query-api/src/new.rs", "let order: Vec<domain::Order>;"),
        ("examples/lending/src/main.rs", "use domain as shop;"),
        ("cli/src/new.rs", concat!("to", "do!()")),
        ("cli/src/new.rs", concat!("#[", "ignore = \"slow\"]")),
    ] {
        let faults = source_faults(path, &format!("{head}{line}"));
        assert_eq!(faults.len(), 1, "{path}: {line}: {faults:?}");
        assert!(faults[0].starts_with(&format!("{path}:2: ")), "{faults:?}");
    }
    let long = format!("{head}{}", "\n".repeat(LINES_MAX));
    assert_eq!(source_faults("engine/src/new.rs", &long).len(), 1);
    assert_eq!(source_faults("engine/src/new.rs", "use std::fmt;").len(), 1);
    for line in [
        "// rdkafka::Message would do",
        "let x = my::axum::f();",
        "let domain = self.domain;",
        "mod my_sqlx; let _ = my_sqlx::f();",
        "use event_log::log::KafkaLog;",
    ] {
        let faults = source_faults("engine/src/new.rs", &format!("{head}{line}"));
        assert_eq!(faults, [""; 0], "{line}");
    }
}

/// The tracing events in a text that show a value in Rust's debug form.
fn debug_forms(text: &str) -> Vec<&str> {
    let event =
        regex::Regex::new(r"(?s)tracing::(?:error|warn|info|debug|trace)!\((.*?)\);").unwrap();
    let form = regex::Regex::new(r"(?:^|[\s,=])\?[a-z_&]").unwrap();
    let events = event.captures_iter(text).filter_map(|found| found.get(1));
    let events = events.map(|found| found.as_str());
    events.filter(|event| form.is_match(event)).collect()
}

#[test]
fn the_log_shows_no_debug_forms() {
    // Debug forms change with the program's types, but programs read the log.
    for (path, text) in sources() {
        assert_eq!(debug_forms(&text), [""; 0], "{path}");
    }
    // Split in two, so that this file does not contain them.
    let event = |fields: &str| format!("tracing::{}!({fields});", "warn");
    let bad = [event("path,\n ?problem, \"refused\""), event("a = ?self.b")].concat();
    assert_eq!(debug_forms(&bad).len(), 2);
    assert_eq!(debug_forms(&event("%error, \"what? no\"")), [""; 0]);
}
