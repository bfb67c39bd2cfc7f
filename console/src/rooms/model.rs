//! The rows of a read model: filters, order, pages, and one row with all its columns.
//!
//! Invariant: which filters and orders there are is what the node says of the model; the console
//! offers them and decides nothing. Deliberately absent: the list of read models (`models`).

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::models::{Column, Model, Models};
use super::{Parts, parts_of, why};
use crate::format;
use crate::json;
use crate::layout::{Frame, Room, icon};
use crate::node::{Trouble, segment, with_query};
use crate::parts;
use crate::parts::Tone;
use crate::visit::Visit;

/// The rows of a page.
const LIMIT: &str = "50";
/// The rest of a filter that a form adds: its parameter, and its value.
const ADDED: (&str, &str) = ("add", "value");

#[derive(Debug, Deserialize)]
struct Rows {
    rows: Vec<Map<String, Value>>,
    next: Option<String>,
}

/// `GET /console/models/{model}`
pub(crate) async fn page(visit: Visit, path: Parts<String>) -> Response {
    let frame = Frame::below(Room::Models, "Read model");
    let name = match parts_of(path) {
        Ok(name) => name,
        Err(trouble) => return frame.trouble(&visit, &trouble),
    };
    if let Some(canonical) = with_added(&visit) {
        return Redirect::to(&canonical).into_response();
    }
    let frame = Frame::below(Room::Models, &*name);
    let model = match model(&visit, &name).await {
        Ok(model) => model,
        Err(trouble) => return frame.trouble(&visit, &trouble),
    };
    let csv = visit.link(
        &format!("/console/csv/{}", segment(&name)),
        asked(&visit, &model),
    );
    let mut frame = frame.about(&*model.about);
    if knows_filters(&model) {
        frame = frame.aside(html! { a.button href=(csv) download { "Download CSV" } });
    }
    let rows = rows(&visit, &model).await;
    frame.status = rows
        .as_ref()
        .err()
        .map_or(StatusCode::OK, |trouble| trouble.status);
    let content = html! {
        (columns(&model))
        (filters(&visit, &model))
        @match rows {
            Ok(rows) => (shown(&visit, &model, &rows)),
            Err(trouble) => (parts::trouble(&visit, &trouble)),
        }
    };
    frame.page(&visit, content)
}

async fn model(visit: &Visit, name: &str) -> Result<Model, Trouble> {
    let found = Models::of(visit).await?.named(name);
    found.ok_or_else(|| {
        let detail = format!("this program has no read model that is named {name:?}");
        Trouble {
            code: Some("model_unknown".to_owned()),
            ..Trouble::new(StatusCode::NOT_FOUND, "No such read model", detail)
        }
    })
}

/// Whether the node can filter, sort, and write CSV.
fn knows_filters(model: &Model) -> bool {
    model.columns.iter().any(|column| column.filters.is_some())
}

/// The filters and the order of a visit, as the node's route takes them.
fn asked<'v>(visit: &'v Visit, model: &Model) -> Vec<(&'v str, &'v str)> {
    let is_known = |name: &str| {
        let column = name.split_once('.').map_or(name, |(column, _)| column);
        name == "sort" || model.columns.iter().any(|known| known.name == column)
    };
    let pairs = visit.query.iter().map(|(name, value)| (&**name, &**value));
    pairs.filter(|(name, _)| is_known(name)).collect()
}

async fn rows(visit: &Visit, model: &Model) -> Result<Rows, Trouble> {
    let mut query = asked(visit, model);
    query.push(("limit", LIMIT));
    query.extend(visit.parameter("after").map(|after| ("after", after)));
    let path = format!("/v1/read/{}", segment(&model.name));
    visit.node()?.get(&with_query(&path, query)).await
}

