//! Takes the place of `traces` in a program that was built without the feature `otlp`.

use std::convert::Infallible;

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// There are none.
pub struct Traces(Infallible);

impl Traces {
    /// Refuses a collector.
    ///
    /// # Errors
    /// `Usage`, if the settings name one.
    pub fn begin(settings: &Settings) -> Result<Option<Self>, Failure> {
        match &settings.otlp_endpoint {
            Some(_) => {
                let message = "otlp_endpoint is set, and this program was built without traces";
                Err(Failure::new(Exit::Usage, message))
            }
            None => Ok(None),
        }
    }

    /// Is never called.
    pub async fn end(self) {
        match self.0 {}
    }
}
