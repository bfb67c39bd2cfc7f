//! Clients of the feed that read nothing, or too slowly, cost a node little and hold up nobody.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::cli::program::{Server, folder, within};

/// How many clients; `ANNALS_FEED_SLOW` asks for others.
const CLIENTS: usize = 100;
/// The large orders in the log, and the items of one.
const ORDERS: usize = 100;
const ITEMS: usize = 190;
/// What so many clients may cost: a piece of the answer, a commit that is longer, and the buffers of a
/// connection. All of the log for each of them would be some ten times as much.
const BYTES_PER_CLIENT_MAX: u64 = 600 << 10;

fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

fn large_order() -> Value {
    let money = |minor: usize| json!({"amount_minor": minor, "currency": "BRL"});
    let items = (1..=ITEMS).map(|line| {
        json!({"line": line, "product": format!("product-{line}"), "seller": format!("seller-{line}"),
               "price": money(100 + line), "freight": money(line)})
    });
    json!({"customer": "c1", "estimated_delivery": "2030-01-01T00:00:00Z",
           "items": items.collect::<Vec<_>>()})
}

/// How long each of some commands took.
async fn commands(url: &str, name: &str, count: usize) -> Vec<Duration> {
    let http = reqwest::Client::new();
    let data = json!({"city": "recife", "state": "PE", "postcode_prefix": "50000"});
    let mut took = Vec::new();
    for number in 0..count {
        let begun = Instant::now();
        let url = format!("{url}/v1/streams/customer-{name}-{number}/RegisterCustomer");
        let sent = http
            .post(url)
            .header("idempotency-key", format!("{name}{number}"));
        let answer = sent.json(&data).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took
}

/// A connection whose client has little room: otherwise the system takes megabytes for it.
async fn narrow(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_hold_up_nobody() {
    let clients = std::env::var("ANNALS_FEED_SLOW").map_or(CLIENTS, |count| count.parse().unwrap());
    let folder = folder();
    let mut server = Server::dev(folder.path());
    let http = reqwest::Client::new();
    let order = large_order();
    for number in 0..ORDERS {
        let url = format!("{}/v1/streams/order-{number}/PlaceOrder", server.url);
        let sent = http
            .post(url)
            .header("idempotency-key", format!("o{number}"));
        let answer = sent.json(&order).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    // One client reads all of it, so that what the process needs anyway is there.
    let whole = http
        .get(format!("{}/v1/events", server.url))
        .send()
        .await
        .unwrap();
    let whole = whole.text().await.unwrap().len() as u64;
    let before = commands(&server.url, "before", 200).await;
    let at_rest = resident(&server);

    let address = server.url.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..clients {
        let mut socket = narrow(&address).await;
        let ask = format!("GET /v1/events?follow=true HTTP/1.1\r\nhost: {address}\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.unwrap();
        idle.push(socket);
    }
    let followers = async || {
        let metrics = http
            .get(format!("{}/metrics", server.url))
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        let mut lines = metrics.lines();
        let line = lines.find_map(|line| line.strip_prefix("annals_feed_followers "));
        line.unwrap().trim().parse::<f64>().unwrap() as usize
    };
    within(Duration::from_secs(30), "all are followed", async || {
        followers().await >= clients
    })
    .await;
    let during = commands(&server.url, "during", 200).await;
    let grown = resident(&server).saturating_sub(at_rest);
    let median = |took: &[Duration]| took[took.len() / 2];
    println!(
        "{clients} clients read nothing of {whole} bytes: {grown} bytes more; a command took {:?} before, \
         {:?} meanwhile (p99 {:?} and {:?})",
        median(&before),
        median(&during),
        before[197],
        during[197],
    );
    assert!(grown < clients as u64 * BYTES_PER_CLIENT_MAX, "{grown}");
    assert!(during[197] < Duration::from_secs(2), "{during:?}");
    // Their places are free again when they are gone.
    drop(idle);
    within(Duration::from_secs(30), "they are gone", async || {
        followers().await == 0
    })
    .await;

    // A feed of a node that is to end is over at once.
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let ask = format!("GET /v1/events?follow=true&from=now HTTP/1.1\r\nhost: {address}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.unwrap();
    within(Duration::from_secs(30), "it is followed", async || {
        followers().await == 1
    })
    .await;
    let begun = Instant::now();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = timeout(Duration::from_secs(30), socket.read_to_end(&mut all)).await;
        String::from_utf8_lossy(&all).into_owned()
    });
    sleep(Duration::from_millis(50)).await;
    let ended = tokio::task::spawn_blocking(move || server.end(Signal::TERM));
    assert!(ended.await.unwrap().success());
    let said = reading.await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
