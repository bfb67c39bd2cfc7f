//! The folder of a private Postgres: its layout, and how its cluster is made.
//!
//! Invariant: `data/` is a complete cluster or does not exist. It is made under another name and
//! then moved.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use uuid::Uuid;

use super::server::Server;
use super::user::User;
use super::{ADMIN, Error, NAME, READER, ROOT_HOMES};

/// The file with the password of the program's role.
const PASSWORD: &str = "password";
/// The file with the password of the superuser.
const ADMIN_PASSWORD: &str = "admin-password";
/// The file with the port of the last run.
const PORT: &str = "port";
/// The file with the address of the last run.
const URL: &str = "url";

/// The folder of one private Postgres.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// The user that runs the server, if that is not the user of this process.
    user: Option<User>,
    password: String,
    admin_password: String,
}

impl Home {
    /// Opens the folder, or makes it, and locks it for this process. The lock ends with the
    /// process, however it ends, and the server does not inherit it. For root, another folder is
    /// used if the server's user cannot enter this one.
    pub(super) fn open(data_dir: &Path) -> Result<(Self, File), Error> {
        let user = User::instead_of_root()?;
        create_private(data_dir)?;
        let asked = data_dir
            .canonicalize()
            .map_err(Error::io("find", data_dir))?;
        let path = match &user {
            None => {
                make_private(&asked)?;
                asked
            }
            Some(user) => {
                let path = reachable_home(&asked, user)?;
                // Other users may pass through to their own files, but cannot list the folder.
                fs::set_permissions(&path, Permissions::from_mode(0o711))
                    .map_err(Error::io("change the permissions of", &path))?;
                path
            }
        };
        let mut home = Self {
            path,
            user,
            password: String::new(),
            admin_password: String::new(),
        };
        let lock = home.lock()?;
        home.password = home.stored_password(PASSWORD)?;
        home.admin_password = home.stored_password(ADMIN_PASSWORD)?;
        Ok((home, lock))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address of a database, password included.
    pub(super) fn url(&self, port: u16, database: &str) -> String {
        let password = &self.password;
        format!("postgresql://{NAME}:{password}@127.0.0.1:{port}/{database}")
    }

    pub(super) fn admin_password(&self) -> &str {
        &self.admin_password
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::InUse {
                home: self.path.clone(),
            }),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// The major version of Postgres that made the cluster; `None` if there is no cluster yet.
    pub(super) fn made_by(&self) -> Result<Option<u32>, Error> {
        let path = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => Ok(version.trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Makes the cluster and the program's database, unless they exist.
    pub(super) fn make_cluster(&self, server: &Server) -> Result<(), Error> {
        let cluster = self.cluster();
        if cluster.exists() {
            return Ok(());
        }
        if let Some(user) = &self.user {
            tracing::info!(
                user = user.name,
                "Postgres refuses to run as root; it runs as another user"
            );
        }
        let partial = self.path.join("data.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        create_private(&partial)?;
        if let Some(user) = &self.user {
            user.own(&partial)?;
        }

        let initdb = server.program("initdb");
        let mut command = self.command(&initdb);
        command
            .arg("-D")
            .arg(&partial)
            .arg("--pwfile")
            .arg(self.path.join(ADMIN_PASSWORD));
        command.args(["--username", ADMIN, "--auth", "scram-sha-256"]);
        command.args([
            "--encoding",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "--no-instructions",
        ]);
        run(&initdb, command, "")?;

        // In single-user mode, before the cluster is complete: so every cluster has its database.
        let postgres = server.program("postgres");
        let mut command = self.command(&postgres);
        command
            .arg("--single")
            .arg("-D")
            .arg(&partial)
            .args(["-c", "fsync=off", "postgres"]);
        // One statement per line. The password was made here and consists of hexadecimal digits.
        let (password, rights) = (&self.password, "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE");
        let statements = format!(
            "CREATE ROLE {NAME} {rights} PASSWORD '{password}'\n\
             CREATE ROLE {READER} NOLOGIN\n\
             CREATE DATABASE {NAME} OWNER {NAME}\n"
        );
        run(&postgres, command, &statements)?;

        fs::rename(&partial, &cluster).map_err(Error::io("move", &partial))
    }

    /// A command that runs as the server's user, in this folder, without the caller's `PG…`
    /// variables and language.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(&self.path);
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// A new, empty server log; the log of the run before stays beside it.
    pub(super) fn new_log(&self) -> Result<File, Error> {
        let (log, previous) = (self.log(), self.path.join("server.previous.log"));
        match fs::rename(&log, previous) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("move", &log)(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        options.open(&log).map_err(Error::io("open", &log))
    }

    /// The port of the last run: if it is used again, addresses noted then still hold.
    pub(super) fn last_port(&self) -> Option<u16> {
        fs::read_to_string(self.path.join(PORT))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Stores the server's address, for the next start and for people.
    pub(super) fn remember(&self, port: u16) -> Result<(), Error> {
        let address = self.url(port, NAME);
        for (name, text) in [(PORT, port.to_string()), (URL, address)] {
            let path = self.path.join(name);
            let mut file = private_file(&path)?;
            writeln!(file, "{text}").map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    pub(super) fn url_file(&self) -> PathBuf {
        self.path.join(URL)
    }

    /// A stored password; made now if there is no cluster yet.
    fn stored_password(&self, name: &str) -> Result<String, Error> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => {
                let private = Permissions::from_mode(0o600);
                fs::set_permissions(&path, private)
                    .map_err(Error::io("change the permissions of", &path))?;
                return Ok(password.trim().to_owned());
            }
            Err(error) if error.kind() != ErrorKind::NotFound || self.cluster().exists() => {
                return Err(Error::io("read", &path)(error));
            }
            _ => {}
        }
        let password = Uuid::new_v4().simple().to_string();
        let mut file = private_file(&path)?;
        writeln!(file, "{password}").map_err(Error::io("write", &path))?;
        if let Some(user) = &self.user {
            user.own(&path)?;
        }
        Ok(password)
    }
}

/// An empty file that is private to its owner.
fn private_file(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = options.open(path).map_err(Error::io("open", path))?;
    // An existing file has kept its mode.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(Error::io("change the permissions of", path))?;
    Ok(file)
}

/// The folder that was asked for if `user` can enter it, else a folder in [`ROOT_HOMES`] with a
/// name that is made from it.
fn reachable_home(asked: &Path, user: &User) -> Result<PathBuf, Error> {
    // This process owns the folder itself and may open it to the user; it does not own those above.
    if asked.parent().is_none_or(|parent| user.reaches(parent)) {
        return Ok(asked.to_owned());
    }
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, asked.as_os_str().as_bytes());
    let path = Path::new(ROOT_HOMES).join(format!("postgres-{name}"));
    create_private(&path)?;
    fs::set_permissions(ROOT_HOMES, Permissions::from_mode(0o755)).map_err(Error::io(
        "change the permissions of",
        Path::new(ROOT_HOMES),
    ))?;
    tracing::info!(
        user = user.name,
        asked = %asked.display(),
        used = %path.display(),
        "Postgres refuses to run as root, and the user that it runs as cannot enter the folder"
    );
    Ok(path)
}

fn create_private(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))
}

fn make_private(path: &Path) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(Error::io("change the permissions of", path))
}

fn run(program: &Path, mut command: Command, input: &str) -> Result<Output, Error> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io("run", program))?;
    let mut stdin = child.stdin.take().expect("it was asked for above");
    // If a program ends without reading, its exit status decides.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(Error::io("wait for", program))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    // A single-user server reports errors, but its exit status is success.
    if !output.status.success() || said(&output.stderr).contains("ERROR:") {
        let program = program.to_owned();
        let text = format!("{}\n{}", said(&output.stdout), said(&output.stderr));
        return Err(Error::Tool {
            program,
            status: output.status,
            output: text,
        });
    }
    Ok(output)
}
