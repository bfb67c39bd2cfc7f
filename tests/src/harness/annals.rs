//! The program `annals` as a process that tests start, signal and kill.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::Process;

/// How long the program may take to become ready, or to end after a request.
const WAIT: Duration = Duration::from_secs(60);

/// The common secret of nodes on a log in Kafka.
const SECRET: &str = "a secret that the nodes of one test share";

/// How the program is run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The path of the program.
    pub program: PathBuf,
    /// The arguments; `--output json` is added.
    pub arguments: Vec<String>,
    /// A command that runs the program given after it (such as `ip netns exec NAME`); often empty.
    pub through: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
    /// The working folder; removed if the test process ends without removing it.
    pub folder: PathBuf,
    /// The file to which the output is appended.
    pub output: PathBuf,
}

/// A running `annals`.
pub struct Annals {
    launch: Launch,
    /// The size of the output file at the last start.
    output_before: u64,
    process: Process,
}

impl Annals {
    /// Starts `program` with `arguments` and `--output json`, and returns when the program has
    /// printed its line of readiness. The output goes to a file in `folder`.
    ///
    /// # Panics
    /// If the program does not become ready; the message holds its output.
    pub fn start(program: &Path, arguments: &[String], folder: &Path) -> Self {
        let mut annals = Self::launch(Launch {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            through: Vec::new(),
            environment: vec![("ANNALS_CLUSTER_SECRET".to_owned(), SECRET.to_owned())],
            folder: folder.to_owned(),
            output: folder.join("annals.out"),
        });
        annals.wait_until_ready();
        annals
    }

    /// Starts the program, and returns at once.
    ///
    /// # Panics
    /// If the program cannot be run.
    #[must_use]
    pub fn launch(launch: Launch) -> Self {
        let (process, output_before) = start(&launch);
        Self {
            launch,
            output_before,
            process,
        }
    }

    /// Kills the program as `kill -9` does.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts the program again with the same arguments, and waits until it is ready.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        self.relaunch();
        self.wait_until_ready();
    }

    /// Starts the program again with the same arguments, and returns at once.
    ///
    /// # Panics
    /// As [`Self::launch`].
    pub fn relaunch(&mut self) {
        // The old process must not share ports and folders with the new one.
        self.process.kill9();
        (self.process, self.output_before) = start(&self.launch);
    }

    /// Sends SIGTERM, waits for the end, and returns the exit code.
    ///
    /// # Panics
    /// If the program does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        match self.terminate_within(WAIT) {
            Some(status) => status.code(),
            None => panic!("the program does not end:\n{}", self.said()),
        }
    }

    /// Sends SIGTERM, and returns how the program ended; `None` if it still runs after `wait`.
    pub fn terminate_within(&mut self, wait: Duration) -> Option<ExitStatus> {
        self.process.signal(Signal::TERM);
        let deadline = Instant::now() + wait;
        loop {
            let ended = self.process.ended();
            if ended.is_some() || Instant::now() > deadline {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How the program ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// The output since the last start.
    #[must_use]
    pub fn said(&self) -> String {
        let all = fs::read(&self.launch.output).unwrap_or_default();
        let before = usize::try_from(self.output_before).unwrap_or(usize::MAX);
        String::from_utf8_lossy(all.get(before..).unwrap_or_default()).into_owned()
    }

    /// Whether the program has printed its line of readiness since the last start.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let said = self.said();
        said.lines().any(|line| line.starts_with("{\"http\""))
    }

    /// Waits until the program has printed its line of readiness.
    ///
    /// # Panics
    /// If the program does not become ready; the message holds its output.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + WAIT;
        while !self.is_ready() {
            let ended = self.process.ended();
            assert!(
                ended.is_none(),
                "the program ended with {ended:?}:\n{}",
                self.said()
            );
            assert!(
                Instant::now() < deadline,
                "the program is not ready:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts the process; also returns the size of the output file before.
fn start(launch: &Launch) -> (Process, u64) {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(&launch.output);
    let file = file.expect("a file in a folder of ours");
    let before = file.metadata().map_or(0, |file| file.len());
    let mut words = launch.through.iter().map(String::as_ref);
    let mut command = match words.next() {
        None => Command::new(&launch.program),
        Some(first) => {
            let first: &str = first;
            let mut command = Command::new(first);
            command.args(words).arg(&launch.program);
            command
        }
    };
    command
        .args(&launch.arguments)
        .args(["--output", "json"])
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&launch.folder);
    let process = Process::start(command, file, &launch.folder);
    (process.expect("the program that cargo built"), before)
}
