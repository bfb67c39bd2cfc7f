//! The projection runtime: reads accepted commits and writes rows, with each effect exactly once.
//! It also has the two read models that suit every domain (`stream_index`, `rejections`).
//!
//! A [`Projection`] declares tables, each column with a merge rule, and contributes to rows, most
//! simply as [`Rules`]. The runtime folds a batch in memory (`fold`, `changes`), writes rows and
//! checkpoints in one transaction (`write`, `checkpoint`, `copy`), runs partitions in parallel
//! (`projector`, `task`) and builds a changed read model beside the live one (`generation`,
//! `rebuild`).
//!
//! Invariant: the rows hold the effects of exactly the commits up to their checkpoint. Deliberately
//! absent: any domain, and HTTP.

mod changes;
mod checkpoint;
mod copy;
mod describe;
mod entry;
mod error;
mod fold;
mod general;
mod generation;
mod goal;
mod held;
mod in_the_way;
mod kept;
mod list;
mod measure;
mod migrate;
mod model;
mod numeric;
mod places;
mod projection;
mod projector;
mod reached;
mod reader;
mod rebuild;
mod rejections;
mod rules;
mod sampler;
mod sql;
mod status;
mod stops;
mod stream_index;
mod table;
mod task;
mod value;
mod versions;
mod write;
mod writing;

pub use changes::{Changes, Row};
pub use entry::{Entry, ProjectError};
pub use error::{RuntimeError, StoppedProjection};
pub use general::with_general;
pub use held::{NamedLog, require as require_held, require_log};
pub use list::{Place, PlaceState, list};
pub use migrate::{MigrationStatus, migrate, migration_status};
pub use model::{Model, ModelColumn, Null, Source, Sum, computed, models_of, sum_of};
pub use places::{CommitPlace, StreamPlaces};
pub use projection::{Projection, Takes};
pub use projector::{PROJECTOR_TASKS_MAX, Projector, query_options};
pub use reached::reached;
pub use reader::{READER, Reader, prepare_reader};
pub use rebuild::{OnReading, Reading, Rebuilt, catch_up, rebuild};
pub use rejections::Rejections;
pub use rules::{Envelope, Rules};
pub use sampler::{Freshness, Sampler};
pub use sql::identifier as quoted;
pub use status::{TaskState, TaskStatus};
pub use stops::resume;
pub use stream_index::{STREAM_INDEX, StreamIndex};
pub use table::{
    ColumnType, Empty, KeyColumn, Merge, Shown, TALLIED_MAX, Table, ValueColumn, View, add, key,
    latest, max, min, set, tally,
};
pub use value::{KEY_TEXT_BYTES_MAX, Value, count_of};
