//! What a node needs to talk to the other nodes on its log: its address, and the secret that they
//! share.
//!
//! Invariant: the secret is never shown, and without a secret only a loopback address is
//! advertised. Deliberately absent: flags for the secret; every user of the machine could read them
//! in the list of processes.

use std::net::SocketAddr;
use std::path::Path;

use command_api::peer::{AddressError, Secret, authority_of, is_loopback};
use serde::de::{self, Deserialize, Deserializer};

use super::Settings;
use crate::exit::{Exit, Failure};
use crate::private;

/// What is shown instead of a secret that is set.
pub(super) const HIDDEN: &str = "***";

/// A secret that was checked to be long enough.
pub(super) struct SharedSecret(pub(super) Secret);

impl<'de> Deserialize<'de> for SharedSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Secret::new(&text).map(Self).map_err(de::Error::custom)
    }
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// `HOST:PORT`, given with or without `http://` and stored with it.
#[derive(Debug)]
pub(super) struct Advertised(pub(super) String);

impl<'de> Deserialize<'de> for Advertised {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let url = match text.contains("://") {
            true => text,
            false => format!("http://{text}"),
        };
        let authority = authority_of(&url);
        let url = authority.map(|authority| format!("http://{authority}"));
        url.map(Self)
            .map_err(|error: AddressError| de::Error::custom(error))
    }
}

impl Settings {
    /// The secret that this node shares with the others; absent if none is set.
    ///
    /// # Errors
    /// `Usage` if its file cannot be read, may be read by others, or holds too short a secret.
    pub fn cluster_secret(&self) -> Result<Option<Secret>, Failure> {
        match (&self.cluster_secret, &self.cluster_secret_file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(file)) => self.read_secret(file).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn read_secret(&self, file: &Path) -> Result<Secret, Failure> {
        let source = self.source("cluster_secret_file");
        let what = format!("read the cluster secret in {} ({source})", file.display());
        let failed =
            |error: &dyn std::error::Error| Failure::of(Exit::Usage, error).while_trying(&what);
        private::secret_file(file)
            .map_err(|reason| Failure::new(Exit::Usage, reason).while_trying(&what))?;
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        Secret::new(&text).map_err(|error| failed(&error))
    }

    /// The secret, which a node on a shared log must have. The log's id is public: without a
    /// secret, anyone who knows the id could act as a node.
    ///
    /// # Errors
    /// `Usage` if there is none; the errors of [`Self::cluster_secret`].
    pub fn required_cluster_secret(&self) -> Result<Secret, Failure> {
        self.cluster_secret()?.ok_or_else(|| {
            let message = "a node on a log in Kafka needs a secret that all nodes of the log share";
            Failure::new(Exit::Usage, message).hint(
                "create one with: (umask 077; annals config secret > FILE), copy it to each node, \
                 and name it with --cluster-secret-file FILE",
            )
        })
    }

    /// Where other nodes reach this one, which listens on `bound`: `http://HOST:PORT`.
    ///
    /// # Errors
    /// `Usage` if nothing is advertised and other nodes cannot reach `bound` (the unspecified
    /// address).
    pub fn address_for_peers(&self, bound: SocketAddr) -> Result<String, Failure> {
        match &self.advertise {
            Some(address) => Ok(address.clone()),
            None if bound.ip().is_unspecified() => {
                let message = format!(
                    "other nodes cannot reach this node at {bound}, the address on which it \
                     listens"
                );
                let hint = "name its address with --advertise HOST:PORT";
                Err(Failure::new(Exit::Usage, message).hint(hint))
            }
            None => Ok(format!("http://{bound}")),
        }
    }

    /// Checks that the cluster settings fit together.
    pub(super) fn check_cluster(&self) -> Result<(), Failure> {
        let has_secret = self.cluster_secret.is_some() || self.cluster_secret_file.is_some();
        if self.cluster_secret.is_some() && self.cluster_secret_file.is_some() {
            let message = format!(
                "cluster_secret (from {}) and cluster_secret_file (from {}) are both set; remove \
                 one of them",
                self.source("cluster_secret"),
                self.source("cluster_secret_file"),
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        match &self.advertise {
            Some(address) if !has_secret && !is_loopback(address) => {
                let source = self.source("advertise");
                let message = format!(
                    "will not advertise {address} ({source}) without a cluster secret: anybody \
                     who reaches it could act as a node"
                );
                let hint = "set cluster_secret_file to the same secret on all nodes";
                Err(Failure::new(Exit::Usage, message).hint(hint))
            }
            _ => Ok(()),
        }
    }
}
