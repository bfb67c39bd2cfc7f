//! Traces: what doors and projectors tell OpenTelemetry about requests, commands and transactions.
//!
//! Invariant: unless a collector was named ([`turn_on`]), nothing is measured or allocated, and each
//! call costs one load. Nothing here waits, and nothing is decided by it. Deliberately absent: how spans
//! are collected and sent (`host`), and the engine's own times (`engine::Walk`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};

/// The name under which this program's spans are collected.
const SCOPE: &str = "annals";
/// The most commits that a transaction's span is linked to; the SDK keeps no more.
const LINKS_MAX: usize = 128;

static ON: AtomicBool = AtomicBool::new(false);

/// Lets spans be made, once there is somebody to collect them.
pub fn turn_on() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether spans are made.
#[must_use]
pub fn are_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A span that others continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent(SpanContext);

impl Parent {
    /// The span that a `traceparent` names (W3C Trace Context §3.2); `None` if spans are off, or if the
    /// text is malformed.
    #[must_use]
    pub fn of(traceparent: &str) -> Option<Self> {
        if !are_on() {
            return None;
        }
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let sizes = [version, trace, span, flags].map(str::len);
        if sizes != [2, 32, 16, 2] || version == "ff" {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::NONE,
        );
        context.is_valid().then_some(Self(context))
    }

    /// The span as a `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let Self(context) = self;
        let (trace, span) = (context.trace_id(), context.span_id());
        format!("00-{trace}-{span}-{:02x}", context.trace_flags().to_u8())
    }

    /// Whether the trace is collected.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

/// A request of a client that is being answered.
pub struct Request(BoxedSpan);

impl Request {
    /// Begins the span of a request, as a child of the client's, if there is one. `None` if spans are
    /// off, or if this trace is not collected.
    #[must_use]
    pub fn begin(
        method: &'static str,
        route: &str,
        traceparent: impl FnOnce() -> Option<String>,
    ) -> Option<Self> {
        if !are_on() {
            return None;
        }
        let parent = traceparent().and_then(|text| Parent::of(&text));
        let tracer = global::tracer(SCOPE);
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        let context = parent.map_or_else(Context::new, |parent| parent.context());
        let span = tracer.build_with_context(span, &context);
        span.is_recording().then_some(Self(span))
    }

    /// The span, for those that continue it.
    #[must_use]
    pub fn here(&self) -> Parent {
        Parent(self.0.span_context().clone())
    }

    /// Ends the span with the status of the answer.
    pub fn end(mut self, status: u16) {
        let status_code = KeyValue::new("http.response.status_code", i64::from(status));
        self.0.set_attribute(status_code);
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

/// A part of a span's time.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What happened meanwhile.
    pub name: &'static str,
    /// Its beginning.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
}

/// Tells of a command that has its answer: a span of its own, as a child of `parent`, and one for each
/// part of its way.
pub fn command(
    parent: &Parent,
    command: &str,
    attributes: impl IntoIterator<Item = (&'static str, String)>,
    parts: &[Part],
) {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return;
    };
    let clock = Clock::now();
    let attributes = attributes.into_iter();
    let attributes = attributes.map(|(name, value)| KeyValue::new(name, value));
    let tracer = global::tracer(SCOPE);
    let span = tracer
        .span_builder(command.to_owned())
        .with_start_time(clock.of(first.from))
        .with_attributes(attributes);
    let mut whole = tracer.build_with_context(span, &parent.context());
    let inner = Parent(whole.span_context().clone()).context();
    for part in parts {
        let span = tracer
            .span_builder(part.name)
            .with_start_time(clock.of(part.from));
        let mut span = tracer.build_with_context(span, &inner);
        span.end_with_timestamp(clock.of(part.to));
    }
    whole.end_with_timestamp(clock.of(last.to));
}

/// Tells of a transaction of a projector that began at `began` and is durable now, if it has commits
/// whose traces are collected: their `traceparent`s come in order.
pub fn project<'a>(
    began: Instant,
    projections: impl FnOnce() -> String,
    commits: usize,
    traceparents: impl Iterator<Item = &'a str>,
) {
    if !are_on() {
        return;
    }
    let sampled = traceparents.filter_map(Parent::of);
    let sampled = sampled.filter(Parent::is_sampled).take(LINKS_MAX);
    let links: Vec<Link> = sampled.map(|parent| Link::with_context(parent.0)).collect();
    if links.is_empty() {
        return;
    }
    let tracer = global::tracer(SCOPE);
    let span = tracer
        .span_builder("project")
        .with_kind(SpanKind::Consumer)
        .with_start_time(Clock::now().of(began))
        .with_attributes([
            KeyValue::new("annals.projections", projections()),
            KeyValue::new("annals.commits", i64::try_from(commits).unwrap_or(i64::MAX)),
        ])
        .with_links(links);
    tracer.build_with_context(span, &Context::new()).end();
}

/// The wall clock at one moment: spans have its times, and the program measures by another clock.
struct Clock(Instant, SystemTime);

impl Clock {
    fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    fn of(&self, moment: Instant) -> SystemTime {
        let Self(now, wall) = self;
        match now.checked_duration_since(moment) {
            Some(ago) => *wall - ago,
            None => *wall + moment.duration_since(*now),
        }
    }
}
