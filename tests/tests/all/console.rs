//! The console in a browser: every room on real data, and in every state on canned answers, in light and
//! dark colours, in a narrow and a wide window, with the keyboard, and without a script.
//!
//! Invariant: no page complains, loads anything from elsewhere, breaks a rule of accessibility that
//! axe-core knows, or is wider than its window. Deliberately absent: what each room shows in which case
//! (the crate's own tests).

mod canned;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::program::{Server, folder};
use crate::contract::{chromium, run, tool, tools};
use crate::querying::users_tools;

/// A page to visit: its path, the name of its picture, and words that it must show.
type Page = (&'static str, &'static str, &'static [&'static str]);

/// The pages of the demo.
const PAGES: &[Page] = &[
    (
        "/console",
        "overview",
        &["Commands per second", "Who owns what", "command-api"],
    ),
    ("/console/streams", "streams", &["customer-", "Partition"]),
    (
        "/console/models",
        "models",
        &["order_summary", "Orders that were placed"],
    ),
    (
        "/console/models/daily_sales",
        "model",
        &["2017-02-08", "94340"],
    ),
    (
        "/console/models/daily_sales/2017-02-08,BRL",
        "row",
        &["94340", "The items' prices together"],
    ),
    (
        "/console/models/daily_sales/2017-02-08,BRL/why?column=items_minor",
        "why",
        &["Why items_minor", "OrderPlaced", "add up to the stored row"],
    ),
    (
        "/console/models/nothing",
        "model-missing",
        &["No such read model"],
    ),
    (
        "/console/streams/order-none",
        "stream-missing",
        &["There is no such stream"],
    ),
    (
        "/console/refusals",
        "refusals",
        &["order_not_approved", "By rule"],
    ),
    (
        "/console/projections",
        "projections",
        &["payment_mix", "live", "100 %"],
    ),
    (
        "/console/projections/payment_mix",
        "projection",
        &["Generation 1", "Verify", "Pause"],
    ),
    (
        "/console/projections/payment_mix/rebuild",
        "form",
        &["from the start of the log", "Reason"],
    ),
    (
        "/console/replays",
        "replays",
        &["No replay is under way", "Begin a replay"],
    ),
    ("/console/parked", "parked", &["No stream is parked"]),
    (
        "/console/models/daily_sales?items.gte=3&sort=-items",
        "filtered",
        &["is at least", "items_minor"],
    ),
    (
        "/console/configuration",
        "configuration",
        &["127.0.0.1:0", "--listen"],
    ),
    ("/console/nothing", "missing", &["no page at this address"]),
];

/// The pages of the demo's replays, once somebody has used them.
const REPLAYS: &[Page] = &[
    (
        "/console/replays",
        "replays-used",
        &["replay_daily_sales", "twice", "finished", "paused"],
    ),
    (
        "/console/replays/plain",
        "replay-paused",
        &[
            "Next commit",
            "Commits over time",
            "Rows that it changed",
            "OrderPlaced",
        ],
    ),
    (
        "/console/replays/replay_daily_sales",
        "replay-finished",
        &["finished", "the end of the log"],
    ),
    (
        "/console/replays/nothing",
        "replay-missing",
        &["no such replay"],
    ),
];

