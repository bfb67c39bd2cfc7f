//! The program's own waits take the place of libc's, for Kafka's client library, too.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Else a program would be linked in a way that leaves libc's in place, and nobody would know.
#[test]
fn the_client_librarys_waits_come_here() {
    let before = cli::waits::count();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .create()
        .unwrap();
    // Nobody is there: it waits until its time is over.
    let _ = consumer.fetch_metadata(None, Duration::from_millis(50));
    assert!(cli::waits::count() > before);
}
