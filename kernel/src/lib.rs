//! What rules are written with: [`Decider`], [`Message`], [`Rejection`], [`Context`], names and
//! time. Also a domain without its types ([`registry`]).
//!
//! Invariant: nothing here does I/O, waits, reads a clock or makes an id; whatever a rule may know
//! arrives as an argument. Deliberately absent: any aggregate, any log, any HTTP.

mod canonical;
mod context;
#[cfg(feature = "cqrs-es")]
pub mod cqrs;
mod decider;
pub mod escape;
mod explained;
mod message;
mod name;
mod objects;
pub mod registry;
mod rejection;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod timestamp;

pub use canonical::{JSON_DEPTH_MAX, canonical_json};
pub use context::{Actor, ActorKind, Context};
pub use decider::Decider;
pub use explained::explained;
pub use message::{Message, MessageType, Payload, ShapeError, decode_json};
pub use name::{
    Category, CausationId, CommandId, CorrelationId, NameError, StreamName, TenantId, TypeName,
};
pub use objects::{EventObjects, Relates, Sets, objects_of, relates, sets};
pub use rejection::{RecordedRejection, Rejection, RejectionType};
pub use text::deserialize_text;
pub use timestamp::{Timestamp, TimestampError};

// The macros `messages!` and `rejections!` refer to these through `$crate`, so that users need no
// dependency of their own.
#[doc(hidden)]
pub use rejection::{described, doc_text};
#[doc(hidden)]
pub use {schemars, serde, serde_json};
