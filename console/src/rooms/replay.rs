//! One replay: where it stands in time, what it took last, and what can be done with it.
//!
//! Invariant: the controls stay where they are while the rest of the page is made anew, so that a keyboard
//! goes on in them. Deliberately absent: the time axis (`axis`), and how a replay begins (`replays`).

mod axis;

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::stream::{self, Actor, Event};
use super::{Parts, parts_of};
use crate::form::{Fields, fields_of};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment, with_query};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// How long a page waits for a step that was asked for.
const STEP_WAIT: Duration = Duration::from_secs(3);

/// A replay, as the operators' routes show it.
#[derive(Debug, Deserialize)]
pub(super) struct Replay {
    pub(super) schema: String,
    pub(super) projection: String,
    until: Option<String>,
    until_at: Option<String>,
    from_snapshot: Option<String>,
    pub(super) begun_at: String,
    by: String,
    state: String,
    why: Option<String>,
    error: Option<String>,
    speed: Option<f64>,
    revision: u64,
    pub(super) progress: Progress,
    pub(super) stands: Option<Stands>,
    says: Option<String>,
    step: Option<Step>,
    set_aside: Vec<SetAside>,
    set_aside_streams: u64,
    density: Option<Density>,
    density_missing: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    records_read: u64,
    records: u64,
    pub(super) commits: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Stands {
    pub(super) at: String,
    partition: u32,
    position: u64,
}

#[derive(Debug, Deserialize)]
struct SetAside {
    stream: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Density {
    from: String,
    to: String,
    commits: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Step {
    tenant: String,
    stream: String,
    at: String,
    partition: u32,
    position: u64,
    command: String,
    command_id: String,
    correlation_id: String,
    actor: Option<Actor>,
    refusal: Option<String>,
    event: Option<u64>,
    of: u64,
    events: Vec<Event>,
    rows: Vec<Changed>,
    more: u64,
}

#[derive(Debug, Deserialize)]
struct Changed {
    model: String,
    key: Vec<String>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
    is_hit: bool,
}

impl Replay {
    fn is_active(&self) -> bool {
        ["beginning", "running", "paused"].contains(&&*self.state)
    }

    fn is_busy(&self) -> bool {
        ["beginning", "running"].contains(&&*self.state)
    }

    fn tone(&self) -> Tone {
        match &*self.state {
            "running" | "beginning" => Tone::Note,
            "finished" => Tone::Good,
            "failed" => Tone::Bad,
            "paused" if self.why.as_deref() == Some("condition") => Tone::Good,
            _ => Tone::Quiet,
        }
    }

    pub(super) fn badge(&self) -> Markup {
        parts::badge(self.tone(), &self.state)
    }

    /// What its state means.
    fn meaning(&self) -> String {
        let text = match (&*self.state, self.why.as_deref().unwrap_or_default()) {
            ("beginning", _) => "its schema is being made",
            ("running", _) => {
                return match self.speed {
                    Some(speed) => {
                        format!("at {} times the recorded time", format::measured(speed))
                    }
                    None => "as fast as possible".to_owned(),
                };
            }
            ("paused", "begun") => "nothing was taken yet",
            ("paused", "condition") => "the condition became true",
            ("paused", "asked") => "it was asked to pause",
            ("paused", _) => "a step was taken",
            ("finished", "until") => "everything up to the wanted time is there",
            ("finished", "end") => "the log had no more when it began",
            ("finished", _) => "it was ended where the condition became true",
            ("stopped", "idle") => "nobody asked it for anything for a while",
            ("stopped", "shutdown") => "the node stopped",
            ("stopped", _) => "it was ended before everything was there",
            (_, "stuck") => "it cannot take up a commit",
            _ => "it cannot go on",
        };
        text.to_owned()
    }
}

pub(super) fn place(schema: &str) -> String {
    format!("/console/replays/{}", segment(schema))
}

fn route(schema: &str) -> String {
    format!("/v1/replays/{}", segment(schema))
}

/// `GET /console/replays/{schema}`
pub(crate) async fn page(visit: Visit, path: Parts<String>) -> Response {
    match parts_of(path) {
        Ok(schema) => room(&visit, &schema, None).await,
        Err(trouble) => Frame::below(Room::Replays, "Replay").trouble(&visit, &trouble),
    }
}

/// `GET /console/live/replays/{schema}`
pub(crate) async fn live(visit: Visit, path: Parts<String>) -> Response {
    let schema = parts_of(path).unwrap_or_default();
    crate::live::stream(visit, move |visit| {
        let schema = schema.clone();
        async move {
            match one(&visit, &schema).await {
                Ok(replay) => shown(&visit, &replay),
                Err(trouble) => parts::trouble(&visit, &trouble),
            }
        }
    })
}

/// `POST /console/replays/{schema}/{action}`
pub(crate) async fn act(visit: Visit, path: Parts<(String, String)>, request: Request) -> Response {
    let (schema, action) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Replays, "Replay").trouble(&visit, &trouble),
    };
    let fields = fields_of(request).await;
    let asked = match &fields {
        Ok(fields) => ask(&visit, &schema, &action, fields).await,
        Err(trouble) => Err(trouble.clone()),
    };
    let by = fields
        .ok()
        .and_then(|fields| fields.get("by").map(ToOwned::to_owned));
    match asked {
        Ok(()) => {
            let did = by.as_deref().unwrap_or(&action);
            Redirect::to(&visit.link(&place(&schema), [("did", did)])).into_response()
        }
        Err(trouble) => room(&visit, &schema, Some(&trouble)).await,
    }
}

async fn ask(visit: &Visit, schema: &str, action: &str, fields: &Fields) -> Result<(), Trouble> {
    let body = match action {
        "play" => {
            let speed = fields.get("speed").filter(|speed| *speed != "max");
            json!({"speed": speed.and_then(|speed| speed.parse::<f64>().ok())})
        }
        "step" => json!({"by": fields.get("by")}),
        _ => json!({}),
    };
    let path = format!("{}/{}", route(schema), segment(action));
    let node = visit.node()?;
    node.asked_by_console(&path, &body).await?;
    if action == "play" {
        return Ok(());
    }
    // What was asked for is usually done at once: the page then shows it.
    let until = Instant::now() + STEP_WAIT;
    let is_to_wait = |replay: &Replay| match action {
        "end" => replay.is_active(),
        _ => replay.is_busy(),
    };
    let mut replay = one(visit, schema).await?;
    while is_to_wait(&replay) && Instant::now() < until {
        let after = replay.revision.to_string();
        let path = with_query(&route(schema), [("after", &*after)]);
        let waited = tokio::time::timeout(STEP_WAIT, node.get(&path)).await;
        match waited {
            Ok(found) => replay = found?,
            Err(_) => break,
        }
    }
    Ok(())
}

async fn one(visit: &Visit, schema: &str) -> Result<Replay, Trouble> {
    visit.node()?.get(&route(schema)).await
}

async fn room(visit: &Visit, schema: &str, trouble: Option<&Trouble>) -> Response {
    let mut frame = Frame::below(Room::Replays, schema);
    if let Some(trouble) = trouble {
        frame.status = trouble.status;
    }
    let replay = match one(visit, schema).await {
        Ok(replay) => replay,
        Err(other) if other.code.as_deref() == Some("replay_unknown") => {
            frame.status = other.status;
            let next = html! {
                p { "It may have ended some time ago, or the node was started again. Its schema stays in \
                     Postgres, and says in " code { "annals_made" } " what stands there." }
                p { a href=(visit.link("/console/replays", [])) { "All replays, and a new one" } }
            };
            return frame.page(visit, parts::empty("This node has no such replay.", &next));
        }
        Err(other) => return frame.trouble(visit, trouble.unwrap_or(&other)),
    };
    let live = visit.link(&format!("/console/live/replays/{}", segment(schema)), []);
    let about = format!("Of the projection {}.", replay.projection);
    let content = html! {
        @if let Some(trouble) = trouble { (parts::trouble(visit, trouble)) }
        @if replay.is_active() { (controls(visit, &replay)) }
        (parts::live(&live, &shown(visit, &replay)))
    };
    frame
        .about(about)
        .aside(parts::live_switch())
        .page(visit, content)
}

/// The speeds that are offered, each with its name.
const SPEEDS: [(&str, &str); 5] = [
    ("max", "as fast as possible"),
    ("1", "as recorded"),
    ("60", "a minute in a second"),
    ("3600", "an hour in a second"),
    ("86400", "a day in a second"),
];

fn controls(visit: &Visit, replay: &Replay) -> Markup {
    let to = |action: &str| visit.link(&format!("{}/{action}", place(&replay.schema)), []);
    let did = visit.parameter("did");
    let is_given = |speed: &str| match replay.speed {
        Some(given) => speed.parse() == Ok(given),
        None => speed == "max",
    };
    let step = |by: &str, button: &str| {
        html! {
            form method="post" action=(to("step")) {
                input type="hidden" name="by" value=(by);
                button autofocus[did == Some(by)] { (button) }
            }
        }
    };
    html! {
        section.controls.replay-controls aria-label="Controls" {
            (step("commit", "Next commit"))
            (step("event", "Next event"))
            form.row method="post" action=(to("play")) {
                button.main autofocus[did == Some("pause")] { "Play" }
                select name="speed" aria-label="Speed" {
                    @for (value, name) in SPEEDS {
                        option value=(value) selected[is_given(value)] { (name) }
                    }
                }
            }
            form method="post" action=(to("pause")) {
                button autofocus[did == Some("play")] { "Pause" }
            }
            form method="post" action=(to("end")) { button.danger { "End" } }
        }
    }
}

fn shown(visit: &Visit, replay: &Replay) -> Markup {
    let done = replay.progress.records_read;
    html! {
        @if let Some(error) = &replay.error {
            (parts::notice(Tone::Bad, "It cannot go on", &html! { p { (error) } }))
        }
        section {
            dl.figures {
                div.figure {
                    dt { "State" }
                    dd { span.value { (replay.badge()) } span.note { (replay.meaning()) } }
                }
                div.figure {
                    dt { "Stands at" }
                    dd {
                        @match &replay.stands {
                            Some(stands) => {
                                span.value { (format::moment(&stands.at)) }
                                span.note {
                                    "partition " (stands.partition) ", position "
                                    (format::grouped(stands.position))
                                }
                            }
                            None => { span.value { "–" } span.note { "before the first commit" } }
                        }
                    }
                }
                (parts::figure("Commits", &format::grouped(replay.progress.commits),
                    Some("taken that concern the projection")))
                div.figure {
                    dt { "Read" }
                    dd {
                        span.value { (parts::bar("Read of the log", share(done, replay.progress.records))) }
                        span.note {
                            (format::grouped(done)) " of " (format::grouped(replay.progress.records)) " records"
                        }
                    }
                }
            }
        }
        section { (time(replay)) }
        @if let Some(step) = &replay.step { (step_of(visit, replay, step)) }
        @if replay.set_aside_streams > 0 { (set_aside(visit, replay)) }
        (facts(visit, replay))
    }
}

// The share is shown in whole percents.
#[allow(clippy::cast_precision_loss)]
fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 1.0,
        whole => part as f64 / whole as f64,
    }
}

