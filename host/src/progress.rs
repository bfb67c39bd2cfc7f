//! The progress of long work: a bar on a terminal, plain lines elsewhere, both on stderr.
//!
//! Deliberately absent: data.

pub mod sending;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::logging::talk;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One long piece of work.
#[derive(Debug)]
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    started_at: Instant,
    told_at: Instant,
}

impl Progress {
    /// Starts; `what` names the work, as in "reading the log".
    #[must_use]
    pub fn start(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0).with_message(what.to_owned());
            let template = "{msg} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}";
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style.progress_chars("=> ")),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            bar,
            started_at: now,
            told_at: now,
        }
    }

    /// Records how much of the work is done.
    pub fn set(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.told_at.elapsed() >= LINE_EVERY {
            self.told_at = Instant::now();
            talk!("{}: {done} of {total}", self.what);
        }
    }

    /// Ends with a last line that tells the outcome.
    pub fn finish(&self, outcome: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.started_at.elapsed().as_secs_f64();
        talk!("{}: {outcome} in {took:.1} s", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
