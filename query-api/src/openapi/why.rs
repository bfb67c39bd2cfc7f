//! What the document says of what made a row.
//!
//! Deliberately absent: the rows themselves.

use door::openapi::{Fragment, header_ref, integer, nullable, object, schema_ref, text};
use projector::{WHY_COMMITS_MAX, WHY_PARKED_MAX};
use serde_json::{Value, json};

use super::streams::moment;
use super::{
    as_of_parameter, common_parameters, known_parameter, limit_parameter, ok, past_headers,
    position_schema, problems, tag,
};
use crate::shown::ShownModel;

/// Adds the schemas that all read models share.
pub(super) fn describe(fragment: &mut Fragment) {
    fragment.schema("Why", why_schema());
    fragment.schema("Contribution", contribution_schema());
    fragment.schema("ContributedCell", cell_schema());
    fragment.schema("WhyDifference", difference_schema());
    fragment.schema("LeftOutStream", left_out_schema());
}

/// The route of one read model.
pub(super) fn operation(shown: &ShownModel) -> Value {
    let name = shown.model.name;
    let keys: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    let columns: Vec<&str> = shown.model.columns.iter().map(|it| it.name).collect();
    let mut parameters = vec![
        json!({"name": "key", "in": "path", "required": true,
               "description": format!("{}. A value that cannot be a key is answered with 404.",
                                      keys.join(",")),
               "schema": {"type": "string", "minLength": 1}}),
        json!({"name": "column", "in": "query",
               "description": "Only what gave this column its value; absent: all columns.",
               "schema": {"type": "string", "enum": columns}}),
        limit_parameter("commits"),
        json!({"name": "after", "in": "query",
               "description": "Where the page begins: the `next` of the page before.",
               "schema": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.-?[0-9]+$"}}),
        as_of_parameter(),
        known_parameter(),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 422, 503]);
    let mut found = ok(
        "The contributions that made the row, oldest first.",
        schema_ref("Why"),
    );
    found["headers"]["Link"] = header_ref("Link");
    past_headers(&mut found);
    responses.insert("200".to_owned(), found);
    let about = "Stands for the answer, apart from `position`.";
    tag(&mut responses, about, "^W/\"[0-9a-f]{24}\"$");
    json!({
        "operationId": format!("why_{name}"),
        "tags": ["read models"],
        "summary": format!("Why a row of {name} is what it is"),
        "description": format!(
            "What events gave the row, and the rows that its view joins with it, in the order of \
             recorded times; each with the value that the column then had. They are made again from \
             the log. A read model whose versions of rows are not all kept is searched in the log: \
             at most {WHY_COMMITS_MAX} commits."
        ),
        "parameters": parameters,
        "responses": responses,
    })
}

fn why_schema() -> Value {
    object(
        "What made a row.",
        json!({
            "model": text("The read model."),
            "key": text("The key of the row, its columns joined by commas."),
            "column": nullable(&text("The column that was asked for.")),
            "source": {"type": "string", "enum": ["history", "log"],
                       "description": "What named the commits: the versions of the row, or a search \
                                       for those that can have contributed."},
            "contributions": {"type": "array", "items": schema_ref("Contribution"),
                              "description": "The contributions of this page, oldest first."},
            "adds_up": nullable(&json!({"type": "boolean",
                "description": "Whether the row before the page, with what its commits contribute, is \
                                the row that is stored behind it; null if that row is not kept."})),
            "differences": {"type": "array", "items": schema_ref("WhyDifference"),
                            "description": "Where it is not."},
            "left_out": {"type": "array", "items": schema_ref("LeftOutStream"),
                         "maxItems": WHY_PARKED_MAX,
                         "description": "Parked streams of the tenant, at most some: what they \
                                         contribute is not in the rows."},
            "next": nullable(&text("The value of `after` for the next page.")),
            "position": nullable(&position_schema()),
        }),
    )
}

fn contribution_schema() -> Value {
    object(
        "What one event gave a row.",
        json!({
            "commit": {"type": "string", "format": "uuid", "description": "The commit's id."},
            "stream": text("The stream."),
            "version": integer(0, "The stream's version with the event."),
            "event": nullable(&json!({"type": "string", "format": "uuid",
                "description": "The event's id; null if the read model is made of commits as a \
                                whole."})),
            "event_type": nullable(&text("The name of the event's type.")),
            "occurred_at": moment("Business time."),
            "recorded_at": moment("When the engine recorded it."),
            "command_id": text("The id of the command."),
            "command": text("The name of the command's type."),
            "correlation_id": text("The conversation it belongs to."),
            "causation_id": text("What the command names as its direct cause."),
            "actor": nullable(&schema_ref("Actor")),
            "traceparent": nullable(&text("W3C Trace Context of the command.")),
            "partition": integer(0, "The partition of the log."),
            "offset": integer(0, "The log's number of the record."),
            "position": nullable(&position_schema()),
            "table": text("The table of the row: that of the read model, or one that its view joins."),
            "key": text("The key of the row in that table, its columns joined by commas."),
            "effect": {"type": "string", "enum": ["began", "changed", "replaced", "removed"],
                       "description": "What it did: the row began, changed, went away and began anew, \
                                       or went away."},
            "cells": {"type": "array", "items": schema_ref("ContributedCell"),
                      "description": "What it gave to columns."},
        }),
    )
}

fn cell_schema() -> Value {
    object(
        "What was given to one column.",
        json!({
            "column": text("The column of the table."),
            "rule": {"type": "string", "enum": ["set", "add", "min", "max", "latest"],
                     "description": "How contributions become its value."},
            "given": {"description": "What was given; null if the column was emptied. A sum that 64 \
                                      bits do not hold is a text."},
            "value": {"description": "What the column holds with it."},
        }),
    )
}

fn difference_schema() -> Value {
    object(
        "A place where contributions do not add up to the stored row.",
        json!({
            "table": text("The table."),
            "column": nullable(&text("The column; null if only one of the two rows is there.")),
            "stored": {"description": "What is stored."},
            "contributed": {"description": "What the contributions give."},
        }),
    )
}

fn left_out_schema() -> Value {
    object(
        "A parked stream.",
        json!({
            "stream": text("The stream."),
            "partition": integer(0, "Its partition."),
            "position": integer(0, "The position of the commit that could not be taken up."),
        }),
    )
}
