//! One projection: how it is, its generations, and what can be done with it.
//!
//! Invariant: the node decides whether an action is possible; the page offers those that its state
//! suggests. Deliberately absent: what an action does.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use super::projections::{
    Comparison, Failure, Generation, Owner, Partition, Projection, gap, lag, left, meaning, rate,
    tone,
};
use super::{Parts, parts_of};
use crate::form::{self, Action, Form};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// The most differences of a table that are listed.
const DIFFERENCES_MAX: usize = 50;

const PAUSE: Action = Action {
    name: "pause",
    button: "Pause",
    about: "The projection takes up nothing more until it is resumed. Its rows stay as they are, and \
            are served.",
    done: "The projection is paused.",
    tone: Tone::Note,
};
const RESUME: Action = Action {
    name: "resume",
    button: "Resume",
    about: "The projection takes up the log again from where it is.",
    done: "The projection is resumed.",
    tone: Tone::Note,
};
const VERIFY: Action = Action {
    name: "verify",
    button: "Verify",
    about: "Folds the log afresh and compares the result with the rows. Nothing is changed.",
    done: "The verification has begun.",
    tone: Tone::Note,
};
const REBUILD: Action = Action {
    name: "rebuild",
    button: "Rebuild",
    about: "Makes all rows again from the start of the log, in new tables beside the live ones, which \
            are served meanwhile. If it fills tables of another program, these are emptied first, and \
            readers see them fill up again.",
    done: "The rebuild has begun.",
    tone: Tone::Note,
};
const CANCEL: Action = Action {
    name: "cancel",
    button: "Cancel the rebuild",
    about: "Drops the tables that are being built. The live ones stay. A new version is then not built \
            again by itself.",
    done: "The rebuild is cancelled.",
    tone: Tone::Bad,
};
const SWITCH: Action = Action {
    name: "switch",
    button: "Switch",
    about: "The new generation becomes the live one in one transaction. The present one is kept \
            current for a while, so that it can be rolled back.",
    done: "The new generation is live.",
    tone: Tone::Bad,
};
const ROLL_BACK: Action = Action {
    name: "rollback",
    button: "Roll back",
    about: "The previous generation becomes the live one again.",
    done: "The previous generation is live again.",
    tone: Tone::Bad,
};
const ACTIONS: [Action; 7] = [PAUSE, RESUME, VERIFY, REBUILD, CANCEL, SWITCH, ROLL_BACK];

/// The actions that the state of a projection suggests.
fn offered(projection: &Projection) -> Vec<Action> {
    let has = |state: &str| projection.generations.iter().any(|one| one.state == state);
    let is_gone = ["absent", "unknown"].contains(&&*projection.state);
    let is_paused = projection.paused.is_some();
    let is_new = has("building") && has("live");
    let all = [
        (!is_paused && !is_gone, PAUSE),
        (is_paused, RESUME),
        (!is_gone && has("live"), VERIFY),
        (!is_gone && !is_new && !has("ready"), REBUILD),
        (is_new || has("ready"), CANCEL),
        (has("ready"), SWITCH),
        (has("retired"), ROLL_BACK),
    ];
    let offered = all.into_iter().filter(|(is_offered, _)| *is_offered);
    offered.map(|(_, action)| action).collect()
}

fn place(name: &str) -> String {
    format!("/console/projections/{}", segment(name))
}

/// `GET /console/projections/{name}`
pub(crate) async fn page(visit: Visit, path: Parts<String>) -> Response {
    let name = match parts_of(path) {
        Ok(name) => name,
        Err(trouble) => {
            return Frame::below(Room::Projections, "Projection").trouble(&visit, &trouble);
        }
    };
    let frame = Frame::below(Room::Projections, &*name);
    let projection = match one(&visit, &name).await {
        Ok(projection) => projection,
        Err(trouble) => return frame.trouble(&visit, &trouble),
    };
    let live = visit.link(&format!("/console/live/projections/{}", segment(&name)), []);
    let content = html! {
        (done(&visit))
        (controls(&visit, &projection))
        (parts::live(&live, &shown(&visit, &projection)))
    };
    let about = projection.about.unwrap_or_default();
    frame
        .about(about)
        .aside(parts::live_switch())
        .page(&visit, content)
}

