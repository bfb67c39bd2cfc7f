//! The console in a browser: every room on real data, in light and dark colours, in a narrow and a wide
//! window, with the keyboard.
//!
//! Invariant: no page complains, loads anything from elsewhere, breaks a rule of accessibility that
//! axe-core knows, or is wider than its window. Deliberately absent: what each room shows in which case
//! (the crate's own tests).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::program::{Server, folder};
use crate::contract::{chromium, run, tool, tools};
use crate::querying::users_tools;

/// Where the pictures of the pages are, to be looked at.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The pages to visit, each with the name of its picture, and words that it must show.
const PAGES: &[(&str, &str, &[&str])] = &[
    ("/console/models", "models", &["order_summary"]),
    (
        "/console/models/daily_sales",
        "model",
        &["2017-02-08", "94340"],
    ),
    (
        "/console/models/daily_sales/2017-02-08,BRL",
        "row",
        &["94340", "The amounts' currency"],
    ),
    (
        "/console/models/nothing",
        "model-missing",
        &["No such read model"],
    ),
    (
        "/console/configuration",
        "configuration",
        &["127.0.0.1:0", "--listen"],
    ),
    ("/console/nothing", "missing", &["no page at this address"]),
];

#[test]
fn every_room_can_be_seen_in_a_browser_by_anybody() {
    let data = folder();
    let server = Server::start_in(data.path(), &["demo"], &[]);
    let pages = PAGES
        .iter()
        .map(|(path, name, _)| json!({"path": path, "name": name}));
    let mut node = tool("node", &tools());
    node.arg("--input-type=commonjs").arg("--eval");
    node.arg(include_str!("console/visit.js"))
        .arg(&server.url)
        .arg(chromium());
    node.arg(users_tools().join("node_modules/axe-core/axe.min.js"))
        .arg(pictures());
    node.arg(Value::from_iter(pages).to_string());
    let said: Value = serde_json::from_str(&run(&mut node)).unwrap();
    let complaints = serde_json::to_string_pretty(&said["complaints"]).unwrap();
    assert_eq!(complaints, "[]");
    for (path, _, words) in PAGES {
        let text = said["shown"][path]["text"].as_str().unwrap();
        for word in *words {
            assert!(text.contains(word), "{path} does not show {word:?}: {text}");
        }
        let title = said["shown"][path]["title"].as_str().unwrap();
        assert!(title.ends_with("· Annals console"), "{path}: {title}");
    }
}
