//! The clients' history: lines of JSON, written when something happens; one file per client
//! process.
//!
//! Before a client sends a command, it writes:
//!
//! ```json
//! {"at_ms":17,"client":"c1","kind":"invoke","tenant":"main","stream":"ledger-7","id":"…",
//!  "command":"Add","data":{…},"expected_version":3,"batch":"b1","line":4}
//! ```
//!
//! When the answer came, or failed to come (`tenant`, `stream`, `id`, `client` name the command):
//!
//! | kind | the server said | more members |
//! |---|---|---|
//! | `ok` | accepted | `version`, `events:[{id,type,version}]`, `position`, `repeated`, `node` |
//! | `refused` | refused and recorded (422 of a rule, 412) | `code`, `version`, `facts`, … |
//! | `turned_away` | not attempted (503, 429) | `code` |
//! | `failed` | failed for good, not recorded (id reused, too large, 500) | `code` |
//! | `unknown` | outcome unknown: said so, or no answer (deadline, connection lost) | `code` |
//!
//! A command may be sent again under its id: this is another `invoke` and another answer. An invoke
//! without an answer counts as unknown. `at_ms` comes from one clock for all clients that never
//! goes back (monotonic, on one machine). It orders what different clients did; the lines of a file
//! order what one client did. So a client writes an invoke before it sends the command, and an
//! answer after the answer arrived. `batch` (a name used once) and `line` say which line of which
//! batch it was. `data` must be in the form in which the domain writes it back: a default value
//! that the engine fills in would look like a change.
//!
//! A line that was cut off because its client was killed is skipped and counted: if it was an
//! invoke, the command was not sent; if it was an answer, the command stays unknown. Any other line
//! that cannot be read is an error. Unknown members are ignored.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lines::{InputError, Lines};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it happened, in milliseconds of the clients' common clock.
    pub at_ms: u64,
    /// Which client did it; its lines are in the order in which it acted.
    pub client: String,
    /// The stream's tenant.
    #[serde(default = "main_tenant")]
    pub tenant: String,
    /// The stream.
    pub stream: String,
    /// The command's id.
    pub id: String,
    /// The batch in which it was sent, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// The line within the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

fn main_tenant() -> String {
    "main".to_owned()
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The command is about to be sent.
    Invoke(Invoke),
    /// It was accepted.
    Ok(Accepted),
    /// It was refused, and the refusal recorded.
    Refused(Refused),
    /// The server said that it was not attempted.
    TurnedAway(Coded),
    /// The server said that it failed for good and was not recorded.
    Failed(Coded),
    /// The outcome is unknown.
    Unknown(Coded),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invoke {
    /// Its type.
    pub command: String,
    /// Its data.
    #[serde(default)]
    pub data: Value,
    /// The stream version that the client saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// The answer of an accepted command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The stream's version after the command.
    pub version: u64,
    /// Its events.
    #[serde(default)]
    pub events: Vec<EventRef>,
    /// The position token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Whether the server says that it repeats the answer to an earlier sending.
    #[serde(default)]
    pub repeated: bool,
    /// The node that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One event of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The stream's version after the event.
    pub version: u64,
}

/// The answer of a refused command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The broken rule, or `version_conflict`.
    pub code: String,
    /// The stream's version, if the answer contains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The rejection's facts, if the history has them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// The position token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Whether the server says that it repeats the answer to an earlier sending.
    #[serde(default)]
    pub repeated: bool,
    /// The node that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The reason of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coded {
    /// The code of the problem, or what the client observed.
    #[serde(default)]
    pub code: String,
}

/// Appends to the history of a client process; all its threads may share it.
#[derive(Debug)]
pub struct HistoryWriter {
    file: Mutex<File>,
}

impl HistoryWriter {
    /// Opens a file for appending; if an earlier process left a line cut off, ends that line.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Appends one line in one write: once this returns, the line survives the end of the process.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // A thread that panicked during a write left at most a line that is cut off.
        let mut file = match self.file.lock() {
            Ok(file) => file,
            Err(poisoned) => poisoned.into_inner(),
        };
        file.write_all(&line)
    }
}

/// What a line holds.
pub(crate) enum Line {
    Entry(Box<Entry>),
    Torn,
}

