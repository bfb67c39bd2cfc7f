//! Every metric: its name, kind, labels and meaning.
//!
//! Invariant: `/metrics`, this catalogue and `docs/metrics.md`, which is made from it, list the
//! same metrics; tests compare all three. Deliberately absent: the values; each part of the program
//! measures its own.

/// The kind of a metric, as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts the observations up to each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its name in Prometheus' text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// Its kind, with the bounds of a histogram.
    pub kind: Kind,
    /// Its labels, separated by commas; each has a bounded set of values.
    pub labels: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn counter(name: &'static str, labels: &'static str, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        meaning,
    }
}

const fn gauge(name: &'static str, labels: &'static str, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        meaning,
    }
}

const fn histogram(
    name: &'static str,
    bounds: &'static [f64],
    labels: &'static str,
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram(bounds),
        labels,
        meaning,
    }
}

/// Bounds of times, in seconds: from a tenth of a millisecond to half a minute.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Bounds of counts.
const NUMBERS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

/// Every metric, in order of name.
pub const CATALOGUE: &[Metric] = &[
    counter(
        "annals_access_lines_left_out_total",
        "",
        "requests without a line in the access log, because their second already had too many \
         lines",
    ),
    histogram(
        "annals_append_seconds",
        SECONDS,
        "",
        "time from handing a record to the log to its durable acknowledgement",
    ),
    gauge(
        "annals_build_info",
        "version,record_format",
        "always 1; the program's version and the newest record format that it writes",
    ),
    counter(
        "annals_commands_total",
        "category,command,outcome",
        "commands of this node's clients, by type and outcome",
    ),
    counter(
        "annals_defects_total",
        "",
        "partitions whose owner was ended by a defect of the program; start the node again",
    ),
    gauge(
        "annals_feed_behind_commits",
        "",
        "how many commits the slowest of the feeds at the log's end was behind it since the last look",
    ),
    gauge(
        "annals_feed_followers",
        "",
        "clients that this process serves with the feed of all events",
    ),
    gauge(
        "annals_feed_followers_max",
        "",
        "the most such clients at a time",
    ),
    counter(
        "annals_feed_items_total",
        "",
        "events and refusals that were sent in feeds",
    ),
    counter(
        "annals_http_accept_errors_total",
        "",
        "connections that the system could not accept, most often because too few files may be \
         open",
    ),
    gauge(
        "annals_http_connections",
        "",
        "open connections of clients and other nodes",
    ),
    counter(
        "annals_http_connections_cut_total",
        "reason",
        "connections that the node closed because their clients were too slow, or to make room",
    ),
    gauge(
        "annals_http_memory_bytes",
        "",
        "memory that large bodies and answers use",
    ),
    counter(
        "annals_http_memory_refused_total",
        "",
        "times that no memory became free in time for a body or an answer",
    ),
    histogram(
        "annals_http_request_seconds",
        SECONDS,
        "method,route,status",
        "time from a request's head to the end of its answer; for a batch, to its last line",
    ),
    counter(
        "annals_kafka_connects_total",
        "client",
        "connections that the Kafka client made (Kafka only)",
    ),
    counter(
        "annals_kafka_disconnects_total",
        "client",
        "connections that the Kafka client lost or closed (Kafka only)",
    ),
    gauge(
        "annals_kafka_queued_bytes",
        "client",
        "bytes of records that wait in the Kafka client or for their acknowledgement (Kafka only)",
    ),
    gauge(
        "annals_kafka_queued_records",
        "client",
        "records that wait in the Kafka client or for their acknowledgement (Kafka only)",
    ),
    counter(
        "annals_kafka_request_errors_total",
        "client",
        "requests to brokers that could not be sent, or whose answer was unreadable (Kafka only)",
    ),
    counter(
        "annals_kafka_request_retries_total",
        "client",
        "requests to brokers that were sent again (Kafka only)",
    ),
    counter(
        "annals_kafka_request_timeouts_total",
        "client",
        "requests to brokers without an answer in time (Kafka only)",
    ),
    counter(
        "annals_kafka_requests_total",
        "client",
        "requests to brokers (Kafka only)",
    ),
    gauge(
        "annals_kafka_round_trip_p99_seconds",
        "client",
        "time to a broker's answer, 99th percentile of the last seconds, for the slowest broker \
         (Kafka only)",
    ),
    counter(
        "annals_let_go_total",
        "",
        "times that this node stopped owning a partition",
    ),
    counter(
        "annals_log_lines_dropped_total",
        "",
        "lines of the program's own log that were dropped, because stderr did not take them in \
         time",
    ),
    gauge(
        "annals_memory_budget_bytes",
        "part",
        "how the memory that the node is sized for is divided: states, in_flight, waiting, store",
    ),
    gauge(
        "annals_open_commands",
        "",
        "commands on their way to the log or waiting at this node's owners",
    ),
    gauge(
        "annals_owned_partitions",
        "",
        "partitions that this node owns",
    ),
    gauge(
        "annals_postgres_pool_connections",
        "state",
        "connections with which the query door reads rows: idle, used",
    ),
    gauge(
        "annals_postgres_pool_connections_max",
        "",
        "the most connections with which the query door reads rows",
    ),
    gauge(
        "annals_projection_differing_rows",
        "projection",
        "rows that are known to differ from the log, as found by this process's samples",
    ),
    gauge(
        "annals_projection_gap_records",
        "projection,partition",
        "records of the log that the live rows lack",
    ),
    gauge(
        "annals_projection_lag_seconds",
        "projection,partition",
        "how long the oldest record that the live rows lack has been in the log; 0 if none is \
         missing",
    ),
    counter(
        "annals_projection_parked_total",
        "projection",
        "streams that a projection of this process parked because it could not take up a commit",
    ),
    gauge(
        "annals_projection_sample_age_seconds",
        "",
        "time since both the log's ends and the checkpoints were last read; gap and lag are from \
         that moment",
    ),
    gauge(
        "annals_projection_state",
        "projection,state",
        "1 for the state in which a live projection is, in whichever process: live, behind, stuck \
         (it has records to take up and does not move), parked, paused, stopped",
    ),
    gauge(
        "annals_projection_stopped_partitions",
        "projection",
        "partitions in which a projection is stopped, in whichever process",
    ),
    counter(
        "annals_projection_stopped_total",
        "projection",
        "times that a projection of this process stopped, in one partition or in all",
    ),
    counter(
        "annals_projection_verified_streams_total",
        "projection",
        "streams that this process folded afresh and compared with the rows",
    ),
    histogram(
        "annals_projector_batch_commits",
        NUMBERS,
        "",
        "commits in one transaction of a projector",
    ),
    histogram(
        "annals_projector_batch_rows",
        NUMBERS,
        "",
        "rows in one transaction of a projector",
    ),
    histogram(
        "annals_projector_batch_seconds",
        SECONDS,
        "",
        "time to fold and write one transaction of a projector",
    ),
    counter(
        "annals_projector_commits_total",
        "",
        "commits that projectors folded",
    ),
    counter(
        "annals_projector_orphans_total",
        "reason",
        "records read by projectors that no reader accepts",
    ),
    counter(
        "annals_projector_rows_total",
        "",
        "rows that projectors wrote",
    ),
    gauge(
        "annals_queries_waiting",
        "",
        "queries that wait until their read model has reached a position",
    ),
    gauge(
        "annals_query_cache_bytes",
        "",
        "memory of answers that the query door keeps for the next request that asks the same",
    ),
    counter(
        "annals_query_cache_evictions_total",
        "",
        "kept answers that made room for others",
    ),
    counter(
        "annals_query_cache_hits_total",
        "",
        "queries that a kept answer of the present version answered",
    ),
    counter(
        "annals_query_cache_misses_total",
        "",
        "queries for which rows were read",
    ),
    gauge(
        "annals_queued_commands",
        "",
        "commands that wait for this node's owners, over all partitions",
    ),
    gauge(
        "annals_queued_commands_fullest",
        "",
        "commands that wait for the owner with the longest queue; beyond queue_max they are \
         turned away",
    ),
    counter(
        "annals_refusals_total",
        "code",
        "commands refused by a rule, by its code; codes beyond the first 200 count as other",
    ),
    counter(
        "annals_streams_frozen_total",
        "",
        "streams that this node froze because a record cannot be taken up; counted each time the \
         record is folded",
    ),
    counter(
        "annals_streams_half_full_total",
        "",
        "times that a stream's state reached half of its limit (stream_state_max_kb)",
    ),
    counter(
        "annals_take_overs_total",
        "",
        "times that this node began to own a partition",
    ),
    gauge(
        "annals_too_old_partitions",
        "",
        "partitions with a record format or an event that this program is too old for; upgrade it",
    ),
    counter(
        "annals_turned_away_total",
        "reason",
        "commands that were not attempted, by reason",
    ),
    gauge(
        "annals_unowned_partitions",
        "",
        "partitions for which this node knows no owner",
    ),
    gauge(
        "annals_waiting_bytes",
        "",
        "memory of commands that wait for their answers; its budget is the part waiting",
    ),
    counter(
        "process_cpu_seconds_total",
        "",
        "processor time of the process, including system time (Linux)",
    ),
    gauge(
        "process_max_fds",
        "",
        "the most files and sockets that the process may have open (Linux)",
    ),
    gauge(
        "process_open_fds",
        "",
        "files and sockets that the process has open (Linux)",
    ),
    gauge(
        "process_resident_memory_bytes",
        "",
        "resident memory of the process (Linux)",
    ),
    gauge(
        "process_start_time_seconds",
        "",
        "start time of the process, in seconds since 1970 (Linux)",
    ),
    gauge("process_threads", "", "threads of the process (Linux)"),
    gauge(
        "process_virtual_memory_bytes",
        "",
        "address space of the process (Linux)",
    ),
];

