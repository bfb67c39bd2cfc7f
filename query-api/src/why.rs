//! Why a row is what it is: the contributions that made it, oldest first, each with the value that its
//! columns then had.
//!
//! Invariant: a record contributes only if it is the one that was projected, by its hash. What a page
//! shows is added up from the row before it, and compared with the row as it is stored behind it; the
//! answer says whether both are the same. Deliberately absent: what an event contributes (`projector`).

mod cursor;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use door::header::tenant;
use door::tag::Tag;
use door::{Charge, Path, Problem, Query};
use event_log::commit::Commit;
use event_log::subscription::Placed;
use kernel::{Actor, StreamName, TenantId, Timestamp, TypeName};
use position::{LogId, Partition, Position, PositionToken};
use projector::{
    COMMIT_INDEX, CommitPlace, Contribution, Projection, Value, Why, WhyAsked, WhyCommit, WhyError,
    WhyFrom, WhyPlace, WhyUntil, why_columns,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Connection as _;
use uuid::Uuid;

use self::cursor::Cursor;
use super::answer::{link_next, tagged};
use super::as_of::{AsOf, put_moment};
use super::asked::invalid;
use super::levels::{Reached, position_of};
use super::parameters::{Wait, WhyParameters};
use super::read::{key_of, no_row};
use super::shown::ShownModel;
use super::streams::{PAGE_BYTES_MAX, Reading};
use super::values::text_of;
use super::{Inner, QueryDoor, RETRY_AFTER, SLOW_RETRY_AFTER, code, failed, snapshot};

/// How often the commits are looked for while the index is behind the rows, or a rebuild switches.
const TRIES_MAX: u32 = 5;

#[derive(Serialize)]
struct Told<'a> {
    model: &'static str,
    key: String,
    column: Option<&'a str>,
    source: &'static str,
    contributions: Vec<Box<RawValue>>,
    adds_up: Option<bool>,
    differences: Vec<ShownDifference>,
    left_out: Vec<ShownParked>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ShownContribution<'a> {
    commit: Uuid,
    stream: &'a StreamName,
    version: u64,
    event: Option<Uuid>,
    event_type: Option<&'a TypeName>,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    command_id: &'a str,
    command: &'a TypeName,
    correlation_id: &'a str,
    causation_id: &'a str,
    actor: Option<&'a Actor>,
    traceparent: Option<&'a str>,
    partition: Partition,
    offset: u64,
    position: Option<PositionToken>,
    table: &'static str,
    key: &'a str,
    effect: &'static str,
    cells: Vec<ShownCell<'a>>,
}

#[derive(Serialize)]
struct ShownCell<'a> {
    column: &'static str,
    rule: &'static str,
    given: &'a RawValue,
    value: &'a RawValue,
}

#[derive(Serialize)]
struct ShownDifference {
    table: &'static str,
    column: Option<&'static str>,
    stored: Box<RawValue>,
    contributed: Box<RawValue>,
}

#[derive(Serialize)]
struct ShownParked {
    stream: String,
    partition: Partition,
    position: Position,
}

/// A request for what made a row.
struct Asking<'a> {
    shown: &'a ShownModel,
    projection: &'a Arc<dyn Projection>,
    tenant: TenantId,
    key: Vec<Value>,
    /// The columns of tables that are asked for; absent: all.
    columns: Option<Vec<(&'static str, String)>>,
    moment: Option<AsOf>,
    after: Option<WhyPlace>,
    limit: u32,
    wait: Wait,
}

/// What one page says.
struct Page {
    why: Why,
    contributions: Vec<Box<RawValue>>,
    next: Option<WhyPlace>,
    is_final: bool,
}

/// `GET /v1/read/{model}/{key}/why`
pub(super) async fn why(
    State(door): State<QueryDoor>,
    Path((name, key)): Path<(String, String)>,
    Query(parameters): Query<WhyParameters>,
    headers: HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let shown = door.model(&name)?;
    let answered = why_of(&door.inner, shown, &key, &parameters, &headers, charge).await;
    door.inner.with_freshness(shown.projection, answered)
}