fn time(replay: &Replay) -> Markup {
    let Some(density) = &replay.density else {
        let why = replay.density_missing.as_deref();
        return html! {
            p.quiet { "No time axis: " (why.unwrap_or("the commits are being counted")) "." }
        };
    };
    let stands = replay.stands.as_ref().map(|stands| &*stands.at);
    axis::axis(
        (&density.from, &density.to),
        &density.commits,
        stands,
        replay.until_at.as_deref(),
    )
}

fn facts(visit: &Visit, replay: &Replay) -> Markup {
    let projection = format!("/console/projections/{}", segment(&replay.projection));
    html! {
        section {
            h2 { "What is replayed" }
            dl.facts {
                dt { "Projection" } dd { a href=(visit.link(&projection, [])) { (replay.projection) } }
                dt { "Schema" } dd { code { (replay.schema) } }
                dt { "Until" } dd { (replay.until.as_deref().unwrap_or("the end of the log")) }
                @if let Some(from) = &replay.from_snapshot {
                    dt { "Begins with" } dd { "the rows as of " (format::moment(from)) }
                }
                dt { "Begun" } dd { (format::moment(&replay.begun_at)) ", by " (replay.by) }
                @if let Some(says) = &replay.says { dt { "Stands there" } dd { (says) } }
            }
        }
    }
}

