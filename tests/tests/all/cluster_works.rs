//! The harness's brokers replicate, elect and refuse as a real cluster does, and each party can be
//! cut off alone.

use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tests::harness::kafka::cluster::{BrokerIndex, KafkaCluster};
use tests::harness::proxy::{ApiKey, Deed, Direction, Messages};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
const WAIT: Duration = Duration::from_secs(30);

type Delivered = Result<i64, KafkaError>;

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sender<Delivered>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        let delivered = result.as_ref().map(Message::offset);
        let _ = told.send(delivered.map_err(|(error, _)| error.clone()));
    }
}

type Producer = ThreadedProducer<Deliveries>;

fn producer(bootstrap: &str, timeout_ms: &str) -> Producer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("reconnect.backoff.max.ms", "100")
        .set("message.timeout.ms", timeout_ms);
    config.create_with_context(Deliveries).unwrap()
}

fn send(producer: &Producer, partition: i32) -> Receiver<Delivered> {
    let (told, delivered) = channel();
    let record = BaseRecord::<str, str, _>::with_opaque_to(TOPIC, Box::new(told))
        .partition(partition)
        .payload("placed");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    delivered
}

fn produce(producer: &Producer, partition: i32) -> Delivered {
    send(producer, partition).recv_timeout(WAIT).unwrap()
}

/// Writes one record into each partition, and waits for the acknowledgements.
fn produce_everywhere(producer: &Producer) {
    for partition in 0..PARTITIONS {
        produce(producer, partition).unwrap();
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "did not become true in {WAIT:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_replicate_elect_and_refuse_and_parties_are_cut_off_one_by_one() {
    let began = Instant::now();
    let cluster = KafkaCluster::start(&[Ipv4Addr::LOCALHOST; 2]);
    println!("three brokers are up after {:?}", began.elapsed());
    cluster.create_topic(TOPIC, PARTITIONS, &[]).await;
    cluster.wait_whole();
    let (first, second) = (
        producer(&cluster.route(0).bootstrap(), "30000"),
        producer(&cluster.route(1).bootstrap(), "30000"),
    );
    produce_everywhere(&first);
    produce_everywhere(&second);

    // Leaders move on request.
    let before = cluster.leaders(TOPIC).unwrap();
    let began = Instant::now();
    cluster.move_leaders(TOPIC).unwrap();
    wait_until("every partition has another leader", || {
        let after = cluster.leaders(TOPIC).unwrap();
        std::iter::zip(&before, &after).all(|(before, after)| after.is_some() && before != after)
    });
    println!("all leaders moved after {:?}", began.elapsed());
    produce_everywhere(&first);

    // One party's requests are held; the other party does not notice.
    let held: Vec<_> = cluster
        .route(0)
        .all()
        .iter()
        .map(|proxy| {
            let requests = Messages::all(Direction::Requests).of(ApiKey::PRODUCE);
            proxy.impose(requests, Deed::Hold)
        })
        .collect();
    let waiting = send(&first, 0);
    wait_until("the request is held", || {
        cluster.route(0).all().iter().any(|proxy| proxy.held() > 0)
    });
    produce_everywhere(&second);
    assert!(
        waiting.try_recv().is_err(),
        "a held request was acknowledged"
    );
    drop(held);
    waiting.recv_timeout(WAIT).unwrap().unwrap();

    // The cluster works without one broker. Without two, it acknowledges no record, because only
    // one broker would have it.
    let gone = BrokerIndex(0);
    cluster.kill9(gone);
    produce_everywhere(&first);
    cluster.pause(BrokerIndex(1));
    let hasty = producer(cluster.bootstrap(), "3000");
    let error = produce(&hasty, 0).unwrap_err();
    assert_eq!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageTimedOut),
        "{error}"
    );
    cluster.resume(BrokerIndex(1));
    let began = Instant::now();
    cluster.restart(gone);
    println!("a killed broker is back after {:?}", began.elapsed());
    produce_everywhere(&first);
    cluster.wait_whole();
    println!("and all replicas are in sync after {:?}", began.elapsed());

    cluster.terminate(BrokerIndex(2));
    produce_everywhere(&second);
}
