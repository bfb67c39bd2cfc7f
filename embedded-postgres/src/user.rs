//! Which user runs the server. Postgres refuses root, so root runs it as another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;

use super::Error;

/// In order of preference; the first is the one that Postgres packages create.
const ORDINARY_USERS: [&str; 2] = ["postgres", "nobody"];

/// A user other than root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// The user to run the server as, if this process is root; otherwise `None`.
    pub(super) fn instead_of_root() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        ORDINARY_USERS
            .into_iter()
            .find_map(Self::named)
            .map(Some)
            .ok_or(Error::NoOrdinaryUser)
    }

    fn named(name: &'static str) -> Option<Self> {
        let number = |flag: &str| -> Option<u32> {
            let output = Command::new("id").args([flag, name]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        let (uid, gid) = (number("-u")?, number("-g")?);
        (uid != 0).then_some(Self { name, uid, gid })
    }

    /// Whether this user may pass through the folder and all above it. Access lists are not
    /// checked: they may forbid what this allows, and then Postgres says so itself.
    pub(super) fn reaches(&self, folder: &Path) -> bool {
        folder
            .ancestors()
            .filter_map(|folder| fs::metadata(folder).ok())
            .all(|folder| {
                let bit = match (folder.uid() == self.uid, folder.gid() == self.gid) {
                    (true, _) => 0o100,
                    (false, true) => 0o010,
                    (false, false) => 0o001,
                };
                folder.mode() & bit != 0
            })
    }

    /// Makes this user the owner of one file or folder.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        lchown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change the owner of", path))
    }
}
