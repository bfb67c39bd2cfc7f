//! The proxy passes everything unchanged by default; an imposition changes only the chosen
//! messages.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tests::harness::proxy::{ApiKey, Cut, Deed, Direction, Framing, Messages, Proxy};

const WAIT: Duration = Duration::from_secs(20);
/// How long to wait for something that should not happen.
const NEVER: Duration = Duration::from_millis(150);

/// A server that sends every message back and reports what it received.
fn echo() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (told, seen) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, told) = (connection.unwrap(), told.clone());
            std::thread::spawn(move || {
                while let Ok(message) = read(&mut connection) {
                    let _ = told.send(message.clone());
                    let _ = write(&mut connection, &message);
                }
            });
        }
    });
    (address, seen)
}

fn write(to: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(message.len()).unwrap();
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

fn read(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut message)?;
    Ok(message)
}

/// A Kafka request, as far as the proxy reads it.
fn request(key: ApiKey, client: &str, body: &str) -> Vec<u8> {
    let mut message = key.0.to_be_bytes().to_vec();
    message.extend([0, 0, 0, 0, 0, 1]);
    message.extend(u16::try_from(client.len()).unwrap().to_be_bytes());
    message.extend(client.bytes().chain(body.bytes()));
    message
}

struct Scene {
    proxy: Proxy,
    seen: Receiver<Vec<u8>>,
}

