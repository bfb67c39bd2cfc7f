//! Which program serves: what people and programs read at the top of its page and its document.
//!
//! Deliberately absent: where that comes from; the host knows.

/// The name and version of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, as a title.
    pub title: String,
    /// Its version; that of the contract that its OpenAPI document describes.
    pub version: String,
}

impl Program {
    /// The program `annals`.
    #[must_use]
    pub fn annals() -> Self {
        Self {
            title: "Annals".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
