//! This process among the other nodes on its log: how it reaches them, and what it does for them.
//!
//! Deliberately absent: what nodes say to each other (`command_api::peer`), and who owns (`engine`).

use std::net::SocketAddr;
use std::sync::Arc;

use command_api::peer::{HttpPeers, Identity, Key, PeersOptions, Server, ServerOptions};
use engine::clock::LogClock;
use engine::{ClusterOptions, Engine, StartError};
use event_log::create::first_claim;
use event_log::log::{EventLog, LogAddress};
use event_log::membership::MembershipOptions;
use position::Partition;

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// A node that shares its log with others.
pub(super) struct Membership {
    /// Where others reach it.
    pub(super) address: String,
    identity: Option<Identity>,
    group: Option<MembershipOptions>,
    /// What time it is among them.
    clock: LogClock,
}

impl Membership {
    /// Whom the write side shares the log with: nobody on a file, which has one writer.
    ///
    /// # Errors
    /// `Usage` where the address or the secret does not do; `Unavailable`.
    pub(super) async fn of(
        settings: &Settings,
        log: &dyn EventLog,
        bound: SocketAddr,
    ) -> Result<Self, Failure> {
        let topic = match &settings.log {
            LogAddress::Sqlite { .. } => {
                return Ok(Self {
                    address: format!("http://{bound}"),
                    identity: None,
                    clock: LogClock::default(),
                    group: None,
                });
            }
            LogAddress::Kafka { topic, .. } => topic,
        };
        let secret = settings.required_cluster_secret()?;
        let address = settings.address_for_peers(bound)?;
        let partition = Partition(0);
        let claim = first_claim(log, partition).await?;
        let unclaimed = || StartError::Unclaimed {
            partition,
            address: log.address().to_string(),
        };
        let log_id = claim.ok_or_else(unclaimed)?.log;
        let usage = |error: &dyn std::error::Error| Failure::of(Exit::Usage, error);
        let key = Key::of(Some(&secret), log_id, bound, &address).map_err(|error| {
            usage(&error).hint("set cluster_secret_file to the same secret on all nodes")
        })?;
        let clock = LogClock::default();
        let identity = Identity::new(settings.node.clone(), &address, log_id, key);
        let identity = identity.map(|identity| identity.by(clock.clone()));
        let group = settings.group.clone();
        Ok(Self {
            address,
            identity: Some(identity.map_err(|error| usage(&error))?),
            clock,
            group: Some(MembershipOptions {
                group: group.unwrap_or_else(|| format!("annals.{topic}")),
                node: settings.node.clone(),
                session_timeout: settings.session_timeout,
            }),
        })
    }

    /// What the write side needs of it.
    pub(super) fn options(&self) -> ClusterOptions {
        match (&self.identity, &self.group) {
            (Some(identity), Some(group)) => ClusterOptions {
                peers: Arc::new(HttpPeers::new(identity.clone(), PeersOptions::default())),
                group: Some(group.clone()),
                clock: self.clock.clone(),
            },
            _ => ClusterOptions::alone(),
        }
    }

    /// What it does for the others.
    pub(super) fn serving(&self, engine: &Engine) -> Option<Server> {
        let identity = self.identity.clone()?;
        let service = Arc::new(engine.clone());
        Some(Server::new(service, identity, ServerOptions::default()))
    }
}
