//! Authenticates peers: one header, `Annals-Peer`, on every request from node to node.
//!
//! The header holds the time, a nonce, the log, the sender's name, and an HMAC-SHA256 over these,
//! the method, the path and the address of the receiving node. Invariant: a header is valid for one
//! request to one node, once. A header with another method, path, log or node, with a time that
//! differs by more than a minute, or with a known nonce is refused. The time is that of the log's
//! brokers, so that a node with a wrong clock can still reach the others. Deliberately absent:
//! secrecy, and protection of the body: the network (or a tunnel) must keep out anyone who can
//! change the traffic between nodes. Without a secret the key is derived from the log's public id,
//! so that nodes on one machine need no setup; this keeps out mistakes, not other users of the
//! machine.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};
use door::Problem;
use engine::clock::LogClock;
use hmac::{Hmac, KeyInit, Mac};
use position::LogId;
use sha2::Sha256;
use uuid::Uuid;

use super::code;

/// The header that authenticates the sender.
pub(super) const PEER: HeaderName = HeaderName::from_static("annals-peer");

/// The version of the header's form, which also covers what the HMAC is computed over.
const FORM: &str = "v1";
/// The first bytes under the HMAC.
const LABEL: &[u8] = b"annals.peer.v1";
/// The first bytes from which a key without a secret is derived.
const OPEN_LABEL: &[u8] = b"annals.peer.open.v1";
/// The fewest bytes of a secret.
const SECRET_SIZE_MIN: usize = 16;
/// The most that two nodes' clocks may differ.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// A node that has just started knows no nonces. So it accepts no header made before its start,
/// except for this slack for the rounding of clocks.
const START_SLACK: Duration = Duration::from_millis(50);
/// How long a nonce must be remembered: while its time is within the allowed skew, in both
/// directions.
const NONCE_LIFE: Duration = Duration::from_secs(120);
/// The most nonces that are remembered. Each request needs one; a link is one request, however long
/// it lives.
const NONCES_MAX: usize = 65_536;

/// The secret that the nodes of one cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The text is too short for a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret needs at least {SECRET_SIZE_MIN} bytes; this one has {size}")]
pub struct SecretTooShort {
    /// Its size in bytes.
    pub size: usize,
}

impl Secret {
    /// A secret; white space around it, such as a file's last line break, is removed.
    ///
    /// # Errors
    /// [`SecretTooShort`].
    pub fn new(text: &str) -> Result<Self, SecretTooShort> {
        let text = text.trim();
        match text.len() {
            size if size < SECRET_SIZE_MIN => Err(SecretTooShort { size }),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why the configuration does not let nodes talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "without a cluster secret, nodes talk to each other on loopback only, and {address} is not a \
     loopback address"
)]
pub struct Unprotected {
    /// The address on which the node listens, or which it advertises.
    pub address: String,
}

/// The key with which headers are made and checked.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key of nodes that share `secret`, or of nodes on one machine: without a secret, both
    /// `listen` and the advertised `address` must be loopback addresses.
    ///
    /// # Errors
    /// [`Unprotected`].
    pub fn of(
        secret: Option<&Secret>,
        log: LogId,
        listen: SocketAddr,
        address: &str,
    ) -> Result<Self, Unprotected> {
        if let Some(secret) = secret {
            return Ok(Self::from_bytes(secret.0.as_bytes()));
        }
        let unprotected = |address: String| Err(Unprotected { address });
        if !listen.ip().is_loopback() {
            return unprotected(listen.to_string());
        }
        if !is_loopback(address) {
            return unprotected(address.to_owned());
        }
        Ok(Self::from_bytes(&[OPEN_LABEL, log.0.as_bytes()].concat()))
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("a key may have any length"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// Whether an advertised address is certainly on this machine; no resolver is asked.
#[must_use]
pub fn is_loopback(address: &str) -> bool {
    let Ok(authority) = authority_of(address) else {
        return false;
    };
    let host = authority
        .rsplit_once(':')
        .map_or(&*authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The text is not a node's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node's address must be http://HOST:PORT, not {address:?}")]
pub struct AddressError {
    /// The text.
    pub address: String,
}

/// `HOST:PORT` from `http://HOST:PORT`, in lower case.
///
/// # Errors
/// [`AddressError`].
pub fn authority_of(address: &str) -> Result<String, AddressError> {
    let parsed = address.parse::<Uri>().ok().filter(|uri| {
        uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none()
    });
    let authority = parsed.as_ref().and_then(Uri::authority);
    match authority {
        Some(authority) if authority.port_u16().is_some() && !authority.as_str().contains('@') => {
            Ok(authority.as_str().to_ascii_lowercase())
        }
        _ => Err(AddressError {
            address: address.to_owned(),
        }),
    }
}

/// A node's identity among its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) node: String,
    pub(super) log: LogId,
    authority: String,
    key: Key,
    clock: LogClock,
}

impl Identity {
    /// The identity of the node `node` on `log`; other nodes reach it at `address`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(
        node: impl Into<String>,
        address: &str,
        log: LogId,
        key: Key,
    ) -> Result<Self, AddressError> {
        Ok(Self {
            node: node.into(),
            log,
            authority: authority_of(address)?,
            key,
            clock: LogClock::default(),
        })
    }

    /// The same identity with the clock that this node's engine keeps.
    #[must_use]
    pub fn by(self, clock: LogClock) -> Self {
        Self { clock, ..self }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: Instant::now(),
            unix_ms: i128::from(self.clock.now().micros() / 1_000),
        }
    }

    /// The header of one request to the node at `authority`.
    pub(super) fn header(&self, method: &Method, path: &str, authority: &str) -> String {
        let parts = Parts {
            time_ms: u64::try_from(self.now().unix_ms).unwrap_or(0),
            nonce: Uuid::new_v4(),
            log: self.log,
            node: self.node.clone(),
        };
        let code = parts.code(&self.key, method, path, authority);
        let code = hex::encode(code.finalize().into_bytes());
        let (log, node) = (parts.log, hex::encode(&parts.node));
        format!(
            "{FORM} {} {} {log} {node} {code}",
            parts.time_ms, parts.nonce
        )
    }
}

/// The fields of a header.
struct Parts {
    time_ms: u64,
    nonce: Uuid,
    log: LogId,
    node: String,
}

impl Parts {
    /// A header's fields and its HMAC; none if the header has another form.
    fn read(text: &str) -> Option<(Self, Vec<u8>)> {
        let mut words = text.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let parts = Self {
            time_ms: words.next()?.parse().ok()?,
            nonce: words.next()?.parse().ok()?,
            log: LogId(words.next()?.parse().ok()?),
            node: String::from_utf8(hex::decode(words.next()?).ok()?).ok()?,
        };
        let code = hex::decode(words.next()?).ok()?;
        words.next().is_none().then_some((parts, code))
    }

    /// The HMAC over all fields. Each field is preceded by its length, so that no two requests give
    /// the same input.
    fn code(&self, key: &Key, method: &Method, path: &str, authority: &str) -> Hmac<Sha256> {
        let mut code = key.0.clone();
        let time = self.time_ms.to_be_bytes();
        for part in [
            LABEL,
            method.as_str().as_bytes(),
            path.as_bytes(),
            authority.as_bytes(),
            &time,
            self.nonce.as_bytes(),
            self.log.0.as_bytes(),
            self.node.as_bytes(),
        ] {
            code.update(&(part.len() as u64).to_be_bytes());
            code.update(part);
        }
        code
    }
}

/// Checks the headers of requests to this node.
pub(super) struct Guard {
    identity: Identity,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    nonces: HashSet<Uuid>,
    order: VecDeque<(Instant, Uuid)>,
}

/// The present time on two clocks: this process's monotonic clock, and the log's.
#[derive(Clone, Copy)]
pub(super) struct Now {
    monotonic: Instant,
    unix_ms: i128,
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
}

impl Guard {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            started: Instant::now(),
            seen: Mutex::default(),
        }
    }

