//! The last layer around all routes: correlation, panics, problems, and the record of each request
//! (`access`).
//!
//! Invariant: every response that leaves this layer has `Annals-Correlation-Id`; every error is a
//! problem document, or a page for people; every 500 is logged once, with its cause. Deliberately
//! absent: payloads in logs. Requests that are not valid HTTP (broken framing, control characters in
//! headers) do not reach any route: the HTTP library refuses them with an empty 400.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use kernel::{CommandId, CorrelationId};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::access::Asked;
use crate::code;
use crate::gzip::compressed;
use crate::header::{CORRELATION_ID, IDEMPOTENCY_KEY, parsed};
use crate::problem::Problem;

/// The most bytes of an unread body that are read and dropped before an error is answered.
const DRAIN_SIZE_MAX: usize = 8 << 20;
/// How long reading an unread body may take.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Marks an error that is answered with a page for people, which is sent as it is: an extension of the
/// response.
#[derive(Clone, Copy, Debug)]
pub struct Page;

/// The correlation of a request, an extension of every request that passes [`finish`].
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Its id.
    pub id: CorrelationId,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a correlation id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client sent `Annals-Correlation-Id`.
    Given,
    /// It is the `Idempotency-Key`: by default a command's correlation id is its own id.
    Command,
    /// It was generated. A command without an `Idempotency-Key` uses it as its id.
    MadeUp,
}

impl Correlation {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(id) = parsed(headers, &CORRELATION_ID)? {
            return Ok(Self {
                id,
                origin: Origin::Given,
            });
        }
        let key = headers
            .get(IDEMPOTENCY_KEY)
            .and_then(|value| value.to_str().ok());
        // A malformed key is ignored here; the route that uses it refuses it.
        let id = key.and_then(|key| key.trim().trim_matches('"').parse().ok());
        Ok(id.map_or_else(Self::made_up, |id| Self {
            id,
            origin: Origin::Command,
        }))
    }

    fn made_up() -> Self {
        let id = Uuid::now_v7().to_string().parse();
        Self {
            id: id.expect("a UUID is a well-formed id"),
            origin: Origin::MadeUp,
        }
    }

    /// The id that a command without an `Idempotency-Key` gets.
    #[must_use]
    pub fn command_id(&self) -> CommandId {
        let id = match self.origin {
            Origin::MadeUp => self.id.as_str().parse(),
            Origin::Given | Origin::Command => Uuid::now_v7().to_string().parse(),
        };
        id.expect("a UUID is a well-formed id")
    }
}

/// Wraps all routes. Call this once, on the router that is served.
pub fn finish(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(problem_of_panic))
        .layer(axum::middleware::from_fn(complete))
}

/// The answer to a request that reaches no route.
pub(crate) fn refused(parts: &Parts, problem: Problem) -> Response {
    let asked = Asked::of(&parts.method, None, &parts.headers);
    let correlation = Correlation::of(&parts.headers).unwrap_or_else(|_| Correlation::made_up());
    let id = correlation.id.as_str();
    let mut response = problem.complete(parts.uri.path(), id).into_response();
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(CORRELATION_ID, value);
    }
    asked.answered(response, &correlation)
}

// The layer's trait requires this signature.
#[allow(clippy::needless_pass_by_value)]
fn problem_of_panic(panic: Box<dyn Any + Send>) -> Response {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Problem::internal(format_args!("panic: {cause}")).into_response()
}

async fn complete(mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let asked = Asked::of(request.method(), route, request.headers());
    let path = request.uri().path().to_owned();
    let expects = request.headers().contains_key(header::EXPECT);
    let accepted = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let is_options = request.method() == Method::OPTIONS;
    let (correlation, refusal) = match Correlation::of(request.headers()) {
        Ok(correlation) => (correlation, None),
        Err(problem) => (Correlation::made_up(), Some(problem)),
    };
    request.extensions_mut().insert(correlation.clone());
    if let Some(here) = asked.here() {
        request.extensions_mut().insert(here);
    }
    let unread = share_body(&mut request);
    let mut response = match refusal {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    if is_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // The library adds the methods of the route afterwards. Nothing here tells a browser that a
        // page of another server may send a request: there is no CORS.
        response = StatusCode::NO_CONTENT.into_response();
    }
    if is_options && path == "*" {
        let methods = [(header::ALLOW, "GET, HEAD, POST")];
        response = (StatusCode::NO_CONTENT, methods).into_response();
    }
    let id = correlation.id.as_str();
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        if response.extensions().get::<Page>().is_none() {
            response = problem_response(response, &path, id);
        }
        if !expects {
            drain(unread).await;
        }
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(CORRELATION_ID, value);
    }
    let response = compressed(accepted.as_ref(), response).await;
    asked.answered(response, &correlation)
}