/// The first lines of `docs/metrics.md`.
const ABOUT: &str = "\
# Metrics

`GET /metrics` shows these metrics in Prometheus' text format. Names are frozen, and a unit stands at
the end of a name. Counters exist from the start, at 0; only the code of a refusal first appears with
its first refusal. A process shows the metrics of its roles. `/readyz?role=command-api`, `projector` or
`query-api` tells whether a role is ready, and why not.

## Alerts and dashboards

- [ops/prometheus/prometheus.yml](../ops/prometheus/prometheus.yml) is an example of how Prometheus is
  configured: put your nodes in. Name the job `annals`, or `annals-…` where you watch several logs.
- [ops/prometheus/alerts.yml](../ops/prometheus/alerts.yml) has the alerts. Name it in `rule_files`.
  Alerts of severity `page` need somebody at once, those of `ticket` within days. Each names a page of
  [ops/runbooks](../ops/runbooks). Change the numbers whose comment begins with *Set*: they depend on
  `queue_max`, and on the delays that your clients and screens may have.
- [ops/grafana/annals-write-side.json](../ops/grafana/annals-write-side.json) and
  [ops/grafana/annals-read-side.json](../ops/grafana/annals-read-side.json) are dashboards for Grafana 11
  or newer. Choose *Dashboards, New, Import*, upload the file, and choose the data source on the
  dashboard.
- `promtool test rules ops/prometheus/alerts_*_test.yml` tests the alerts, as `make test` does. Repeat it
  after each change.

No metric tells how much room a disk has: watch the disks of `--data`, of the brokers and of Postgres with
the exporter of the machine.

## The list

| metric | kind | labels | meaning |
|---|---|---|---|
";

/// The document about all metrics.
#[must_use]
pub fn document() -> String {
    let row = |metric: &Metric| {
        let Metric {
            name,
            kind,
            labels,
            meaning,
        } = metric;
        format!("| `{name}` | {} | {labels} | {meaning} |\n", kind.name())
    };
    ABOUT.to_owned() + &CATALOGUE.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_shows_every_metric() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            written,
            document(),
            "write it anew with: UPDATE_DOCS=1 cargo test -p annals-host the_document_shows_every_metric"
        );
    }

    #[test]
    fn names_are_in_order_and_say_their_kind() {
        let names: Vec<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for metric in CATALOGUE {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
        }
    }
}
