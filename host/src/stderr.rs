//! Writing to stderr, which may be full, closed, or read by nobody.
//!
//! Invariant: nothing here panics, and no caller waits for a log line to be written: a thread of
//! its own writes them. Lines that it cannot write, or that come faster than it writes, are dropped
//! and counted. The log reports them as soon as writing works again. Deliberately absent: the
//! texts.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kernel::escape;

use crate::program;

/// The most lines that wait to be written.
const LINES_WAITING_MAX: usize = 8_192;
/// The most bytes that wait to be written.
const BYTES_WAITING_MAX: usize = 4 << 20;
/// How often the log says that lines were dropped.
const TALK_EVERY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last lines.
const FINISH_WAIT: Duration = Duration::from_millis(500);
/// How often this wait checks whether they are written.
const FINISH_POLL: Duration = Duration::from_millis(1);

/// Writes a line to stderr. Ignores a failure, where `eprintln!` would panic.
pub(crate) fn say(words: std::fmt::Arguments<'_>) {
    // There is nowhere to report the failure.
    let _ = writeln!(io::stderr().lock(), "{words}");
}

static LOG: OnceLock<LogWriter> = OnceLock::new();

/// The writer of log lines; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    lines: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl State {
    fn drop_line(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        dropped_lines().absolute(dropped);
    }
}

fn dropped_lines() -> metrics::Counter {
    metrics::counter!("annals_log_lines_dropped_total")
}

/// The only log writer of the process. The first call starts its thread.
pub(crate) fn log() -> LogWriter {
    LOG.get_or_init(|| LogWriter::to(io::stderr())).clone()
}

/// Sets the metric of dropped lines, earlier ones included. Called once a recorder for metrics
/// exists.
pub(crate) fn count_dropped() {
    let before = LOG
        .get()
        .map_or(0, |log| log.state.dropped.load(Ordering::Relaxed));
    dropped_lines().absolute(before);
}

/// Waits until the last lines are written, at most [`FINISH_WAIT`].
pub(crate) fn finish() {
    if let Some(log) = LOG.get() {
        log.finish(FINISH_WAIT);
    }
}

/// Reports panics through the log: a direct write to stderr might wait for ever.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if tracing::enabled!(tracing::Level::ERROR) {
            let place = panic.location().map(ToString::to_string);
            let thread = std::thread::current()
                .name()
                .unwrap_or("unnamed")
                .to_owned();
            tracing::error!(place, thread, cause = cause_of(panic), "panicked");
        } else if let Some(log) = LOG.get() {
            log.send(format!("{}: {panic}\n", program::name()).into_bytes());
        } else {
            say(format_args!("{}: {panic}", program::name()));
        }
        if std::thread::current().name() == Some("main") {
            finish();
        }
    }));
}

fn cause_of<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("no message")
}

impl LogWriter {
    /// Writes to `sink` from a thread of its own.
    fn to(sink: impl Write + Send + 'static) -> Self {
        let (lines, queued) = sync_channel(LINES_WAITING_MAX);
        let state = Arc::new(State::default());
        let writer = Self {
            lines,
            state: Arc::clone(&state),
        };
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread every line is dropped and counted.
        let _ = thread.spawn(move || write_all(sink, &queued, &state));
        writer
    }

    fn send(&self, line: Vec<u8>) {
        let line = match std::str::from_utf8(&line).map(program::own) {
            Ok(Cow::Owned(own)) => own.into_bytes(),
            Ok(Cow::Borrowed(_)) | Err(_) => line,
        };
        let size = line.len();
        let before = self.state.waiting_bytes.fetch_add(size, Ordering::Relaxed);
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = match before + size > BYTES_WAITING_MAX {
            true => Err(TrySendError::Full(line)),
            false => self.lines.try_send(line),
        };
        if sent.is_err() {
            self.state.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
            self.state.waiting.fetch_sub(1, Ordering::AcqRel);
            self.state.drop_line();
        }
    }

    fn finish(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while self.state.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(FINISH_POLL);
        }
    }
}

fn write_all(mut sink: impl Write, lines: &Receiver<Vec<u8>>, state: &State) {
    let mut told = 0;
    let mut told_at: Option<Instant> = None;
    while let Ok(line) = lines.recv() {
        let written = sink.write_all(&line).and_then(|()| sink.flush());
        state.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if written.is_err() {
            state.drop_line();
        }
        let dropped = state.dropped.load(Ordering::Relaxed);
        if written.is_ok() && dropped > told && told_at.is_none_or(|at| at.elapsed() >= TALK_EVERY)
        {
            // This is a log line, too, and goes through the same queue.
            tracing::warn!(
                lines = dropped - told,
                "lines of the log were dropped: stderr did not take them in time"
            );
            (told, told_at) = (dropped, Some(Instant::now()));
        }
        state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One log line, which the subscriber writes in one piece or in several. Dropping it sends it.
#[derive(Debug)]
pub(crate) struct LogLine {
    log: LogWriter,
    text: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            let text = String::from_utf8_lossy(&self.text);
            self.log
                .send(escape::log_line(&text).into_owned().into_bytes());
        }
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine {
            log: self.clone(),
            text: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A sink that fails while `fails` is set, and blocks until its gate is opened.
    struct Sink {
        fails: Arc<Mutex<bool>>,
        got: Sender<Vec<u8>>,
        gate: Option<Receiver<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                // A dropped sender opens the gate, too.
                let _ = gate.recv();
            }
            if *self.fails.lock().unwrap() {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.got.send(text.to_vec()).unwrap();
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped(log: &LogWriter) -> u64 {
        log.state.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let fails = Arc::new(Mutex::new(true));
        let (got, lines) = channel();
        let log = LogWriter::to(Sink {
            fails: Arc::clone(&fails),
            got,
            gate: None,
        });
        for _ in 0..10 {
            log.send(b"lost\n".to_vec());
        }
        log.finish(Duration::from_secs(10));
        assert_eq!(dropped(&log), 10);
        *fails.lock().unwrap() = false;
        log.send(b"kept\n".to_vec());
        assert_eq!(lines.recv().unwrap(), b"kept\n");
        assert_eq!(dropped(&log), 10);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (open, gate) = channel();
        let (got, lines) = channel();
        let log = LogWriter::to(Sink {
            fails: Arc::default(),
            got,
            gate: Some(gate),
        });
        let line = vec![b'x'; 1 << 10];
        let count = 2 * LINES_WAITING_MAX;
        let began = Instant::now();
        for _ in 0..count {
            log.send(line.clone());
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        let lost = dropped(&log);
        // Memory is bounded by bytes, too.
        assert!(
            lost >= (count - BYTES_WAITING_MAX / line.len() - 1) as u64,
            "{lost}"
        );
        drop(open);
        for _ in 0..count as u64 - lost {
            assert_eq!(lines.recv().unwrap(), line);
        }
    }
}
