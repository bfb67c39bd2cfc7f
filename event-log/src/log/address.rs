//! Addresses of logs: `sqlite:PATH` or `kafka://HOST:PORT[,HOST:PORT…]/TOPIC`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogAddress {
    /// A file.
    Sqlite {
        /// The file's path.
        path: PathBuf,
    },
    /// A topic of a Kafka cluster.
    Kafka {
        /// `HOST:PORT[,HOST:PORT…]`.
        brokers: String,
        /// The topic.
        topic: String,
    },
}

/// Why a text is no address of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log's address is sqlite:PATH or kafka://HOST:PORT[,HOST:PORT…]/TOPIC, not {0:?}")]
pub struct AddressError(String);

impl FromStr for LogAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(error()),
                path => Ok(Self::Sqlite { path: path.into() }),
            };
        }
        let rest = text.strip_prefix("kafka://").ok_or_else(error)?;
        let (brokers, topic) = rest.split_once('/').ok_or_else(error)?;
        let is_broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        let is_topic = (1..=249).contains(&topic.len())
            && topic
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if is_topic && brokers.split(',').all(is_broker) {
            Ok(Self::Kafka {
                brokers: brokers.to_owned(),
                topic: topic.to_owned(),
            })
        } else {
            Err(error())
        }
    }
}

impl fmt::Display for LogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite:{}", path.display()),
            Self::Kafka { brokers, topic } => write!(f, "kafka://{brokers}/{topic}"),
        }
    }
}

impl<'de> Deserialize<'de> for LogAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_and_nonsense_is_refused() {
        for text in [
            "sqlite:data/log.db",
            "kafka://localhost:9092/orders",
            "kafka://a:1,b:2/t.x",
        ] {
            assert_eq!(text.parse::<LogAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "sqlite:",
            "kafka://a:1",
            "kafka://a/t",
            "kafka://:1/t",
            "kafka://a:0/t",
            "kafka://a:1/t/u",
            "mysql:x",
        ] {
            assert!(text.parse::<LogAddress>().is_err(), "{text}");
        }
    }
}