/// Where the pictures of the pages are, to be looked at.
fn pictures(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("console")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program for the browser, with its first arguments.
fn script(text: &str, url: &str) -> Command {
    let mut node = tool("node", &tools());
    node.arg("--input-type=commonjs").arg("--eval");
    node.arg(text).arg(url).arg(chromium());
    node
}

/// Visits pages in a browser, and requires that nobody complains and that they show their words.
#[track_caller]
fn visit(url: &str, name: &str, pages: &[Page]) {
    let list = pages
        .iter()
        .map(|(path, name, _)| json!({"path": path, "name": name}));
    let mut node = script(include_str!("console/visit.js"), url);
    node.arg(users_tools().join("node_modules/axe-core/axe.min.js"))
        .arg(pictures(name));
    node.arg(Value::from_iter(list).to_string());
    let said: Value = serde_json::from_str(&run(&mut node)).unwrap();
    let complaints = serde_json::to_string_pretty(&said["complaints"]).unwrap();
    assert_eq!(complaints, "[]");
    for (path, _, words) in pages {
        let text = said["shown"][path]["text"].as_str().unwrap();
        for word in *words {
            assert!(text.contains(word), "{path} does not show {word:?}: {text}");
        }
        let title = said["shown"][path]["title"].as_str().unwrap();
        assert!(title.ends_with("· Annals console"), "{path}: {title}");
    }
}

#[test]
fn every_room_can_be_seen_in_a_browser_by_anybody() {
    let data = folder();
    let server = Server::start_in(data.path(), &["demo"], &[]);
    visit(&server.url, "demo", PAGES);
    let mut node = script(include_str!("console/use.js"), &server.url);
    let seen: Value = serde_json::from_str(&run(&mut node)).unwrap();
    visit(&server.url, "demo", REPLAYS);
    let colours = &seen["colours"];
    assert_ne!(colours[0], colours[1], "{seen}");
    assert_eq!(
        (&colours[1], &colours[0]),
        (&colours[2], &colours[3]),
        "{seen}"
    );
    let live = json!({"isLive": true, "before": "Live", "after": "Paused"});
    assert_eq!(seen["live"], live);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert!(
        text(&seen["stream"]["text"]).contains("CustomerRegistered"),
        "{seen}"
    );
    assert!(
        text(&seen["stream"]["title"]).contains("· Streams ·"),
        "{seen}"
    );
    assert_eq!(
        (&seen["streams"], &seen["hidden"]),
        (&json!("Streams"), &json!(true))
    );
    let control = &seen["control"];
    let paused = text(&control["paused"]);
    assert!(paused.contains("The projection is paused."), "{paused}");
    assert!(
        paused.contains("user:ana") && paused.contains("a release"),
        "{paused}"
    );
    let resumed = text(&control["resumed"]);
    assert!(resumed.contains("The projection is resumed."), "{resumed}");
    let history = &seen["history"];
    let versions = ["last", "before"].map(|name| history[name].as_u64().unwrap());
    assert_eq!(versions[0], versions[1] + 1, "{history}");
    assert_eq!(history["isFocused"], true, "{history}");
    assert!(history["marks"].as_u64().unwrap() > 0, "{history}");
    for (name, words) in [
        ("start", "the empty state"),
        ("first", "OrderPlaced"),
        ("first", "/placed"),
        ("compared", "/placed"),
    ] {
        assert!(text(&history[name]).contains(words), "{name}: {history}");
    }
    assert!(
        text(&history["story"]["text"]).contains("PlaceOrder"),
        "{history}"
    );
    let why = &seen["why"];
    for (name, words) in [
        ("column", "currency"),
        ("row", "OrderPlaced"),
        ("row", "items_minor"),
        ("row", "add up to"),
    ] {
        assert!(text(&why[name]).contains(words), "{name}: {why}");
    }
    assert!(why["rows"].as_u64().unwrap() > 0, "{why}");
    assert!(
        text(&seen["plainLife"]).contains("the empty state"),
        "{seen}"
    );
    let replay = &seen["replay"];
    for (name, words) in [
        ("begun", "nothing was taken yet"),
        ("commit", "PlaceOrder"),
        ("commit", "condition true"),
        ("event", "1 of"),
        ("hit", "The condition became true"),
        ("end", "it was ended where the condition became true"),
        ("finished", "the log had no more when it began"),
        ("list", "twice"),
        ("plain", "a step was taken"),
    ] {
        assert!(text(&replay[name]).contains(words), "{name}: {replay}");
    }
    assert!(replay["marked"].as_u64().unwrap() > 0, "{replay}");
    assert_eq!(replay["focused"], "Next event", "{replay}");
    assert_eq!(replay["complaints"], json!([]), "{replay}");
    let rows: Vec<u64> = serde_json::from_value(seen["filter"]["seen"].clone()).unwrap();
    assert!(
        rows[1] > 0 && rows[1] < rows[0] && rows[0] == rows[2],
        "{rows:?}"
    );
    assert!(
        text(&seen["filter"]["csv"]).starts_with("day,currency,orders"),
        "{seen}"
    );
}
