//! A real Postgres for tests: the module that runs the private server of `annals dev`, with more
//! calls to break the server.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use embedded_postgres::{Durability, EmbeddedPostgres, Options};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;

use super::disk::SmallDisk;
use super::process::Watch;
use super::{ports, unique_name};

/// A Postgres server of one test. It ends, and its folder is removed, on drop or when the test
/// process is gone.
#[derive(Debug)]
pub struct Postgres {
    // In the order of dropping: the server, then the watch over it, then its disk and the folder.
    server: Option<EmbeddedPostgres>,
    watch: Option<Watch>,
    options: Options,
    disk: Option<SmallDisk>,
    /// The folder of the server: `folder`, or a disk in it.
    home: PathBuf,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server that does not flush to disk, in a new folder.
    ///
    /// # Panics
    /// If it cannot be started; the message says what to do.
    pub fn start() -> Self {
        Self::start_with(Durability::None)
    }

    /// Does the same as [`Postgres::start`], with a choice of durability.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_with(durability: Durability) -> Self {
        let folder = new_folder();
        let home = folder.path().to_owned();
        Self::start_in(folder, home, None, durability)
    }

    /// Does the same as [`Postgres::start`], with everything that the server writes on a disk of its
    /// own, which has this size.
    ///
    /// # Errors
    /// If no disk can be mounted: only root can do that.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_on_small_disk(size_mb: u32) -> io::Result<Self> {
        let folder = new_folder();
        let home = folder.path().join("disk");
        fs::create_dir(&home)?;
        // The server runs as another user, who must get through to the disk.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let disk = SmallDisk::mount(&home, size_mb)?;
        Ok(Self::start_in(folder, home, Some(disk), Durability::None))
    }

    fn start_in(
        folder: TempDir,
        home: PathBuf,
        disk: Option<SmallDisk>,
        durability: Durability,
    ) -> Self {
        let options = Options {
            port: Some(ports::free()),
            durability,
            ..Options::default()
        };
        let mut postgres = Self {
            server: None,
            watch: None,
            options,
            disk,
            home,
            folder,
        };
        postgres.launch();
        postgres
    }

    fn launch(&mut self) {
        let server =
            EmbeddedPostgres::start_blocking(&self.home, &self.options).unwrap_or_else(|error| {
                panic!("no Postgres for the tests ({error}): run ops/setup and try again")
            });
        // On SIGQUIT, Postgres ends at once, together with its own processes.
        self.watch = Some(Watch::over(server.pid(), "QUIT", self.folder.path()));
        self.server = Some(server);
    }

    fn server(&self) -> &EmbeddedPostgres {
        self.server
            .as_ref()
            .expect("the server was killed and has not been started again")
    }

    /// The address of a database of this server.
    pub fn url(&self, database: &str) -> String {
        self.server().url_of(database)
    }

    /// The address of a database of this server, as the superuser.
    pub fn admin_url(&self, database: &str) -> String {
        self.server().admin_url_of(database)
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server().pid()
    }

    /// The folder of the server.
    pub fn folder(&self) -> &Path {
        &self.home
    }

    /// The disk of its own, if the server has one.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Creates a database that no other test uses, and returns its address.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_database(&self) -> String {
        let name = unique_name("test");
        let admin: sqlx::postgres::PgConnectOptions = self
            .server()
            .admin_url_of("postgres")
            .parse()
            .expect("the harness writes addresses that can be read");
        let mut connection = admin
            .connect()
            .await
            .expect("a server that was started answers");
        // The program's role owns the database and is no superuser, as in production.
        let statement = format!("CREATE DATABASE {name} OWNER annals");
        connection
            .execute(sqlx::AssertSqlSafe(statement))
            .await
            .expect("a new name can be taken");
        connection
            .close()
            .await
            .expect("a connection that works can be closed");
        self.url(&name)
    }

    /// Kills the server as `kill -9` does.
    pub fn kill9(&mut self) {
        let server = self.server.take().expect("the server was killed before");
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the system gave this number to the server");
        kill_process(pid, Signal::KILL).expect("a child of ours takes signals");
        // Drop waits for the server's end; only then may it be started again.
        drop(server);
        self.watch = None;
    }

    /// Starts the server again, on the same port and with the same data.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        drop(self.server.take());
        self.launch();
    }
}

fn new_folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("annals-postgres-")
        .tempdir();
    folder.expect("a temporary folder can be made")
}
