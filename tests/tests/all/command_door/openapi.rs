//! Compares the OpenAPI document of the doors with what the doors do.

use serde_json::Value;

use super::{Served, ask};
use crate::generated_requests::assert_door_keeps_its_document;

/// Collects every `$ref` in a document that leads nowhere.
fn dangling(document: &Value, at: &Value, found: &mut Vec<String>) {
    match at {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap_or("absent");
                if document.pointer(pointer).is_none() {
                    found.push(reference.clone());
                }
            }
            map.values()
                .for_each(|value| dangling(document, value, found));
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| dangling(document, value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_command_has_a_path_that_admits_its_category_only() {
    let served = Served::start().await;
    let document = ask(served.get("/openapi.json")).await.body;
    let mut found = Vec::new();
    dangling(&document, &document, &mut found);
    assert!(found.is_empty(), "{found:?}");
    let paths = document["paths"].as_object().unwrap();
    let mut commands = 0;
    let mut generator = kernel::registry::Registry::schema_generator("/x/");
    for aggregate in served.engine.registry().iter() {
        for command in aggregate.command_types(&mut generator) {
            let operation = &paths[&format!("/v1/streams/{{stream}}/{}", command.name)]["post"];
            let pattern = operation["parameters"][0]["schema"]["pattern"]
                .as_str()
                .unwrap();
            assert!(
                pattern.starts_with(&format!("^({})-", aggregate.category())),
                "{pattern}"
            );
            assert!(operation["requestBody"]["content"]["application/json"]["schema"].is_object());
            for status in [
                "200", "400", "404", "408", "412", "413", "415", "422", "500", "503",
            ] {
                assert!(operation["responses"][status].is_object(), "{status}");
            }
            commands += 1;
        }
    }
    assert_eq!(commands, 13);
}

#[tokio::test]
async fn the_doors_keep_what_their_document_says() {
    let served = Served::start().await;
    let settings = include_str!("schemathesis.toml");
    assert_door_keeps_its_document(&served.url, settings, 25).await;
}
