//! Nodes that speak to each other over real sockets, with a simple fake behind the routes.
//!
//! Invariant tested: a link keeps the order of its commands and breaks if the other side is gone;
//! only peers are served.

mod fake;
mod links;
mod questions;
mod silence;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use command_api::peer::{
    HttpPeers, Identity, Key, PeersOptions, Secret, Server, ServerOptions, topology_router,
};
use engine::command::Request;
use engine::peers::{CommandForPeer, LinkAnswer, LinkEvent, PeerLink, Peers};
use position::{LogId, Partition};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use fake::Fake;

/// The partition of the links.
const PARTITION: Partition = Partition(3);
/// How long a step may take that should take no time.
const SOON: Duration = Duration::from_secs(10);

fn log(number: u128) -> LogId {
    LogId(Uuid::from_u128(number))
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text).unwrap())
}

fn identity(name: &str, address: &str, secret: Option<&Secret>, log: LogId) -> Identity {
    let listen = "127.0.0.1:1".parse().unwrap();
    let key = Key::of(secret, log, listen, address).unwrap();
    Identity::new(name, address, log, key).unwrap()
}

/// A node that serves on a free port.
struct Node {
    address: String,
    fake: Arc<Fake>,
    server: Server,
}

impl Node {
    async fn start(fake: Fake, secret: Option<Secret>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        Self::on(listener, &address, fake, secret)
    }

    /// Starts a node that others reach at another address than its own.
    fn on(listener: TcpListener, address: &str, fake: Fake, secret: Option<Secret>) -> Self {
        let fake = Arc::new(fake);
        let identity = identity("two", address, secret.as_ref(), log(1));
        let server = Server::new(fake.clone(), identity, ServerOptions::default());
        let router = server.router().merge(topology_router(fake.clone()));
        let forever = std::future::pending();
        let serve = door::serve(listener, door::finish(router), forever, Duration::ZERO);
        tokio::spawn(serve);
        Self {
            address: address.to_owned(),
            fake,
            server,
        }
    }
}

/// The client side of a node.
fn peers(secret: Option<&Secret>) -> HttpPeers {
    let identity = identity("one", "http://127.0.0.1:1", secret, log(1));
    HttpPeers::new(identity, PeersOptions::default())
}

/// An open link and the events on it.
struct Opened {
    link: Box<dyn PeerLink>,
    events: mpsc::UnboundedReceiver<LinkEvent>,
}

impl Opened {
    fn to(peers: &HttpPeers, address: &str) -> Self {
        let (told, events) = mpsc::unbounded_channel();
        let told = move |event| drop(told.send(event));
        Self {
            link: peers.open(address, PARTITION, Box::new(told)),
            events,
        }
    }

    fn send(&self, sequence: u64) {
        self.link.send(command(sequence));
    }

    async fn event(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(SOON, self.events.recv()).await;
        event
            .expect("an event comes soon")
            .expect("the link is not over")
    }

    async fn answer(&mut self) -> (u64, LinkAnswer) {
        match self.event().await {
            LinkEvent::Answer(sequence, answer) => (sequence, answer),
            LinkEvent::Broken(why) => panic!("broken: {why}"),
        }
    }

    /// Waits for the end of the link, skips answers, and returns the reason.
    async fn broken(&mut self) -> String {
        loop {
            if let LinkEvent::Broken(why) = self.event().await {
                return why;
            }
        }
    }
}

fn command(sequence: u64) -> CommandForPeer {
    CommandForPeer {
        sequence,
        request: Request {
            tenant: "main".parse().unwrap(),
            stream: format!("order-{}", sequence % 7).parse().unwrap(),
            command: "PlaceOrder".into(),
            schema: None,
            id: format!("k{sequence}").parse().unwrap(),
            occurred_at: None,
            expected_version: None,
            correlation_id: None,
            causation_id: None,
            actor: None,
            trace: None,
            data: RawValue::from_string(format!("{{\n \"text\": \"{}\" }}", "x".repeat(200)))
                .unwrap(),
        },
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

/// The URL of a listener's address.
fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
