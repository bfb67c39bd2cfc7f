//! Attacks with well-formed commands.

use tokio::io::AsyncReadExt as _;

use super::Target;
use super::wire::{connect, crowd, write};

/// A batch line that a rule refuses: the order was never placed.
fn refused(number: u64) -> String {
    format!("{{\"stream\":\"order-none{number}\",\"command\":\"ApproveOrder\",\"data\":{{}}}}\n")
}

/// One connection that collects as many refusals as it can.
pub(super) async fn refusals(target: Target) {
    let target = &target;
    crowd(1, |_| async move {
        let Some(stream) = connect(&target.authority).await else {
            return;
        };
        let (mut reading, mut writing) = stream.into_split();
        let write = async {
            use tokio::io::AsyncWriteExt as _;
            let head = "POST /v1/commands HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut sent = writing.write_all(head.as_bytes()).await;
            let mut number = 0;
            while sent.is_ok() {
                let lines: String = (0..64).map(|more| refused(number + more)).collect();
                number += 64;
                let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
                sent = writing.write_all(chunk.as_bytes()).await;
            }
        };
        let read = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(1..) = reading.read(&mut buffer).await {}
        };
        tokio::join!(write, read);
    })
    .await;
}

/// Sends a single command and reads its answer; `None` once the connection is closed.
async fn ask(stream: &mut tokio::net::TcpStream, path: &str, body: &str) -> Option<()> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    write(stream, request.as_bytes()).await?;
    let mut buffer = vec![0; 16 << 10];
    match stream.read(&mut buffer).await {
        Ok(1..) => Some(()),
        _ => None,
    }
}

/// Commands that all append to one stream.
pub(super) async fn one_stream(target: Target) {
    let target = &target;
    let text = "x".repeat(9_000);
    let text = &text;
    crowd(8, |client| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        let mut number = 0;
        loop {
            number += 1;
            let review = format!("{client}-{number}-{}", uuid::Uuid::now_v7().simple());
            let body = format!("{{\"review\":\"{review}\",\"score\":3,\"comment\":\"{text}\"}}");
            let path = format!("/v1/streams/{}/ReviewOrder", target.large);
            if ask(&mut stream, &path, &body).await.is_none() {
                return;
            }
        }
    })
    .await;
}

/// Requests that each leave a line in a verbose log.
pub(super) async fn noise(target: Target) {
    let target = &target;
    crowd(4, |_| async move {
        let Some(mut stream) = connect(&target.authority).await else {
            return;
        };
        while ask(&mut stream, "/v1/streams/order-none/ApproveOrder", "{}")
            .await
            .is_some()
        {}
    })
    .await;
}
