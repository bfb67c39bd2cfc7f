//! How a log's store is reached safely: encryption, whom to trust, and how to prove who one is.
//!
//! Invariant: a password is never shown: not by `Debug`, not in an address, not in an error.
//! Deliberately absent: the store's own names for these things (`kafka`).

use std::fmt;
use std::path::PathBuf;

use super::LogAddress;

/// Where a log is, and how to be let in there.
#[derive(Clone, Debug)]
pub struct LogPlace {
    /// The address.
    pub address: LogAddress,
    /// What a Kafka cluster asks for; of no meaning for SQLite.
    pub kafka: KafkaSecurity,
}

impl From<&LogAddress> for LogPlace {
    fn from(address: &LogAddress) -> Self {
        Self {
            address: address.clone(),
            kafka: KafkaSecurity::default(),
        }
    }
}

/// How to talk to a Kafka cluster. By default in the clear, and to anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// Encryption, and whom to trust; absent: none.
    pub tls: Option<Tls>,
    /// A name and a password; absent: none.
    pub sasl: Option<Sasl>,
}

/// Encryption with TLS. The brokers' names are always checked against their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file with the authorities to trust; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key, for brokers that ask for one.
    pub identity: Option<TlsIdentity>,
}

/// A certificate and its key, each in a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How they are presented.
    pub mechanism: SaslMechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Password,
}

/// How a name and a password are presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself goes to the broker.
    Plain,
    /// A proof of the password, with SHA-256 (RFC 7677).
    ScramSha256,
    /// A proof of the password, with SHA-512.
    ScramSha512,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is meant.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let place = LogPlace {
            address: LogAddress::Kafka {
                brokers: "a:1".to_owned(),
                topic: "t".to_owned(),
            },
            kafka: KafkaSecurity {
                tls: None,
                sasl: Some(Sasl {
                    mechanism: SaslMechanism::Plain,
                    username: "anna".to_owned(),
                    password: Password::new("open sesame"),
                }),
            },
        };
        let shown = format!("{place:?} {}", place.address);
        assert!(
            shown.contains("anna") && !shown.contains("sesame"),
            "{shown}"
        );
    }
}
