//! The log records exactly what a client sends, to the last digit, or the answer is 400: in a body,
//! in a header, and in a line of a batch.

use event_log::commit::Commit;
use position::Partition;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answered, Served, ask};
use crate::raw_log::read_all;
use crate::write_side::place;

/// Sends the lines as a batch; returns the answers in order.
async fn batch(served: &Served, lines: &[String]) -> Vec<Value> {
    let request = served.request(Method::POST, "/v1/commands");
    let request = request.header("Content-Type", "application/x-ndjson");
    let answered = ask(request.body(lines.join("\n"))).await;
    let text = answered.body.as_str().map(str::to_owned);
    let text = text.unwrap_or_else(|| answered.body.to_string());
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// The only event of a stream, from the log. Also parses every commit of the log.
async fn event_of(served: &Served, stream: &str) -> Option<Value> {
    let mut found = None;
    for partition in (0..4).map(Partition) {
        for record in read_all(&*served.log.log, partition).await {
            let Some(key) = &record.key else { continue };
            let commit = Commit::read(key, record.value.as_deref().unwrap()).unwrap();
            if commit.stream.as_str() == stream && !commit.events.is_empty() {
                found = serde_json::from_str(commit.events[0].data.get()).ok();
            }
        }
    }
    found
}

fn payment(stream: &str, amount: &str) -> String {
    format!(
        r#"{{"stream":"{stream}","command":"CapturePayment","id":"n","data":{{"order":"n","method":"boleto","instalments":1,"amount":{{"amount_minor":{amount},"currency":"BRL"}}}}}}"#
    )
}

#[tokio::test]
async fn whole_numbers_are_kept_to_the_last_digit_however_they_are_spelled() {
    let served = Served::start().await;
    let amounts = [
        ("9007199254740991.0", Some(9_007_199_254_740_991_i64)),
        ("4503599627370497.0", Some(4_503_599_627_370_497)),
        ("4503599627370497.2", None),
        ("880194271671.000000", Some(880_194_271_671)),
        ("1e3", Some(1_000)),
        ("1.0e15", Some(1_000_000_000_000_000)),
        ("0.00000000000000000001e23", Some(1_000)),
        ("9007199254740992.0", Some(9_007_199_254_740_992)),
        ("9007199254740992.5", None),
        ("9007199254740993", None),
        ("1e400", None),
        ("1e999999999999999999999", None),
    ];
    let mut lines: Vec<String> = (0_usize..)
        .zip(amounts)
        .map(|(number, (amount, _))| payment(&format!("payment-n{number}-1"), amount))
        .collect();
    let answers = batch(&served, &lines).await;
    for (number, (amount, kept)) in (0_usize..).zip(amounts) {
        let answer = &answers[number];
        let Some(kept) = kept else {
            assert_eq!(answer["code"], "shape_invalid", "{amount}: {answer}");
            assert_eq!(answer["pointer"], "/data/amount/amount_minor", "{answer}");
            continue;
        };
        let event = event_of(&served, &format!("payment-n{number}-1")).await;
        let event = event.unwrap_or_else(|| panic!("{amount}: {answer}"));
        assert_eq!(event["amount"]["amount_minor"], kept, "{amount}");
    }
    // The same number in another spelling is the same command.
    lines.truncate(1);
    lines[0] = lines[0].replace("9007199254740991.0", "9007199254740991");
    assert_eq!(batch(&served, &lines).await[0]["repeated"], true);
}

#[tokio::test]
async fn the_numbers_of_a_case_are_exact_or_refused() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/cases/whole-numbers.ndjson"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    let served = Served::start().await;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let answers = batch(&served, &lines).await;
    for (number, kept) in [
        9_007_199_254_740_991_i64,
        4_503_599_627_370_497,
        1_000,
        10_i64.pow(15),
    ]
    .into_iter()
    .enumerate()
    {
        let event = event_of(&served, &format!("payment-n{number}-1")).await;
        let event = event.unwrap_or_else(|| panic!("{}", answers[number]));
        assert_eq!(event["amount"]["amount_minor"], kept);
    }
}

