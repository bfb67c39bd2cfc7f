//! A leader that was suspended while another one was elected, and that does not know this yet.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::log::{Appender, EventLog, LogAddress, StoreOptions, create_store, open};
use futures::future::join_all;
use position::{Offset, Partition};
use tests::harness::kafka::cluster::KafkaCluster;
use tokio::sync::oneshot;

use super::{PATIENCE, numbered};

const TOPIC: &str = "records";
const ROUNDS: u64 = 3;
/// How many requests go through clients that know the old leader.
const CLIENTS: usize = 8;

/// Appends a record with retries, and returns its offset once a leader has acknowledged it.
async fn append(appender: &dyn Appender, number: u64) -> Offset {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let session = appender.session().unwrap();
        let (told, result) = oneshot::channel();
        let done = Box::new(move |result| drop(told.send(result)));
        session
            .append(Partition(0), &numbered(number), done)
            .unwrap();
        match result.await.unwrap() {
            Ok(appended) => return appended.offset.unwrap(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn look(log: Arc<dyn EventLog>, offset: Offset) -> (Offset, bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match log.look(Partition(0), offset).await {
            Ok((end, found)) => return (end, found.is_some()),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_deposed_leader_does_not_know_is_not_reported_as_lost() {
    let cluster = KafkaCluster::start(&[Ipv4Addr::LOCALHOST]);
    let address: LogAddress = format!("kafka://{}/{TOPIC}", cluster.bootstrap())
        .parse()
        .unwrap();
    let options = StoreOptions {
        partition_count: 1,
        replication: 3,
    };
    create_store(&address, options).await.unwrap();
    let writing = open(&address).await.unwrap();
    let appender = writing.appender().await.unwrap();
    append(&*appender, ROUNDS).await;
    for round in 0..ROUNDS {
        cluster.wait_whole();
        let log = open(&address).await.unwrap();
        // Let each client of the log learn who leads.
        let asked = (0..CLIENTS).map(|_| log.bounds(Partition(0)));
        join_all(asked).await;
        let leader = cluster.leaders(TOPIC).unwrap()[0].expect("a leader");
        cluster.pause(leader);
        let offset = append(&*appender, round).await;
        let looking = (0..CLIENTS).map(|_| tokio::spawn(look(Arc::clone(&log), offset)));
        let looking: Vec<_> = looking.collect();
        // The requests must reach the old leader before it goes on.
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.resume(leader);
        for looked in join_all(looking).await {
            let (end, is_there) = looked.unwrap();
            assert!(
                is_there,
                "{offset} was acknowledged; the log was said to end at {end}"
            );
        }
    }
}
