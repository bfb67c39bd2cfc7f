//! A proxy in front of a server, with which tests hold, lose, delay and cut the traffic.
//!
//! In front of a broker, the proxy understands Kafka's framing, so it can choose messages by kind
//! and by client. Invariants: without an imposition, every byte passes unchanged and in order. Held
//! messages keep their order and are delivered when they are released, even if the client is gone
//! by then; that is how records land late. Deliberately absent: which fault comes when (`faults`).

mod frames;
mod impositions;
mod pumps;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::frames::Framing;
use self::impositions::Impositions;
pub use self::impositions::{ApiKey, Deed, Direction, Messages};

/// What a cut does to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cut {
    /// Nothing.
    #[default]
    No,
    /// The client sees its connection end; held requests stay, and are delivered when they are
    /// released.
    ClientSide,
    /// Both sides see the connection end; held messages are lost.
    BothSides,
}

/// A proxy on a port of its own; the proxy and its connections end on drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    framing: Framing,
    impositions: watch::Sender<Impositions>,
    connections: Mutex<Connections>,
    held: AtomicUsize,
}

#[derive(Debug, Default)]
struct Connections {
    last: u64,
    open: BTreeMap<u64, watch::Sender<Cut>>,
}

/// An imposition on a proxy's traffic; a drop lifts it.
#[must_use = "what is imposed ends when this is dropped"]
#[derive(Debug)]
pub struct Imposed {
    shared: Weak<Shared>,
    id: u64,
}

impl Imposed {
    /// Keeps the messages that are held now and lets later ones pass, so that what a client sends
    /// again overtakes what it sent first.
    pub fn take_no_more(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared
                .impositions
                .send_modify(|impositions| impositions.close(self.id));
        }
    }
}

impl Drop for Imposed {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared
                .impositions
                .send_modify(|impositions| impositions.lift(self.id));
        }
    }
}

/// The proxies have a runtime of their own: a test may have none, or a busy one.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("a thread can be started")
    })
}

impl Proxy {
    /// Starts a proxy in front of `target`, which need not listen yet.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn before(target: SocketAddr, framing: Framing) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, target, framing)
    }

    /// Does the same as [`Self::before`], at another address of this machine.
    ///
    /// # Panics
    /// If no port is free, or the address is not one of this machine's.
    #[must_use]
    pub fn at(address: Ipv4Addr, target: SocketAddr, framing: Framing) -> Self {
        // The port is bound at once and for good, so any port will do.
        let listener = std::net::TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has one");
        listener
            .set_nonblocking(true)
            .expect("a socket of ours takes it");
        let (impositions, _) = watch::channel(Impositions::default());
        let shared = Arc::new(Shared {
            target,
            framing,
            impositions,
            connections: Mutex::default(),
            held: AtomicUsize::new(0),
        });
        let accepting = runtime().spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// The address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies `deed` to all chosen messages until the returned value is dropped; also to messages
    /// that another imposition holds or delays now.
    pub fn impose(&self, messages: Messages, deed: Deed) -> Imposed {
        self.change(|impositions| impositions.impose(messages, deed))
    }

    /// Closes new connections at once, until the returned value is dropped.
    pub fn refuse(&self) -> Imposed {
        self.change(Impositions::refuse)
    }

    fn change(&self, change: impl FnOnce(&mut Impositions) -> u64) -> Imposed {
        let mut id = 0;
        self.shared
            .impositions
            .send_modify(|impositions| id = change(impositions));
        Imposed {
            shared: Arc::downgrade(&self.shared),
            id,
        }
    }

    /// Cuts all open connections, and returns how many there were.
    pub fn cut(&self, cut: Cut) -> usize {
        let connections = self.shared.connections();
        for connection in connections.open.values() {
            connection.send_replace(cut);
        }
        connections.open.len()
    }

    /// How many connections are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections().open.len()
    }

    /// How many messages are held now; further messages of their connections wait behind them.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut(Cut::BothSides);
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> (u64, watch::Receiver<Cut>) {
        let (sender, receiver) = watch::channel(Cut::No);
        let mut connections = self.connections();
        connections.last += 1;
        let id = connections.last;
        connections.open.insert(id, sender);
        (id, receiver)
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    loop {
        // A failed accept means that the client went away, or that too many files were open for a
        // moment.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if shared.impositions.borrow().refuses() {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(shared.target).await {
                // Do not delay small messages.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (id, cut) = shared.register();
                pumps::pump(client, server, &shared, cut).await;
                shared.connections().open.remove(&id);
            }
        });
    }
}
