//! Why a row of a read model is what it is: the contributions that made it, oldest first, each with the
//! value that its column then had.
//!
//! Deliberately absent: adding them up, which the node's route does.

use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::stream::Actor;
use super::{Parts, parts_of};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment, with_query};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// How many commits are on a page.
const PAGE_SIZE: &str = "50";

#[derive(Debug, Deserialize)]
struct Why {
    model: String,
    column: Option<String>,
    contributions: Vec<Contribution>,
    adds_up: Option<bool>,
    differences: Vec<Difference>,
    left_out: Vec<LeftOut>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Contribution {
    stream: String,
    version: u64,
    event_type: Option<String>,
    recorded_at: String,
    command_id: String,
    command: String,
    correlation_id: String,
    actor: Option<Actor>,
    table: String,
    effect: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
struct Cell {
    column: String,
    rule: String,
    given: Value,
    value: Value,
}

#[derive(Debug, Deserialize)]
struct Difference {
    table: String,
    column: Option<String>,
    stored: Value,
    contributed: Value,
}

#[derive(Debug, Deserialize)]
struct LeftOut {
    stream: String,
    position: u64,
}

/// The address of the page that says what made a row, or one column of it.
pub(super) fn link(visit: &Visit, model: &str, key: &str, column: Option<&str>) -> String {
    let path = format!("/console/models/{}/{}/why", segment(model), segment(key));
    visit.link(&path, column.map(|column| ("column", column)))
}

/// `GET /console/models/{model}/{key}/why`
pub(crate) async fn page(visit: Visit, path: Parts<(String, String)>) -> Response {
    let (name, key) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Models, "Why").trouble(&visit, &trouble),
    };
    let row = format!("/console/models/{}/{}", segment(&name), segment(&key));
    let title = match visit.parameter("column") {
        Some(column) => format!("Why {column}"),
        None => "Why".to_owned(),
    };
    let above = format!("{name} · {}", key.replace(',', " · "));
    let frame = Frame::below(Room::Models, title).above(visit.link(&row, []), above);
    match why(&visit, &name, &key).await {
        Ok(why) => frame.page(&visit, shown(&visit, &key, &why)),
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn why(visit: &Visit, name: &str, key: &str) -> Result<Why, Trouble> {
    let path = format!("/v1/read/{}/{}/why", segment(name), segment(key));
    let mut query = vec![("limit", PAGE_SIZE)];
    for name in ["column", "as_of", "after"] {
        query.extend(visit.parameter(name).map(|value| (name, value)));
    }
    visit.node()?.get(&with_query(&path, query)).await
}

fn shown(visit: &Visit, key: &str, why: &Why) -> Markup {
    let is_part = visit.parameter("after").is_some() || why.next.is_some();
    let first = visit.parameter("after").map(|_| visit.changed(&[]));
    let next = why.next.as_ref();
    let next = next.map(|next| visit.kept(|_, _| true, [("after", &**next)]));
    html! {
        (sum(why, is_part))
        section {
            @if why.column.is_some() {
                p { a href=(link(visit, &why.model, key, None)) { "All columns of the row" } }
            }
            @if why.contributions.is_empty() {
                (parts::empty("Nothing on this page contributed.", &html! {
                    p { "The commits here gave other columns their values." }
                }))
            } @else {
                (parts::wide("Contributions", &table(visit, why)))
            }
            (parts::pages(first.as_deref(), next.as_deref()))
        }
    }
}

/// Whether the contributions give the stored row.
fn sum(why: &Why, is_part: bool) -> Markup {
    html! {
        @match why.adds_up {
            Some(true) if is_part => {
                p.quiet { "Up to the end of this page, the contributions add up to the row as it was then." }
            }
            Some(true) => p.quiet { "The contributions add up to the stored row." },
            None => p.quiet { "The row as it was then is not kept, so it was not compared." },
            Some(false) => (parts::notice(Tone::Bad, "The contributions do not add up to the stored row", &html! {
                ul {
                    @for one in &why.differences {
                        li {
                            code { (one.column.as_deref().unwrap_or("the row")) } " of " (one.table) ": "
                            (plain(&one.stored)) " is stored, the contributions give "
                            (plain(&one.contributed)) "."
                        }
                    }
                }
            })),
        }
        @if !why.left_out.is_empty() {
            (parts::notice(Tone::Note, "Parked streams are left out", &html! {
                ul {
                    @for one in &why.left_out {
                        li { (one.stream) ", from position " (one.position) " on" }
                    }
                }
            }))
        }
    }
}

fn table(visit: &Visit, why: &Why) -> Markup {
    html! {
        table {
            thead { tr {
                @for name in ["Recorded", "Event", "Stream", "Column", "Given", "Value then", "Actor", "Command"] {
                    th scope="col" { (name) }
                }
            } }
            tbody {
                @for one in &why.contributions {
                    @if one.cells.is_empty() || one.effect == "replaced" {
                        tr { (origin(visit, one))
                            td { "the row " (one.effect) } td {} td {} (author(visit, one)) }
                    }
                    @for cell in &one.cells {
                        tr {
                            (origin(visit, one))
                            td { code title=(cell.rule) {
                                @if one.table != why.model { (one.table) "." } (cell.column)
                            } }
                            td.number[cell.given.is_number()] { (value(&cell.given)) }
                            td.number[cell.value.is_number()] { (value(&cell.value)) }
                            (author(visit, one))
                        }
                    }
                }
            }
        }
    }
}

/// Where a contribution comes from.
fn origin(visit: &Visit, one: &Contribution) -> Markup {
    let stream = format!("/console/streams/{}", segment(&one.stream));
    let version = one.version.to_string();
    let life = visit.link(&stream, [("show", "life"), ("at", &*version)]);
    html! {
        td { (format::moment(&one.recorded_at)) }
        th scope="row" {
            @match &one.event_type {
                Some(event) => a href=(life) { (event) },
                None => "commit",
            }
        }
        td { a href=(visit.link(&stream, [])) { (parts::cut(&one.stream)) } " " span.quiet { (version) } }
    }
}

/// Who asked for it, and how.
fn author(visit: &Visit, one: &Contribution) -> Markup {
    let command = format!(
        "/console/streams/{}/commands/{}",
        segment(&one.stream),
        segment(&one.command_id)
    );
    let story = format!("/console/stories/{}", segment(&one.correlation_id));
    html! {
        td {
            @match &one.actor {
                Some(actor) => { (actor.kind) " " (actor.id) },
                None => span.quiet { "not named" },
            }
        }
        td { a href=(visit.link(&command, [])) { (one.command) } " · "
            a href=(visit.link(&story, [])) { "story" } }
    }
}

fn value(value: &Value) -> Markup {
    match value {
        Value::Null => html! { span.quiet title="empty" { "–" } },
        value => parts::cut(&plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
