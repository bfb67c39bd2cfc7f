//! The walks in ARCHITECTURE.md go through functions that are there.

use std::path::Path;

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

/// The steps of a walk, in their order.
fn steps(section: &str) -> Vec<Step<'_>> {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (file, function) = (cells.nth(1).unwrap(), cells.next().unwrap());
        Step { file, function }
    })
    .collect()
}

/// What is wrong with a step, if anything is.
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

fn read(file: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(file)).ok()
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
            "projector/src/checkpoint.rs",
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
fn a_step_through_nothing_is_noticed() {
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
