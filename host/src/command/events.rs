//! `annals events`: the events of a stream, or those of all streams that a filter takes, through a
//! running server; and on to what comes.
//!
//! Invariant: each line is written once, however often the connection breaks off. Deliberately absent:
//! reading the log without a server (`log dump --accepted`).

use std::time::Duration;

use clap::Args;
use client::{Feed, FeedItem, FeedKind, FeedQuery};
use kernel::{Timestamp, escape};
use serde_json::Value;

use super::request;
use super::stream::{actor_of, query};
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{OutputFormat, Settings};
use crate::signals::{HangUp, Stop};

/// The help text of `events` after the options.
pub(crate) const EVENTS_HELP: &str = "\
With a stream and nothing else, its events are read through the read models of streams. Otherwise the
server's feed is read: all accepted commits, in the order of each partition. Every item that ends a commit
has a cursor in its JSON: give it to --from to go on behind it. A feed that breaks off goes on by itself.

Examples:
  annals events {stream}
  annals events --category order --from-time 2018-03-01T00:00:00Z
  annals events --follow --from now --type OrderShipped
  annals events --output ndjson --correlation ID | jq .data";

/// How long a feed that ends tries to go on after an interruption.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The same for one that follows: as good as for ever.
const RETRY_FOR_FOLLOWING: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The stream: its category, a dash and its id; without it, all streams
    stream: Option<String>,
    /// The tenant of the streams; * for all tenants
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Where to begin: beginning, now, the cursor of an item, or a command's position token, to begin
    /// behind its commit
    #[arg(long, value_name = "PLACE", conflicts_with = "from_time")]
    from: Option<String>,
    /// Only what was recorded from this time on
    #[arg(long, value_name = "TIME")]
    from_time: Option<Timestamp>,
    /// Only what was recorded before this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only streams of this category
    #[arg(long)]
    category: Option<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only what this actor asked for
    #[arg(long, value_name = "KIND:ID")]
    actor: Option<String>,
    /// Only what belongs to this conversation
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only what this command left
    #[arg(long, value_name = "ID")]
    command: Option<String>,
    /// Which commands: accepted, refused or all [default: accepted]
    #[arg(long, value_name = "OUTCOME", value_parser = ["accepted", "refused", "all"])]
    outcome: Option<String>,
    /// Show old events in the newest shape of their type
    #[arg(long)]
    latest: bool,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

impl EventsArgs {
    fn query(&self) -> FeedQuery {
        FeedQuery {
            tenant: Some(self.tenant.clone()),
            from: self.from.clone(),
            from_time: self.from_time,
            until: self.until,
            follow: self.follow,
            stream: self.stream.clone(),
            category: self.category.clone(),
            event_type: self.event_type.clone(),
            actor: self.actor.clone(),
            correlation_id: self.correlation.clone(),
            command_id: self.command.clone(),
            outcome: self.outcome.clone(),
            schema: self.latest.then(|| "latest".to_owned()),
        }
    }

    /// The stream, if nothing else is asked for.
    fn only_stream(&self) -> Option<&str> {
        let stream = self.stream.as_deref()?;
        let plain = FeedQuery {
            tenant: Some(self.tenant.clone()),
            stream: self.stream.clone(),
            ..FeedQuery::default()
        };
        (self.query() == plain && self.tenant != "*").then_some(stream)
    }
}

/// Shows events.
pub(super) async fn events(settings: &Settings, args: &EventsArgs) -> Result<Exit, Failure> {
    if let Some(stream) = args.only_stream() {
        return of_stream(settings, stream, &args.tenant).await;
    }
    if !matches!(settings.output, OutputFormat::Table | OutputFormat::Ndjson) {
        let what = "the feed has no end that a document could have: --output table or ndjson";
        return Err(Failure::new(Exit::Usage, what.to_owned()));
    }
    let stop = Stop::listen(HangUp::Ends)?;
    let feed = request::client(settings)?.feed(args.query());
    let mut feed = feed;
    let mut has_begun = false;
    loop {
        let next = tokio::select! {
            next = feed.next() => next.map_err(|error| request::failed(settings, error))?,
            () = stop.asked() => return Ok(Exit::Done),
        };
        let Some(item) = next else {
            return Ok(Exit::Done);
        };
        if !has_begun {
            // A server that does not answer at all is told at once.
            has_begun = true;
            feed = patient(feed, args.follow);
        }
        show(&item, settings.output)?;
    }
}

fn patient(feed: Feed, follows: bool) -> Feed {
    feed.retry_for(match follows {
        true => RETRY_FOR_FOLLOWING,
        false => RETRY_FOR,
    })
}

fn show(item: &FeedItem, format: OutputFormat) -> Result<(), Failure> {
    if format == OutputFormat::Ndjson {
        let text = serde_json::to_string(item);
        let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
        return output::json(&escape::json(&text));
    }
    let actor = item.actor.as_ref();
    let actor = actor.map(|actor| format!("{}:{}", actor.kind.as_str(), actor.id));
    let what = match (item.kind, &item.type_name, &item.code) {
        (FeedKind::Event, Some(type_name), _) => type_name.clone(),
        (FeedKind::Refusal, _, Some(code)) => format!("{} refused: {code}", item.command),
        (FeedKind::Event | FeedKind::Refusal, ..) => item.command.clone(),
    };
    let tenant = match item.tenant.as_str() {
        "main" => String::new(),
        tenant => format!("{tenant}/"),
    };
    let line = format!(
        "{}  {tenant}{}@{}  {what}  {}  {}",
        item.recorded_at,
        item.stream,
        item.version,
        actor.as_deref().unwrap_or("-"),
        item.data.get()
    );
    output::line(&output::shown(&line))
}

/// How many events are asked for at once.
const PAGE_SIZE: u32 = 500;

const EVENT_COLUMNS: [&str; 11] = [
    "version",
    "type",
    "occurred_at",
    "recorded_at",
    "actor",
    "command",
    "command_id",
    "correlation_id",
    "causation_id",
    "traceparent",
    "data",
];

/// Shows every event of a stream, page by page.
async fn of_stream(settings: &Settings, stream: &str, tenant: &str) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let query = query(tenant);
    let mut from = 1;
    let mut events = Vec::new();
    loop {
        let page = client.events(stream, from, PAGE_SIZE, &query).await;
        let page = page
            .map_err(|error| request::failed(settings, error))?
            .value;
        for event in page.events {
            let event = serde_json::to_value(event);
            let event = event.map_err(|error| Failure::of(Exit::Failed, &error))?;
            events.push(shown(event, settings.output));
        }
        // Lines are printed as they come; a table needs all of them for its columns.
        if settings.output == OutputFormat::Ndjson {
            output::rows(settings.output, &EVENT_COLUMNS, &events)?;
            events.clear();
        }
        match page.next {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    if settings.output != OutputFormat::Ndjson {
        output::rows(settings.output, &EVENT_COLUMNS, &events)?;
    }
    Ok(Exit::Done)
}

/// An event. Unless the output is JSON, the actor is shown as `kind:id`.
fn shown(mut event: Value, format: OutputFormat) -> Value {
    if !format.is_json()
        && let Some(actor) = event.get("actor").filter(|actor| actor.is_object())
    {
        event["actor"] = actor_of(actor);
    }
    event
}
