//! Given, then: tests of read models as sentences (feature `testing`).
//!
//! Invariant: a test sees what a projector would write. Each event is written and read back as the
//! log does it; rows are folded in batches and merged as Postgres merges them. Each test is also
//! repeated with other orders of the partitions and other batches, and fails if the rows differ.
//! Deliberately absent: what only Postgres can do, which is the conditions, joins and computed columns
//! of views; and, but for [`Tables`], Postgres.

mod contributed;
mod rows;
mod tables;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use event_log::commit::Commit;
use event_log::record::{Headers, NewRecord, Record};
use event_log::subscription::Placed;
use kernel::{Decider, Message as _, Rejection as _, StreamName, TenantId, Timestamp};
use position::{Offset, Partition, Position};
use serde_json::{Value as Json, json};

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::projection::Projection;
use crate::declare::table::Table;
use crate::fold::changes::Changes;
use crate::fold::stored::Stored;
pub use tables::Tables;

/// When a history begins unless it says otherwise.
const BEGINNING: &str = "2024-01-01T00:00:00Z";
/// In how many other orders and batches each history is folded.
const ORDERS: u64 = 64;
/// The most commits in a batch of such an order.
const BATCH_MAX: u64 = 5;

/// What has happened in some streams, in the order in which it is told.
///
/// ```text
/// history()
///     .at("2024-03-01T10:00:00Z")
///     .happened::<Book>("1", [BookLent { reader: 7, due }])
///     .then_rows(&readers(), &READERS, [json!({"reader": 7, "borrowed": 1})]);
/// ```
#[derive(Clone)]
pub struct History {
    clock: Timestamp,
    tenant: TenantId,
    commits: Vec<Placed>,
    /// The partition of each tenant's routing key.
    partitions: BTreeMap<(TenantId, String), Partition>,
    versions: BTreeMap<(TenantId, StreamName), u64>,
}

/// A history in which nothing has happened, at the beginning of 2024.
#[must_use = "a history alone tests nothing; go on with `then_rows`"]
pub fn history() -> History {
    History {
        clock: BEGINNING.parse().expect("a time"),
        tenant: TenantId::default(),
        commits: Vec::new(),
        partitions: BTreeMap::new(),
        versions: BTreeMap::new(),
    }
}

impl History {
    /// Sets the clock: what follows happens at this time.
    #[must_use = "a history alone tests nothing; go on with `then_rows`"]
    #[track_caller]
    pub fn at(self, time: impl kernel::testing::Time) -> Self {
        let clock = time.time();
        Self { clock, ..self }
    }

    /// What follows happens for this tenant.
    ///
    /// # Panics
    /// If the text is no name of a tenant.
    #[must_use = "a history alone tests nothing; go on with `then_rows`"]
    #[track_caller]
    pub fn of(self, tenant: &str) -> Self {
        let tenant = match tenant.parse() {
            Ok(tenant) => tenant,
            Err(error) => panic!("{tenant:?} is no tenant: {error}"),
        };
        Self { tenant, ..self }
    }

    /// Then one command of the stream with this id led to these events.
    ///
    /// # Panics
    /// If the id is none, or an event cannot be written.
    #[must_use = "a history alone tests nothing; go on with `then_rows`"]
    #[track_caller]
    pub fn happened<D: Decider>(
        self,
        id: &str,
        events: impl IntoIterator<Item = impl Into<D::Event>>,
    ) -> Self {
        let events: Vec<D::Event> = events.into_iter().map(Into::into).collect();
        let parts = events.iter().enumerate().map(|(index, event)| {
            let name = event.type_name();
            let data = match event.encode() {
                Ok(data) => data,
                Err(error) => panic!("{name} cannot be written: {error}"),
            };
            let data: Json = serde_json::from_str(data.get()).expect("an event is JSON");
            let id = format!("0198d8a2-6b3e-7c4e-9d52-{index:012x}");
            json!({"id": id, "type": name.as_str(), "schema": event.schema(), "data": data})
        });
        let parts: Vec<Json> = parts.collect();
        let outcome = json!({"outcome": "accepted", "events": parts});
        self.commit::<D>(id, parts.len(), outcome)
    }

