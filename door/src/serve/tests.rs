//! Tests of the server over real sockets, as clients use it.

use std::net::SocketAddr;

use axum::routing::{get, post};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::{JsonText, NoQuery, finish, health};

/// A limit for everything that should happen without a delay.
const SOON: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    async fn with(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/large", get(|| async { vec![b'x'; 16 << 20] }))
            .route(
                "/slow",
                get(|| async { tokio::time::sleep(Duration::from_millis(300)).await }),
            )
            .route(
                "/text",
                post(|_: NoQuery, JsonText(text): JsonText| async { text }),
            )
            .route(
                "/lines",
                post(|body: Body| async {
                    let lines = body
                        .into_data_stream()
                        .take_while(|chunk| std::future::ready(chunk.is_ok()));
                    Body::from_stream(lines)
                }),
            )
            .merge(health::router(health::Health::new([], String::new)));
        let (stop, stopped) = oneshot::channel();
        let server = Server {
            limits,
            ..Server::default()
        };
        let stopped = async { stopped.await.unwrap_or(()) };
        let grace = Duration::from_secs(5);
        let task = tokio::spawn(server.serve(listener, finish(router), stopped, grace));
        Self {
            address,
            stop: Some(stop),
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request on a new connection; returns the whole answer.
    async fn ask(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        // The server may have closed the connection already.
        let _ = stream.write_all(head.as_bytes()).await;
        rest(&mut stream).await
    }
}

/// All bytes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut text))
        .await
        .unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn short() -> Limits {
    let short = Duration::from_millis(200);
    Limits {
        header_timeout: short,
        idle_timeout: short,
        stall_timeout: short,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_or_half_a_head_is_closed() {
    let served = Served::with(short()).await;
    for said in ["", "GET /livez HTTP/1.1\r\nHost: local"] {
        let mut stream = served.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "");
    }
    // A request that takes longer than the timeouts is answered, also on a connection that was used
    // before.
    let mut stream = served.connect().await;
    for _ in 0..2 {
        let head = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_with_408() {
    let served = Served::with(short()).await;
    let mut stream = served.connect().await;
    let head = "POST /text HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"request_timeout\""), "{answer}");
}

#[tokio::test]
async fn a_batch_may_rest_between_lines_and_no_line_may_trickle() {
    let limits = Limits {
        idle_timeout: SOON,
        ..short()
    };
    let served = Served::with(limits).await;
    let mut stream = served.connect().await;
    let head = "POST /lines HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\na\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    stream.write_all(b"b").await.unwrap();
    let began = std::time::Instant::now();
    let answer = rest(&mut stream).await;
    assert!(answer.contains("a\n") && answer.contains('b'), "{answer}");
    assert!(began.elapsed() < SOON / 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_loses_it() {
    let served = Served::with(short()).await;
    let mut stream = served.connect().await;
    let head = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let answer = rest(&mut stream).await;
    assert!(answer.len() < 16 << 20, "{} bytes", answer.len());
    assert!(served.ask("/large").await.len() > 16 << 20);
}

const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The head of a request with a body.
fn posted(path: &str, media_type: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n\
         Content-Length: 1000000\r\n\r\n"
    )
}

#[tokio::test]
async fn health_is_answered_when_all_connections_are_taken() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream.write_all(SLOW.as_bytes()).await.unwrap();
        taken.push(stream);
    }
    // The server must have read both requests first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = served.ask("/slow").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1") && refused.contains("\"connections_exhausted\""));
    for path in health::PATHS {
        assert!(
            served.ask(path).await.starts_with("HTTP/1.1 200 "),
            "{path}"
        );
    }
    // A refused client that sends no more of its body does not keep its reserved connection.
    let mut refused = Vec::new();
    for _ in 0..2 * RESERVE_CONNECTIONS {
        let mut stream = served.connect().await;
        let head = posted("/text", "application/json");
        // The server may have closed the connection already.
        let _ = stream.write_all(head.as_bytes()).await;
        refused.push(stream);
    }
    assert!(served.ask("/livez").await.starts_with("HTTP/1.1 200 "));
    // Their answers are sent, and the connections wait for their clients.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(served.ask("/slow").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_keeps_the_door_waiting_makes_room_even_if_it_sends_a_little() {
    let limits = Limits {
        connections_max: 2,
        // Room for one body of this size.
        memory_bytes: 4 << 20,
        ..Limits::default()
    };
    for (path, media_type, first, more) in [
        ("/text", "application/json", "", "x"),
        ("/lines", "application/x-ndjson", "", "x"),
        ("/lines", "application/x-ndjson", "", "\n"),
        ("/lines", "application/x-ndjson", "a\n", "\n"),
    ] {
        let served = Served::with(limits).await;
        for _ in 0..2 {
            let mut stream = served.connect().await;
            let said = posted(path, media_type) + first;
            stream.write_all(said.as_bytes()).await.unwrap();
            tokio::spawn(async move {
                while stream.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        let answer = served.ask("/slow").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn every_route_is_closed_to_foreign_pages() {
    let served = Served::with(Limits::default()).await;
    for path in ["/livez", "/metrics", "/slow", "/none"] {
        for (headers, status) in [
            ("Host: evil.example", "421"),
            ("Host: localhost\r\nHost: localhost", "400"),
            ("Host: localhost\r\nOrigin: null", "403"),
            ("Host: localhost\r\nOrigin: http://evil.example", "403"),
        ] {
            let mut stream = served.connect().await;
            let head = format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains("annals-correlation-id: "), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_stop_answers_begun_requests_and_closes_idle_connections() {
    let mut served = Served::with(Limits::default()).await;
    let mut idle = served.connect().await;
    let mut asking = served.connect().await;
    let head = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    asking.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.stop.take().unwrap().send(()).unwrap();
    assert!(rest(&mut asking).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(rest(&mut idle).await, "");
    let ended = tokio::time::timeout(SOON, served.task).await.unwrap();
    ended.unwrap().unwrap();
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_changes_nothing() {
    let served = Served::with(Limits::default()).await;
    for path in ["/livez", "/livez/", "/livez///", "/livez/?"] {
        let answer = served.ask(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let query = served.ask("/livez/?a=1").await;
    assert!(query.contains("query_invalid"), "the query stays: {query}");
    for (path, expected) in [
        ("/", None),
        ("//", Some("/")),
        ("/docs/", None),
        ("/docs/a/", Some("/docs/a")),
        ("/a//", Some("/a")),
        ("/a/?b=/", Some("/a?b=/")),
        ("/a?b=/", None),
        ("/%2F/", Some("/%2F")),
        ("http://x/a/", Some("http://x/a")),
        ("*", None),
    ] {
        let plain = without_slash(&path.parse().unwrap());
        assert_eq!(
            plain,
            expected.map(|plain| plain.parse().unwrap()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_route_lists_its_methods_and_no_foreign_page_gets_leave() {
    let served = Served::with(Limits::default()).await;
    let ask = async |method: &str, path: &str, origin: &str| {
        let mut stream = served.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{origin}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        rest(&mut stream).await.to_lowercase()
    };
    for (method, path, status, allow) in [
        ("OPTIONS", "/text", 204, "post, options"),
        ("OPTIONS", "/livez", 204, "get, head, options"),
        ("OPTIONS", "/livez/", 204, "get, head, options"),
        ("OPTIONS", "*", 204, "get, head, post, options"),
        ("PUT", "/livez", 405, "get, head, options"),
        ("GET", "/text", 405, "post, options"),
    ] {
        let answer = ask(method, path, "").await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{method} {path}: {answer}"
        );
        assert!(
            answer.contains(&format!("\r\nallow: {allow}\r\n")),
            "{method} {path}: {answer}"
        );
        assert!(!answer.contains("access-control"), "{answer}");
    }
    let head = ask("HEAD", "/nothing", "").await;
    assert!(
        head.starts_with("http/1.1 404 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = ask("OPTIONS", "/text", preflight).await;
    assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    assert!(!answer.contains("access-control"), "{answer}");
}
