//! Attacks with connections and request heads.

use std::time::Duration;

use super::Target;
use super::wire::{connect, crowd, until_closed, write};

/// The beginning of an unfinished request head.
const HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-More: ";

/// Connections that send nothing.
pub(super) async fn idle(target: Target) {
    let target = &target;
    crowd(940, |_| async move {
        if let Some(stream) = connect(&target.authority).await {
            until_closed(stream).await;
        }
    })
    .await;
}

/// Heads that never end, each of the greatest allowed size.
pub(super) async fn heads(target: Target) {
    let target = &target;
    crowd(1_000, |_| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        let mut sent = write(&mut stream, HEAD).await;
        for _ in 0..400 {
            if sent.is_none() {
                return;
            }
            sent = write(&mut stream, &[b'x'; 1_000]).await;
        }
        until_closed(stream).await;
    })
    .await;
}

/// Heads that never end and arrive byte by byte.
pub(super) async fn trickle(target: Target) {
    let target = &target;
    crowd(1_000, |_| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        let mut sent = write(&mut stream, HEAD).await;
        while sent.is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sent = write(&mut stream, b"x").await;
        }
    })
    .await;
}

/// Connections that are opened and closed at once.
pub(super) async fn storm(target: Target) {
    let target = &target;
    let many = (0..64).map(|_| async move {
        loop {
            if connect(&target.authority).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    futures::future::join_all(many).await;
}
