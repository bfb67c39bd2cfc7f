//! The projection runtime: reads accepted commits and writes rows, with each effect exactly once.
//! It also has the read models that suit every domain (`stream_index`, `rejections`, `commit_index`).
//!
//! A [`Projection`] declares tables, each column with a merge rule, and contributes to rows, most
//! simply as [`Rules`] (`declare`). The runtime folds a batch in memory (`fold`), writes rows and
//! checkpoints in one transaction (`store`), runs partitions in parallel and builds a changed read
//! model beside the live one (`run`).
//!
//! Invariant: the rows hold the effects of exactly the commits up to their checkpoint. Deliberately
//! absent: any domain, and HTTP.

mod declare;
mod error;
mod fold;
mod models;
mod run;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use declare::check::{DeclarationFault, DeclarationFaults, check_declarations};
pub use declare::column_type::{ColumnType, DECIMAL_SCALE_MAX};
pub use declare::entry::{Entry, ProjectError};
pub use declare::exact::Exact;
pub use declare::history::History;
pub use declare::model::{Model, ModelColumn, Null, Source, Sum, computed, models_of, sum_of};
pub use declare::own_sql::{
    OwnSql, SqlCommit, SqlError, SqlProjection, SqlTransaction, WithSql, with_sql,
};
pub use declare::projection::{OnError, Projection, Takes};
pub use declare::rules::{Envelope, Rules};
pub use declare::table::{
    Empty, Index, IndexColumn, IndexOrder, IndexTenant, KeyColumn, KeyIs, Merge, OWNER_COLUMN,
    Queries, RowsOf, Shown, SqlColumn, TALLIED_MAX, Table, Texts, ValueColumn, View, add,
    add_decimal, asc, desc, index, key, latest, max, min, set, tally,
};
pub use declare::value::{Finite, Json, KEY_TEXT_BYTES_MAX, Value, count_of};
pub use error::{RuntimeError, StoppedProjection};
pub use fold::changes::{Changes, Row};
pub use models::commit_index::{COMMIT_INDEX, CommitIndex};
pub use models::density::{DENSITY_PARTS_MAX, Density};
pub use models::general::with_general;
pub use models::places::{CommitPlace, StreamPlaces, StreamSummary, is_over};
pub use models::rejections::Rejections;
pub use models::search::{CommitFilter, FoundCommit, PositionRange, last_before, last_until};
pub use models::stream_index::{STREAM_INDEX, StreamIndex};
pub use run::projector::{PROJECTOR_TASKS_MAX, Projector, ProjectorOptions, query_options};
pub use run::reached::{ROWS_VERSION, RowsVersion, rows_versions};
pub use run::rebuild::{
    OnReading, Purpose, Reading, Rebuild, Rebuilt, catch_up, rebuild, rebuild_as,
};
pub use run::replay::condition::Condition;
pub use run::replay::{
    ChangedRow, Gait, NewReplay, Pause, PauseReason, Replay, ReplayProgress, ReplayWatch, Step,
    Until,
};
pub use run::report::{
    GenerationReport, Owner, PartitionReport, Paused, Report, ReportError, ReportState, report,
};
pub use run::sample::{
    LeftOut, SAMPLE_STREAMS_MAX, SampleOf, Sampled, SampledTable, verify_sample,
};
pub use run::sampler::{Freshness, Sampler};
pub use run::status::{TaskState, TaskStatus};
pub use run::supposed::{AS_IT_IS, Supposed};
pub use run::upgrade::NewVersion;
pub use run::waiting::{ParkedDetails, WAITING_MAX, WaitingCommit, WaitingEvent};
pub use run::why::{ContributedCell, Contribution, Why, WhyAsked, WhyDifference, why_columns};
/// The decimal numbers that rules calculate with.
pub use rust_decimal::Decimal;
/// For SQL of a projection's own.
pub use sqlx;
pub use store::apart::{ApartState, Existing};
pub use store::checkpoint::read as read_checkpoint;
pub use store::compare::{Comparison, Difference, TableComparison};
pub use store::control::{Actor, Operator, ParkedStream, ParkedWish, Process};
pub use store::held::{NamedLog, require as require_held, require_log};
pub use store::migrate::{MigrationStatus, migrate, migration_status};
pub use store::operators::Operators;
pub use store::reader::{READER, Reader, prepare_reader};
pub use store::sql::identifier as quoted;
pub use store::trial::try_declarations;
pub use store::why::{
    WHY_COMMITS_MAX, WHY_PARKED_MAX, WhyCommit, WhyError, WhyFrom, WhyPlace, WhyUntil,
};
