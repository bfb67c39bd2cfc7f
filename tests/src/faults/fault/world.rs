//! Faults of what all nodes share: the brokers and Postgres.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::{Injected, a_while, blocking};
use crate::faults::scene::Scene;
use crate::harness::kafka::cluster::{BROKERS, BrokerIndex};

fn any_broker(random: &mut impl Rng) -> BrokerIndex {
    BrokerIndex(random.random_range(0..BROKERS))
}

pub(super) async fn broker_kill(scene: &Arc<Scene>, random: &mut StdRng) -> Injected {
    let broker = any_broker(random);
    let Some(_held) = scene.hold_broker(broker) else {
        return Injected::Busy;
    };
    scene.cluster.kill9(broker);
    a_while(random).await;
    let scene = Arc::clone(scene);
    blocking(move || scene.cluster.restart(broker)).await;
    Injected::Made
}

pub(super) async fn broker_stop(scene: &Arc<Scene>, random: &mut StdRng) -> Injected {
    let broker = any_broker(random);
    let Some(_held) = scene.hold_broker(broker) else {
        return Injected::Busy;
    };
    let ending = Arc::clone(scene);
    blocking(move || ending.cluster.terminate(broker)).await;
    a_while(random).await;
    let scene = Arc::clone(scene);
    blocking(move || scene.cluster.restart(broker)).await;
    Injected::Made
}

pub(super) async fn brokers_pause(
    scene: &Arc<Scene>,
    count: usize,
    length: Duration,
    random: &mut StdRng,
) -> Injected {
    let first = any_broker(random);
    let victims: Vec<BrokerIndex> = (0..count)
        .map(|next| BrokerIndex((first.0 + next) % BROKERS))
        .collect();
    let held: Option<Vec<_>> = victims
        .iter()
        .map(|broker| scene.hold_broker(*broker))
        .collect();
    let Some(_held) = held else {
        return Injected::Busy;
    };
    victims
        .iter()
        .for_each(|broker| scene.cluster.pause(*broker));
    tokio::time::sleep(length).await;
    victims
        .iter()
        .for_each(|broker| scene.cluster.resume(*broker));
    Injected::Made
}

pub(super) async fn leaders_move(scene: &Arc<Scene>) -> Injected {
    let moving = Arc::clone(scene);
    // With too few brokers, leaders cannot move; skip the fault then.
    match blocking(move || moving.cluster.move_leaders(&moving.topic)).await {
        Ok(()) => Injected::Made,
        Err(_) => Injected::Busy,
    }
}

pub(super) async fn postgres_kill(scene: &Arc<Scene>, random: &mut StdRng) -> Injected {
    if scene.postgres_url.is_none() {
        return Injected::Impossible("there is no Postgres in this run".to_owned());
    }
    let Some(_held) = scene.hold_postgres() else {
        return Injected::Busy;
    };
    let ending = Arc::clone(scene);
    blocking(move || ending.with_postgres(|postgres| postgres.kill9())).await;
    a_while(random).await;
    let starting = Arc::clone(scene);
    blocking(move || starting.with_postgres(|postgres| postgres.restart())).await;
    Injected::Made
}
