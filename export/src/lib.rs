//! Files for other programs, made of accepted commits or of the rows of a read model: Parquet, CSV
//! and lines of JSON in a folder, with a manifest that can be held against the log.
//!
//! Invariants: the same commits, asked for in the same words, give the same bytes. A file has its
//! name only once it is whole. Memory is bounded, whatever the size of the log. Deliberately absent:
//! the command line (`host`), and any domain.

mod cell;
mod error;
mod events;
mod filter;
mod journal;
mod lines;
mod manifest;
mod models;
mod ocel;
mod output;
mod parquet_file;
mod run;
mod source;
mod stdout;
mod typed;
mod verify;

pub use cell::{Column, Kind};
pub use error::ExportError;
pub use filter::{FILTER_NAMES, Filter};
pub use manifest::{
    EVENTS, FileEntry, Format, MANIFEST_NAME, Manifest, PartitionEntry, Program, Request,
};
pub use models::{ModelExport, export_model};
pub use ocel::{OcelCounts, OcelForm, export_ocel};
pub use run::{EventsExport, Watch, export_events};
pub use stdout::stream_events;
pub use typed::Typed;
pub use verify::{FileVerdict, Finding, Verified, verify};
