//! The metrics of the runtime.
//!
//! Invariant: names are frozen and end with their unit. Deliberately absent: how metrics are
//! exported.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use event_log::chain::Orphan;
use event_log::checkpoint::Checkpoint;
use event_log::log::Bounds;
use event_log::subscription::Batch;
use metrics::{counter, gauge, histogram};
use position::Partition;

use crate::declare::projection::Projection;
use crate::run::report::judge::ReportState;
use crate::store::write::Folded;

// The figures are for display: the precision that a float loses on a large count does not matter.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// Registers a projector's counters with the value 0.
pub(crate) fn begin(projections: &[Arc<dyn Projection>]) {
    counter!("annals_projector_commits_total").increment(0);
    counter!("annals_projector_rows_total").increment(0);
    for reason in [
        Orphan::Late,
        Orphan::Losing,
        Orphan::Duplicate,
        Orphan::Foreign,
        Orphan::Acknowledged,
    ] {
        counter!("annals_projector_orphans_total", "reason" => reason.as_str()).increment(0);
    }
    for projection in projections {
        counter!("annals_projection_stopped_total", "projection" => projection.name()).increment(0);
        counter!("annals_projection_parked_total", "projection" => projection.name()).increment(0);
        verified(projection.name(), 0, 0);
    }
}

/// Counts a written batch.
pub(crate) fn written(batches: &[Batch], folds: &[Folded], elapsed: Duration) {
    let commits: usize = batches.iter().map(|batch| batch.commits.len()).sum();
    let rows: usize = folds.iter().map(|fold| fold.changes.row_count()).sum();
    counter!("annals_projector_commits_total").increment(commits as u64);
    counter!("annals_projector_rows_total").increment(rows as u64);
    histogram!("annals_projector_batch_commits").record(float(commits as u64));
    histogram!("annals_projector_batch_rows").record(float(rows as u64));
    histogram!("annals_projector_batch_seconds").record(elapsed.as_secs_f64());
    tracing::debug!(
        commits,
        rows,
        elapsed_ms = elapsed.as_secs_f64() * 1_000.0,
        "wrote a batch"
    );
}

/// Counts a projection's stop.
pub(crate) fn stopped(projection: &'static str) {
    counter!("annals_projection_stopped_total", "projection" => projection).increment(1);
}

/// Counts a stream that a projection parked.
pub(crate) fn parked(projection: &'static str) {
    counter!("annals_projection_parked_total", "projection" => projection).increment(1);
}

/// Counts the streams of which rows were compared with the log, and tells how many rows are known to
/// differ.
pub(crate) fn verified(projection: &'static str, streams: u64, differing: u64) {
    counter!("annals_projection_verified_streams_total", "projection" => projection)
        .increment(streams);
    gauge!("annals_projection_differing_rows", "projection" => projection).set(float(differing));
}

/// Counts the orphans in batches.
pub(crate) fn orphans(batches: &[Batch]) {
    for batch in batches {
        for (reason, &count) in &batch.orphans {
            counter!("annals_projector_orphans_total", "reason" => reason.as_str())
                .increment(count);
        }
    }
}

/// Sets the gap and the lag of a live read model in a partition.
pub(crate) fn place(projection: &str, partition: Partition, gap: u64, lag: Duration) {
    let labels = [
        ("projection", projection.to_owned()),
        ("partition", partition.to_string()),
    ];
    gauge!("annals_projection_gap_records", &labels).set(float(gap));
    gauge!("annals_projection_lag_seconds", &labels).set(lag.as_secs_f64());
}

/// Sets the number of partitions in which a live read model has stopped.
pub(crate) fn stopped_partitions(projection: &str, partitions: usize) {
    gauge!("annals_projection_stopped_partitions", "projection" => projection.to_owned())
        .set(float(partitions as u64));
}

/// Sets which state a live read model is in; none if it is gone.
pub(crate) fn state(projection: &str, state: Option<ReportState>) {
    for each in ReportState::OF_LIVE {
        let labels = [
            ("projection", projection.to_owned()),
            ("state", each.as_str().to_owned()),
        ];
        gauge!("annals_projection_state", &labels).set(float(u64::from(state == Some(each))));
    }
}

/// Sets the age of the values of gap and lag.
pub(crate) fn sampled(age: Duration) {
    gauge!("annals_projection_sample_age_seconds").set(age.as_secs_f64());
}

/// The number of records after a checkpoint.
pub(crate) fn gap(bounds: Bounds, at: Option<&Checkpoint>) -> u64 {
    let next = at.map_or(bounds.first.0, |checkpoint| checkpoint.offset.0 + 1);
    bounds.end.0.saturating_sub(next)
}

/// The time since the last commit taken up was recorded; 0 if no record is missing.
pub(crate) fn lag_seconds(bounds: Bounds, at: Option<&Checkpoint>) -> f64 {
    let last = at.and_then(|checkpoint| checkpoint.last_recorded_at);
    match last {
        Some(last) if gap(bounds, at) > 0 => {
            let micros = u64::try_from(last.micros()).unwrap_or(0);
            let recorded = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let since = SystemTime::now().duration_since(recorded);
            since.unwrap_or_default().as_secs_f64()
        }
        Some(_) | None => 0.0,
    }
}
