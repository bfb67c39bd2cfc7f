//! Authentication of peers, hand-over and take-over, lines that are no commands, and the topology.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use command_api::peer::{HttpPeers, PeersOptions};
use engine::command::{Became, SubmitError};
use engine::owner::Inquiry;
use engine::peers::{PeerError, Peers};
use event_log::directory::Hint;
use position::{Partition, Position, Term};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::fake::{Fake, PARTITIONS};
use super::{Node, Opened, PARTITION, SOON, identity, log, peers, secret, url};
use crate::write_side::shop;

fn successor() -> Hint {
    Hint {
        log: log(1),
        term: Term(2),
        node: "one".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
    }
}

/// Asserts that the node refuses each question of these peers.
async fn refuses(node: &Node, peers: &HttpPeers, words: &str) {
    let refused = |error: PeerError| {
        assert!(
            matches!(&error, PeerError::Refused(why) if why.contains(words)),
            "{error}"
        );
    };
    let handed_over = peers
        .hand_over(&node.address, PARTITION, &successor())
        .await;
    refused(handed_over.unwrap_err());
    refused(peers.take_over(&node.address, PARTITION).await.unwrap_err());
    let mut opened = Opened::to(peers, &node.address);
    opened.send(1);
    let why = opened.broken().await;
    assert!(why.contains(words), "{why}");
    assert!(node.fake.noted.attempted.lock().unwrap().is_empty());
    assert!(node.fake.noted.moves.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused() {
    let shared = secret("correct horse battery staple");
    let node = Node::start(Fake::default(), shared.clone()).await;
    let other = secret("wrong donkey battery staple");
    refuses(&node, &peers(other.as_ref()), "401 peer_refused").await;
    refuses(&node, &peers(None), "401 peer_refused").await;
    let peers = peers(shared.as_ref());
    assert!(peers.take_over(&node.address, PARTITION).await.is_ok());
}

#[tokio::test]
async fn a_node_of_another_log_is_refused() {
    for secret in [None, secret("correct horse battery staple")] {
        let node = Node::start(Fake::default(), secret.clone()).await;
        let stranger = identity("one", "http://127.0.0.1:1", secret.as_ref(), log(2));
        let stranger = HttpPeers::new(stranger, PeersOptions::default());
        refuses(&node, &stranger, "409 log_differs").await;
    }
}

#[tokio::test]
async fn a_request_without_the_header_gets_a_problem_and_no_more() {
    let node = Node::start(Fake::default(), None).await;
    let client = reqwest::Client::new();
    for what in ["commands", "hand-over", "take-over"] {
        let path = format!("{}/v1/peer/partitions/3/{what}", node.address);
        let answer = client.post(path).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"], "Annals-Peer");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "peer_refused");
    }
}

#[tokio::test]
async fn partitions_are_handed_over_and_taken_over() {
    let node = Node::start(Fake::default(), None).await;
    let peers = peers(None);
    let ask = |partition| {
        let (peers, address) = (&peers, &node.address);
        async move {
            peers
                .hand_over(address, Partition(partition), &successor())
                .await
        }
    };
    assert_eq!(ask(3).await, Ok(true));
    assert_eq!(ask(4).await, Ok(false));
    assert_eq!(
        *node.fake.noted.moves.lock().unwrap(),
        [
            "3 to one at http://127.0.0.1:1",
            "4 to one at http://127.0.0.1:1"
        ]
    );
    assert!(matches!(ask(PARTITIONS).await, Err(PeerError::Refused(_))));

    let ask = |partition| peers.take_over(&node.address, Partition(partition));
    assert_eq!(ask(3).await, Ok(()));
    let Err(PeerError::Unreachable(why)) = ask(4).await else {
        panic!("the take-over of partition 4 did not fail as unreachable")
    };
    assert!(why.contains("the log is far away"), "{why}");
    assert!(matches!(ask(PARTITIONS).await, Err(PeerError::Refused(_))));
}

#[tokio::test]
async fn a_question_without_an_answer_ends_after_its_timeout() {
    let fake = Fake {
        pause: SOON * 3,
        ..Fake::default()
    };
    let node = Node::start(fake, None).await;
    let begun = std::time::Instant::now();
    let asked = peers(None)
        .hand_over(&node.address, PARTITION, &successor())
        .await;
    let Err(PeerError::Unreachable(why)) = asked else {
        panic!("{asked:?}")
    };
    assert!(why.contains("not_handed_over"), "{why}");
    assert!(begun.elapsed() < SOON);
    // A node that accepts connections and never answers.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(frozen.local_addr().unwrap());
    let asked = peers(None)
        .hand_over(&address, PARTITION, &successor())
        .await;
    assert!(matches!(asked, Err(PeerError::Unreachable(_))), "{asked:?}");
}

/// The head of a link's request, intercepted on the way to a node that listens at `address`.
async fn stolen_head(between: &TcpListener) -> String {
    let address = url(between.local_addr().unwrap());
    let _opened = Opened::to(&peers(None), &address);
    let (stream, _) = between.accept().await.unwrap();
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        lines.read_line(&mut head).await.unwrap();
    }
    head
}

/// A node, a listener at its announced address, and its real address.
async fn node_and_thief() -> (Node, TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let really = listener.local_addr().unwrap();
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(between.local_addr().unwrap());
    let node = Node::on(listener, &address, Fake::default(), None);
    (node, between, really)
}

/// What a node answers to this head and body: the status, and the JSON documents, one per line.
async fn answered(really: SocketAddr, head: &str, body: &str) -> (String, Vec<Value>) {
    let mut stream = TcpStream::connect(really).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    stream.write_all(chunk.as_bytes()).await.unwrap();
    let is_whole = |bytes: &[u8]| {
        let is_problem = bytes.starts_with(b"HTTP/1.1 4") && bytes.ends_with(b"}");
        is_problem || bytes.ends_with(b"\r\n0\r\n\r\n")
    };
    let read = async {
        let mut bytes = Vec::new();
        while !is_whole(&bytes) && stream.read_buf(&mut bytes).await.unwrap() > 0 {}
        String::from_utf8(bytes).unwrap()
    };
    let text = tokio::time::timeout(SOON, read).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let lines = body.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str(line).unwrap());
    (head.lines().next().unwrap().to_owned(), lines.collect())
}

