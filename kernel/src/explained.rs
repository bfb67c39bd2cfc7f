//! An error in one line, with what it came from.

use std::error::Error;

/// An error and its sources in one line; a source that its error has said already is left out.
#[must_use]
pub fn explained(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}
