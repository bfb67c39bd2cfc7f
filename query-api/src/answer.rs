//! Answers with rows: their tags, their headers, and whether they are known already.
//!
//! Invariants: a tag stands for the version of the rows and for all that was asked, so that "not
//! modified" is said only if the same bytes would be sent. A version by which a request is answered
//! without reading rows was read after the request came. Deliberately absent: what rows look like.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use door::Problem;
use door::header::POSITION;
use door::tag::{self, Tag};
use position::PositionToken;
use projector::RowsVersion;
use serde::Serialize;

use super::cache::Kept;
use super::format::Format;
use super::levels::{Behind, Level, Reached, is_reached, position_of};
use super::lookups::Lookup;
use super::parameters::Wait;
use super::parked::PARKED;
use super::shown::ShownModel;
use super::snapshot::Snapshot;
use super::statement::Statement;
use super::{Inner, failed};

/// A request for rows.
pub(super) struct Asker<'r> {
    pub(super) shown: &'r ShownModel,
    pub(super) headers: &'r HeaderMap,
    pub(super) wait: &'r Wait,
    /// All that makes two requests ask the same: model, tenant, filters and so on.
    pub(super) asked: String,
    pub(super) format: Format,
}

/// The rows that a request wants.
pub(super) enum Wanted {
    /// Those of a statement.
    Page(Statement),
    /// One, by its key.
    Row(Lookup),
}

/// What is known before rows are read.
pub(super) enum Known {
    /// The answer.
    Answered(Response),
    /// The version that is shown, but not its rows.
    Version(RowsVersion),
    /// Nothing: rows must be read.
    Rows,
}

impl Asker<'_> {
    fn tag(&self, version: &RowsVersion) -> Tag {
        let (shown, version) = (&self.shown.made_by, version.as_str());
        let text = format!("{shown}\0{version}\0{}", self.asked);
        Tag::strong(tag::digest(text.as_bytes()))
    }

    /// The answer with this body; without it if the client has it already.
    pub(super) fn answer(
        &self,
        version: &RowsVersion,
        parked: u64,
        body: impl Into<Body>,
        next: Option<&str>,
    ) -> Response {
        let own = [
            (header::CONTENT_TYPE, self.format.content_type()),
            (header::VARY, "annals-tenant, accept"),
        ];
        let mut response = (own, body.into()).into_response();
        if self.format == Format::Csv {
            let name = format!("attachment; filename=\"{}.csv\"", self.shown.model.name);
            if let Ok(name) = HeaderValue::from_str(&name) {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_DISPOSITION, name);
            }
        }
        put_position(&mut response, version.token());
        if parked > 0 {
            response.headers_mut().insert(PARKED, parked.into());
        }
        if let Some(next) = next {
            link_next(&mut response, next);
        }
        let response = self.tag(version).answer(self.headers, response);
        self.wait.applied(response)
    }
}

impl Inner {
    /// What is known of an answer before rows are read, once the read model has reached what the
    /// request waits for. The version is read only if it may save reading the rows.
    pub(super) async fn known(&self, asker: &Asker<'_>) -> Result<Known, Problem> {
        let projection = asker.shown.projection;
        let has_tag = asker.headers.contains_key(header::IF_NONE_MATCH);
        let level = match self.reach(projection, asker.wait).await? {
            Some(level) => level,
            None if has_tag || self.cache.has(&asker.asked) => {
                self.levels.present(projection).await?
            }
            None => return Ok(Known::Rows),
        };
        let Some(version) = level else {
            return Ok(Known::Rows);
        };
        // How many streams of the tenant are parked is not known yet if any is.
        if version.parked() == 0 && asker.tag(&version).is_named(asker.headers) {
            return Ok(Known::Answered(asker.answer(
                &version,
                0,
                Body::empty(),
                None,
            )));
        }
        Ok(match self.cache.get(&asker.asked, &version) {
            Some(kept) => {
                self.cache.hit();
                let next = kept.next.as_deref();
                Known::Answered(asker.answer(&version, kept.parked, kept.body.clone(), next))
            }
            None => Known::Version(version),
        })
    }

