//! `annals events` without a stream: the feed at a terminal, and through a restart of the server.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::harness::ports;

use super::program::{Server, annals, assert_exit, folder, stderr, stdout};

const ADDRESS: &str = r#"{"city":"recife","state":"PE","postcode_prefix":"50000"}"#;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn events_of_all_streams_are_shown_and_followed_through_a_restart() {
    let folder = folder();
    let listen = format!("127.0.0.1:{}", ports::free());
    let url = format!("http://{listen}");
    let dev = || Server::start(folder.path(), &["dev", "--listen", &listen]);
    let mut server = dev();
    let send = |name: &str| {
        let customer = format!("customer-{name}");
        let mut send = annals(folder.path());
        send.args([
            "send",
            &customer,
            "RegisterCustomer",
            ADDRESS,
            "--id",
            name,
            "--url",
            &url,
        ]);
        assert_exit(&send.output().unwrap(), 0);
    };
    let ask = |more: &[&str]| {
        let mut ask = annals(folder.path());
        ask.args(["events", "--url", &url]).args(more);
        ask
    };
    send("ann");
    send("bob");
    let lines = ask(&["--output", "ndjson", "--type", "CustomerRegistered"])
        .output()
        .unwrap();
    let lines = stdout(&lines);
    let items: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut streams: Vec<&str> = items
        .iter()
        .map(|item| item["stream"].as_str().unwrap())
        .collect();
    streams.sort_unstable();
    assert_eq!(streams, ["customer-ann", "customer-bob"]);
    let cursor = items[1]["cursor"].as_str().unwrap();
    let shown = stdout(&ask(&["--command", "ann"]).output().unwrap());
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(
        shown.contains("customer-ann@1  CustomerRegistered"),
        "{shown}"
    );
    let none = ask(&["--from", cursor]).output().unwrap();
    assert_eq!(
        (stdout(&none), none.status.code()),
        (String::new(), Some(0))
    );
    let wrong = ask(&["--from", "nowhere"]).output().unwrap();
    assert_exit(&wrong, 2);
    assert!(
        stderr(&wrong).contains("cursor of an earlier item"),
        "{}",
        stderr(&wrong)
    );

    let mut following = ask(&["--follow", "--output", "ndjson"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(following.stdout.take().unwrap());
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let item: Value = serde_json::from_str(&line).unwrap();
            if sender
                .send(item["stream"].as_str().unwrap().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut first = [(); 2].map(|()| shown.recv_timeout(PATIENCE).unwrap());
    first.sort_unstable();
    assert_eq!(first, ["customer-ann", "customer-bob"]);
    server.end(Signal::KILL);
    let mut server = dev();
    send("cid");
    assert_eq!(shown.recv_timeout(PATIENCE).unwrap(), "customer-cid");
    following.kill().unwrap();
    following.wait().unwrap();
    // Nothing came twice.
    assert!(shown.recv().is_err());
    assert!(server.end(Signal::TERM).success());
}