    /// Then a command of the stream with this id was refused.
    ///
    /// # Panics
    /// If the id is none.
    #[must_use = "a history alone tests nothing; go on with `then_rows`"]
    #[track_caller]
    pub fn refused<D: Decider>(self, id: &str, rejection: &D::Rejection) -> Self {
        let rejection = json!({
            "code": rejection.code(), "detail": rejection.to_string(), "facts": {},
        });
        let outcome = json!({"outcome": "rejected", "rejection": rejection});
        self.commit::<D>(id, 0, outcome)
    }

    #[track_caller]
    fn commit<D: Decider>(mut self, id: &str, events: usize, outcome: Json) -> Self {
        let name = format!("{}-{id}", D::CATEGORY);
        let stream: StreamName = match name.parse() {
            Ok(stream) => stream,
            Err(error) => panic!("{id:?} is no id of a stream: {error}"),
        };
        let routing = (self.tenant.clone(), D::routing_key(&name).to_owned());
        let count = u32::try_from(self.partitions.len()).expect("few streams");
        let partition = *self.partitions.entry(routing).or_insert(Partition(count));
        let version = self.versions.entry((self.tenant.clone(), stream.clone()));
        let version = version.or_insert(0);
        let number = self.commits.len();
        let mut value = json!({
            "commit": format!("0198d8a2-6b3e-7c4e-9d52-{number:012x}"),
            "stream": name,
            "from_version": *version,
            "recorded_at": self.clock.to_string(),
            "command": {"id": format!("command-{number}"), "type": "Command", "schema": 1,
                        "occurred_at": self.clock.to_string(), "data": {}},
        });
        if !self.tenant.is_main() {
            value["tenant"] = self.tenant.to_string().into();
        }
        for (member, content) in outcome.as_object().into_iter().flatten() {
            value[member] = content.clone();
        }
        *version += u64::try_from(events).expect("few events");
        let key = format!("{}/{name}", self.tenant);
        let commit = match Commit::read(key.as_bytes(), value.to_string().as_bytes()) {
            Ok(commit) => commit,
            Err(error) => panic!("the commit cannot be read back: {error}"),
        };
        let position = 1 + self
            .commits
            .iter()
            .filter(|one| one.partition == partition)
            .count();
        let position = u64::try_from(position).expect("few commits");
        let record = NewRecord {
            key: Some(key.into_bytes().into()),
            value: Some(value.to_string().into_bytes().into()),
            headers: Headers::default(),
        };
        self.commits.push(Placed {
            partition,
            position: Position(position),
            at: commit.recorded_at,
            record: Record::at(Offset(position), record),
            commit,
            is_checked: true,
        });
        self
    }

    /// The table then has exactly these rows, in the order of their keys. A row names its key and some
    /// columns: those that it does not name are not looked at. Rows show what a view shows that has no
    /// condition, joins or computed columns. Returns the history, for what comes next.
    ///
    /// # Panics
    /// If the rows are others, or depend on the order of partitions or on batches.
    #[track_caller]
    pub fn then_rows(
        self,
        projection: &dyn Projection,
        table: &Table,
        expected: impl IntoIterator<Item = Json>,
    ) -> Self {
        let expected: Vec<Json> = expected.into_iter().collect();
        let shown = self.rows(projection, table);
        if let Some(difference) = rows::difference(table, &shown, &expected) {
            panic!("{difference}");
        }
        self
    }

    /// The rows of a table, in the order of their keys.
    ///
    /// # Panics
    /// If they depend on the order of partitions or on batches, or the projection stops.
    #[must_use]
    #[track_caller]
    pub fn rows(&self, projection: &dyn Projection, table: &Table) -> Vec<Json> {
        let stored = self.folded(projection);
        let mut tables = projection.tables().iter();
        let index = tables.position(|declared| declared.name == table.name);
        let index =
            index.unwrap_or_else(|| panic!("{} has no table {}", projection.name(), table.name));
        rows::shown(&projection.tables()[index], &stored.0[index])
    }

