//! The listener: serves all routes of this process at one address.
//!
//! Invariant: without `insecure`, only loopback is served. Deliberately absent: the routes of the
//! doors.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::files;
use crate::exit::{Exit, Failure, explained};
use crate::settings::Settings;

/// How many connections the system may hold until the process accepts them; the system may allow
/// fewer. If more arrive at once, the system drops them silently, and their clients wait a second
/// before they try again.
const BACKLOG: u32 = 4_096;

/// A bound address at which no request is answered yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    server: door::Server,
}

impl Bound {
    /// Binds the address of the settings.
    ///
    /// # Errors
    /// `Usage` if the address cannot be resolved or may not be served; `Failed` if it cannot be
    /// bound.
    pub async fn to(settings: &Settings) -> Result<Self, Failure> {
        let addresses = Self::addresses(settings).await?;
        let listener = listen_on(&addresses).map_err(|error| {
            cannot_listen(settings, Exit::Failed, &error)
                .hint("choose another with --listen HOST:PORT (port 0: any)")
        })?;
        let address = listener.local_addr();
        let address = address.map_err(|error| cannot_listen(settings, Exit::Failed, &error))?;
        // Requests of other nodes name the advertised host.
        let advertised = settings.advertise.iter();
        let advertised = advertised.filter_map(|address| {
            let authority = address.parse::<Uri>().ok()?;
            Some(authority.host()?.to_owned())
        });
        let server = door::Server {
            limits: files::fit(settings.door_limits()),
            hosts: settings
                .doors
                .hosts
                .iter()
                .cloned()
                .chain(advertised)
                .collect(),
        };
        Ok(Self {
            listener,
            address,
            server,
        })
    }

    /// The addresses of the settings; nothing is bound.
    ///
    /// # Errors
    /// `Usage` if the address cannot be resolved or may not be served.
    pub async fn addresses(settings: &Settings) -> Result<Vec<SocketAddr>, Failure> {
        let addresses = tokio::net::lookup_host(&settings.listen).await;
        let addresses: Vec<SocketAddr> = addresses
            .map_err(|error| cannot_listen(settings, Exit::Usage, &error))?
            .collect();
        let strange = addresses.iter().find(|address| !address.ip().is_loopback());
        if let Some(strange) = strange.filter(|_| !settings.insecure) {
            let source = settings.source("listen");
            let message = format!(
                "will not listen on {strange} ({source}): clients are not authenticated, so only \
                 loopback addresses are allowed; put a proxy that authenticates clients in front, \
                 or add --insecure"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(addresses)
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of this address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts to answer requests. After a stop, requests under way have `grace` to end.
    #[must_use]
    pub fn serve(self, routes: Router, grace: Duration) -> Http {
        let (stop, mut stopped) = watch::channel(false);
        let wish = async move {
            // A dropped sender asks for a stop, too.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let current = Current(Arc::new(RwLock::new(routes)));
        let routes = current.clone().router();
        let task = tokio::spawn(async move {
            let served = self.server.serve(self.listener, routes, wish, grace);
            if let Err(error) = served.await {
                tracing::error!(error = explained(&error), "the HTTP server failed");
            }
        });
        Http {
            stop,
            task,
            current,
        }
    }
}

/// A listener that answers.
#[derive(Debug)]
pub struct Http {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    current: Current,
}

/// The routes that are served now.
#[derive(Clone, Debug)]
struct Current(Arc<RwLock<Router>>);

impl Current {
    /// Passes each request to the routes that are current when it arrives.
    fn router(self) -> Router {
        Router::new().fallback(async move |request: Request| {
            let routes = self
                .0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            routes.oneshot(request).await
        })
    }
}

impl Http {
    /// Replaces the routes. The routes that received a request also answer it.
    pub fn replace(&self, routes: Router) {
        *self
            .current
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Accepts no more connections; requests under way continue.
    pub fn stop_listening(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the requests under way are answered, or their grace is over.
    pub async fn finish(&mut self) {
        self.stop_listening();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the task of the HTTP server failed");
        }
    }
}

fn cannot_listen(settings: &Settings, exit: Exit, error: &dyn std::error::Error) -> Failure {
    let (listen, source) = (&settings.listen, settings.source("listen"));
    Failure::of(exit, error).while_trying(&format!("listen on {listen} ({source})"))
}

/// Listens on the first of these addresses that can be bound.
fn listen_on(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let nowhere = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    let mut result = Err(nowhere);
    for address in addresses {
        result = (|| {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            // The address can be bound again as soon as the previous process has ended.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            socket.listen(BACKLOG)
        })();
        if result.is_ok() {
            break;
        }
    }
    result
}
