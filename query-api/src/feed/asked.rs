//! What a client asks of the feed: which commits, from where, until when, in which form.
//!
//! Invariant: as in `parameters`: each parameter at most once, unknown ones are refused. Deliberately
//! absent: finding and reading commits.

use axum::http::{HeaderMap, HeaderName, header};
use door::Problem;
use door::header::{TENANT, parsed, single};
use event_log::commit::{Commit, Outcome};
use kernel::{StreamName, TenantId, Timestamp};
use position::{Bookmark, PositionToken};
use projector::CommitFilter;
use serde::Deserialize;

use crate::code;
use crate::parameters::Shape;

/// Where a client of server-sent events goes on.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The value of the tenant's header that stands for all tenants.
const ALL_TENANTS: &str = "*";

/// The parameters of the feed, as texts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedParameters {
    from: Option<String>,
    from_time: Option<String>,
    until: Option<String>,
    follow: Option<String>,
    stream: Option<String>,
    category: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    actor: Option<String>,
    correlation_id: Option<String>,
    command_id: Option<String>,
    outcome: Option<String>,
    schema: Option<String>,
    format: Option<String>,
}

/// The form of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    Events,
    /// Lines of JSON.
    Lines,
}

/// Where the feed begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    /// At the first commit.
    Beginning,
    /// At the log's end, as it is now.
    Now,
    /// Behind what a client has.
    Bookmark(Bookmark),
    /// Behind a command's commit.
    Position(PositionToken),
    /// At the commits that were recorded from a time on.
    Time(Timestamp),
}

/// Which outcomes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcomes {
    Accepted,
    Refused,
    All,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) filter: CommitFilter,
    pub(super) outcomes: Outcomes,
    pub(super) start: Start,
    pub(super) until: Option<Timestamp>,
    pub(super) follows: bool,
    pub(super) shape: Shape,
    pub(super) form: Form,
}

fn invalid(name: &'static str, why: &str) -> Problem {
    Problem::new(door::code::QUERY_INVALID, format!("{name} {why}")).member("parameter", name)
}

impl FeedParameters {
    pub(super) fn asked(self, headers: &HeaderMap) -> Result<Asked, Problem> {
        let start = self.start(headers)?;
        let until = moment("until", self.until.as_deref())?;
        let follows = match self.follow.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(invalid("follow", "must be true or false")),
        };
        if follows && until.is_some() {
            return Err(invalid(
                "until",
                "ends a feed, and follow does not: ask for one of them",
            ));
        }
        let outcomes = match self.outcome.as_deref() {
            None | Some("accepted") => Outcomes::Accepted,
            Some("refused") => Outcomes::Refused,
            Some("all") => Outcomes::All,
            Some(_) => return Err(invalid("outcome", "must be accepted, refused or all")),
        };
        let shape = match self.schema.as_deref() {
            None | Some("recorded") => Shape::Recorded,
            Some("latest") => Shape::Latest,
            Some(_) => return Err(invalid("schema", "must be recorded or latest")),
        };
        let form = form(self.format.as_deref(), headers)?;
        let (actor_kind, actor_id) = match self.actor.as_deref() {
            None => (None, None),
            Some(actor) => {
                let (kind, id) = actor.split_once(':').ok_or_else(|| {
                    invalid("actor", "is written as kind:id, for example user:ann")
                })?;
                if !["user", "service", "process", "import"].contains(&kind) {
                    return Err(invalid(
                        "actor",
                        "begins with its kind: user, service, process or import",
                    ));
                }
                (Some(kind.to_owned()), Some(id.to_owned()))
            }
        };
        let stream = self.stream.map(|stream| {
            let named: Result<StreamName, _> = stream.parse();
            named
                .map(|stream| stream.to_string())
                .map_err(|error| invalid("stream", &format!("is no name of a stream: {error}")))
        });
        let filter = CommitFilter {
            tenant: tenant(headers)?,
            stream: stream.transpose()?,
            category: self.category,
            event_type: self.event_type,
            actor_kind,
            actor_id,
            correlation_id: self.correlation_id,
            command_id: self.command_id,
        };
        let texts = [
            ("category", &filter.category),
            ("type", &filter.event_type),
            ("correlation_id", &filter.correlation_id),
            ("command_id", &filter.command_id),
        ];
        for (name, text) in texts {
            let is_wrong = |text: &String| text.is_empty() || text.contains('\0');
            if text.as_ref().is_some_and(is_wrong) {
                return Err(invalid(name, "must not be empty, nor hold U+0000"));
            }
        }
        if outcomes == Outcomes::Refused && filter.event_type.is_some() {
            return Err(invalid(
                "type",
                "is the type of an event, and a refused command has none",
            ));
        }
        Ok(Asked {
            filter,
            outcomes,
            start,
            until,
            follows,
            shape,
            form,
        })
    }

    /// `Last-Event-ID` counts before `from`: a browser sends it when it comes back, with the same
    /// address.
    fn start(&self, headers: &HeaderMap) -> Result<Start, Problem> {
        if let Some(id) = single(headers, &LAST_EVENT_ID)?.filter(|id| !id.is_empty()) {
            let id = id
                .parse()
                .map_err(|error| door::header::invalid(&LAST_EVENT_ID, error));
            return id.map(Start::Bookmark);
        }
        let from_time = moment("from_time", self.from_time.as_deref())?;
        let Some(from) = self.from.as_deref() else {
            return Ok(from_time.map_or(Start::Beginning, Start::Time));
        };
        if from_time.is_some() {
            return Err(invalid(
                "from_time",
                "stands beside from: ask for one of them",
            ));
        }
        Ok(match from {
            "beginning" => Start::Beginning,
            "now" => Start::Now,
            text => match (text.parse(), text.parse()) {
                (Ok(bookmark), _) => Start::Bookmark(bookmark),
                (_, Ok(position)) => Start::Position(position),
                (Err(_), Err(_)) => {
                    let detail = "from takes beginning, now, the cursor of an earlier item, or the \
                                  position token of a command, whole as they came";
                    return Err(
                        Problem::new(code::POSITION_INVALID, detail).member("parameter", "from")
                    );
                }
            },
        })
    }
}

