//! The program itself, as a process that tests start, signal and kill.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::Process;

/// How long the program may take to be ready, or to end when it was asked to.
const WAIT: Duration = Duration::from_secs(60);

/// A running `annals`.
pub struct Annals {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    output: PathBuf,
    process: Process,
}

impl Annals {
    /// Starts `program` with `arguments` and `--output json`, and returns when it has printed its
    /// line of readiness. Its output goes to a file in `folder`.
    ///
    /// # Panics
    /// If it does not get ready; the message holds what it said.
    pub fn start(program: &Path, arguments: &[String], folder: &Path) -> Self {
        let output = folder.join("annals.out");
        let process = launch(program, arguments, folder, &output);
        let mut annals = Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            output,
            process,
        };
        annals.wait_until_ready();
        annals
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
        self.process = launch(&self.program, &self.arguments, &self.folder, &self.output);
        self.wait_until_ready();
    }

    /// Asks it to end with SIGTERM, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.process.ended() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it printed since it was last started.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + WAIT;
        while !self
            .said()
            .lines()
            .any(|line| line.starts_with("{\"http\""))
        {
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

fn launch(program: &Path, arguments: &[String], folder: &Path, output: &Path) -> Process {
    let file = File::create(output).expect("a file in a folder of ours");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(["--output", "json"])
        .current_dir(folder);
    Process::start(command, file, folder).expect("the program that cargo built")
}
