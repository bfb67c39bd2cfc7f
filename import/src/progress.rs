//! How far an import has come, for whoever watches.
//!
//! Deliberately absent: showing it, and the final report.

use std::time::Duration;

/// What is told while an import runs.
pub trait Progress: Send {
    /// It begins; the number of lines is not known of a stream.
    fn begin(&mut self, lines_total: Option<u64>);

    /// So many lines are done, so many of them refused.
    fn advance(&mut self, done: u64, refused: u64);

    /// It waits before it tries again.
    fn wait(&mut self, lines_open: usize, cause: &str, pause: Duration);

    /// It ends, well or not.
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

/// Says nothing.
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
