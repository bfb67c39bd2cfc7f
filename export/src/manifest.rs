//! What an export says of itself: what was asked, between which places of the log, and which files
//! were made of it.
//!
//! Invariant: a manifest has no time and no address, so that the same export gives the same bytes; and
//! it ends with the digest of all that it says. Deliberately absent: holding it against the log
//! (`verify`).

use std::fs;
use std::path::Path;

use event_log::checkpoint::Checkpoint;
use kernel::Timestamp;
use position::{ChainHash, LogId, Partition, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cell::Column;
use crate::error::ExportError;
use crate::filter::Filter;

/// The manifest's name in the folder of the export. Readers of a folder of Parquet files, such as pandas
/// and Spark, pass over names that begin with `_`.
pub const MANIFEST_NAME: &str = "_manifest.json";
/// What is exported if it is no read model.
pub const EVENTS: &str = "events";
/// The number of this form of manifest and files.
pub(crate) const FORM: u32 = 1;

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Parquet, compressed with Zstandard.
    Parquet,
    /// CSV, as the query door gives it.
    Csv,
    /// Lines of JSON.
    Ndjson,
}

impl Format {
    /// The ending of a file's name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

/// The program that made an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`EVENTS`], or the name of a read model.
    pub what: String,
    /// The format of the files.
    pub format: Format,
    /// Only what was recorded at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Only what was recorded before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Only these events.
    #[serde(default, rename = "where")]
    pub filter: Filter,
    /// For a read model: as of this moment of recorded time, not as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// The type of event, or the category, whose data has columns of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns_of: Option<String>,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionEntry {
    /// The partition.
    pub partition: Partition,
    /// The place after which reading began; absent: the beginning of the log.
    pub from: Option<Checkpoint>,
    /// The last place that was read, with the head of the chain there; absent: nothing was read.
    pub to: Option<Checkpoint>,
    /// How many rows its commits gave.
    pub rows: u64,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path from the folder of the export, with `/`.
    pub path: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// The SHA-256 of these bytes.
    pub sha256: String,
    /// For events: where they stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<FileSpan>,
}

/// Which commits a file has the events of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpan {
    /// Their partition.
    pub partition: Partition,
    /// The position of the first commit.
    pub first: Position,
    /// The position of the last commit.
    pub last: Position,
    /// The head of the chain at the last commit: the digest of every record up to there.
    pub head: ChainHash,
}

/// All that an export says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The number of this form.
    pub form: u32,
    /// The program that made it.
    pub program: Program,
    /// What was asked.
    pub request: Request,
    /// The log.
    pub log: LogId,
    /// The columns of every file.
    pub columns: Vec<Column>,
    /// The places of the log.
    pub partitions: Vec<PartitionEntry>,
    /// The files, in the order in which they were made.
    pub files: Vec<FileEntry>,
    /// How many rows all files have.
    pub rows: u64,
    /// How many bytes all files have.
    pub bytes: u64,
    /// The SHA-256 of the manifest with this text empty.
    pub sha256: String,
}

impl Manifest {
    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// `Folder` if there is none, or if it cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ExportError> {
        let path = folder.join(MANIFEST_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = folder.display();
                let why = format!(
                    "{folder} has no {MANIFEST_NAME}: it is no export, or one that was not finished; \
                     repeat the command that began it"
                );
                return Err(ExportError::Folder(why));
            }
            Err(error) => return Err(ExportError::file("read", &path)(error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            let path = path.display();
            ExportError::Folder(format!("{path} is no manifest of an export: {error}"))
        })
    }

    /// The digest of what it says.
    pub(crate) fn digest(&self) -> Result<String, serde_json::Error> {
        let unsigned = Self {
            sha256: String::new(),
            ..self.clone()
        };
        Ok(hex::encode(Sha256::digest(serde_json::to_vec(&unsigned)?)))
    }

    /// The same with its digest.
    pub(crate) fn sealed(mut self) -> Result<Self, serde_json::Error> {
        self.sha256 = self.digest()?;
        Ok(self)
    }

    /// Whether nothing of it was changed.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.digest().is_ok_and(|digest| digest == self.sha256)
    }
}
