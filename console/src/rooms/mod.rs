//! The rooms: one file each, from a visit to a page.
//!
//! Deliberately absent: what the frame around them looks like, and how the node is asked.

mod configuration;
#[cfg(test)]
mod history_tests;
mod life;
mod model;
mod models;
#[cfg(test)]
mod operators_tests;
mod overview;
mod parked;
mod projection;
mod projections;
mod refusals;
mod replay;
#[cfg(test)]
mod replay_tests;
mod replays;
mod story;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod why;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use maud::html;

use crate::Console;
use crate::layout::{Frame, Room};
use crate::node::Trouble;
use crate::parts;
use crate::visit::Visit;

/// The routes of all rooms.
pub(crate) fn router() -> Router<Console> {
    Router::new()
        .route("/console", get(overview::page))
        .route("/console/", get(async || Redirect::permanent("/console")))
        .route("/console/streams", get(streams::page))
        .route("/console/streams/{stream}", get(stream::page))
        .route(
            "/console/streams/{stream}/commands/{id}",
            get(stream::command),
        )
        .route("/console/stories", get(story::rooms))
        .route("/console/stories/{correlation}", get(story::page))
        .route("/console/models", get(models::page))
        .route("/console/models/{model}", get(model::page))
        .route("/console/models/{model}/{key}", get(model::row))
        .route("/console/models/{model}/{key}/why", get(why::page))
        .route("/console/csv/{model}", get(model::csv))
        .route("/console/refusals", get(refusals::page))
        .route("/console/projections", get(projections::page))
        .route("/console/projections/{name}", get(projection::page))
        .route(
            "/console/projections/{name}/{action}",
            get(projection::asked).post(projection::act),
        )
        .route("/console/replays", get(replays::page).post(replays::begin))
        .route("/console/replays/{schema}", get(replay::page))
        .route("/console/replays/{schema}/{action}", post(replay::act))
        .route("/console/parked", get(parked::page))
        .route("/console/parked/{projection}/{stream}", get(parked::one))
        .route(
            "/console/parked/{projection}/{stream}/{action}",
            get(parked::asked).post(parked::act),
        )
        .route("/console/configuration", get(configuration::page))
        .route("/console/live/overview", get(overview::live))
        .route("/console/live/projections", get(projections::live))
        .route("/console/live/projections/{name}", get(projection::live))
        .route("/console/live/replays/{schema}", get(replay::live))
        .route("/console/{*rest}", get(missing))
}

async fn missing(visit: Visit) -> Response {
    let mut frame = Frame::below(Room::Overview, "No such page");
    frame.status = StatusCode::NOT_FOUND;
    let next = html! { p { a href=(visit.link("/console", [])) { "Go to the overview" } } };
    frame.page(
        &visit,
        parts::empty("The console has no page at this address.", &next),
    )
}

/// The parts of a path, or why it has none that a page could use.
type Parts<T> = Result<axum::extract::Path<T>, axum::extract::rejection::PathRejection>;

/// The parts of a page's path.
fn parts_of<T>(parts: Parts<T>) -> Result<T, Trouble> {
    parts.map(|parts| parts.0).map_err(|error| {
        let title = "Not an address of the console";
        Trouble::new(StatusCode::BAD_REQUEST, title, error.body_text())
    })
}
