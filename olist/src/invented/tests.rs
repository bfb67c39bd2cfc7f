//! An invented history is the same everywhere, and the shop's rules answer it as declared.

use std::collections::{HashMap, HashSet};

use domain::{Customer, Order, Payment};
use kernel::registry::{Opaque, Registry};
use kernel::{Context, StreamName, TenantId};
use serde_json::Value;

use super::*;

fn wish(seed: u64, events: u64) -> Wish {
    Wish {
        seed,
        events,
        from: "2024-01-01T00:00:00Z".parse().unwrap(),
        days: 365,
        tenant: None,
    }
}

/// The shop's rules with the states of all streams, without a log.
struct Shop {
    registry: Registry,
    streams: HashMap<String, Opaque>,
}

impl Shop {
    fn open() -> Self {
        let registry = Registry::new()
            .with::<Customer>()
            .with::<Order>()
            .with::<Payment>();
        let streams = HashMap::new();
        Self { registry, streams }
    }

    fn answer(&mut self, line: &Value) -> Expected {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let stream: StreamName = text("stream").parse().unwrap();
        let aggregate = self.registry.get(stream.category()).unwrap();
        let occurred_at = text("occurred_at").parse().unwrap();
        let context = Context {
            occurred_at,
            is_time_given: true,
            actor: None,
            tenant: "main".parse::<TenantId>().unwrap(),
            command_id: text("id").parse().unwrap(),
        };
        let data = line["data"].to_string();
        let command = aggregate.decode_command(&text("command"), None, &data);
        let state = self
            .streams
            .entry(stream.to_string())
            .or_insert_with(|| aggregate.initial().unwrap());
        match aggregate
            .decide(state, &command.unwrap(), &context)
            .unwrap()
        {
            Err(refusal) => Expected::Refused(refusal.code.leak()),
            Ok(events) if events.is_empty() => Expected::NothingToDo,
            Ok(events) => {
                for event in &events {
                    aggregate.evolve(state, event, occurred_at).unwrap();
                }
                assert_eq!(events.len(), 1);
                Expected::Accepted
            }
        }
    }
}

#[test]
fn the_shop_answers_each_line_as_declared_in_the_order_of_business_time() {
    let history = Invented::new(wish(1, 40_000));
    let mut shop = Shop::open();
    let (mut found, mut last, mut ids) = (Declared::default(), String::new(), HashSet::new());
    found.orders = history.declared().orders;
    for (line, expected) in history.lines() {
        let value: Value = serde_json::from_str(&line.json).unwrap();
        assert_eq!(shop.answer(&value), expected, "{}", line.json);
        assert_eq!(value["command"], *line.command);
        assert!(ids.insert(value["id"].as_str().unwrap().to_owned()));
        // Milliseconds are written or not: compare moments, not texts.
        let at: Timestamp = value["occurred_at"].as_str().unwrap().parse().unwrap();
        let at = format!("{:020}", at.micros());
        assert!(at >= last, "{}", line.json);
        last = at;
        found.commands += 1;
        match expected {
            Expected::Accepted => found.events += 1,
            Expected::NothingToDo => found.nothing_to_do += 1,
            Expected::Refused(code) => *found.refused.entry(code).or_default() += 1,
        }
    }
    assert_eq!(&found, history.declared());
    assert!((40_000..40_025).contains(&found.events));
    assert_eq!(found.refused.len(), 10, "{:?}", found.refused);
    assert!(found.nothing_to_do > 0);
}

#[test]
fn the_same_wish_gives_the_same_bytes_for_ever() {
    let text = |wish| {
        let history = Invented::new(wish);
        let lines: Vec<String> = history.lines().map(|(line, _)| line.json).collect();
        Uuid::new_v5(&COMMAND_NAMESPACE, lines.join("\n").as_bytes()).to_string()
    };
    assert_eq!(text(wish(42, 500)), "906618d4-dfe0-5273-9105-a6dd0304c33b");
    assert_ne!(text(wish(42, 500)), text(wish(43, 500)));
}

#[test]
fn histories_that_differ_share_no_stream() {
    let streams = |wish| -> HashSet<String> {
        let history = Invented::new(wish);
        let stream = |(line, _): (CommandLine, _)| {
            let value: Value = serde_json::from_str(&line.json).unwrap();
            value["stream"].as_str().unwrap().to_owned()
        };
        history.lines().map(stream).collect()
    };
    let one = streams(wish(42, 500));
    for other in [
        wish(43, 500),
        wish(42, 501),
        Wish {
            days: 7,
            ..wish(42, 500)
        },
    ] {
        assert!(one.is_disjoint(&streams(other)));
    }
}

#[test]
fn a_few_products_and_customers_have_most_orders() {
    let history = Invented::new(wish(5, 100_000));
    let mut orders_of: HashMap<u64, u64> = HashMap::new();
    for number in 0..history.declared().orders {
        *orders_of
            .entry(history.script(number).customer)
            .or_default() += 1;
    }
    let mut counts: Vec<u64> = orders_of.values().copied().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let tenth: u64 = counts[..counts.len() / 10].iter().sum();
    assert!(tenth * 2 > history.declared().orders, "{tenth}");
}
