//! The kinds of faults: their names, and what each does.
//!
//! Invariant: when an injection returns, whatever it broke is whole again, except what heals by
//! itself (replicas that catch up). Deliberately absent: which fault comes when (`run`).

mod nodes;
mod traffic;
mod world;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::scene::{Node, Scene};

/// How long faults last.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// A length shorter than every timeout.
    pub short: Duration,
    /// A length longer than the sessions of the group and of the brokers.
    pub long_min: Duration,
    /// The greatest length of any fault.
    pub long_max: Duration,
}

impl Lengths {
    /// For a run of a minute or two.
    pub const BRIEF: Self = Self {
        short: Duration::from_millis(500),
        long_min: Duration::from_secs(3),
        long_max: Duration::from_secs(6),
    };
    /// For a long run: the greatest length is beyond the doubt about an append (30 s), too.
    pub const THOROUGH: Self = Self {
        short: Duration::from_millis(500),
        long_min: Duration::from_secs(3),
        long_max: Duration::from_secs(35),
    };

    /// A long length: often close to the minimum, at times the maximum.
    fn long(&self, random: &mut impl Rng) -> Duration {
        let span = self.long_max.saturating_sub(self.long_min);
        let share: f64 = random.random();
        self.long_min + span.mul_f64(share * share * share)
    }
}

/// The result of an injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injected {
    /// The fault was made and is over.
    Made,
    /// The victim is broken by another fault already.
    Busy,
    /// This machine does not allow the fault.
    Impossible(String),
}

macro_rules! faults {
    ($($variant:ident = ($name:literal, $about:literal)),+ $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $(#[doc = $about] $variant,)+
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The fault's name in tables and arguments.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What the fault does.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)+
                }
            }
        }
    };
}

faults! {
    NodeKill = ("node-kill", "A node is killed (SIGKILL) and started again."),
    NodePauseShort = ("node-pause-short", "A node stands still (SIGSTOP) for less than any timeout."),
    NodePauseLong = ("node-pause-long", "A node stands still (SIGSTOP) for longer than its session."),
    NodeStop = ("node-stop", "A node is asked to end (SIGTERM) and started again."),
    BrokerKill = ("broker-kill", "A broker is killed (SIGKILL) and started again."),
    BrokerStop = ("broker-stop", "A broker is asked to end (SIGTERM) and started again."),
    BrokerPause = ("broker-pause", "A broker stands still (SIGSTOP)."),
    LeadersMove = ("leaders-move", "Every partition gets another leader."),
    IsrBelowMinimum = ("isr-below-minimum", "Two of three brokers stand still: nothing can be acknowledged."),
    ConnectionsCut = ("connections-cut", "All of a node's connections to the brokers are cut."),
    ConnectionsRefused = ("connections-refused", "A node's connections are cut and new ones refused."),
    ProduceHeld = ("produce-held", "A node's records are held, its connection is cut, and they land late."),
    AnswersHeld = ("answers-held", "The answers to a node's records are held, and come later."),
    AnswersLost = ("answers-lost", "The answers to a node's records are lost, and then its connections."),
    TrafficSlow = ("traffic-slow", "All a node asks of the brokers takes long."),
    OneWayToBrokers = ("one-way-to-brokers", "Nothing of a node reaches the brokers; what they say reaches it."),
    OneWayToNode = ("one-way-to-node", "What a node says reaches the brokers; nothing of them reaches it."),
    PeersCut = ("peers-cut", "All connections of other nodes to a node are cut."),
    PeersHeld = ("peers-held", "Nothing that other nodes say reaches a node; what it says reaches them."),
    PeersAnswersHeld = ("peers-answers-held", "What other nodes say reaches a node; its answers do not reach them."),
    PacketsFromNode = ("packets-from-node", "Every packet of a node is lost; those to it arrive."),
    PacketsToNode = ("packets-to-node", "Every packet to a node is lost; its own arrive."),
    PacketsBothWays = ("packets-both-ways", "A node is cut off: every packet is lost."),
    PostgresKill = ("postgres-kill", "The Postgres is killed (SIGKILL) and started again."),
    DiskFull = ("disk-full", "A node's disk is full."),
    FilesFull = ("files-full", "A node cannot open another file or connection."),
    MemoryShort = ("memory-short", "A node gets no more memory, and is ended if it needs some."),
    ClockJump = ("clock-jump", "A node's wall clock jumps, and jumps back."),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|fault| fault.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!(
                "no fault is called {text:?}; there are {}",
                names.join(", ")
            )
        })
    }
}

