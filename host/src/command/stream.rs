//! What the commands that show streams have in common.

use client::Query;
use serde_json::Value;

/// An actor as `kind:id`; null if nobody is named.
pub(super) fn actor_of(actor: &Value) -> Value {
    let text = |name: &str| actor.get(name).and_then(Value::as_str);
    match (text("kind"), text("id")) {
        (Some(kind), Some(id)) => Value::String(format!("{kind}:{id}")),
        _ => Value::Null,
    }
}

pub(super) fn query(tenant: &str) -> Query {
    Query {
        tenant: Some(tenant.to_owned()),
        ..Query::default()
    }
}
