//! Faults of one node: its process, and its part of the machine.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::{Injected, a_while, blocking};
use crate::faults::scene::{Node, limit_files, open_files};

/// How far a clock jumps, in seconds: within and beyond the minute that an owner tolerates.
const JUMPS_SECONDS: [i64; 6] = [-7_200, -90, -20, 20, 90, 7_200];
/// How long the clock stays wrong, and then right again, so that the node notices each.
const CLOCK_NOTICED: Duration = Duration::from_secs(2);

pub(super) async fn kill(node: &Arc<Node>, random: &mut impl Rng) -> Injected {
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    node.kill9();
    a_while(random).await;
    node.start_again();
    Injected::Made
}

pub(super) async fn stop(node: &Arc<Node>, random: &mut impl Rng) -> Injected {
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    let ending = Arc::clone(node);
    blocking(move || ending.terminate()).await;
    a_while(random).await;
    node.start_again();
    Injected::Made
}

pub(super) async fn pause(node: &Arc<Node>, length: Duration) -> Injected {
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    node.pause();
    tokio::time::sleep(length).await;
    node.resume();
    Injected::Made
}

pub(super) async fn disk_full(node: &Arc<Node>, length: Duration) -> Injected {
    let Some(disk) = &node.disk else {
        return Injected::Impossible("a disk of its own needs root (mount)".to_owned());
    };
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    if let Err(error) = disk.fill() {
        return Injected::Impossible(error.to_string());
    }
    tokio::time::sleep(length).await;
    disk.clear();
    Injected::Made
}

pub(super) async fn files_full(node: &Arc<Node>, length: Duration) -> Injected {
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    let pid = node.pid();
    let before = match limit_files(pid, Some(open_files(pid))) {
        Ok(before) => before,
        Err(error) => return Injected::Impossible(error.to_string()),
    };
    tokio::time::sleep(length).await;
    // If the process has ended meanwhile, its successor has its own limit.
    let _ = limit_files(pid, before);
    Injected::Made
}

pub(super) async fn memory_short(node: &Arc<Node>, length: Duration) -> Injected {
    let Some(memory) = &node.memory else {
        return Injected::Impossible(
            "a bound of its own needs a writable control group".to_owned(),
        );
    };
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    if let Err(error) = memory.squeeze() {
        return Injected::Impossible(error.to_string());
    }
    tokio::time::sleep(length).await;
    match memory.restore() {
        Ok(()) => Injected::Made,
        Err(error) => Injected::Impossible(error.to_string()),
    }
}

pub(super) async fn clock_jump(
    node: &Arc<Node>,
    length: Duration,
    random: &mut StdRng,
) -> Injected {
    let Some(clock) = &node.clock else {
        return Injected::Impossible("a clock of its own needs libfaketime".to_owned());
    };
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    let jump = JUMPS_SECONDS[random.random_range(0..JUMPS_SECONDS.len())];
    if let Err(error) = clock.set(jump) {
        return Injected::Impossible(error.to_string());
    }
    tokio::time::sleep(length.max(CLOCK_NOTICED)).await;
    if let Err(error) = clock.set(0) {
        return Injected::Impossible(error.to_string());
    }
    tokio::time::sleep(CLOCK_NOTICED).await;
    Injected::Made
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packets {
    From,
    To,
    All,
}

pub(super) async fn lose_packets(node: &Arc<Node>, packets: Packets, length: Duration) -> Injected {
    let Some(network) = &node.network else {
        return Injected::Impossible("a network of its own needs root (ip netns)".to_owned());
    };
    let Some(_held) = node.hold() else {
        return Injected::Busy;
    };
    let lost = match packets {
        Packets::From => network.lose_outgoing(),
        Packets::To => network.lose_incoming(),
        Packets::All => network
            .lose_outgoing()
            .and_then(|()| network.lose_incoming()),
    };
    tokio::time::sleep(length).await;
    network.restore();
    match lost {
        Ok(()) => Injected::Made,
        Err(error) => Injected::Impossible(error.to_string()),
    }
}
