//! `/`: where to go from here, as a page for browsers and as JSON for programs.
//!
//! Deliberately absent: what is behind the links.

use axum::Json;
use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::Program;
use crate::extract::NoQuery;
use crate::health::DOOR;
use crate::openapi::{self, Fragment};

/// A link of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The relation (RFC 8288, RFC 8631); `item` if there is none of its own.
    pub rel: &'static str,
    /// The path.
    pub href: &'static str,
    /// A description for people.
    pub title: &'static str,
}

/// The links that every server has.
const COMMON: [Link; 4] = [
    Link {
        rel: "service-doc",
        href: "/docs/",
        title: "Every route, to read and to try out",
    },
    Link {
        rel: "service-desc",
        href: "/openapi.json",
        title: "The same as an OpenAPI document",
    },
    Link {
        rel: "status",
        href: "/readyz",
        title: "Whether the server is ready",
    },
    Link {
        rel: "item",
        href: "/metrics",
        title: "Metrics for Prometheus",
    },
];

/// The route of a program, with further links.
pub fn router(program: &Program, links: &[Link]) -> Router {
    let links: Vec<Link> = COMMON.iter().chain(links).copied().collect();
    let page = page(&program.title, &links);
    let body = json!({
        "title": program.title,
        "version": program.version,
        "links": links.iter().map(|link| json!({
            "rel": link.rel, "href": link.href, "title": link.title,
        })).collect::<Vec<_>>(),
    });
    let named = links.iter().filter(|link| link.rel != "item");
    let header: Vec<String> = named
        .map(|link| format!("<{}>; rel=\"{}\"", link.href, link.rel))
        .collect();
    let header = header.join(", ");
    let index = move |_: NoQuery, headers: HeaderMap| {
        let answer = match wants_page(&headers) {
            true => Html(page.clone()).into_response(),
            false => Json(body.clone()).into_response(),
        };
        let headers = [
            (header::LINK, header.clone()),
            (header::VARY, "accept".to_owned()),
        ];
        async move { (headers, answer).into_response() as Response }
    };
    Router::new().route("/", get(index))
}

/// Browsers name HTML; other programs name JSON, anything, or nothing.
fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|accepted| {
        accepted
            .to_str()
            .is_ok_and(|text| text.contains("text/html"))
    })
}

fn page(title: &str, links: &[Link]) -> String {
    let item = |link: &Link| {
        format!(
            "<li><a href=\"{}\">{}</a>: {}</li>\n",
            link.href, link.href, link.title
        )
    };
    let items: String = links.iter().map(item).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\
         </head>\n<body>\n<h1>{title}</h1>\n<ul>\n{items}</ul>\n</body>\n</html>\n"
    )
}

/// The route as a fragment of the OpenAPI document.
#[must_use]
pub fn fragment() -> Fragment {
    let mut fragment = Fragment::of(DOOR, &[]);
    let link = openapi::object(
        "A link.",
        json!({
            "rel": openapi::text("The relation of its target to this server."),
            "href": openapi::text("The path."),
            "title": openapi::text("What is there."),
        }),
    );
    let index = openapi::object(
        "Where to go from here.",
        json!({
            "title": openapi::text("The name of the program."),
            "version": openapi::text("Its version."),
            "links": {"type": "array", "items": openapi::schema_ref("IndexLink"),
                      "description": "The documents and resources of this server."},
        }),
    );
    fragment.schema("Index", index);
    fragment.schema("IndexLink", link);
    let mut responses = openapi::responses(DOOR, &[400]);
    let headers: Value = json!({
        "Annals-Correlation-Id": openapi::header_ref("CorrelationId"),
        "Link": openapi::header_ref("Link"),
    });
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The links; as a page if `Accept` names HTML.",
            "headers": headers,
            "content": {
                "application/json": {"schema": openapi::schema_ref("Index")},
                "text/html": {"schema": {"type": "string"}},
            },
        }),
    );
    let operation = json!({
        "operationId": "index",
        "tags": ["health"],
        "summary": "Where to go from here",
        "description": "The documents and resources of this server.",
        "parameters": [openapi::parameter_ref("CorrelationId")],
        "responses": responses,
    });
    fragment.operation("/", "get", operation);
    fragment
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_browser_gets_a_page_and_a_program_gets_json() {
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        for (accept, expected) in [
            (browser, "text/html; charset=utf-8"),
            ("*/*", "application/json"),
            ("application/json", "application/json"),
        ] {
            let request = Request::builder().header("accept", accept);
            let request = request.body(Body::empty()).unwrap();
            let models = Link {
                rel: "item",
                href: "/v1/read",
                title: "The read models",
            };
            let response = router(&Program::annals(), &[models])
                .oneshot(request)
                .await
                .unwrap();
            let headers = response.headers();
            assert_eq!(
                (response.status().as_u16(), &headers["content-type"]),
                (200, &expected.parse().unwrap())
            );
            assert_eq!(headers["vary"], "accept");
            let link = headers["link"].to_str().unwrap();
            assert!(
                link.contains("</openapi.json>; rel=\"service-desc\""),
                "{link}"
            );
            let body = axum::body::to_bytes(response.into_body(), usize::MAX)
                .await
                .unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            for link in ["/docs/", "/openapi.json", "/readyz", "/metrics", "/v1/read"] {
                assert!(body.contains(&format!("\"{link}\"")), "{link}: {body}");
            }
        }
    }
}
