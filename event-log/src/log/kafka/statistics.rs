//! A small part of a Kafka client's periodic statistics, as metrics.
//!
//! Invariant: counters continue when a new client replaces an old one. Deliberately absent: names
//! of brokers, topics and partitions, so that the number of metrics stays bounded.

use std::sync::Mutex;

use metrics::{Counter, Gauge, counter, gauge};
use rdkafka::Statistics;

use super::locked;

/// How often a client reports, in milliseconds.
pub(super) const EVERY_MS: &str = "5000";

const COUNTERS: [&str; 6] = [
    "annals_kafka_requests_total",
    "annals_kafka_request_errors_total",
    "annals_kafka_request_retries_total",
    "annals_kafka_request_timeouts_total",
    "annals_kafka_connects_total",
    "annals_kafka_disconnects_total",
];

pub(super) struct Figures {
    counters: [Counter; COUNTERS.len()],
    queued_records: Gauge,
    queued_bytes: Gauge,
    round_trip: Gauge,
    /// The counts of the client's last report.
    before: Mutex<[u64; COUNTERS.len()]>,
}

impl Figures {
    /// The metrics of a new client. Counts of an earlier client with this name stay.
    pub(super) fn of(client: &'static str) -> Self {
        let zero = |name: &'static str| {
            let counter = counter!(name, "client" => client);
            counter.increment(0);
            counter
        };
        let gauge = |name: &'static str| {
            let gauge = gauge!(name, "client" => client);
            gauge.set(0.0);
            gauge
        };
        Self {
            counters: COUNTERS.map(zero),
            queued_records: gauge("annals_kafka_queued_records"),
            queued_bytes: gauge("annals_kafka_queued_bytes"),
            round_trip: gauge("annals_kafka_round_trip_p99_seconds"),
            before: Mutex::default(),
        }
    }

    // The figures are for people: what a float loses of a large count does not matter.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn take(&self, statistics: &Statistics) {
        self.queued_records.set(statistics.msg_cnt as f64);
        self.queued_bytes.set(statistics.msg_size as f64);
        let brokers = statistics.brokers.values();
        let micros = brokers.filter_map(|broker| Some(broker.rtt.as_ref()?.p99));
        let slowest = micros.max().unwrap_or_default();
        self.round_trip.set(slowest as f64 / 1e6);
        let now = counted(statistics);
        let mut before = locked(&self.before);
        for ((counter, now), before) in self.counters.iter().zip(now).zip(*before) {
            counter.increment(now.saturating_sub(before));
        }
        *before = now;
    }
}

/// The counts of a client over all brokers, in the order of [`COUNTERS`].
fn counted(statistics: &Statistics) -> [u64; COUNTERS.len()] {
    let mut sums = [u64::try_from(statistics.tx).unwrap_or(0), 0, 0, 0, 0, 0];
    for broker in statistics.brokers.values() {
        let number = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        let counts = [
            0,
            broker.txerrs + broker.rxerrs,
            broker.txretries,
            broker.req_timeouts,
            number(broker.connects),
            number(broker.disconnects),
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rdkafka::statistics::Broker;

    use super::*;

    #[test]
    fn counts_are_summed_over_brokers() {
        let broker = |connects| Broker {
            txerrs: 1,
            rxerrs: 2,
            txretries: 3,
            req_timeouts: 4,
            connects: Some(connects),
            ..Broker::default()
        };
        let brokers = HashMap::from([("a".to_owned(), broker(5)), ("b".to_owned(), broker(-1))]);
        let statistics = Statistics {
            tx: 70,
            brokers,
            ..Statistics::default()
        };
        assert_eq!(counted(&statistics), [70, 6, 6, 8, 5, 0]);
    }
}
