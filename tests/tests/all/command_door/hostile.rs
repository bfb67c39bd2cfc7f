//! Whatever a client sends, the answer is a problem document, and never a 500.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Served, ask};
use crate::write_side::place;

const PLACE: &str = "/v1/streams/order-1/PlaceOrder";

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_refused_where_it_is_wrong() {
    let served = Served::start().await;
    let with = |pointer: &str, value: Value| {
        let mut data = place();
        match data.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => data[pointer.trim_start_matches('/')] = value,
        }
        data.to_string()
    };
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let depth_max = "/0".repeat(100);
    let depth_max_inside = format!("/items/0/price{}", "/0".repeat(97));
    let deep_inside =
        with("/items/0/price", json!(0)).replace("\"price\":0", &format!("\"price\":{deep}"));
    for (body, code, pointer) in [
        // It stands for a command without members, which this is not.
        (String::new(), "shape_invalid", ""),
        ("{".to_owned(), "json_invalid", "-"),
        ("{} {}".to_owned(), "json_invalid", "-"),
        ("{\"a\":\"\u{1}\"}".to_owned(), "json_invalid", "-"),
        ("NaN".to_owned(), "json_invalid", "-"),
        ("null".to_owned(), "shape_invalid", ""),
        ("[]".to_owned(), "shape_invalid", ""),
        ("\"x\"".to_owned(), "shape_invalid", ""),
        (deep, "shape_invalid", &depth_max),
        (deep_inside, "shape_invalid", &depth_max_inside),
        (with("/customer", json!(7)), "shape_invalid", "/customer"),
        (
            with("/customer", json!("a/b")),
            "shape_invalid",
            "/customer",
        ),
        (with("/customer", json!("")), "shape_invalid", "/customer"),
        (with("/items", json!({})), "shape_invalid", "/items"),
        (
            with("/items", json!(vec![place()["items"][0].clone(); 201])),
            "shape_invalid",
            "/items",
        ),
        (
            with("/items/0/line", json!(1.5)),
            "shape_invalid",
            "/items/0/line",
        ),
        (
            with("/items/0/price/amount_minor", json!(1u64 << 54)),
            "shape_invalid",
            "/items/0/price/amount_minor",
        ),
        (
            with("/items/0/price/currency", json!("real")),
            "shape_invalid",
            "/items/0/price/currency",
        ),
        (
            with("/estimated_delivery", json!("soon")),
            "shape_invalid",
            "/estimated_delivery",
        ),
        (with("/colour", json!("red")), "shape_invalid", "/colour"),
        (
            place().to_string().replace("2199", "1e999"),
            "shape_invalid",
            "/items/0/price/amount_minor",
        ),
        (
            place()
                .to_string()
                .replacen('{', "{\"customer\":\"c2\",", 1),
            "shape_invalid",
            "/customer",
        ),
    ] {
        let shown: String = body.chars().take(80).collect();
        let request = served.request(Method::POST, PLACE);
        let answer = ask(request
            .header("Content-Type", "application/json")
            .body(body))
        .await;
        answer.is_problem(400, code);
        assert_eq!(
            answer.body["pointer"].as_str().unwrap_or("-"),
            pointer,
            "{shown}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn odd_paths_and_methods_are_problems() {
    let served = Served::start().await;
    let long = format!("/v1/streams/order-{}/PlaceOrder", "x".repeat(200));
    for (method, path, status, code) in [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1//streams", 404, "not_found"),
        ("GET", "/%00", 404, "not_found"),
        ("GET", PLACE, 405, "method_not_allowed"),
        ("PUT", PLACE, 405, "method_not_allowed"),
        ("DELETE", PLACE, 405, "method_not_allowed"),
        ("PATCH", PLACE, 405, "method_not_allowed"),
        ("TRACE", PLACE, 405, "method_not_allowed"),
        ("BREW", PLACE, 405, "method_not_allowed"),
        ("GET", "/v1/commands", 405, "method_not_allowed"),
        (
            "POST",
            "/v1/streams/order-1/commands/a",
            405,
            "method_not_allowed",
        ),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("POST", "/v1/streams/order/PlaceOrder", 400, "path_invalid"),
        ("POST", "/v1/streams/-1/PlaceOrder", 400, "path_invalid"),
        (
            "POST",
            "/v1/streams/order-a%2Fb/PlaceOrder",
            400,
            "path_invalid",
        ),
        (
            "POST",
            "/v1/streams/order-%C3%A4/PlaceOrder",
            400,
            "path_invalid",
        ),
        (
            "POST",
            "/v1/streams/order-%FF/PlaceOrder",
            400,
            "path_invalid",
        ),
        (
            "POST",
            "/v1/streams/order-%00/PlaceOrder",
            400,
            "path_invalid",
        ),
        ("POST", "/v1/streams/%20/PlaceOrder", 400, "path_invalid"),
        ("POST", long.as_str(), 400, "path_invalid"),
        (
            "POST",
            "/v1/streams/order-1/PlaceOrder?dry_run=1",
            400,
            "query_invalid",
        ),
        (
            "POST",
            "/v1/streams/order-1/%F0%9F%92%A9",
            404,
            "command_unknown",
        ),
        (
            "POST",
            "/v1/streams/order-1/placeorder",
            404,
            "command_unknown",
        ),
        (
            "POST",
            "/v1/streams/ship-1/PlaceOrder",
            404,
            "category_unknown",
        ),
        (
            "GET",
            "/v1/streams/order-1/commands/a%20b",
            400,
            "path_invalid",
        ),
        (
            "GET",
            "/v1/streams/order-1/commands/none",
            404,
            "command_not_in_log",
        ),
        (
            "GET",
            "/v1/streams/order-1/commands/a%2Fb",
            404,
            "command_not_in_log",
        ),
        (
            "GET",
            "/v1/streams/ship-1/commands/none",
            404,
            "category_unknown",
        ),
        ("GET", "/livez?x=1", 400, "query_invalid"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = served.request(method, path).json(&json!({}));
        let answer = ask(request).await;
        answer.is_problem(status, code);
        assert_eq!(
            answer.headers.contains_key("allow"),
            status == 405,
            "{path}"
        );
    }
    let options = ask(served.request(Method::OPTIONS, PLACE)).await;
    assert_eq!(
        (options.status.as_u16(), options.header("allow")),
        (204, "POST, OPTIONS")
    );
    let head = ask(served.request(Method::HEAD, PLACE)).await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-type")),
        (405, "application/problem+json")
    );
}

#[tokio::test]
async fn odd_headers_are_named() {
    let served = Served::start().await;
    for (name, value) in [
        ("Idempotency-Key", "a b"),
        ("Idempotency-Key", "\"\""),
        ("If-Match", "*"),
        ("If-Match", "W/\"1\""),
        ("If-Match", "\"1\", \"2\""),
        ("If-None-Match", "\"1\""),
        ("Annals-Tenant", "Main"),
        ("Annals-Tenant", ""),
        ("Annals-Actor", "me"),
        ("Annals-Correlation-Id", "a b"),
        ("Annals-Causation-Id", "\\"),
        ("Annals-Occurred-At", "yesterday"),
        ("Annals-Timeout-Ms", "0"),
        ("Annals-Timeout-Ms", "1e3"),
        ("Annals-Timeout-Ms", "60001"),
    ] {
        let answer = ask(served
            .command("order-1", "PlaceOrder", &place())
            .header(name, value))
        .await;
        answer.is_problem(400, "header_invalid");
        assert_eq!(answer.body["header"], name);
    }
    let twice = served.command("order-1", "PlaceOrder", &place());
    let twice = twice
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "b");
    ask(twice).await.is_problem(400, "header_invalid");
    let bytes = reqwest::header::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    let answer = ask(served
        .command("order-1", "PlaceOrder", &place())
        .header("Annals-Tenant", bytes))
    .await;
    answer.is_problem(400, "header_invalid");
}

