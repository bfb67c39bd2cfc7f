//! Parked streams: events that a projection could not take up, with what stands behind them in their
//! stream; and the ways to try again or to pass over them.
//!
//! Deliberately absent: which events are parked, and what becomes of them, which the node decides.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

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
    event_type: Option<String>,
    #[serde(default)]
    commits: u64,
    reason: String,
    parked_at: String,
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
    let path = format!("/v1/parked/{}/{}", segment(&projection), segment(&stream));
    let answer = match visit.node() {
        Ok(node) => node.get::<Box<RawValue>>(&path).await,
        Err(trouble) => Err(trouble.clone()),
    };
    match answer {
        Ok(answer) => {
            let place = place(&projection, &stream);
            let content = html! {
                section.controls aria-label="Controls" {
                    div.buttons {
                        @for action in ACTIONS {
                            (action.link(&visit.link(&format!("{place}/{}", action.name), [])))
                        }
                        a.button href=(visit.link(&format!("/console/streams/{}", segment(&stream)), [])) { "The stream" }
                    }
                }
                (commits(&answer))
            };
            frame.page(&visit, content)
        }
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

/// Why the stream is parked, and its parked commits as the node shows them.
fn commits(answer: &RawValue) -> Markup {
    let value: Value = serde_json::from_str(answer.get()).unwrap_or_default();
    let reason = value.get("reason").and_then(Value::as_str);
    html! {
        @if let Some(reason) = reason {
            (parts::notice(Tone::Warn, "Why it is parked", &html! { p { (reason) } }))
        }
        section {
            h2 { "The parked commits" }
            (json::block("The parked commits", answer.get()))
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
