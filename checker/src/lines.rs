//! Lines of JSON from a file.
//!
//! Invariant: a line is read up to a limit; a longer line is an error, so memory is bounded.

use std::fmt;
use std::io::{self, BufRead, Read as _};

/// The longest line: a record of the largest size in base64, and some reserve.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// Why a file cannot be judged at all.
#[derive(Debug)]
pub struct InputError {
    /// The file, and the line if it is known.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for InputError {}

impl InputError {
    pub(crate) fn at(file: &str, line: u64, reason: impl fmt::Display) -> Self {
        Self {
            place: format!("{file}:{line}"),
            reason: reason.to_string(),
        }
    }
}

/// Reads a file line by line.
pub(crate) struct Lines<R> {
    name: String,
    input: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn of(name: &str, input: R) -> Self {
        Self {
            name: name.to_owned(),
            input,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The next line that is not blank, with its number; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>, InputError> {
        loop {
            self.number += 1;
            self.buffer.clear();
            let read = self.read();
            let read = read.map_err(|error| InputError::at(&self.name, self.number, error))?;
            if read == 0 {
                return Ok(None);
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((self.number, &self.buffer)));
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut limited = (&mut self.input).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut self.buffer)?;
        if read as u64 == LINE_BYTES_MAX && !self.buffer.ends_with(b"\n") {
            let reason = format!("the line has more than {LINE_BYTES_MAX} bytes");
            return Err(io::Error::other(reason));
        }
        Ok(read)
    }

    pub(crate) fn error(&self, reason: impl fmt::Display) -> InputError {
        InputError::at(&self.name, self.number, reason)
    }
}
