//! Attacks by a hostile client on a node, and their effect on all other clients.
//!
//! Each attack runs in a process of its own against a node of its own (embedded log, real Postgres,
//! `memory_mb` 512), for a bounded time and on loopback only. Meanwhile the node's memory and its
//! health routes are watched, and polite clients go on working. Deliberately absent: attacks on the
//! log or on brokers; those are faults.

mod answers;
mod bodies;
mod commands;
mod connections;
pub mod measure;
mod node;
mod polite;
mod watch;
mod wire;

use std::time::Duration;

use futures::future::BoxFuture;

/// One attack.
pub struct Attack {
    /// The attack's name.
    pub name: &'static str,
    /// What the attacker does.
    pub what: &'static str,
    /// How the node is started.
    pub node: NodeKind,
    perform: fn(Target) -> BoxFuture<'static, ()>,
}

/// How the node under attack is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// With default settings.
    Plain,
    /// With at most 1,024 open files.
    FewFiles,
    /// With stderr on a full disk, and with a verbose log.
    FullStderr,
}

/// The node that is attacked, and for how long.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub authority: String,
    /// A stream whose state and events are large.
    pub large: String,
    /// How long the attack lasts.
    pub length: Duration,
}

macro_rules! attacks {
    ($($name:literal, $node:ident, $perform:path, $what:literal;)+) => {
        /// Every attack.
        pub const ATTACKS: &[Attack] = &[$(Attack {
            name: $name,
            what: $what,
            node: NodeKind::$node,
            perform: |target| Box::pin($perform(target)),
        }),+];
    };
}

attacks! {
    "idle", FewFiles, connections::idle,
        "940 connections that say nothing, 1,024 open files";
    "heads", Plain, connections::heads,
        "1,000 requests whose heads never end, 400 kB each";
    "trickle", Plain, connections::trickle,
        "1,000 heads that come byte by byte";
    "storm", Plain, connections::storm,
        "connections opened and dropped as fast as it goes";
    "lines", Plain, bodies::lines,
        "2,000 batches with a line that never ends, 250 kB each";
    "slow-bodies", Plain, bodies::slow,
        "1,000 commands whose bodies come byte by byte";
    "promised-bodies", Plain, bodies::promised,
        "1,000 commands that announce 256 kB and send nothing";
    "resting", Plain, bodies::resting,
        "1,000 batches without a line";
    "state", Plain, answers::state,
        "20 readers of a large state that never read";
    "events", Plain, answers::events,
        "300 readers of many events that never read";
    "refusals", Plain, commands::refusals,
        "one connection that sends batches of commands that are refused";
    "one-stream", Plain, commands::one_stream,
        "8 connections that fill one stream with 9 kB reviews";
    "stderr", FullStderr, commands::noise,
        "requests that are logged, while stderr is on a full disk";
}

/// The attack with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}

impl Attack {
    /// Runs the attack in this process until its time is over.
    pub async fn perform(&self, target: Target) {
        let length = target.length;
        // An attack may end earlier by itself; that is no error.
        let _ = tokio::time::timeout(length, (self.perform)(target)).await;
    }
}
