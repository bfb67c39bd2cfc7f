//! The documents name what exists: the walks in ARCHITECTURE.md go through functions of the code,
//! and every source file that a document names exists.

use std::path::{Path, PathBuf};

/// A row of a walk: a file, and a function in it.
#[derive(Debug, PartialEq)]
struct Step<'a> {
    file: &'a str,
    function: &'a str,
}

/// The text between two headings.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap()
}

/// The steps of a walk, in order.
fn steps(section: &str) -> Vec<Step<'_>> {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (file, function) = (cells.nth(1).unwrap(), cells.next().unwrap());
        Step { file, function }
    })
    .collect()
}

/// What is wrong with a step; `None` if it is right.
fn fault(step: &Step<'_>, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let Step { file, function } = step;
    let Some(text) = read(file) else {
        return Some(format!("{file} is not there"));
    };
    let is_there = ["(", "<"]
        .iter()
        .any(|next| text.contains(&format!("fn {function}{next}")));
    (!is_there).then(|| format!("{file} has no function {function}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(root().join(file)).ok()
}

/// The documents for people: those at the root, and all below `docs` and `ops`.
fn documents() -> Vec<PathBuf> {
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    let mut waiting = vec![root().join("docs"), root().join("ops")];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents
}

/// The source files that a text names: quoted paths from the root.
fn sources_named(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|quoted| quoted.contains('/') && quoted.ends_with(".rs"))
        .collect()
}

#[test]
fn every_source_file_that_a_document_names_is_there() {
    let mut named = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for source in sources_named(&text) {
            named += 1;
            let is_there = root().join(source).is_file();
            assert!(is_there, "{} names {source}", document.display());
        }
    }
    assert!(named > 100, "{named}");
    assert_eq!(sources_named("see `a/b.rs`, `c.rs` and `d/e`"), ["a/b.rs"]);
}

#[test]
fn a_decision_has_its_four_parts_and_a_line_in_the_list() {
    let list = read("docs/decisions/README.md").unwrap();
    for document in documents() {
        let name = document.file_name().unwrap().to_str().unwrap();
        if !document.parent().unwrap().ends_with("decisions") || name == "README.md" {
            continue;
        }
        let text = std::fs::read_to_string(&document).unwrap();
        let number = name[..4].trim_start_matches('0');
        assert!(text.starts_with(&format!("# {number}. ")), "{name}");
        let mut rest = text.as_str();
        for part in ["Context.", "Decision.", "Price.", "What would change it."] {
            let (_, behind) = rest
                .split_once(&format!("\n\n**{part}**"))
                .unwrap_or_else(|| panic!("{name} lacks {part}"));
            rest = behind;
        }
        assert!(list.contains(&format!("]({name})")), "{name} is not listed");
    }
}

#[test]
fn architecture_is_short_enough_to_read_in_one_go() {
    let lines = read("ARCHITECTURE.md").unwrap().lines().count();
    assert!(
        lines <= 250,
        "{lines} lines: move what is a decision to docs/decisions"
    );
}

#[test]
fn the_walks_go_through_functions_that_are_there() {
    let text = read("ARCHITECTURE.md").unwrap();
    for (heading, first, last) in [
        (
            "A command's walk",
            "command-api/src/single.rs",
            "command-api/src/answer.rs",
        ),
        (
            "An event's walk",
            "event-log/src/log/kafka/consumer.rs",
            "projector/src/store/checkpoint.rs",
        ),
    ] {
        let walk = steps(section(&text, heading));
        let ends = (walk.first().unwrap().file, walk.last().unwrap().file);
        assert_eq!(ends, (first, last), "{heading}");
        let faults: Vec<String> = walk.iter().filter_map(|step| fault(step, read)).collect();
        assert_eq!(faults, [""; 0], "{heading}");
    }
}

#[test]
fn a_step_through_a_missing_function_is_noticed() {
    let text = "\n## Walk\n| file | function |\n|---|---|\n| `a.rs` | `go` | x |\n| `b.rs` | `on` | x |\n## End\n";
    let walk = steps(section(text, "Walk"));
    let step = |file, function| Step { file, function };
    assert_eq!(walk, [step("a.rs", "go"), step("b.rs", "on")]);
    let source = |file: &str| (file == "a.rs").then(|| "pub fn go<T>(t: T) {}".to_owned());
    assert_eq!(fault(&walk[0], source), None);
    assert_eq!(
        fault(&walk[1], source).as_deref(),
        Some("b.rs is not there")
    );
    let gone = fault(&step("a.rs", "goes"), source);
    assert_eq!(gone.as_deref(), Some("a.rs has no function goes"));
}
