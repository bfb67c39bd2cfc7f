//! What a form of the console sends: who asks for something, and why.
//!
//! Invariants: a form is taken only from a page of this server (the server has compared the origin
//! already; here a request without one is refused, too); it changes something only through the node's
//! own routes. Deliberately absent: what can be asked for.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::json;

use crate::layout::Frame;
use crate::node::{Node, Trouble};
use crate::parts::{self, Tone};
use crate::visit::Visit;

/// The header with which a request names its actor.
const ACTOR: &str = "annals-actor";
/// The actor's id if the form names nobody.
const NOBODY: &str = "console";
/// The most bytes of a form.
const BODY_BYTES_MAX: usize = 16 << 10;
/// The most characters of a reason, and of a name.
const REASON_LENGTH_MAX: usize = 500;
const NAME_LENGTH_MAX: usize = 100;

/// The fields of a form, as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The value of a field that is given and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let given = self.0.iter().find(|(given, _)| given == name);
        let value = given.map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    }
}

/// Reads the fields of a form that a page of this console sent.
pub(crate) async fn fields_of(request: Request) -> Result<Fields, Trouble> {
    if !is_own_page(request.headers()) {
        let detail = "the form was not sent from a page of this console; programs use the \
                      routes below /v1 instead";
        return Err(Trouble::new(
            StatusCode::FORBIDDEN,
            "Not from this console",
            detail,
        ));
    }
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|_| {
        let detail = format!("a form has at most {BODY_BYTES_MAX} bytes");
        Trouble::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The form is too large",
            detail,
        )
    })?;
    Ok(Fields(form_urlencoded::parse(&body).into_owned().collect()))
}

impl Node {
    /// Sends JSON to a route, for whoever uses the console.
    pub(crate) async fn asked_by_console(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<(), Trouble> {
        let mut node = self.clone();
        let actor = HeaderValue::from_static("user:console");
        node.headers.insert(ACTOR, actor);
        node.post(path, body).await
    }
}

/// A filled-in form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) reason: String,
    pub(crate) who: String,
}

impl Form {
    /// Reads the form of a request.
    pub(crate) async fn of(request: Request) -> Result<Self, Trouble> {
        let fields = fields_of(request).await?;
        let text = |name| fields.get(name).unwrap_or_default().to_owned();
        Ok(Self {
            reason: text("reason"),
            who: text("who"),
        })
    }

    /// Asks the node's route for what the form is about.
    pub(crate) async fn send(&self, node: &Node, path: &str) -> Result<(), Trouble> {
        let invalid = |detail: &str| {
            Trouble::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The form is not complete",
                detail,
            )
        };
        if self.reason.is_empty() || self.reason.chars().count() > REASON_LENGTH_MAX {
            let detail =
                format!("give a reason of at most {REASON_LENGTH_MAX} characters: it is recorded");
            return Err(invalid(&detail));
        }
        let who = if self.who.is_empty() {
            NOBODY
        } else {
            &self.who
        };
        let actor = HeaderValue::try_from(format!("user:{who}")).ok();
        let actor = actor.filter(|_| who.is_ascii() && who.len() <= NAME_LENGTH_MAX);
        let actor = actor.ok_or_else(|| {
            invalid("a name has at most 100 letters of the English alphabet, digits and signs")
        })?;
        let mut node = node.clone();
        node.headers.insert(ACTOR, actor);
        node.post(path, &json!({"reason": self.reason})).await
    }
}

/// The page with the form of an action, and with what went wrong when it was sent. The frame's title
/// names the thing that it is done to; `back` leads there.
pub(crate) fn page(
    visit: &Visit,
    mut frame: Frame,
    action: Result<Action, Trouble>,
    back: &str,
    given: &Form,
    trouble: Option<&Trouble>,
) -> Response {
    let action = match action {
        Ok(action) => action,
        Err(trouble) => return frame.trouble(visit, &trouble),
    };
    frame.title = format!("{}: {}", action.button, frame.title);
    frame.status = trouble.map_or(StatusCode::OK, |trouble| trouble.status);
    let href = visit.link(&visit.path, []);
    let content = html! {
        @if let Some(trouble) = trouble { (parts::trouble(visit, trouble)) }
        (action.form(&href, back, given))
    };
    frame.page(visit, content)
}

/// Whether a browser says that the request comes from a page of this server. Other programs can say
/// what they like; but no foreign page can make a browser say so.
fn is_own_page(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.contains_key(header::ORIGIN),
    }
}

/// Something that can be asked for: its name in the address, on its button, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) button: &'static str,
    /// What happens, for somebody who is about to ask for it.
    pub(crate) about: &'static str,
    /// What is said once it has been asked for.
    pub(crate) done: &'static str,
    pub(crate) tone: Tone,
}

impl Action {
    /// The action with this name.
    pub(crate) fn named(all: &[Self], name: &str) -> Result<Self, Trouble> {
        let found = all.iter().find(|action| action.name == name).copied();
        found.ok_or_else(|| {
            let detail = format!("nothing of the console is named {name:?}");
            Trouble {
                code: Some("action_unknown".to_owned()),
                ..Trouble::new(StatusCode::NOT_FOUND, "No such action", detail)
            }
        })
    }

    /// The way to the form of this action.
    pub(crate) fn link(&self, href: &str) -> Markup {
        let class = if self.tone == Tone::Bad {
            "button danger"
        } else {
            "button"
        };
        html! { a class=(class) href=(href) { (self.button) } }
    }

    /// The form that asks for it, sent to `href`; `back` leads away from it.
    fn form(&self, href: &str, back: &str, given: &Form) -> Markup {
        let class = if self.tone == Tone::Bad {
            "danger"
        } else {
            "main"
        };
        html! {
            form.sheet.ask method="post" action=(href) {
                p { (self.about) }
                div.field {
                    label for="reason" { "Reason, which is recorded" }
                    input #reason name="reason" value=(given.reason) required
                        maxlength=(REASON_LENGTH_MAX) autocomplete="off";
                }
                div.field {
                    label for="who" { "Your name, which is recorded (may be left out)" }
                    input #who name="who" value=(given.who) maxlength=(NAME_LENGTH_MAX)
                        autocomplete="username" spellcheck="false";
                }
                div.buttons {
                    button class=(class) { (self.button) }
                    a.button href=(back) { "Back, change nothing" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn read(
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Result<Form, u16> {
        let mut request = Request::new(Body::from(body));
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_static(value));
        }
        Form::of(request)
            .await
            .map_err(|trouble| trouble.status.as_u16())
    }

    #[tokio::test]
    async fn a_form_is_taken_only_from_a_page_of_this_server() {
        let body = "reason=too+slow&who=ana&other=1";
        let expected = Form {
            reason: "too slow".to_owned(),
            who: "ana".to_owned(),
        };
        let own = [("sec-fetch-site", "same-origin")];
        assert_eq!(read(&own, body).await, Ok(expected.clone()));
        let old = [("origin", "http://127.0.0.1:4747")];
        assert_eq!(read(&old, body).await, Ok(expected));
        for foreign in ["cross-site", "same-site", "none"] {
            let headers = [
                ("sec-fetch-site", foreign),
                ("origin", "http://127.0.0.1:4747"),
            ];
            assert_eq!(read(&headers, body).await, Err(403));
        }
        assert_eq!(read(&[], body).await, Err(403));
    }
}
