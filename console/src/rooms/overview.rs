//! How the node is: whether it is ready, how much it does, how fast, how far behind the read models are,
//! and who owns what.
//!
//! Deliberately absent: alerts, which Prometheus raises, and other nodes' metrics.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use crate::format;
use crate::layout::{Frame, Room};
use crate::node::Trouble;
use crate::parts::{self, Tone};
use crate::plot::{Series, Unit, plot};
use crate::samples::{Requests, Samples};
use crate::visit::Visit;

/// The most nodes and partitions that are listed.
const LISTED_MAX: usize = 1_024;
/// The most read models that have a line of their own.
const LINES_MAX: usize = 4;

#[derive(Debug, Deserialize)]
struct Ready {
    #[serde(default)]
    status: String,
    #[serde(default)]
    roles: BTreeMap<String, String>,
    #[serde(default)]
    checks: BTreeMap<String, String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Topology {
    log: String,
    node: String,
    partitions: Vec<Partition>,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    partition: u32,
    owner: Option<Owner>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    node: String,
    term: u64,
}

#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    address: String,
    #[serde(default)]
    decides: bool,
    #[serde(default)]
    program: String,
    seen_at: String,
}

/// `GET /console`
pub(crate) async fn page(visit: Visit) -> Response {
    let about = "What this node does at present, and in the last ten minutes.";
    let frame = Frame::of(Room::Overview, about).aside(parts::live_switch());
    let content = content(visit.clone()).await;
    let live = visit.link("/console/live/overview", []);
    frame.page(&visit, parts::live(&live, &content))
}

/// `GET /console/live/overview`
pub(crate) async fn live(visit: Visit) -> Response {
    crate::live::stream(visit, content)
}

async fn content(visit: Visit) -> Markup {
    let ready = visit.node.get::<Ready>("/readyz?role=all").await;
    let topology = visit.node.get::<Topology>("/v1/topology").await;
    let samples = visit.console.samples();
    html! {
        (readiness(&ready))
        (figures(&samples))
        @if samples.newest().is_some() {
            section { h2.unseen { "The last minutes" } (plots(&samples)) }
        }
        (ownership(&topology))
    }
}

fn readiness(ready: &Result<Ready, Trouble>) -> Markup {
    match ready {
        Ok(ready) => html! {
            section.health aria-label="Readiness" {
                (parts::badge(Tone::Good, &ready.status))
                ul.checks {
                    @for (role, word) in &ready.roles { (check(role, word)) }
                    @for (name, word) in &ready.checks { (check(name, word)) }
                }
            }
            @for warning in ready.warnings.iter().take(LINES_MAX) {
                (parts::notice(Tone::Warn, "To know", &html! { p { (warning) } }))
            }
        },
        Err(trouble) => {
            let text = html! {
                p { (trouble.detail) }
                p { "Each check, and what it says: " a href="/readyz?role=all" { "readiness of this node" } }
            };
            parts::notice(Tone::Warn, "Not every role of this node is ready", &text)
        }
    }
}

/// A role or a check; what it says, if it is not simply ready.
fn check(name: &str, word: &str) -> Markup {
    let is_ready = word == "ready";
    html! {
        li.check {
            span.dot.good[is_ready].bad[!is_ready] aria-hidden="true" {}
            (name) " "
            @if is_ready { span.unseen { "ready" } } @else { (parts::badge(Tone::Bad, word)) }
        }
    }
}

fn figures(samples: &Samples) -> Markup {
    let Some(newest) = samples.newest() else {
        let next = html! { p { "The first come within two seconds of the node's start." } };
        return parts::empty("There are no figures yet.", &next);
    };
    let rate = |counter: fn(&crate::samples::Sample) -> f64| {
        let newest = samples.rates(counter).last().and_then(|(_, rate)| *rate);
        newest.map_or_else(
            || "–".to_owned(),
            |rate| format!("{}/s", format::measured(rate)),
        )
    };
    let latency = |requests, share| {
        let latest = samples
            .latencies(requests, share)
            .last()
            .and_then(|(_, value)| *value);
        latest.map_or_else(|| "–".to_owned(), format::seconds)
    };
    let lag = newest
        .behind
        .values()
        .map(|(lag, _)| *lag)
        .fold(0.0, f64::max);
    let gap: f64 = newest.behind.values().map(|(_, gap)| *gap).sum();
    let up = newest
        .started_at
        .map(|started| chrono::Utc::now().timestamp() as f64 - started);
    html! {
        dl.figures {
            (parts::figure("Commands accepted", &rate(|sample| sample.accepted), Some(&total(newest.accepted))))
            (parts::figure("Commands refused", &rate(|sample| sample.refused), Some(&total(newest.refused))))
            (parts::figure("Latency of commands", &latency(Requests::Commands, 0.5),
                Some(&format!("p99 {}", latency(Requests::Commands, 0.99)))))
            (parts::figure("Latency of queries", &latency(Requests::Queries, 0.5),
                Some(&format!("p99 {}", latency(Requests::Queries, 0.99)))))
            (parts::figure("Read models behind", &format::seconds(lag),
                Some(&format!("{} missing", format::counted(gap as u64, "record")))))
            (parts::figure("Owned partitions", &format::measured(newest.owned),
                Some(&unowned(newest.unowned))))
            (parts::figure("Waiting commands", &format::measured(newest.queued), None))
            (parts::figure("Memory", &format::bytes(newest.memory_bytes),
                up.map(|up| format!("up {}", format::seconds(up.max(0.0)))).as_deref()))
        }
    }
}

fn total(count: f64) -> String {
    format!("{} since the start", format::measured(count))
}

