//! Refusals and states have the forms that the aggregate declares: the OpenAPI document says so to
//! clients.

use kernel::registry::Registry;
use kernel::{Context, Decider, Rejection as _};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::json_schema::is_valid;
use crate::strategies::{customer_command, order_command, payment_command, request};
use domain::{Customer, Order, Payment};

const STEPS_MAX: usize = 24;

/// What an aggregate declares.
struct Declared {
    rules: Vec<(&'static str, Vec<(&'static str, Value)>)>,
    state: Value,
    definitions: Map<String, Value>,
}

impl Declared {
    fn by<D: Decider>() -> Self {
        let registry = Registry::new().with::<D>();
        let aggregate = registry.get(D::CATEGORY).unwrap();
        let mut generator = Registry::schema_generator("/$defs/");
        let rules = aggregate.rejection_types(&mut generator).into_iter();
        let rules = rules
            .map(|rule| {
                let facts = rule.facts.into_iter();
                let facts = facts.map(|(name, schema)| (name, schema.to_value()));
                (rule.code, facts.collect())
            })
            .collect();
        let state = aggregate.state_schema(&mut generator).unwrap().to_value();
        Self {
            rules,
            state,
            definitions: generator.take_definitions(true),
        }
    }

    fn has_refusal(&self, code: &str, facts: &Map<String, Value>) -> bool {
        let Some((_, declared)) = self.rules.iter().find(|(known, _)| *known == code) else {
            return false;
        };
        facts.len() == declared.len()
            && declared.iter().all(|(name, schema)| {
                let fact = facts.get(*name);
                fact.is_some_and(|fact| is_valid(schema, fact, &self.definitions))
            })
    }

    fn has_state(&self, state: &Value) -> bool {
        is_valid(&self.state, state, &self.definitions)
    }
}

fn check<D: Decider>(requests: Vec<(D::Command, Context)>) -> Result<(), TestCaseError> {
    let declared = Declared::by::<D>();
    let mut state = D::State::default();
    for (command, context) in requests {
        match D::decide(&state, &command, &context) {
            Ok(events) => {
                for event in &events {
                    D::evolve(&mut state, event, context.occurred_at);
                }
            }
            Err(refusal) => {
                let facts = refusal.facts();
                prop_assert!(
                    declared.has_refusal(refusal.code(), &facts),
                    "{refusal}: {facts:?}"
                );
            }
        }
        let state = serde_json::to_value(&state).unwrap();
        prop_assert!(declared.has_state(&state), "{state}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn refusals_and_states_of_orders_are_declared(
        requests in prop::collection::vec(request(order_command()), 0..STEPS_MAX),
    ) {
        check::<Order>(requests)?;
    }

    #[test]
    fn refusals_and_states_of_payments_are_declared(
        requests in prop::collection::vec(request(payment_command()), 0..STEPS_MAX),
    ) {
        check::<Payment>(requests)?;
    }

    #[test]
    fn refusals_and_states_of_customers_are_declared(
        requests in prop::collection::vec(request(customer_command()), 0..STEPS_MAX),
    ) {
        check::<Customer>(requests)?;
    }
}

#[test]
fn what_is_not_declared_is_noticed() {
    let declared = Declared::by::<Order>();
    let facts = |facts: Value| facts.as_object().unwrap().clone();
    let repeats =
        |line: Value| declared.has_refusal("order_lines_repeat", &facts(json!({"line": line})));
    assert!(repeats(json!(2)) && !repeats(json!("2")));
    assert!(!declared.has_refusal("order_lines_repeat", &facts(json!({}))));
    assert!(!declared.has_refusal("order_too_heavy", &facts(json!({}))));
    assert!(!declared.has_state(&json!({"placed": [1]})));
}
