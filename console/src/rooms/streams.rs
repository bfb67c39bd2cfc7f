//! The streams: all of them, or those of a category or with a beginning, from the read model
//! `stream_index`.
//!
//! Deliberately absent: the events (`stream`).

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::models::{Model, Models};
use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment, with_query};
use crate::parts;
use crate::visit::Visit;

/// The read model with all streams.
const INDEX: &str = "stream_index";
/// The streams of a page.
const LIMIT: &str = "50";
const ABOUT: &str = "Each stream holds the events of one aggregate, in order.";

#[derive(Debug, Deserialize)]
struct Rows {
    rows: Vec<Row>,
    next: Option<String>,
}

/// One stream.
#[derive(Debug, Deserialize)]
struct Row {
    stream: String,
    category: String,
    version: u64,
    partition: u32,
    first_recorded_at: String,
    last_recorded_at: String,
}

/// `GET /console/streams`
pub(crate) async fn page(visit: Visit) -> Response {
    if let Some(name) = visit.parameter("open") {
        let path = format!("/console/streams/{}", segment(name));
        return Redirect::to(&visit.link(&path, [])).into_response();
    }
    let mut frame = Frame::of(Room::Streams, ABOUT);
    let index = match Models::of(&visit).await {
        Ok(models) => models.named(INDEX),
        Err(trouble) => return frame.trouble(&visit, &trouble),
    };
    let Some(index) = index else {
        let next = html! { p { "Its read model " code { (INDEX) } " belongs to every program." } };
        return frame.page(
            &visit,
            parts::empty("This program has no list of streams.", &next),
        );
    };
    let search = Search::of(&visit, &index);
    let rows = search.rows(&visit).await;
    frame.status = rows
        .as_ref()
        .err()
        .map_or(StatusCode::OK, |trouble| trouble.status);
    let content = html! {
        (form(&visit, &search))
        @match &rows {
            Ok(rows) => (shown(&visit, &search, rows)),
            Err(trouble) => (parts::trouble(&visit, trouble)),
        }
    };
    frame.page(&visit, content)
}

/// What is looked for, as far as the node can look for it.
struct Search {
    can_prefix: bool,
    prefix: Option<String>,
    category: Option<String>,
}

impl Search {
    fn of(visit: &Visit, index: &Model) -> Self {
        let can = |column: &str, filter: &str| {
            let found = index.columns.iter().find(|found| found.name == column);
            let filters = found.and_then(|found| found.filters.as_ref());
            filters.is_some_and(|filters| filters.iter().any(|known| known == filter))
        };
        let text = |name: &str| visit.parameter(name).map(str::to_owned);
        Self {
            can_prefix: can("stream", "stream.prefix"),
            prefix: text("prefix"),
            category: text("category"),
        }
    }

    fn is_any(&self) -> bool {
        self.prefix.is_some() || self.category.is_some()
    }

    /// The beginning that every stream of the page has: that of a category ends with a dash.
    fn beginning(&self) -> Option<String> {
        match (&self.prefix, &self.category) {
            (Some(prefix), _) => Some(prefix.clone()),
            (None, Some(category)) => Some(format!("{category}-")),
            (None, None) => None,
        }
    }

    async fn rows(&self, visit: &Visit) -> Result<Rows, Trouble> {
        let beginning = self.beginning().filter(|_| self.can_prefix);
        let mut query = vec![("limit", LIMIT)];
        query.extend(
            beginning
                .as_deref()
                .map(|beginning| ("stream.prefix", beginning)),
        );
        query.extend(visit.parameter("after").map(|after| ("after", after)));
        let path = with_query(&format!("/v1/read/{INDEX}"), query);
        visit.node()?.get(&path).await
    }
}

fn form(visit: &Visit, search: &Search) -> Markup {
    html! {
        section.filters aria-label="Search" {
            form.row method="get" role="search" {
                @if let Some(tenant) = visit.foreign_tenant() {
                    input type="hidden" name="tenant" value=(tenant);
                }
                @if search.can_prefix {
                    div.field.wide-field {
                        label for="prefix" { "Name begins with" }
                        input #prefix name="prefix" value=[search.prefix.as_deref()] type="search"
                            placeholder="order-" autocomplete="off" spellcheck="false"
                            autocapitalize="none";
                    }
                    button { "Search" }
                } @else {
                    div.field.wide-field {
                        label for="open" { "Name of a stream" }
                        input #open name="open" placeholder="order-1" required autocomplete="off"
                            spellcheck="false" autocapitalize="none";
                    }
                    button { "Open" }
                }
            }
        }
    }
}

fn shown(visit: &Visit, search: &Search, rows: &Rows) -> Markup {
    if rows.rows.is_empty() {
        let title = if search.is_any() {
            "No stream begins so."
        } else {
            "There are no streams yet."
        };
        let next = html! {
            @if search.is_any() {
                p { a href=(visit.link(&visit.path, [])) { "Show all streams" } }
            } @else {
                p { "The first accepted command of an aggregate begins its stream. "
                    a href="/docs/" { "Send a command" } }
            }
        };
        return parts::empty(title, &next);
    }
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Stream" }
                th scope="col" { "Category" }
                th.number scope="col" { "Events" }
                th.number scope="col" { "Partition" }
                th scope="col" { "First commit" }
                th scope="col" { "Last commit" }
            } }
            tbody {
                @for row in &rows.rows {
                    tr {
                        th scope="row" {
                            a href=(visit.link(&format!("/console/streams/{}", segment(&row.stream)), [])) {
                                (parts::cut(&row.stream))
                            }
                        }
                        td data-name="Category" { (category(visit, search, &row.category)) }
                        td.number data-name="Events" { (format::grouped(row.version)) }
                        td.number data-name="Partition" { (row.partition) }
                        td data-name="First" { (format::moment(&row.first_recorded_at)) }
                        td data-name="Last" { (format::moment(&row.last_recorded_at)) }
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
        section {
            (parts::wide("Streams", &table))
            (parts::pages(first.as_deref(), next.as_deref()))
        }
    }
}

/// A category, which leads to its streams where the node can look for them.
fn category(visit: &Visit, search: &Search, name: &str) -> Markup {
    if !search.can_prefix {
        return html! { (name) };
    }
    let link = visit.link("/console/streams", [("category", name)]);
    html! { a href=(link) { (name) } }
}
