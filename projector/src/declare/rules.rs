//! A projection as a list of rules: for this event, contribute this.
//!
//! Invariant: only events that a rule names are decoded; every other event costs a comparison of
//! names. Deliberately absent: commits as a whole; a projection that needs them implements
//! [`Projection`] itself.

use event_log::commit::EventPart;
use kernel::{Decider, Payload, Timestamp};

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::history::History;
use crate::declare::projection::{OnError, Projection, Takes};
use crate::declare::table::Table;
use crate::fold::changes::Changes;

/// A projection made of rules, each for one type of event.
///
/// Every change of its tables or rules needs a higher version. A running projector then builds the new
/// tables beside the live ones: `annals projections switch` shows them.
pub struct Rules {
    name: &'static str,
    version: u32,
    tables: &'static [Table],
    rules: Vec<Rule>,
    on_error: OnError,
    history: History,
}

struct Rule {
    takes: Takes,
    apply: Apply,
}

/// Applies a rule to one event of an entry, by its index.
type Apply = Box<dyn Fn(&Entry<'_>, usize, &mut Changes) -> Result<(), ProjectError> + Send + Sync>;

/// An event's metadata.
#[derive(Clone, Copy)]
pub struct Envelope<'e> {
    entry: &'e Entry<'e>,
    index: usize,
}

impl<'e> Envelope<'e> {
    /// Business time of the event.
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        let commit = self.entry.commit();
        commit.occurred_at(&commit.events[self.index])
    }

    /// The id of its stream.
    #[must_use]
    pub fn stream_id(&self) -> &'e str {
        self.entry.stream_id()
    }

    /// The version of its stream after its commit.
    #[must_use]
    pub fn commit_version(&self) -> u64 {
        self.entry.commit().version()
    }
}

impl Rules {
    /// A projection without rules yet.
    #[must_use]
    pub fn new(name: &'static str, version: u32, tables: &'static [Table]) -> Self {
        Self {
            name,
            version,
            tables,
            rules: Vec::new(),
            on_error: OnError::Park,
            history: History::Full,
        }
    }

    /// How much of its tables' past is kept; by default all of it.
    #[must_use]
    pub fn history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// What happens at a commit that it cannot take up; by default its stream is parked.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Applies `rule` to each event `P` of the aggregate `A`. The rules of one event apply in the
    /// order in which they were added.
    #[must_use]
    pub fn on<A, P>(mut self, rule: fn(&P, &Envelope<'_>, &mut Changes)) -> Self
    where
        A: Decider,
        P: Payload<A::Event> + 'static,
    {
        self.rules.push(Rule {
            takes: Takes {
                category: A::CATEGORY,
                event: P::NAME,
            },
            apply: Box::new(move |entry, index, changes| {
                let event = entry.event::<A::Event>(index)?;
                if let Some(payload) = P::of(&event) {
                    rule(payload, &Envelope { entry, index }, changes);
                }
                Ok(())
            }),
        });
        self
    }
}

impl Rules {
    /// Applies the rules for one event of a commit.
    #[inline]
    fn apply(
        &self,
        entry: &Entry<'_>,
        category: &str,
        (index, event): (usize, &EventPart),
        changes: &mut Changes,
    ) -> Result<(), ProjectError> {
        let is_for = |rule: &&Rule| {
            rule.takes.event == event.type_name.as_str() && rule.takes.category == category
        };
        for rule in self.rules.iter().filter(is_for) {
            (rule.apply)(entry, index, changes)?;
        }
        Ok(())
    }
}

impl Projection for Rules {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn tables(&self) -> &'static [Table] {
        self.tables
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }

    fn history(&self) -> History {
        self.history
    }

    fn takes(&self) -> Vec<Takes> {
        self.rules.iter().map(|rule| rule.takes).collect()
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let category = entry.category();
        for (index, event) in entry.commit().events.iter().enumerate() {
            self.apply(entry, category, (index, event), changes)?;
        }
        Ok(())
    }

    fn is_by_event(&self) -> bool {
        true
    }

    fn project_event(
        &self,
        entry: &Entry<'_>,
        index: usize,
        changes: &mut Changes,
    ) -> Result<(), ProjectError> {
        let event = &entry.commit().events[index];
        self.apply(entry, entry.category(), (index, event), changes)
    }
}
