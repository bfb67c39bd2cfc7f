//! The public Olist order data (five CSV files) as commands.
//!
//! `values` reads cells, `quoting` cuts records, `table` names their fields and `rows` reads rows;
//! `load` joins the files into histories, and `plan` turns histories into command lines. `invented`
//! makes a shop's history of any size from a seed, in the same form.
//! Deliberately absent: the products, sellers and places of the data set; they are not imported.

pub mod invented;
pub mod load;
pub mod plan;
mod quoting;
pub mod random;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::path::PathBuf;
use std::time::Instant;

use client::SendOptions;
use futures::stream;

use import::{ImportError, Listing, Pass, Progress, Report, Verdict, finished, send};
use invented::Invented;
use load::{Contents, LoadError};
use plan::Plan;

/// Where the five files are.
#[derive(Clone, Debug)]
pub enum OlistSource {
    /// In a folder.
    Folder(PathBuf),
    /// In this program: 60 invented orders, for the demo.
    Sample,
}

/// An import of orders.
#[derive(Clone, Debug)]
pub struct OlistOptions {
    /// Where the files come from.
    pub source: OlistSource,
    /// The tenant, if it is not the default one.
    pub tenant: Option<String>,
    /// Whether rows that have changed since they were imported are sent again, as corrections.
    pub correct: bool,
    /// The file to which all rows that cannot be read or sent are written, if any.
    pub unreadable: Option<PathBuf>,
    /// To which door the commands are sent, and how.
    pub sending: SendOptions,
}

/// Reads the files, sends their commands and reports the outcomes.
///
/// # Errors
/// [`ImportError`]. If commands were sent before the error, it holds the report about them.
pub async fn import_olist(
    options: OlistOptions,
    mut progress: impl Progress,
) -> Result<Report, ImportError> {
    let begun = Instant::now();
    let OlistOptions {
        source,
        tenant,
        correct,
        unreadable,
        sending,
    } = options;
    let listing = Listing::written_to(unreadable.as_deref())?;
    let planned = tokio::task::spawn_blocking(move || plan(&source, tenant, listing)).await;
    let mut plan = match planned {
        Ok(plan) => plan?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let report = Report {
        files: plan.files.clone(),
        unreadable: std::mem::take(&mut plan.unreadable),
        ..Report::default()
    };
    let total = Some(plan.lines_total);
    let lines = stream::iter(plan.lines().map(Ok));
    if !correct {
        let pass = Pass::First;
        return finished(send(sending, lines, total, report, progress, pass, begun).await);
    }
    let lines_total = usize::try_from(plan.lines_total).unwrap_or(usize::MAX);
    let mut verdicts = vec![Verdict::Open; lines_total];
    let pass = Pass::Noted(&mut verdicts);
    let options = sending.clone();
    let sent = send(options, lines, total, report, &mut progress, pass, begun).await;
    let report = match sent {
        Ok(report) => report,
        Err(error) => return finished(Err(error)),
    };
    let corrections = plan.corrections(&verdicts);
    let (total, pass) = (None, Pass::Corrections);
    let lines = stream::iter(corrections.map(Ok));
    finished(send(sending, lines, total, report, progress, pass, begun).await)
}

/// Sends an invented history and reports the outcomes.
///
/// # Errors
/// [`ImportError`]. If commands were sent before the error, it holds the report about them.
pub async fn send_invented(
    history: &Invented,
    sending: SendOptions,
    progress: impl Progress,
) -> Result<Report, ImportError> {
    let total = Some(history.declared().commands);
    let lines = stream::iter(history.lines().map(|(line, _)| Ok(line)));
    let (report, begun) = (Report::default(), Instant::now());
    finished(send(sending, lines, total, report, progress, Pass::First, begun).await)
}

fn plan(
    source: &OlistSource,
    tenant: Option<String>,
    unreadable: Listing,
) -> Result<Plan, ImportError> {
    let contents = match source {
        OlistSource::Folder(folder) => Contents::of_folder(folder).map_err(failed)?,
        OlistSource::Sample => Contents::sample(),
    };
    let histories = load::load(&contents, unreadable).map_err(failed)?;
    Ok(Plan::new(histories, tenant))
}

fn failed(error: LoadError) -> ImportError {
    ImportError::Load(Box::new(error))
}
