//! The settings for the access to a Kafka cluster.
//!
//! Invariant: each given setting is used, or refused by its name. A password for a connection that
//! does not use one is a mistake, and the user must learn of it at once.

use std::path::{Path, PathBuf};

use event_log::log::{KafkaSecurity, Password, Sasl, SaslMechanism, Tls, TlsIdentity};
use serde::Deserialize;

use crate::private;

/// How a cluster is talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Protocol {
    /// In the clear, with anybody.
    #[default]
    Plaintext,
    /// Encrypted.
    Ssl,
    /// In the clear, with a name and a password.
    SaslPlaintext,
    /// Encrypted, with a name and a password.
    SaslSsl,
}

impl Protocol {
    fn of(security: &KafkaSecurity) -> Self {
        match (security.tls.is_some(), security.sasl.is_some()) {
            (false, false) => Self::Plaintext,
            (true, false) => Self::Ssl,
            (false, true) => Self::SaslPlaintext,
            (true, true) => Self::SaslSsl,
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// The settings as they were given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) protocol: Protocol,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) mechanism: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Password>,
    pub(super) password_file: Option<PathBuf>,
}

impl Given {
    /// The security settings that they result in; else an error text, which begins with the key in
    /// question.
    pub(super) fn resolve(self) -> Result<KafkaSecurity, String> {
        let protocol = self.protocol;
        let needs =
            |key: &str, what: &str| Err(format!("{key} may be set only together with {what}"));
        if !protocol.has_tls() {
            for (key, file) in [
                ("kafka_ca", &self.ca),
                ("kafka_certificate", &self.certificate),
                ("kafka_key", &self.key),
            ] {
                if file.is_some() {
                    return needs(key, "kafka_security ssl or sasl_ssl");
                }
            }
        }
        if !protocol.has_sasl() {
            for (key, is_given) in [
                ("kafka_sasl_mechanism", self.mechanism.is_some()),
                ("kafka_sasl_username", self.username.is_some()),
                ("kafka_sasl_password", self.password.is_some()),
                ("kafka_sasl_password_file", self.password_file.is_some()),
            ] {
                if is_given {
                    return needs(key, "kafka_security sasl_ssl or sasl_plaintext");
                }
            }
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                private::secret_file(&key)
                    .map_err(|reason| format!("kafka_key is refused: {reason}"))?;
                Some(TlsIdentity { certificate, key })
            }
            (Some(_), None) => return needs("kafka_certificate", "kafka_key"),
            (None, Some(_)) => return needs("kafka_key", "kafka_certificate"),
        };
        let tls = protocol.has_tls().then_some(Tls {
            ca: self.ca,
            identity,
        });
        let sasl = if protocol.has_sasl() {
            let mechanism = self.mechanism.as_deref().unwrap_or("SCRAM-SHA-512");
            let username = self.username.filter(|name| !name.is_empty());
            Some(Sasl {
                mechanism: mechanism_of(mechanism)?,
                username: username.ok_or("kafka_sasl_username is missing")?,
                password: password_of(self.password, self.password_file.as_deref())?,
            })
        } else {
            None
        };
        Ok(KafkaSecurity { tls, sasl })
    }
}

fn mechanism_of(name: &str) -> Result<SaslMechanism, String> {
    let known = [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ];
    let found = known.into_iter().find(|known| name_of(*known) == name);
    found.ok_or_else(|| {
        let known = known.map(name_of).join(", ");
        format!("kafka_sasl_mechanism is one of {known}, not {name:?}")
    })
}

fn name_of(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

fn password_of(given: Option<Password>, file: Option<&Path>) -> Result<Password, String> {
    match (given, file) {
        (Some(password), None) => Ok(password),
        (None, Some(file)) => {
            private::secret_file(file)
                .map_err(|reason| format!("kafka_sasl_password_file is refused: {reason}"))?;
            let text = std::fs::read_to_string(file).map_err(|error| {
                let file = file.display();
                format!("kafka_sasl_password_file {file} cannot be read: {error}")
            })?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(Password::new(text.strip_suffix('\r').unwrap_or(text)))
        }
        (Some(_), Some(_)) => Err(
            "kafka_sasl_password_file and kafka_sasl_password are both set; remove one of them"
                .to_owned(),
        ),
        (None, None) => {
            Err("kafka_sasl_password or kafka_sasl_password_file is missing".to_owned())
        }
    }
}

/// What `annals config` shows of one of these settings.
pub(super) fn shown(
    security: &KafkaSecurity,
    password_file: Option<&Path>,
    key: &str,
) -> Option<String> {
    let path = |path: &PathBuf| path.display().to_string();
    let tls = security.tls.as_ref();
    let identity = tls.and_then(|tls| tls.identity.as_ref());
    let sasl = security.sasl.as_ref();
    match key {
        "kafka_security" => Some(super::name_of(Protocol::of(security))),
        "kafka_ca" => tls.and_then(|tls| tls.ca.as_ref()).map(path),
        "kafka_certificate" => identity.map(|identity| path(&identity.certificate)),
        "kafka_key" => identity.map(|identity| path(&identity.key)),
        "kafka_sasl_mechanism" => sasl.map(|sasl| name_of(sasl.mechanism).to_owned()),
        "kafka_sasl_username" => sasl.map(|sasl| sasl.username.clone()),
        // Shows only that there is a password.
        "kafka_sasl_password" => sasl
            .filter(|_| password_file.is_none())
            .map(|_| "***".to_owned()),
        "kafka_sasl_password_file" => password_file.map(|file| file.display().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(protocol: Protocol) -> Given {
        Given {
            protocol,
            username: Some("anna".to_owned()),
            password: Some(Password::new("open sesame")),
            ..Given::default()
        }
    }

    #[test]
    fn given_settings_are_used() {
        assert_eq!(Given::default().resolve(), Ok(KafkaSecurity::default()));
        let given = Given {
            ca: Some("ca.pem".into()),
            mechanism: Some("SCRAM-SHA-256".to_owned()),
            ..sasl(Protocol::SaslSsl)
        };
        let security = given.resolve().unwrap();
        assert_eq!(Protocol::of(&security), Protocol::SaslSsl);
        assert_eq!(security.tls.unwrap().ca, Some("ca.pem".into()));
        let found = security.sasl.unwrap();
        assert_eq!(found.mechanism, SaslMechanism::ScramSha256);
        assert_eq!(found.password.reveal(), "open sesame");
        let plain = sasl(Protocol::SaslPlaintext).resolve().unwrap();
        assert_eq!(plain.tls, None);
        assert_eq!(plain.sasl.unwrap().mechanism, SaslMechanism::ScramSha512);
    }

    #[test]
    fn a_password_may_be_in_a_file_and_ends_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "open sesame\r\n").unwrap();
        let given = Given {
            password: None,
            password_file: Some(file.path().to_owned()),
            ..sasl(Protocol::SaslSsl)
        };
        let password = given.resolve().unwrap().sasl.unwrap().password;
        assert_eq!(password.reveal(), "open sesame");
    }

    #[test]
    fn unusable_settings_are_refused_by_name() {
        let file = || Some(PathBuf::from("there/is/none"));
        let text = || Some("x".to_owned());
        let tls = |change: fn(&mut Given)| {
            let mut given = Given {
                protocol: Protocol::Ssl,
                ..Given::default()
            };
            change(&mut given);
            given
        };
        for (given, key) in [
            (
                Given {
                    ca: file(),
                    ..Given::default()
                },
                "kafka_ca",
            ),
            (
                Given {
                    ca: file(),
                    ..sasl(Protocol::SaslPlaintext)
                },
                "kafka_ca",
            ),
            (
                Given {
                    key: file(),
                    ..Given::default()
                },
                "kafka_key",
            ),
            (sasl(Protocol::Plaintext), "kafka_sasl_username"),
            (sasl(Protocol::Ssl), "kafka_sasl_username"),
            (
                tls(|given| given.certificate = Some("x".into())),
                "kafka_certificate",
            ),
            (tls(|given| given.key = Some("x".into())), "kafka_key"),
            (
                tls(|given| given.password = Some(Password::new("x"))),
                "kafka_sasl_password",
            ),
            (
                Given {
                    username: None,
                    ..sasl(Protocol::SaslSsl)
                },
                "kafka_sasl_username",
            ),
            (
                Given {
                    password: None,
                    ..sasl(Protocol::SaslSsl)
                },
                "kafka_sasl_password",
            ),
            (
                Given {
                    password_file: file(),
                    ..sasl(Protocol::SaslSsl)
                },
                "kafka_sasl_password_file",
            ),
            (
                Given {
                    password: None,
                    password_file: file(),
                    ..sasl(Protocol::SaslSsl)
                },
                "kafka_sasl_password_file",
            ),
            (
                Given {
                    mechanism: text(),
                    ..sasl(Protocol::SaslSsl)
                },
                "kafka_sasl_mechanism",
            ),
        ] {
            let what = given.resolve().unwrap_err();
            assert_eq!(what.split(' ').next(), Some(key), "{what}");
            assert!(!what.contains("sesame"), "{what}");
        }
    }
}
