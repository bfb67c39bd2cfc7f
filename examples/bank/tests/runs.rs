//! The program from a command to a row, on a log and a Postgres of its own.

use annals::client::{Client, Command, Query};
use annals::testing::{Running, assert_samples};
use serde_json::{Value, json};

#[tokio::test]
async fn a_command_becomes_a_row() -> Result<(), Box<dyn std::error::Error>> {
    let running = Running::dev(env!("CARGO_BIN_EXE_bank"));
    let client = Client::to(running.url())?;
    let send = async |command: &str, data: Value| {
        let command = Command::of_json("account-ana", command, data.to_string());
        client.send(&command).await
    };
    send("OpenAccount", json!({"owner": 7})).await?;
    let paid_in = send("DepositMoney", json!({"cents": 5000})).await?;

    let refused = send("WithdrawMoney", json!({"cents": 9000})).await;
    let refused = refused.expect_err("more than the account holds");
    let problem = refused.problem().expect("a refusal, with its reason");
    assert_eq!(problem.code.name(), "account_overdrawn");

    // With the position of the command's answer, the read model shows its effects.
    let query = Query::from_position(&paid_in.position);
    let row: Value = client.row("balances", "ana", &query).await?.value;
    assert_eq!(row["balance"], 5000);
    assert_eq!(row["movements"], 1);
    Ok(())
}

#[test]
fn every_command_and_event_has_a_sample() {
    assert_samples(env!("CARGO_BIN_EXE_bank"));
}
