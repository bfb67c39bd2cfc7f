//! Commands that the rules refused: how often each rule, and which commands.
//!
//! Deliberately absent: requests of a wrong shape and commands that no owner took, which are recorded
//! nowhere and only counted.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::models::{Model, Models};
use crate::format;
use crate::layout::{Frame, Room, icon};
use crate::node::{Trouble, segment, with_query};
use crate::parts;
use crate::visit::Visit;

/// The read model with all refusals.
const MODEL: &str = "rejections";
/// The refusals of a page.
const LIMIT: &str = "50";
const ABOUT: &str = "Commands that a rule refused. Each refusal is recorded in the log.";

#[derive(Debug, Deserialize)]
struct Rows {
    rows: Vec<Row>,
    next: Option<String>,
}

/// One refusal.
#[derive(Debug, Deserialize)]
struct Row {
    stream: String,
    command_id: String,
    command: String,
    code: String,
    detail: String,
    recorded_at: String,
}

/// `GET /console/refusals`
pub(crate) async fn page(visit: Visit) -> Response {
    let mut frame = Frame::of(Room::Refusals, ABOUT);
    let model = match Models::of(&visit).await {
        Ok(models) => models.named(MODEL),
        Err(trouble) => return frame.trouble(&visit, &trouble),
    };
    let can_filter = model.as_ref().is_some_and(can_filter);
    let code = visit.parameter("code").filter(|_| can_filter);
    let rows = rows(&visit, model.as_ref(), code).await;
    frame.status = rows
        .as_ref()
        .err()
        .map_or(StatusCode::OK, |trouble| trouble.status);
    let counts = {
        let samples = visit.console.samples();
        samples
            .newest()
            .map(|sample| sample.refusals.clone())
            .unwrap_or_default()
    };
    let content = html! {
        (by_code(&visit, &counts, can_filter))
        section {
            h2 { "Refused commands" }
            (chosen(&visit, code))
            @match &rows {
                Ok(rows) => (shown(&visit, rows, code)),
                Err(trouble) => (parts::trouble(&visit, trouble)),
            }
        }
    };
    frame.page(&visit, content)
}

fn can_filter(model: &Model) -> bool {
    let code = model.columns.iter().find(|column| column.name == "code");
    let filters = code.and_then(|code| code.filters.as_ref());
    filters.is_some_and(|filters| filters.iter().any(|filter| filter == "code"))
}

/// The newest first, where the node can sort so.
fn can_sort(model: &Model) -> bool {
    model.sorts.iter().any(|column| column == "recorded_at")
}

async fn rows(visit: &Visit, model: Option<&Model>, code: Option<&str>) -> Result<Rows, Trouble> {
    let mut query = vec![("limit", LIMIT)];
    query.extend(code.map(|code| ("code", code)));
    if model.is_some_and(can_sort) {
        query.push(("sort", "-recorded_at"));
    }
    query.extend(visit.parameter("after").map(|after| ("after", after)));
    visit
        .node()?
        .get(&with_query(&format!("/v1/read/{MODEL}"), query))
        .await
}

/// How often each rule refused at this node.
fn by_code(visit: &Visit, counts: &BTreeMap<String, f64>, can_filter: bool) -> Markup {
    let mut counts: Vec<(&String, f64)> =
        counts.iter().map(|(code, count)| (code, *count)).collect();
    counts.sort_by(|one, other| other.1.total_cmp(&one.1));
    let Some(most) = counts.first().map(|(_, count)| *count) else {
        return html! {
            section {
                h2 { "By rule" }
                (parts::empty("This node has refused no command since its start.", &html! {
                    p { "The list below also has what other nodes refused, and earlier runs." }
                }))
            }
        };
    };
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Code" }
                th.number scope="col" { "Refusals" }
                th scope="col" { "Of the most frequent" }
            } }
            tbody {
                @for (code, count) in &counts {
                    tr {
                        th scope="row" {
                            @if can_filter {
                                a href=(visit.link("/console/refusals", [("code", &***code)])) { code { (parts::cut(code)) } }
                            } @else { code { (parts::cut(code)) } }
                        }
                        td.number { (format::measured(*count)) }
                        td { (parts::bar(&format!("Refusals with the code {code}"), count / most)) }
                    }
                }
            }
        }
    };
    html! {
        section {
            div.heading {
                h2 { "By rule" }
                span.quiet { "At this node, since its start" }
            }
            (parts::wide("Refusals by code", &table))
        }
    }
}

fn chosen(visit: &Visit, code: Option<&str>) -> Markup {
    html! {
        @if let Some(code) = code {
            ul.chips {
                li.chip {
                    span { "code is " b { (code) } }
                    a href=(visit.changed(&[("code", None)])) {
                        (icon("M4 4l8 8M12 4l-8 8")) span.unseen { "Show all codes" }
                    }
                }
            }
        }
    }
}

fn shown(visit: &Visit, rows: &Rows, code: Option<&str>) -> Markup {
    if rows.rows.is_empty() {
        let title = match code {
            Some(_) => "No command was refused with this code.",
            None => "No command was refused.",
        };
        let next = html! { p { "A refused command appears here as soon as the read model "
        code { (MODEL) } " has taken it up." } };
        return parts::empty(title, &next);
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Code" }
                th scope="col" { "What the rule says" }
                th scope="col" { "Command" }
                th scope="col" { "Stream" }
                th scope="col" { "Recorded" }
            } }
            tbody {
                @for row in &rows.rows {
                    @let stream = format!("/console/streams/{}", segment(&row.stream));
                    @let command = format!("{stream}/commands/{}", segment(&row.command_id));
                    tr {
                        th scope="row" { code { (row.code) } }
                        td.text { (parts::clamped(&row.detail)) }
                        td data-name="Command" { a href=(visit.link(&command, [])) { (row.command) } }
                        td data-name="Stream" { a href=(visit.link(&stream, [])) { (parts::cut(&row.stream)) } }
                        td data-name="Recorded" { (format::moment(&row.recorded_at)) }
                    }
                }
            }
        }
    };
    let first = visit.parameter("after").map(|_| visit.changed(&[]));
    let next = rows
        .next
        .as_deref()
        .map(|next| visit.changed(&[("after", Some(next))]));
    html! {
        (parts::wide("Refused commands", &table))
        (parts::pages(first.as_deref(), next.as_deref()))
    }
}
