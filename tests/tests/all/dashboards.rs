//! The alerts and dashboards in `ops` use only metrics, labels and values that the program has, and
//! Prometheus' own tools accept them.
//!
//! An alert on a misspelled metric never fires, and nobody notices. Deliberately absent: whether
//! the list of metrics is complete (`cli/observed.rs`).

mod panels;
mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use host::node::metrics::catalogue::{CATALOGUE, Kind};
use regex::Regex;
use serde_json::Value;

use super::cli::program::{Server, folder};
use promql::{Matcher, needs};

/// Labels that Prometheus adds to every series.
const TARGET: [&str; 2] = ["job", "instance"];
/// Labels whose values are not listed by the node: they come from requests, or from Prometheus.
const OPEN: [&str; 3] = ["job", "instance", "status"];

fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder in `ops` whose names end like this, in order.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(ops().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {end} in {folder}");
    files
}

fn rules() -> String {
    read(&ops().join("prometheus/alerts.yml"))
}

fn alert_tests() -> String {
    let files = files("prometheus", "_test.yml");
    files.iter().map(|path| read(path)).collect()
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let parse = |path: PathBuf| {
        let value = serde_json::from_str(&read(&path)).unwrap();
        (path, value)
    };
    files("grafana", ".json").into_iter().map(parse).collect()
}

/// The values of a key in a YAML file, with the number of their line. Knows only plain, quoted and
/// block values.
fn values(yaml: &str, key: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = yaml.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let bare = line.trim_start().trim_start_matches("- ");
        let Some(value) = bare.strip_prefix(key).and_then(|r| r.strip_prefix(':')) else {
            continue;
        };
        let inner = lines[number + 1..].iter().copied();
        let column = line.len() - bare.len();
        let block: Vec<&str> = inner
            .take_while(|next| indent(next) > column)
            .map(str::trim)
            .collect();
        let value = match value.trim() {
            "|" | ">-" => block.join(" "),
            begun if begun.starts_with('\'') && !begun.ends_with('\'') => {
                format!("{begun} {}", block.join(" "))
            }
            whole => whole.to_owned(),
        };
        found.push((number + 1, value.trim_matches(['\'', '"']).to_owned()));
    }
    found
}

/// The labels of each metric that an expression may name.
struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    /// The metrics of the program, and what Prometheus itself says of a node.
    fn metrics() -> Self {
        let mut known = BTreeMap::new();
        let mut add = |name: String, labels: &str, more: &[&str]| {
            let labels = labels.split(',').filter(|label| !label.is_empty());
            let labels = labels.chain(TARGET).chain(more.iter().copied());
            known.insert(name, labels.map(str::to_owned).collect());
        };
        add("up".to_owned(), "", &[]);
        for metric in CATALOGUE {
            let (name, labels) = (metric.name, metric.labels);
            if matches!(metric.kind, Kind::Histogram(_)) {
                add(format!("{name}_bucket"), labels, &["le"]);
                add(format!("{name}_sum"), labels, &[]);
                add(format!("{name}_count"), labels, &[]);
            } else {
                add(name.to_owned(), labels, &[]);
            }
        }
        Self(known)
    }

    /// These, and what the rules record.
    fn with_records(rules: &str) -> Self {
        let mut known = Self::metrics();
        let expressions = values(rules, "expr");
        for (line, record) in values(rules, "record") {
            let (_, expression) = expressions.iter().find(|(at, _)| *at > line).unwrap();
            let selected = needs(expression).selected;
            let mut labels: BTreeSet<String> = selected[0].groups[0].iter().cloned().collect();
            if expression.starts_with("histogram_quantile") {
                labels.remove("le");
            }
            known.0.insert(record, labels);
        }
        known
    }

    /// Why an expression would find nothing.
    fn faults(&self, expression: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let needs = needs(expression);
        for one in &needs.selected {
            let name = &one.name;
            let Some(labels) = self.0.get(name) else {
                faults.push(format!("there is no metric {name}"));
                continue;
            };
            let matched = one.matchers.iter().map(|matcher| &matcher.label);
            let grouped = one.groups.iter().flatten();
            for label in matched.chain(grouped).chain(&needs.joined_on) {
                if !labels.contains(label) {
                    faults.push(format!("{name} has no label {label}"));
                }
            }
            for pair in one.groups.windows(2) {
                for label in pair[0].iter().filter(|label| !pair[1].contains(label)) {
                    faults.push(format!("{label} of {name} is lost in an inner by (…)"));
                }
            }
        }
        faults
    }

    /// Whether the series that an expression yields have this label.
    fn yields(&self, expression: &str, label: &str) -> bool {
        let needs = needs(expression);
        let first = &needs.selected[0];
        match first.groups.first() {
            Some(labels) => labels.iter().any(|one| one == label),
            None => self.0[&first.name].contains(label),
        }
    }
}