/// The tenant of the request; absent: all tenants.
fn tenant(headers: &HeaderMap) -> Result<Option<TenantId>, Problem> {
    if single(headers, &TENANT)? == Some(ALL_TENANTS) {
        return Ok(None);
    }
    Ok(Some(parsed(headers, &TENANT)?.unwrap_or_default()))
}

fn moment(name: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let moment = text.map(|text| {
        let parsed: Result<Timestamp, _> = text.parse();
        parsed.map_err(|_| invalid(name, "must be a time such as 2026-03-01T12:00:00Z"))
    });
    moment.transpose()
}

fn form(text: Option<&str>, headers: &HeaderMap) -> Result<Form, Problem> {
    match text {
        Some("sse") => return Ok(Form::Events),
        Some("ndjson") => return Ok(Form::Lines),
        Some(_) => return Err(invalid("format", "must be sse or ndjson")),
        None => {}
    }
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|accepted| accepted.to_str().ok());
    let is_events = accepted.any(|accepted| {
        let mut each = accepted
            .split(',')
            .map(|one| one.split(';').next().unwrap_or_default());
        each.any(|one| one.trim().eq_ignore_ascii_case("text/event-stream"))
    });
    Ok(match is_events {
        true => Form::Events,
        false => Form::Lines,
    })
}

impl Asked {
    /// Whether a commit has all that is asked for, but for its time.
    pub(super) fn takes(&self, commit: &Commit) -> bool {
        let filter = &self.filter;
        let is = |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|a| a == value);
        let kind = commit.actor.as_ref().map(|actor| actor.kind.as_str());
        let actor = commit.actor.as_ref().map(|actor| actor.id.as_str());
        let has_type = |asked: &String| {
            let mut events = commit.events.iter();
            events.any(|event| event.type_name.as_str() == asked)
        };
        filter
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == commit.tenant)
            && is(&filter.stream, commit.stream.as_str())
            && is(&filter.category, commit.stream.category())
            && filter.event_type.as_ref().is_none_or(has_type)
            && is(&filter.correlation_id, commit.correlation_id())
            && is(&filter.command_id, commit.command.id.as_str())
            && filter
                .actor_kind
                .as_deref()
                .is_none_or(|asked| kind == Some(asked))
            && filter
                .actor_id
                .as_deref()
                .is_none_or(|asked| actor == Some(asked))
            && self.shows(commit.outcome)
    }

    pub(super) fn shows(&self, outcome: Outcome) -> bool {
        match (self.outcomes, outcome) {
            (Outcomes::All, _)
            | (Outcomes::Accepted, Outcome::Accepted)
            | (Outcomes::Refused, Outcome::Rejected) => true,
            (Outcomes::Accepted, Outcome::Rejected) | (Outcomes::Refused, Outcome::Accepted) => {
                false
            }
        }
    }

    /// Whether an event of a commit that is taken is shown.
    pub(super) fn shows_event(&self, type_name: &str) -> bool {
        let asked = self.filter.event_type.as_ref();
        asked.is_none_or(|asked| asked == type_name)
    }
}
