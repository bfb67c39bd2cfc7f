//! `/docs` in a browser: a newcomer opens the page, clicks *try it out* and *Execute* on each command,
//! changes nothing, and it works.
//!
//! Deliberately absent: what the page is made of (`host/src/node/docs.rs`) and how Chromium came here
//! (`ops/setup`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{run, schemas, tool, tools};
use crate::cli::program::{Server, folder};

/// The program of the browser; `ops/setup` installs one and says where it is.
pub(crate) fn chromium() -> String {
    std::env::var("ANNALS_CHROMIUM").expect(
        "ANNALS_CHROMIUM names a Chromium: run `make test`, or `eval \"$(ops/setup --print-env)\"` \
         after `ops/setup`",
    )
}

/// Each operation of the committed document that sends something, with each media type of its body.
fn sending() -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(schemas().join("openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.filter_map(|item| item.get("post"));
    let types = operations.flat_map(|post| {
        let id = post["operationId"].as_str().unwrap();
        let tag = post["tags"][0].as_str().unwrap();
        let types = post["requestBody"]["content"].as_object().unwrap();
        let name = format!("operations-{tag}-{id}");
        types
            .keys()
            .map(move |media_type| (name.clone(), media_type.clone()))
    });
    types.collect()
}

/// The outcomes in an answer: its own one, or that of each command of a batch.
fn outcomes(answer: &Value) -> Vec<Value> {
    let body = answer["body"].as_str().unwrap();
    let is_batch = answer["path"] == "/v1/commands";
    match answer["media_type"].as_str().unwrap() {
        "application/json" if is_batch => serde_json::from_str(body).unwrap(),
        "application/json" => {
            let mut outcome: Value = serde_json::from_str(body).unwrap();
            outcome["status"] = answer["status"].clone();
            vec![outcome]
        }
        _ => body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    }
}

#[test]
fn every_command_can_be_tried_out_on_the_page_as_it_stands_there() {
    let data = folder();
    let server = Server::dev(data.path());
    let mut node = tool("node", &tools());
    node.arg("--input-type=commonjs").arg("--eval");
    node.arg(include_str!("docs_page.js")).arg(&server.url);
    let said: Value = serde_json::from_str(&run(node.arg(chromium()))).unwrap();
    let answers = said["answers"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tried: BTreeSet<_> = answers
        .iter()
        .map(|answer| (text(&answer["operation"]), text(&answer["media_type"])))
        .collect();
    assert_eq!(tried, sending());
    for answer in answers {
        if text(&answer["operation"]).starts_with("operations-operation-") {
            // What operators ask for: there is nothing to switch to, and no stream is parked.
            let status = answer["status"].as_u64().unwrap();
            assert!([200, 202, 404, 409].contains(&status), "{answer}");
            continue;
        }
        let outcomes = outcomes(answer);
        assert!(!outcomes.is_empty(), "{answer}");
        for outcome in outcomes {
            let is_good = match outcome["status"].as_u64() {
                Some(200) => outcome["version"].is_u64(),
                Some(422) => outcome["code"].is_string(),
                _ => false,
            };
            assert!(is_good, "{answer}");
        }
    }
    assert_eq!(said["complaints"], Value::Array(Vec::new()));
    assert_eq!(said["title"], "Annals");
    assert!(text(&said["heading"]).starts_with("Annals"), "{said}");
}
