//! The interface for the rules of a domain, which the checker compares with the log: JSON in, JSON
//! out.
//!
//! Invariant: a rule is a pure function of the accepted history of one stream and of the command.
//! Deliberately absent: any real domain; a caller that has one passes it in.

use serde_json::{Value, json};

/// What the rules decide about a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// Accepted, with these events (type and data).
    Accept(Vec<(String, Value)>),
    /// Refused, with this code.
    Refuse(String),
    /// The domain does not judge this command: nothing is checked.
    Silent,
}

/// A command as a rule sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The stream's version before the command.
    pub version: u64,
    /// The command's type.
    pub command: &'a str,
    /// The command's data.
    pub data: &'a Value,
}

/// A domain: the initial state of its streams, its decisions, and the effects of its events.
///
/// Each accepted commit must equal what `decide` returns on the accepted history before it.
pub trait Rules {
    /// The state of a stream without events; `None` if this domain does not judge the stream.
    fn initial(&self, stream: &str) -> Option<Value>;

    /// What the rules decide about the command.
    fn decide(&self, state: &Value, asked: &Asked<'_>) -> Ruling;

    /// Applies an event to the state.
    fn evolve(&self, state: &mut Value, type_name: &str, data: &Value);
}

/// No rules: every decision is accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRules;

impl Rules for NoRules {
    fn initial(&self, _stream: &str) -> Option<Value> {
        None
    }

    fn decide(&self, _state: &Value, _asked: &Asked<'_>) -> Ruling {
        Ruling::Silent
    }

    fn evolve(&self, _state: &mut Value, _type_name: &str, _data: &Value) {}
}

/// A counter that must stay within 0 to 100: the smallest domain with a rule that depends on
/// history.
///
/// `Add {"by":n}` leaves `Added {"by":n,"total":t}`. `Add` with `by` 0 is accepted without events.
/// A total outside the range is refused as `counter_out_of_range`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter;

impl Rules for Counter {
    fn initial(&self, _stream: &str) -> Option<Value> {
        Some(json!(0))
    }

    fn decide(&self, state: &Value, asked: &Asked<'_>) -> Ruling {
        let (Some(total), Some(by)) = (state.as_i64(), asked.data["by"].as_i64()) else {
            return Ruling::Silent;
        };
        if asked.command != "Add" {
            return Ruling::Silent;
        }
        let total = total + by;
        if !(0..=100).contains(&total) {
            return Ruling::Refuse("counter_out_of_range".to_owned());
        }
        if by == 0 {
            return Ruling::Accept(Vec::new());
        }
        Ruling::Accept(vec![(
            "Added".to_owned(),
            json!({"by": by, "total": total}),
        )])
    }

    fn evolve(&self, state: &mut Value, type_name: &str, data: &Value) {
        if type_name == "Added" {
            *state = data["total"].clone();
        }
    }
}
