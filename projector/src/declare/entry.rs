//! One accepted commit as projections see it. Each of its events is decoded at most once for all
//! projections.
//!
//! Deliberately absent: any domain; a projection names the event type that it expects.

use std::any::Any;
use std::cell::OnceCell;
use std::rc::Rc;

use event_log::commit::Commit;
use event_log::record::record_hash;
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
    /// A row belongs to another stream.
    #[error(
        "the row {key:?} of {table} belongs to the stream {owner}, and {stream} changes it; the \
         rows of this table belong to one stream each"
    )]
    OtherStream {
        /// The table.
        table: &'static str,
        /// The row's key, its columns joined by commas.
        key: String,
        /// The stream that the row belongs to.
        owner: String,
        /// The stream of the commit.
        stream: String,
    },
    /// The projection panicked: a bug in it.
    #[error("the projection panicked")]
    Panicked,
}

/// One accepted commit and its place.
pub struct Entry<'a> {
    placed: &'a Placed,
    events: Vec<OnceCell<Rc<dyn Any>>>,
}

impl<'a> Entry<'a> {
    /// The entry of a commit.
    #[must_use]
    pub fn new(placed: &'a Placed) -> Self {
        Self {
            placed,
            events: placed
                .commit
                .events
                .iter()
                .map(|_| OnceCell::new())
                .collect(),
        }
    }

    pub(crate) fn placed(&self) -> &'a Placed {
        self.placed
    }

    /// The commit.
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

    /// The latest time at which a commit of its partition was recorded, up to this one: it never
    /// falls from one commit to the next, and a stream alone does not tell it.
    #[must_use]
    pub fn latest_recorded_at(&self) -> Timestamp {
        self.placed.at
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

    /// The hash of its record, computed at each call.
    #[must_use]
    pub fn record_hash(&self) -> RecordHash {
        record_hash(&self.placed.record)
    }

    /// One of its events, decoded once for all projections.
    ///
    /// # Errors
    /// [`ProjectError::Event`] if the event cannot be read.
    pub(crate) fn event<E: Message>(&self, index: usize) -> Result<Rc<E>, ProjectError> {
        if let Some(event) = self.events[index].get()
            && let Ok(event) = Rc::clone(event).downcast::<E>()
        {
            return Ok(event);
        }
        let event = &self.commit().events[index];
        let decoded = E::decode(&event.type_name, event.schema, event.data.get());
        let decoded = Rc::new(decoded.map_err(|source| ProjectError::Event {
            index,
            type_name: event.type_name.clone(),
            source,
        })?);
        // If a second type is asked for the same event, that type is decoded at each call. No
        // domain does that.
        let _ = self.events[index].set(Rc::clone(&decoded) as Rc<dyn Any>);
        Ok(decoded)
    }
}