#[tokio::test]
async fn a_command_without_members_needs_no_body_but_then_an_id() {
    let served = Served::start().await;
    ask(served.command("order-1", "PlaceOrder", &place())).await;
    let approve = || served.request(Method::POST, "/v1/streams/order-1/ApproveOrder");
    // A page in a browser may send this to any address without asking first.
    let bare = ask(approve()).await;
    bare.is_problem(415, "media_type_unsupported");
    let detail = bare.body["detail"].as_str().unwrap();
    assert!(detail.contains("Idempotency-Key"), "{detail}");
    // It may not send this without asking.
    let typed = approve().header("Content-Type", "application/json");
    let stale = ask(typed.header("If-Match", "\"7\"")).await;
    stale.is_problem(412, "version_conflict");
    let approved = ask(approve().header("Idempotency-Key", "approve")).await;
    assert_eq!(approved.status, 200, "{approved:?}");
    let again = served.command("order-1", "ApproveOrder", &json!({}));
    let again = ask(again.header("Idempotency-Key", "approve")).await;
    assert_eq!(again.body["repeated"], true, "it is the same command");
    // Many generated clients send null if the program gives no body.
    let null = served.command("order-1", "ApproveOrder", &json!(null));
    let null = ask(null.header("Idempotency-Key", "approve")).await;
    assert_eq!(null.body["repeated"], true, "it is the same command");
    let place = served.request(Method::POST, "/v1/streams/order-2/PlaceOrder");
    ask(place.header("Idempotency-Key", "place"))
        .await
        .is_problem(400, "shape_invalid");
}

