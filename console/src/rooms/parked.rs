//! Parked streams: events that a projection could not take up, with what stands behind them in their
//! stream; and the ways to try again or to pass over them.
//!
//! Deliberately absent: which events are parked, and what becomes of them, which the node decides.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::stream::Actor;
use super::{Parts, parts_of};
use crate::form::{self, Action, Form};
use crate::format;
use crate::json;
use crate::layout::{Frame, Room, icon};
use crate::node::{Trouble, segment, with_query};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// The parked streams of a page.
const LIMIT: &str = "50";
const ABOUT: &str = "Streams that a projection has set aside, because it could not take up one of \
                     their events. Everything behind that event waits with it, in order.";

const RETRY: Action = Action {
    name: "retry",
    button: "Retry",
    about: "The projection takes up the parked commits again, in order. If the reason is gone, the \
            stream is released; otherwise it stays parked.",
    done: "The parked commits are tried again.",
    tone: Tone::Note,
};
const DISCARD: Action = Action {
    name: "discard",
    button: "Discard the event",
    about: "The projection passes over the event that it could not take up, for good: a rebuild and \
            a verification do so, too. The log keeps the event.",
    done: "The event is discarded.",
    tone: Tone::Bad,
};
const ACTIONS: [Action; 2] = [RETRY, DISCARD];

#[derive(Debug, Deserialize)]
struct ParkedStreams {
    parked: Vec<Parked>,
    next: Option<String>,
}

/// A parked stream.
#[derive(Debug, Deserialize)]
struct Parked {
    projection: String,
    tenant: Option<String>,
    stream: String,
    partition: Option<u32>,
    position: Option<u64>,
    event_type: Option<String>,
    #[serde(default)]
    commits: u64,
    reason: String,
    parked_at: String,
    /// How often it was tried.
    attempts: Option<u64>,
    /// What an operator asked for, until it is done.
    wish: Option<String>,
}

/// A parked stream with what waits.
#[derive(Debug, Deserialize)]
struct Details {
    #[serde(flatten)]
    parked: Parked,
    #[serde(default)]
    waiting: Vec<Waiting>,
    /// How many commits wait behind those.
    #[serde(default)]
    more: u64,
}

/// A commit that waits.
#[derive(Debug, Deserialize)]
struct Waiting {
    position: u64,
    /// Why it cannot be shown.
    unreadable: Option<String>,
    recorded_at: Option<String>,
    command: Option<String>,
    command_id: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    actor: Option<Actor>,
    traceparent: Option<String>,
    /// The code of the refusal.
    refusal: Option<String>,
    events: Vec<WaitingEvent>,
}

#[derive(Debug, Deserialize)]
struct WaitingEvent {
    #[serde(rename = "type")]
    type_name: String,
    schema: u16,
    version: u64,
    occurred_at: String,
    data: Box<RawValue>,
}

fn place(projection: &str, stream: &str) -> String {
    format!(
        "/console/parked/{}/{}",
        segment(projection),
        segment(stream)
    )
}

/// `GET /console/parked`
pub(crate) async fn page(visit: Visit) -> Response {
    let frame = Frame::of(Room::Parked, ABOUT);
    match all(&visit).await {
        Ok(parked) => {
            let content = html! { (done(&visit)) (chosen(&visit)) (shown(&visit, &parked)) };
            frame.page(&visit, content)
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn all(visit: &Visit) -> Result<ParkedStreams, Trouble> {
    let given =
        ["projection", "after"].map(|name| visit.parameter(name).map(|value| (name, value)));
    let query = given.into_iter().flatten().chain([("limit", LIMIT)]);
    visit.node()?.get(&with_query("/v1/parked", query)).await
}

fn done(visit: &Visit) -> Markup {
    match visit
        .parameter("done")
        .map(|name| Action::named(&ACTIONS, name))
    {
        Some(Ok(action)) => parts::notice(Tone::Good, action.done, &html! {}),
        _ => html! {},
    }
}

fn chosen(visit: &Visit) -> Markup {
    html! {
        @if let Some(projection) = visit.parameter("projection") {
            section.filters aria-label="Filters" {
                ul.chips { li.chip {
                    span { "projection is " b { (projection) } }
                    a href=(visit.changed(&[("projection", None), ("done", None)])) {
                        (icon("M4 4l8 8M12 4l-8 8")) span.unseen { "Show all projections" }
                    }
                } }
            }
        }
    }
}

fn shown(visit: &Visit, parked: &ParkedStreams) -> Markup {
    if parked.parked.is_empty() {
        let next = html! { p { "Every projection has taken up every event that it has met. "
        a href=(visit.link("/console/projections", [])) { "Projections" } } };
        return parts::empty("No stream is parked.", &next);
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Stream" }
                th scope="col" { "Projection" }
                th scope="col" { "Event" }
                th.number scope="col" { "Commits" }
                th scope="col" { "Reason" }
                th scope="col" { "Parked" }
            } }
            tbody { @for one in &parked.parked { (row(visit, one)) } }
        }
    };
    let first = visit
        .parameter("after")
        .map(|_| visit.changed(&[("done", None)]));
    let next = parked.next.as_deref();
    let next = next.map(|next| visit.changed(&[("done", None), ("after", Some(next))]));
    html! {
        section {
            (parts::wide("Parked streams", &table))
            (parts::pages(first.as_deref(), next.as_deref()))
        }
    }
}

