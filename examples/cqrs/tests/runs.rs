//! Aggregates of both versions of `cqrs-es` take commands, refuse, and are folded again.

use annals::client::{Client, Command, Query};
use annals::testing::{Running, assert_samples};
use serde_json::{Value, json};

#[tokio::test]
async fn aggregates_of_both_versions_run() -> Result<(), Box<dyn std::error::Error>> {
    let running = Running::dev(env!("CARGO_BIN_EXE_cqrs"));
    let client = Client::to(running.url())?;
    for (stream, command, data, events, refused, code) in [
        (
            "locker-1",
            "Rent",
            json!({"by": "ana"}),
            vec!["Rented"],
            json!({"by": "bo"}),
            "locker_taken",
        ),
        (
            "meter-1",
            "Count",
            json!({"by": 10}),
            vec!["Counted", "LimitReached"],
            json!({"by": 1}),
            "meter_beyond_limit",
        ),
    ] {
        let first = Command::of_json(stream, command, data.to_string());
        let accepted = client.send(&first).await?;
        let types: Vec<&str> = accepted
            .events
            .iter()
            .map(|e| e.type_name.as_str())
            .collect();
        assert_eq!(types, events);
        let second = Command::of_json(stream, command, refused.to_string());
        let refusal = client.send(&second).await.expect_err("a refusal");
        assert_eq!(refusal.problem().expect("its reason").code.name(), code);
    }
    let state = client.state("meter-1", &Query::default()).await?.value;
    let state: Value = serde_json::from_str(state.state.get())?;
    assert_eq!(state, json!({"count": 10}));
    Ok(())
}

#[test]
fn every_command_and_event_has_a_sample() {
    assert_samples(env!("CARGO_BIN_EXE_cqrs"));
}
