//! `annals config`: every setting, its value, where it came from and what it means.

use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

const COLUMNS: [&str; 4] = ["setting", "value", "source", "meaning"];

/// Shows the settings of this very call.
pub(super) fn run(settings: &Settings) -> Result<Exit, Failure> {
    output::rows(settings.output, &COLUMNS, &settings.explain())?;
    Ok(Exit::Done)
}
