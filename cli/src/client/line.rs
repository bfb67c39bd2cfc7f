//! One line of a batch on its way to the command door.

use std::borrow::Cow;

/// A command as one line of NDJSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The command's type, for counting; empty where the line does not say.
    pub command: Cow<'static, str>,
    /// The line itself, without its line end. It carries its own id, so that it may be sent again.
    pub json: String,
}
