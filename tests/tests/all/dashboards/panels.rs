//! Every panel of a dashboard says what it shows and in which unit, and stands in its own place.
//!
//! Deliberately absent: what Grafana draws.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// The version of Grafana's format from which these dashboards may be imported as they are.
const SCHEMA_MIN: u64 = 39;
/// The width of a dashboard.
const COLUMNS: u64 = 24;

/// The cells of the grid that a panel covers.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
    let (left, top, width, height) = (side("x"), side("y"), side("w"), side("h"));
    assert!(left + width <= COLUMNS, "{panel}");
    let row = |y| (left..left + width).map(move |x| (x, y));
    (top..top + height).flat_map(row).collect()
}

fn panel_faults(panel: &Value) -> Vec<&'static str> {
    let mut faults = Vec::new();
    let is_empty = |text: &Value| text.as_str().is_none_or(str::is_empty);
    if is_empty(&panel["title"]) {
        faults.push("no title");
    }
    if panel["type"] == "row" {
        return faults;
    }
    if is_empty(&panel["description"]) {
        faults.push("no description");
    }
    if is_empty(&panel["fieldConfig"]["defaults"]["unit"]) {
        faults.push("no unit");
    }
    let targets = panel["targets"].as_array().unwrap();
    let sources = targets.iter().chain([panel]);
    if sources
        .clone()
        .any(|one| one["datasource"]["uid"] != "${datasource}")
    {
        faults.push("not from the chosen data source");
    }
    if targets.is_empty() || targets.iter().any(|one| is_empty(&one["expr"])) {
        faults.push("no expression");
    }
    faults
}

/// The variables that a dashboard names and does not have.
fn missing_variables(dashboard: &Value) -> Vec<String> {
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let had: BTreeSet<&str> = list.iter().filter_map(|one| one["name"].as_str()).collect();
    let named = Regex::new(r"\$\{?([a-z]+)").unwrap();
    let text = dashboard.to_string();
    let mut missing: Vec<String> = named
        .captures_iter(&text)
        .map(|found| found[1].to_owned())
        .filter(|name| !had.contains(name.as_str()))
        .collect();
    missing.dedup();
    missing
}

#[test]
fn every_panel_says_what_it_shows_and_has_its_own_place() {
    for (path, dashboard) in super::dashboards() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(dashboard["uid"], name);
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= SCHEMA_MIN);
        assert_eq!(missing_variables(&dashboard), [""; 0], "{name}");
        let (mut ids, mut covered) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert_eq!(panel_faults(panel), [""; 0], "{name}: {title}");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}");
            for cell in cells(panel) {
                assert!(covered.insert(cell), "{name}: {title} covers another panel");
            }
        }
    }
}
