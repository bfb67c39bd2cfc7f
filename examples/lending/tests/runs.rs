//! The library's program from start to end: the same code as `annals`, with another domain.

use annals::client::{Client, Command, Query};
use annals::testing::{Running, assert_samples};
use serde_json::{Value, json};

#[tokio::test]
async fn a_book_is_lent_and_comes_back_late() -> Result<(), Box<dyn std::error::Error>> {
    let running = Running::dev(env!("CARGO_BIN_EXE_lending"));
    let client = Client::to(running.url())?;
    let send = async |command: &str, data: Value, at: &str| {
        let mut command = Command::of_json("book-1", command, data.to_string());
        command.occurred_at = Some(at.to_owned());
        client.send(&command).await
    };
    let loan = |reader: u32| json!({"reader": reader, "due": "2030-01-31T12:00:00Z"});
    send("LendBook", loan(7), "2030-01-01T12:00:00Z").await?;
    let refused = send("LendBook", loan(8), "2030-01-02T12:00:00Z").await;
    let refused = refused.expect_err("the book is lent");
    assert!(
        refused
            .problem()
            .is_some_and(|problem| problem.is_refusal())
    );
    let returned = send("ReturnBook", json!({}), "2030-02-01T12:00:00Z").await?;
    let query = Query::from_position(&returned.position);
    let reader: Value = client.row("readers", "7", &query).await?.value;
    let expected = json!({
        "reader": 7, "borrowed": 1, "returned": 1, "late": 1,
        "last_borrowed_at": "2030-01-01T12:00:00Z",
    });
    assert_eq!(reader, expected);
    let periods = client.rows::<Value>("loan_periods", None, 10, &query);
    let periods = periods.await?.value.rows;
    let expected = json!([{
        "book": "1", "reader": 7,
        "lent_at": "2030-01-01T12:00:00Z", "returned_at": "2030-02-01T12:00:00Z",
    }]);
    assert_eq!(json!(periods), expected);
    Ok(())
}

/// Process mining of the library: the events name the reader, who has no stream.
#[tokio::test]
async fn a_loan_is_exported_with_its_book_and_its_reader() -> Result<(), Box<dyn std::error::Error>>
{
    let running = Running::dev(env!("CARGO_BIN_EXE_lending"));
    let client = Client::to(running.url())?;
    let send = async |command: &str, data: Value, at: &str| {
        let mut command = Command::of_json("book-1", command, data.to_string());
        command.occurred_at = Some(at.to_owned());
        client.send(&command).await
    };
    let loan = |reader: u32, due: &str| json!({"reader": reader, "due": due});
    let (first, second) = ("2030-01-31T12:00:00Z", "2030-03-31T12:00:00Z");
    send("LendBook", loan(7, first), "2030-01-01T12:00:00Z").await?;
    send("ReturnBook", json!({}), "2030-02-01T12:00:00Z").await?;
    send("LendBook", loan(8, second), "2030-03-01T12:00:00Z").await?;
    let file = running.data().join("loans.json");
    let exported = std::process::Command::new(env!("CARGO_BIN_EXE_lending"))
        .args(["export", "ocel", "--format", "json", "--data"])
        .arg(running.data())
        .arg("--out")
        .arg(&file)
        .output()?;
    let said = String::from_utf8_lossy(&exported.stderr);
    assert!(exported.status.success(), "{said}");
    let document: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let related: Vec<Value> = list("events")
        .iter()
        .map(|event| json!([event["type"], event["relationships"]]))
        .collect();
    let to = |id: &str, qualifier: &str| json!({"objectId": id, "qualifier": qualifier});
    let expected = json!([
        [
            "BookLent",
            [to("book-1", "book"), to("reader-7", "lent to")]
        ],
        [
            "BookReturned",
            [to("book-1", "book"), to("reader-7", "returned by")]
        ],
        [
            "BookLent",
            [to("book-1", "book"), to("reader-8", "lent to")]
        ],
    ]);
    assert_eq!(json!(related), expected);
    let objects = list("objects");
    let ids: Vec<&Value> = objects.iter().map(|object| &object["id"]).collect();
    assert_eq!(json!(ids), json!(["book-1", "reader-7", "reader-8"]));
    // The book's time is another one with the second loan.
    let due = json!([
        {"name": "due", "time": "1970-01-01T00:00:00.000000Z", "value": "2030-01-31T12:00:00.000000Z"},
        {"name": "due", "time": "2030-03-01T12:00:00.000000Z", "value": "2030-03-31T12:00:00.000000Z"},
    ]);
    assert_eq!(objects[0]["attributes"], due);
    Ok(())
}

#[test]
fn every_command_and_event_has_a_sample() {
    assert_samples(env!("CARGO_BIN_EXE_lending"));
}
