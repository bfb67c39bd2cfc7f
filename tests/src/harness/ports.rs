//! Free ports for servers that must come back on the same port after a kill.
//!
//! The ports are below the range that systems use for outgoing connections (32768 and up): a port
//! from that range may be taken by the time the server is started again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use rand::RngExt;

const PORTS: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: u32 = 1_000;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port on which nobody listens and that this process has not returned before.
///
/// # Panics
/// If there is no free port.
pub fn free() -> u16 {
    let mut handed_out = HANDED_OUT
        .lock()
        .expect("no test panics while it looks for a port");
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::rng().random_range(PORTS);
        if handed_out.contains(&port) || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        handed_out.insert(port);
        return port;
    }
    panic!("no free port among {PORTS:?} after {ATTEMPTS_MAX} attempts");
}