impl Scene {
    fn set() -> Self {
        let (server, seen) = echo();
        let proxy = Proxy::before(server, Framing::Kafka);
        Self { proxy, seen }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.proxy.address()).unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        client
    }

    fn sees(&self, message: &[u8]) {
        assert_eq!(self.seen.recv_timeout(WAIT).unwrap(), message);
    }

    fn sees_nothing(&self) {
        assert!(self.seen.recv_timeout(NEVER).is_err());
    }

    fn wait_until_held(&self, count: usize) {
        let deadline = Instant::now() + WAIT;
        while self.proxy.held() != count {
            assert!(
                Instant::now() < deadline,
                "{} messages are held",
                self.proxy.held()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn gets_nothing(client: &mut TcpStream) {
    client.set_read_timeout(Some(NEVER)).unwrap();
    let error = read(client).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
        "{error}"
    );
    client.set_read_timeout(Some(WAIT)).unwrap();
}

#[test]
fn a_proxy_passes_everything_in_order() {
    let scene = Scene::set();
    let mut client = scene.connect();
    let large = "x".repeat(3_000_000);
    let messages: Vec<_> = (0..20)
        .map(|number| request(ApiKey::PRODUCE, "n1", &number.to_string()))
        .chain([request(ApiKey::FETCH, "", &large)])
        .collect();
    let mut writer = client.try_clone().unwrap();
    let sent = messages.clone();
    let writing = std::thread::spawn(move || {
        for message in &sent {
            write(&mut writer, message).unwrap();
        }
    });
    for message in &messages {
        assert_eq!(&read(&mut client).unwrap(), message);
        scene.sees(message);
    }
    writing.join().unwrap();
    // When the client closes, the connection ends.
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read(&mut client).is_err());
}

#[test]
fn requests_of_a_kind_and_a_client_are_held_and_land_when_released() {
    let scene = Scene::set();
    let held = scene.proxy.impose(
        Messages::all(Direction::Requests)
            .of(ApiKey::PRODUCE)
            .by("n1"),
        Deed::Hold,
    );
    let (mut first, mut second) = (scene.connect(), scene.connect());
    let (fetch, produce) = (
        request(ApiKey::FETCH, "n1", ""),
        request(ApiKey::PRODUCE, "n1", "late"),
    );
    write(&mut first, &fetch).unwrap();
    assert_eq!(read(&mut first).unwrap(), fetch);
    scene.sees(&fetch);
    write(&mut first, &produce).unwrap();
    scene.wait_until_held(1);
    let other = request(ApiKey::PRODUCE, "n2", "");
    write(&mut second, &other).unwrap();
    assert_eq!(read(&mut second).unwrap(), other);
    scene.sees(&other);
    scene.sees_nothing();
    drop(held);
    scene.sees(&produce);
    assert_eq!(read(&mut first).unwrap(), produce);
}

#[test]
fn held_requests_land_although_their_client_was_cut_off() {
    let scene = Scene::set();
    let held = scene
        .proxy
        .impose(Messages::all(Direction::Requests), Deed::Hold);
    let mut client = scene.connect();
    let produce = request(ApiKey::PRODUCE, "n1", "late");
    write(&mut client, &produce).unwrap();
    scene.wait_until_held(1);
    assert_eq!(scene.proxy.cut(Cut::ClientSide), 1);
    assert!(read(&mut client).is_err(), "the client is cut off");
    drop(client);
    scene.sees_nothing();
    drop(held);
    scene.sees(&produce);
}

#[test]
fn retries_overtake_held_requests() {
    let scene = Scene::set();
    let held = scene
        .proxy
        .impose(Messages::all(Direction::Requests), Deed::Hold);
    let (mut first, mut second) = (scene.connect(), scene.connect());
    let (early, late) = (
        request(ApiKey::PRODUCE, "n1", "early"),
        request(ApiKey::PRODUCE, "n1", "late"),
    );
    write(&mut first, &early).unwrap();
    scene.wait_until_held(1);
    held.take_no_more();
    write(&mut second, &late).unwrap();
    assert_eq!(read(&mut second).unwrap(), late);
    scene.sees(&late);
    drop(held);
    scene.sees(&early);
    assert_eq!(read(&mut first).unwrap(), early);
}

#[test]
fn held_requests_are_lost_when_both_sides_are_cut() {
    let scene = Scene::set();
    let held = scene
        .proxy
        .impose(Messages::all(Direction::Requests), Deed::Hold);
    let mut client = scene.connect();
    write(&mut client, &request(ApiKey::PRODUCE, "n1", "")).unwrap();
    scene.wait_until_held(1);
    scene.proxy.cut(Cut::BothSides);
    assert!(read(&mut client).is_err());
    scene.wait_until_held(0);
    drop(held);
    scene.sees_nothing();
}

#[test]
fn answers_are_held_and_lost_by_the_kind_of_their_request() {
    let scene = Scene::set();
    let answers = || Messages::all(Direction::Answers).of(ApiKey::PRODUCE);
    let (fetch, produce) = (
        request(ApiKey::FETCH, "n1", ""),
        request(ApiKey::PRODUCE, "n1", ""),
    );
    let mut client = scene.connect();
    let lost = scene.proxy.impose(answers(), Deed::Lose);
    write(&mut client, &produce).unwrap();
    write(&mut client, &fetch).unwrap();
    assert_eq!(read(&mut client).unwrap(), fetch);
    drop(lost);
    let held = scene.proxy.impose(answers(), Deed::Hold);
    write(&mut client, &produce).unwrap();
    write(&mut client, &fetch).unwrap();
    gets_nothing(&mut client);
    for message in [&produce, &fetch, &produce, &fetch] {
        scene.sees(message);
    }
    drop(held);
    assert_eq!(read(&mut client).unwrap(), produce);
    assert_eq!(read(&mut client).unwrap(), fetch);
}

#[test]
fn messages_are_delayed_and_connections_refused_only_while_it_is_imposed() {
    let scene = Scene::set();
    let by = Duration::from_millis(50);
    let delayed = scene
        .proxy
        .impose(Messages::all(Direction::Answers), Deed::Delay(by));
    let (mut client, message) = (scene.connect(), request(ApiKey::FETCH, "n1", ""));
    let began = Instant::now();
    write(&mut client, &message).unwrap();
    assert_eq!(read(&mut client).unwrap(), message);
    assert!(began.elapsed() >= by);
    drop(delayed);

    let refused = scene.proxy.refuse();
    let mut late = scene.connect();
    let _ = write(&mut late, &message);
    assert!(read(&mut late).is_err());
    write(&mut client, &message).unwrap();
    assert_eq!(
        read(&mut client).unwrap(),
        message,
        "open connections stay open"
    );
    drop(refused);
    let mut late = scene.connect();
    write(&mut late, &message).unwrap();
    assert_eq!(read(&mut late).unwrap(), message);
}
