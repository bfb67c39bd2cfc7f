//! This process as one of the nodes on its log: how it reaches the others, and what it serves to
//! them.
//!
//! Deliberately absent: the messages between nodes (`command_api::peer`), and the ownership of
//! partitions (`engine`).

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

/// How this node takes part among the nodes on its log.
pub(super) struct Membership {
    /// The address at which other nodes reach this one.
    pub(super) address: String,
    identity: Option<Identity>,
    group: Option<MembershipOptions>,
    /// The clock that the engine and the requests between nodes share.
    clock: LogClock,
}

impl Membership {
    /// The membership that the settings describe. A log in a file has one writer, so there are no
    /// other nodes.
    ///
    /// # Errors
    /// `Usage` if the address or the secret is not usable; `Unavailable` if the log does not
    /// answer.
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

    /// The options with which the engine joins the other nodes.
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

    /// The server for requests of other nodes; none for a log in a file.
    pub(super) fn serving(&self, engine: &Engine) -> Option<Server> {
        let identity = self.identity.clone()?;
        let service = Arc::new(engine.clone());
        Some(Server::new(service, identity, ServerOptions::default()))
    }
}
