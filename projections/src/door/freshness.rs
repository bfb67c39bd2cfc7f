//! What an answer says of how far its read model is behind the log.
//!
//! Invariant: a read model that has stopped, or is far behind, says so in each answer. Deliberately
//! absent: how that is known (`runtime::Sampler`).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::Inner;
use crate::runtime::Freshness;

/// For how long the oldest record that the rows lack has been in the log, in seconds.
pub(super) const LAG: HeaderName = HeaderName::from_static("annals-lag");
/// Why the rows are not to be taken for what is: `stopped` or `behind`; absent where they are.
pub(super) const STALE: HeaderName = HeaderName::from_static("annals-stale");

/// From which lag on a read model is called stale.
pub(super) const STALE_FROM: Duration = Duration::from_secs(10);

impl Inner {
    /// Adds what is known of a projection's freshness.
    pub(super) fn tell_freshness(&self, projection: &str, headers: &mut HeaderMap) {
        let sampler = self.sampler.as_ref();
        if let Some(freshness) = sampler.and_then(|sampler| sampler.freshness(projection)) {
            tell(&freshness, headers);
        }
    }
}

fn tell(freshness: &Freshness, headers: &mut HeaderMap) {
    let lag = format!("{:.3}", freshness.lag.as_secs_f64());
    if let Ok(lag) = HeaderValue::from_str(&lag) {
        headers.insert(LAG, lag);
    }
    if freshness.stopped_partitions > 0 {
        headers.insert(STALE, HeaderValue::from_static("stopped"));
    } else if freshness.lag >= STALE_FROM {
        headers.insert(STALE, HeaderValue::from_static("behind"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_stopped_or_is_far_behind_is_stale() {
        for (lag_ms, stopped_partitions, stale) in [
            (0, 0, None),
            (9_999, 0, None),
            (10_000, 0, Some("behind")),
            (0, 1, Some("stopped")),
            (60_000, 2, Some("stopped")),
        ] {
            let freshness = Freshness {
                lag: Duration::from_millis(lag_ms),
                gap: 1,
                stopped_partitions,
            };
            let mut headers = HeaderMap::new();
            tell(&freshness, &mut headers);
            let said = headers.get(STALE).map(|value| value.to_str().unwrap());
            assert_eq!(said, stale, "{freshness:?}");
            let lag = format!("{}.{:03}", lag_ms / 1_000, lag_ms % 1_000);
            assert_eq!(headers[LAG], lag);
        }
    }
}