/// `GET /console/live/projections/{name}`
pub(crate) async fn live(visit: Visit, path: Parts<String>) -> Response {
    let name = parts_of(path).unwrap_or_default();
    crate::live::stream(visit, move |visit| {
        let name = name.clone();
        async move {
            match one(&visit, &name).await {
                Ok(projection) => shown(&visit, &projection),
                Err(trouble) => parts::trouble(&visit, &trouble),
            }
        }
    })
}

async fn one(visit: &Visit, name: &str) -> Result<Projection, Trouble> {
    visit
        .node()?
        .get(&format!("/v1/projections/{}", segment(name)))
        .await
}

/// What has just been asked for.
fn done(visit: &Visit) -> Markup {
    let done = visit
        .parameter("done")
        .map(|name| Action::named(&ACTIONS, name));
    match done {
        Some(Ok(action)) => parts::notice(Tone::Good, action.done, &html! {}),
        _ => html! {},
    }
}

fn controls(visit: &Visit, projection: &Projection) -> Markup {
    let place = place(&projection.name);
    html! {
        section.controls aria-label="Controls" {
            div.buttons {
                @for action in offered(projection) {
                    (action.link(&visit.link(&format!("{place}/{}", action.name), [])))
                }
                @if projection.version.is_some() {
                    a.button href=(visit.link("/console/replays", [("projection", &*projection.name)])) {
                        "Replay"
                    }
                }
            }
        }
    }
}

fn shown(visit: &Visit, projection: &Projection) -> Markup {
    html! {
        @if let Some(error) = &projection.error { (failure(visit, error)) }
        @if let Some(next) = &projection.next {
            (parts::notice(Tone::Note, "Next", &html! { p { (next) } }))
        }
        @if let Some(paused) = &projection.paused {
            (parts::notice(Tone::Note, "Paused", &html! {
                p {
                    "Since " (format::moment(&paused.at))
                    @if let Some(by) = &paused.by { " by " b { (by) } }
                    @if let Some(reason) = &paused.reason { ": " (reason) }
                }
            }))
        }
        @if projection.state == "unknown" {
            (parts::notice(Tone::Note, "Not of this program", &html! {
                p { "Its tables are in Postgres, and this program has no rule for them. If it was \
                     removed for good, the command " code { "projections drop " (projection.name) }
                     " removes its tables, too." }
            }))
        }
        @if projection.state == "stuck" {
            (parts::notice(Tone::Bad, "Stuck", &html! {
                p { "There are records to take up, and it does not move. The last error says why; it \
                     goes on by itself once the cause is gone. If no process takes it up, start one \
                     with the role " code { "projector" } "." }
            }))
        }
        section {
            dl.figures {
                div.figure {
                    dt { "State" }
                    dd { span.value { (projection.badge()) } span.note { (meaning(&projection.state)) } }
                }
                (parts::figure("Gap", &gap(projection.gap), Some("records not taken up")))
                (parts::figure("Lag", &lag(projection.lag_seconds), Some("of the oldest of them")))
                (parts::figure("Rate", &rate(projection), Some(&format!("time left: {}", left(projection)))))
            }
        }
        section {
            p.quiet {
                "Rule: version " (projection.version.map_or_else(|| "–".to_owned(), |v| v.to_string()))
                @if !projection.tables.is_empty() {
                    ". Read models: "
                    @for (index, table) in projection.tables.iter().enumerate() {
                        @if index > 0 { ", " }
                        a href=(visit.link(&format!("/console/models/{}", segment(table)), [])) { (table) }
                    }
                }
                @if projection.parked_streams > 0 {
                    ". " a href=(visit.link("/console/parked", [("projection", &*projection.name)])) {
                        (format::counted(projection.parked_streams, "parked stream"))
                    }
                }
                "."
            }
        }
        @for generation in &projection.generations { (generation_of(generation)) }
        @if projection.generations.is_empty() {
            (parts::empty("It has no tables yet.", &html! {
                p { "A process with the role " code { "projector" } " makes them." }
            }))
        }
    }
}

