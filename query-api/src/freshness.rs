//! The headers that say how far an answer's read model is behind the log.
//!
//! Invariant: if a read model has stopped or is far behind, each answer says so, also the answer
//! "no such row". Deliberately absent: how this is measured (`projector::Sampler`).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use door::Problem;
use projector::Freshness;

use super::Inner;

/// How long the oldest record that the rows lack has been in the log, in seconds.
pub(super) const LAG: HeaderName = HeaderName::from_static("annals-lag");
/// Why the rows may be out of date: `stopped` or `behind`; absent if they are current.
pub(super) const STALE: HeaderName = HeaderName::from_static("annals-stale");

/// A read model with at least this lag is called stale.
pub(super) const STALE_FROM: Duration = Duration::from_secs(10);

impl Inner {
    /// Adds the freshness of the projection to an answer that was read from it. A problem gets the
    /// headers, too: "no such row" may come from a projection that has stopped.
    pub(super) fn with_freshness(
        &self,
        projection: &str,
        answered: Result<Response, Problem>,
    ) -> Result<Response, Problem> {
        let sampler = self.sampler.as_ref();
        let Some(freshness) = sampler.and_then(|sampler| sampler.freshness(projection)) else {
            return answered;
        };
        let headers = headers(&freshness);
        match answered {
            Ok(mut response) => {
                for (name, value) in headers {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        response.headers_mut().insert(name, value);
                    }
                }
                Ok(response)
            }
            Err(problem) => {
                let add =
                    |problem: Problem, (name, value): (_, String)| problem.header(name, &value);
                Err(headers.into_iter().fold(problem, add))
            }
        }
    }
}

fn headers(freshness: &Freshness) -> Vec<(HeaderName, String)> {
    let stale = if freshness.stopped_partitions > 0 {
        Some("stopped")
    } else {
        (freshness.lag >= STALE_FROM).then_some("behind")
    };
    let stale = stale.map(|stale| (STALE, stale.to_owned()));
    let lag = (LAG, format!("{:.3}", freshness.lag.as_secs_f64()));
    std::iter::once(lag).chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_model_that_stopped_or_is_far_behind_is_stale() {
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
            let lag = format!("{}.{:03}", lag_ms / 1_000, lag_ms % 1_000);
            let stale = stale.map(|stale: &str| (STALE, stale.to_owned()));
            let expected: Vec<_> = [Some((LAG, lag)), stale].into_iter().flatten().collect();
            assert_eq!(headers(&freshness), expected, "{freshness:?}");
        }
    }
}