/// The address of the page with the filter that its form adds.
fn with_added(visit: &Visit) -> Option<String> {
    let given = |wanted: &str| visit.query.iter().find(|(name, _)| name == wanted);
    let (_, added) = given(ADDED.0)?;
    let value = given(ADDED.1).map_or("", |(_, value)| value.trim());
    let value = match split(added).1 {
        "null" if value.is_empty() => "true",
        _ => value,
    };
    // A filter takes the place of the same one, except where it is one value of several.
    let is_several = split(added).1 == "in";
    let is_form = |name: &str| name == ADDED.0 || name == ADDED.1;
    let keep = |name: &str, _: &str| !is_form(name) && (is_several || name != added);
    let new = (!added.is_empty()).then_some((&**added, value));
    Some(visit.kept(keep, new))
}

/// What each column means.
fn columns(model: &Model) -> Markup {
    html! {
        details.columns {
            summary { "What the " (format::counted(model.columns.len() as u64, "column")) " mean" }
            dl {
                @for column in &model.columns { div {
                    dt {
                        code { (column.name) }
                        span.quiet { (column.column_type) @if column.nullable { ", may be empty" } }
                        @if model.key.contains(&column.name) { (parts::badge(Tone::Note, "key")) }
                    }
                    dd { (column.about) }
                } }
            }
        }
    }
}

/// What a filter says in words, and the value that belongs to it.
fn said<'v>(operator: &'v str, value: &'v str) -> (&'v str, &'v str) {
    match (operator, value) {
        ("null", "false") => ("is not empty", ""),
        ("null", _) => ("is empty", ""),
        _ => (words(operator), value),
    }
}

/// What a filter's ending says in words.
fn words(operator: &str) -> &str {
    match operator {
        "" | "eq" => "is",
        "gte" => "is at least",
        "gt" => "is more than",
        "lte" => "is at most",
        "lt" => "is less than",
        "prefix" => "begins with",
        "in" => "is one of",
        "null" => "is empty",
        other => other,
    }
}

/// A filter's parameter as its column and its ending.
fn split(parameter: &str) -> (&str, &str) {
    parameter.split_once('.').unwrap_or((parameter, ""))
}

/// The filters that there are, each with a way to take it off, and a form for one more.
fn filters(visit: &Visit, model: &Model) -> Markup {
    let offered: Vec<(&Column, Vec<&str>)> = model
        .columns
        .iter()
        .map(|column| {
            let filters = column.filters.iter().flatten();
            (column, filters.map(|filter| split(filter).1).collect())
        })
        .filter(|(_, operators): &(_, Vec<&str>)| !operators.is_empty())
        .collect();
    let active: Vec<(&str, &str)> = asked(visit, model)
        .into_iter()
        .filter(|(name, _)| *name != "sort")
        .collect();
    if offered.is_empty() && active.is_empty() {
        return html! {};
    }
    html! {
        section.filters aria-label="Filters" {
            @if !active.is_empty() {
                ul.chips {
                    @for (name, value) in &active {
                        @let (column, operator) = split(name);
                        @let (words, shown) = said(operator, value);
                        @let without = visit.kept(|n, v| (n, v) != (*name, *value), []);
                        li.chip {
                            span { code { (column) } " " (words) " " b { (shown) } }
                            a href=(without) {
                                (icon("M4 4l8 8M12 4l-8 8"))
                                span.unseen { "Remove the filter by " (name) }
                            }
                        }
                    }
                }
            }
            @if !offered.is_empty() { (filter_form(visit, &offered)) }
        }
    }
}

fn filter_form(visit: &Visit, offered: &[(&Column, Vec<&str>)]) -> Markup {
    let kept = visit
        .query
        .iter()
        .filter(|(name, _)| name != "after" && *name != ADDED.0 && *name != ADDED.1);
    html! {
        form.row method="get" {
            @for (name, value) in kept { input type="hidden" name=(name) value=(value); }
            @if let Some(tenant) = visit.foreign_tenant() {
                input type="hidden" name="tenant" value=(tenant);
            }
            div.field {
                label for="add" { "Filter" }
                select #add name=(ADDED.0) {
                    @for (column, operators) in offered {
                        optgroup label=(column.name) {
                            @for operator in operators {
                                @let parameter = match *operator {
                                    "" => column.name.clone(),
                                    operator => format!("{}.{operator}", column.name),
                                };
                                option value=(parameter) { (column.name) " " (words(operator)) }
                            }
                        }
                    }
                }
            }
            div.field {
                label for="value" { "Value" }
                input #value name=(ADDED.1) autocomplete="off" spellcheck="false"
                    autocapitalize="none";
            }
            button { "Add filter" }
        }
    }
}