#[tokio::test]
async fn large_bodies_and_other_media_types_are_refused_wherever_they_are_sent() {
    let served = Served::start().await;
    let large = vec![b' '; 2_000_000];
    for (path, media_type, status, code) in [
        (PLACE, "application/json", 413, "body_too_large"),
        (PLACE, "text/plain", 415, "media_type_unsupported"),
        (
            PLACE,
            "application/x-www-form-urlencoded",
            415,
            "media_type_unsupported",
        ),
        (
            PLACE,
            "application/json; charset=latin1",
            415,
            "media_type_unsupported",
        ),
        ("/v1/commands", "application/json", 413, "body_too_large"),
        ("/v1/commands", "text/plain", 415, "media_type_unsupported"),
        ("/v1/nowhere", "application/json", 404, "not_found"),
        ("/livez", "application/json", 405, "method_not_allowed"),
    ] {
        let request = || {
            served
                .request(Method::POST, path)
                .header("Content-Type", media_type)
        };
        ask(request().body(large.clone()))
            .await
            .is_problem(status, code);
        // Send the body without a declared length, too.
        let chunks = large
            .chunks(9_999)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
        let chunks: Vec<_> = chunks.collect();
        let streamed = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        ask(request().body(streamed)).await.is_problem(status, code);
    }
    let bare = ask(served
        .request(Method::POST, PLACE)
        .body(place().to_string()))
    .await;
    bare.is_problem(415, "media_type_unsupported");
    assert_eq!(bare.header("accept"), "application/json");
    let packed = served.command("order-1", "PlaceOrder", &place());
    let packed = ask(packed.header("Content-Encoding", "gzip")).await;
    packed.is_problem(415, "media_type_unsupported");
}

/// Bytes that are not HTTP are refused before any route, and the door goes on.
#[tokio::test]
async fn bytes_that_are_not_http_do_no_harm() {
    let served = Served::start().await;
    let address = served.url.trim_start_matches("http://");
    for text in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"POST / HTTP/1.1\r\nHost: x\r\nAnnals-Tenant: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n\
          Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(text).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset of the connection is a valid answer.
        let _ = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 500 "), "{answer}");
    }
    assert_eq!(ask(served.get("/livez")).await.status, 200);
}

#[test]
fn generated_requests_never_meet_a_bug() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(Served::start());
    let json = any::<u8>().prop_map(|n| json!(n)).boxed();
    let json = json.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            any::<f64>().prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
        ]
    });
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        json.clone()
            .prop_map(|value| value.to_string().into_bytes()),
        // Take a valid command, and put another value into one of its fields.
        (json, 0..5_usize).prop_map(|(value, at)| {
            let mut data = place();
            let pointers = [
                "/customer",
                "/items",
                "/items/0/price",
                "/items/0/line",
                "/estimated_delivery",
            ];
            *data.pointer_mut(pointers[at]).unwrap() = value;
            data.to_string().into_bytes()
        }),
    ];
    let path = prop_oneof![
        Just(PLACE.to_owned()),
        Just("/v1/commands".to_owned()),
        "[a-z0-9%./-]{0,12}".prop_map(|id| format!("/v1/streams/order-{id}/ShipOrder")),
    ];
    let mut runner = TestRunner::new(Config {
        cases: 300,
        ..Config::default()
    });
    let outcome = runner.run(&(path, body), |(path, body)| {
        let media_type = if path == "/v1/commands" {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        let request = served
            .request(Method::POST, &path)
            .header("Content-Type", media_type);
        let answer = runtime.block_on(ask(request.body(body)));
        prop_assert!(!answer.status.is_server_error(), "{answer:?}");
        prop_assert!(
            !answer.body.to_string().contains("\"status\":500"),
            "{answer:?}"
        );
        if answer.status.is_client_error() {
            prop_assert_eq!(answer.header("content-type"), "application/problem+json");
        }
        Ok(())
    });
    outcome.unwrap();
}
