//! Read models as of a moment.
//!
//! Invariant: the answer is what a replay of the log up to the moment gives. It names the moment as the
//! read model's history has it, the last position of each partition that is in it, and whether it is
//! final: while a partition has no later commit, one may still come that was recorded before.
//! Deliberately absent: how the past is kept (`projector`).

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use chrono::{DateTime, Utc};
use door::Problem;
use kernel::Timestamp;
use position::{Partition, PositionToken};
use projector::{COMMIT_INDEX, Value, last_before};
use sqlx::{Connection as _, PgConnection};

use super::answer::Asker;
use super::asked::{Asked, invalid};
use super::cursor::Cursor;
use super::levels::Reached;
use super::parameters::Wait;
use super::parked::{key_asked, require_current};
use super::read::{ROW_BYTES_TYPICAL, body_of, link, no_row};
use super::shown::ShownModel;
use super::snapshot::Snapshot;
use super::statement::{HeadForm, ROW_FROM, Statement};
use super::{Inner, code, failed};

/// The header that names the moment of an answer.
const AS_OF: HeaderName = HeaderName::from_static("annals-as-of");
/// The header with the last position of each partition that is in an answer. As of this token, the same
/// is shown later, too.
const AS_OF_POSITION: HeaderName = HeaderName::from_static("annals-as-of-position");
/// The header that says that commits may still come that belong to the moment.
const PROVISIONAL: HeaderName = HeaderName::from_static("annals-provisional");

/// A moment that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AsOf {
    /// A time of recording.
    Time(Timestamp),
    /// How far each partition has got.
    Position(PositionToken),
}

impl AsOf {
    /// # Errors
    /// `query_invalid`.
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        text.parse().map(Self::Position).map_err(|_| {
            let detail = format!(
                "as_of takes a time with its offset from UTC, such as 2026-03-01T12:00:00Z, or a \
                 position token; {text:?} is neither"
            );
            invalid("as_of", detail)
        })
    }

    /// Its canonical text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Time(time) => time.to_string(),
            Self::Position(token) => token.to_string(),
        }
    }
}

/// A page that is asked for.
pub(super) struct PastPage<'a> {
    pub(super) asker: &'a Asker<'a>,
    pub(super) asked: &'a Asked,
    pub(super) after: Option<&'a Cursor>,
    pub(super) limit: u32,
}

/// What was read.
struct Past {
    snapshot: Snapshot,
    /// The moment as the history has it.
    moment: AsOf,
    /// The last position of each partition that is in it; absent if the rows have taken up nothing.
    position: Option<PositionToken>,
    is_final: bool,
}

impl Inner {
    /// A page of a read model as of a moment.
    pub(super) async fn page_as_of(
        &self,
        tenant: &str,
        moment: &AsOf,
        page: PastPage<'_>,
    ) -> Result<Response, Problem> {
        let PastPage {
            asker,
            asked,
            after,
            limit,
        } = page;
        let shown = asker.shown;
        self.reach(shown.projection, asker.wait).await?;
        let values = after.map(|after| &after.values[..]);
        // One row more than asked for shows whether there is a next page.
        let rows = Some(i64::from(limit) + 1);
        let statement = Statement::page(shown, tenant, asked, values, rows);
        let past = self.past(asker, &statement, moment).await?;
        let head = &past.snapshot.head;
        if after.is_some_and(|after| after.generation != head.version.generation()) {
            let detail =
                "the read model was rebuilt since the page before; begin with the first page";
            return Err(Problem::new(code::CURSOR_EXPIRED, detail));
        }
        self.require_reached(shown, asker.wait, &head.version)?;
        require_current(shown, tenant, &key_asked(shown, asked), &head.parked)?;
        let (body, next) = body_of(shown, asked, &past.snapshot, limit as usize, asker.format)?;
        let next = next.map(|next| link(shown, asked, limit, asker.format, next));
        Ok(past.answer(asker, body, next.as_deref()))
    }

