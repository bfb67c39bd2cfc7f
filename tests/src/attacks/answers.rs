//! Attacks by clients that do not read the answers.

use std::time::Duration;

use super::Target;
use super::wire::{connect_narrow, crowd, write};

/// How long an attacker leaves an answer unread.
const UNREAD: Duration = Duration::from_secs(60);

pub(super) async fn state(target: Target) {
    unread(&target, 20, "state").await;
}

pub(super) async fn events(target: Target) {
    unread(&target, 300, "events?limit=1000").await;
}

async fn unread(target: &Target, count: usize, what: &str) {
    let request = format!(
        "GET /v1/streams/{}/{what} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        target.large
    );
    let request = request.as_bytes();
    crowd(count, |_| async move {
        let Some(mut stream) = connect_narrow(&target.authority).await else {
            return;
        };
        // Ask for as many answers as fit into a connection's queue.
        for _ in 0..4 {
            if write(&mut stream, request).await.is_none() {
                return;
            }
        }
        tokio::time::sleep(UNREAD).await;
    })
    .await;
}
