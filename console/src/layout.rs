//! The frame of every page: head, rooms, tenant, colours, content.
//!
//! Invariants: a page has a title, one heading of the first level, landmarks, and a way past the
//! rooms for keyboards; its policy forbids scripts and styles that are not our own files. Deliberately
//! absent: the content.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::assets::{BEHAVIOUR, ICON, STYLE, THEME};
use crate::format;
use crate::node::Trouble;
use crate::parts;
use crate::visit::Visit;

/// What a page may load: the files of this node. Forms are sent to this node, and no page may show
/// the console in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

/// A room of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Overview,
    Streams,
    Stories,
    Models,
    Refusals,
    Projections,
    Replays,
    Parked,
    Configuration,
}

impl Room {
    /// Every room, in the order of the menu.
    const ALL: [Self; 9] = [
        Self::Overview,
        Self::Streams,
        Self::Stories,
        Self::Models,
        Self::Refusals,
        Self::Projections,
        Self::Replays,
        Self::Parked,
        Self::Configuration,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Streams => "Streams",
            Self::Stories => "Stories",
            Self::Models => "Read models",
            Self::Refusals => "Refusals",
            Self::Projections => "Projections",
            Self::Replays => "Replays",
            Self::Parked => "Parked",
            Self::Configuration => "Configuration",
        }
    }

    /// The path of its first page.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Overview => "/console",
            Self::Streams => "/console/streams",
            Self::Stories => "/console/stories",
            Self::Models => "/console/models",
            Self::Refusals => "/console/refusals",
            Self::Projections => "/console/projections",
            Self::Replays => "/console/replays",
            Self::Parked => "/console/parked",
            Self::Configuration => "/console/configuration",
        }
    }

    /// The heading in the menu that begins with this room.
    fn heading(self) -> Option<&'static str> {
        match self {
            Self::Streams => Some("Data"),
            Self::Projections => Some("Operation"),
            Self::Overview
            | Self::Stories
            | Self::Models
            | Self::Refusals
            | Self::Replays
            | Self::Parked
            | Self::Configuration => None,
        }
    }

    /// The lines of its picture, on a field of 16 by 16.
    fn picture(self) -> &'static str {
        match self {
            Self::Overview => "M2 13.5h12M4 11V7.5M8 11V3M12 11V6",
            Self::Streams => "M2 4.5h7M2 8h12M2 11.5h9M12 4.5h2",
            Self::Stories => "M4 3v10M4 5h4M4 10.5h4M8 3.5h6v3H8zM8 9h6v3H8z",
            Self::Models => "M2.5 3h11v10h-11zM2.5 6.5h11M6.5 6.5V13",
            Self::Refusals => "M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 1 0 0-11.6M4 4l8 8",
            Self::Projections => "M2.5 3h4v4h-4zM9.5 9h4v4h-4zM6.5 5h5.2v4",
            Self::Replays => "M5 3v10l8-5zM2.5 3v10",
            Self::Parked => "M3 2.5h10v11H3zM6.2 11V5h2.2a1.8 1.8 0 0 1 0 3.6H6.2",
            Self::Configuration => "M2 4.5h7M12 4.5h2M2 11.5h2M7 11.5h7M10.5 3v3M5.5 10v3",
        }
    }
}

/// What stands around the content of a page.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) room: Room,
    /// The heading, and the beginning of the title.
    pub(crate) title: String,
    /// The pages above this one, below the room: their addresses and names.
    pub(crate) above: Vec<(String, String)>,
    /// A sentence below the heading.
    pub(crate) about: Option<String>,
    /// What stands beside the heading.
    pub(crate) aside: Option<Markup>,
    pub(crate) status: StatusCode,
}

impl Frame {
    /// The frame of a room's first page.
    pub(crate) fn of(room: Room, about: &str) -> Self {
        Self {
            title: room.name().to_owned(),
            about: Some(about.to_owned()),
            ..Self::below(room, String::new())
        }
    }

    /// The frame of a page below a room's first one.
    pub(crate) fn below(room: Room, title: impl Into<String>) -> Self {
        Self {
            room,
            title: title.into(),
            above: Vec::new(),
            about: None,
            aside: None,
            status: StatusCode::OK,
        }
    }

