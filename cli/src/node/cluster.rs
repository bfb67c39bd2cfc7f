//! This process among the other nodes on its log.
//!
//! Deliberately absent: what nodes say to each other (`command_api`), and who owns (`engine`).

use std::sync::Arc;

use engine::cluster::{MembershipOptions, NoPeers};
use engine::engine::ClusterOptions;
use engine::log::LogAddress;

use crate::settings::Settings;

/// Whom the write side shares the log with: nobody on a file, which has one writer.
pub(super) fn options(settings: &Settings) -> ClusterOptions {
    match &settings.log {
        LogAddress::Sqlite { .. } => ClusterOptions::alone(),
        LogAddress::Kafka { topic, .. } => ClusterOptions {
            peers: Arc::new(NoPeers),
            group: Some(MembershipOptions {
                group: settings
                    .group
                    .clone()
                    .unwrap_or_else(|| format!("annals.{topic}")),
                node: settings.node.clone(),
                session_timeout: settings.session_timeout,
            }),
        },
    }
}
