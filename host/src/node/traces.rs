//! Traces for OpenTelemetry: where spans are collected, and how they get to a collector (OTLP over HTTP,
//! protobuf).
//!
//! Invariant: nothing of the program waits for a collector. Spans wait in a queue of a fixed size
//! (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048), which a thread of its own empties; what finds no room is dropped.
//! Deliberately absent: which spans there are (`spans`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Request, Response};
use opentelemetry::{KeyValue, global};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;

use crate::exit::{Exit, Failure};
use crate::program;
use crate::settings::Settings;

/// How long a request to the collector may take: the default of the standard.
const EXPORT_WAIT: Duration = Duration::from_secs(10);
/// How long the end waits for the last spans.
const END_WAIT: Duration = Duration::from_secs(2);
/// The path of traces below the address of a collector.
const PATH: &str = "v1/traces";
/// The standard's variables that name a collector, the most specific one first.
const VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// The standard's variables that choose another protocol.
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];

/// Spans that are being collected.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to collect spans, if the settings or the standard's variables name a collector.
    ///
    /// # Errors
    /// `Usage`, if the address cannot be used.
    pub fn begin(settings: &Settings) -> Result<Option<Self>, Failure> {
        let variable = |name: &&str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let address = match &settings.otlp_endpoint {
            Some(endpoint) => Some(format!("{}/{PATH}", endpoint.trim_end_matches('/'))),
            None => VARIABLES.iter().find_map(variable),
        };
        if std::env::var("OTEL_SDK_DISABLED").is_ok_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let Some(address) = address else {
            return Ok(None);
        };
        if !address.starts_with("http://") {
            return Err(usage(format_args!(
                "traces go to a collector over plain HTTP, for example one on this machine at \
                 http://127.0.0.1:4318, and not to {address}"
            )));
        }
        if let Some(protocol) = PROTOCOLS.iter().find_map(variable)
            && protocol != "http/protobuf"
        {
            return Err(usage(format_args!(
                "traces are sent as http/protobuf, and not as {protocol}"
            )));
        }
        let builder = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_protocol(Protocol::HttpBinary);
        let builder = match &settings.otlp_endpoint {
            Some(_) => builder.with_endpoint(&address),
            // The library reads the variables, and knows which of them is a base address.
            None => builder,
        };
        let exporter = builder.build().map_err(usage)?;
        let service = settings.otlp_service.clone();
        let service = service.or_else(|| variable(&"OTEL_SERVICE_NAME"));
        let resource = Resource::builder()
            .with_service_name(service.unwrap_or_else(|| program::name().to_owned()))
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", settings.node.clone()),
            ])
            .build();
        let exporter = Told {
            exporter,
            address: address.clone(),
            has_failed: AtomicBool::new(false),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        global::set_tracer_provider(provider.clone());
        spans::turn_on();
        tracing::info!(address, "traces are sent to a collector");
        Ok(Some(Self(provider)))
    }

    /// Sends the last spans, for at most [`END_WAIT`].
    pub async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(END_WAIT));
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::debug!("the last spans did not reach the collector in time");
        }
    }
}

fn usage(what: impl fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("traces: {what}"))
}

/// An exporter that warns once when spans are lost, and says when they arrive again.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    address: String,
    has_failed: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed_before = self.has_failed.swap(exported.is_err(), Ordering::Relaxed);
        let address = &*self.address;
        match &exported {
            Err(error) if !failed_before => {
                tracing::warn!(address, %error, "spans are lost: the collector does not take them");
            }
            Ok(()) if failed_before => tracing::info!(address, "the collector takes spans again"),
            Ok(()) | Err(_) => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The program's HTTP client for the library's thread: requests run on the program's runtime, so that
/// no second client with threads of its own is needed.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl Client {
    fn new() -> Self {
        Self {
            http: reqwest::Client::new(),
            runtime: Handle::current(),
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(EXPORT_WAIT);
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = sending.await??;
        let mut answer = Response::builder().status(status).body(body)?;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}