fn step_of(visit: &Visit, replay: &Replay, step: &Step) -> Markup {
    let is_hit = replay.why.as_deref() == Some("condition");
    let stream = format!("/console/streams/{}", segment(&step.stream));
    let story = format!("/console/stories/{}", segment(&step.correlation_id));
    let last = step.events.last().map(|event| event.version().to_string());
    let tenant = (step.tenant != "main").then_some(("tenant", &*step.tenant));
    let link = |path: &str, more: Option<(&str, &str)>| match tenant {
        None => visit.link(path, more),
        Some(tenant) => with_query(path, more.into_iter().chain([tenant])),
    };
    let life = last.as_deref().map(|at| [("show", "life"), ("at", at)]);
    let life = life.map(|query| match tenant {
        None => visit.link(&stream, query),
        Some(tenant) => with_query(&stream, query.into_iter().chain([tenant])),
    });
    html! {
        section {
            h2 { "What was taken last" }
            @if is_hit {
                (parts::notice(Tone::Good, "The condition became true", &html! {
                    p { code { (replay.until.as_deref().unwrap_or_default()) } }
                }))
            }
            dl.facts {
                dt { "Stream" } dd { a href=(link(&stream, None)) { (step.stream) } }
                @if let Some(life) = &life { dt { "State" } dd { a href=(life) { "Its state then" } } }
                dt { "Command" } dd { (step.command) " " code { (step.command_id) } }
                dt { "Actor" }
                dd {
                    @match &step.actor {
                        Some(actor) => { (actor.kind) " " (actor.id) }
                        None => span.quiet { "nobody named" },
                    }
                }
                dt { "Recorded" } dd { (format::moment(&step.at)) }
                dt { "Place" }
                dd { "partition " (step.partition) ", position " (format::grouped(step.position)) }
                dt { "Story" } dd { a href=(link(&story, None)) { code { (step.correlation_id) } } }
                @if let Some(code) = &step.refusal { dt { "Refused" } dd { code { (code) } } }
                @if let Some(event) = step.event { dt { "Event" } dd { (event) " of " (step.of) } }
            }
        }
        section {
            h2 { "Rows that it changed" }
            @if step.rows.is_empty() { p.quiet { "No row changed." } }
            div.stack { @for row in &step.rows { (changed(row)) } }
            @if step.more > 0 { p.quiet { (format::counted(step.more, "more row")) " changed." } }
        }
        @if !step.events.is_empty() {
            section {
                h2 { (if step.event.is_some() { "The event" } else { "The events" }) }
                ol.events { @for event in &step.events { (stream::one(visit, &step.stream, event)) } }
            }
        }
    }
}

