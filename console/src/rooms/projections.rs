//! The projections: how each is, how far it is behind, and how fast it goes.
//!
//! Deliberately absent: what can be done with one (`projection`).

use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment};
use crate::parts::{self, Tone};
use crate::visit::Visit;

#[derive(Debug, Deserialize)]
pub(super) struct Projections {
    pub(super) projections: Vec<Projection>,
}

/// A projection, as the operators' routes show it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Projection {
    pub(super) name: String,
    pub(super) version: Option<u64>,
    pub(super) state: String,
    #[serde(default)]
    pub(super) about: Option<String>,
    #[serde(default)]
    pub(super) tables: Vec<String>,
    /// Absent if the log could not be asked.
    pub(super) gap: Option<u64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) rate_per_second: Option<f64>,
    pub(super) seconds_left: Option<f64>,
    #[serde(default)]
    pub(super) parked_streams: u64,
    pub(super) paused: Option<Paused>,
    pub(super) error: Option<Failure>,
    /// What can be done next, if two versions stand beside each other.
    pub(super) next: Option<String>,
    #[serde(default)]
    pub(super) generations: Vec<Generation>,
}

/// Who paused a projection, when and why.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Paused {
    pub(super) at: String,
    pub(super) by: Option<String>,
    pub(super) reason: Option<String>,
}

/// What stopped a projection.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) at: Option<String>,
    pub(super) partition: Option<u32>,
    pub(super) offset: Option<u64>,
    pub(super) stream: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) reason: String,
    pub(super) remedy: Option<String>,
}

/// One set of a projection's tables.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) version: u64,
    pub(super) state: String,
    pub(super) created_at: Option<String>,
    pub(super) keep_until: Option<String>,
    pub(super) comparison: Option<Comparison>,
    /// When it was last compared with the log, and what was found.
    pub(super) verified_at: Option<String>,
    pub(super) verified: Option<Comparison>,
    #[serde(default)]
    pub(super) partitions: Vec<Partition>,
}

/// How two sets of tables differ.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Comparison {
    pub(super) at: Option<String>,
    pub(super) equal: bool,
    #[serde(default)]
    pub(super) tables: Vec<Compared>,
}

/// One compared table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Compared {
    pub(super) table: String,
    pub(super) rows: Option<u64>,
    pub(super) rows_live: Option<u64>,
    /// The columns that only one of the tables has.
    #[serde(default)]
    pub(super) not_compared: Vec<String>,
    #[serde(default)]
    pub(super) differences: Vec<Difference>,
}

/// One value that differs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Difference {
    pub(super) key: serde_json::Value,
    pub(super) column: Option<String>,
    pub(super) live: serde_json::Value,
    pub(super) new: serde_json::Value,
}

/// How far a generation is in one partition.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u32,
    pub(super) position: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) head: Option<u64>,
    pub(super) gap: Option<u64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) owner: Option<Owner>,
    pub(super) stopped: Option<String>,
    pub(super) trouble: Option<String>,
}

/// The process that folds a partition.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Owner {
    pub(super) member: Option<String>,
    pub(super) name: Option<String>,
}

impl Projection {
    /// The part of the log that the live generation has taken up, if it is known.
    pub(super) fn share(&self) -> Option<f64> {
        let shown = self
            .generations
            .iter()
            .find(|generation| generation.state == "live");
        shown.or(self.generations.first())?.share()
    }

    /// Its state in one word, and its colour.
    pub(super) fn badge(&self) -> Markup {
        parts::badge(tone(&self.state), &self.state)
    }
}

impl Generation {
    /// The part of the log that it has taken up.
    // The shares are shown in whole percents.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn share(&self) -> Option<f64> {
        let ends: Option<Vec<u64>> = self.partitions.iter().map(Partition::end).collect();
        let all: u64 = ends.filter(|ends| !ends.is_empty())?.iter().sum();
        let gaps: Option<Vec<u64>> = self
            .partitions
            .iter()
            .map(|partition| partition.gap)
            .collect();
        let gap: u64 = gaps?.iter().sum();
        Some(if all == 0 {
            1.0
        } else {
            1.0 - gap.min(all) as f64 / all as f64
        })
    }
}

impl Partition {
    /// The records of the log in this partition.
    fn end(&self) -> Option<u64> {
        self.head
    }
}

/// The colour of a state.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "live" | "ready" => Tone::Good,
        "building" => Tone::Note,
        "behind" | "parked" | "outdated" => Tone::Warn,
        "stopped" | "stuck" => Tone::Bad,
        _ => Tone::Quiet,
    }
}

/// What a state means, and what to do.
pub(super) fn meaning(state: &str) -> &'static str {
    match state {
        "live" => "Its rows are served, and it takes up new records as they come.",
        "building" => {
            "Its first rows are being made from the start of the log; none are served yet."
        }
        "behind" => "Its rows are served, and it is catching up.",
        "paused" => "It takes up nothing until it is resumed; its rows are served as they are.",
        "stopped" => "It met an event that it cannot take up, and goes no further.",
        "parked" => "Some streams are set aside; it takes up all others.",
        "outdated" => "The program has another version of its rule than the rows.",
        "stuck" => "There is something to take up, and it does not move.",
        "absent" => "No process has made its tables yet.",
        "unknown" => "Postgres has it, and this program does not.",
        _ => "",
    }
}

