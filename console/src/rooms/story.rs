//! The story of a conversation: commands, their events, and what they caused, as a tree.
//!
//! Deliberately absent: what is a cause of what, which the node's route says; the data of events,
//! which their streams show.

use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::stream::Actor;
use super::{Parts, parts_of};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// How far a commit is moved to the right at most; what lies deeper stands below it.
const INDENT_MAX: u64 = 8;
const ABOUT: &str =
    "Everything with one correlation id: commands, their events, refusals, and what caused what.";

#[derive(Debug, Deserialize)]
struct Story {
    commits: Vec<Commit>,
    streams: u64,
    refused: u64,
    began_at: String,
    ended_at: String,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Commit {
    commit: String,
    depth: u64,
    cause: String,
    parent: Option<String>,
    parent_event: Option<String>,
    after_ms: Option<i64>,
    stream: String,
    command_id: String,
    command: String,
    causation_id: String,
    actor: Option<Actor>,
    traceparent: Option<String>,
    recorded_at: String,
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    events: Vec<Event>,
    event_count: usize,
}

#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    type_name: String,
    version: u64,
}

/// `GET /console/stories`
pub(crate) async fn rooms(visit: Visit) -> Response {
    if let Some(id) = visit.parameter("open") {
        let path = format!("/console/stories/{}", segment(id));
        return Redirect::to(&visit.link(&path, [])).into_response();
    }
    let next = html! {
        p { "Open the correlation id of a conversation here, or follow one from an event of a "
            a href=(visit.link("/console/streams", [])) { "stream" } "." }
    };
    let content = html! {
        (form(&visit))
        (parts::empty("No conversation is chosen.", &next))
    };
    Frame::of(Room::Stories, ABOUT).page(&visit, content)
}

fn form(visit: &Visit) -> Markup {
    html! {
        section.filters aria-label="Search" {
            form.row method="get" action="/console/stories" role="search" {
                @if let Some(tenant) = visit.foreign_tenant() {
                    input type="hidden" name="tenant" value=(tenant);
                }
                div.field.wide-field {
                    label for="open" { "Correlation id" }
                    input #open name="open" required autocomplete="off" spellcheck="false"
                        autocapitalize="none";
                }
                button { "Open" }
            }
        }
    }
}

/// `GET /console/stories/{correlation}`
pub(crate) async fn page(visit: Visit, path: Parts<String>) -> Response {
    let id = match parts_of(path) {
        Ok(id) => id,
        Err(trouble) => return Frame::below(Room::Stories, "Story").trouble(&visit, &trouble),
    };
    let mut frame = Frame::below(Room::Stories, &*id);
    match story(&visit, &id).await {
        Ok(story) => frame.page(&visit, shown(&visit, &story)),
        Err(trouble) if trouble.code.as_deref() == Some("story_not_found") => {
            frame.status = trouble.status;
            let next = html! { p { (trouble.detail) } };
            let content = html! {
                (form(&visit))
                (parts::empty("There is no such conversation.", &next))
            };
            frame.page(&visit, content)
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn story(visit: &Visit, id: &str) -> Result<Story, Trouble> {
    let path = format!("/v1/stories/{}", segment(id));
    visit.node()?.get(&path).await
}

fn shown(visit: &Visit, story: &Story) -> Markup {
    let count = story.commits.len() as u64;
    html! {
        @if !story.complete {
            (parts::notice(Tone::Note, "There is more", &html! {
                p { "Only the earliest part of so long a conversation is shown." }
            }))
        }
        section {
            p.quiet {
                (format::counted(count, "command")) " (" (format::grouped(story.refused)) " refused) in "
                (format::counted(story.streams, "stream")) ", from " (format::moment(&story.began_at))
                " to " (format::moment(&story.ended_at)) "."
            }
            ol.story {
                @for commit in &story.commits { (one(visit, story, commit)) }
            }
        }
    }
}

fn one(visit: &Visit, story: &Story, commit: &Commit) -> Markup {
    let stream = format!("/console/streams/{}", segment(&commit.stream));
    let command = format!("{stream}/commands/{}", segment(&commit.command_id));
    let at = |version: u64| {
        let version = version.to_string();
        visit.link(&stream, [("show", "life"), ("at", &*version)])
    };
    let depth = commit.depth.min(INDENT_MAX);
    html! {
        li id={ "c" (commit.commit) } class={ "depth" (depth) } {
            div.line {
                h2 { a href=(visit.link(&command, [])) { (commit.command) } }
                a href=(visit.link(&stream, [])) { (parts::cut(&commit.stream)) }
                @if commit.outcome == "refused" {
                    (parts::badge(Tone::Bad, commit.code.as_deref().unwrap_or("refused")))
                }
                span.when {
                    (format::moment(&commit.recorded_at))
                    @if let Some(ms) = commit.after_ms { " · " (after(ms)) }
                }
            }
            @if let Some(detail) = &commit.detail { p { (parts::clamped(detail)) } }
            @if !commit.events.is_empty() {
                ul.caused {
                    @for event in &commit.events {
                        li { a href=(at(event.version)) { (event.type_name) }
                            span.quiet { " version " (event.version) } }
                    }
                    @if commit.event_count > commit.events.len() {
                        li.quiet { (commit.event_count - commit.events.len()) " more events" }
                    }
                }
            }
            dl.facts {
                dt { "Cause" } dd { (cause(story, commit)) }
                @if let Some(actor) = &commit.actor { dt { "Actor" } dd { (actor.kind) " " (actor.id) } }
                dt { "Command id" } dd { code { (commit.command_id) } }
                @if let Some(trace) = &commit.traceparent { dt { "Trace" } dd { code { (trace) } } }
            }
        }
    }
}

/// What caused a commit, in words, with the way to it.
fn cause(story: &Story, commit: &Commit) -> Markup {
    let parent = commit.parent.as_ref();
    let parent = parent.and_then(|id| story.commits.iter().find(|one| one.commit == *id));
    let event = parent.zip(commit.parent_event.as_ref());
    let event = event.and_then(|(parent, id)| parent.events.iter().find(|one| one.id == *id));
    html! {
        @match (&*commit.cause, parent) {
            ("none", _) => span.quiet { "none named: it begins the conversation" },
            ("outside", _) => { code { (commit.causation_id) } span.quiet { ", outside of the conversation" } },
            ("circle", _) => { code { (commit.causation_id) } span.quiet { ", in a circle of causes" } },
            (_, Some(parent)) => {
                a href={ "#c" (parent.commit) } {
                    @match event { Some(event) => (event.type_name), None => (parent.command) }
                }
            },
            (_, None) => code { (commit.causation_id) },
        }
    }
}

/// How long after its cause a commit was recorded.
fn after(ms: i64) -> String {
    let seconds = format::seconds(ms.unsigned_abs() as f64 / 1e3);
    match ms {
        ms if ms < 0 => format!("{seconds} before its cause, by another clock"),
        _ => format!("{seconds} after its cause"),
    }
}
