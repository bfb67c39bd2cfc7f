//! The figures of the process, for `/metrics`.
//!
//! Deliberately absent: the measuring, which each part of the program does itself; the meaning of
//! each metric (`catalogue`).

pub mod catalogue;
mod process;

use std::sync::OnceLock;
use std::time::Duration;

use event_log::record::RECORD_VERSION;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::exit::{Exit, Failure};
use catalogue::{CATALOGUE, Kind};

/// How often the recorder folds old observations into their sums.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Renders the metrics of the process.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.0.render();
        process::render(&mut text);
        text
    }
}

/// The recorder of the process. The first call starts it and must come before anything is measured.
///
/// # Errors
/// `Failed` if another recorder is installed already.
pub fn recorder() -> Result<Recorder, Failure> {
    if let Some(recorder) = RECORDER.get() {
        return Ok(recorder.clone());
    }
    let handle = install()
        .map_err(|error| Failure::of(Exit::Failed, &error).while_trying("begin to measure"))?;
    describe();
    crate::stderr::count_dropped();
    let kept = RECORDER.get_or_init(|| Recorder(handle)).clone();
    let upkept = kept.0.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkept.run_upkeep();
        }
    });
    Ok(kept)
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in CATALOGUE {
        if let Kind::Histogram(bounds) = metric.kind {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, bounds)?;
        }
    }
    builder.install_recorder()
}

/// Registers the meaning of each metric. Sets `annals_build_info`, and starts at 0 the counters
/// that no other part starts.
fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.meaning),
        }
    }
    let labels = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("record_format", RECORD_VERSION.to_string()),
    ];
    metrics::gauge!("annals_build_info", &labels).set(1.0);
    for name in [
        "annals_access_lines_left_out_total",
        "annals_log_lines_dropped_total",
    ] {
        metrics::counter!(name).increment(0);
    }
}
