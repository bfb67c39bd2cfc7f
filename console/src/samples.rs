//! What the node's metrics said in the last minutes, for the figures and plots of the overview.
//!
//! Invariants: at most [`KEPT`] samples are kept, each of a bounded size; they are of this process, and
//! gone with it. Deliberately absent: a time series database, which Prometheus is, and metrics that no
//! room shows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;
use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderMap};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::exposition::{Line, lines};
use crate::node::Node;
use crate::{Inner, LOOK_EVERY};

/// How many samples are kept: ten minutes of them.
pub(crate) const KEPT: usize = 300;
/// How long the samples reach back.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);
/// How many samples a latency is made from: ten seconds of them.
const LATENCY_SPAN: usize = 5;
/// The most read models of which a sample is kept.
const PROJECTIONS_MAX: usize = 200;

/// How many requests took at most so many seconds, by bound.
type Buckets = BTreeMap<u64, f64>;

/// The metrics at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) accepted: f64,
    pub(crate) refused: f64,
    /// Commands that were neither accepted nor refused by a rule.
    pub(crate) other: f64,
    pub(crate) folded: f64,
    pub(crate) owned: f64,
    pub(crate) unowned: f64,
    pub(crate) queued: f64,
    pub(crate) connections: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) started_at: Option<f64>,
    pub(crate) cpu_seconds: f64,
    /// By read model: the longest lag of its partitions, and the sum of their gaps.
    pub(crate) behind: BTreeMap<String, (f64, f64)>,
    /// By code: commands refused by a rule.
    pub(crate) refusals: BTreeMap<String, f64>,
    commands: Buckets,
    queries: Buckets,
}

impl Sample {
    /// The sample that a text in Prometheus' format holds.
    pub(crate) fn of(text: &str) -> Self {
        let mut sample = Self::default();
        for line in lines(text) {
            sample.take(&line);
        }
        sample
    }

    fn take(&mut self, line: &Line<'_>) {
        let value = line.value;
        match line.name {
            "annals_commands_total" => match line.label("outcome").as_deref() {
                Some("accepted") => self.accepted += value,
                Some("rejected") => self.refused += value,
                Some("repeated") | None => {}
                Some(_) => self.other += value,
            },
            "annals_refusals_total" => {
                if let Some(code) = line.label("code").filter(|_| value > 0.0) {
                    self.refusals.insert(code, value);
                }
            }
            "annals_projector_commits_total" => self.folded = value,
            "annals_owned_partitions" => self.owned = value,
            "annals_unowned_partitions" => self.unowned = value,
            "annals_queued_commands" => self.queued = value,
            "annals_http_connections" => self.connections = value,
            "process_resident_memory_bytes" => self.memory_bytes = value,
            "process_start_time_seconds" => self.started_at = Some(value),
            "process_cpu_seconds_total" => self.cpu_seconds = value,
            "annals_projection_lag_seconds" => {
                if let Some((lag, _)) = self.projection(line) {
                    *lag = lag.max(value);
                }
            }
            "annals_projection_gap_records" => {
                if let Some((_, gap)) = self.projection(line) {
                    *gap += value;
                }
            }
            "annals_http_request_seconds_bucket" => self.request(line),
            _ => {}
        }
    }

    fn projection(&mut self, line: &Line<'_>) -> Option<&mut (f64, f64)> {
        let name = line.label("projection")?;
        if self.behind.len() >= PROJECTIONS_MAX && !self.behind.contains_key(&name) {
            return None;
        }
        Some(self.behind.entry(name).or_default())
    }

    fn request(&mut self, line: &Line<'_>) {
        let (Some(route), Some(bound)) = (line.label("route"), line.label("le")) else {
            return;
        };
        let is_post = line.is("method", "POST");
        let buckets = match &*route {
            // A batch lasts as long as its client writes.
            "/v1/streams/{stream}/{command}" if is_post => &mut self.commands,
            route if route.starts_with("/v1/") && !route.starts_with("/v1/peer/") && !is_post => {
                &mut self.queries
            }
            _ => return,
        };
        let bound = match &*bound {
            "+Inf" => u64::MAX,
            bound => bound.parse().map_or(u64::MAX, micros),
        };
        *buckets.entry(bound).or_default() += line.value;
    }
}

// The bounds are seconds of at most a minute.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// A kind of requests whose latency is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requests {
    Commands,
    Queries,
}

/// One value at one moment: how long ago it was, and the value, if there was one.
pub(crate) type Point = (Duration, Option<f64>);

/// The samples, from the oldest to the newest.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<(Instant, Sample)>);