async fn why_of(
    inner: &Inner,
    shown: &ShownModel,
    key: &str,
    parameters: &WhyParameters,
    headers: &HeaderMap,
    charge: Charge,
) -> Result<Response, Problem> {
    let asking = inner.asking(shown, key, parameters, headers)?;
    if asking.projection.own_sql().is_some() {
        let detail = format!(
            "{} writes its rows with SQL of its own, which cannot be run for single events",
            shown.model.name
        );
        return Err(Problem::new(code::WHY_UNKNOWN, detail));
    }
    inner.reach(shown.projection, &asking.wait).await?;
    if let Some(moment) = &asking.moment {
        inner
            .reach_moment(shown.projection, moment, &asking.wait)
            .await?;
    }
    let mut reading = Reading::begin(charge).await?;
    let mut page = inner.page_of_why(&asking, &mut reading).await?;
    if page.why.differences().is_some_and(|some| !some.is_empty()) {
        // A stream that was parked may have been taken up between two looks.
        page = inner.page_of_why(&asking, &mut reading).await?;
    }
    let Page {
        why,
        contributions,
        next,
        is_final,
    } = page;
    inner.require_reached(shown, &asking.wait, why.version())?;
    if contributions.is_empty() && !why.is_known() && asking.after.is_none() && next.is_none() {
        return Err(no_row(shown, &asking.wait, why.version().parked()));
    }
    let differences = why.differences();
    let left_out = why.parked().iter();
    let key: Vec<String> = asking.key.iter().map(text_of).collect();
    let body = Told {
        model: shown.model.name,
        key: key.join(","),
        column: parameters.column.as_deref(),
        source: match why.from() {
            WhyFrom::History => "history",
            WhyFrom::Log => "log",
        },
        contributions,
        adds_up: differences.as_ref().map(Vec::is_empty),
        differences: differences.into_iter().flatten().map(difference).collect(),
        left_out: left_out
            .map(|(stream, partition, position)| ShownParked {
                stream: stream.clone(),
                partition: *partition,
                position: *position,
            })
            .collect(),
        next: next.map(|place| Cursor(place).to_string()),
    };
    let position = why.version().position();
    let mut response = tagged(headers, &body, position, Tag::weak)?;
    if let Some(next) = &body.next {
        link_next(&mut response, &asking.link(&body.key, parameters, next));
    }
    if let Some(moment) = &asking.moment {
        put_moment(&mut response, moment, is_final);
    }
    Ok(asking.wait.applied(response))
}

fn difference(found: projector::WhyDifference) -> ShownDifference {
    ShownDifference {
        table: found.table,
        column: found.column,
        stored: found.stored,
        contributed: found.contributed,
    }
}

impl Asking<'_> {
    /// The path of the next page.
    fn link(&self, key: &str, parameters: &WhyParameters, next: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(column) = &parameters.column {
            query.append_pair("column", column);
        }
        if let Some(moment) = &self.moment {
            query.append_pair("as_of", &moment.text());
        }
        query.append_pair("limit", &self.limit.to_string());
        query.append_pair("after", next);
        let key: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
        // In a path, a space is not written as a plus.
        let key = key.replace('+', "%20");
        format!(
            "/v1/read/{}/{key}/why?{}",
            self.shown.model.name,
            query.finish()
        )
    }

    /// What is shown of a contribution; absent if it gives nothing to what is asked for.
    fn shown<'c>(&self, contribution: &'c Contribution) -> Option<Vec<ShownCell<'c>>> {
        let table = contribution.table;
        let is_asked = |column: &str| match &self.columns {
            None => true,
            Some(columns) => {
                let mut columns = columns.iter();
                columns.any(|(of, name)| *of == table && name == column)
            }
        };
        let cells = contribution.cells.iter();
        let cells = cells.filter(|cell| is_asked(cell.column));
        let cells: Vec<ShownCell<'c>> = cells
            .map(|cell| ShownCell {
                column: cell.column,
                rule: cell.rule,
                given: &cell.given,
                value: &cell.value,
            })
            .collect();
        let ends = matches!(contribution.effect, "removed" | "replaced");
        let is_of_table = match &self.columns {
            None => true,
            Some(columns) => columns.iter().any(|(of, _)| *of == table),
        };
        let is_shown = !cells.is_empty() || self.columns.is_none() || (ends && is_of_table);
        is_shown.then_some(cells)
    }
}