    /// Adds a sentence below the heading.
    pub(crate) fn about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }

    /// Adds a page between the room's first page and this one.
    pub(crate) fn above(mut self, href: String, name: impl Into<String>) -> Self {
        self.above.push((href, name.into()));
        self
    }

    /// Adds something beside the heading.
    pub(crate) fn aside(mut self, aside: Markup) -> Self {
        self.aside = Some(aside);
        self
    }

    /// The page with this content.
    #[allow(clippy::needless_pass_by_value)] // content is made for one page
    pub(crate) fn page(&self, visit: &Visit, content: Markup) -> Response {
        let page = document(visit, self, &content).into_string();
        let mut response = (self.status, Html(page)).into_response();
        let headers = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // A form without a referrer has no origin either, and would be refused.
            (header::REFERRER_POLICY, "same-origin"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ];
        for (name, value) in headers {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(door::Page);
        response
    }

    /// The page that says why there is none.
    pub(crate) fn trouble(mut self, visit: &Visit, trouble: &Trouble) -> Response {
        self.status = trouble.status;
        if trouble.is_not_served() {
            // The page is there; what it would show is not on this node.
            self.status = StatusCode::OK;
        }
        self.page(visit, parts::trouble(visit, trouble))
    }
}

fn document(visit: &Visit, frame: &Frame, content: &Markup) -> Markup {
    let about = visit.console.about();
    let program = &about.program.title;
    let title = match frame.title == frame.room.name() {
        true => format!("{} · {program} console", frame.title),
        false => format!(
            "{} · {} · {program} console",
            frame.title,
            frame.room.name()
        ),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(ICON.href);
                script src=(THEME.href) {}
                link rel="stylesheet" href=(STYLE.href);
                script src=(BEHAVIOUR.href) defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href=(visit.link("/console", [])) {
                        (brand()) span { (program) } span.quiet { "console" }
                    }
                    span.node title={ "This node: " (about.node) } { (about.node) }
                    div.tools { (tenant(visit)) (theme()) }
                }
                (menu(visit, frame))
                main #content tabindex="-1" {
                    (heading(visit, frame))
                    (content)
                }
                footer {
                    span { (program) " " (about.program.version) }
                    span { "Made at " (format::now()) }
                    a href="/docs/" { "Routes of this node" }
                }
            }
        }
    }
}

fn heading(visit: &Visit, frame: &Frame) -> Markup {
    let is_first = frame.title == frame.room.name();
    html! {
        div.heading {
            div.words {
                @if !is_first {
                    nav.crumbs aria-label="Above this page" {
                        a href=(visit.link(frame.room.path(), [])) { (frame.room.name()) }
                        @for (href, name) in &frame.above { a href=(href) { (name) } }
                    }
                }
                h1 title=(frame.title) { (frame.title) }
                @if let Some(about) = &frame.about { p.about { (about) } }
            }
            @if let Some(aside) = &frame.aside { div.aside { (aside) } }
        }
    }
}

fn menu(visit: &Visit, frame: &Frame) -> Markup {
    let is_first = frame.title == frame.room.name();
    let current =
        |room: Room| (room == frame.room).then_some(if is_first { "page" } else { "true" });
    html! {
        nav.rooms aria-label="Rooms" {
            ul {
                @for room in Room::ALL {
                    @if let Some(heading) = room.heading() { li.heading aria-hidden="true" { (heading) } }
                    li {
                        a href=(visit.link(room.path(), [])) aria-current=[current(room)] {
                            (icon(room.picture())) (room.name())
                        }
                    }
                }
            }
        }
    }
}

/// A picture of lines, 16 by 16; it says nothing that the text beside it does not.
pub(crate) fn icon(lines: &str) -> Markup {
    html! {
        svg.icon viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" {
            path d=(lines) {}
        }
    }
}

fn brand() -> Markup {
    PreEscaped(
        "<svg class=\"mark\" viewBox=\"0 0 20 20\" width=\"20\" height=\"20\" aria-hidden=\"true\" \
         focusable=\"false\"><rect x=\"2\" y=\"3\" width=\"16\" height=\"3.4\" rx=\"1\"/><rect \
         x=\"2\" y=\"8.3\" width=\"11\" height=\"3.4\" rx=\"1\"/><rect x=\"2\" y=\"13.6\" \
         width=\"14\" height=\"3.4\" rx=\"1\"/></svg>"
            .to_owned(),
    )
}

/// Shows the tenant, and changes it.
fn tenant(visit: &Visit) -> Markup {
    let shown = visit.tenant.as_ref().map_or("?", |tenant| tenant.as_str());
    html! {
        details.tenant {
            summary title={ "Tenant: " (shown) } { span.quiet { "Tenant " } span.name { (shown) } }
            form method="get" action="/console" {
                label for="tenant" { "Show another tenant" }
                div.row {
                    input #tenant name="tenant" value=(shown) required maxlength="63"
                        autocomplete="off" spellcheck="false" autocapitalize="none";
                    button { "Show" }
                }
            }
        }
    }
}

/// The switch of colours; a script shows it, because without one it could not work.
fn theme() -> Markup {
    html! {
        button #theme .plain hidden type="button" aria-label="Change the colours" {
            (icon("M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 1 1 0 12"))
        }
    }
}