    /// The present time by the node's clocks.
    pub(super) fn now(&self) -> Now {
        self.identity.now()
    }

    /// The name of the sending node, if it is a peer.
    ///
    /// # Errors
    /// `log_differs`, or `peer_refused`.
    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        now: Now,
    ) -> Result<String, Problem> {
        let Some(text) = door::header::single(headers, &PEER)? else {
            return Err(refused("Annals-Peer is missing"));
        };
        let (parts, code) = Parts::read(text)
            .ok_or_else(|| refused("Annals-Peer has a form that this node does not know"))?;
        // Checked before the HMAC, since without a secret the key depends on the log's id. The id
        // is public.
        if parts.log != self.identity.log {
            let detail = format!("this node serves log {}", self.identity.log);
            return Err(Problem::new(code::LOG_DIFFERS, detail));
        }
        let Identity { key, authority, .. } = &self.identity;
        // Compares in constant time.
        let is_genuine = parts.code(key, method, path, authority).verify_slice(&code);
        if is_genuine.is_err() {
            return Err(refused(
                "the cluster secret differs, or the request was meant for another node or route",
            ));
        }
        self.check_time(parts.time_ms, now)?;
        self.take_nonce(parts.nonce, now.monotonic)?;
        Ok(parts.node)
    }

    fn check_time(&self, time_ms: u64, now: Now) -> Result<(), Problem> {
        let age_ms = now.unix_ms - i128::from(time_ms);
        let skew_max_ms = millis(CLOCK_SKEW_MAX);
        if age_ms.abs() > skew_max_ms {
            return Err(refused("the clocks differ by more than a minute"));
        }
        let up = now.monotonic.saturating_duration_since(self.started) + START_SLACK;
        if age_ms > millis(up) {
            return Err(refused("Annals-Peer was made before this node started"));
        }
        Ok(())
    }

    fn take_nonce(&self, nonce: Uuid, now: Instant) -> Result<(), Problem> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, old)) = seen.order.front().copied()
            && now.saturating_duration_since(at) > NONCE_LIFE
        {
            seen.order.pop_front();
            seen.nonces.remove(&old);
        }
        if seen.order.len() >= NONCES_MAX {
            // Forgetting a nonce early would let its header be used again.
            let detail = "peers send too many requests";
            return Err(Problem::new(code::LINKS_EXHAUSTED, detail).retry_after(NONCE_LIFE));
        }
        if !seen.nonces.insert(nonce) {
            return Err(refused("Annals-Peer was already used"));
        }
        seen.order.push_back((now, nonce));
        Ok(())
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(code::PEER_REFUSED, why).header(header::WWW_AUTHENTICATE, "Annals-Peer")
}

#[cfg(test)]
mod tests;
