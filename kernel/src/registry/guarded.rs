//! Runs code of the domain so that a panic in it comes back as an error.
//!
//! Invariant: a value of the domain is always dropped behind the same guard, because a drop that
//! panics while another panic unwinds would end the process.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why code of the domain gave no result. This is a bug of the domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The code panicked.
    #[error("{rule} panicked: {message}")]
    Panicked {
        /// Which code panicked.
        rule: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// A value has no JSON form.
    #[error("a value of the domain could not be written or read as JSON: {0}")]
    Json(String),
}

impl From<serde_json::Error> for RuleError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// The result of `run`, or an error if it panicked.
pub(super) fn guarded<T, E: From<RuleError>>(
    rule: &'static str,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Unwind safety: a caller that gets the error discards what the domain's code was changing.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(payload) => {
            let message = message_of(&*payload);
            drop_guarded(payload);
            Err(RuleError::Panicked { rule, message }.into())
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Drops a value whose drop may panic.
fn drop_guarded<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
        let message = message_of(&*payload);
        tracing::error!(message, "dropping a value of the domain panicked");
        // The payload's own drop may panic too, and nothing is left to catch that: leak the
        // payload.
        std::mem::forget(payload);
    }
}

/// A value of the domain whose drop never panics. It is empty only during its drop.
pub(super) struct Guarded<T>(Option<T>);

const DROPPED: &str = "a value is there until it is dropped";

impl<T> Guarded<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(DROPPED)
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(DROPPED)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            drop_guarded(self.0.take());
        }
    }
}