    /// The rows of all tables, the same in every order.
    #[track_caller]
    fn folded(&self, projection: &dyn Projection) -> Stored {
        assert!(
            projection.own_sql().is_none(),
            "{} writes with SQL of its own, which only Postgres can run: test it with a program that \
             runs for the test",
            projection.name()
        );
        let told: Vec<usize> = (0..self.commits.len()).collect();
        let ones = vec![1; told.len()];
        let expected = match self.fold(projection, &told, &ones) {
            Ok(stored) => stored,
            Err(error) => panic!("{} stops: {error}", projection.name()),
        };
        match contributed::difference(projection, &self.commits, &expected) {
            Ok(None) => {}
            Ok(Some(difference)) => panic!("{difference}"),
            Err(error) => panic!("{} stops at a single event: {error}", projection.name()),
        }
        let partitions = u32::try_from(self.partitions.len()).expect("few streams");
        // First the orders that people understand: one batch, and one stream after the other, from
        // both ends.
        let by_partition = |descending: bool| {
            let mut order = told.clone();
            order.sort_by_key(
                |&index| match (self.commits[index].partition.0, descending) {
                    (partition, false) => partition,
                    (partition, true) => partitions - partition,
                },
            );
            order
        };
        let mut orders = vec![
            (told.clone(), vec![told.len().max(1)]),
            (by_partition(false), ones.clone()),
            (by_partition(true), ones.clone()),
        ];
        orders.extend((0..ORDERS).map(|seed| self.shuffled(seed)));
        for (order, sizes) in orders {
            let found = self.fold(projection, &order, &sizes);
            let difference = match &found {
                Ok(found) => rows::first_difference(projection, &expected, found),
                Err(error) => Some(format!("{} stops: {error}", projection.name())),
            };
            if let Some(difference) = difference {
                panic!(
                    "the rows depend on the order of partitions or on batches: {difference}; told, \
                     one by one:\n{}and in this order, in batches:\n{}",
                    self.described(&told, &[told.len().max(1)]),
                    self.described(&order, &sizes)
                );
            }
        }
        expected
    }

    /// Another order, which keeps that of each partition, and sizes of batches.
    fn shuffled(&self, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut chance = Chance(seed);
        let mut queues: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (index, placed) in self.commits.iter().enumerate().rev() {
            queues.entry(placed.partition).or_default().push(index);
        }
        let mut queues: Vec<Vec<usize>> = queues.into_values().collect();
        let mut order = Vec::with_capacity(self.commits.len());
        while !queues.is_empty() {
            let chosen = chance.below(queues.len());
            order.extend(queues[chosen].pop());
            queues.retain(|queue| !queue.is_empty());
        }
        let most = usize::try_from(BATCH_MAX).expect("a small number");
        let sizes = order.iter().map(|_| 1 + chance.below(most)).collect();
        (order, sizes)
    }

    /// Folds the commits in this order, in batches of these sizes.
    fn fold(
        &self,
        projection: &dyn Projection,
        order: &[usize],
        sizes: &[usize],
    ) -> Result<Stored, ProjectError> {
        let mut stored = Stored::default();
        stored.apply(&Changes::new(projection.tables()))?;
        let (mut rest, mut sizes) = (order, sizes.iter());
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(1).min(rest.len());
            let (batch, behind) = rest.split_at(size);
            let mut changes = Changes::new(projection.tables());
            for &index in batch {
                let placed = &self.commits[index];
                changes.begin(placed);
                projection.project(&Entry::new(placed), &mut changes)?;
                changes.end()?;
            }
            stored.apply(&changes)?;
            rest = behind;
        }
        Ok(stored)
    }

    /// The commits in an order, one a line, with a line between batches.
    fn described(&self, order: &[usize], sizes: &[usize]) -> String {
        let mut text = String::new();
        let (mut rest, mut sizes) = (order, sizes.iter());
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(1).min(rest.len());
            let (batch, behind) = rest.split_at(size);
            for &index in batch {
                let commit = &self.commits[index].commit;
                let events = commit.events.iter().map(|event| event.type_name.as_str());
                let events: Vec<&str> = events.collect();
                let what = match &commit.rejection {
                    None => events.join(", "),
                    Some(rejection) => format!("refused with {}", rejection.code),
                };
                let number = index + 1;
                let _ = writeln!(text, "  {number}. {} {what}", commit.stream);
            }
            if !behind.is_empty() {
                text.push_str("  --\n");
            }
            rest = behind;
        }
        text
    }
}

/// Numbers that look random and are the same in each run (SplitMix64, Steele, Lea and Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(mixed % end).expect("below a small number")
    }
}

#[cfg(test)]
mod tests;
