//! `annals log dump --accepted`: the commits that count, for other programs, once and for as long as
//! it runs.

use std::fs::File;
use std::process::Command;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::Value;
use tests::harness::logs::Kind;
use tests::harness::process::Process;

use super::program::{Server, annals, assert_exit, call, folder, stderr, stdout, until};
use crate::history::Scribe;
use crate::raw_log::{RawLog, foreign};

const ADDRESS: &str = r#"{"city":"sao paulo","state":"SP","postcode_prefix":"01310"}"#;

/// The whole lines of JSON in an output, which may hold messages, too.
fn lines(text: &str) -> Vec<Value> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn command_ids(lines: &[Value]) -> Vec<&str> {
    let ids = lines.iter().map(|line| &line["commit"]["command"]["id"]);
    ids.map(|id| id.as_str().unwrap()).collect()
}

#[tokio::test]
async fn accepted_commits_are_written_with_their_place_and_followed_until_ctrl_c() {
    let folder = folder();
    let run = |arguments: &[&str]| call(folder.path(), arguments);
    assert_exit(&run(&["log", "create", "--partitions", "1"]), 0);
    let server = Server::start(folder.path(), &["serve", "--role", "command-api"]);
    let send = |stream: &str, id: &str| {
        let command = ["send", stream, "RegisterCustomer", ADDRESS, "--id", id];
        run(&[&command[..], &["--url", &server.url]].concat())
    };
    assert_exit(&send("customer-1", "first"), 0);
    let dumped = run(&["log", "dump", "--accepted"]);
    assert_exit(&dumped, 0);
    let dumped = lines(&stdout(&dumped));
    assert_eq!(command_ids(&dumped), ["first"]);
    // After the first claim, and that of the server.
    let place = ["partition", "offset", "position"].map(|name| dumped[0][name].as_u64());
    assert_eq!(place, [Some(0), Some(2), Some(3)]);

    let output = folder.path().join("followed");
    let mut follow: Command = annals(folder.path());
    follow.args(["log", "dump", "--accepted", "--follow"]);
    let file = File::create(&output).unwrap();
    let mut follow = Process::start(follow, file, folder.path()).unwrap();
    let followed = || lines(&std::fs::read_to_string(&output).unwrap());
    until("the first commit is followed", async || {
        !followed().is_empty()
    })
    .await;
    assert_exit(&send("customer-2", "second"), 0);
    until("the second commit is followed", async || {
        followed().len() == 2
    })
    .await;
    assert_eq!(command_ids(&followed()), ["first", "second"]);
    assert_eq!(followed()[0], dumped[0]);
    follow.signal(Signal::INT);
    let mut ended = None;
    until("it ends", async || {
        ended = follow.ended();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn damage_ends_the_dump_of_its_partition_with_its_place_and_code_5() {
    let mut scribe = Scribe::new();
    scribe.claim().commits(&["thing-a"]);
    scribe.add(foreign("junk")).commits(&["thing-b"]);
    let poison = scribe.record_of("main/thing-a", Bytes::from_static(b"{}"), |_| {});
    scribe.add(poison).commits(&["thing-b"]);
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let raw = RawLog::holding(kind, scribe.records()).await;
        let address = raw.address.to_string();
        for more in [&[][..], &["--follow"]] {
            let arguments = ["log", "dump", "--accepted", "--log", &address];
            let dumped = call(raw.folder.path(), &[&arguments[..], more].concat());
            assert_exit(&dumped, 5);
            let offsets: Vec<_> = lines(&stdout(&dumped))
                .iter()
                .map(|line| line["offset"].as_u64().unwrap())
                .collect();
            // A reader that follows hands out only what was whole when it stopped.
            let expected = if more.is_empty() { &[1, 3][..] } else { &[] };
            assert_eq!(offsets, expected, "{more:?}");
            let said = stderr(&dumped);
            let place = "damage in partition 0 at offset 4: unreadable";
            assert!(
                said.contains(place) && said.contains("annals log verify"),
                "{said}"
            );
        }
    }
}

#[test]
fn following_is_for_accepted_commits() {
    let folder = folder();
    let refused = call(folder.path(), &["log", "dump", "--follow"]);
    assert_exit(&refused, 2);
    assert!(stderr(&refused).contains("--accepted"));
}
