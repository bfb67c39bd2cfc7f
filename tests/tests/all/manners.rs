//! What every HTTP client may rely on at every route of a whole node: methods, slashes, tags, gzip,
//! links.
//!
//! Deliberately absent: what the routes do.

use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::cli::program::{Server, folder};
use crate::write_side::place;

/// A node, and a client that follows no redirects and unpacks nothing.
struct Node {
    server: Server,
    client: Client,
    _folder: tempfile::TempDir,
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Node {
    fn start() -> Self {
        let data = folder();
        let no_redirects = reqwest::redirect::Policy::none();
        Self {
            server: Server::dev(data.path()),
            client: Client::builder().redirect(no_redirects).build().unwrap(),
            _folder: data,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answered {
        self.send(method, path, headers, None).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answered {
        let method: Method = method.parse().unwrap();
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.server.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        Answered {
            status,
            headers,
            body,
        }
    }

    /// Sends a command that is accepted; returns its position.
    async fn command(&self, stream: &str, command: &str, data: &Value) -> String {
        let path = format!("/v1/streams/{stream}/{command}");
        let answer = self.send("POST", &path, &[], Some(data)).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.header("annals-position").to_owned()
    }

    /// The paths in the document with their methods in upper case, filled in.
    async fn paths(&self) -> Vec<(String, Vec<String>)> {
        let document = self.ask("GET", "/openapi.json", &[]).await.json();
        let paths = document["paths"].as_object().unwrap().iter();
        let filled = |path: &str| {
            let path = path.replace("{stream}", "order-1").replace("{id}", "a");
            path.replace("{key}", "1").replace("{command}", "ShipOrder")
        };
        let paths = paths.map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            let methods = methods.map(|method| method.to_uppercase());
            (filled(path), methods.collect())
        });
        paths.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_a_node_has_the_same_manners() {
    let node = Node::start();
    let position = node.command("order-1", "PlaceOrder", &place()).await;
    let waits = [("Annals-Min-Position", position.as_str())];
    for (path, methods) in node.paths().await {
        let options = node.ask("OPTIONS", &path, &[]).await;
        assert_eq!((options.status, options.body.len()), (204, 0), "{path}");
        let refused = node.ask("DELETE", &path, &[]).await;
        assert_eq!(refused.status, 405, "{path}");
        for answer in [&options, &refused] {
            let allow: Vec<&str> = answer.header("allow").split(", ").collect();
            let listed = methods.iter().all(|method| allow.contains(&&**method));
            assert!(listed && allow.contains(&"OPTIONS"), "{path}: {allow:?}");
            assert_eq!(
                allow.contains(&"HEAD"),
                allow.contains(&"GET"),
                "{path}: {allow:?}"
            );
        }
        if !methods.contains(&"GET".to_owned()) {
            continue;
        }
        let found = node.ask("GET", &path, &waits).await;
        let head = node.ask("HEAD", &path, &waits).await;
        assert_eq!(
            (head.status, head.body.len()),
            (found.status, 0),
            "HEAD {path}"
        );
        assert_eq!(
            head.header("content-type"),
            found.header("content-type"),
            "HEAD {path}"
        );
        let slash = node.ask("GET", &format!("{path}/"), &waits).await;
        assert_eq!(slash.status, found.status, "GET {path}/");
        assert_eq!(
            slash.header("content-type"),
            found.header("content-type"),
            "GET {path}/"
        );
    }
    let slash = "/v1/streams/order-2/PlaceOrder/";
    let placed = node.send("POST", slash, &[], Some(&place())).await;
    assert_eq!(placed.status, 200);
    let foreign = [("Origin", "http://evil.example")];
    assert_eq!(node.ask("OPTIONS", slash, &foreign).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_sent_again_and_what_changed_is() {
    let node = Node::start();
    let mut position = node.command("order-1", "PlaceOrder", &place()).await;
    let theirs = [("Annals-Tenant", "acme")];
    let placed = "/v1/streams/order-1/PlaceOrder";
    let placed = node.send("POST", placed, &theirs, Some(&place())).await;
    let (state, events) = ("/v1/streams/order-1/state", "/v1/streams/order-1/events");
    for (path, encoding, command) in [
        (state, "identity", "ApproveOrder"),
        (state, "gzip", "ShipOrder"),
        (events, "gzip", "DeliverOrder"),
    ] {
        let ask = async |known: &str, position: &str, tenant: &str| {
            let headers = [
                ("If-None-Match", known),
                ("Annals-Min-Position", position),
                ("Accept-Encoding", encoding),
                ("Annals-Tenant", tenant),
            ];
            node.ask("GET", path, &headers).await
        };
        let first = ask("\"x\"", &position, "main").await;
        let tag = first.header("etag");
        assert_eq!(first.status, 200);
        // Another stream's writes move the position and change nothing here.
        let elsewhere = format!("order-{encoding}-{command}");
        let elsewhere = node.command(&elsewhere, "PlaceOrder", &place()).await;
        let again = ask(tag, &elsewhere, "main").await;
        assert_eq!(
            (again.status, again.body.len()),
            (304, 0),
            "{path} {encoding}"
        );
        assert_eq!(
            (again.header("etag"), again.header("content-type")),
            (tag, "")
        );
        assert!(again.header("annals-position").starts_with('A'));
        assert_eq!(again.header("cache-control"), "no-cache");
        assert!(again.header("vary").contains("annals-tenant"));
        // The same stream of another tenant has other events.
        let other = ask(tag, placed.header("annals-position"), "acme").await;
        assert!(
            path == state || other.status == 200,
            "{path}: {}",
            other.status
        );
        // The tag of the state is an expectation, too; that of the events is not.
        let expected = [("If-Match", tag)];
        let expected = if path == state { &expected[..] } else { &[] };
        let command = format!("/v1/streams/order-1/{command}");
        let changed = node
            .send("POST", &command, expected, Some(&json!({})))
            .await;
        assert_eq!(changed.status, 200, "{}", changed.json());
        position = changed.header("annals-position").to_owned();
        if path == state {
            let stale = node
                .send("POST", &command, expected, Some(&json!({})))
                .await;
            assert_eq!(stale.status, 412, "{}", stale.json());
        }
        let after = ask(tag, &position, "main").await;
        assert_eq!(after.status, 200, "{path} {encoding}");
        assert_ne!(after.header("etag"), tag);
    }
    for path in ["/openapi.json", "/docs/", "/docs/swagger-ui.css"] {
        for encoding in ["identity", "gzip"] {
            let first = node
                .ask("GET", path, &[("Accept-Encoding", encoding)])
                .await;
            assert_eq!(first.status, 200, "{path}");
            let known = [
                ("If-None-Match", first.header("etag")),
                ("Accept-Encoding", encoding),
            ];
            let again = node.ask("GET", path, &known).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            assert_eq!(again.header("etag"), first.header("etag"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_links_lead_on_and_the_first_page_leads_in() {
    let node = Node::start();
    let mut position = String::new();
    for number in 0..25 {
        let stream = format!("order-{number}");
        position = node.command(&stream, "PlaceOrder", &place()).await;
        // A position is that of one partition.
        let waits = [("Annals-Min-Position", position.as_str())];
        for path in [
            format!("/v1/read/order_summary/{number}"),
            format!("/v1/streams/{stream}/events"),
        ] {
            assert_eq!(node.ask("GET", &path, &waits).await.status, 200, "{path}");
        }
    }
    let gzip = [
        ("Accept-Encoding", "gzip"),
        ("Annals-Min-Position", position.as_str()),
    ];
    for path in [
        "/openapi.json",
        "/v1/read/order_summary",
        "/v1/read",
        "/metrics",
    ] {
        let packed = node.ask("GET", path, &gzip).await;
        assert_eq!(packed.header("content-encoding"), "gzip", "{path}");
        assert!(packed.header("vary").contains("accept-encoding"), "{path}");
        let mut unpacked = String::new();
        GzDecoder::new(&*packed.body)
            .read_to_string(&mut unpacked)
            .unwrap();
        let plain = node.ask("GET", path, &gzip[1..]).await;
        assert_eq!(plain.header("content-encoding"), "", "{path}");
        if path != "/metrics" {
            assert_eq!(unpacked.as_bytes(), plain.body, "{path}");
        }
        let (small, large) = (packed.body.len(), plain.body.len());
        println!("{path}: {large} bytes, {small} compressed");
        assert!(small * 2 < large, "{path}: {small} of {large}");
    }
    let small = node.ask("GET", "/livez", &gzip).await;
    assert_eq!(
        (small.header("content-encoding"), small.header("vary")),
        ("", "")
    );

    for (first, member) in [
        ("/v1/read/order_summary?limit=10", "rows"),
        ("/v1/streams/order-1/events?limit=1", "events"),
    ] {
        let (mut path, mut count) = (first.to_owned(), 0);
        loop {
            let page = node.ask("GET", &path, &gzip[1..]).await;
            count += page.json()[member].as_array().unwrap().len();
            let Some(next) = page.header("link").strip_suffix(">; rel=\"next\"") else {
                assert!(page.json()["next"].is_null());
                break;
            };
            path = next.strip_prefix('<').unwrap().to_owned();
        }
        assert!(
            count >= if member == "rows" { 20 } else { 1 },
            "{first}: {count}"
        );
    }

    let index = node.ask("GET", "/", &[]).await;
    for link in index.json()["links"].as_array().unwrap() {
        let href = link["href"].as_str().unwrap();
        assert_eq!(node.ask("GET", href, &[]).await.status, 200, "{href}");
    }
    let page = node
        .ask("GET", "/", &[("Accept", "text/html,*/*;q=0.8")])
        .await;
    assert!(
        String::from_utf8(page.body)
            .unwrap()
            .contains("<a href=\"/docs/\">")
    );
}
