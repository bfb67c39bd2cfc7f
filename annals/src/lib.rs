//! Annals for a domain of your own.
//!
//! You write rules ([`Decider`], [`messages!`], [`rejections!`]) and read models ([`read_model`]);
//! [`app()`] makes a program of them that takes commands over HTTP, keeps their events chained in a
//! log (a file, or Kafka) and fills the read models in Postgres. `annals new mybank` writes a
//! project to begin with, and `docs/your-domain.md` explains it.
//!
//! Features: `mimalloc` and `steady-waits` (on by default), `fetch-postgres`, `cqrs-es`, `testing`.
//! Invariant: this crate is all that a program needs of Annals, and everything here is meant for
//! programs. Deliberately absent: code; it only names what other crates do.
//!
//! ```no_run
//! # use annals::registry::Registry;
//! # fn main() -> std::process::ExitCode {
//! annals::app("mybank")
//!     .version(env!("CARGO_PKG_VERSION"))
//!     .registry(Registry::new()) // .with::<Account>()
//!     .projections(vec![]) // the read models
//!     .run()
//! # }
//! ```

/// The Rust client of the HTTP doors, for tests and for other programs.
pub use client;
pub use host::{App, Domain, Subcommand, app};
#[cfg(feature = "cqrs-es")]
pub use kernel::cqrs;
/// For tests: given, when, then for rules, histories and their rows for read models, and a program
/// that runs for a test.
#[cfg(feature = "testing")]
pub mod testing {
    pub use host::testing::{Running, assert_samples};
    pub use kernel::testing::{Given, Time, When, given, given_nothing};
    pub use projector::testing::{History, history};
}
pub use kernel::{
    Actor, ActorKind, Category, CausationId, CommandId, Context, CorrelationId, Decider,
    EventObjects, Message, MessageType, NameError, Payload, Rejection, RejectionType, Relates,
    Sets, ShapeError, StreamName, TenantId, Timestamp, TimestampError, TypeName, decode_json,
    deserialize_text, messages, objects_of, registry, rejections, relates, schemars, serde,
    serde_json, sets,
};

/// Read models: tables declared once, and what events contribute to their rows.
pub mod read_model {
    pub use projector::{
        Changes, ColumnType, Decimal, Empty, Entry, Envelope, Index, IndexColumn, IndexOrder,
        IndexTenant, Json, KeyColumn, KeyIs, Merge, Model, ModelColumn, Null, ProjectError,
        Projection, Row, RowsOf, Rules, Shown, Source, SqlColumn, SqlCommit, SqlError,
        SqlProjection, SqlTransaction, Sum, Table, Takes, Texts, Value, ValueColumn, View, add,
        add_decimal, asc, computed, count_of, desc, index, key, latest, max, min, set, sqlx,
        sum_of, tally, with_sql,
    };
}

/// What a [`Subcommand`] of your own program needs.
pub mod command {
    pub use host::args::{Server, Serving};
    pub use host::exit::{Exit, Failure};
    pub use host::logging::Voice;
    pub use host::settings::{Flags, OutputFormat, Settings};
    pub use host::{output, talk};
}
