//! Drives a node through the client that OpenAPI Generator makes (rust), from the document without
//! choices of forms.

use annals_generated::apis::commands_api::{
    order_approve_order, order_place_order, order_ship_order, payment_capture_payment,
    submit_commands,
};
use annals_generated::apis::configuration::Configuration;
use annals_generated::apis::read_models_api::{read_one_of_order_summary, read_order_summary};
use annals_generated::apis::streams_api::{stream_events, stream_state};
use annals_generated::apis::{Error, ResponseContent};
use annals_generated::models::capture_payment::Method;
use annals_generated::models::{
    CapturePayment, CommandAnswer, CommandLine, Item, Money, OrderPlaced, OrderState, PlaceOrder,
};
use chrono::DateTime;
use serde_json::{Value, json};

fn real(minor: i64) -> Money {
    Money::new(minor, "BRL".into())
}

fn order() -> PlaceOrder {
    let item = Item::new(
        real(800),
        1,
        real(5_000_000_000),
        "book".into(),
        "shop".into(),
    );
    let delivery = DateTime::parse_from_rfc3339("2030-01-01T00:00:00Z").unwrap();
    PlaceOrder::new("me".into(), delivery, vec![item])
}

/// The problem with which a call is refused: its facts stand beside its fixed members.
fn refused<T: std::fmt::Debug, E: std::fmt::Debug>(answer: Result<T, Error<E>>) -> Value {
    match answer {
        Err(Error::ResponseError(ResponseContent { content, .. })) => {
            serde_json::from_str(&content).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn main() {
    let to = &Configuration {
        base_path: std::env::args().nth(1).unwrap(),
        ..Configuration::default()
    };

    let place = || -> CommandAnswer {
        let (id, occurred) = (Some("place-1"), Some("2018-06-04T16:44:48Z"));
        order_place_order(
            to,
            "order-1",
            order(),
            id,
            None,
            None,
            None,
            None,
            occurred,
            None,
            None,
            None,
            None,
        )
        .unwrap()
    };
    let placed = place();
    assert!(placed.version == 1 && !placed.repeated, "{placed:?}");
    println!("done: place");
    let again = place();
    assert!(
        again.repeated && again.position == placed.position,
        "{again:?}"
    );
    println!("done: repeat");

    let early = refused(order_ship_order(
        to,
        "order-1",
        Some("ship"),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    ));
    assert_eq!(early["code"], "order_not_approved");
    assert_eq!(early["placed_at"], "2018-06-04T16:44:48Z");
    println!("done: refusal");
    let stale = refused(order_approve_order(
        to,
        "order-1",
        Some("approve"),
        Some("\"7\""),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    ));
    assert_eq!(stale["code"], "version_conflict");
    assert_eq!(stale["current_version"], 1);
    println!("done: version");

    let amount = real(5_000_000_800);
    let payment = CapturePayment::new(amount, 3, Method::CreditCard, "1".into());
    let paid = payment_capture_payment(
        to,
        "payment-1",
        payment,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    );
    assert_eq!(paid.unwrap().version, 1);
    println!("done: payment");

    let line =
        |stream: String, command: &str, data| CommandLine::new(command.into(), Some(data), stream);
    let mut lines = Vec::new();
    for n in 2..5 {
        let data = serde_json::to_value(order()).unwrap();
        lines.push(line(format!("order-{n}"), "PlaceOrder", data));
    }
    lines.push(line("order-2".into(), "ShipOrder", json!({})));
    let answers = submit_commands(to, lines, None, None).unwrap();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 422]);
    assert_eq!(answers[3].code.as_deref(), Some("order_not_approved"));
    println!("done: batch");

    let read = |position: Option<&str>| {
        read_one_of_order_summary(to, "1", position, None, None, None, None).unwrap()
    };
    assert_eq!(read(Some(&placed.position)).items_minor, 5_000_000_000);
    println!("done: own write");

    for answer in &answers[..3] {
        read(answer.position.as_deref());
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = read_order_summary(to, Some(3), after.as_deref(), None, None, None, None, None);
        let page = page.unwrap();
        seen.extend(page.rows.into_iter().map(|row| row.order_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["1", "2", "3", "4"]);
    println!("done: pages");

    let position = Some(placed.position.as_str());
    let page = stream_events(to, "order-1", None, None, None, position, None, None, None, None).unwrap();
    let event = &page.events[0];
    assert!(
        event.r#type == "OrderPlaced" && event.actor.is_none(),
        "{event:?}"
    );
    // The data are any JSON; the types of the events are there, too.
    let data: OrderPlaced = serde_json::from_value(event.data.clone().unwrap()).unwrap();
    assert_eq!(data.customer, "me");
    println!("done: events");

    let state = stream_state(to, "order-1", None, position, None, None, None, None).unwrap();
    let state: OrderState = serde_json::from_value(state.state.unwrap()).unwrap();
    assert_eq!(
        state.placed.flatten().unwrap().facts.items_minor,
        5_000_000_000
    );
    println!("done: state");
    println!("choices: JSON");
}