fn failure(visit: &Visit, error: &Failure) -> Markup {
    let text = html! {
        p { (error.reason) }
        @if let Some(remedy) = &error.remedy { p { b { "What to do: " } (remedy) } }
        dl.facts {
            @if let Some(at) = &error.at { dt { "Since" } dd { (format::moment(at)) } }
            @if let Some(stream) = &error.stream {
                dt { "Stream" }
                dd { a href=(visit.link(&format!("/console/streams/{}", segment(stream)), [])) { (stream) } }
            }
            @if let Some(event_type) = &error.event_type { dt { "Event" } dd { (event_type) } }
            @if let Some(partition) = error.partition {
                dt { "Place" }
                dd {
                    "partition " (partition)
                    @if let Some(offset) = error.offset { ", offset " (format::grouped(offset)) }
                }
            }
        }
    };
    parts::notice(Tone::Bad, "The last error", &text)
}

fn generation_of(generation: &Generation) -> Markup {
    let label = format!("Partitions of generation {}", generation.number);
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Partition" }
                th scope="col" { "Taken up" }
                th.number scope="col" { "Position" }
                th.number scope="col" { "Offset" }
                th.number scope="col" { "Head" }
                th.number scope="col" { "Gap" }
                th.number scope="col" { "Lag" }
                th scope="col" { "Owner" }
            } }
            tbody { @for partition in &generation.partitions { (partition_row(partition)) } }
        }
    };
    html! {
        section {
            div.heading {
                h2 { "Generation " (generation.number) " " (parts::badge(tone(&generation.state), &generation.state)) }
                span.quiet {
                    "version " (generation.version)
                    @if let Some(at) = &generation.created_at { ", made " (format::moment(at)) }
                    @if let Some(until) = &generation.keep_until { ", kept until " (format::moment(until)) }
                }
            }
            @if generation.state != "live" && let Some(share) = generation.share() {
                p { (parts::bar(&format!("Taken up by generation {}", generation.number), share)) }
            }
            @if let Some(comparison) = &generation.comparison {
                @let titles = ["It has the same rows as the live one", "It differs from the live one"];
                (comparison_of(comparison, titles, comparison.at.as_deref()))
            }
            @if let Some(verified) = &generation.verified {
                @let titles = ["It has the rows that the log makes", "It differs from what the log makes"];
                (comparison_of(verified, titles, generation.verified_at.as_deref()))
            }
            @if !generation.partitions.is_empty() { (parts::wide(&label, &table)) }
        }
    }
}

// The shares are shown in whole percents.
#[allow(clippy::cast_precision_loss)]
fn partition_row(partition: &Partition) -> Markup {
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), format::grouped);
    let share = partition
        .head
        .zip(partition.gap)
        .map(|(head, gap)| match head {
            0 => 1.0,
            head => 1.0 - gap.min(head) as f64 / head as f64,
        });
    html! {
        tr {
            th scope="row" { (partition.partition) }
            td data-name="Taken up" {
                @match share {
                    Some(share) => (parts::bar(&format!("Taken up of partition {}", partition.partition), share)),
                    None => span.quiet { "–" },
                }
            }
            td.number data-name="Position" { (number(partition.position)) }
            td.number data-name="Offset" { (number(partition.offset)) }
            td.number data-name="Head" { (number(partition.head)) }
            td.number data-name="Gap" { (gap(partition.gap)) }
            td.number data-name="Lag" { (lag(partition.lag_seconds)) }
            td data-name="Owner" { (owner(partition)) }
        }
    }
}

