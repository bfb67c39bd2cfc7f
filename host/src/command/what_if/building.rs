//! The read models of one projection, built from what the other rules would have recorded.
//!
//! Deliberately absent: folding and comparing (`projector`).

use std::borrow::Cow;

use event_log::commit::{Commit, EventPart, Outcome};
use event_log::log::EventLog;
use event_log::subscription::Placed;
use projector::{AS_IT_IS, ApartState, Comparison, Difference, Existing, Supposed};
use serde::Serialize;
use uuid::Uuid;

use super::WhatIfArgs;
use crate::Domain;
use crate::command::rules::{Answer, DecidedPart, Verdict};
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::Postgres;
use crate::settings::Settings;

/// The read models that are built, as far as they are.
pub(super) struct Building {
    postgres: Postgres,
    supposed: Supposed,
    projection: String,
    schema: String,
}

/// How the rows compare.
#[derive(Debug, Serialize)]
pub(super) struct ReadModels {
    projection: String,
    /// The schema with the rows of the history as it would be.
    schema: String,
    /// The schema with the rows of the history as it is.
    schema_as_it_is: String,
    /// How many streams the projection could not take up, and set aside.
    set_aside: usize,
    set_aside_as_it_is: usize,
    #[serde(flatten)]
    pub(super) comparison: Comparison,
}

/// One table, as people see it.
#[derive(Serialize)]
pub(super) struct TableRow<'a> {
    table: &'a str,
    rows: i64,
    rows_as_it_is: i64,
    equal: bool,
    /// Some of them.
    differences: String,
}

impl ReadModels {
    /// Says what is in neither of the tables.
    pub(super) fn tell_set_aside(&self) {
        let (now, was) = (self.set_aside, self.set_aside_as_it_is);
        if now + was > 0 {
            talk!(
                "set aside, because {} cannot take them up: {now} streams of the history as it would \
                 be, {was} of the history as it is",
                self.projection
            );
        }
    }

    pub(super) fn tables(&self) -> Vec<TableRow<'_>> {
        let tables = self.comparison.tables.iter();
        tables
            .map(|table| TableRow {
                table: &table.table,
                rows: table.rows,
                rows_as_it_is: table.rows_live,
                equal: table.equal,
                differences: told(&table.differences),
            })
            .collect()
    }
}

fn told(differences: &[Difference]) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let one = |it: &Difference| {
        let column = it.column.as_deref().unwrap_or("the row");
        let (key, was, now) = (&it.key, shown(&it.live), shown(&it.new));
        format!("{key} {column}: {was}, would be {now}")
    };
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Building {
    /// Makes the schemas, if the arguments ask for them.
    pub(super) async fn begin(
        domain: &Domain,
        settings: &Settings,
        log: &dyn EventLog,
        args: &WhatIfArgs,
    ) -> Result<Option<Self>, Failure> {
        let (Some(schema), Some(model)) = (&args.into, &args.model) else {
            return Ok(None);
        };
        let mut all = domain.projections.iter();
        let projection = all.find(|it| it.name() == model).ok_or_else(|| {
            let names: Vec<&str> = domain.projections.iter().map(|it| it.name()).collect();
            let names = names.join(", ");
            let message = format!("there is no projection {model:?}; the projections are: {names}");
            Failure::new(Exit::NotFound, message)
        })?;
        let postgres = Postgres::open(settings).await?;
        let made = async {
            postgres.require_migrated().await?;
            postgres.require_log(log).await?;
            let existing = match args.replace {
                true => Existing::Replaced,
                false => Existing::Refused,
            };
            let new = (schema.as_str(), existing);
            Ok::<_, Failure>(Supposed::make(log, postgres.url(), projection, new).await?)
        };
        match made.await {
            Ok(supposed) => Ok(Some(Self {
                postgres,
                supposed,
                projection: projection.name().to_owned(),
                schema: schema.clone(),
            })),
            Err(failure) => {
                postgres.close().await;
                Err(failure)
            }
        }
    }

    /// Folds a command: as it was decided, and as it is decided now.
    pub(super) async fn take(&mut self, placed: &Placed, answer: &Answer) -> Result<(), Failure> {
        let would_be = would_be(placed, answer);
        self.supposed.take(placed, &would_be).await?;
        Ok(())
    }

    /// Writes what is left, and compares.
    pub(super) async fn finish(self, is_whole: bool) -> Result<ReadModels, Failure> {
        let state = match is_whole {
            true => ApartState::Finished,
            false => ApartState::Stopped,
        };
        let finished = self.supposed.finish(state).await;
        self.postgres.close().await;
        let (comparison, [set_aside_as_it_is, set_aside]) = finished?;
        Ok(ReadModels {
            projection: self.projection,
            schema_as_it_is: format!("{}{AS_IT_IS}", self.schema),
            schema: self.schema,
            set_aside,
            set_aside_as_it_is,
            comparison,
        })
    }
}

/// The commit as the other rules would have left it, at the same place.
fn would_be<'a>(placed: &'a Placed, answer: &Answer) -> Cow<'a, Placed> {
    let is_same = matches!(answer.verdict, Verdict::Same | Verdict::NotJudgeable);
    if is_same && answer.version.is_none() {
        return Cow::Borrowed(placed);
    }
    let mut changed = placed.clone();
    let commit = &mut changed.commit;
    commit.from_version = answer.version.unwrap_or(commit.from_version);
    match answer.verdict {
        Verdict::Same | Verdict::NotJudgeable => {}
        Verdict::Refused => {
            commit.outcome = Outcome::Rejected;
            commit.rejection.clone_from(&answer.rejection);
            commit.events.clear();
        }
        Verdict::Accepted => {
            commit.outcome = Outcome::Accepted;
            commit.rejection = None;
            commit.events = events(&placed.commit, answer);
        }
    }
    Cow::Owned(changed)
}

/// Events in the place of those of the commit: with their ids as far as they go, and their time.
fn events(commit: &Commit, answer: &Answer) -> Vec<EventPart> {
    let occurred_at = commit.events.first().and_then(|event| event.occurred_at);
    let decided = answer.decided.iter().enumerate();
    let part = |(index, event): (usize, &DecidedPart)| EventPart {
        id: commit
            .events
            .get(index)
            .map_or_else(|| id_of(commit, index), |event| event.id),
        type_name: event.type_name.clone(),
        schema: event.schema,
        occurred_at,
        data: event.data.clone(),
    };
    decided.map(part).collect()
}

/// An id that no recorded event has, and that is the same in each run.
fn id_of(commit: &Commit, index: usize) -> Uuid {
    Uuid::new_v5(&commit.commit, &index.to_be_bytes())
}
