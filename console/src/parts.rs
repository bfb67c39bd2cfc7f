//! Parts that several rooms share: what is said if there is nothing, or if something failed; tables,
//! badges, bars, and the ways to the next page.
//!
//! Invariants: whatever may be wide lies in a box that scrolls by itself and that a keyboard reaches; a
//! colour never says something alone. Deliberately absent: what any room is about.

use maud::{Markup, html};

use crate::node::Trouble;
use crate::visit::Visit;

/// How something is, in one word and a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Note,
    Warn,
    Bad,
    Quiet,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

/// A word in a coloured box.
pub(crate) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (word) } }
}

/// There is nothing to show: why, and what to do next.
pub(crate) fn empty(title: &str, next: &Markup) -> Markup {
    html! { div.empty { p.title { (title) } div.next { (next) } } }
}

/// A message in a box of its own.
pub(crate) fn notice(tone: Tone, title: &str, text: &Markup) -> Markup {
    let role = (tone == Tone::Bad).then_some("alert");
    html! {
        div class={ "notice " (tone.class()) } role=[role] {
            p.title { (title) }
            div.text { (text) }
        }
    }
}

/// What failed, and what to do.
pub(crate) fn trouble(visit: &Visit, trouble: &Trouble) -> Markup {
    if trouble.is_not_served() {
        let text = html! {
            p { "The routes that this page shows are not among those of this node, because it does \
                 not have the role that answers them." }
            p { "Open the console of a node that has the role, or start this node with "
                code { "--role all" } ". " a href="/readyz?role=all" { "What this node does" } }
        };
        return notice(Tone::Note, "This node does not serve this", &text);
    }
    let again = visit.query.iter().map(|(name, value)| (&**name, &**value));
    let again = visit.link(&visit.path, again.collect::<Vec<_>>());
    let text = html! {
        p { (trouble.detail) }
        @if trouble.is_passing() {
            p { "This usually passes by itself. " a href=(again) { "Try again" } }
        }
        @if trouble.code.is_some() || trouble.correlation_id.is_some() {
            dl.facts {
                @if let Some(code) = &trouble.code { dt { "Code" } dd { code { (code) } } }
                dt { "Status" } dd { (trouble.status.as_u16()) }
                @if let Some(id) = &trouble.correlation_id {
                    dt { "Correlation" } dd { code { (id) } }
                }
            }
        }
    };
    let tone = if trouble.is_passing() {
        Tone::Warn
    } else {
        Tone::Bad
    };
    notice(tone, &trouble.title, &text)
}

/// Something wide in a box that scrolls by itself.
pub(crate) fn wide(label: &str, content: &Markup) -> Markup {
    html! { div.wide tabindex="0" role="region" aria-label=(label) { (content) } }
}

/// A text that is cut where it is too long; the whole of it is its title.
pub(crate) fn cut(text: &str) -> Markup {
    html! { span.cut title=(text) { (text) } }
}

/// A longer text that ends after some lines; the whole of it is its title.
pub(crate) fn clamped(text: &str) -> Markup {
    html! { span.clamp title=(text) { (text) } }
}

/// A part of a whole, as a bar with its share in words.
pub(crate) fn bar(label: &str, share: f64) -> Markup {
    let percent = (share.clamp(0.0, 1.0) * 100.0).floor();
    html! {
        span.bar {
            progress max="100" value=(percent) aria-label=(label) {}
            span.number { (percent) " %" }
        }
    }
}

/// A figure with its name.
pub(crate) fn figure(name: &str, value: &str, note: Option<&str>) -> Markup {
    html! {
        div.figure {
            dt { (name) }
            dd { span.value { (value) } @if let Some(note) = note { span.note { (note) } } }
        }
    }
}

/// The ways to the first and to the next page.
pub(crate) fn pages(first: Option<&str>, next: Option<&str>) -> Markup {
    if first.is_none() && next.is_none() {
        return html! {};
    }
    html! {
        nav.pages aria-label="Pages" {
            @if let Some(first) = first { a.button href=(first) { "First page" } }
            @if let Some(next) = next { a.button href=(next) rel="next" { "Next page" } }
        }
    }
}

/// A part of a page that is made anew while a browser looks at it.
pub(crate) fn live(href: &str, content: &Markup) -> Markup {
    html! {
        div #live data-live=(href) { (content) }
    }
}

/// The switch of live parts; a script shows it.
pub(crate) fn live_switch() -> Markup {
    html! {
        button #live-switch .plain hidden type="button" aria-pressed="true" {
            span.dot {} span.word { "Live" }
        }
    }
}
