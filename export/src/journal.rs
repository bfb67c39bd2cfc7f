//! What an export has done so far, so that it can go on after any interruption.
//!
//! Invariants: the first line says what was asked and up to where the log is read; each further line is
//! on the disk before the file that it names gets its name. A line that was cut off counts as not
//! written. Two processes never write one export. Deliberately absent: the files themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use event_log::checkpoint::Checkpoint;
use position::{LogId, Offset, Partition};
use serde::{Deserialize, Serialize};

use crate::cell::Column;
use crate::error::ExportError;
use crate::manifest::{FileEntry, PartitionEntry, Program, Request};
use crate::output::sync_folder_of;

/// The journal's name in the folder of the export. It goes away at the end.
pub(crate) const JOURNAL_NAME: &str = ".export.journal";
/// The name of the file that a running export locks.
const LOCK_NAME: &str = ".export.lock";

/// What an export is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) form: u32,
    pub(crate) program: Program,
    pub(crate) request: Request,
    pub(crate) columns: Vec<Column>,
    pub(crate) log: LogId,
    /// For events: the partitions, each with where its reading begins and the offset at which it ends.
    pub(crate) ranges: Vec<Range>,
    /// For a read model: the version of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_version: Option<String>,
}

/// What is read of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) partition: Partition,
    pub(crate) from: Option<Checkpoint>,
    pub(crate) end: Offset,
}

/// A line of the journal after the first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// A file is whole and gets its name now.
    File {
        entry: FileEntry,
        /// A place before or at the end of the file's commits, from which reading can go on.
        next: Option<Box<Checkpoint>>,
    },
    /// A partition was read to its end.
    Done(PartitionEntry),
}

/// The journal of one export.
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    pub(crate) steps: Vec<Step>,
    _lock: File,
}

impl Journal {
    /// Goes on with the export of this folder if it was begun with an equal plan, or begins it.
    /// `make` makes the plan of a new export.
    pub(crate) fn open(
        folder: &Path,
        is_equal: impl FnOnce(&Plan) -> Result<(), String>,
        make: impl FnOnce() -> Plan,
    ) -> Result<(Self, Plan), ExportError> {
        let lock = locked(folder)?;
        let path = folder.join(JOURNAL_NAME);
        let (plan, steps, length) = match read(&path)? {
            Some((plan, steps, length)) => {
                is_equal(&plan).map_err(|why| {
                    let folder = folder.display();
                    ExportError::Folder(format!(
                        "{folder} has an unfinished export that cannot be gone on with: {why}; name \
                         another folder, or remove this one"
                    ))
                })?;
                (plan, steps, Some(length))
            }
            None => {
                require_empty(folder)?;
                (make(), Vec::new(), None)
            }
        };
        let failed = || ExportError::file("write", &path);
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed())?;
        match length {
            // The last line may have been cut off.
            Some(length) => file.set_len(length).map_err(failed())?,
            None => {
                file.set_len(0).map_err(failed())?;
                append(&mut file, &plan).map_err(failed())?;
                sync_folder_of(&path)?;
            }
        }
        let folder = folder.to_owned();
        let journal = Self {
            folder,
            file,
            steps,
            _lock: lock,
        };
        Ok((journal, plan))
    }

    /// Notes a step.
    pub(crate) fn note(&mut self, step: Step) -> Result<(), ExportError> {
        let path = self.folder.join(JOURNAL_NAME);
        append(&mut self.file, &step).map_err(ExportError::file("write", &path))?;
        self.steps.push(step);
        Ok(())
    }

    /// The files so far.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.steps.iter().filter_map(|step| match step {
            Step::File { entry, .. } => Some(entry),
            Step::Done(_) => None,
        })
    }

    /// Forgets a last file that did not get its name any more: it is made again.
    ///
    /// # Errors
    /// `Folder` if a file is gone or has another size.
    pub(crate) fn require_files(&mut self) -> Result<(), ExportError> {
        let last = self.steps.len().saturating_sub(1);
        let mut is_last_gone = false;
        for (number, step) in self.steps.iter().enumerate() {
            let Step::File { entry, .. } = step else {
                continue;
            };
            let found = fs::metadata(self.folder.join(&entry.path));
            match found {
                Ok(found) if found.len() == entry.bytes => {}
                Err(error) if error.kind() == ErrorKind::NotFound && number == last => {
                    is_last_gone = true;
                }
                _ => {
                    let (folder, file) = (self.folder.display(), &entry.path);
                    return Err(ExportError::Folder(format!(
                        "the file {file} of the unfinished export in {folder} was removed or \
                         changed; remove the folder and export again"
                    )));
                }
            }
        }
        if is_last_gone {
            self.steps.pop();
        }
        Ok(())
    }

    /// Removes what only an unfinished export needs.
    pub(crate) fn remove(self) -> Result<(), ExportError> {
        let path = self.folder.join(JOURNAL_NAME);
        fs::remove_file(&path).map_err(ExportError::file("remove", &path))?;
        let lock = self.folder.join(LOCK_NAME);
        fs::remove_file(&lock).map_err(ExportError::file("remove", &lock))
    }
}

fn append(file: &mut File, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

/// The plan and the steps of a journal, and the length of its whole lines.
fn read(path: &Path) -> Result<Option<(Plan, Vec<Step>, u64)>, ExportError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ExportError::file("read", path)(error)),
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].lines();
    // An export that was cut off in its first line has no file yet.
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let unreadable = |error: serde_json::Error| {
        let path = path.display();
        let why = format!(
            "{path}, with which the unfinished export would be gone on with, cannot be read: {error}; \
             another version of the program may have written it; remove the folder and export again"
        );
        ExportError::Folder(why)
    };
    let plan = serde_json::from_str(first).map_err(unreadable)?;
    let steps = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(Some((plan, steps.map_err(unreadable)?, whole as u64)))
}

fn locked(folder: &Path) -> Result<File, ExportError> {
    fs::create_dir_all(folder).map_err(ExportError::file("make the folder", folder))?;
    let path = folder.join(LOCK_NAME);
    let failed = || ExportError::file("write", &path);
    let lock = File::create(&path).map_err(failed())?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            let folder = folder.display();
            let why = format!("another process is exporting into {folder}; wait for it");
            Err(ExportError::Folder(why))
        }
        Err(fs::TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// A new export needs a folder of its own.
fn require_empty(folder: &Path) -> Result<(), ExportError> {
    let failed = || ExportError::file("read", folder);
    for entry in fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if name != LOCK_NAME && name != JOURNAL_NAME {
            let name = name.to_string_lossy().into_owned();
            let _ = fs::remove_file(folder.join(LOCK_NAME));
            let folder = folder.display();
            return Err(ExportError::Folder(format!(
                "{folder} is not empty: it has {name}; name a new folder"
            )));
        }
    }
    Ok(())
}