/// Adds OPTIONS, which every route has, to the methods that the library lists.
pub(crate) fn allow_options<B>(response: &mut Response<B>) {
    let allow = response.headers().get(header::ALLOW);
    let Some(methods) = allow.and_then(|allow| allow.to_str().ok()) else {
        return;
    };
    let methods = methods.split(',').map(str::trim).chain(["OPTIONS"]);
    let methods = methods.collect::<Vec<_>>().join(", ");
    if let Ok(allow) = HeaderValue::from_str(&methods) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
}

/// The response as a problem document, whether a route or a library made it.
fn problem_response(mut response: Response, path: &str, id: &str) -> Response {
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.unwrap_or_else(|| unnamed(status, path));
    let mut complete = problem.complete(path, id).into_response();
    *complete.status_mut() = status;
    // Other headers of the route stay: `Allow`, `ETag`, `Idempotency-Key`.
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            complete.headers_mut().insert(name, value.clone());
        }
    }
    complete
}

/// The problem for an error response that is not a problem document, such as that of an unknown
/// route.
fn unnamed(status: StatusCode, path: &str) -> Problem {
    let code = code::of_status(status.as_u16());
    let detail = match code {
        code::NOT_FOUND => format!("no route has the path {path}"),
        code::METHOD_NOT_ALLOWED => {
            format!("{path} does not have this method; the header Allow lists its methods")
        }
        _ => code.title.to_lowercase(),
    };
    Problem::new(code, detail)
}

/// A request's body that can be read further after its route has dropped it.
type Shared = Arc<Mutex<BodyDataStream>>;

/// Keeps a handle on the request's body, if it has one.
fn share_body(request: &mut Request) -> Option<Shared> {
    if matches!(*request.method(), Method::GET | Method::HEAD) || request.body().is_end_stream() {
        return None;
    }
    let body = std::mem::take(request.body_mut()).into_data_stream();
    let shared: Shared = Arc::new(Mutex::new(body));
    *request.body_mut() = Body::from_stream(chunks(shared.clone()));
    Some(shared)
}

fn chunks(shared: Shared) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::poll_fn(move |context| match shared.lock() {
        Ok(mut body) => body.poll_next_unpin(context),
        Err(_) => Poll::Ready(None),
    })
}

