//! A disk that a test can fill.
//!
//! Invariant: it is unmounted when its owner is dropped; if the test process is killed, the watch
//! over the server whose files it holds unmounts it (`process`). Deliberately absent: limits of other
//! parts of the machine.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const FILL_BYTES: usize = 64 * 1024;

/// A small disk in memory (`tmpfs`).
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size on a folder.
    ///
    /// # Errors
    /// Any error of the system; for a user other than root there is always one.
    pub fn mount(folder: &Path, size_mb: u32) -> io::Result<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size_mb}m"))
            .arg("annals")
            .arg(folder);
        run(&mut mount)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Fills the disk to the last byte.
    ///
    /// # Errors
    /// Any error of the system, except that the disk is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = fs::File::create(self.ballast())?;
        let zeros = vec![0; FILL_BYTES];
        for size in [FILL_BYTES, 1] {
            loop {
                match file.write_all(&zeros[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Frees the room again.
    pub fn clear(&self) {
        // If nothing was filled, there is no file.
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Unmount lazily: a process that is about to end may still have files open there.
        let _ = run(Command::new("umount").arg("-l").arg(&self.folder));
    }
}

/// Runs a command of the system; its error is what the command said.
///
/// # Errors
/// If the command cannot be run, or fails.
pub fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}
