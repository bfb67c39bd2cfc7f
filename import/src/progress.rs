//! The progress of an import, for a person who watches it.
//!
//! Deliberately absent: showing it, and the final report.

use std::time::Duration;

/// Receives the progress of a running import.
pub trait Progress: Send {
    /// The import begins. The number of lines is unknown for a stream.
    fn begin(&mut self, lines_total: Option<u64>);

    /// `done` lines have an outcome; `refused` of them were refused.
    fn advance(&mut self, done: u64, refused: u64);

    /// The import waits before it tries again.
    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration);

    /// The import ends, with success or without.
    fn end(&mut self);
}

impl<P: Progress + ?Sized> Progress for &mut P {
    fn begin(&mut self, lines_total: Option<u64>) {
        (**self).begin(lines_total);
    }

    fn advance(&mut self, done: u64, refused: u64) {
        (**self).advance(done, refused);
    }

    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration) {
        (**self).wait(lines_open, cause, pause);
    }

    fn end(&mut self) {
        (**self).end();
    }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn wait(&mut self, _: usize, _: &str, _: Duration) {}
    fn end(&mut self) {}
}

impl Progress for Box<dyn Progress> {
    fn begin(&mut self, lines_total: Option<u64>) {
        (**self).begin(lines_total);
    }

    fn advance(&mut self, done: u64, refused: u64) {
        (**self).advance(done, refused);
    }

    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration) {
        (**self).wait(lines_open, cause, pause);
    }

    fn end(&mut self) {
        (**self).end();
    }
}
