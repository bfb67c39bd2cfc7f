//! Many nodes on one log: who should own a partition, who is said to own it, and how a node asks
//! another. Traits and values only; each log and each transport brings its own implementation.
//!
//! Invariant: nothing here decides who owns. The log does, by claims; what is said here is a wish
//! (membership) or a hint (directory), and a wrong one costs time, never truth. Deliberately
//! absent: HTTP, and Kafka's words for these things.

mod directory;
mod membership;
mod peers;

pub use directory::{Directory, Hint, Known, NoDirectory, NodeEntry};
pub use membership::{Assignment, Everything, Membership, MembershipOptions};
pub use peers::{
    AcceptedLink, CommandForPeer, LinkAnswer, LinkEvent, LinkId, NoPeers, PeerError, PeerLink,
    PeerService, Peers, Topology,
};
