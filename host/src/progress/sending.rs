//! The progress of an import, on stderr.
//!
//! Invariant: everything goes to stderr; stdout is for data. Deliberately absent: the final report.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use import::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use kernel::escape;

use crate::logging::talk;

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// How often the bar is drawn again at most.
const DRAWS_PER_S: u64 = 10;

/// A bar if stderr is a terminal, else a line every few seconds.
#[must_use]
pub fn on_stderr() -> Box<dyn Progress> {
    if stderr().is_terminal() {
        Box::new(Bar::new())
    } else {
        Box::new(Lines::new())
    }
}

/// A bar that is redrawn in place.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr_with_hz(
            u8::try_from(DRAWS_PER_S).unwrap_or(u8::MAX),
        ));
        Self { bar }
    }

    fn style(&self, template: &str) {
        let style = ProgressStyle::with_template(template);
        self.bar
            .set_style(style.expect("the templates below are well formed"));
    }
}

impl Progress for Bar {
    fn begin(&mut self, lines_total: Option<u64>) {
        match lines_total {
            Some(total) => {
                self.bar.set_length(total);
                self.style("{wide_bar} {human_pos}/{human_len} {per_sec} {eta} {msg}");
            }
            None => self.style("{spinner} {human_pos} {per_sec} {msg}"),
        }
    }

    fn advance(&mut self, done: u64, refused: u64) {
        self.bar.set_position(done);
        if refused > 0 {
            self.bar.set_message(format!("{refused} refused"));
        }
    }

    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration) {
        self.bar
            .suspend(|| talk!("{}", waiting(lines_open, cause, pause)));
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line every [`LINE_INTERVAL`].
struct Lines {
    begun: Instant,
    last: Instant,
    lines_total: Option<u64>,
}

impl Lines {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Instant::now(),
            lines_total: None,
        }
    }
}

impl Progress for Lines {
    fn begin(&mut self, lines_total: Option<u64>) {
        *self = Self::new();
        self.lines_total = lines_total;
        if let Some(total) = lines_total {
            talk!("sending {total} commands");
        }
    }

    fn advance(&mut self, done: u64, refused: u64) {
        if self.last.elapsed() < LINE_INTERVAL {
            return;
        }
        self.last = Instant::now();
        let of = self
            .lines_total
            .map_or_else(String::new, |total| format!(" of {total}"));
        let seconds = self.begun.elapsed().as_secs();
        talk!("{done}{of} commands done, {refused} refused, after {seconds} s");
    }

    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration) {
        talk!("{}", waiting(lines_open, cause, pause));
    }

    fn end(&mut self) {}
}

fn waiting(lines_open: usize, cause: &str, pause: Duration) -> String {
    let pause_ms = pause.as_millis();
    // The cause may contain text from a server.
    let cause = escape::shown(cause);
    format!("{cause}; sending {lines_open} commands again in {pause_ms} ms")
}
