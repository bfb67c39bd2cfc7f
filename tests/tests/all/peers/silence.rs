//! The other side is gone or frozen, or was never there.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::fake::Fake;
use super::{Node, Opened, SOON, peers, url};

/// How long a dead or frozen node may stay unnoticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// What the forwarder between two nodes does with the traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing passes, and connections stay open.
    Frozen,
    /// All connections are closed.
    Cut,
}

/// A node behind a forwarder that the test can freeze or cut.
async fn behind_a_way(fake: Fake) -> (Node, watch::Sender<Way>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(between.local_addr().unwrap());
    let (way, watched) = watch::channel(Way::Open);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = between.accept().await.unwrap();
            let mut way = watched.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = way.wait_for(|way| *way != Way::Open) => {}
                }
                let _ = way.wait_for(|way| *way == Way::Cut).await;
            });
        }
    });
    (Node::on(listener, &address, fake, None), way)
}

/// Asserts that a link breaks in time; returns the reason.
async fn breaks_in_time(opened: &mut Opened) -> String {
    let begun = Instant::now();
    let why = opened.broken().await;
    assert!(begun.elapsed() < NOTICED_WITHIN, "{:?}", begun.elapsed());
    // No event follows.
    assert_eq!(opened.events.recv().await, None);
    why
}

/// Waits until a node serves no link.
async fn has_no_link(node: &Node) {
    let gone = async {
        while node.fake.noted.links.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_link_that_is_dropped_is_closed_without_a_word() {
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    opened.send(1);
    assert_eq!(opened.answer().await.0, 1);
    drop(opened.link);
    assert_eq!(opened.events.recv().await, None);
    has_no_link(&node).await;
}

#[tokio::test]
async fn an_idle_link_stays_open() {
    let node = Node::start(Fake::default(), None).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    let quiet = tokio::time::timeout(Duration::from_secs(3), opened.events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    opened.send(1);
    assert_eq!(opened.answer().await.0, 1);
}

#[tokio::test]
async fn a_node_that_dies_breaks_the_link() {
    let (node, way) = behind_a_way(Fake::default()).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    opened.send(1);
    opened.answer().await;
    way.send_replace(Way::Cut);
    breaks_in_time(&mut opened).await;
}

#[tokio::test]
async fn a_node_that_freezes_breaks_the_link_on_both_sides() {
    let (node, way) = behind_a_way(Fake::default()).await;
    let mut opened = Opened::to(&peers(None), &node.address);
    opened.send(1);
    opened.answer().await;
    way.send_replace(Way::Frozen);
    opened.send(2);
    let why = breaks_in_time(&mut opened).await;
    assert!(why.contains("sent nothing for 1500 ms"), "{why}");
    // The node also ends the link by itself: from its side, the client is frozen.
    has_no_link(&node).await;
    assert_eq!(node.fake.noted.attempted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_never_answers_breaks_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut opened = Opened::to(&peers(None), &url(listener.local_addr().unwrap()));
    opened.send(1);
    let why = breaks_in_time(&mut opened).await;
    assert!(why.contains("no answer within"), "{why}");
}

#[tokio::test]
async fn where_nobody_listens_a_link_is_broken_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(listener.local_addr().unwrap());
    drop(listener);
    breaks_in_time(&mut Opened::to(&peers(None), &address)).await;
    breaks_in_time(&mut Opened::to(&peers(None), "https://elsewhere:1")).await;
}

#[tokio::test]
async fn an_answer_that_no_node_would_give_breaks_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = url(listener.local_addr().unwrap());
    for said in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\n\n",
        "HTTP/1.1 200 OK\r\n\r\nhalf a line",
    ] {
        let mut opened = Opened::to(&peers(None), &address);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1_024];
        let _ = stream.read(&mut asked).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        breaks_in_time(&mut opened).await;
    }
}
