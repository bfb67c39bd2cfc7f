//! The pages for developers show code that is built and tested: each piece of Rust stands in an
//! example, line by line.

use std::fs;
use std::path::Path;

/// Each page, with the folders of the examples that it explains.
const PAGES: [(&str, &[&str]); 2] = [
    (
        "docs/your-domain.md",
        &["examples/bank", "examples/lending"],
    ),
    ("docs/cqrs-es.md", &["examples/cqrs"]),
];

const BEGIN: &str = "```rust\n";
const END: &str = "```\n";

/// The lines of a text without what only reformatting changes.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

fn pieces(page: &str) -> Vec<&str> {
    let pieces = page.split(BEGIN).skip(1);
    pieces.map(|rest| rest.split(END).next().unwrap()).collect()
}

/// The pieces that are in none of the sources.
fn foreign<'a>(page: &'a str, sources: &[String]) -> Vec<&'a str> {
    let is_in = |piece: &str, source: &str| {
        let (piece, source) = (lines(piece), lines(source));
        source.windows(piece.len()).any(|window| window == piece)
    };
    let mut pieces = pieces(page);
    pieces.retain(|piece| !sources.iter().any(|source| is_in(piece, source)));
    pieces
}

fn sources(root: &Path, folders: &[&str]) -> Vec<String> {
    let mut sources = Vec::new();
    for folder in folders {
        for part in ["src", "tests"] {
            let entries = fs::read_dir(root.join(folder).join(part));
            for entry in entries.into_iter().flatten() {
                sources.push(fs::read_to_string(entry.unwrap().path()).unwrap());
            }
        }
    }
    sources
}

#[test]
fn the_pages_for_developers_show_code_that_is_built_and_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, folders) in PAGES {
        let text = fs::read_to_string(root.join(page)).unwrap();
        assert!(pieces(&text).len() >= 3, "{page} shows little code");
        assert_eq!(foreign(&text, &sources(&root, folders)), [""; 0], "{page}");
    }
}

#[test]
fn a_changed_piece_is_noticed() {
    let sources = ["fn a() {\n    b();\n}\n".to_owned()];
    let page = |piece: &str| format!("{BEGIN}{piece}{END}");
    for kept in ["fn a() {\n", "b();\n}\n", "    fn a() {\n        b();\n"] {
        assert_eq!(foreign(&page(kept), &sources), [""; 0]);
    }
    for changed in ["fn a(){\n", "b()\n", "fn a() {\n}\n", "c();\n"] {
        assert_eq!(foreign(&page(changed), &sources), [changed]);
    }
}
