//! The headers that say how far an answer's read model is behind the log.
//!
//! Invariant: if a read model has stopped or is far behind, each answer says so, also the answer
//! "no such row". Deliberately absent: how this is measured (`projector::Sampler`).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use door::Problem;
use projector::Freshness;

use super::levels::Behind;
use super::{Inner, RETRY_AFTER, code};

/// How long the oldest record that the rows lack has been in the log, in seconds.
pub(super) const LAG: HeaderName = HeaderName::from_static("annals-lag");
/// Why the rows may be out of date: `stopped` or `behind`; absent if they are current.
pub(super) const STALE: HeaderName = HeaderName::from_static("annals-stale");

/// A read model with at least this lag is called stale.
pub(super) const STALE_FROM: Duration = Duration::from_secs(10);

/// The longest time after which a client is asked to come again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

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

impl Inner {
    /// The problem of a read model that did not reach a position in time.
    pub(super) fn behind(&self, projection: &str, behind: &Behind) -> Problem {
        let sampler = self.sampler.as_ref();
        let freshness = sampler.and_then(|sampler| sampler.freshness(projection));
        let is_stopped = freshness.as_ref().is_some_and(|f| f.stopped_partitions > 0);
        let per_second = self.levels.per_second(projection);
        let missing = behind.missing;
        let why = if is_stopped {
            "it has stopped, and an operator must act"
        } else {
            "it is behind"
        };
        let detail = format!(
            "{projection} has not reached the position in time: {missing} records are missing; {why}"
        );
        let after = retry_after(missing, per_second, is_stopped);
        let mut problem = Problem::new(code::READ_MODEL_BEHIND, detail)
            .retry_after(after)
            .member("missing", missing);
        if let Some(freshness) = freshness {
            problem = problem
                .member("lag_seconds", freshness.lag.as_secs_f64())
                .member("gap", freshness.gap);
        }
        problem
    }
}

/// When to ask again: when the missing records will have been taken up at the present speed.
fn retry_after(missing: u64, per_second: Option<f64>, is_stopped: bool) -> Duration {
    match per_second {
        _ if is_stopped => RETRY_AFTER_MAX,
        Some(per_second) => {
            let seconds = missing as f64 / per_second;
            Duration::from_secs_f64(seconds.clamp(0.0, RETRY_AFTER_MAX.as_secs_f64()))
                .max(RETRY_AFTER)
        }
        None => RETRY_AFTER,
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
    fn a_client_comes_again_when_the_missing_records_will_have_been_taken_up() {
        for (missing, per_second, is_stopped, seconds) in [
            (10, None, false, 1),
            (10, Some(1_000.0), false, 1),
            (9_000, Some(1_000.0), false, 9),
            (1_000_000, Some(1_000.0), false, 60),
            (10, Some(1_000.0), true, 60),
        ] {
            let after = retry_after(missing, per_second, is_stopped);
            assert_eq!(
                after,
                Duration::from_secs(seconds),
                "{missing} at {per_second:?}"
            );
        }
    }

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
                stuck: Vec::new(),
            };
            let lag = format!("{}.{:03}", lag_ms / 1_000, lag_ms % 1_000);
            let stale = stale.map(|stale: &str| (STALE, stale.to_owned()));
            let expected: Vec<_> = [Some((LAG, lag)), stale].into_iter().flatten().collect();
            assert_eq!(headers(&freshness), expected, "{freshness:?}");
        }
    }
}
