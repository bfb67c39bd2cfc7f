//! Files that appear under their name only when they are whole.
//!
//! Invariant: what is being written has a name that begins with a dot and ends with `.part`, which no
//! reader of the export takes; it is on the disk before it gets its own name. Deliberately absent: the
//! format.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use crate::error::ExportError;

/// How many bytes are written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A writer that counts and digests what passes through it.
pub(crate) struct Hashed {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    is_full: Arc<AtomicBool>,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).inspect_err(|error| {
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                self.is_full.store(true, Ordering::Relaxed);
            }
        })?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is being written.
pub(crate) struct Part {
    part: PathBuf,
    path: PathBuf,
    is_full: Arc<AtomicBool>,
}

/// A whole file on the disk that does not have its name yet.
pub(crate) struct Whole {
    part: PathBuf,
    path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Part {
    /// Begins the file that will be `path`.
    pub(crate) fn begin(path: PathBuf) -> Result<(Self, Hashed), ExportError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(ExportError::file("make the folder", folder))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.part"));
        let file = File::create(&part).map_err(ExportError::file("write", &part))?;
        let is_full = Arc::new(AtomicBool::new(false));
        let hashed = Hashed {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            digest: Sha256::new(),
            bytes: 0,
            is_full: Arc::clone(&is_full),
        };
        let this = Self {
            part,
            path,
            is_full,
        };
        Ok((this, hashed))
    }

    /// A failure to write it, of which the format's writer told only a text.
    pub(crate) fn failed(&self, error: ExportError) -> ExportError {
        match self.is_full.load(Ordering::Relaxed) {
            true => ExportError::Full {
                path: self.path.clone(),
                written: 0,
                missing: 0,
            },
            false => error,
        }
    }

    /// Brings all of it to the disk.
    pub(crate) fn complete(self, hashed: Hashed) -> Result<Whole, ExportError> {
        let failed = || ExportError::file("write", &self.part);
        let file = hashed.file.into_inner();
        let file = file.map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        Ok(Whole {
            part: self.part,
            path: self.path,
            bytes: hashed.bytes,
            sha256: hex::encode(hashed.digest.finalize()),
        })
    }

    /// Removes what was written.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(self.part);
    }
}

impl Whole {
    /// Gives the file another name.
    pub(crate) fn appear_as(mut self, path: &Path) -> Result<(), ExportError> {
        self.path = path.to_owned();
        self.appear()
    }

    /// Gives the file its name.
    pub(crate) fn appear(self) -> Result<(), ExportError> {
        let renamed = fs::rename(&self.part, &self.path);
        renamed.map_err(ExportError::file("rename", &self.part))?;
        sync_folder_of(&self.path)
    }
}

/// Makes durable which files a folder has.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), ExportError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let synced = File::open(folder).and_then(|open| open.sync_all());
        synced.map_err(ExportError::file("write", folder))?;
    }
    Ok(())
}

/// Writes a small file at once, under its name only when it is whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let (part, mut hashed) = Part::begin(path.to_owned())?;
    let written = hashed.write_all(bytes);
    written.map_err(ExportError::file("write", path))?;
    part.complete(hashed)?.appear()
}
