//! Which headers open a request, and which do not.

use super::*;

const HERE: &str = "http://127.0.0.1:4747";
const PATH: &str = "/v1/peer/partitions/3/commands";

fn log(number: u128) -> LogId {
    LogId(Uuid::from_u128(number))
}

fn secret() -> Secret {
    Secret::new("0123456789abcdef").unwrap()
}

fn key(secret: Option<&Secret>, log: LogId) -> Key {
    Key::of(secret, log, "127.0.0.1:4747".parse().unwrap(), HERE).unwrap()
}

fn identity(secret: Option<&Secret>) -> Identity {
    Identity::new("öne", HERE, log(1), key(secret, log(1))).unwrap()
}

fn with(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(PEER, value.parse().unwrap())])
}

fn made(identity: &Identity) -> HeaderMap {
    with(&identity.header(&Method::POST, PATH, "127.0.0.1:4747"))
}

fn check(guard: &Guard, headers: &HeaderMap) -> Result<String, Problem> {
    guard.check(&Method::POST, PATH, headers, guard.now())
}

#[track_caller]
fn refuses(checked: Result<String, Problem>, status: u16, words: &str) {
    let problem = checked.unwrap_err();
    assert_eq!(problem.status().as_u16(), status, "{problem:?}");
    assert!(format!("{problem:?}").contains(words), "{problem:?}");
}

#[test]
fn a_peer_is_known_by_name_and_only_once() {
    for secret in [None, Some(secret())] {
        let identity = identity(secret.as_ref());
        let guard = Guard::new(identity.clone());
        let headers = made(&identity);
        assert_eq!(check(&guard, &headers).unwrap(), "öne");
        refuses(check(&guard, &headers), 401, "already used");
        assert!(check(&guard, &made(&identity)).is_ok());
    }
}

#[test]
fn a_header_is_refused_for_another_method_path_or_address() {
    let identity = identity(Some(&secret()));
    let guard = Guard::new(identity.clone());
    let make = |method: Method, path: &str, authority: &str| {
        with(&identity.header(&method, path, authority))
    };
    let here = "127.0.0.1:4747";
    for headers in [
        make(Method::PUT, PATH, here),
        make(Method::POST, "/v1/peer/partitions/4/commands", here),
        make(Method::POST, PATH, "127.0.0.1:4748"),
    ] {
        refuses(check(&guard, &headers), 401, "meant for another");
    }
    refuses(check(&guard, &HeaderMap::new()), 401, "missing");
    for text in ["", "v1", "v2 1 2 3 4 5", "Bearer x"] {
        refuses(check(&guard, &with(text)), 401, "form");
    }
    let good = identity.header(&Method::POST, PATH, here);
    refuses(check(&guard, &with(&format!("{good} x"))), 401, "form");
    // Every field is covered: changing any digit makes the header invalid.
    for at in (0..good.len()).filter(|at| good.as_bytes()[*at].is_ascii_digit()) {
        let mut forged = good.clone().into_bytes();
        forged[at] = if forged[at] == b'9' { b'8' } else { b'9' };
        let forged = with(std::str::from_utf8(&forged).unwrap());
        assert!(check(&guard, &forged).is_err(), "digit {at} of {good}");
    }
    assert!(check(&guard, &with(&good)).is_ok());
}

#[test]
fn another_secret_or_another_log_is_no_peer() {
    let guard = Guard::new(identity(Some(&secret())));
    let other = Secret::new("another secret, long").unwrap();
    refuses(check(&guard, &made(&identity(Some(&other)))), 401, "secret");
    refuses(check(&guard, &made(&identity(None))), 401, "secret");
    for secret in [None, Some(secret())] {
        let guard = Guard::new(identity(secret.as_ref()));
        let elsewhere = key(secret.as_ref(), log(2));
        let elsewhere = Identity::new("öne", HERE, log(2), elsewhere).unwrap();
        refuses(check(&guard, &made(&elsewhere)), 409, "serves log");
    }
}

#[test]
fn clocks_may_differ_by_a_minute_and_no_more() {
    let identity = identity(None);
    let guard = Guard::new(identity.clone());
    let at = |shift_ms: i128, up: Duration| {
        let now = guard.now();
        Now {
            monotonic: now.monotonic + up,
            unix_ms: now.unix_ms + shift_ms,
        }
    };
    let hour = Duration::from_secs(3_600);
    let check = |now| guard.check(&Method::POST, PATH, &made(&identity), now);
    assert!(check(at(-59_000, hour)).is_ok());
    assert!(check(at(59_000, hour)).is_ok());
    refuses(check(at(61_000, hour)), 401, "clocks");
    refuses(check(at(-61_000, hour)), 401, "clocks");
    // After a start the node does not know which nonces were used before.
    refuses(check(at(10_000, Duration::from_secs(1))), 401, "started");
}

#[test]
fn nonces_are_remembered_while_they_are_of_use_and_bounded() {
    let guard = Guard::new(identity(None));
    let now = Instant::now();
    let nonce = Uuid::from_u128;
    for number in 0..NONCES_MAX as u128 {
        guard.take_nonce(nonce(number), now).unwrap();
    }
    let full = guard.take_nonce(nonce(u128::MAX), now).unwrap_err();
    assert_eq!(full.code(), "links_exhausted");
    let later = now + NONCE_LIFE + Duration::from_millis(1);
    guard.take_nonce(nonce(u128::MAX), later).unwrap();
    assert_eq!(guard.seen.lock().unwrap().nonces.len(), 1);
}

#[test]
fn without_a_secret_peers_speak_only_on_loopback() {
    let open = |listen: &str, address: &str| {
        Key::of(None, log(1), listen.parse().unwrap(), address).map(|_| ())
    };
    for address in [
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://LOCALHOST:1/",
    ] {
        assert!(open("127.0.0.1:1", address).is_ok(), "{address}");
        assert!(open("[::1]:1", address).is_ok(), "{address}");
        assert!(open("0.0.0.0:1", address).is_err(), "{address}");
    }
    for address in ["http://10.0.0.1:1", "http://localhost.evil:1", "http://a:1"] {
        let error = open("127.0.0.1:1", address).unwrap_err();
        assert_eq!(error.address, address);
        let secret = secret();
        let listen = "0.0.0.0:1".parse().unwrap();
        assert!(Key::of(Some(&secret), log(1), listen, address).is_ok());
    }
}

#[test]
fn a_secret_is_long_and_never_shown() {
    assert_eq!(
        Secret::new(" 0123456789abcde\n").unwrap_err(),
        SecretTooShort { size: 15 }
    );
    let secret = Secret::new("0123456789abcdef\n").unwrap();
    assert_eq!(secret, self::secret());
    let shown = format!("{secret:?} {:?}", identity(Some(&secret)));
    assert!(!shown.contains("0123"), "{shown}");
}

#[test]
fn an_address_is_plain_http_with_a_port() {
    assert_eq!(authority_of("http://Node-1:4747/").unwrap(), "node-1:4747");
    for address in [
        "",
        "node-1:4747",
        "https://node-1:4747",
        "http://node-1",
        "http://node-1:4747/x",
        "http://u:p@node-1:4747",
    ] {
        assert!(authority_of(address).is_err(), "{address}");
    }
}