/// Reads a history.
pub(crate) struct HistoryReader<R> {
    name: String,
    lines: Lines<R>,
}

impl<R: BufRead> HistoryReader<R> {
    pub(crate) fn of(name: &str, input: R) -> Self {
        Self {
            name: name.to_owned(),
            lines: Lines::of(name, input),
        }
    }

    /// The next line with its number; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Line)>, InputError> {
        let Some((number, line)) = self.lines.next()? else {
            return Ok(None);
        };
        match serde_json::from_slice(line) {
            Ok(entry) => Ok(Some((number, Line::Entry(entry)))),
            Err(_) if is_torn(line) => Ok(Some((number, Line::Torn))),
            Err(error) => Err(InputError::at(&self.name, number, error)),
        }
    }
}

/// Whether a line is the beginning of some JSON that ends too early, maybe inside a character.
fn is_torn(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let whole = match std::str::from_utf8(line) {
        Ok(_) => line,
        Err(error) if error.error_len().is_none() => &line[..error.valid_up_to()],
        Err(_) => return false,
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(whole).is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<(Vec<Entry>, u32), InputError> {
        let mut reader = HistoryReader::of("h", text);
        let (mut entries, mut torn) = (Vec::new(), 0);
        while let Some((_, line)) = reader.next()? {
            match line {
                Line::Entry(entry) => entries.push(*entry),
                Line::Torn => torn += 1,
            }
        }
        Ok((entries, torn))
    }

    #[test]
    fn every_kind_of_line_is_read_as_the_table_says() {
        let lines = r#"
{"at_ms":1,"client":"c","kind":"invoke","tenant":"t","stream":"s-1","id":"x","command":"Add","data":{"n":1},"expected_version":0,"batch":"b","line":2,"extra":1}
{"at_ms":2,"client":"c","kind":"ok","stream":"s-1","id":"x","version":1,"events":[{"id":"e","type":"Added","version":1}],"position":"p","repeated":false,"node":"n"}
{"at_ms":2,"client":"c","kind":"refused","stream":"s-1","id":"x","code":"too_much","facts":{"a":1}}
{"at_ms":2,"client":"c","kind":"turned_away","stream":"s-1","id":"x","code":"overloaded"}
{"at_ms":2,"client":"c","kind":"failed","stream":"s-1","id":"x","code":"too_large"}
{"at_ms":2,"client":"c","kind":"unknown","stream":"s-1","id":"x"}
"#;
        let (entries, torn) = read(lines.as_bytes()).unwrap();
        assert_eq!((entries.len(), torn), (6, 0));
        assert_eq!(entries[0].batch.as_deref(), Some("b"));
        assert_eq!(entries[1].tenant, "main");
        for entry in entries {
            let line = serde_json::to_vec(&entry).unwrap();
            assert_eq!(read(&line).unwrap().0, [entry]);
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_passed_and_a_wrong_one_is_an_error() {
        let whole = r#"{"at_ms":1,"client":"ö","kind":"unknown","stream":"s-1","id":"x"}"#;
        for cut in 1..whole.len() {
            let text = [&whole.as_bytes()[..cut], b"\n", whole.as_bytes()].concat();
            let (entries, torn) = read(&text).unwrap();
            assert_eq!((entries.len(), torn), (1, 1), "cut at {cut}");
        }
        for wrong in [
            "{}",
            "x",
            r#"{"at_ms":1}"#,
            &whole.replace("unknown", "perhaps"),
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_process_that_comes_after_a_killed_one_begins_a_new_line() {
        let path = std::env::temp_dir().join(format!("annals-history-{}", std::process::id()));
        std::fs::write(&path, b"{\"at_ms\":1,").unwrap();
        let entry = Entry {
            at_ms: 2,
            client: "c".into(),
            tenant: "main".into(),
            stream: "s-1".into(),
            id: "x".into(),
            batch: None,
            line: None,
            what: What::Unknown(Coded::default()),
        };
        HistoryWriter::open(&path).unwrap().write(&entry).unwrap();
        HistoryWriter::open(&path).unwrap().write(&entry).unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&text).unwrap(), (vec![entry.clone(), entry], 1));
    }
}
