//! The read models: what there is, and what each is about.
//!
//! Deliberately absent: their rows (`model`).

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use crate::format;
use crate::layout::{Frame, Room};
use crate::node::{Trouble, segment};
use crate::parts;
use crate::visit::Visit;

/// The answer of `GET /v1/read`.
#[derive(Debug, Deserialize)]
pub(super) struct Models {
    pub(super) models: Vec<Model>,
}

/// A read model.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Model {
    pub(super) name: String,
    #[serde(default)]
    pub(super) about: String,
    #[serde(default)]
    pub(super) key: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// The columns that rows may be sorted by.
    #[serde(default)]
    pub(super) sorts: Vec<String>,
}

/// A column of a read model.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) column_type: String,
    #[serde(default)]
    pub(super) nullable: bool,
    #[serde(default)]
    pub(super) about: String,
    /// The parameters that filter it; `None` if the node does not know filters.
    #[serde(default)]
    pub(super) filters: Option<Vec<String>>,
}

impl Column {
    /// Whether its values are numbers, which are compared digit by digit.
    pub(super) fn is_number(&self) -> bool {
        ["bigint", "integer", "numeric", "double precision"].contains(&&*self.column_type)
    }
}

impl Models {
    /// The read models of the node.
    pub(super) async fn of(visit: &Visit) -> Result<Self, Trouble> {
        visit.node()?.get("/v1/read").await
    }

    /// The read model with this name.
    pub(super) fn named(self, name: &str) -> Option<Model> {
        self.models.into_iter().find(|model| model.name == name)
    }
}

const ABOUT: &str = "Tables that projections make from the events of the log.";

/// `GET /console/models`
pub(super) async fn page(visit: Visit) -> Response {
    let frame = Frame::of(Room::Models, ABOUT);
    match Models::of(&visit).await {
        Ok(models) => frame.page(&visit, shown(&visit, &models.models)),
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

fn shown(visit: &Visit, models: &[Model]) -> Markup {
    if models.is_empty() {
        let next =
            html! { p { "Declare a projection with a table in your program, and start it." } };
        return parts::empty("This program has no read models.", &next);
    }
    let behind: BTreeMap<String, (f64, f64)> = {
        let samples = visit.console.samples();
        samples
            .newest()
            .map(|sample| sample.behind.clone())
            .unwrap_or_default()
    };
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Read model" }
                th scope="col" { "What it shows" }
                th scope="col" { "Key" }
                th.number scope="col" { "Columns" }
                th.number scope="col" { "Lag" }
            } }
            tbody {
                @for model in models {
                    tr {
                        th scope="row" {
                            a href=(visit.link(&format!("/console/models/{}", segment(&model.name)), [])) {
                                (model.name)
                            }
                        }
                        td.text { (model.about) }
                        td data-name="Key" { @for (index, key) in model.key.iter().enumerate() {
                            @if index > 0 { ", " } code { (key) }
                        } }
                        td.number data-name="Columns" { (model.columns.len()) }
                        td.number data-name="Lag" { @match behind.get(&model.name) {
                            Some((lag, _)) => { (format::seconds(*lag)) }
                            None => { span.quiet title="This node does not know it" { "–" } }
                        } }
                    }
                }
            }
        }
    };
    html! { section { (parts::wide("Read models", &table)) } }
}