impl Samples {
    pub(crate) fn push(&mut self, at: Instant, sample: Sample) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, sample));
    }

    /// The newest sample.
    pub(crate) fn newest(&self) -> Option<&Sample> {
        self.0.back().map(|(_, sample)| sample)
    }

    /// A value of each sample.
    pub(crate) fn values(&self, value: impl Fn(&Sample) -> Option<f64>) -> Vec<Point> {
        let now = Instant::now();
        let points = self.0.iter();
        points
            .map(|(at, sample)| (now.saturating_duration_since(*at), value(sample)))
            .collect()
    }

    /// How fast a counter grew before each sample, per second.
    pub(crate) fn rates(&self, counter: impl Fn(&Sample) -> f64) -> Vec<Point> {
        let now = Instant::now();
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let rate = |((before, old), (at, new)): (&(Instant, Sample), &(Instant, Sample))| {
            let seconds = at.saturating_duration_since(*before).as_secs_f64();
            let grown = counter(new) - counter(old);
            let rate = (seconds > 0.0).then_some((grown / seconds).max(0.0));
            (now.saturating_duration_since(*at), rate)
        };
        pairs.map(rate).collect()
    }

    /// The latency that `share` of the requests before each sample kept, in seconds.
    pub(crate) fn latencies(&self, requests: Requests, share: f64) -> Vec<Point> {
        let now = Instant::now();
        let of = |sample: &'_ Sample| match requests {
            Requests::Commands => sample.commands.clone(),
            Requests::Queries => sample.queries.clone(),
        };
        let newer = self.0.iter().enumerate().skip(1);
        let latency = |(index, (at, new)): (usize, &(Instant, Sample))| {
            let old = self.0.get(index.saturating_sub(LATENCY_SPAN));
            let old = old.map(|(_, sample)| of(sample)).unwrap_or_default();
            let latency = quantile(&old, &of(new), share);
            (now.saturating_duration_since(*at), latency)
        };
        newer.map(latency).collect()
    }
}

/// The value below which `share` of what was observed between two samples lies, interpolated within
/// its bucket; `None` if nothing was observed.
fn quantile(old: &Buckets, new: &Buckets, share: f64) -> Option<f64> {
    let grown: Vec<(u64, f64)> = new
        .iter()
        .map(|(bound, count)| (*bound, count - old.get(bound).copied().unwrap_or_default()))
        .collect();
    let all = grown
        .last()
        .map(|(_, count)| *count)
        .filter(|count| *count > 0.0)?;
    let rank = all * share;
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in grown {
        if bound == u64::MAX {
            return Some(below);
        }
        let bound = std::time::Duration::from_micros(bound).as_secs_f64();
        if count >= rank {
            let inside = count - counted;
            let part = if inside > 0.0 {
                (rank - counted) / inside
            } else {
                1.0
            };
            return Some(below + (bound - below) * part);
        }
        (below, counted) = (bound, count);
    }
    Some(below)
}

/// Looks at the metrics from time to time, as long as the console is open.
pub(crate) async fn keep(console: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        let Some(inner) = console.upgrade() else {
            return;
        };
        let node = Node {
            routes: inner.routes(),
            headers: HeaderMap::new(),
            extensions: Extensions::new(),
        };
        if let Ok(text) = node.text("/metrics").await {
            inner.samples().push(Instant::now(), Sample::of(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(u64, f64)]) -> Buckets {
        counts.iter().copied().collect()
    }

    #[test]
    fn a_latency_is_that_of_the_time_between_two_samples() {
        let old = buckets(&[(1_000, 100.0), (2_000, 100.0), (u64::MAX, 100.0)]);
        let new = buckets(&[(1_000, 150.0), (2_000, 200.0), (u64::MAX, 200.0)]);
        assert_eq!(quantile(&old, &new, 0.5), Some(0.001));
        assert_eq!(quantile(&old, &new, 0.75), Some(0.0015));
        assert_eq!(quantile(&new, &new, 0.5), None);
        let slow = buckets(&[(1_000, 0.0), (u64::MAX, 4.0)]);
        assert_eq!(quantile(&Buckets::new(), &slow, 0.5), Some(0.001));
    }

    #[test]
    fn the_samples_are_bounded_and_say_how_fast_a_counter_grew() {
        let mut samples = Samples::default();
        let begin = Instant::now();
        for second in 0..KEPT as u32 * 2 {
            let sample = Sample {
                accepted: f64::from(second) * 4.0,
                ..Sample::default()
            };
            samples.push(begin + Duration::from_secs(u64::from(second) * 2), sample);
        }
        assert_eq!(samples.0.len(), KEPT);
        let rates = samples.rates(|sample| sample.accepted);
        assert_eq!(rates.len(), KEPT - 1);
        assert!(rates.iter().all(|(_, rate)| *rate == Some(2.0)));
    }

    #[test]
    fn a_sample_sums_what_belongs_together() {
        let text = "annals_commands_total{command=\"A\",outcome=\"accepted\"} 3\n\
                    annals_commands_total{command=\"B\",outcome=\"accepted\"} 4\n\
                    annals_commands_total{command=\"B\",outcome=\"rejected\"} 2\n\
                    annals_commands_total{command=\"B\",outcome=\"overloaded\"} 1\n\
                    annals_projection_lag_seconds{projection=\"p\",partition=\"0\"} 1.5\n\
                    annals_projection_lag_seconds{projection=\"p\",partition=\"1\"} 0.5\n\
                    annals_projection_gap_records{projection=\"p\",partition=\"0\"} 7\n\
                    annals_projection_gap_records{projection=\"p\",partition=\"1\"} 3\n\
                    annals_refusals_total{code=\"too_late\"} 2\nannals_refusals_total{code=\"other\"} 0\n";
        let sample = Sample::of(text);
        assert_eq!(
            (sample.accepted, sample.refused, sample.other),
            (7.0, 2.0, 1.0)
        );
        assert_eq!(sample.behind["p"], (1.5, 10.0));
        assert_eq!(sample.refusals.keys().collect::<Vec<_>>(), ["too_late"]);
    }
}