/// A row before and after, with marks where they differ.
fn changed(row: &Changed) -> Markup {
    let some = row.after.as_ref().or(row.before.as_ref());
    let is_shown = |name: &str, value: &Value| name != "tenant" || value.as_str() != Some("main");
    let names = some.into_iter().flatten();
    let names = names.filter(|(name, value)| is_shown(name, value));
    let mut names: Vec<&String> = names.map(|(name, _)| name).collect();
    // The key comes first, in its order.
    let place = |name: &String| row.key.iter().position(|key| key == name);
    names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    let of = |side: &Option<Map<String, Value>>, name: &str| {
        side.as_ref()
            .map(|row| row.get(name).cloned().unwrap_or_default())
    };
    let what = match (&row.before, &row.after) {
        (None, Some(_)) if !row.is_hit => "new",
        (Some(_), None) => "gone",
        _ => "changed",
    };
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Column" } th scope="col" { "Before" } th scope="col" { "After" }
            } }
            tbody {
                @for name in names {
                    @let (before, after) = (of(&row.before, name), of(&row.after, name));
                    @let differs = before != after;
                    tr {
                        th scope="row" { code { (name) } }
                        td { (side(before.as_ref(), false)) }
                        td { (side(after.as_ref(), differs)) }
                    }
                }
            }
        }
    };
    html! {
        div.changed {
            h3 {
                (row.model) " " (parts::badge(Tone::Quiet, what))
                @if row.is_hit { " " (parts::badge(Tone::Good, "condition true")) }
            }
            (parts::wide(&format!("Row of {} before and after", row.model), &table))
        }
    }
}

fn side(value: Option<&Value>, is_marked: bool) -> Markup {
    let text = match value {
        None => return html! { span.quiet { "no row" } },
        Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match is_marked {
        true => html! { mark { (parts::cut(&text)) } },
        false => parts::cut(&text),
    }
}

fn set_aside(visit: &Visit, replay: &Replay) -> Markup {
    let text = html! {
        @for one in &replay.set_aside {
            @let path = format!("/console/streams/{}", segment(&one.stream));
            p { a href=(visit.link(&path, [])) { (one.stream) } ": " (one.reason) }
        }
    };
    let title = format!(
        "{} set aside",
        format::counted(replay.set_aside_streams, "stream")
    );
    parts::notice(Tone::Warn, &title, &text)
}