fn row(visit: &Visit, one: &Parked) -> Markup {
    let path = place(&one.projection, &one.stream);
    // A parked stream may be another tenant's; its page is then that tenant's.
    let link = match one.tenant.as_deref() {
        Some(tenant) if visit.foreign_tenant().unwrap_or("main") != tenant => {
            with_query(&path, [("tenant", tenant)])
        }
        _ => visit.link(&path, []),
    };
    html! {
        tr {
            th scope="row" {
                a href=(link) { (parts::cut(&one.stream)) }
                @if let Some(tenant) = one.tenant.as_deref().filter(|tenant| *tenant != "main") {
                    " " (parts::badge(Tone::Quiet, tenant))
                }
            }
            td data-name="Projection" {
                a href=(visit.link(&format!("/console/projections/{}", segment(&one.projection)), [])) {
                    (one.projection)
                }
            }
            td data-name="Event" { (one.event_type.as_deref().unwrap_or("–")) }
            td.number data-name="Commits" { (format::grouped(one.commits)) }
            td.text data-name="Reason" { (parts::clamped(&one.reason)) }
            td data-name="Parked" {
                (format::moment(&one.parked_at))
                @if let Some(partition) = one.partition { span.quiet { " in " (partition) } }
            }
        }
    }
}

/// `GET /console/parked/{projection}/{stream}`
pub(crate) async fn one(visit: Visit, path: Parts<(String, String)>) -> Response {
    let (projection, stream) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Parked, "Parked").trouble(&visit, &trouble),
    };
    let above = visit.link("/console/parked", [("projection", &*projection)]);
    let frame = Frame::below(Room::Parked, &*stream).above(above, &*projection);
    match found(&visit, &projection, &stream).await {
        Ok(parked) => frame.page(&visit, whole(&visit, &parked)),
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

/// The parked stream of the visitor's tenant, with what waits.
async fn found(visit: &Visit, projection: &str, stream: &str) -> Result<Details, Trouble> {
    let path = format!("/v1/parked/{}/{}", segment(projection), segment(stream));
    visit.node()?.get(&path).await
}

fn whole(visit: &Visit, details: &Details) -> Markup {
    let one = &details.parked;
    let place = place(&one.projection, &one.stream);
    let stream = format!("/console/streams/{}", segment(&one.stream));
    html! {
        section.controls aria-label="Controls" {
            div.buttons {
                @for action in ACTIONS {
                    (action.link(&visit.link(&format!("{place}/{}", action.name), [])))
                }
                a.button href=(visit.link(&stream, [])) { "The stream's events" }
            }
        }
        @if let Some(wish) = &one.wish {
            (parts::notice(Tone::Note, "Asked for", &html! {
                p { b { (wish) } ": the process that owns the partition does it within seconds." }
            }))
        }
        (parts::notice(Tone::Warn, "Why it is parked", &html! { p { (one.reason) } }))
        section {
            dl.facts.sheet {
                dt { "Projection" } dd { (one.projection) }
                @if let Some(event_type) = &one.event_type { dt { "Event" } dd { (event_type) } }
                dt { "Waiting" } dd { (format::counted(one.commits, "commit")) }
                @if let Some(attempts) = one.attempts { dt { "Tried" } dd { (format::counted(attempts, "time")) } }
                dt { "Parked" } dd { (format::moment(&one.parked_at)) }
                @if let Some(partition) = one.partition {
                    dt { "Place" }
                    dd {
                        "partition " (partition)
                        @if let Some(position) = one.position { ", position " (format::grouped(position)) }
                    }
                }
            }
        }
        (waiting(details))
    }
}

/// The commits that wait, with their events.
fn waiting(details: &Details) -> Markup {
    html! {
        section {
            h2 { "What waits" }
            p.quiet { "The events in their order, as the log has them. The first commit is the one that could not be taken up." }
            ol.events {
                @for commit in &details.waiting { (one_waiting(commit)) }
            }
            @if details.more > 0 {
                p.quiet { (format::counted(details.more, "more commit")) " behind them." }
            }
        }
    }
}

fn one_waiting(commit: &Waiting) -> Markup {
    let position = html! {
        dl.facts {
            dt { "Position" } dd { (format::grouped(commit.position)) }
            @if let Some(command) = &commit.command { dt { "Command" } dd { (command) } }
            @if let Some(actor) = &commit.actor { dt { "Actor" } dd { (actor.kind) " " (actor.id) } }
            @if let Some(at) = &commit.recorded_at { dt { "Recorded" } dd { (format::moment(at)) } }
            @for (name, id) in [
                ("Command id", &commit.command_id),
                ("Correlation", &commit.correlation_id),
                ("Causation", &commit.causation_id),
                ("Trace", &commit.traceparent),
            ] {
                @if let Some(id) = id { dt { (name) } dd { code { (id) } } }
            }
        }
    };
    let without = match (&commit.unreadable, &commit.refusal) {
        (Some(why), _) => Some(why.clone()),
        (None, Some(code)) => Some(format!("The command was refused: {code}")),
        (None, None) => commit
            .events
            .is_empty()
            .then(|| "A commit without events".to_owned()),
    };
    html! {
        @if let Some(said) = without {
            li.event { div.line { h3 { (said) } } (position) }
        }
        @for event in &commit.events {
            li.event {
                div.line {
                    span.version title={ "Version " (event.version) } { (event.version) }
                    h3 { (event.type_name) }
                    @if event.schema > 1 { (parts::badge(Tone::Quiet, &format!("schema {}", event.schema))) }
                    span.when { (format::moment(&event.occurred_at)) }
                }
                (json::block(&format!("Data of event {}", event.version), event.data.get()))
                (position)
            }
        }
    }
}

/// `GET /console/parked/{projection}/{stream}/{action}`: the form.
pub(crate) async fn asked(visit: Visit, path: Parts<(String, String, String)>) -> Response {
    match parts_of(path) {
        Ok(parts) => form_page(&visit, &parts, &Form::default(), None),
        Err(trouble) => Frame::below(Room::Parked, "Parked").trouble(&visit, &trouble),
    }
}

/// `POST /console/parked/{projection}/{stream}/{action}`
pub(crate) async fn act(
    visit: Visit,
    path: Parts<(String, String, String)>,
    request: Request,
) -> Response {
    let parts = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Parked, "Parked").trouble(&visit, &trouble),
    };
    let form = match Form::of(request).await {
        Ok(form) => form,
        Err(trouble) => return form_page(&visit, &parts, &Form::default(), Some(&trouble)),
    };
    match send(&visit, &form, &parts).await {
        Ok(()) => {
            let (projection, _, action) = &parts;
            let query = [("projection", &**projection), ("done", action)];
            Redirect::to(&visit.link("/console/parked", query)).into_response()
        }
        Err(trouble) => form_page(&visit, &parts, &form, Some(&trouble)),
    }
}

async fn send(
    visit: &Visit,
    form: &Form,
    (projection, stream, action): &(String, String, String),
) -> Result<(), Trouble> {
    let action = Action::named(&ACTIONS, action)?;
    let path = format!(
        "/v1/parked/{}/{}/{}",
        segment(projection),
        segment(stream),
        action.name
    );
    form.send(visit.node()?, &path).await
}

fn form_page(
    visit: &Visit,
    (projection, stream, action): &(String, String, String),
    form: &Form,
    trouble: Option<&Trouble>,
) -> Response {
    let back = visit.link(&place(projection, stream), []);
    let above = visit.link("/console/parked", [("projection", &**projection)]);
    let frame = Frame::below(Room::Parked, &**stream).above(above, &**projection);
    let frame = frame.above(back.clone(), &**stream);
    form::page(
        visit,
        frame,
        Action::named(&ACTIONS, action),
        &back,
        form,
        trouble,
    )
}
