//! One stream: its events with their data, and what became of a command.
//!
//! Invariant: data are shown as the log has them, digit by digit. Deliberately absent: states (`life`),
//! and changes; a command is sent through its route.

use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Parts, life, parts_of};
use crate::format;
use crate::json;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment, with_query};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// The events of a page.
const LIMIT: u64 = 50;

#[derive(Debug, Deserialize)]
pub(super) struct Events {
    version: u64,
    pub(super) events: Vec<Event>,
    next: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    id: String,
    #[serde(rename = "type")]
    type_name: String,
    schema: u16,
    version: u64,
    occurred_at: String,
    recorded_at: String,
    data: Box<RawValue>,
    command_id: String,
    command: String,
    correlation_id: String,
    causation_id: String,
    actor: Option<Actor>,
    traceparent: Option<String>,
}

impl Event {
    pub(super) fn version(&self) -> u64 {
        self.version
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Actor {
    pub(super) id: String,
    pub(super) kind: String,
}

/// `GET /console/streams/{stream}`
pub(crate) async fn page(visit: Visit, path: Parts<String>) -> Response {
    let name = match parts_of(path) {
        Ok(name) => name,
        Err(trouble) => return Frame::below(Room::Streams, "Stream").trouble(&visit, &trouble),
    };
    let frame = Frame::below(Room::Streams, &*name);
    let part = Part::of(visit.parameter("show"));
    let content = match part {
        Part::Events => events(&visit, &name).await,
        Part::Life => life::life(&visit, &name).await,
        Part::Compare => life::compare(&visit, &name).await,
    };
    match content {
        Ok(content) => frame.page(&visit, html! { (tabs(&visit, part)) (content) }),
        Err(trouble) if trouble.code.as_deref() == Some("stream_not_found") => {
            let next = html! {
                p { (trouble.detail) }
                p { a href=(visit.link("/console/streams", [])) { "All streams" } }
            };
            let mut frame = frame;
            frame.status = trouble.status;
            frame.page(&visit, parts::empty("There is no such stream.", &next))
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

/// What is shown of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Events,
    Life,
    Compare,
}

impl Part {
    /// The part of this name; also `state`, as the life was named before.
    fn of(name: Option<&str>) -> Self {
        match name {
            Some("life" | "state") => Self::Life,
            Some("compare") => Self::Compare,
            _ => Self::Events,
        }
    }
}

fn tabs(visit: &Visit, shown: Part) -> Markup {
    let tab = |query: Option<&'static str>, name: &str, part: Part| {
        let href = visit.link(&visit.path, query.map(|part| ("show", part)));
        html! { a href=(href) aria-current=[(part == shown).then_some("page")] { (name) } }
    };
    html! {
        nav.tabs aria-label="What of the stream" {
            (tab(None, "Events", Part::Events))
            (tab(Some("life"), "Life", Part::Life))
            (tab(Some("compare"), "Compare", Part::Compare))
        }
    }
}

async fn events(visit: &Visit, name: &str) -> Result<Markup, Trouble> {
    let from = visit
        .parameter("from")
        .and_then(|from| from.parse::<u64>().ok());
    let from = from.unwrap_or(1).max(1);
    let (limit, from_text) = (LIMIT.to_string(), from.to_string());
    let query = [("limit", &*limit), ("from_version", &from_text)];
    let path = with_query(&format!("/v1/streams/{}/events", segment(name)), query);
    let events: Events = visit.node()?.get(&path).await?;
    Ok(shown(visit, name, from, &events))
}

fn shown(visit: &Visit, name: &str, from: u64, events: &Events) -> Markup {
    let number = events.version;
    if events.events.is_empty() {
        let title = match number {
            0 => "The stream has no events.",
            _ => "The stream has no events from there on.",
        };
        let next = html! {
            @if number == 0 {
                p { "Every command so far was refused. "
                    a href=(visit.link("/console/refusals", [])) { "Refusals" } }
            } @else { p { a href=(visit.link(&visit.path, [])) { "From the first event" } } }
        };
        return parts::empty(title, &next);
    }
    let place = |from: u64| {
        let from = from.to_string();
        visit.link(&visit.path, [("from", &*from)])
    };
    let last = events.events.last().map_or(from, |event| event.version);
    let newest = number.saturating_sub(LIMIT) + 1;
    html! {
        section {
            p.quiet {
                "Events " (format::grouped(from)) " to " (format::grouped(last)) " of " (format::grouped(number)) "."
            }
            ol.events {
                @for event in &events.events { (one(visit, name, event)) }
            }
            @if from > 1 || events.next.is_some() {
                nav.pages aria-label="Pages" {
                    @if from > 1 {
                        a.button href=(visit.link(&visit.path, [])) { "First" }
                        a.button href=(place(from.saturating_sub(LIMIT).max(1))) rel="prev" { "Earlier" }
                    }
                    @if let Some(next) = events.next {
                        a.button href=(place(next)) rel="next" { "Later" }
                        a.button href=(place(newest.max(1))) { "Newest" }
                    }
                }
            }
        }
    }
}

/// An event with its envelope.
pub(super) fn one(visit: &Visit, stream: &str, event: &Event) -> Markup {
    let command = format!(
        "/console/streams/{}/commands/{}",
        segment(stream),
        segment(&event.command_id)
    );
    let story = format!("/console/stories/{}", segment(&event.correlation_id));
    html! {
        li.event id={ "v" (event.version) } {
            div.line {
                span.version title={ "Version " (event.version) } { (event.version) }
                h2 { (event.type_name) }
                @if event.schema > 1 { (parts::badge(Tone::Quiet, &format!("schema {}", event.schema))) }
                span.when { (format::moment(&event.occurred_at)) }
            }
            (json::block(&format!("Data of event {}", event.version), event.data.get()))
            dl.facts {
                dt { "Command" } dd { a href=(visit.link(&command, [])) { (event.command) } }
                @if let Some(actor) = &event.actor { dt { "Actor" } dd { (actor.kind) " " (actor.id) } }
                dt { "Recorded" } dd { (format::moment(&event.recorded_at)) }
                dt { "Command id" } dd { code { (event.command_id) } }
                dt { "Correlation" } dd {
                    a href=(visit.link(&story, [])) { code { (event.correlation_id) } }
                }
                dt { "Causation" } dd { code { (event.causation_id) } }
                @if let Some(trace) = &event.traceparent { dt { "Trace" } dd { code { (trace) } } }
                dt { "Event id" } dd { code { (event.id) } }
            }
        }
    }
}

/// `GET /console/streams/{stream}/commands/{id}`
pub(crate) async fn command(visit: Visit, path: Parts<(String, String)>) -> Response {
    let (name, id) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Streams, "Command").trouble(&visit, &trouble),
    };
    let above = visit.link(&format!("/console/streams/{}", segment(&name)), []);
    let frame = Frame::below(Room::Streams, format!("Command {id}"))
        .above(above, &*name)
        .about("What became of the command, as the log says.");
    match outcome(&visit, &name, &id).await {
        Ok(outcome) => {
            let content = html! { section { (json::block("Outcome", outcome.get())) } };
            frame.page(&visit, content)
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn outcome(visit: &Visit, name: &str, id: &str) -> Result<Box<RawValue>, Trouble> {
    let path = format!("/v1/streams/{}/commands/{}", segment(name), segment(id));
    visit.node()?.get(&path).await
}