/// An expression, and where it stands.
struct Used {
    place: String,
    expression: String,
    /// The labels that its legend shows.
    shown: Vec<String>,
}

/// Collects the expressions of a dashboard: of panels, annotations and variables.
fn collect(place: &str, value: &Value, used: &mut Vec<Used>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| collect(place, one, used)),
        Value::Object(fields) => {
            let title = fields.get("title").or(fields.get("name"));
            let inner = match title.and_then(Value::as_str) {
                Some(title) => format!("{place}: {title}"),
                None => place.to_owned(),
            };
            let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
            let mut expression = text("expr").replace("$__rate_interval", "5m");
            let legend = [text("legendFormat"), text("titleFormat")].concat();
            let labels = legend.split("{{").skip(1);
            let labels = labels.map(|rest| rest.split("}}").next().unwrap());
            let mut shown: Vec<String> = labels.map(str::to_owned).collect();
            let listed = text("definition").strip_prefix("label_values(");
            if let Some((selector, label)) = listed.and_then(|rest| rest.rsplit_once(", ")) {
                selector.clone_into(&mut expression);
                shown.push(label.trim_end_matches(')').to_owned());
            }
            if !expression.is_empty() {
                used.push(Used {
                    place: inner.clone(),
                    expression,
                    shown,
                });
            }
            fields.values().for_each(|one| collect(&inner, one, used));
        }
        _ => {}
    }
}

fn on_dashboards() -> Vec<Used> {
    let mut used = Vec::new();
    for (path, dashboard) in dashboards() {
        collect(&path.display().to_string(), &dashboard, &mut used);
    }
    assert!(used.len() > 90, "{} expressions", used.len());
    used
}

fn in_rules() -> Vec<Used> {
    let found = values(&rules(), "expr").into_iter();
    let used: Vec<Used> = found
        .map(|(line, expression)| Used {
            place: format!("alerts.yml:{line}"),
            expression,
            shown: Vec::new(),
        })
        .collect();
    assert!(used.len() > 30, "{} rules", used.len());
    used
}

/// Every expression of the rules, their tests and the dashboards.
fn everywhere() -> Vec<Used> {
    let mut used = in_rules();
    used.extend(on_dashboards());
    let series = values(&alert_tests(), "series").into_iter();
    used.extend(series.map(|(line, expression)| Used {
        place: format!("a test of alerts:{line}"),
        expression,
        shown: Vec::new(),
    }));
    used
}

