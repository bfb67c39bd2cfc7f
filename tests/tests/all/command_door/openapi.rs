//! Compares the OpenAPI document of the doors with what the doors do.

use std::process::Command;

use serde_json::Value;

use super::{Served, ask};

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

/// Schemathesis knows only the document and generates valid and invalid requests from it.
/// `ops/setup`, which `make test` calls, installs it.
#[tokio::test]
async fn the_doors_keep_what_their_document_says() {
    let program = std::env::var("ANNALS_SCHEMATHESIS").expect(
        "ANNALS_SCHEMATHESIS names schemathesis: run `make test`, or `eval \"$(ops/setup \
         --print-env)\"` after `ops/setup`",
    );
    let served = Served::start().await;
    let url = served.url.clone();
    // A fixed seed gives the same requests every time.
    let seed = std::env::var("ANNALS_TESTS_SEED").unwrap_or_else(|_| "1".to_owned());
    // Schemathesis writes caches into its working folder.
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("schemathesis.toml", include_str!("schemathesis.toml")),
        (
            "schemathesis_hooks.py",
            include_str!("schemathesis_hooks.py"),
        ),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let output = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .current_dir(folder.path())
            .args([
                "--config-file",
                "schemathesis.toml",
                "run",
                &format!("{url}/openapi.json"),
            ])
            .args(["--max-examples", "25", "--no-color", "--seed", &seed])
            .output()
            .expect("schemathesis runs")
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
}
