//! The figures of the process, for `/metrics`.
//!
//! Deliberately absent: what is measured; every part says so itself.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::exit::{Exit, Failure};

/// How often old observations are folded into their sums.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The recorder of the process; begun by whoever asks first, before anything is measured.
///
/// # Errors
/// `Failed` where somebody else records already.
pub fn recorder() -> Result<PrometheusHandle, Failure> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::of(Exit::Failed, &error).while_trying("begin to measure"))?;
    let kept = RECORDER.get_or_init(|| handle).clone();
    crate::stderr::count_dropped();
    let upkept = kept.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkept.run_upkeep();
        }
    });
    Ok(kept)
}