#[tokio::test]
async fn a_header_is_accepted_only_once() {
    let (_node, between, really) = node_and_thief().await;
    let head = stolen_head(&between).await;
    let (status, _) = answered(really, &head, "\n").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let (status, lines) = answered(really, &head, "\n").await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
    assert_eq!(lines[0]["detail"], "Annals-Peer was already used");
    // A stolen head does not open another route either.
    let head = stolen_head(&between)
        .await
        .replace("partitions/3", "partitions/4");
    let (status, _) = answered(really, &head, "\n").await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
}

#[tokio::test]
async fn a_command_of_a_newer_node_is_turned_away_and_what_follows_is_not_attempted() {
    let (node, between, really) = node_and_thief().await;
    let head = stolen_head(&between).await;
    let line = |sequence: u64, more: Value| {
        let mut line = json!({
            "sequence": sequence, "timeout_ms": 1_000, "tenant": "main", "stream": "order-1",
            "command": "PlaceOrder", "schema": 1, "id": format!("k{sequence}"), "data": {},
        });
        line.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let body = [
        line(1, json!({})),
        "\n".to_owned(),
        line(2, json!({"only_if": "sunny"})),
        line(3, json!({})),
        line(4, json!({"stream": "no stream"})),
        "{\"number\":5}\n".to_owned(),
        line(6, json!({})),
    ];
    let (status, mut lines) = answered(really, &head, &body.concat()).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    lines.sort_by_key(|line| line["sequence"].as_u64());
    assert_eq!(lines[0]["answer"]["command_id"], "k1");
    assert_eq!(lines[1]["error"]["turned_away"]["reason"], "not_ready");
    // The following commands are not attempted, so they can be sent in order to a node that
    // understands them.
    assert_eq!(lines[2], json!({"sequence": 3, "moved": {}}));
    assert_eq!(lines[3], json!({"sequence": 4, "moved": {}}));
    // After a line that cannot be parsed, the link ends.
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(node.fake.noted.attempted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_topology_names_owners_and_nodes() {
    let node = Node::start(Fake::default(), secret("correct horse battery staple")).await;
    let answer = reqwest::get(format!("{}/v1/topology", node.address)).await;
    let shown: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(shown["log"], log(1).to_string());
    assert_eq!(shown["node"], "two");
    assert_eq!(shown["partition_count"], PARTITIONS);
    assert_eq!(shown["partitioner"], "murmur2 over tenant/routing key");
    let partitions = shown["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), PARTITIONS as usize);
    let owner = json!({"node": "three", "address": "http://127.0.0.1:3", "term": 9});
    assert_eq!(partitions[3], json!({"partition": 3, "owner": owner}));
    assert_eq!(partitions[4], json!({"partition": 4, "owner": null}));
    assert_eq!(shown["nodes"][0]["address"], "http://127.0.0.1:2");
    assert_eq!(shown["nodes"][0]["seen_at"], "2018-06-04T16:44:48Z");

    // The OpenAPI document has the same fields, and no route that only nodes use.
    let mut schemas = door::openapi::domain_generator();
    let fragment = command_api::fragment(&shop(), &mut schemas);
    let document = door::openapi::document(&door::Program::annals(), [fragment], schemas);
    let schemas = &document["components"]["schemas"];
    for (schema, value) in [
        ("Topology", &shown),
        ("PartitionOwner", &partitions[3]["owner"]),
        ("Node", &shown["nodes"][0]),
    ] {
        let names = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let mut shown = names(value);
        if schema == "Node" {
            // This field is shown only if it has a value.
            shown.insert("acknowledged".to_owned());
        }
        assert_eq!(names(&schemas[schema]["properties"]), shown);
    }
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/topology"));
    assert!(!paths.keys().any(|path| path.contains("peer")));
}

#[tokio::test]
async fn what_became_of_a_command_is_asked_of_its_owner() {
    let node = Node::start(Fake::default(), None).await;
    let peers = peers(None);
    let mut opened = Opened::to(&peers, &node.address);
    opened.send(1);
    opened.answer().await;
    let request = node.fake.noted.attempted.lock().unwrap()[0].clone();
    let ask = async |id: &str| {
        let inquiry = Inquiry {
            tenant: request.tenant.clone(),
            stream: request.stream.clone(),
            id: id.parse().unwrap(),
        };
        let outcome = peers.outcome(&node.address, PARTITION, &inquiry).await;
        outcome.expect("a peer that answers")
    };
    let known = ask(request.id.as_str()).await.unwrap();
    let Became::Answered(known) = known else {
        panic!("the outcome is no answer: {known:?}");
    };
    assert_eq!(known.command_id, request.id);
    assert_eq!(ask("open").await, Err(SubmitError::Unknown));
    let Ok(Became::NotInLog { up_to }) = ask("unheard-of").await else {
        panic!("nobody sent it");
    };
    assert_eq!(up_to.positions.values().max(), Some(&Position(7)));
}
