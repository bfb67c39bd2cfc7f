//! `/docs`: the page that shows `/openapi.json`, and tries requests out.
//!
//! Invariant: the page loads nothing from other servers. Deliberately absent: the document, which says
//! what the page shows.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use door::tag;
use utoipa_swagger_ui::Config;

use crate::exit::explained;
use crate::program;

/// The title that the library gives its page.
const TITLE: &str = "<title>Swagger UI</title>";
/// The script that starts the page, instead of the library's own one.
const START: &str = include_str!("docs.js");

/// The routes of the page.
pub(super) fn router() -> Router {
    let serve = async |path: Option<Path<String>>| {
        let path = path.map(|Path(path)| path);
        file(path.as_deref().unwrap_or("index.html"))
    };
    let routes = Router::new()
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(serve))
        .route("/docs/{*path}", get(serve));
    tag::of_documents(routes)
}

/// One file of the page.
fn file(path: &str) -> Response {
    let mut file = match utoipa_swagger_ui::serve(path, Arc::new(Config::default())) {
        Ok(Some(file)) => file,
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            let error = explained(&*error);
            tracing::error!(error, "a file of the page /docs cannot be made");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    if path == "index.html" {
        let page = String::from_utf8_lossy(&file.bytes);
        let title = format!("<title>{}</title>", program::shown().title);
        file.bytes = Cow::Owned(page.replace(TITLE, &title).into_bytes());
    } else if path == "swagger-initializer.js" {
        file.bytes = Cow::Borrowed(START.as_bytes());
    }
    ([(header::CONTENT_TYPE, file.content_type)], file.bytes).into_response()
}
