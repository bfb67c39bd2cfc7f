//! The program itself, as a process that tests start, signal and kill.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::Process;

/// How long the program may take to be ready, or to end when it was asked to.
const WAIT: Duration = Duration::from_secs(60);

/// What nodes on a log in Kafka share.
const SECRET: &str = "a secret that the nodes of one test share";

/// How the program is run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What to run.
    pub program: PathBuf,
    /// With which arguments; `--output json` is added.
    pub arguments: Vec<String>,
    /// A command that runs the program given behind it (as `ip netns exec NAME`); often empty.
    pub through: Vec<String>,
    /// More of the environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs; removed if the test process does not live to do it.
    pub folder: PathBuf,
    /// Where its output is appended.
    pub output: PathBuf,
}

/// A running `annals`.
pub struct Annals {
    launch: Launch,
    /// How much output there was when it was last started.
    output_before: u64,
    process: Process,
}

impl Annals {
    /// Starts `program` with `arguments` and `--output json`, and returns when it has printed its
    /// line of readiness. Its output goes to a file in `folder`.
    ///
    /// # Panics
    /// If it does not get ready; the message holds what it said.
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

    /// Starts it, and returns at once.
    ///
    /// # Panics
    /// If there is no such program.
    #[must_use]
    pub fn launch(launch: Launch) -> Self {
        let (process, output_before) = start(&launch);
        Self {
            launch,
            output_before,
            process,
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again as before.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        self.relaunch();
        self.wait_until_ready();
    }

    /// Starts it again as before, and returns at once.
    ///
    /// # Panics
    /// As [`Self::launch`].
    pub fn relaunch(&mut self) {
        // The old one must not share ports and folders with the new one.
        self.process.kill9();
        (self.process, self.output_before) = start(&self.launch);
    }

    /// Asks it to end with SIGTERM, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        match self.terminate_within(WAIT) {
            Some(status) => status.code(),
            None => panic!("it does not end:\n{}", self.said()),
        }
    }

    /// Asks it to end with SIGTERM, and returns how it ended; none if it has not after `wait`.
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

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// What it printed since it was last started.
    #[must_use]
    pub fn said(&self) -> String {
        let all = fs::read(&self.launch.output).unwrap_or_default();
        let before = usize::try_from(self.output_before).unwrap_or(usize::MAX);
        String::from_utf8_lossy(all.get(before..).unwrap_or_default()).into_owned()
    }

    /// Whether it has printed its line of readiness.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let said = self.said();
        said.lines().any(|line| line.starts_with("{\"http\""))
    }

    /// Waits until it has printed its line of readiness.
    ///
    /// # Panics
    /// If it does not get ready; the message holds what it said.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + WAIT;
        while !self.is_ready() {
            let ended = self.process.ended();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", self.said());
            assert!(
                Instant::now() < deadline,
                "it is not ready:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The process, and how much output there was before.
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
