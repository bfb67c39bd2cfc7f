//! Shows an error together with its sources on one line.

use std::error::Error;

/// An error and its sources on one line. A source whose text the error's own text ends with is left
/// out.
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
