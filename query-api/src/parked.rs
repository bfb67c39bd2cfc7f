//! Rows of parked streams: they are out of date for as long as an operator does not act, so they are
//! refused and never shown as if they were current.
//!
//! Invariant: whether a row's stream is parked is known for the same version of the rows as the row
//! itself. Deliberately absent: why a stream is parked; the operators' door tells that
//! (`GET /v1/parked`).

use std::time::Duration;

use axum::http::HeaderName;
use door::Problem;
use kernel::TenantId;
use projector::{KeyIs, RowsOf, Value};
use serde::Deserialize;

use super::answer::Wanted;
use super::asked::{Asked, Condition};
use super::offered::Operator;
use super::parameters::Wait;
use super::shown::ShownModel;
use super::snapshot::Snapshot;
use super::statement::Statement;
use super::{Inner, RETRY_AFTER, code, failed};

/// How many streams of the tenant the read model has parked; absent if none.
pub(super) const PARKED: HeaderName = HeaderName::from_static("annals-parked");
/// When to ask again for a row of a parked stream: an operator must act first.
const PARKED_RETRY_AFTER: Duration = Duration::from_secs(60);
/// How often a row and its owner are read until both are of one version.
const TRIES_MAX: u32 = 10;

/// What is parked, as far as it concerns a query.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    /// How many streams of the tenant are parked.
    pub(super) streams: u64,
    /// Those among them that the query may name.
    pub(super) suspects: Vec<Suspect>,
}

/// A parked stream.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Suspect {
    stream: String,
    partition: u32,
    position: u64,
    parked_at: String,
}

/// The stream that a key names.
pub(super) struct NamedStream<'k> {
    category: Option<&'static str>,
    /// The id or the name of the stream, shortened if it is long.
    key: &'k Value,
}

impl<'k> NamedStream<'k> {
    /// The stream that the values of the first columns of a key name; absent if the key of the read
    /// model does not tell.
    pub(super) fn of(shown: &ShownModel, key: &'k [Value]) -> Option<Self> {
        let category = match shown.model.key_is {
            KeyIs::NoStream => return None,
            KeyIs::StreamId(category) => Some(category),
            KeyIs::StreamName => None,
        };
        Some(Self {
            category,
            key: key.first()?,
        })
    }

    /// With what the stream's name begins: all of it, unless it is long.
    pub(super) fn prefix(&self) -> String {
        let Value::Text(text) = self.key else {
            return String::new();
        };
        let kept = match self.key.is_shortened() {
            true => text.rsplit_once('…').map_or("", |(kept, _)| kept),
            false => text,
        };
        match self.category {
            Some(category) => format!("{category}-{kept}"),
            None => kept.to_owned(),
        }
    }

    fn is(&self, stream: &str) -> bool {
        let own = match self.category {
            Some(category) => {
                let id = stream.strip_prefix(category);
                id.and_then(|id| id.strip_prefix('-'))
            }
            None => Some(stream),
        };
        own.is_some_and(|own| Value::from(own).into_key() == *self.key)
    }
}

/// The values that a query demands of the first columns of the key.
pub(super) fn key_asked(shown: &ShownModel, asked: &Asked) -> Vec<Value> {
    let wanted = |name: &str| {
        let is_of = |column: usize| shown.model.columns[column].name == name;
        let mut filters = asked.filters.iter().filter(|filter| is_of(filter.column));
        filters.find_map(|filter| match &filter.condition {
            // `.in` with one value asks for one key, too.
            Condition::Compared(Operator::Equal | Operator::In, values) if values.len() == 1 => {
                values.first().cloned()
            }
            _ => None,
        })
    };
    let key = shown.model.key.iter();
    key.map_while(|key| wanted(key.name)).collect()
}

/// Refuses the rows of a parked stream.
///
/// # Errors
/// `parked` if `key`, the values of the first columns of the key, names a stream that is parked.
pub(super) fn require_current(
    shown: &ShownModel,
    tenant: &str,
    key: &[Value],
    parked: &Parked,
) -> Result<(), Problem> {
    let Some(named) = NamedStream::of(shown, key) else {
        return Ok(());
    };
    let mut suspects = parked.suspects.iter();
    match suspects.find(|suspect| named.is(&suspect.stream)) {
        Some(suspect) => Err(refusal(shown, tenant, suspect)),
        None => Ok(()),
    }
}

fn refusal(shown: &ShownModel, tenant: &str, suspect: &Suspect) -> Problem {
    let projection = shown.projection;
    let Suspect {
        stream,
        partition,
        position,
        parked_at,
    } = suspect;
    let of = match tenant {
        TenantId::MAIN => String::new(),
        other => format!(" --tenant {other}"),
    };
    let detail = format!(
        "{projection} has parked the stream {stream} since {parked_at}: it cannot take up the commit \
         at position {position} of partition {partition}, so the row is out of date. An operator \
         must act: annals parked show {projection} {stream}{of}"
    );
    Problem::new(code::PARKED, detail)
        .retry_after(PARKED_RETRY_AFTER)
        .member("stream", stream.as_str())
        .member("partition", *partition)
        .member("position", *position)
        .member("parked_at", parked_at.as_str())
}

impl Inner {
    /// The rows that are wanted, as [`Inner::snapshot`], unless they belong to a stream that is
    /// parked. `key` has the values that are demanded of the first columns of the key.
    ///
    /// # Errors
    /// Those of [`Inner::snapshot`], and `parked`.
    pub(super) async fn current(
        &self,
        shown: &ShownModel,
        tenant: &str,
        wanted: &Wanted,
        key: &[Value],
        wait: &Wait,
    ) -> Result<Snapshot, Problem> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot(shown, wanted, wait).await?;
            require_current(shown, tenant, key, &snapshot.head.parked)?;
            if !is_owner_unknown(shown, key, &snapshot) {
                return Ok(snapshot);
            }
            // Only the tables of this generation tell whose the row is.
            let table = snapshot.head.version.table(shown.model.name);
            let owner = Statement::owner(shown, tenant, key.to_vec(), &table);
            let owner = super::snapshot::read(&self.pool, &self.versions, &owner).await;
            let owner = owner.map_err(|error| failed(&error))?;
            if owner.head.version == snapshot.head.version {
                return match owner.head.parked.suspects.first() {
                    Some(suspect) => Err(refusal(shown, tenant, suspect)),
                    None => Ok(snapshot),
                };
            }
        }
        let detail = "the rows change too fast for a look at whose they are; ask again";
        Err(Problem::new(code::READ_MODEL_UNAVAILABLE, detail).retry_after(RETRY_AFTER))
    }
}

/// Whether a row was found that may belong to a parked stream, which its key does not tell.
fn is_owner_unknown(shown: &ShownModel, key: &[Value], snapshot: &Snapshot) -> bool {
    let model = &shown.model;
    snapshot.head.parked.streams > 0
        && model.key_is == KeyIs::NoStream
        && model.rows == RowsOf::OneStream
        && key.len() == model.key.len()
        && !snapshot.rows.is_empty()
}
