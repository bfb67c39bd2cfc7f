//! The public Olist order data (five CSV files) as commands.
//!
//! `values` reads cells, `table` records, `rows` rows; `load` joins the files into histories, `plan`
//! turns histories into command lines. Deliberately absent: the products, sellers and places of the
//! data set, of which nothing here speaks.

pub mod load;
pub mod plan;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::time::Instant;

use futures::stream;

use super::{ImportError, Progress, Report, send};
use crate::client::SendOptions;
use load::{Contents, LoadError};
use plan::Plan;

/// Where the five files are.
#[derive(Clone, Debug)]
pub enum OlistSource {
    /// In a folder.
    Folder(PathBuf),
    /// In this program: 60 orders that nobody placed, for the demo.
    Sample,
}

/// An import of orders.
#[derive(Clone, Debug)]
pub struct OlistOptions {
    /// Where from.
    pub source: OlistSource,
    /// For which tenant, if not for the default one.
    pub tenant: Option<String>,
    /// Where to, and how.
    pub sending: SendOptions,
}

/// Reads the files, sends their commands and reports what became of them.
///
/// # Errors
/// [`ImportError`]; with what was done before, where commands had been sent.
pub async fn import_olist(
    options: OlistOptions,
    progress: impl Progress,
) -> Result<Report, ImportError> {
    let begun = Instant::now();
    let OlistOptions {
        source,
        tenant,
        sending,
    } = options;
    let planned = tokio::task::spawn_blocking(move || plan(&source, tenant)).await;
    let plan = match planned {
        Ok(plan) => plan?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let report = Report {
        files: plan.files.clone(),
        unreadable: plan.unreadable.clone(),
        ..Report::default()
    };
    let lines = stream::iter(plan.lines().map(Ok));
    let lines_total = Some(plan.lines_total);
    send(sending, lines, lines_total, report, progress, begun).await
}

fn plan(source: &OlistSource, tenant: Option<String>) -> Result<Plan, LoadError> {
    let contents = match source {
        OlistSource::Folder(folder) => Contents::of_folder(folder)?,
        OlistSource::Sample => Contents::sample(),
    };
    Ok(Plan::new(load::load(&contents)?, tenant))
}