fn shown(visit: &Visit, model: &Model, rows: &Rows) -> Markup {
    if rows.rows.is_empty() {
        let is_filtered = !asked(visit, model).is_empty();
        let next = html! {
            @if is_filtered {
                p { a href=(visit.link(&visit.path, [])) { "Show all rows" } }
            } @else {
                p { "Rows appear as soon as commands have left events that this read model takes. "
                    a href="/docs/" { "Send a command" } " or look at "
                    a href=(visit.link("/console/projections", [])) { "the projections" } "." }
            }
        };
        let title = if is_filtered {
            "No row fits these filters."
        } else {
            "There are no rows yet."
        };
        return parts::empty(title, &next);
    }
    let table = html! {
        table {
            thead { tr {
                @for column in &model.columns { (head(visit, model, column)) }
            } }
            tbody {
                @for row in &rows.rows {
                    tr {
                        @for (index, column) in model.columns.iter().enumerate() {
                            @let value = row.get(&column.name).unwrap_or(&Value::Null);
                            @if index == 0 {
                                th scope="row" { (key_cell(visit, model, row, column, value)) }
                            } @else {
                                td.number[column.is_number()] { (why_cell(visit, model, row, column, value)) }
                            }
                        }
                    }
                }
            }
        }
    };
    let first = visit.parameter("after").map(|_| visit.changed(&[]));
    let next = rows.next.as_ref().map(|next| {
        let mut query: Vec<(&str, &str)> = asked(visit, model);
        query.push(("after", next));
        visit.link(&visit.path, query)
    });
    html! {
        section {
            (parts::wide(&format!("Rows of {}", model.name), &table))
            (parts::pages(first.as_deref(), next.as_deref()))
        }
    }
}

/// The head of a column; it sorts, if rows may be sorted by the column.
fn head(visit: &Visit, model: &Model, column: &Column) -> Markup {
    let sorted = match visit.parameter("sort") {
        Some(sort) if sort == column.name => Some("ascending"),
        Some(sort) if sort.strip_prefix('-') == Some(&*column.name) => Some("descending"),
        _ => None,
    };
    let descending = format!("-{}", column.name);
    let next = match sorted {
        None => Some(&*column.name),
        Some("ascending") => Some(&*descending),
        Some(_) => None,
    };
    html! {
        th.number[column.is_number()] scope="col" aria-sort=[sorted] title=(column.about) {
            @if model.sorts.contains(&column.name) {
                a href=(visit.changed(&[("sort", next)])) {
                    (column.name)
                    @match sorted {
                        Some("ascending") => span.sort aria-hidden="true" { "▲" },
                        Some(_) => span.sort aria-hidden="true" { "▼" },
                        None => span.sort.idle aria-hidden="true" { "▲" },
                    }
                }
            } @else { (column.name) }
        }
    }
}

/// The first cell of a row, which leads to all of it.
fn key_cell(
    visit: &Visit,
    model: &Model,
    row: &Map<String, Value>,
    column: &Column,
    value: &Value,
) -> Markup {
    let Some(key) = key_of(model, row) else {
        return cell(visit, column, value);
    };
    let path = format!("/console/models/{}/{}", segment(&model.name), segment(&key));
    html! { a href=(visit.link(&path, [])) { (parts::cut(&plain(value))) } }
}

/// Another cell of a row, which leads to what gave it its value.
fn why_cell(
    visit: &Visit,
    model: &Model,
    row: &Map<String, Value>,
    column: &Column,
    value: &Value,
) -> Markup {
    let shown = cell(visit, column, value);
    // A stream leads to its own page.
    let leads_elsewhere = column.name == "stream" && value.is_string();
    match key_of(model, row).filter(|_| !leads_elsewhere) {
        None => shown,
        Some(key) => {
            let to = why::link(visit, &model.name, &key, Some(&column.name));
            html! { a.cell href=(to) { (shown) } }
        }
    }
}