impl Fault {
    /// Injects the fault into a random victim, and returns when it is over.
    pub async fn inject(
        self,
        scene: &Arc<Scene>,
        lengths: &Lengths,
        random: &mut StdRng,
    ) -> Injected {
        let node = Arc::clone(&scene.nodes[random.random_range(0..scene.nodes.len())]);
        match self {
            Self::NodeKill => nodes::kill(&node, random).await,
            Self::NodePauseShort => nodes::pause(&node, lengths.short).await,
            Self::NodePauseLong => nodes::pause(&node, lengths.long(random)).await,
            Self::NodeStop => nodes::stop(&node, random).await,
            Self::BrokerKill => world::broker_kill(scene, random).await,
            Self::BrokerStop => world::broker_stop(scene, random).await,
            Self::BrokerPause => world::brokers_pause(scene, 1, lengths.long(random), random).await,
            Self::LeadersMove => world::leaders_move(scene).await,
            Self::IsrBelowMinimum => {
                world::brokers_pause(scene, 2, lengths.long(random), random).await
            }
            Self::ConnectionsCut => traffic::cut(scene, &node),
            Self::ConnectionsRefused => traffic::refuse(scene, &node, lengths.long(random)).await,
            Self::ProduceHeld => traffic::hold_produce(scene, &node, lengths, random).await,
            Self::AnswersHeld => traffic::hold_answers(scene, &node, lengths.long(random)).await,
            Self::AnswersLost => traffic::lose_answers(scene, &node, lengths.long(random)).await,
            Self::TrafficSlow => traffic::slow(scene, &node, lengths.long(random), random).await,
            Self::OneWayToBrokers => {
                traffic::one_way(scene, &node, traffic::Lost::Requests, lengths.long(random)).await
            }
            Self::OneWayToNode => {
                traffic::one_way(scene, &node, traffic::Lost::Answers, lengths.long(random)).await
            }
            Self::PeersCut => traffic::cut_peers(&node),
            Self::PeersHeld => {
                traffic::hold_peers(&node, traffic::Lost::Requests, lengths.long(random)).await
            }
            Self::PeersAnswersHeld => {
                traffic::hold_peers(&node, traffic::Lost::Answers, lengths.long(random)).await
            }
            Self::PacketsFromNode => {
                nodes::lose_packets(&node, nodes::Packets::From, lengths.long(random)).await
            }
            Self::PacketsToNode => {
                nodes::lose_packets(&node, nodes::Packets::To, lengths.long(random)).await
            }
            Self::PacketsBothWays => {
                nodes::lose_packets(&node, nodes::Packets::All, lengths.long(random)).await
            }
            Self::PostgresKill => world::postgres_kill(scene, random).await,
            Self::DiskFull => nodes::disk_full(&node, lengths.long(random)).await,
            Self::FilesFull => nodes::files_full(&node, lengths.long(random)).await,
            Self::MemoryShort => nodes::memory_short(&node, lengths.long(random)).await,
            Self::ClockJump => nodes::clock_jump(last(scene), lengths.long(random), random).await,
        }
    }
}

/// The node that has a clock of its own.
fn last(scene: &Scene) -> &Arc<Node> {
    scene.nodes.last().expect("a scene has nodes")
}

/// Runs blocking work on a thread that may block.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(act).await;
    done.expect("what is broken can be mended")
}

/// A pause before something is started again: sometimes none, sometimes long enough for others to
/// notice.
async fn a_while(random: &mut impl Rng) {
    let pause = random.random_range(0..2_000);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}
