//! What only the user who runs the program may read: folders of data, files of logs, secrets.
//!
//! Invariant: a data folder has mode 0700, and what is made in it has 0600, whatever the umask of
//! the shell. Wider modes are narrowed at the start; a secret file that others may read is refused.
//! Root's folders have mode 0711: root's Postgres runs as another user, who must pass through to
//! its own files; nobody can list the folders. Deliberately absent: the private Postgres's folder,
//! which has rules of its own.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::exit::{Exit, Failure};

/// The permission bits of group and others.
const OF_OTHERS: u32 = 0o077;
/// The mode of root's folders.
const ROOT_FOLDER_MODE: u32 = 0o711;
/// The suffixes of an embedded log's files: the log itself and those beside it.
const BESIDE_LOG: [&str; 4] = ["", "-wal", "-shm", ".lock"];

/// Sets the umask: what this process makes from now on is private to its user.
pub fn by_default() {
    rustix::process::umask(Mode::from_bits_truncate(OF_OTHERS as _));
}

/// Makes a folder that is private to its owner, or makes an existing one private.
///
/// # Errors
/// `Failed` if it cannot be made; `Usage` if it belongs to another user and is too open.
pub fn folder(path: &Path) -> Result<(), Failure> {
    let mut builder = DirBuilder::new();
    let mode = folder_mode();
    let made = builder.recursive(true).mode(mode).create(path);
    made.map_err(|error| failed("make the folder", path, &error))?;
    narrowed(path, mode)?;
    // The umask has removed permissions that root's Postgres needs.
    if mode == ROOT_FOLDER_MODE {
        let set = fs::set_permissions(path, Permissions::from_mode(mode));
        set.map_err(|error| failed("open the way through", path, &error))?;
    }
    Ok(())
}

/// The mode of a folder of data.
#[must_use]
pub fn folder_mode() -> u32 {
    if rustix::process::geteuid().is_root() {
        ROOT_FOLDER_MODE
    } else {
        0o700
    }
}

/// Makes the files of an embedded log private to their owner.
///
/// # Errors
/// `Usage` if one of them belongs to another user and is too open.
pub fn log_files(log: &Path) -> Result<(), Failure> {
    BESIDE_LOG.iter().try_for_each(|suffix| {
        let mut path = log.as_os_str().to_owned();
        path.push(suffix);
        narrowed(&PathBuf::from(path), 0o600)
    })
}

/// Refuses a secret file that others may read. A file of root may be readable by its group: the
/// program needs that if it runs as another user.
///
/// # Errors
/// What is wrong and what to do, as text: the caller knows which setting names the file.
pub fn secret_file(path: &Path) -> Result<(), String> {
    // If the file cannot be read, the caller's own reading reports that.
    let Ok(file) = fs::metadata(path) else {
        return Ok(());
    };
    let wide = if file.uid() == 0 && !rustix::process::geteuid().is_root() {
        OF_OTHERS & !0o040
    } else {
        OF_OTHERS
    };
    if !file.is_file() || file.mode() & wide == 0 {
        return Ok(());
    }
    Err(format!(
        "other users may read it (its mode is {:04o}); run: chmod 600 '{}'",
        file.mode() & 0o7777,
        path.display()
    ))
}

fn narrowed(path: &Path, mode: u32) -> Result<(), Failure> {
    let found: Metadata = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path, &error)),
    };
    if found.mode() & OF_OTHERS & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| {
        let message = format!(
            "{} is open to other users (its mode is {:04o}), and the mode could not be changed: \
             {error}; its owner can run: chmod {mode:o} '{}'",
            path.display(),
            found.mode() & 0o7777,
            path.display()
        );
        Failure::new(Exit::Usage, message)
    })?;
    tracing::info!(
        path = %path.display(),
        mode = format_args!("{:04o}", found.mode() & 0o7777),
        "a file or folder was open to other users; its mode was changed"
    );
    Ok(())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying(&format!("{what} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_open_to_others_is_made_private() {
        let above = tempfile::tempdir().unwrap();
        let data = above.path().join("a/b");
        folder(&data).unwrap();
        assert_eq!(mode(&data) & 0o766, 0o700);
        let log = data.join("log.db");
        for path in [
            log.clone(),
            data.join("log.db-wal"),
            data.join("log.db.lock"),
        ] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        folder(&data).unwrap();
        log_files(&log).unwrap();
        let files = [log, data.join("log.db-wal"), data.join("log.db.lock")];
        assert_eq!(files.map(|file| mode(&file)), [0o600; 3]);
        assert_eq!(mode(&data) & 0o766, 0o700);
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "x").unwrap();
        for (mode, is_refused) in [(0o600, false), (0o400, false), (0o644, true), (0o620, true)] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let refused = secret_file(&file);
            assert_eq!(refused.is_err(), is_refused, "{mode:o}");
            if let Err(reason) = refused {
                assert!(reason.contains("chmod 600 '/"), "{reason}");
            }
        }
    }
}