/// The key of a row, as the path of its page holds it.
fn key_of(model: &Model, row: &Map<String, Value>) -> Option<String> {
    let parts: Option<Vec<String>> = model
        .key
        .iter()
        .map(|key| row.get(key).map(plain))
        .collect();
    parts
        .filter(|parts| !parts.is_empty())
        .map(|parts| parts.join(","))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as its column's type reads best.
fn cell(visit: &Visit, column: &Column, value: &Value) -> Markup {
    match value {
        Value::Null => html! { span.quiet title="empty" { "–" } },
        Value::String(text) if column.column_type == "timestamptz" => format::moment(text),
        Value::String(text) if column.name == "stream" => {
            let path = format!("/console/streams/{}", segment(text));
            html! { a href=(visit.link(&path, [])) { (parts::cut(text)) } }
        }
        Value::String(text) => parts::cut(text),
        Value::Bool(yes) => html! { @if *yes { "yes" } @else { "no" } },
        Value::Number(number) => html! { (number) },
        Value::Array(_) | Value::Object(_) => parts::cut(&value.to_string()),
    }
}

/// `GET /console/models/{model}/{key}`
pub(crate) async fn row(visit: Visit, path: Parts<(String, String)>) -> Response {
    let (name, key) = match parts_of(path) {
        Ok(parts) => parts,
        Err(trouble) => return Frame::below(Room::Models, "Row").trouble(&visit, &trouble),
    };
    let above = visit.link(&format!("/console/models/{}", segment(&name)), []);
    let frame = Frame::below(Room::Models, key.replace(',', " · ")).above(above, &*name);
    match row_of(&visit, &name, &key).await {
        Ok((model, row)) => frame.page(&visit, whole(&visit, &model, &key, &row)),
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn row_of(
    visit: &Visit,
    name: &str,
    key: &str,
) -> Result<(Model, Map<String, Value>), Trouble> {
    let model = model(visit, name).await?;
    let path = format!("/v1/read/{}/{}", segment(name), segment(key));
    let row = visit.node()?.get(&path).await?;
    Ok((model, row))
}

/// Every column of one row, in full.
fn whole(visit: &Visit, model: &Model, key: &str, row: &Map<String, Value>) -> Markup {
    html! {
        p { a href=(why::link(visit, &model.name, key, None)) { "What made this row" } }
        dl.whole {
            @for column in &model.columns {
                @let value = row.get(&column.name).unwrap_or(&Value::Null);
                dt {
                    a href=(why::link(visit, &model.name, key, Some(&column.name)))
                        title="What gave it its value" { code { (column.name) } }
                    p.quiet { (column.about) }
                }
                dd {
                    @match value {
                        Value::String(text) if column.column_type == "text" && column.name != "stream" => (text),
                        Value::Array(_) | Value::Object(_) => (json::block(&column.name, &value.to_string())),
                        value => (cell(visit, column, value)),
                    }
                }
            }
        }
    }
}

/// `GET /console/csv/{model}`: the rows as the node writes them, for the visitor's tenant.
pub(crate) async fn csv(visit: Visit, path: Parts<String>) -> Response {
    let frame = Frame::below(Room::Models, "CSV");
    match csv_of(&visit, path).await {
        Ok(response) => response,
        Err(trouble) => frame.trouble(&visit, &trouble),
    }
}

async fn csv_of(visit: &Visit, path: Parts<String>) -> Result<Response, Trouble> {
    let name = parts_of(path)?;
    let model = model(visit, &name).await?;
    let mut query = asked(visit, &model);
    query.push(("format", "csv"));
    let path = with_query(&format!("/v1/read/{}", segment(&name)), query);
    let mut response = visit.node()?.ask(Method::GET, &path, None).await?;
    let attachment = format!("attachment; filename=\"{name}.csv\"");
    if response.status().is_success()
        && let Ok(attachment) = attachment.parse()
    {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, attachment);
    }
    Ok(response)
}