/// The processes that fold.
#[derive(Debug, Deserialize)]
struct Members {
    members: Vec<Member>,
}

/// A process that folds, as it last reported itself.
#[derive(Debug, Deserialize)]
struct Member {
    id: String,
    name: String,
    started_at: String,
    seen_at: String,
    #[serde(default)]
    leases: u64,
}

const ABOUT: &str = "What folds the events of the log into the tables of the read models.";

/// `GET /console/projections`
pub(crate) async fn page(visit: Visit) -> Response {
    let frame = Frame::of(Room::Projections, ABOUT);
    match content(&visit).await {
        Ok(content) => {
            let live = visit.link("/console/live/projections", []);
            let frame = frame.aside(parts::live_switch());
            frame.page(&visit, parts::live(&live, &content))
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

/// `GET /console/live/projections`
pub(crate) async fn live(visit: Visit) -> Response {
    crate::live::stream(visit, async |visit| {
        let content = content(&visit).await;
        content.unwrap_or_else(|trouble| parts::trouble(&visit, &trouble))
    })
}

async fn content(visit: &Visit) -> Result<Markup, Trouble> {
    let answer: Projections = visit.node()?.get("/v1/projections").await?;
    let members = visit.node()?.get::<Members>("/v1/members").await;
    Ok(html! {
        (shown(visit, &answer.projections))
        @match &members {
            Ok(members) => (processes(&members.members)),
            Err(trouble) if trouble.is_not_served() => {},
            Err(trouble) => (parts::trouble(visit, trouble)),
        }
    })
}

fn processes(members: &[Member]) -> Markup {
    if members.is_empty() {
        let next = html! { p { "Start a node with the role " code { "projector" } "." } };
        return parts::empty("No process folds at present.", &next);
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Process" }
                th.number scope="col" { "Partitions of projections" }
                th scope="col" { "Started" }
                th scope="col" { "Seen" }
            } }
            tbody {
                @for member in members {
                    tr {
                        th scope="row" title=(member.id) { (parts::cut(&member.name)) }
                        td.number data-name="Partitions" { (format::grouped(member.leases)) }
                        td data-name="Started" { (format::moment(&member.started_at)) }
                        td data-name="Seen" { (format::moment(&member.seen_at)) }
                    }
                }
            }
        }
    };
    html! { section { h2 { "Processes that fold" } (parts::wide("Processes that fold", &table)) } }
}

fn shown(visit: &Visit, projections: &[Projection]) -> Markup {
    if projections.is_empty() {
        let next =
            html! { p { "Declare a projection with a table in your program, and start it." } };
        return parts::empty("This program has no projections.", &next);
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Projection" }
                th scope="col" { "State" }
                th scope="col" { "Taken up" }
                th.number scope="col" { "Gap" }
                th.number scope="col" { "Lag" }
                th.number scope="col" { "Rate" }
                th.number scope="col" { "Time left" }
                th.number scope="col" { "Parked" }
            } }
            tbody { @for projection in projections { (row(visit, projection)) } }
        }
    };
    html! { section { (parts::wide("Projections", &table)) } }
}

fn row(visit: &Visit, projection: &Projection) -> Markup {
    let path = format!("/console/projections/{}", segment(&projection.name));
    html! {
        tr {
            th scope="row" {
                a href=(visit.link(&path, [])) { (parts::cut(&projection.name)) }
                @if let Some(version) = projection.version { " " span.quiet { "v" (version) } }
            }
            td data-name="State" title=(meaning(&projection.state)) { (projection.badge()) }
            td data-name="Taken up" {
                @match projection.share() {
                    Some(share) => (parts::bar(&format!("Taken up by {}", projection.name), share)),
                    None => span.quiet { "–" },
                }
            }
            td.number data-name="Gap" { (gap(projection.gap)) }
            td.number data-name="Lag" { (lag(projection.lag_seconds)) }
            td.number data-name="Rate" { (rate(projection)) }
            td.number data-name="Time left" { (left(projection)) }
            td.number data-name="Parked" { (parked(visit, projection)) }
        }
    }
}

/// A number of records, where it is known.
pub(super) fn gap(gap: Option<u64>) -> String {
    gap.map_or_else(|| "–".to_owned(), format::grouped)
}

/// How long the oldest of them has been in the log, where it is known.
pub(super) fn lag(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), format::seconds)
}

pub(super) fn rate(projection: &Projection) -> String {
    let rate = projection.rate_per_second;
    rate.map_or_else(
        || "–".to_owned(),
        |rate| format!("{}/s", format::measured(rate)),
    )
}

pub(super) fn left(projection: &Projection) -> String {
    match projection.seconds_left {
        Some(left) if left > 0.0 => format::seconds(left),
        _ if projection.gap == Some(0) => "none".to_owned(),
        _ => "–".to_owned(),
    }
}

fn parked(visit: &Visit, projection: &Projection) -> Markup {
    match projection.parked_streams {
        0 => html! { "0" },
        number => {
            let link = visit.link("/console/parked", [("projection", &*projection.name)]);
            let title = format::counted(number, "parked stream");
            html! { a href=(link) title=(title) { (format::grouped(number)) } }
        }
    }
}
