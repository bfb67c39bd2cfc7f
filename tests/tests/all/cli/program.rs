//! Calls the program, and runs it as a server.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::harness::process::Process;

/// How long a start or an end may take on a machine that runs other tests, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// A call of the program in this folder, without `ANNALS_` variables in its environment.
pub(crate) fn annals(folder: &Path) -> Command {
    program(env!("CARGO_BIN_EXE_annals-under-test"), folder)
}

/// A call of another program in this folder, without `ANNALS_` variables in its environment.
pub(crate) fn program(file: &str, folder: &Path) -> Command {
    let mut command = Command::new(file);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("ANNALS_") && name_text != "ANNALS_POSTGRES_BIN" {
            command.env_remove(&name);
        }
    }
    command
}

/// A folder that the operating system's user of Postgres can enter.
pub(crate) fn folder() -> TempDir {
    let permissions = std::fs::Permissions::from_mode(0o755);
    let mut builder = tempfile::Builder::new();
    builder.prefix("annals-cli-").permissions(permissions);
    builder.tempdir().unwrap()
}

/// Calls the program and waits until it ends.
pub(crate) fn call(folder: &Path, arguments: &[&str]) -> Output {
    annals(folder).args(arguments).output().unwrap()
}

/// The standard output of a call.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The standard error of a call.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asserts the exit code of a call; a failure shows the call's output.
#[track_caller]
pub(crate) fn assert_exit(output: &Output, code: i32) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {out}\nstderr: {err}"
    );
}

/// Waits up to a minute until a condition holds.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(60), what, is_so).await;
}

/// Waits up to `time` until a condition holds.
pub(crate) async fn within(time: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The program as a server. It is ended in good order on drop, so that its Postgres ends with it.
pub(crate) struct Server {
    process: Process,
    output: PathBuf,
    pub(super) ready: Value,
    pub(crate) url: String,
}

impl Server {
    /// Starts the program with these arguments and waits for its line of readiness.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_in(folder, arguments, &[])
    }

    /// Does the same with more environment variables.
    pub(crate) fn start_in(folder: &Path, arguments: &[&str], more: &[(&str, &str)]) -> Self {
        let mut command = annals(folder);
        command.args(arguments);
        command.envs(more.iter().copied());
        Self::start_as(command, folder)
    }

    /// Starts one of the nodes of a log, with its data in `folder`. The log's other nodes notice
    /// within seconds when it is gone.
    pub(crate) fn node_of(folder: &Path, log: &str, name: &str, more: &[(&str, &str)]) -> Self {
        let data = folder.join(name).display().to_string();
        let of_log = ["--log", log, "--node", name, "--data", &data];
        let arguments = ["serve", "--role=command-api", "--session-timeout-ms=3000"];
        let secret = ("ANNALS_CLUSTER_SECRET", "shared by nobody else here");
        let more = [&[secret], more].concat();
        Self::start_in(folder, &[&arguments[..], &of_log].concat(), &more)
    }

    /// Does the same by the command `through`, which runs the program with the arguments after it.
    pub(super) fn start_through(folder: &Path, through: &[&str], arguments: &[&str]) -> Self {
        let ours = annals(folder);
        let mut command = Command::new(through[0]);
        command.args(&through[1..]).arg(ours.get_program());
        command.args(arguments).current_dir(folder);
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::start_as(command, folder)
    }

    /// Starts a command that serves, and waits for its line of readiness.
    pub(crate) fn start_as(mut command: Command, folder: &Path) -> Self {
        if !command.get_args().any(|argument| argument == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(["--output", "json"]);
        let output = folder.join("server.out");
        let process = Process::start(command, File::create(&output).unwrap(), folder).unwrap();
        let mut server = Self {
            process,
            output: output.clone(),
            ready: Value::Null,
            url: String::new(),
        };
        server.ready = server.ready_line(&output);
        server.url = server.ready["http"].as_str().unwrap().to_owned();
        server
    }

    /// `annals dev` on the data in `folder`.
    pub(crate) fn dev(folder: &Path) -> Self {
        Self::start(folder, &["dev"])
    }

    fn ready_line(&mut self, output: &PathBuf) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(output).unwrap();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let documents = whole
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            // The program's log may be JSON, too.
            let mut ready = documents.filter(|document: &Value| document["http"].is_string());
            if let Some(ready) = ready.next() {
                return ready;
            }
            let ended = self.process.ended();
            assert!(
                ended.is_none(),
                "the program ended ({ended:?}) and said: {text}"
            );
            assert!(
                Instant::now() < deadline,
                "the program is not ready and said: {text}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All output so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends the program a signal and waits until it ends.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the program as `kill -9` does.
    pub(super) fn kill9(&mut self) {
        self.process.kill9();
    }

    /// The address of the program's embedded Postgres.
    pub(crate) fn postgres_url(&self) -> String {
        let file = self.ready["postgres_url_file"].as_str().unwrap();
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            let _ = self.end(Signal::TERM);
        }
    }
}