    /// The answer, which is kept for others.
    pub(super) fn keep(&self, asker: Asker<'_>, kept: Kept) -> Response {
        let next = kept.next.as_deref();
        let response = asker.answer(&kept.version, kept.parked, kept.body.clone(), next);
        self.cache.put(asker.asked, kept);
        response
    }

    /// The version that `projection` shows, if that must be known before rows are read: once it has
    /// reached what the request waits for.
    ///
    /// # Errors
    /// `read_model_behind` if it did not reach it in time.
    pub(super) async fn reach(
        &self,
        projection: &'static str,
        wait: &Wait,
    ) -> Result<Option<Level>, Problem> {
        let Some(wanted) = &wait.min_position else {
            return Ok(None);
        };
        match self.levels.reach(projection, wanted, wait.deadline).await? {
            Reached::There(level) => Ok(Some(level)),
            Reached::Behind(behind) => Err(wait.applied_to(self.behind(projection, &behind))),
        }
    }

    /// The position that `projection` has reached, once it has reached what the request waits for.
    /// Rows that are read afterwards have reached at least this position.
    pub(super) async fn position(
        &self,
        projection: &'static str,
        wait: &Wait,
    ) -> Result<Option<PositionToken>, Problem> {
        let level = match self.reach(projection, wait).await? {
            Some(level) => level,
            None => self.levels.present(projection).await?,
        };
        Ok(position_of(level.as_ref()).cloned())
    }

    /// The rows that are wanted, at the position that the request waited for.
    pub(super) async fn snapshot(
        &self,
        shown: &ShownModel,
        wanted: &Wanted,
        wait: &Wait,
    ) -> Result<Snapshot, Problem> {
        let _turn = match &wait.min_position {
            Some(_) => Some(
                self.waited_reads
                    .acquire()
                    .await
                    .map_err(Problem::internal)?,
            ),
            None => None,
        };
        let (pool, versions) = (&self.pool, &self.versions);
        let snapshot = match wanted {
            Wanted::Page(statement) => super::snapshot::read(pool, versions, statement).await,
            Wanted::Row(lookup) => shown.lookups.read(shown, pool, versions, lookup).await,
        };
        let snapshot = snapshot.map_err(|error| failed(&error))?;
        self.require_reached(shown, wait, &snapshot.head.version)?;
        Ok(snapshot)
    }

    /// Checks that rows have reached what the request waited for: another generation may have become
    /// the live one meanwhile.
    pub(super) fn require_reached(
        &self,
        shown: &ShownModel,
        wait: &Wait,
        version: &RowsVersion,
    ) -> Result<(), Problem> {
        let Some(wanted) = &wait.min_position else {
            return Ok(());
        };
        let position = version.position();
        if is_reached(wanted, position, self.log.partition_count())? {
            return Ok(());
        }
        let behind = Behind::of(wanted, position);
        Err(wait.applied_to(self.behind(shown.projection, &behind)))
    }
}

/// An answer to a request with these `headers` that the client may keep: `body`, which is an object
/// with members, and the position as its last member. The tag is made from the body without the
/// position, which only says how far the reader had come; the header says it anew.
pub(super) fn tagged(
    headers: &HeaderMap,
    body: &impl Serialize,
    position: Option<&PositionToken>,
    tag: impl FnOnce(String) -> Tag,
) -> Result<Response, Problem> {
    let mut text = serde_json::to_vec(body).map_err(Problem::internal)?;
    let tag = tag(tag::digest(&text));
    // The brace that closes the object.
    text.pop();
    text.extend_from_slice(b",\"position\":");
    serde_json::to_writer(&mut text, &position).map_err(Problem::internal)?;
    text.push(b'}');
    let own = [
        (header::CONTENT_TYPE, "application/json"),
        (header::VARY, "annals-tenant"),
    ];
    let mut response = (own, text).into_response();
    let position = position.map(ToString::to_string);
    put_position(&mut response, position.as_deref());
    Ok(tag.answer(headers, response))
}

fn put_position(response: &mut Response, position: Option<&str>) {
    if let Some(Ok(value)) = position.map(HeaderValue::from_str) {
        response.headers_mut().insert(POSITION, value);
    }
}

/// Adds the link to the next page (RFC 8288).
pub(super) fn link_next(response: &mut Response, target: &str) {
    let link = HeaderValue::from_str(&format!("<{target}>; rel=\"next\""));
    if let Ok(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
}
