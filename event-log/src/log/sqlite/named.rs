//! Checks that the log's path still names the file that is open.
//!
//! A process can still write to its open file after the file was deleted, moved or replaced, and
//! what it writes is lost with the process. Invariant: once the path has named another file, every
//! operation on this log fails for good, because nobody can tell what happened meanwhile.
//! Deliberately absent: detection of a copy that another program writes into the open file and that
//! is at least as long.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::LogError;
use crate::log::error::failed;

/// The files beside the log's file: committed data of SQLite, and the index of it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What identifies a file apart from its path: its device and its inode.
type FileId = (u64, u64);

fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// The file that was opened, and whether the path has named it ever since.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    opened: FileId,
    /// The largest length seen, in bytes. Records are never deleted, so the file never shrinks.
    length: AtomicU64,
    /// What happened, if the path stopped naming the file.
    lost: OnceLock<String>,
}

/// The files beside the log's file, as they were when the writer's connection began to use them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside([FileId; BESIDE.len()]);

impl Named {
    /// Looks at the file that `path` names now.
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            opened: id_of(&metadata),
            length: AtomicU64::new(metadata.len()),
            lost: OnceLock::new(),
        })
    }

    /// Whether the path still names the open file.
    ///
    /// # Errors
    /// `Replaced`, also for all later calls; `Unavailable` if the file could not be examined.
    pub(super) fn require(&self) -> Result<(), LogError> {
        if let Some(what) = self.lost.get() {
            return Err(self.replaced(what));
        }
        // Read the length before the look: another thread may see the file grow during this look.
        let length_min = self.length.load(Ordering::Acquire);
        let metadata = self.metadata(&self.path, "was deleted or moved")?;
        if id_of(&metadata) != self.opened {
            return Err(self.lose("was replaced by another file"));
        }
        if metadata.len() < length_min {
            return Err(self.lose("became shorter: something else wrote it"));
        }
        self.length.fetch_max(metadata.len(), Ordering::AcqRel);
        Ok(())
    }

    /// As [`Self::require`], and the files beside the log's file must be those in `beside`, too.
    pub(super) fn require_with(&self, beside: &Beside) -> Result<(), LogError> {
        self.require()?;
        for (suffix, opened) in BESIDE.into_iter().zip(beside.0) {
            let what = format!("lost its {suffix} file");
            if id_of(&self.metadata(&self.beside(suffix), &what)?) != opened {
                return Err(self.lose(&format!("{what} to another")));
            }
        }
        Ok(())
    }

    /// Looks at a file; if it is not there, the log is lost, and `what` says what happened.
    fn metadata(&self, path: &Path, what: &str) -> Result<Metadata, LogError> {
        path.metadata().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.lose(what),
            _ => LogError::unavailable("look at the log's file", error),
        })
    }

    /// The present files beside the log's file. A connection that has read keeps them open.
    pub(super) fn look_beside(&self) -> Result<Beside, LogError> {
        let mut ids = [self.opened; BESIDE.len()];
        for (suffix, id) in BESIDE.into_iter().zip(&mut ids) {
            let metadata = self.beside(suffix).metadata();
            *id = id_of(&metadata.map_err(failed("look at the files beside the log's"))?);
        }
        Ok(Beside(ids))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name: OsString = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Notes for good that the file is lost, and logs it once.
    fn lose(&self, what: &str) -> LogError {
        let is_news = self.lost.set(what.to_owned()).is_ok();
        let error = self.replaced(self.lost.get().map_or(what, |first| first));
        if is_news {
            tracing::error!("{error}");
        }
        error
    }

    fn replaced(&self, what: &str) -> LogError {
        LogError::Replaced(format!("the log's file {} {what}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_file_that_grows_while_many_look_did_not_become_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .unwrap();
        let named = Named::look(&path).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        named.require().unwrap();
                    }
                });
            }
            for _ in 0..100_000 {
                file.write_all(b"x").unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        named.require().unwrap();
        file.set_len(99_999).unwrap();
        let shorter = named.require().unwrap_err();
        assert!(shorter.to_string().contains("became shorter"), "{shorter}");
        file.write_all(b"xx").unwrap();
        assert!(named.require().is_err(), "it is lost for good");
    }
}
