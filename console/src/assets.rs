//! The files of the pages: a style sheet, two scripts and a picture, from the binary.
//!
//! Invariant: a file's name holds the digest of its content, so that a browser may keep it for ever.
//! Deliberately absent: anything that a build makes, or that another host serves.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use door::tag::digest;

/// A file of the pages.
#[derive(Debug)]
pub(crate) struct File {
    /// Its address.
    pub(crate) href: String,
    media_type: &'static str,
    content: &'static str,
}

impl File {
    fn new(stem: &str, ending: &str, media_type: &'static str, content: &'static str) -> Self {
        let digest = digest(content.as_bytes());
        Self {
            href: format!("/console/files/{stem}-{digest}.{ending}"),
            media_type,
            content,
        }
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The style sheet.
pub(crate) static STYLE: LazyLock<File> = LazyLock::new(|| {
    let content = include_str!("../assets/console.css");
    File::new("console", "css", "text/css; charset=utf-8", content)
});
/// Sets the chosen colours before anything is drawn.
pub(crate) static THEME: LazyLock<File> =
    LazyLock::new(|| File::new("theme", "js", SCRIPT, include_str!("../assets/theme.js")));
/// The rest of what a page can do more with a script.
pub(crate) static BEHAVIOUR: LazyLock<File> = LazyLock::new(|| {
    File::new(
        "console",
        "js",
        SCRIPT,
        include_str!("../assets/console.js"),
    )
});
/// The picture of a browser's tab.
pub(crate) static ICON: LazyLock<File> = LazyLock::new(|| {
    let content = include_str!("../assets/icon.svg");
    File::new("icon", "svg", "image/svg+xml", content)
});

/// `GET /console/files/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    let files = [&STYLE, &THEME, &BEHAVIOUR, &ICON];
    let found = files
        .iter()
        .find(|file| file.href.rsplit('/').next() == Some(&name));
    let Some(file) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, file.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, file.content).into_response()
}
