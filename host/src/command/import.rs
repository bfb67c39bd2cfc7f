//! `annals import …`: imports history through a running server, and reports the outcome.
//!
//! Deliberately absent: reading and sending (`import`).

use import::{ImportError, Report, import_commands};

use super::import_report;
use crate::args::Import;
use crate::args::importing::SendingArgs;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::sending;
use crate::settings::{OutputFormat, Settings};

pub(super) async fn run(settings: &Settings, import: Import) -> Result<Exit, Failure> {
    let Import::Commands { args, .. } = import;
    let options = args.options(&settings.url);
    let outcome = import_commands(options, sending::on_stderr()).await;
    let remedy = "give each of these lines an id that was not used before, and send it again";
    conclude(settings, outcome, &args.sending, remedy)
}

/// Shows the report of an import and says how it ended. `remedy` tells what to do about data that
/// changed since it was imported.
///
/// # Errors
/// What prevented the import, or its wanted effect.
pub fn conclude(
    settings: &Settings,
    outcome: Result<Report, ImportError>,
    sending: &SendingArgs,
    remedy: &str,
) -> Result<Exit, Failure> {
    match outcome {
        Ok(report) => {
            show(settings, &report, remedy)?;
            verdict(&report, sending, remedy)
        }
        Err(error) => Err(failed(settings, &error, remedy)),
    }
}

fn show(settings: &Settings, report: &Report, remedy: &str) -> Result<(), Failure> {
    match settings.output {
        OutputFormat::Table => output::line(&import_report::text(report, remedy)),
        OutputFormat::Json | OutputFormat::Ndjson => output::record(settings.output, &[], report),
        OutputFormat::Csv => {
            let columns = [
                "command",
                "sent",
                "accepted",
                "nothing_to_do",
                "refused",
                "failed",
            ];
            let rows = report.commands.iter().map(|(command, counts)| {
                let mut row = serde_json::json!(counts);
                row["command"] = command.as_str().into();
                row
            });
            output::rows(settings.output, &columns, &rows.collect::<Vec<_>>())
        }
    }
}

/// The outcome of an import that ran to its end. Without the wanted effect it is a failure.
fn verdict(report: &Report, sending: &SendingArgs, remedy: &str) -> Result<Exit, Failure> {
    let refused = |message: String| Err(Failure::new(Exit::Refused, message));
    if report.has_failures() {
        return Ok(Exit::Failed);
    }
    if let Some(file) = report.unread_file() {
        return refused(format!(
            "no row of {file} could be read: is it the right file?"
        ));
    }
    if report.is_in_vain() {
        return refused("nothing was accepted; the report says why".to_owned());
    }
    if report.has_changes_left() {
        let count = report.changed_count;
        return refused(format!(
            "{count} rows have changed since they were imported, and their changes were not sent; \
             {remedy}"
        ));
    }
    let is_faulty = sending.strict && report.has_faults();
    Ok(if is_faulty { Exit::Refused } else { Exit::Done })
}

/// The failure of an import that broke off; first shows the report of what it did.
fn failed(settings: &Settings, error: &ImportError, remedy: &str) -> Failure {
    let exit = match error {
        _ if error.is_repeatable() => Exit::Unavailable,
        ImportError::Load(_) | ImportError::File { .. } => Exit::NotFound,
        ImportError::Send { .. } => Exit::Failed,
    };
    if let ImportError::Send { report, .. } = error
        && report.total.sent > 0
        && let Err(failure) = show(settings, report, remedy)
    {
        tracing::warn!(reason = failure.message, "the report could not be shown");
    }
    Failure::of(exit, error)
}