/// Times in the form of RFC 3339, most of them near the first and the last year that is kept.
fn moment() -> impl Strategy<Value = String> {
    let year = prop_oneof![Just(0), Just(1), Just(9_999), Just(9_999), 0..10_000];
    let day = prop_oneof![Just((1, 1)), Just((12, 31)), (1..13, 1..29)];
    let time = prop_oneof![
        Just((0, 0, 0)),
        Just((23, 59, 60)),
        Just((23, 59, 60)),
        (0..24, 0..60, 0..61)
    ];
    let rest = prop_oneof![
        Just("Z".to_owned()),
        r"\.[0-9]{1,9}Z",
        r"[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"
    ];
    (year, day, time, rest).prop_map(|(year, (month, day), (hour, minute, second), rest)| {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{rest}")
    })
}

#[tokio::test]
async fn every_moment_that_is_accepted_is_read_again() {
    let served = Served::start().await;
    let mut runner = TestRunner::deterministic();
    let mut moments = vec![
        "9999-12-31T23:59:60Z".to_owned(),
        "9999-12-31T23:59:59.999999Z".to_owned(),
        "0001-01-01T00:00:00Z".to_owned(),
    ];
    moments.extend((0..200).map(|_| moment().new_tree(&mut runner).unwrap().current()));
    let mut lines = Vec::new();
    let status = |answered: &Answered| answered.status.as_u16();
    for (number, moment) in (0..).zip(&moments) {
        let body = json!({"estimated_delivery": moment});
        let mut due = place();
        due["estimated_delivery"] = body["estimated_delivery"].clone();
        let stream = format!("order-body-{number}");
        let by_body = ask(served.command(&stream, "PlaceOrder", &due)).await;
        let stream = format!("order-header-{number}");
        let by_header = served.command(&stream, "PlaceOrder", &place());
        let by_header = ask(by_header.header("Annals-Occurred-At", moment)).await;
        // Body and header accept the same range of times.
        assert_eq!(status(&by_body), status(&by_header), "{moment}");
        assert!([200, 400].contains(&status(&by_body)), "{by_body:?}");
        let line = json!({"stream": format!("order-line-{number}"), "command": "PlaceOrder",
            "occurred_at": moment, "data": place()});
        lines.push((line.to_string(), status(&by_body)));
    }
    let sent: Vec<String> = lines.iter().map(|(line, _)| line.clone()).collect();
    let answers = batch(&served, &sent).await;
    for ((line, status), answer) in lines.iter().zip(&answers) {
        let is_accepted = answer["code"].is_null();
        assert_eq!(is_accepted, *status == 200, "{line}: {answer}");
    }
    assert!(lines[0].1 == 400 && lines[1].1 == 200 && lines[2].1 == 200);
    // This call parses every commit of the log.
    assert_eq!(event_of(&served, "order-none").await, None);
}

#[tokio::test]
async fn ambiguous_data_is_malformed() {
    let served = Served::start().await;
    let review = |rest: &str| format!(r#"{{"review":"r","score":5,{rest}}}"#);
    for (data, pointer) in [
        (review(r#""title":"a","title":"b""#), "/title"),
        (review(r#""title":"\ud800""#), "/title"),
        (review(r#""title":1e9999999999999999"#), "/title"),
    ] {
        let request = served.request(Method::POST, "/v1/streams/order-1/ReviewOrder");
        let request = request.header("Content-Type", "application/json");
        let answered = ask(request.body(data)).await;
        answered.is_problem(400, "shape_invalid");
        assert_eq!(answered.body["pointer"], pointer, "{answered:?}");
    }
    let deep = review(&format!(
        "\"title\":{}1{}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    ));
    let request = served.request(Method::POST, "/v1/streams/order-1/ReviewOrder");
    let request = request.header("Content-Type", "application/json");
    ask(request.body(deep))
        .await
        .is_problem(400, "shape_invalid");
}
