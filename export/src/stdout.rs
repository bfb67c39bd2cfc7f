//! Events as one stream of lines, for a pipe.
//!
//! Deliberately absent: a manifest, and going on after an interruption: a pipe keeps nothing.

use std::io::{self, Write};
use std::sync::Arc;

use event_log::log::EventLog;

use crate::error::ExportError;
use crate::events;
use crate::lines::Lines;
use crate::manifest::Request;
use crate::run::Watch;
use crate::source::{self, Read};
use crate::typed::Typed;

/// Writes the wanted events to `out`, partition by partition; returns how many there were.
///
/// # Errors
/// [`ExportError`]; `Closed` if nobody reads any more.
pub async fn stream_events(
    log: Arc<dyn EventLog>,
    request: &Request,
    typed: Option<&Typed>,
    out: &mut (dyn Write + Send),
    watch: &mut Watch<'_>,
) -> Result<u64, ExportError> {
    let ranges = source::ranges(&*log, |_| None).await?;
    let total: u64 = ranges.iter().map(|range| range.end.0).sum();
    let mut lines = Lines::new(&events::columns(typed), request.format);
    let (mut read, mut rows) = (0, 0);
    out.write_all(&lines.header()).map_err(unwritten)?;
    let mut reads = source::read(log, ranges);
    while let Some(next) = reads.recv().await {
        if (watch.is_stopped)() {
            break;
        }
        let Read::Batch(batch) = next? else { continue };
        for placed in &batch.commits {
            read += 1;
            if !request.takes(&placed.commit) {
                continue;
            }
            for (index, event) in (0..).zip(&placed.commit.events) {
                if !request.filter.takes_event(event) {
                    continue;
                }
                let row = events::row(placed, index, event, typed).map_err(ExportError::Asked)?;
                let line = lines.line(&row).map_err(unwritten)?;
                out.write_all(line).map_err(unwritten)?;
                rows += 1;
            }
        }
        (watch.progress)(read, total.max(read));
    }
    out.flush().map_err(unwritten)?;
    match (watch.is_stopped)() {
        true => Err(ExportError::Stopped),
        false => Ok(rows),
    }
}

fn unwritten(error: io::Error) -> ExportError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => ExportError::Closed,
        _ => ExportError::File {
            what: "write to",
            path: "stdout".into(),
            source: error,
        },
    }
}