fn unowned(count: f64) -> String {
    match count {
        0.0 => "every one has an owner".to_owned(),
        count => format!("{} without an owner", format::measured(count)),
    }
}

fn plots(samples: &Samples) -> Markup {
    let commands = [
        Series::new("accepted", samples.rates(|sample| sample.accepted)),
        Series::new("refused", samples.rates(|sample| sample.refused)),
        Series::new("other", samples.rates(|sample| sample.other)),
    ];
    let of_commands = [
        Series::new("p50", samples.latencies(Requests::Commands, 0.5)),
        Series::new("p99", samples.latencies(Requests::Commands, 0.99)),
    ];
    let of_queries = [
        Series::new("p50", samples.latencies(Requests::Queries, 0.5)),
        Series::new("p99", samples.latencies(Requests::Queries, 0.99)),
    ];
    let folded = [Series::new(
        "commits",
        samples.rates(|sample| sample.folded),
    )];
    let memory = [Series::new(
        "resident",
        samples.values(|sample| Some(sample.memory_bytes)),
    )];
    html! {
        div.plots {
            (plot("Commands per second", &commands, Unit::Number))
            (plot("Latency of commands", &of_commands, Unit::Seconds))
            (plot("Lag of read models", &lags(samples), Unit::Seconds))
            (plot("Latency of queries", &of_queries, Unit::Seconds))
            (plot("Commits folded per second", &folded, Unit::Number))
            (plot("Memory", &memory, Unit::Bytes))
        }
    }
}

/// The lag of the read models that are behind most, and of the worst of the rest.
fn lags(samples: &Samples) -> Vec<Series> {
    let lag_of = |name: &str| samples.values(|sample| sample.behind.get(name).map(|(lag, _)| *lag));
    let names = samples
        .newest()
        .map(|newest| newest.behind.keys().cloned().collect::<Vec<_>>());
    let mut lines: Vec<Series> = names
        .unwrap_or_default()
        .iter()
        .map(|name| Series::new(name, lag_of(name)))
        .collect();
    if lines.len() <= LINES_MAX {
        return lines;
    }
    let worst = |line: &Series| {
        line.points
            .iter()
            .filter_map(|(_, lag)| *lag)
            .fold(0.0, f64::max)
    };
    lines.sort_by(|one, other| worst(other).total_cmp(&worst(one)));
    let rest: Vec<String> = lines
        .split_off(LINES_MAX - 1)
        .into_iter()
        .map(|line| line.name)
        .collect();
    let of_rest = samples.values(|sample| {
        let lags = rest.iter().filter_map(|name| sample.behind.get(name));
        lags.map(|(lag, _)| *lag).reduce(f64::max)
    });
    lines.push(Series::new(
        &format!("{} others, at most", rest.len()),
        of_rest,
    ));
    lines
}

fn ownership(topology: &Result<Topology, Trouble>) -> Markup {
    let topology = match topology {
        Ok(topology) => topology,
        Err(trouble) if trouble.is_not_served() => {
            return html! {
                section {
                    h2 { "Who owns what" }
                    (parts::empty("This node takes no commands, so it owns nothing.", &html! {
                        p { "The console of a node with the role " code { "command-api" } " shows who owns which partition." }
                    }))
                }
            };
        }
        Err(trouble) => {
            return html! {
                section {
                    h2 { "Who owns what" }
                    (parts::notice(Tone::Warn, &trouble.title, &html! { p { (trouble.detail) } }))
                }
            };
        }
    };
    html! {
        section {
            div.heading {
                h2 { "Who owns what" }
                span.quiet { "Log " code { (topology.log) } }
            }
            (nodes(topology))
            (partitions(topology))
        }
    }
}

fn nodes(topology: &Topology) -> Markup {
    let owned = |node: &str| {
        let owners = topology
            .partitions
            .iter()
            .filter_map(|partition| partition.owner.as_ref());
        owners.filter(|owner| owner.node == node).count()
    };
    if topology.nodes.is_empty() {
        return html! {
            p.quiet { "This node, " code { (topology.node) } ", is the only one of its log." }
        };
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Node" }
                th scope="col" { "Address" }
                th.number scope="col" { "Partitions" }
                th scope="col" { "Takes commands" }
                th scope="col" { "Program" }
                th scope="col" { "Seen" }
            } }
            tbody {
                @for node in topology.nodes.iter().take(LISTED_MAX) {
                    tr {
                        th scope="row" {
                            (parts::cut(&node.node)) " "
                            @if node.node == topology.node { (parts::badge(Tone::Note, "this node")) }
                        }
                        td data-name="Address" { (parts::cut(&node.address)) }
                        td.number data-name="Partitions" { (owned(&node.node)) }
                        td data-name="Commands" { @if node.decides { "yes" } @else { "no" } }
                        td data-name="Program" { (node.program) }
                        td data-name="Seen" { (format::moment(&node.seen_at)) }
                    }
                }
            }
        }
    };
    parts::wide("Nodes", &table)
}

/// A field for each partition.
fn partitions(topology: &Topology) -> Markup {
    html! {
        ul.partitions aria-label="Partitions and their owners" {
            @for partition in topology.partitions.iter().take(LISTED_MAX) {
                @match &partition.owner {
                    Some(owner) => li.own[owner.node == topology.node]
                        title={ "Partition " (partition.partition) ": " (owner.node) ", term " (owner.term) } {
                        b { (partition.partition) } " " span { (owner.node) }
                    },
                    None => li.none title={ "Partition " (partition.partition) " has no owner" } {
                        b { (partition.partition) } " " span { "no owner" }
                    },
                }
            }
        }
    }
}
