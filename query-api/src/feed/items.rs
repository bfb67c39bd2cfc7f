//! What the feed sends: events and refusals with their whole envelope, as JSON, one line each.
//!
//! Invariant: a cursor stands only on the last item of a commit, so that who goes on from it has whole
//! commits. Deliberately absent: which commits are sent.

use event_log::commit::{Commit, Outcome};
use kernel::registry::{MessageError, Registry};
use kernel::{Actor, Timestamp, TypeName};
use position::{Bookmark, Mark, Partition};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::asked::{Asked, Form};
use crate::parameters::Shape;

/// Where a commit stands in the log.
#[derive(Clone, Copy, Serialize)]
struct Place {
    partition: u32,
    position: u64,
    offset: u64,
}

#[derive(Serialize)]
struct EventItem<'a> {
    kind: &'static str,
    tenant: &'a str,
    stream: &'a str,
    version: u64,
    id: Uuid,
    #[serde(rename = "type")]
    type_name: &'a str,
    schema: u16,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    command_id: &'a str,
    command: &'a str,
    correlation_id: &'a str,
    causation_id: &'a str,
    actor: Option<&'a Actor>,
    traceparent: Option<&'a str>,
    place: Place,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct RefusalItem<'a> {
    kind: &'static str,
    tenant: &'a str,
    stream: &'a str,
    version: u64,
    code: &'a str,
    detail: &'a str,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    command_id: &'a str,
    command: &'a str,
    correlation_id: &'a str,
    causation_id: &'a str,
    actor: Option<&'a Actor>,
    traceparent: Option<&'a str>,
    place: Place,
    data: &'a RawValue,
}

/// An item: what it is, and its JSON without the last brace.
pub(super) struct Item {
    kind: &'static str,
    /// The type of an event.
    event_type: Option<TypeName>,
    json: String,
}

fn item(kind: &'static str, event_type: Option<TypeName>, item: &impl Serialize) -> Item {
    // The types above have texts and numbers only.
    let mut json = serde_json::to_string(item).unwrap_or_else(|_| "{}".to_owned());
    json.pop();
    // A line break in JSON can only be white space between members.
    if json.contains(['\n', '\r']) {
        json = json.replace(['\n', '\r'], " ");
    }
    json.shrink_to_fit();
    Item {
        kind,
        event_type,
        json,
    }
}

/// The items of one commit; `Err` if an event cannot be shown in its newest shape.
pub(super) fn items_of(
    commit: &Commit,
    partition: Partition,
    mark: Mark,
    shape: Shape,
    registry: &Registry,
) -> Result<Vec<Item>, MessageError> {
    let place = Place {
        partition: partition.0,
        position: mark.position.0,
        offset: mark.offset.0,
    };
    let (tenant, stream) = (commit.tenant.as_str(), commit.stream.as_str());
    let (command_id, command) = (
        commit.command.id.as_str(),
        commit.command.type_name.as_str(),
    );
    let (correlation_id, causation_id) = (commit.correlation_id(), commit.causation_id());
    let (actor, traceparent) = (commit.actor.as_ref(), commit.trace.as_deref());
    if let (Outcome::Rejected, Some(rejection)) = (commit.outcome, &commit.rejection) {
        let refusal = RefusalItem {
            kind: "refusal",
            tenant,
            stream,
            version: commit.version(),
            code: rejection.code.as_str(),
            detail: rejection.detail.as_str(),
            occurred_at: commit.asked_at(),
            recorded_at: commit.recorded_at,
            command_id,
            command,
            correlation_id,
            causation_id,
            actor,
            traceparent,
            place,
            data: &commit.command.data,
        };
        return Ok(vec![item("refusal", None, &refusal)]);
    }
    let mut items = Vec::with_capacity(commit.events.len());
    for (event, version) in commit.events.iter().zip(commit.from_version + 1..) {
        let newest = match (shape, registry.get(commit.stream.category())) {
            (Shape::Latest, Some(aggregate)) => {
                Some(aggregate.newest_event(&event.type_name, event.schema, &event.data)?)
            }
            (Shape::Latest, None) | (Shape::Recorded, _) => None,
        };
        let (schema, data) = match &newest {
            Some(newest) => (newest.schema, &*newest.data),
            None => (event.schema, &*event.data),
        };
        let shown = EventItem {
            kind: "event",
            tenant,
            stream,
            version,
            id: event.id,
            type_name: event.type_name.as_str(),
            schema,
            occurred_at: commit.occurred_at(event),
            recorded_at: commit.recorded_at,
            command_id,
            command,
            correlation_id,
            causation_id,
            actor,
            traceparent,
            place,
            data,
        };
        items.push(item("event", Some(event.type_name.clone()), &shown));
    }
    Ok(items)
}

/// Writes in one of the forms.
pub(super) struct Writer {
    form: Form,
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            bytes: Vec::new(),
        }
    }

    /// Adds those items of a commit that are asked for; says how many.
    pub(super) fn commit(&mut self, items: &[Item], bookmark: &Bookmark, asked: &Asked) -> u64 {
        let is_shown = |item: &&Item| {
            let event_type = item.event_type.as_ref();
            event_type.is_none_or(|event_type| asked.shows_event(event_type.as_str()))
        };
        let mut shown = items.iter().filter(is_shown).peekable();
        let mut count = 0;
        while let Some(item) = shown.next() {
            count += 1;
            let cursor = shown.peek().is_none().then(|| bookmark.to_string());
            self.item(item.kind, cursor.as_deref(), &item.json);
        }
        count
    }

    /// Adds an item whose JSON lacks the last brace.
    fn item(&mut self, kind: &str, cursor: Option<&str>, json: &str) {
        self.head(kind, cursor);
        self.text(json);
        if let Some(cursor) = cursor {
            // It has no character that JSON escapes.
            self.text(",\"cursor\":\"");
            self.text(cursor);
            self.text("\"");
        }
        self.text("}");
        self.foot();
    }

    /// Adds that nothing came, and how far the feed has come nevertheless.
    pub(super) fn progress(&mut self, bookmark: &Bookmark) {
        let cursor = bookmark.to_string();
        match self.form {
            // Without data no event is told to the program, and its browser keeps the id.
            Form::Events => self.text(&format!(": nothing new\nid: {cursor}\n\n")),
            Form::Lines => self.text(&format!(
                "{{\"kind\":\"progress\",\"cursor\":\"{cursor}\"}}\n"
            )),
        }
    }

    /// Adds that the feed is complete.
    pub(super) fn end(&mut self, bookmark: &Bookmark) {
        self.item("end", Some(&bookmark.to_string()), "{\"kind\":\"end\"");
    }

    /// Adds why the feed ends before its end.
    pub(super) fn problem(&mut self, problem: &serde_json::Value) {
        let json = serde_json::json!({"kind": "problem", "problem": problem}).to_string();
        self.head("problem", None);
        self.text(&json);
        self.foot();
    }

    /// Says how to come back.
    pub(super) fn begin(&mut self, retry_ms: u64) {
        if self.form == Form::Events {
            self.text(&format!("retry: {retry_ms}\n\n"));
        }
    }

    fn head(&mut self, kind: &str, cursor: Option<&str>) {
        if self.form == Form::Lines {
            return;
        }
        self.text("event: ");
        self.text(kind);
        if let Some(cursor) = cursor {
            self.text("\nid: ");
            self.text(cursor);
        }
        self.text("\ndata: ");
    }

    fn foot(&mut self) {
        self.text(match self.form {
            Form::Lines => "\n",
            Form::Events => "\n\n",
        });
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }
}
