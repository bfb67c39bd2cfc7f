//! Serves routes on a socket until it is told to stop.
//!
//! Invariant: a request that was begun when the stop came is answered if that takes no longer than
//! the grace; an open batch whose client neither writes nor leaves holds nobody up for longer.
//! Deliberately absent: TLS, and what is served.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

/// Serves `router` until `stop` comes, and then for at most `grace`.
///
/// # Errors
/// What the socket reports.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    // Answers are small and each is waited for: none may be held back for more to come.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
    });
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        stop.await;
        // Nobody listens any more only where the server has ended by itself.
        let _ = stopping.send(());
    });
    let given_up = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(grace).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server => served,
        () = given_up => {
            tracing::warn!(grace_ms = grace.as_millis(), "connections were still open");
            Ok(())
        }
    }
}
