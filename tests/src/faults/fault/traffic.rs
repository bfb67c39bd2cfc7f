//! Faults on the network between one node and the brokers or the other nodes, made by proxies.
//!
//! Several of these faults may meet on one node, even while its process is broken.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Injected, Lengths};
use crate::faults::scene::{Node, Scene};
use crate::harness::proxy::{ApiKey, Cut, Deed, Direction, Imposed, Messages};

const SLOW_MS: std::ops::Range<u64> = 20..120;

/// The direction in which all messages are held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost {
    Requests,
    Answers,
}

impl Lost {
    fn messages(self) -> Messages {
        Messages::all(match self {
            Self::Requests => Direction::Requests,
            Self::Answers => Direction::Answers,
        })
    }
}

/// Imposes the same deed on a node's messages to and from every broker.
fn impose(scene: &Scene, node: &Node, messages: &Messages, deed: Deed) -> Vec<Imposed> {
    let proxies = scene.route(node).all().iter();
    proxies
        .map(|proxy| proxy.impose(messages.clone(), deed))
        .collect()
}

fn cut_all(scene: &Scene, node: &Node, cut: Cut) {
    for proxy in scene.route(node).all() {
        proxy.cut(cut);
    }
}

pub(super) fn cut(scene: &Scene, node: &Node) -> Injected {
    cut_all(scene, node, Cut::BothSides);
    Injected::Made
}

pub(super) async fn refuse(scene: &Arc<Scene>, node: &Node, length: Duration) -> Injected {
    let proxies = scene.route(node).all().iter();
    let refused: Vec<Imposed> = proxies.map(|proxy| proxy.refuse()).collect();
    cut_all(scene, node, Cut::BothSides);
    tokio::time::sleep(length).await;
    drop(refused);
    Injected::Made
}

/// Cuts the client's connections while its records are held in the proxies. The records land later,
/// possibly after another connection or another node has written.
pub(super) async fn hold_produce(
    scene: &Arc<Scene>,
    node: &Node,
    lengths: &Lengths,
    random: &mut StdRng,
) -> Injected {
    let produce = Messages::all(Direction::Requests).of(ApiKey::PRODUCE);
    let held = impose(scene, node, &produce, Deed::Hold);
    tokio::time::sleep(lengths.short).await;
    if random.random_ratio(1, 2) {
        // The client's retries, on other connections, then overtake the held records.
        held.iter().for_each(Imposed::take_no_more);
    }
    cut_all(scene, node, Cut::ClientSide);
    tokio::time::sleep(lengths.long(random)).await;
    drop(held);
    Injected::Made
}

pub(super) async fn hold_answers(scene: &Arc<Scene>, node: &Node, length: Duration) -> Injected {
    let answers = Messages::all(Direction::Answers).of(ApiKey::PRODUCE);
    let held = impose(scene, node, &answers, Deed::Hold);
    tokio::time::sleep(length).await;
    drop(held);
    Injected::Made
}

pub(super) async fn lose_answers(scene: &Arc<Scene>, node: &Node, length: Duration) -> Injected {
    let answers = Messages::all(Direction::Answers).of(ApiKey::PRODUCE);
    let lost = impose(scene, node, &answers, Deed::Lose);
    tokio::time::sleep(length).await;
    // Cut the connections: otherwise the client would wait for a lost answer until its own timeout.
    cut_all(scene, node, Cut::BothSides);
    drop(lost);
    Injected::Made
}

pub(super) async fn slow(
    scene: &Arc<Scene>,
    node: &Node,
    length: Duration,
    random: &mut StdRng,
) -> Injected {
    let by = random.random_range(SLOW_MS);
    let requests = Messages::all(Direction::Requests);
    let slowed = impose(
        scene,
        node,
        &requests,
        Deed::Delay(Duration::from_millis(by)),
    );
    tokio::time::sleep(length).await;
    drop(slowed);
    Injected::Made
}

/// Holds everything in one direction; connections stay open, as in a network that loses packets.
pub(super) async fn one_way(
    scene: &Arc<Scene>,
    node: &Node,
    lost: Lost,
    length: Duration,
) -> Injected {
    let held = impose(scene, node, &lost.messages(), Deed::Hold);
    tokio::time::sleep(length).await;
    drop(held);
    Injected::Made
}

pub(super) fn cut_peers(node: &Node) -> Injected {
    node.peers.cut(Cut::BothSides);
    Injected::Made
}

/// Does the same as [`one_way`] to the traffic between the other nodes and this one.
pub(super) async fn hold_peers(node: &Node, lost: Lost, length: Duration) -> Injected {
    let held = node.peers.impose(lost.messages(), Deed::Hold);
    tokio::time::sleep(length).await;
    drop(held);
    Injected::Made
}