fn owner(partition: &Partition) -> Markup {
    html! {
        @match &partition.owner {
            Some(Owner { name, member }) => {
                span title=[member.as_deref()] { (name.as_deref().or(member.as_deref()).unwrap_or("–")) }
            }
            None => span.quiet { "none" },
        }
        @if let Some(why) = &partition.trouble { " " (parts::badge(Tone::Warn, "tries again")) " " (parts::cut(why)) }
        @if let Some(reason) = &partition.stopped { " " (parts::badge(Tone::Bad, "stopped")) " " (parts::cut(reason)) }
    }
}

/// A comparison under the title that fits: that of equal tables, or that of others.
fn comparison_of(comparison: &Comparison, titles: [&str; 2], at: Option<&str>) -> Markup {
    let [equal, different] = titles;
    let title = if comparison.equal { equal } else { different };
    let tone = if comparison.equal {
        Tone::Good
    } else {
        Tone::Warn
    };
    let rows = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), format::grouped);
    let text = html! {
        @if let Some(at) = at { p { "Compared " (format::moment(at)) "." } }
        @for table in &comparison.tables {
            p { code { (table.table) } ": " (rows(table.rows)) " rows, live " (rows(table.rows_live))
                @if !table.not_compared.is_empty() { "; not compared: " (table.not_compared.join(", ")) }
            }
            @if !table.differences.is_empty() { (differences(table)) }
        }
    };
    parts::notice(tone, title, &text)
}

fn differences(table: &super::projections::Compared) -> Markup {
    let shown = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let label = format!("Differences of {}", table.table);
    let rows = html! {
        table {
            thead { tr {
                th scope="col" { "Key" } th scope="col" { "Column" }
                th scope="col" { "Live" } th scope="col" { "New" }
            } }
            tbody {
                @for difference in table.differences.iter().take(DIFFERENCES_MAX) {
                    tr {
                        th scope="row" { (parts::cut(&shown(&difference.key))) }
                        td { (difference.column.as_deref().unwrap_or("the whole row")) }
                        td { (parts::cut(&shown(&difference.live))) }
                        td { (parts::cut(&shown(&difference.new))) }
                    }
                }
            }
        }
    };
    html! {
        (parts::wide(&label, &rows))
        @if table.differences.len() > DIFFERENCES_MAX {
            p.quiet { "The first " (DIFFERENCES_MAX) " of " (format::grouped(table.differences.len() as u64)) "." }
        }
    }
}

/// `GET /console/projections/{name}/{action}`: the form.
pub(crate) async fn asked(visit: Visit, path: Parts<(String, String)>) -> Response {
    match parts_of(path) {
        Ok((name, action)) => form_page(&visit, &name, &action, &Form::default(), None),
        Err(trouble) => Frame::below(Room::Projections, "Projection").trouble(&visit, &trouble),
    }
}

/// `POST /console/projections/{name}/{action}`
pub(crate) async fn act(visit: Visit, path: Parts<(String, String)>, request: Request) -> Response {
    let (name, action) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => {
            return Frame::below(Room::Projections, "Projection").trouble(&visit, &trouble);
        }
    };
    let form = match Form::of(request).await {
        Ok(form) => form,
        Err(trouble) => return form_page(&visit, &name, &action, &Form::default(), Some(&trouble)),
    };
    match send(&visit, &form, &name, &action).await {
        Ok(()) => Redirect::to(&visit.link(&place(&name), [("done", &*action)])).into_response(),
        Err(trouble) => form_page(&visit, &name, &action, &form, Some(&trouble)),
    }
}

async fn send(visit: &Visit, form: &Form, name: &str, action: &str) -> Result<(), Trouble> {
    let action = Action::named(&ACTIONS, action)?;
    let path = format!("/v1/projections/{}/{}", segment(name), action.name);
    form.send(visit.node()?, &path).await
}

/// The form that asks for an action, with what went wrong when it was sent.
fn form_page(
    visit: &Visit,
    name: &str,
    action: &str,
    form: &Form,
    trouble: Option<&Trouble>,
) -> Response {
    let back = visit.link(&place(name), []);
    let frame = Frame::below(Room::Projections, name).above(back.clone(), name);
    let action = Action::named(&ACTIONS, action);
    form::page(visit, frame, action, &back, form, trouble)
}
