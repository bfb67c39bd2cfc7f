//! A topic and its brokers: the settings of clients, what the brokers say of the topic, and the
//! errors to show if they refuse a client.
//!
//! Invariant: every client of ours starts from the settings here, and no error shows a password.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::{REQUEST_TIMEOUT, blocking, failed, locked};
use crate::log::{KafkaSecurity, LogError, Sasl, SaslMechanism, Tls};

/// How long the first attempt to reach a broker may take; each further one may take twice as long.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
/// How long a request may go unanswered before its connection is given up, in milliseconds. If a
/// machine or a network is gone without closing its connections, only this timeout notices. The
/// library's own minute is longer than a command should wait.
const ANSWER_WITHIN_MS: &str = "6000";
/// How many reports of a client are examined after a failed attempt.
const REPORTS_MAX: usize = 100;

/// A topic, the brokers that keep it, and how a client authenticates.
#[derive(Clone, Debug)]
pub(in crate::log) struct Topic {
    pub(in crate::log) name: String,
    /// `HOST:PORT[,HOST:PORT…]`.
    pub(super) brokers: String,
    security: KafkaSecurity,
}

impl Topic {
    pub(in crate::log) fn new(brokers: &str, name: &str, security: &KafkaSecurity) -> Self {
        Self {
            name: name.to_owned(),
            brokers: brokers.to_owned(),
            security: security.clone(),
        }
    }

    /// The directory's topic that belongs to this topic of a log.
    pub(super) fn owners(&self) -> Self {
        let name = format!("{}.owners", self.name);
        Self::new(&self.brokers, &name, &self.security)
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "annals")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", ANSWER_WITHIN_MS)
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log_level", "3");
        let KafkaSecurity { tls, sasl } = &self.security;
        config.set("security.protocol", self.protocol());
        if let Some(Tls { ca, identity }) = tls {
            let identity = identity.as_ref();
            for (name, file) in [
                ("ssl.ca.location", ca.as_ref()),
                ("ssl.certificate.location", identity.map(|i| &i.certificate)),
                ("ssl.key.location", identity.map(|i| &i.key)),
            ] {
                if let Some(file) = file {
                    config.set(name, file.to_string_lossy());
                }
            }
        }
        if let Some(Sasl {
            mechanism,
            username,
            password,
        }) = sasl
        {
            let mechanism = match mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", username)
                .set("sasl.password", password.reveal());
        }
        config
    }

    fn protocol(&self) -> &'static str {
        match (&self.security.tls, &self.security.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    /// The number of partitions; `None` if there is no such topic.
    pub(super) async fn partition_count(&self) -> Result<Option<u32>, LogError> {
        let metadata = self.metadata().await?;
        let mut topics = metadata.topics().iter();
        let Some(found) = topics.find(|found| found.name() == self.name) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(None)
            }
            Some(code) => Err(LogError::unavailable(ASK, code)),
            None => Ok(u32::try_from(found.partitions().len())
                .ok()
                .filter(|count| *count > 0)),
        }
    }

    /// The least number of replicas of any partition; 0 if the topic does not exist.
    pub(super) async fn replicas(&self) -> Result<usize, LogError> {
        let metadata = self.metadata().await?;
        let topics = metadata.topics().iter();
        let partitions = topics.flat_map(|topic| topic.partitions());
        let replicas = partitions.map(|partition| partition.replicas().len());
        Ok(replicas.min().unwrap_or(0))
    }

    /// The number of brokers, also if the topic does not exist.
    pub(in crate::log) async fn broker_count(&self) -> Result<usize, LogError> {
        Ok(self.metadata().await?.brokers().len())
    }

    async fn metadata(&self) -> Result<Metadata, LogError> {
        let topic = self.clone();
        blocking(move || topic.ask()).await
    }

    /// Asks about the topic with a client that records its own reports. If no answer comes, the
    /// request's error gives no reason; the reports do.
    fn ask(&self) -> Result<Metadata, LogError> {
        let consumer: BaseConsumer<Reports> = self
            .client()
            .create_with_context(Reports::default())
            .map_err(failed("make a Kafka client"))?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut patience = FIRST_ATTEMPT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match consumer.fetch_metadata(Some(&self.name), patience.min(left)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            let is_refused = (0..REPORTS_MAX)
                .filter_map(|_| consumer.poll(Duration::ZERO))
                .any(|report| report.is_err_and(|report| is_refusal(&report)));
            let last = locked(&consumer.context().0).clone();
            if is_refused || last.as_deref().is_some_and(is_alert) || Instant::now() >= deadline {
                let protocol = self.protocol();
                return Err(match last {
                    Some(report) => LogError::unavailable(ASK, report),
                    None => LogError::unavailable(
                        ASK,
                        format!("{error}; none of them answered a client that speaks {protocol}"),
                    ),
                });
            }
            patience *= 2;
        }
    }
}

const ASK: &str = "ask the brokers for the topic";

/// Whether a broker refuses this client for good, so that another try is useless.
fn is_refusal(report: &KafkaError) -> bool {
    matches!(
        report.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
        )
    )
}

/// Whether a broker closed a connection because of our certificate, or because there is none. The
/// client reports this as a lost connection only.
fn is_alert(report: &str) -> bool {
    report.contains("SSL alert")
}

/// The client's last report about its connections.
#[derive(Default)]
struct Reports(Mutex<Option<String>>);

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // Only failed connections count. Other log lines only count such failures.
        if facility == "FAIL" {
            // "[thrd:sasl_ssl://127.0.0.1:9093/bootstrap]: sasl_ssl://…/bootstrap: what happened"
            let message = message.split_once("]: ").map_or(message, |(_, rest)| rest);
            *locked(&self.0) = Some(message.to_owned());
        }
    }
}

impl ConsumerContext for Reports {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Password, TlsIdentity};

    #[test]
    fn what_is_asked_for_is_what_the_client_is_told() {
        let sasl = Sasl {
            mechanism: SaslMechanism::ScramSha512,
            username: "anna".to_owned(),
            password: Password::new("open sesame"),
        };
        let tls = Tls {
            ca: Some("ca.pem".into()),
            identity: Some(TlsIdentity {
                certificate: "own.pem".into(),
                key: "own.key".into(),
            }),
        };
        for (tls, sasl, protocol) in [
            (None, None, "plaintext"),
            (Some(tls.clone()), None, "ssl"),
            (None, Some(sasl.clone()), "sasl_plaintext"),
            (Some(tls), Some(sasl), "sasl_ssl"),
        ] {
            let (has_tls, has_sasl) = (tls.is_some(), sasl.is_some());
            let topic = Topic::new("a:1", "t", &KafkaSecurity { tls, sasl });
            let config = topic.client();
            assert_eq!(config.get("security.protocol"), Some(protocol));
            assert_eq!(config.get("ssl.ca.location"), has_tls.then_some("ca.pem"));
            assert_eq!(config.get("ssl.key.location"), has_tls.then_some("own.key"));
            let mechanism = has_sasl.then_some("SCRAM-SHA-512");
            assert_eq!(config.get("sasl.mechanism"), mechanism);
            assert!(!format!("{topic:?}").contains("sesame"));
        }
    }
}
