//! How a program reaches a log's store safely: encryption, trusted authorities, authentication.
//!
//! Invariant: a password is never shown: not by `Debug`, not in an address, not in an error.
//! Deliberately absent: the store's own names for these things (`kafka`).

use std::fmt;
use std::path::PathBuf;

use super::LogAddress;
use crate::chain::Acknowledged;

/// Where a log is, how to authenticate there, and which damage its readers pass.
#[derive(Clone, Debug)]
pub struct LogPlace {
    /// The address.
    pub address: LogAddress,
    /// What a Kafka cluster asks for; ignored for SQLite.
    pub kafka: KafkaSecurity,
    /// The damaged places that an operator has acknowledged.
    pub acknowledged: Acknowledged,
}

impl From<&LogAddress> for LogPlace {
    fn from(address: &LogAddress) -> Self {
        Self {
            address: address.clone(),
            kafka: KafkaSecurity::default(),
            acknowledged: Acknowledged::default(),
        }
    }
}

/// How to talk to a Kafka cluster. By default without encryption and authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// Encryption and trusted authorities; absent: no encryption.
    pub tls: Option<Tls>,
    /// A name and a password; absent: no authentication.
    pub sasl: Option<Sasl>,
}

/// Encryption with TLS. The brokers' names are always checked against their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file with the trusted authorities; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key, for brokers that ask for one.
    pub identity: Option<TlsIdentity>,
}

/// A certificate and its key, each in a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, followed by those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A name and a password for SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How they are sent.
    pub mechanism: SaslMechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Password,
}

/// How a name and a password are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself is sent to the broker.
    Plain,
    /// SCRAM: a proof of the password, with SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM: a proof of the password, with SHA-512.
    ScramSha512,
}

/// A secret text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
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
            kafka: KafkaSecurity {
                tls: None,
                sasl: Some(Sasl {
                    mechanism: SaslMechanism::Plain,
                    username: "anna".to_owned(),
                    password: Password::new("open sesame"),
                }),
            },
            ..LogPlace::from(&"kafka://a:1/t".parse().unwrap())
        };
        let shown = format!("{place:?} {}", place.address);
        assert!(
            shown.contains("anna") && !shown.contains("sesame"),
            "{shown}"
        );
    }
}