/// Reads the rest of a body that its route did not read. If the connection closed while the client
/// is still writing, a TCP reset could destroy the answer.
async fn drain(unread: Option<Shared>) {
    let Some(shared) = unread else { return };
    let mut rest = chunks(shared);
    let drained = async {
        let mut size = 0;
        while let Some(Ok(chunk)) = rest.next().await {
            size += chunk.len();
            if size > DRAIN_SIZE_MAX {
                break;
            }
        }
    };
    // At the end of the body or of the time, nothing is left to do.
    let _ = tokio::time::timeout(DRAIN_WAIT, drained).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::{JsonText, NoQuery, Path};

    async fn fail() -> &'static str {
        panic!("secret")
    }

    fn router() -> Router {
        finish(
            Router::new()
                .route("/panic", get(fail))
                .route(
                    "/body",
                    post(|_: NoQuery, JsonText(text): JsonText| async { text }),
                )
                .route(
                    "/number/{n}",
                    get(|Path(n): Path<u8>| async move { n.to_string() }),
                ),
        )
    }

    async fn ask(request: axum::http::request::Builder, body: Vec<u8>) -> (Response<()>, Value) {
        let request = request.body(Body::from(body)).unwrap();
        let response = router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (Response::from_parts(parts, ()), value)
    }

    #[tokio::test]
    async fn every_error_is_a_problem_with_a_correlation_id() {
        let json = "application/json";
        let build = |method: &str, path: &str, media: &str| {
            Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", media)
        };
        for (request, body, status, code) in [
            (build("GET", "/none", json), vec![], 404, "not_found"),
            (
                build("PUT", "/body", json),
                vec![],
                405,
                "method_not_allowed",
            ),
            (build("GET", "/number/x", json), vec![], 400, "path_invalid"),
            (
                build("GET", "/number/%FF", json),
                vec![],
                400,
                "path_invalid",
            ),
            (build("GET", "/panic", json), vec![], 500, "internal"),
            (
                build("POST", "/body?a=1", json),
                vec![],
                400,
                "query_invalid",
            ),
            (
                build("POST", "/body", json),
                vec![b' '; 300_000],
                413,
                "body_too_large",
            ),
            (
                build("POST", "/body", json),
                vec![0xff],
                400,
                "json_invalid",
            ),
            (
                build("POST", "/body", "text/plain"),
                vec![],
                415,
                "media_type_unsupported",
            ),
            (
                build("GET", "/number/1", json).header("annals-correlation-id", "a b"),
                vec![],
                400,
                "header_invalid",
            ),
        ] {
            let (response, problem) = ask(request, body).await;
            assert_eq!(response.status().as_u16(), status, "{problem}");
            assert_eq!(problem["code"], code);
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json"
            );
            let id = response.headers()["annals-correlation-id"]
                .to_str()
                .unwrap();
            assert_eq!(problem["correlation_id"], id);
            assert!(problem["instance"].as_str().unwrap().starts_with('/'));
            assert!(!problem.to_string().contains("secret"));
        }
    }

    #[tokio::test]
    async fn an_error_that_is_a_page_for_people_stays_as_it_is() {
        let page = async || {
            let mut response = (StatusCode::NOT_FOUND, "<h1>Not here</h1>").into_response();
            response.extensions_mut().insert(Page);
            response
        };
        let router = finish(Router::new().route("/page", get(page)));
        let request = Request::builder().uri("/page").body(Body::empty());
        let response = router.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.headers().contains_key("annals-correlation-id"));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        assert_eq!(body, "<h1>Not here</h1>");
    }

    #[tokio::test]
    async fn a_correlation_id_is_echoed_and_a_command_is_its_own() {
        let get = || Request::builder().uri("/number/1");
        for (request, id) in [
            (get().header("annals-correlation-id", "c1"), "c1"),
            (get().header("idempotency-key", "\"k1\""), "k1"),
            (
                get()
                    .header("idempotency-key", "k1")
                    .header("annals-correlation-id", "c1"),
                "c1",
            ),
        ] {
            let (response, _) = ask(request, vec![]).await;
            assert_eq!(response.headers()["annals-correlation-id"], id);
        }
        let (response, _) = ask(Request::builder().method("PUT").uri("/body"), vec![]).await;
        assert_eq!(response.headers()["allow"], "POST");
    }

    #[tokio::test]
    async fn every_route_tells_its_methods() {
        for (path, allow) in [("/body", "POST"), ("/panic", "GET,HEAD")] {
            let options = || Request::builder().method("OPTIONS").uri(path);
            let (response, body) = ask(options().header("origin", "http://x"), vec![]).await;
            assert_eq!((response.status().as_u16(), body), (204, Value::Null));
            let headers = response.headers();
            assert_eq!(headers["allow"], allow);
            assert!(headers.contains_key("annals-correlation-id"));
            let mut names = headers.keys();
            assert!(names.all(|name| !name.as_str().starts_with("access-control")));
        }
        let (response, problem) =
            ask(Request::builder().method("OPTIONS").uri("/no"), vec![]).await;
        assert_eq!(
            (response.status().as_u16(), &problem["code"]),
            (404, &"not_found".into())
        );
        let (response, _) = ask(Request::builder().method("HEAD").uri("/number/1"), vec![]).await;
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["content-length"]
            ),
            (200, &1.into())
        );
    }

    #[tokio::test]
    async fn an_answer_is_compressed_only_where_the_client_accepts_it() {
        let text = "word ".repeat(1_000);
        let ask = async |accepted: &str| {
            let request = Request::builder()
                .method("POST")
                .uri("/body")
                .header("content-type", "application/json")
                .header("accept-encoding", accepted);
            let request = request.body(Body::from(text.clone())).unwrap();
            router().oneshot(request).await.unwrap()
        };
        assert_eq!(ask("gzip").await.headers()["content-encoding"], "gzip");
        // A command that was taken is never answered with "not acceptable".
        for accepted in ["", "br", "identity;q=0", "*;q=0"] {
            let response = ask(accepted).await;
            assert_eq!(response.status().as_u16(), 200);
            assert!(!response.headers().contains_key("content-encoding"));
            assert_eq!(response.headers()["vary"], "accept-encoding");
        }
    }
}
