//! A rolling upgrade on Kafka: a node of the old release meets events that it does not know.

use serde_json::{Value, json};
use tests::harness::logs::{self, Kind};

use super::{NEW, OLD, Path, Server, assert_exit, call, folder, get, program, send};
use crate::cli::program::until;

/// How many lamps there are: some in each partition.
const LAMPS: u32 = 24;

/// A node of a release, with a folder of its own.
fn node(file: &str, folder: &Path, log: &str, name: &str) -> Server {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).unwrap();
    let mut command = program(file, &own);
    command.args(["serve", "--role=command-api", "--session-timeout-ms=3000"]);
    command.args(["--log", log, "--node", name, "--data", "data"]);
    command.env("ANNALS_CLUSTER_SECRET", "shared by nobody else here");
    Server::start_as(command, &own)
}

async fn text(server: &Server, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Sends a lamp's command in a shape of this number, as a batch of one line.
async fn send_in_shape(server: &Server, stream: &str, schema: u16, data: Value) -> (u64, Value) {
    let line = json!({"stream": stream, "command": "LightLamp", "schema": schema, "data": data});
    let url = format!("{}/v1/commands", server.url);
    let request = reqwest::Client::new()
        .post(url)
        .body(line.to_string() + "\n");
    let request = request.header("content-type", "application/x-ndjson");
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    (answer["status"].as_u64().unwrap(), answer)
}

/// How many partitions a node says that each node owns.
async fn owned(server: &Server, node: &str) -> usize {
    let (_, topology) = get(server, "/v1/topology").await;
    let partitions = topology["partitions"].as_array().unwrap();
    let is_owner = |partition: &&Value| partition["owner"]["node"] == node;
    partitions.iter().filter(is_owner).count()
}

#[tokio::test]
async fn a_node_that_is_too_old_for_an_event_owns_nothing_and_says_so() {
    let folder = folder();
    let log = logs::address(Kind::Kafka, &folder).to_string();
    let create = ["log", "create", "--partitions", "4", "--log", &log];
    assert_exit(&call(OLD, folder.path(), &create), 0);
    let old = node(OLD, folder.path(), &log, "old");
    for lamp in 0..LAMPS {
        let (status, lit) = send(
            &old,
            &format!("lamp-{lamp}"),
            "LightLamp",
            json!({"watts": 8}),
        )
        .await;
        assert_eq!(status, 200, "{lit}");
    }
    let new = node(NEW, folder.path(), &log, "new");
    until("the nodes share the partitions", async || {
        owned(&new, "new").await == 2 && owned(&new, "old").await == 2
    })
    .await;
    assert_eq!(text(&old, "/readyz").await.0, 200);

    // What only the new release knows is decided where the new release owns.
    let mut put_out = 0;
    for lamp in 0..LAMPS {
        let stream = format!("lamp-{lamp}");
        put_out += u32::from(send(&new, &stream, "PutOutLamp", json!({})).await.0 == 200);
    }
    assert!(put_out > 0);
    until("the new release owns everything", async || {
        owned(&new, "new").await == 4
    })
    .await;
    let (status, why) = text(&old, "/readyz").await;
    assert_eq!(status, 503);
    assert!(
        why.contains("too old") && why.contains("upgrade it"),
        "{why}"
    );
    assert!(
        old.said().contains("this program must be upgraded"),
        "{}",
        old.said()
    );
    let (_, metrics) = text(&old, "/metrics").await;
    let too_old = metrics
        .lines()
        .find_map(|line| line.strip_prefix("annals_too_old_partitions "));
    assert!(too_old.unwrap().parse::<f64>().unwrap() >= 1.0, "{metrics}");
    // No stream is frozen: nothing is wrong with the log.
    assert!(metrics.contains("annals_streams_frozen_total 0"));

    // The old node still forwards, and the new one knows every lamp as the old one lit it.
    for lamp in 0..LAMPS {
        let stream = format!("lamp-{lamp}");
        // A command that names its shape has that shape on every node.
        let (status, lit) = send_in_shape(&old, &stream, 1, json!({"watts": 1})).await;
        assert_eq!(status, 200, "{stream}: {lit}");
        let (status, refused) = send(&new, &stream, "LightLamp", json!({"lumens": 9_999})).await;
        assert_eq!((status, &refused["total"]), (422, &json!(108)), "{refused}");
    }
}