#[test]
fn every_expression_names_metrics_and_labels_that_exist() {
    let known = Known::with_records(&rules());
    let mut faults = Vec::new();
    for used in everywhere() {
        let Used {
            place,
            expression,
            shown,
        } = &used;
        let found = known.faults(expression);
        let is_sound = found.is_empty();
        faults.extend(found.into_iter().map(|fault| format!("{place}: {fault}")));
        for label in shown.iter().filter(|_| is_sound) {
            if !known.yields(expression, label) {
                faults.push(format!("{place}: {label} is shown, and is not there"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The values of each label of each metric, as a node shows them.
fn shown_values(metrics: &str) -> BTreeSet<(String, String, String)> {
    let mut shown = BTreeSet::new();
    for line in metrics.lines() {
        let is_series = !line.starts_with('#') && line.contains('{');
        if let Some((series, _)) = line.rsplit_once(' ').filter(|_| is_series) {
            for one in needs(series).selected {
                for Matcher { label, value, .. } in one.matchers {
                    shown.insert((one.name.clone(), label, value));
                }
            }
        }
    }
    shown
}

/// The values that an expression asks for and that a node never shows.
fn strange_values(expression: &str, shown: &BTreeSet<(String, String, String)>) -> Vec<String> {
    let mut strange = Vec::new();
    for one in needs(expression).selected {
        // A record is named after its metric, and a rate loses `_total`: `level:metric:rate5m`.
        let name = match one.name.split(':').nth(1) {
            Some(metric) if one.name.contains(":rate") => format!("{metric}_total"),
            Some(metric) => metric.to_owned(),
            None => one.name,
        };
        for Matcher { label, value, .. } in &one.matchers {
            let is_open = OPEN.contains(&label.as_str());
            if is_open || value.contains(['$', '.', '+', '*', '(', '[']) {
                continue;
            }
            for value in value.split('|') {
                if !shown.contains(&(name.clone(), label.clone(), value.to_owned())) {
                    strange.push(format!("{name} has no {label} {value}"));
                }
            }
        }
    }
    strange
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_that_an_expression_asks_for_is_one_that_a_node_shows() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", server.url)).await;
        answer.unwrap().text().await.unwrap()
    };
    // A route is counted once it has been asked for.
    for path in ["/livez", "/readyz", "/metrics"] {
        get(path).await;
    }
    let batch = reqwest::Client::new().post(format!("{}/v1/commands", server.url));
    let batch = batch.header("content-type", "application/x-ndjson");
    batch.body("{\n").send().await.unwrap();
    let expressions: Vec<Used> = in_rules().into_iter().chain(on_dashboards()).collect();
    let mut left = Vec::new();
    // A request is counted after its answer, so the node is asked more than once.
    for _ in 0..100 {
        let shown = shown_values(&get("/metrics").await);
        left = expressions
            .iter()
            .flat_map(|used| strange_values(&used.expression, &shown))
            .collect();
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn these_checks_notice_a_misspelling() {
    let known = Known::with_records(&rules());
    for (expression, fault) in [
        (
            "annals_owned_partition",
            "there is no metric annals_owned_partition",
        ),
        (
            r#"rate(annals_append_seconds{job="a"}[5m])"#,
            "there is no metric annals_append_seconds",
        ),
        (
            r#"annals_commands_total{outcom="failed"}"#,
            "annals_commands_total has no label outcom",
        ),
        (
            "sum by (partition) (annals_owned_partitions)",
            "annals_owned_partitions has no label partition",
        ),
        (
            "up / on (part) annals_memory_budget_bytes",
            "up has no label part",
        ),
        (
            "sum by (instance) (job_outcome:annals_commands:rate5m)",
            "job_outcome:annals_commands:rate5m has no label instance",
        ),
        (
            "sum by (client) (max by (job) (annals_kafka_requests_total))",
            "client of annals_kafka_requests_total is lost in an inner by (…)",
        ),
    ] {
        assert_eq!(known.faults(expression), [fault], "{expression}");
    }
    assert!(!known.yields("sum by (job) (up)", "instance"));
    let shown = shown_values("annals_turned_away_total{reason=\"late\"} 0\n");
    let strange = |value: &str| {
        let expression = format!("annals_turned_away_total{{reason=~\"{value}\"}}");
        strange_values(&expression, &shown).len()
    };
    assert_eq!(
        (strange("late"), strange("late|lat"), strange("$reason")),
        (0, 1, 0)
    );
}

/// Runs Prometheus' tool in the folder of the rules; it must have no objection.
fn promtool(arguments: &[&str]) {
    let program = std::env::var_os("ANNALS_PROMTOOL").expect(
        "ANNALS_PROMTOOL names promtool: run `make test`, or `eval \"$(ops/setup --print-env)\"`",
    );
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .current_dir(ops().join("prometheus"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn prometheus_accepts_rules_and_configuration_and_the_alerts_pass_their_tests() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    for path in files("prometheus", "_test.yml") {
        promtool(&["test", "rules", path.to_str().unwrap()]);
    }
}

#[test]
fn prometheus_accepts_every_expression_of_the_dashboards() {
    let rules = on_dashboards()
        .into_iter()
        .enumerate()
        .map(|(number, used)| {
            let expression = serde_json::to_string(&used.expression).unwrap();
            format!("  - record: panel:{number}\n    expr: {expression}\n")
        });
    let text = format!(
        "groups:\n- name: panels\n  rules:\n{}",
        rules.collect::<String>()
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panels.yml");
    fs::write(&path, text).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]);
}

#[test]
fn every_alert_is_tested_both_ways_and_has_a_page_that_names_it() {
    let rules = rules();
    let (tests, pages) = (alert_tests(), values(&rules, "runbook_url"));
    let alerts = values(&rules, "alert");
    assert_eq!(alerts.len(), pages.len());
    let mut names = BTreeSet::new();
    for ((_, alert), (_, page)) in alerts.iter().zip(&pages) {
        names.insert(alert.as_str());
        let tested = |end: &str| {
            let case = format!("alertname: {alert}\n        exp_alerts:{end}\n");
            tests.contains(&case)
        };
        assert!(tested(" []"), "no test where {alert} does not fire");
        assert!(tested(""), "no test where {alert} fires");
        let text = read(&ops().join("..").join(page));
        assert!(
            text.contains(&format!("`{alert}`")),
            "{page} does not name {alert}"
        );
    }
    for (line, labels) in values(&rules, "labels") {
        let is_known = ["{severity: page}", "{severity: ticket}"].contains(&labels.as_str());
        assert!(is_known, "alerts.yml:{line}: {labels}");
    }
    let named = Regex::new("`(Annals[A-Z][A-Za-z]+)`").unwrap();
    for path in files("runbooks", ".md") {
        for found in named.captures_iter(&read(&path)) {
            assert!(
                names.contains(&found[1]),
                "{}: {}",
                path.display(),
                &found[1]
            );
        }
    }
}
