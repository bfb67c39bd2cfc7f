//! A stream over its life: its state after any event, beside the event that made it, with what it
//! changed; and what differs between any two versions.
//!
//! Invariant: each moment has an address of its own, and is reached by links and forms without a
//! script. Deliberately absent: the frame, and the list of events (`stream`).

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::stream::{self, Actor, Events};
use crate::format;
use crate::json;
use crate::node::{Trouble, segment, with_query};
use crate::parts::{self, Tone};
use crate::visit::Visit;

#[derive(Debug, Deserialize)]
struct Summary {
    version: u64,
    known: bool,
    category: String,
}

#[derive(Debug, Deserialize)]
struct State {
    state: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
struct Diff {
    from: Standing,
    to: Standing,
    changes: Vec<Change>,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Standing {
    version: u64,
    recorded_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Change {
    path: String,
    kind: String,
    before: Box<RawValue>,
    after: Box<RawValue>,
    by: Option<Author>,
}

#[derive(Debug, Deserialize)]
struct Author {
    version: u64,
    #[serde(rename = "type")]
    type_name: String,
    command: String,
    command_id: String,
    actor: Option<Actor>,
    recorded_at: String,
}

async fn summary(visit: &Visit, name: &str) -> Result<Summary, Trouble> {
    let path = format!("/v1/streams/{}", segment(name));
    visit.node()?.get(&path).await
}

/// The number in a parameter, at most `most`; else `default`.
fn number(visit: &Visit, name: &str, default: u64, most: u64) -> u64 {
    let given = visit.parameter(name).and_then(|text| text.parse().ok());
    given.unwrap_or(default).min(most)
}

async fn diff(visit: &Visit, name: &str, from: u64, to: u64) -> Result<Diff, Trouble> {
    let (from, to) = (from.to_string(), to.to_string());
    let query = [("from", &*from), ("to", &to)];
    let path = with_query(&format!("/v1/streams/{}/diff", segment(name)), query);
    visit.node()?.get(&path).await
}

/// The state after one event, with a slider over all of them.
pub(super) async fn life(visit: &Visit, name: &str) -> Result<Markup, Trouble> {
    let summary = summary(visit, name).await?;
    if !summary.known {
        return Ok(unknown(&summary));
    }
    let at = number(visit, "at", summary.version, summary.version);
    let text = at.to_string();
    let path = format!("/v1/streams/{}/state", segment(name));
    let path = with_query(&path, [("at_version", &*text)]);
    let state: State = visit.node()?.get(&path).await?;
    let (event, changed) = match at.checked_sub(1) {
        None => (None, None),
        Some(before) => {
            let path = format!("/v1/streams/{}/events", segment(name));
            let path = with_query(&path, [("limit", "1"), ("from_version", &text)]);
            let events: Events = visit.node()?.get(&path).await?;
            let event = events.events.into_iter().next();
            (event, Some(diff(visit, name, before, at).await?))
        }
    };
    let changes = changed.iter().flat_map(|diff| &diff.changes);
    let places: Vec<&str> = changes.map(|change| change.path.as_str()).collect();
    let label = format!("State at version {at}");
    Ok(html! {
        (slider(visit, at, summary.version))
        div.beside {
            section {
                h2 { "State at version " (format::grouped(at)) }
                @if at == 0 { p.quiet { "Before the first event: the empty state." } }
                (json::marked_block(&label, state.state.get(), &places))
            }
            section {
                h2 { "The event that made it" }
                @match &event {
                    Some(event) => { ol.events { (stream::one(visit, name, event)) } },
                    None => p.quiet { "No event happened yet." },
                }
            }
        }
        @if let Some(diff) = &changed {
            section {
                h2 { "What the event changed" }
                (table(visit, diff, true))
            }
        }
    })
}

fn unknown(summary: &Summary) -> Markup {
    let text = html! {
        p { "This program has no rules for the category " code { (summary.category) }
            ", so it cannot fold the stream's events." }
    };
    parts::notice(
        Tone::Note,
        "The states of this stream are not known here",
        &text,
    )
}

/// The slider, and links that do without it.
fn slider(visit: &Visit, at: u64, last: u64) -> Markup {
    let link = |at: u64| {
        let at = at.to_string();
        visit.link(&visit.path, [("show", "life"), ("at", &*at)])
    };
    // Where the slider was moved, the next page goes on in it.
    let is_moved = visit.parameter("by") == Some("slider");
    html! {
        section.slider aria-label="Moment" {
            form method="get" data-slider {
                input type="hidden" name="show" value="life";
                input type="hidden" name="by" value="slider";
                @if let Some(tenant) = visit.foreign_tenant() {
                    input type="hidden" name="tenant" value=(tenant);
                }
                label for="at" { "Version " output for="at" { (at) } " of " (format::grouped(last)) }
                input #at type="range" name="at" min="0" max=(last) step="1" value=(at)
                    autofocus[is_moved] autocomplete="off";
                button { "Show" }
            }
            nav.pages aria-label="Versions" {
                @if at > 0 {
                    a.button href=(link(0)) { "Start" }
                    a.button href=(link(at - 1)) rel="prev" { "Earlier" }
                }
                @if at < last {
                    a.button href=(link(at + 1)) rel="next" { "Later" }
                    a.button href=(link(last)) { "Newest" }
                }
            }
        }
    }
}

/// What differs between two versions.
pub(super) async fn compare(visit: &Visit, name: &str) -> Result<Markup, Trouble> {
    let summary = summary(visit, name).await?;
    if !summary.known {
        return Ok(unknown(&summary));
    }
    let last = summary.version;
    let to = number(visit, "to", last, last);
    let from = number(visit, "from", to.saturating_sub(1), last);
    let (from, to) = (from.min(to), from.max(to));
    let diff = diff(visit, name, from, to).await?;
    Ok(html! {
        section.filters aria-label="Versions" {
            form.row method="get" {
                input type="hidden" name="show" value="compare";
                @if let Some(tenant) = visit.foreign_tenant() {
                    input type="hidden" name="tenant" value=(tenant);
                }
                div.field {
                    label for="from" { "From version" }
                    input #from type="number" name="from" min="0" max=(last) value=(from) required;
                }
                div.field {
                    label for="to" { "To version" }
                    input #to type="number" name="to" min="0" max=(last) value=(to) required;
                }
                button { "Compare" }
            }
        }
        section {
            h2 { "From version " (format::grouped(diff.from.version)) " to " (format::grouped(diff.to.version)) }
            p.quiet { (standing(&diff.from)) " – " (standing(&diff.to)) }
            (table(visit, &diff, false))
        }
    })
}

fn standing(standing: &Standing) -> Markup {
    match &standing.recorded_at {
        Some(at) => html! { "recorded " (format::moment(at)) },
        None => html! { "the empty state" },
    }
}

/// The fields that differ. If one event made all of them, it is not named for each.
fn table(visit: &Visit, diff: &Diff, is_of_one: bool) -> Markup {
    if diff.changes.is_empty() {
        return html! { p.quiet { "No field differs." } };
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Field" }
                th scope="col" { "Before" }
                th scope="col" { "After" }
                @if !is_of_one {
                    th scope="col" { "Changed by" }
                    th scope="col" { "Actor" }
                    th scope="col" { "Recorded" }
                }
            } }
            tbody {
                @for change in &diff.changes {
                    tr {
                        th scope="row" { code { (field(&change.path)) } }
                        td.text data-name="Before" { (value(&change.before, change.kind == "added")) }
                        td.text data-name="After" { (value(&change.after, change.kind == "removed")) }
                        @if !is_of_one { (author(visit, change.by.as_ref())) }
                    }
                }
            }
        }
    };
    html! {
        (parts::wide("Changed fields", &table))
        @if !diff.complete { p.quiet { "There are more changes than are shown at once." } }
    }
}

fn field(path: &str) -> Markup {
    match path {
        "" => html! { "the whole state" },
        path => parts::cut(path),
    }
}

fn value(text: &RawValue, is_absent: bool) -> Markup {
    match is_absent {
        true => html! { span.quiet { "none" } },
        false => html! { code { (parts::clamped(text.get())) } },
    }
}

fn author(visit: &Visit, by: Option<&Author>) -> Markup {
    let Some(by) = by else {
        return html! { td {} td {} td {} };
    };
    let at = by.version.to_string();
    let href = visit.link(&visit.path, [("show", "life"), ("at", &*at)]);
    let title = format!("By the command {} {}", by.command, by.command_id);
    html! {
        td data-name="Changed by" {
            a href=(href) title=(title) { (by.version) " " (by.type_name) }
        }
        td data-name="Actor" {
            @match &by.actor {
                Some(actor) => { (actor.kind) " " (actor.id) },
                None => span.quiet { "not named" },
            }
        }
        td data-name="Recorded" { (format::moment(&by.recorded_at)) }
    }
}
