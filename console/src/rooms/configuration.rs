//! The settings of this process, with where each came from.
//!
//! Deliberately absent: the settings themselves, which the program gives, with secrets hidden.

use axum::response::Response;
use maud::{Markup, html};

use crate::Setting;
use crate::layout::{Frame, Room};
use crate::parts::{self, Tone};
use crate::visit::Visit;

const ABOUT: &str = "Every setting of this process, with its value and where the value came from.";

/// `GET /console/configuration`
pub(crate) async fn page(visit: Visit) -> Response {
    let frame = Frame::of(Room::Configuration, ABOUT);
    let content = match &visit.console.about().settings {
        Some(settings) => shown(settings),
        None => hidden(),
    };
    frame.page(&visit, content)
}

fn hidden() -> Markup {
    let text = html! {
        p { "This node listens on an address that other machines reach, and clients are not \
             authenticated: paths and addresses of the settings are not for everybody." }
        p { "Run the command " code { "config" } " of the program on the machine of the node, with \
             the flags of the node." }
    };
    parts::notice(Tone::Note, "The settings are not shown here", &text)
}

fn shown(settings: &[Setting]) -> Markup {
    let is_default = |setting: &Setting| setting.source == "default";
    let (usual, chosen): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| is_default(setting));
    html! {
        section {
            h2 { "Chosen for this process" }
            @if chosen.is_empty() {
                (parts::empty("Every setting has its default.", &html! {
                    p { "A setting is chosen by a flag, a variable, or the configuration file." }
                }))
            } @else { (table("Chosen settings", &chosen)) }
        }
        section {
            h2 { "Defaults" }
            (table("Settings with their defaults", &usual))
        }
    }
}

fn table(label: &str, settings: &[&Setting]) -> Markup {
    let table = html! {
        table.cards {
            thead { tr {
                th scope="col" { "Setting" }
                th scope="col" { "Value" }
                th scope="col" { "Source" }
                th scope="col" { "Meaning" }
            } }
            tbody {
                @for setting in settings {
                    tr {
                        th scope="row" { code title={ "Variable: " (setting.variable) } { (setting.name) } }
                        td data-name="Value" {
                            @match &setting.value {
                                Some(value) if !value.is_empty() => code { (parts::cut(value)) },
                                _ => span.quiet title="not set" { "–" },
                            }
                        }
                        td data-name="Source" { (parts::cut(&setting.source)) }
                        td.text { (setting.meaning) }
                    }
                }
            }
        }
    };
    parts::wide(label, &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: Option<&str>, source: &str) -> Setting {
        Setting {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source: source.to_owned(),
            variable: format!("ANNALS_{}", name.to_uppercase()),
            meaning: format!("what {name} means"),
        }
    }

    #[test]
    fn what_was_chosen_stands_before_what_is_usual() {
        let settings = [
            setting("data", Some(".annals"), "default"),
            setting("listen", Some("127.0.0.1:0"), "--listen"),
            setting("postgres", None, "default"),
        ];
        let page = shown(&settings).into_string();
        let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
        assert!(place("--listen") < place("Defaults"));
        assert!(place("Defaults") < place(".annals"));
        assert!(page.contains("what postgres means"));
        let none = shown(&settings[..1]).into_string();
        assert!(none.contains("Every setting has its default."), "{none}");
    }
}