impl Inner {
    fn asking<'a>(
        &'a self,
        shown: &'a ShownModel,
        key: &str,
        parameters: &WhyParameters,
        headers: &HeaderMap,
    ) -> Result<Asking<'a>, Problem> {
        let tenant = tenant(headers)?;
        let limit = parameters.limit()?;
        let moment = parameters.as_of()?;
        let after = parameters.after.as_deref().map(str::parse::<Cursor>);
        let after = after.transpose().map_err(|_| {
            let detail = "after takes the `next` of an earlier page of the same row";
            Problem::new(code::CURSOR_UNKNOWN, detail)
        })?;
        let wait = parameters.wait(headers)?;
        let columns = match &parameters.column {
            None => None,
            Some(column) => Some(why_columns(&shown.model, column).ok_or_else(|| {
                let names = shown.model.columns.iter().map(|column| column.name);
                let names: Vec<&str> = names.collect();
                let (name, names) = (shown.model.name, names.join(", "));
                let detail = format!("{name} has no column {column:?}; its columns are: {names}");
                invalid("column", detail)
            })?),
        };
        let mut projections = self.projections.iter();
        let projection = projections.find(|projection| projection.name() == shown.projection);
        let projection = projection.ok_or_else(|| Problem::internal("a projection is gone"))?;
        Ok(Asking {
            shown,
            projection,
            tenant,
            key: key_of(shown, key)?,
            // A column of the key has its value with the row's first contribution.
            columns: columns.filter(|columns| !columns.is_empty()),
            moment,
            after: after.map(|after| after.0),
            limit,
            wait,
        })
    }

    /// Finds the commits, reads them, and adds up what they contribute.
    async fn page_of_why(
        &self,
        asking: &Asking<'_>,
        reading: &mut Reading,
    ) -> Result<Page, Problem> {
        let (mut why, is_final) = self.find_why(asking).await?;
        let log = why.version().position().map(|position| position.log);
        let commits = why.commits().to_vec();
        let (mut rest, mut contributions) = (&commits[..], Vec::new());
        let (mut bytes, mut count) = (0, 0_u32);
        let mut last: Option<WhyPlace> = None;
        let mut is_full = false;
        'page: while let Some(chunk) = reading.next(&mut rest).await? {
            for placed in self.placed(asking, chunk).await? {
                let place = WhyPlace {
                    at: placed.at,
                    partition: placed.partition,
                    position: placed.position,
                };
                let is_shown = asking.after.is_none_or(|after| place > after);
                if is_shown && (count >= asking.limit || bytes >= PAGE_BYTES_MAX) {
                    is_full = true;
                    break 'page;
                }
                reading.came(&placed.commit);
                let given = why.take(&placed);
                let given = given.map_err(|reason| self.not_taken_up(asking, &placed, &reason))?;
                if !is_shown {
                    continue;
                }
                last = Some(place);
                // A commit that was searched for may have given nothing to the row.
                count += u32::from(!given.is_empty());
                for contribution in &given {
                    if let Some(cells) = asking.shown(contribution) {
                        let text = told(&placed, contribution, cells, log)?;
                        bytes += text.get().len();
                        contributions.push(text);
                    }
                }
            }
        }
        if let (true, Some(last)) = (is_full, last) {
            let mut connection = self.pool.acquire().await.map_err(|error| failed(&error))?;
            let ended = why.end_at(&mut connection, last).await;
            ended.map_err(|error| self.why_failed(asking, error))?;
        }
        Ok(Page {
            next: last.filter(|_| why.is_more()),
            why,
            contributions,
            is_final,
        })
    }

    /// Commits in their order, with their records.
    async fn placed(
        &self,
        asking: &Asking<'_>,
        commits: &[WhyCommit],
    ) -> Result<Vec<Placed>, Problem> {
        let mut places: BTreeMap<Partition, Vec<CommitPlace>> = BTreeMap::new();
        for commit in commits {
            let of_partition = places.entry(commit.place.partition).or_default();
            of_partition.push(CommitPlace {
                position: commit.place.position,
                offset: commit.offset,
                record_hash: commit.record_hash.clone(),
                recorded_at: commit.place.at,
            });
        }
        let mut all = Vec::with_capacity(commits.len());
        for (partition, places) in places {
            let what = asking.shown.model.name;
            let read = self.read_records(&asking.tenant, &what, partition, &places);
            for ((record, commit), place) in read.await?.into_iter().zip(&places) {
                all.push(Placed {
                    partition,
                    position: place.position,
                    at: place.recorded_at,
                    record,
                    commit,
                    is_checked: true,
                });
            }
        }
        all.sort_by_key(|placed| (placed.at, placed.partition, placed.position));
        Ok(all)
    }

    /// The commits of a page, once the index of commits has got as far as the rows; and whether none can
    /// come that belongs to the moment.
    async fn find_why(&self, asking: &Asking<'_>) -> Result<(Why, bool), Problem> {
        let projection = asking.shown.projection;
        let mut tries = 0;
        loop {
            let level = self.levels.present(projection).await?;
            if let Some(position) = position_of(level.as_ref()) {
                let deadline = asking.wait.deadline;
                let reached = self.levels.reach(COMMIT_INDEX, position, deadline).await?;
                if let Reached::Behind(behind) = reached {
                    return Err(self.behind(COMMIT_INDEX, &behind));
                }
            }
            tries += 1;
            let error = match self.find_once(asking).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let is_passing = match &error {
                WhyError::IndexBehind => true,
                WhyError::Postgres(error) => snapshot::is_replaced(error),
                _ => false,
            };
            if !is_passing || tries >= TRIES_MAX {
                return Err(self.why_failed(asking, error));
            }
        }
    }

    async fn find_once(&self, asking: &Asking<'_>) -> Result<(Why, bool), WhyError> {
        let asked = WhyAsked {
            tenant: asking.tenant.clone(),
            model: asking.shown.model.name,
            key: asking.key.clone(),
            until: match &asking.moment {
                None => WhyUntil::Now,
                Some(AsOf::Time(time)) => WhyUntil::Time(*time),
                Some(AsOf::Position(token)) => WhyUntil::Position(token.clone()),
            },
            after: asking.after,
            limit: asking.limit,
            partitions: self.log.partition_count(),
        };
        let mut connection = self.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *tx)
            .await?;
        let why = Why::find(&mut tx, asking.projection, asked).await?;
        let is_final = match &asking.moment {
            Some(AsOf::Time(time)) => {
                let projection = asking.shown.projection;
                self.is_over(&mut tx, projection, *time).await?
            }
            None | Some(AsOf::Position(_)) => true,
        };
        tx.commit().await?;
        Ok((why, is_final))
    }

    fn why_failed(&self, asking: &Asking<'_>, error: WhyError) -> Problem {
        let name = asking.shown.model.name;
        match error {
            WhyError::Postgres(error) => failed(&error),
            WhyError::NothingShown => failed(&sqlx::Error::RowNotFound),
            WhyError::OtherVersion => {
                let detail = "the rows are of another version of the read model than this \
                              program's; `annals projections list` tells what is next";
                Problem::new(code::READ_MODEL_OF_OTHER_VERSION, detail)
                    .retry_after(SLOW_RETRY_AFTER)
            }
            WhyError::IndexBehind => {
                let detail = "the index of commits is behind the rows; ask again";
                Problem::new(code::READ_MODEL_BEHIND, detail)
                    .retry_after(RETRY_AFTER)
                    .member("missing", 1)
            }
            WhyError::TooMany => {
                let history = asking.shown.history.name();
                let detail = format!(
                    "{error} for a row of {name}, whose history is {history:?}: with the full \
                     history the versions of the row would name them",
                );
                Problem::new(code::WHY_TOO_LONG, detail)
            }
            WhyError::TooManyJoined { .. } => {
                let detail = format!(
                    "{error}: ask why of that read model's own rows, or export the events of the row"
                );
                Problem::new(code::WHY_TOO_LONG, detail)
            }
        }
    }

    /// The projection took the commit up, but this program cannot.
    fn not_taken_up(&self, asking: &Asking<'_>, placed: &Placed, reason: &str) -> Problem {
        let Placed {
            partition,
            position,
            ..
        } = placed;
        let name = asking.shown.model.name;
        tracing::error!(%name, %partition, %position, %reason, "a commit cannot be projected again");
        let detail = format!(
            "this program cannot take up the commit at position {position} of partition {partition}, \
             which is in the rows: {reason}"
        );
        Problem::new(code::UPGRADE_NEEDED, detail).retry_after(SLOW_RETRY_AFTER)
    }
}

