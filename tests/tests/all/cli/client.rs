//! The Rust client against the real program.

use std::collections::BTreeSet;

use client::{Client, Code, Command, Query};
use serde_json::{Value, json};

use super::program::{Server, folder};

#[test]
fn the_client_knows_the_codes_of_the_doors() {
    let doors = [
        door::code::ALL,
        command_api::code::ALL,
        query_api::code::ALL,
    ];
    let codes: BTreeSet<&str> = doors
        .iter()
        .flat_map(|all| *all)
        .map(|code| code.name)
        .collect();
    let known: BTreeSet<&str> = Code::NAMES.iter().copied().collect();
    assert_eq!(known, codes);
    for name in known {
        assert_eq!(Code::of(name).name(), name);
    }
}

#[tokio::test]
async fn a_program_sends_commands_and_reads_what_they_did() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let client = Client::to(&server.url).unwrap();
    let real = |minor: i64| json!({"amount_minor": minor, "currency": "BRL"});
    let data = json!({"customer": "me", "estimated_delivery": "2030-01-01T00:00:00Z", "items": [
        {"line": 1, "product": "book", "seller": "shop", "price": real(4_200), "freight": real(800)}]});
    let mut place = Command::new("order-1", "PlaceOrder", &data).unwrap();
    place.expected_version = Some(0);
    let placed = client.send(&place).await.unwrap();
    assert_eq!((placed.version, placed.repeated), (1, false));
    assert_eq!(placed.events[0].type_name, "OrderPlaced");
    let again = client.send(&place).await.unwrap();
    assert!(again.repeated && again.position == placed.position);

    let ship = Command::new("order-1", "ShipOrder", &json!({})).unwrap();
    let refused = client.send(&ship).await.unwrap_err();
    let refused = refused.problem().unwrap();
    assert!(refused.is_refusal() && refused.code == Code::Other("order_not_approved".to_owned()));
    let mut late = Command::new("order-1", "ApproveOrder", &json!({})).unwrap();
    late.expected_version = Some(7);
    let refused = client.send(&late).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().code, Code::VersionConflict);

    let sees = Query {
        min_position: Some(placed.position.clone()),
        ..Query::default()
    };
    let events = client.events("order-1", 1, 10, &sees).await.unwrap();
    assert_eq!((events.value.version, events.value.next), (1, None));
    assert_eq!(events.value.events[0].type_name, "OrderPlaced");
    assert!(events.freshness.position.is_some());
    let state = client.state("order-1", &sees).await.unwrap();
    assert!(state.value.state.get().contains(r#""items_minor":4200"#));
    let row = client
        .row::<Value>("order_summary", "1", &sees)
        .await
        .unwrap();
    assert_eq!(row.value["items_minor"], 4_200);
    let rows = client
        .rows::<Value>("order_summary", None, 1, &sees)
        .await
        .unwrap();
    assert_eq!((rows.value.rows.len(), rows.value.next), (1, None));
    let none = client
        .row::<Value>("order_summary", "nobody's", &sees)
        .await
        .unwrap_err();
    assert_eq!(none.problem().unwrap().code, Code::RowNotFound);
}