    /// A row of a read model as of a moment.
    pub(super) async fn row_as_of(
        &self,
        tenant: &str,
        moment: &AsOf,
        asker: &Asker<'_>,
        key: Vec<Value>,
    ) -> Result<Response, Problem> {
        let shown = asker.shown;
        self.reach(shown.projection, asker.wait).await?;
        let statement = Statement::one_as_of(shown, tenant, key.clone());
        let past = self.past(asker, &statement, moment).await?;
        let head = &past.snapshot.head;
        self.require_reached(shown, asker.wait, &head.version)?;
        require_current(shown, tenant, &key, &head.parked)?;
        let row = past.snapshot.rows.first();
        let row = row.ok_or_else(|| {
            let problem = no_row(shown, asker.wait, head.parked.streams);
            problem.member("as_of", past.moment.text())
        })?;
        let mut body = Vec::with_capacity(ROW_BYTES_TYPICAL);
        let written = shown.write_json(row, ROW_FROM, &mut body);
        written.map_err(|error| failed(&error))?;
        Ok(past.answer(asker, body, None))
    }

    /// Waits until the rows, and the index of commits, have got to a moment that is a position.
    pub(super) async fn reach_moment(
        &self,
        projection: &'static str,
        moment: &AsOf,
        wait: &Wait,
    ) -> Result<(), Problem> {
        let AsOf::Position(token) = moment else {
            return Ok(());
        };
        // The index tells the times of the commits at these positions.
        for projection in [projection, COMMIT_INDEX] {
            let reached = self.levels.reach(projection, token, wait.deadline);
            if let Reached::Behind(behind) = reached.await? {
                return Err(wait.applied_to(self.behind(projection, &behind)));
            }
        }
        Ok(())
    }

    async fn past(
        &self,
        asker: &Asker<'_>,
        statement: &Statement,
        moment: &AsOf,
    ) -> Result<Past, Problem> {
        let (shown, wait) = (asker.shown, asker.wait);
        let Some(moment) = moment.within(shown) else {
            let name = shown.model.name;
            let detail = format!("{name} keeps no history, so it can only be shown as it is now");
            return Err(Problem::new(code::HISTORY_OFF, detail));
        };
        self.reach_moment(shown.projection, &moment, wait).await?;
        let mut connection = self.pool.acquire().await.map_err(|error| failed(&error))?;
        let read = self.read_past(&mut connection, shown, statement, &moment);
        match read.await {
            Ok((snapshot, is_final)) => {
                drop(connection);
                let position = self.cut(asker, &moment, &snapshot).await?;
                Ok(Past {
                    snapshot,
                    moment,
                    position,
                    is_final,
                })
            }
            Err(error) => {
                // The transaction is not ended.
                connection.close_on_drop();
                Err(self.past_failed(shown, &error))
            }
        }
    }
}

