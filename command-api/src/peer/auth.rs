//! Who may speak as a peer: one header, `Annals-Peer`, on every request from node to node.
//!
//! It holds the time, a nonce, the log and the sender's name, and an HMAC-SHA256 over them, the
//! method, the path and the address of the node it is for. Invariant: a header opens one request on
//! one node, once: another method, path, log or node, a time that differs by more than a minute, or
//! a nonce that was seen before is refused. Time is the log's brokers', so that a node whose clock is
//! wrong still is a way to the others. Deliberately absent: secrecy, and protection of what is
//! in the body: whoever can change what travels between nodes is kept out by the network (or by a
//! tunnel), not here. Without a secret the key follows from the log's public id, so that nodes on
//! one machine need no setup; that keeps out mistakes, not other users of the machine.

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

/// The header that says who asks.
pub(super) const PEER: HeaderName = HeaderName::from_static("annals-peer");

/// The form of the header, and of what the code covers.
const FORM: &str = "v1";
/// What the code covers begins with this.
const LABEL: &[u8] = b"annals.peer.v1";
/// What a key without a secret begins with.
const OPEN_LABEL: &[u8] = b"annals.peer.open.v1";
/// The fewest bytes of a secret.
const SECRET_SIZE_MIN: usize = 16;
/// How far two nodes' clocks may be apart.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// A node that has just started knows no nonces, so it takes nothing from before its start, but for
/// the rounding of clocks.
const START_SLACK: Duration = Duration::from_millis(50);
/// How long a nonce can be of use: while its time is within the skew, on either side.
const NONCE_LIFE: Duration = Duration::from_secs(120);
/// The most nonces that are remembered; a link needs one, for as long as it lives.
const NONCES_MAX: usize = 65_536;

/// What the nodes of one cluster share, and nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least {SECRET_SIZE_MIN} bytes; this one has {size}")]
pub struct SecretTooShort {
    /// Its size in bytes.
    pub size: usize,
}

impl Secret {
    /// A secret; white space around it, such as a file's last line break, is left out.
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

/// Why nodes may not speak to each other as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "without a cluster secret nodes speak to each other on loopback only, and {address} is another \
     address"
)]
pub struct Unprotected {
    /// The address that is served or advertised.
    pub address: String,
}

/// What headers are made and checked with.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key of nodes that share `secret`, or of nodes on one machine: without a secret, neither
    /// `listen` nor the advertised `address` may be anything but loopback.
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

/// Whether an advertised address is on this machine, whatever resolvers say.
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

/// Why a text is no address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node's address is http://HOST:PORT, not {address:?}")]
pub struct AddressError {
    /// The text.
    pub address: String,
}

/// `HOST:PORT` of `http://HOST:PORT`, in small letters.
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

/// Who a node is among its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) node: String,
    pub(super) log: LogId,
    authority: String,
    key: Key,
    clock: LogClock,
}

impl Identity {
    /// The node of this name, which others reach at `address`, on `log`.
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

    /// The same by another clock: the one that the engine of this node keeps.
    #[must_use]
    pub fn by(self, clock: LogClock) -> Self {
        Self { clock, ..self }
    }

    /// The present moment.
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

/// What a header says.
struct Parts {
    time_ms: u64,
    nonce: Uuid,
    log: LogId,
    node: String,
}

impl Parts {
    /// A header's parts and its code; none where it has another form.
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

    /// The code over everything, each part with its length, so that no two requests look alike.
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

/// A moment on both clocks: the one of this process, and the log's.
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

    /// The present moment, as its node knows it.
    pub(super) fn now(&self) -> Now {
        self.identity.now()
    }

    /// The name of the node that asks, if it is a peer.
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
        let (parts, code) =
            Parts::read(text).ok_or_else(|| refused("Annals-Peer has a form not known here"))?;
        // Before the code, since a key may follow from the log; the id is public.
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
            return Err(refused("it was made before this node started"));
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
            // Forgetting one early would let it in again.
            let detail = "peers ask too often";
            return Err(Problem::new(code::LINKS_EXHAUSTED, detail).retry_after(NONCE_LIFE));
        }
        if !seen.nonces.insert(nonce) {
            return Err(refused("it was used before"));
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
