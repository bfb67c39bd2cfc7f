//! What the document says of refusals: for each category, its rules' codes with their facts.
//!
//! Invariant: a program that knows a code finds the facts' types by it, and a program that does not
//! know a code reads a `Problem`: a rule may be added without breaking anybody. Deliberately absent:
//! which command breaks which rule; a category's commands have one list.

use std::collections::BTreeMap;

use door::PROBLEM_MEDIA_TYPE;
use door::openapi::{
    Fragment, camel, derived_ref, distinct, integer, object, one_text, schema_ref, text,
};
use kernel::RejectionType;
use kernel::registry::Aggregate;
use serde_json::{Value, json};

use crate::code;

/// The refusals of each category whose rules are known.
pub(super) struct Refusals(BTreeMap<&'static str, Vec<Named>>);

/// A rule, and the name of its schema.
struct Named {
    schema: String,
    rule: RejectionType,
}

impl Refusals {
    pub(super) fn of<'a>(
        aggregates: impl Iterator<Item = &'a dyn Aggregate>,
        generator: &mut schemars::SchemaGenerator,
    ) -> Self {
        let rules: Vec<_> = aggregates
            .flat_map(|aggregate| {
                let category = aggregate.category();
                let rules = aggregate.rejection_types(generator).into_iter();
                rules.map(move |rule| (category, camel(rule.code), rule))
            })
            .collect();
        let named = rules
            .iter()
            .map(|(category, name, _)| (*category, name.as_str()));
        let mut refusals = BTreeMap::<_, Vec<_>>::new();
        for (name, (category, _, rule)) in distinct(named).zip(&rules) {
            let schema = format!("{name}Refusal");
            let rule = rule.clone();
            refusals
                .entry(*category)
                .or_default()
                .push(Named { schema, rule });
        }
        Self(refusals)
    }

    /// Adds the schemas of all refusals.
    pub(super) fn describe(&self, fragment: &mut Fragment) {
        for (category, rules) in &self.0 {
            for named in rules {
                let code = fragment.mark(&named.schema, "code", named.rule.code, "The rule.");
                fragment.derived_schema(&named.schema, refusal(&named.rule, code));
            }
            fragment.derived_schema(&union_name(category), union(category, rules));
        }
    }

    /// The 422 response of a command of these categories; absent if the rules of one are not known.
    pub(super) fn response(&self, categories: &[&str]) -> Option<Value> {
        let unions = categories.iter().map(|category| {
            self.0
                .contains_key(category)
                .then(|| derived_ref(&union_name(category)))
        });
        let mut unions = unions.collect::<Option<Vec<_>>>()?;
        let schema = if unions.len() == 1 {
            unions.remove(0)
        } else {
            json!({"anyOf": unions})
        };
        let codes = categories.iter().flat_map(|category| &self.0[category]);
        let codes: Vec<_> = codes.map(|named| named.rule.code).collect();
        Some(json!({
            "description": format!(
                "A rule refused the command (recorded), or its id was used for another command \
                 (not recorded). Codes: `{}`, `{}`.",
                code::COMMAND_ID_REUSED.name,
                codes.join("`, `"),
            ),
            "headers": door::openapi::problem_headers(422),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}},
        }))
    }
}

fn union_name(category: &str) -> String {
    format!("RefusalOf{}", camel(category))
}

fn union(category: &str, rules: &[Named]) -> Value {
    let refusals = rules.iter().map(|named| derived_ref(&named.schema));
    json!({
        "description": format!(
            "Why a command to a stream of the category {category} is refused: one of the rules \
             known today, or a problem with another code."
        ),
        "anyOf": refusals.chain([schema_ref("Problem")]).collect::<Vec<_>>(),
    })
}

/// A refusal as `Problem::rejection` and `answer::refused` write it. A fact with the name of another
/// member has a prefix.
fn refusal(rule: &RejectionType, code: Value) -> Value {
    let fixed = json!({
        "type": one_text(&format!("urn:annals:problem:{}", rule.code), "The kind of problem."),
        "title": text("The kind of problem, for people."),
        "status": {"type": "integer", "format": "int32", "description": "The HTTP status."},
        "detail": text("A sentence about this refusal, for people."),
        "instance": text("The path of the request."),
        "code": code,
        "correlation_id": text("The conversation; the server's log has it, too."),
        "command_id": text("The id of the command."),
        "stream": text("The stream."),
        "version": integer(0, "The stream's version with which the rule was checked."),
        "position": text("The place of the refusal in the log, as a position token."),
        "repeated": {"type": "boolean", "description": "Whether this is the answer to an earlier \
                                                        request with the same id."},
    });
    let mut members = fixed.clone();
    for (name, schema) in &rule.facts {
        let prefix = if fixed.get(name).is_some() {
            "fact_"
        } else {
            ""
        };
        members[format!("{prefix}{name}")] = schema.clone().to_value();
    }
    object(&rule.about, members)
}