impl Inner {
    /// The rows of a statement as of a moment, and whether no commit can come that belongs to it.
    async fn read_past(
        &self,
        connection: &mut PgConnection,
        shown: &ShownModel,
        statement: &Statement,
        moment: &AsOf,
    ) -> Result<(Snapshot, bool), sqlx::Error> {
        let mut tx = connection.begin().await?;
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *tx)
            .await?;
        let setting = match moment {
            AsOf::Time(time) => time.to_string(),
            AsOf::Position(token) => places(&mut tx, token).await?,
        };
        sqlx::query("SELECT set_config('annals.as_of', $1, true)")
            .bind(setting)
            .execute(&mut *tx)
            .await?;
        let rows = statement.query(HeadForm::WithParked).fetch_all(&mut *tx);
        let snapshot = super::snapshot::of_rows(&self.versions, rows.await?)?;
        let is_final = match moment {
            AsOf::Time(time) => self.is_over(&mut tx, shown.projection, *time).await?,
            // Each partition is cut behind a commit that stands there.
            AsOf::Position(_) => true,
        };
        tx.commit().await?;
        Ok((snapshot, is_final))
    }

    /// The last position of each partition that belongs to a moment and that the rows have taken up.
    async fn cut(
        &self,
        asker: &Asker<'_>,
        moment: &AsOf,
        snapshot: &Snapshot,
    ) -> Result<Option<PositionToken>, Problem> {
        let time = match moment {
            AsOf::Time(time) => *time,
            AsOf::Position(token) => return Ok(Some(token.clone())),
        };
        let Some(reached) = snapshot.head.version.position() else {
            return Ok(None);
        };
        let (levels, deadline) = (&self.levels, asker.wait.deadline);
        // The index never changes what it says of these positions.
        if let Reached::Behind(behind) = levels.reach(COMMIT_INDEX, reached, deadline).await? {
            return Err(asker.wait.applied_to(self.behind(COMMIT_INDEX, &behind)));
        }
        let behind_time = Timestamp::from_micros(time.micros().saturating_add(1)).unwrap_or(time);
        let found = last_before(&self.pool, &reached.positions, behind_time).await;
        let found = found.map_err(|error| failed(&error))?;
        let positions = found
            .into_iter()
            .map(|(partition, last)| (partition, last.position));
        Ok(Some(PositionToken {
            log: reached.log,
            positions: positions.collect(),
        }))
    }

    /// Whether no commit can come that was recorded up to a time.
    pub(super) async fn is_over(
        &self,
        connection: &mut PgConnection,
        projection: &str,
        time: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let later = "SELECT count(*) FROM annals.generation AS g \
                     JOIN annals.checkpoint AS c USING (projection, generation) \
                     WHERE g.projection = $1 AND g.state = 'live' \
                         AND c.last_recorded_at > $2";
        let later: i64 = sqlx::query_scalar(later)
            .bind(projection)
            .bind(time.to_utc())
            .fetch_one(connection)
            .await?;
        Ok(later >= i64::from(self.log.partition_count()))
    }

    fn past_failed(&self, shown: &ShownModel, error: &sqlx::Error) -> Problem {
        let code = error.as_database_error().and_then(|error| error.code());
        // The view is not there: the live rows were built without a history.
        if code.as_deref() == Some("42P01") {
            let name = shown.model.name;
            let detail = format!(
                "the rows of {name} were built before its history was declared: an operator must \
                 build them again"
            );
            return Problem::new(super::code::HISTORY_OFF, detail);
        }
        failed(error)
    }
}

/// The setting for a position token: for each partition the time and position of its last commit.
async fn places(
    connection: &mut PgConnection,
    token: &PositionToken,
) -> Result<String, sqlx::Error> {
    let select = "SELECT c.partition, c.recorded_at, c.position \
                  FROM UNNEST($1::bigint[], $2::bigint[]) AS n(partition, position) \
                  JOIN read.commit_index AS c \
                      ON c.partition = n.partition AND c.position = n.position";
    let partitions = token
        .positions
        .keys()
        .map(|Partition(number)| i64::from(*number));
    let positions = token
        .positions
        .values()
        .map(|position| position.0.cast_signed());
    let rows: Vec<(i64, DateTime<Utc>, i64)> = sqlx::query_as(select)
        .bind(partitions.collect::<Vec<_>>())
        .bind(positions.collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let places = rows
        .into_iter()
        .map(|(partition, at, position)| (partition.to_string(), (at.to_rfc3339(), position)));
    let places: BTreeMap<String, (String, i64)> = places.collect();
    serde_json::to_string(&places).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

impl AsOf {
    /// The moment as the read model's history has it; absent if it keeps none.
    fn within(&self, shown: &ShownModel) -> Option<Self> {
        if !shown.history.is_kept() {
            return None;
        }
        Some(match self {
            Self::Time(time) => Self::Time(shown.history.moment(*time)),
            position @ Self::Position(_) => position.clone(),
        })
    }
}

/// Says which moment is shown, and whether commits may still come that belong to it.
pub(super) fn put_moment(response: &mut Response, moment: &AsOf, is_final: bool) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&moment.text()) {
        headers.insert(AS_OF, value);
    }
    if !is_final {
        headers.insert(PROVISIONAL, HeaderValue::from_static("true"));
    }
}

impl Past {
    fn answer(&self, asker: &Asker<'_>, body: Vec<u8>, next: Option<&str>) -> Response {
        let head = &self.snapshot.head;
        let parked = head.parked.streams;
        let mut response = asker.answer(&head.version, parked, Body::from(body), next);
        put_moment(&mut response, &self.moment, self.is_final);
        let position = self.position.as_ref().map(ToString::to_string);
        if let Some(Ok(value)) = position.as_deref().map(HeaderValue::from_str) {
            response.headers_mut().insert(AS_OF_POSITION, value);
        }
        response
    }
}
