//! Chooses the installed Postgres to run. Runs nothing but `--version` and `pg_config`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest Postgres that is tried: older ones no longer get security fixes.
pub const POSTGRES_MAJOR_MIN: u32 = 14;

/// A parent folder, the prefix of its folders with a version, and the subfolder with the programs.
/// `ops/setup` looks at the same folders.
const USUAL_FOLDERS: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];

/// An installed Postgres server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    bin: PathBuf,
    pub(super) major: u32,
}

impl Server {
    /// Checks whether a folder holds a complete server, and of which version.
    pub(super) fn at(bin: &Path) -> Result<Self, Error> {
        let unusable = |reason: String| Error::UnusableServer {
            bin: bin.to_owned(),
            reason,
        };
        for program in ["postgres", "initdb"] {
            if !bin.join(program).is_file() {
                return Err(unusable(format!("the folder has no `{program}`")));
            }
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output();
        let output = output.map_err(Error::io("run", &bin.join("postgres")))?;
        let banner = String::from_utf8_lossy(&output.stdout);
        let major = major_of(&banner)
            .ok_or_else(|| unusable(format!("`postgres --version` says {:?}", banner.trim())))?;
        if major < POSTGRES_MAJOR_MIN {
            return Err(unusable(format!(
                "its version is {major}, and the oldest supported version is {POSTGRES_MAJOR_MIN}"
            )));
        }
        Ok(Self {
            bin: bin.to_owned(),
            major,
        })
    }

    /// The path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Finds the server to use: the configured one, else the first that fits the cluster's version.
pub(super) fn find(
    configured: Option<&Path>,
    made_by: Option<u32>,
    home: &Path,
) -> Result<Server, Error> {
    let suits = |server: &Server| made_by.is_none_or(|major| major == server.major);
    let other_version = |made_by| Error::OtherVersion {
        home: home.to_owned(),
        made_by,
    };

    let from_environment = env::var_os("ANNALS_POSTGRES_BIN").filter(|bin| !bin.is_empty());
    let configured = configured
        .map(PathBuf::from)
        .or(from_environment.map(PathBuf::from));
    if let Some(bin) = configured {
        let server = Server::at(&bin)?;
        return match made_by {
            Some(made_by) if !suits(&server) => Err(other_version(made_by)),
            _ => Ok(server),
        };
    }

    let installed = [from_pg_config, from_path, from_usual_folders]
        .into_iter()
        .flat_map(|look| look());
    let mut servers = installed.filter_map(|bin| Server::at(&bin).ok());
    if let Some(server) = servers.find(suits) {
        return Ok(server);
    }
    #[cfg(feature = "fetch")]
    if made_by.is_none_or(|major| major == super::fetch::POSTGRES_MAJOR) {
        return super::fetch::server();
    }
    Err(made_by.map_or(Error::NoServer, other_version))
}

fn from_pg_config() -> Vec<PathBuf> {
    let Ok(output) = Command::new("pg_config").arg("--bindir").output() else {
        return Vec::new();
    };
    let bin = String::from_utf8_lossy(&output.stdout);
    if bin.trim().is_empty() {
        Vec::new()
    } else {
        vec![PathBuf::from(bin.trim())]
    }
}

fn from_path() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

/// Newest first within each family of folders.
fn from_usual_folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix, bin) in USUAL_FOLDERS {
        let Ok(entries) = fs::read_dir(parent) else {
            continue;
        };
        let mut folders: Vec<(u32, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| (number_in(&entry.file_name()), entry.path().join(bin)))
            .collect();
        folders.sort_by(|a, b| b.cmp(a));
        found.extend(folders.into_iter().map(|(_, bin)| bin));
    }
    found
}

/// `16` of `postgresql@16`; 0 where there is no number.
fn number_in(name: &OsStr) -> u32 {
    let digits = |c: char| !c.is_ascii_digit();
    name.to_string_lossy()
        .trim_start_matches(digits)
        .split(digits)
        .next()
        .map_or(0, |number| number.parse().unwrap_or(0))
}

/// `15` of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `19` of `… 19beta2`.
fn major_of(banner: &str) -> Option<u32> {
    let version = banner.split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_released_and_unreleased_servers() {
        for (banner, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 17.4\n", Some(17)),
            ("postgres (PostgreSQL) 19beta2\n", Some(19)),
            ("something else\n", None),
            ("", None),
        ] {
            assert_eq!(major_of(banner), major, "{banner}");
        }
    }

    #[test]
    fn orders_folders_by_their_version() {
        for (name, number) in [
            ("16", 16),
            ("pgsql-9", 9),
            ("postgresql@14", 14),
            ("pgsql", 0),
        ] {
            assert_eq!(number_in(OsStr::new(name)), number, "{name}");
        }
    }

    #[test]
    fn says_what_a_configured_folder_lacks() {
        let error = find(Some(Path::new("/nowhere")), None, Path::new("/home")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nowhere holds no usable Postgres server: the folder has no `postgres`"
        );
    }
}
