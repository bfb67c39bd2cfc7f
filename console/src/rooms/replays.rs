//! The replays of this node, and the form that begins one.
//!
//! Deliberately absent: what is done with one (`replay`).

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::projections::Projections;
use super::replay::{self, Replay};
use crate::form::{Fields, fields_of};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::Trouble;
use crate::parts;
use crate::visit::Visit;

const ABOUT: &str = "A replay builds the read models of a projection again, beside the live ones: step by \
                     step, or up to a moment.";

#[derive(Debug, Deserialize)]
struct Replays {
    replays: Vec<Replay>,
}

/// `GET /console/replays`
pub(crate) async fn page(visit: Visit) -> Response {
    let given = visit.query.clone();
    room(&visit, &Fields(given), None).await
}

/// `POST /console/replays`
pub(crate) async fn begin(visit: Visit, request: Request) -> Response {
    let fields = match fields_of(request).await {
        Ok(fields) => fields,
        Err(trouble) => return room(&visit, &Fields::default(), Some(&trouble)).await,
    };
    match ask(&visit, &fields).await {
        Ok(schema) => Redirect::to(&visit.link(&replay::place(&schema), [])).into_response(),
        Err(trouble) => room(&visit, &fields, Some(&trouble)).await,
    }
}

/// Asks for a new replay. Returns its schema.
async fn ask(visit: &Visit, fields: &Fields) -> Result<String, Trouble> {
    let Some(projection) = fields.get("projection") else {
        let detail = "choose a projection";
        let title = "The form is not complete";
        return Err(Trouble::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            title,
            detail,
        ));
    };
    let schema = fields.get("schema");
    let schema = schema.map_or_else(|| format!("replay_{projection}"), ToOwned::to_owned);
    let body = json!({
        "projection": projection,
        "until": fields.get("until"),
        "from_snapshot": fields.get("from_snapshot"),
        "schema": schema,
        "replace": fields.get("replace").is_some(),
    });
    visit.node()?.asked_by_console("/v1/replays", &body).await?;
    Ok(schema)
}

async fn room(visit: &Visit, given: &Fields, trouble: Option<&Trouble>) -> Response {
    let mut frame = Frame::of(Room::Replays, ABOUT);
    if let Some(trouble) = trouble {
        frame.status = trouble.status;
    }
    let shown = async {
        let node = visit.node()?;
        let replays: Replays = node.get("/v1/replays").await?;
        let projections: Projections = node.get("/v1/projections").await?;
        Ok((replays, projections))
    };
    let (replays, projections) = match shown.await {
        Ok(shown) => shown,
        Err(other) => return frame.trouble(visit, trouble.unwrap_or(&other)),
    };
    let names = projections.projections.iter();
    let names = names.filter(|one| one.version.is_some());
    let names: Vec<&str> = names.map(|one| &*one.name).collect();
    let content = html! {
        @if let Some(trouble) = trouble { (parts::trouble(visit, trouble)) }
        section {
            @if replays.replays.is_empty() {
                (parts::empty("No replay is under way on this node.", &html! {
                    p { "Begin one below. Those of the command line and of other nodes are not listed." }
                }))
            } @else { (list(visit, &replays.replays)) }
        }
        section {
            h2 { "Begin a replay" }
            (form(visit, &names, given))
        }
    };
    frame.page(visit, content)
}

fn list(visit: &Visit, replays: &[Replay]) -> Markup {
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Schema" }
                th scope="col" { "Projection" }
                th scope="col" { "State" }
                th scope="col" { "Stands at" }
                th.number scope="col" { "Commits" }
                th scope="col" { "Begun" }
            } }
            tbody {
                @for replay in replays {
                    tr {
                        th scope="row" {
                            a href=(visit.link(&replay::place(&replay.schema), [])) { (replay.schema) }
                        }
                        td data-name="Projection" { (replay.projection) }
                        td data-name="State" { (replay.badge()) }
                        td data-name="Stands at" {
                            @match &replay.stands {
                                Some(stands) => (format::moment(&stands.at)),
                                None => span.quiet { "–" },
                            }
                        }
                        td.number data-name="Commits" { (format::grouped(replay.progress.commits)) }
                        td data-name="Begun" { (format::moment(&replay.begun_at)) }
                    }
                }
            }
        }
    };
    parts::wide("Replays", &table)
}

fn form(visit: &Visit, names: &[&str], given: &Fields) -> Markup {
    let value = |name: &str| given.get(name).unwrap_or_default().to_owned();
    html! {
        form.sheet.ask method="post" action=(visit.link("/console/replays", [])) {
            div.field {
                label for="projection" { "Projection" }
                select #projection name="projection" required {
                    @for name in names {
                        option value=(name) selected[given.get("projection") == Some(name)] { (name) }
                    }
                }
            }
            div.field {
                label for="until" { "Until: a time, a position token, or a condition (may be left out)" }
                input #until name="until" value=(value("until")) autocomplete="off" spellcheck="false"
                    placeholder="2026-03-01T12:00:00Z, or orders > 100";
            }
            div.field {
                label for="from_snapshot" { "Begin with the rows as of this time (may be left out)" }
                input #from_snapshot name="from_snapshot" value=(value("from_snapshot"))
                    autocomplete="off" spellcheck="false" placeholder="2026-03-01T00:00:00Z";
            }
            div.field {
                label for="schema" { "Schema (replay_ and the projection's name, if left out)" }
                input #schema name="schema" value=(value("schema")) maxlength="63" autocomplete="off"
                    spellcheck="false" autocapitalize="none";
            }
            div.tick {
                input #replace type="checkbox" name="replace" value="yes"
                    checked[given.get("replace").is_some()];
                label for="replace" { "Replace a schema that an earlier replay made" }
            }
            div.buttons { button.main { "Begin" } }
        }
    }
}
