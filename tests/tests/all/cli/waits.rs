//! The program's own wait functions replace libc's, for Kafka's client library, too.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Otherwise a program could be linked in a way that keeps libc's functions, and nobody would
/// notice.
#[test]
fn the_client_library_waits_through_the_programs_functions() {
    let before = host::waits::count();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .create()
        .unwrap();
    // No broker listens there, so the client waits until its timeout.
    let _ = consumer.fetch_metadata(None, Duration::from_millis(50));
    assert!(host::waits::count() > before);
}
