//! One accepted commit as projections see it, its events decoded at most once for all of them.
//!
//! Deliberately absent: any domain; a projection names the event type that it expects.

use std::any::Any;
use std::cell::OnceCell;
use std::rc::Rc;

use event_log::commit::Commit;
use event_log::subscription::Placed;
use kernel::{Message, ShapeError, Timestamp, TypeName};
use position::{Offset, Partition, Position, RecordHash};

/// Why a commit cannot be projected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// The data of an accepted event cannot be read.
    #[error("event {index} ({type_name}) cannot be read")]
    Event {
        /// Its index in the commit, from 0.
        index: usize,
        /// The name of its type.
        type_name: TypeName,
        /// What is wrong with its shape.
        source: ShapeError,
    },
    /// The projection panicked: a bug in it.
    #[error("the projection panicked")]
    Panicked,
}

/// One accepted commit and its place.
pub struct Entry<'a> {
    placed: &'a Placed,
    events: OnceCell<Rc<dyn Any>>,
}

impl<'a> Entry<'a> {
    /// The entry of a commit.
    #[must_use]
    pub fn new(placed: &'a Placed) -> Self {
        Self {
            placed,
            events: OnceCell::new(),
        }
    }

    /// What the commit says.
    #[must_use]
    pub fn commit(&self) -> &'a Commit {
        &self.placed.commit
    }

    /// The category of its stream.
    #[must_use]
    pub fn category(&self) -> &'a str {
        self.placed.commit.stream.category()
    }

    /// The id of its stream.
    #[must_use]
    pub fn stream_id(&self) -> &'a str {
        self.placed.commit.stream.id()
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.placed.partition
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.placed.record.offset
    }

    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.placed.position
    }

    /// Its record's hash; made each time.
    #[must_use]
    pub fn record_hash(&self) -> RecordHash {
        self.placed.record_hash()
    }

    /// Its events, decoded, each with its business time; one stream has one event type, so they are
    /// decoded once.
    ///
    /// # Errors
    /// [`ProjectError::Event`] for the first event that cannot be read.
    pub fn events<E: Message>(&self) -> Result<Rc<Vec<(E, Timestamp)>>, ProjectError> {
        if let Some(events) = self.events.get()
            && let Ok(events) = Rc::clone(events).downcast::<Vec<(E, Timestamp)>>()
        {
            return Ok(events);
        }
        let mut events = Vec::with_capacity(self.commit().events.len());
        for (index, event) in self.commit().events.iter().enumerate() {
            let decoded = E::decode(&event.type_name, event.schema, event.data.get());
            let decoded = decoded.map_err(|source| ProjectError::Event {
                index,
                type_name: event.type_name.clone(),
                source,
            })?;
            events.push((decoded, self.commit().occurred_at(event)));
        }
        let events = Rc::new(events);
        // A second type for the same commit is decoded anew each time: no domain has one.
        let _ = self.events.set(Rc::clone(&events) as Rc<dyn Any>);
        Ok(events)
    }
}
