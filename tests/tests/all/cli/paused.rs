//! A node that was suspended while other nodes went on.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::harness::logs::{self, Kind};

use super::program::{Server, assert_exit, call, folder, until};

const REGISTER: &str = r#"{"city":"Rio","state":"RJ","postcode_prefix":"01"}"#;

async fn register(server: &Server, customer: &str) -> u16 {
    let path = format!("/v1/streams/customer-{customer}/RegisterCustomer");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5));
    let post = client
        .build()
        .unwrap()
        .post(format!("{}{path}", server.url));
    let post = post
        .header("content-type", "application/json")
        .header("idempotency-key", format!("of-{customer}"));
    match post.body(REGISTER).send().await {
        Ok(answer) => answer.status().as_u16(),
        Err(_) => 0,
    }
}

/// The outcome of a customer's registration, as a node reports it.
async fn outcome(server: &Server, customer: &str) -> (u16, Value) {
    let path = format!("/v1/streams/customer-{customer}/commands/of-{customer}");
    let answer = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_paused_and_deposed_does_not_deny_what_others_decided_meanwhile() {
    let folder = folder();
    let address = logs::address(Kind::Kafka, &folder).to_string();
    let create = ["log", "create", "--partitions", "2", "--log", &address];
    assert_exit(&call(folder.path(), &create), 0);
    let paused = Server::node_of(folder.path(), &address, "paused", &[]);
    assert_eq!(register(&paused, "0").await, 200);
    paused.signal(Signal::STOP);
    let other = Server::node_of(folder.path(), &address, "other", &[]);
    let customers = ["1", "2", "3", "4", "5", "6"];
    for customer in customers {
        until("the other takes over", async || {
            register(&other, customer).await == 200
        })
        .await;
    }
    paused.signal(Signal::CONT);
    let asked = customers.map(|customer| outcome(&paused, customer));
    let mut known = 0;
    for (status, said) in futures::future::join_all(asked).await {
        match status {
            200 => known += 1,
            // The node says up to which position it has read; it does not claim that there is no
            // such command.
            404 => {
                let detail = said["detail"].as_str().unwrap();
                assert!(detail.contains("up to") && detail.contains("may"), "{said}");
                assert!(said["position"].is_string(), "{said}");
            }
            // The node learns first that it was deposed.
            503 => assert!(said["retry_after_ms"].is_u64(), "{said}"),
            _ => panic!("{status}: {said}"),
        }
    }
    println!("known at once: {known} of {}", customers.len());
    for customer in customers {
        until("it knows", async || {
            outcome(&paused, customer).await.0 == 200
        })
        .await;
    }
}