/// A contribution in JSON.
fn told(
    placed: &Placed,
    contribution: &Contribution,
    cells: Vec<ShownCell<'_>>,
    log: Option<LogId>,
) -> Result<Box<RawValue>, Problem> {
    let commit: &Commit = &placed.commit;
    let event = contribution.event.map(|index| &commit.events[index]);
    let occurred_at = event.and_then(|event| event.occurred_at);
    let shown = ShownContribution {
        commit: commit.commit,
        stream: &commit.stream,
        version: match contribution.event {
            Some(index) => commit.from_version + 1 + u64::try_from(index).unwrap_or_default(),
            None => commit.version(),
        },
        event: event.map(|event| event.id),
        event_type: event.map(|event| &event.type_name),
        occurred_at: occurred_at.unwrap_or_else(|| commit.asked_at()),
        recorded_at: commit.recorded_at,
        command_id: commit.command.id.as_str(),
        command: &commit.command.type_name,
        correlation_id: commit.correlation_id(),
        causation_id: commit.causation_id(),
        actor: commit.actor.as_ref(),
        traceparent: commit.trace.as_deref(),
        partition: placed.partition,
        offset: placed.record.offset.0,
        position: log.map(|log| PositionToken::at(log, placed.partition, placed.position)),
        table: contribution.table,
        key: &contribution.key,
        effect: contribution.effect,
        cells,
    };
    serde_json::value::to_raw_value(&shown).map_err(Problem::internal)
}
