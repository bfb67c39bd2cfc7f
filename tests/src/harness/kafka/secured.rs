//! A broker that requires authentication: over TLS, by name and password or by certificate.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use event_log::log::{KafkaSecurity, Password, Sasl, SaslMechanism, Tls, TlsIdentity};

use super::broker::{Broker, asking};
use super::{JVM_FLAGS, START_ATTEMPTS_MAX, answers, settings};
use crate::harness::certificates::{Authority, Certified};
use crate::harness::ports;

/// The only user.
pub const USER: &str = "anna";
/// The user's password.
pub const PASSWORD: &str = "open sesame";

/// A broker with two secured listeners for clients; only the harness uses the plain one.
#[derive(Debug)]
pub struct SecuredKafka {
    broker: Broker,
    authority: Authority,
    by_password: u16,
    by_certificate: u16,
}

/// The broker that the tests of this process share; the first call starts it.
///
/// # Panics
/// As [`SecuredKafka::start`].
pub fn shared() -> &'static SecuredKafka {
    static SHARED: OnceLock<SecuredKafka> = OnceLock::new();
    SHARED.get_or_init(SecuredKafka::start)
}

impl SecuredKafka {
    /// Starts a broker and returns once it answers.
    ///
    /// # Panics
    /// If the broker cannot be started; the message says what to do.
    #[must_use]
    pub fn start() -> Self {
        let mut attempts = 1;
        loop {
            match Self::try_start() {
                Ok(kafka) => return kafka,
                Err(log) if log.contains("already in use") && attempts < START_ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(log) => panic!("Kafka did not start:\n{log}"),
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        let mut authority = None;
        let [port, controller_port, by_password, by_certificate] =
            std::array::from_fn(|_| ports::free());
        let mut broker = Broker::prepare(&JVM_FLAGS, |data| {
            let folder = data.parent().expect("the data lie in the broker's folder");
            let authority = authority.insert(Authority::within(folder));
            let own = authority.certify("broker");
            settings(port, controller_port, data)
                .replace(
                    ",CONTROLLER://",
                    &format!(
                        ",PASSWORD://127.0.0.1:{by_password},\
                         CERTIFICATE://127.0.0.1:{by_certificate},CONTROLLER://"
                    ),
                )
                .replace(
                    ",CONTROLLER:PLAINTEXT",
                    ",PASSWORD:SASL_SSL,CERTIFICATE:SSL,CONTROLLER:PLAINTEXT",
                )
                .replace(
                    "\nadvertised.listeners=",
                    &format!(
                        "\nadvertised.listeners=PASSWORD://127.0.0.1:{by_password},\
                         CERTIFICATE://127.0.0.1:{by_certificate},"
                    ),
                )
                + &doors(folder, &own, &authority.certificate())
        });
        let user = format!("[name={USER},password={PASSWORD}]");
        broker.format(&[
            "--standalone",
            "--add-scram",
            &format!("SCRAM-SHA-256={user}"),
            "--add-scram",
            &format!("SCRAM-SHA-512={user}"),
        ]);
        broker.launch();
        let client = asking(&format!("127.0.0.1:{port}"));
        broker.wait(|| answers(&client, port))?;
        Ok(Self {
            broker,
            authority: authority.expect("it was made with the settings"),
            by_password,
            by_certificate,
        })
    }

    /// The listener that requires a name and a password: `HOST:PORT`.
    #[must_use]
    pub fn by_password(&self) -> String {
        format!("127.0.0.1:{}", self.by_password)
    }

    /// The listener that requires a certificate: `HOST:PORT`.
    #[must_use]
    pub fn by_certificate(&self) -> String {
        format!("127.0.0.1:{}", self.by_certificate)
    }

    /// The authority that signed the broker's certificate.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The client settings for [`Self::by_password`].
    #[must_use]
    pub fn password(&self, mechanism: SaslMechanism) -> KafkaSecurity {
        KafkaSecurity {
            tls: self.encryption().tls,
            sasl: Some(Sasl {
                mechanism,
                username: USER.to_owned(),
                password: Password::new(PASSWORD),
            }),
        }
    }

    /// The client settings for [`Self::by_certificate`].
    #[must_use]
    pub fn certificate(&self) -> KafkaSecurity {
        let Certified { certificate, key } = self.authority.certify("client");
        let mut security = self.encryption();
        if let Some(tls) = &mut security.tls {
            tls.identity = Some(TlsIdentity { certificate, key });
        }
        security
    }

    /// Client settings with encryption and without authentication.
    #[must_use]
    pub fn encryption(&self) -> KafkaSecurity {
        KafkaSecurity {
            tls: Some(Tls {
                ca: Some(self.authority.certificate()),
                identity: None,
            }),
            sasl: None,
        }
    }

    /// The folder of the broker, with its logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.broker.folder()
    }
}

/// The settings of the secured listeners.
fn doors(folder: &Path, own: &Certified, authority: &Path) -> String {
    let keys = folder.join("broker.pem");
    fs::write(&keys, own.together()).expect("a folder of ours can be written to");
    let (keys, authority) = (keys.display(), authority.display());
    let module = "org.apache.kafka.common.security";
    format!(
        r#"
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.certificate.ssl.client.auth=required
listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.password.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.password.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.password.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";
"#
    )
}
