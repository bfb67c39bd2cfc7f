//! `annals import …`: history in, through a running server, and a report of what became of it.
//!
//! Deliberately absent: reading and sending (`import`).

use std::path::Path;

use crate::Domain;
use crate::args::Import;
use crate::exit::{Exit, Failure};
use crate::import::{
    ImportError, Report, SendingArgs, import_commands, import_olist, progress, write_unreadable,
};
use crate::output;
use crate::settings::{OutputFormat, Settings};

pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    import: Import,
) -> Result<Exit, Failure> {
    let (outcome, sending) = match import {
        Import::Olist { args, .. } => {
            if !super::takes_orders(&domain.registry) {
                return Err(super::no_shop());
            }
            let options = args.options(&settings.url);
            let outcome = import_olist(options, progress::on_stderr()).await;
            (outcome, args.sending)
        }
        Import::Commands { args, .. } => {
            let options = args.options(&settings.url);
            let outcome = import_commands(options, progress::on_stderr()).await;
            (outcome, args.sending)
        }
    };
    match outcome {
        Ok(report) => {
            show(settings, &report, sending.unreadable.as_deref())?;
            Ok(exit_of(&report, &sending))
        }
        Err(error) => Err(failed(settings, &error, &sending)),
    }
}

/// Shows a report, and writes the whole list of what cannot be read where it is wanted.
fn show(settings: &Settings, report: &Report, unreadable: Option<&Path>) -> Result<(), Failure> {
    if let Some(path) = unreadable {
        let written = write_unreadable(path, &report.unreadable);
        written.map_err(|error| Failure::of(Exit::Failed, &error))?;
    }
    match settings.output {
        OutputFormat::Table => output::line(&report.to_text()),
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

fn exit_of(report: &Report, sending: &SendingArgs) -> Exit {
    if report.has_failures() {
        Exit::Failed
    } else if sending.strict && report.has_faults() {
        Exit::Refused
    } else {
        Exit::Done
    }
}

/// An import that did not come to its end, after what it did was shown.
fn failed(settings: &Settings, error: &ImportError, sending: &SendingArgs) -> Failure {
    let exit = match error {
        _ if error.is_repeatable() => Exit::Unavailable,
        ImportError::Load(_) | ImportError::File { .. } => Exit::NotFound,
        ImportError::Send { .. } => Exit::Failed,
    };
    if let ImportError::Send { report, .. } = error
        && report.total.sent > 0
        && let Err(failure) = show(settings, report, sending.unreadable.as_deref())
    {
        tracing::warn!(reason = failure.message, "the report was not shown");
    }
    Failure::of(exit, error)
}
