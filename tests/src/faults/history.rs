//! What clients asked and were told, as lines of JSON: the checker's input.
//!
//! Invariants: an `invoke` is written before its command is sent, an answer after it came; a command
//! that is sent again gets another `invoke`. Times are of one clock that does not go back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When, since the history began.
    pub at_ms: u64,
    /// Which client.
    pub client: String,
    /// The stream's tenant.
    pub tenant: String,
    /// The stream.
    pub stream: String,
    /// The command's id.
    pub id: String,
    /// The batch it was sent in, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// The line of the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The command is about to be sent.
    Invoke {
        /// Its type.
        command: String,
        /// Its data.
        data: Value,
        /// The stream version that the client saw.
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_version: Option<u64>,
    },
    /// It was accepted.
    Ok {
        /// The stream's version behind it.
        version: u64,
        /// Its events.
        events: Vec<Event>,
        /// The position token.
        position: String,
        /// Whether it was answered before.
        repeated: bool,
        /// The node that answered.
        node: String,
    },
    /// It was refused, and the refusal recorded.
    Refused {
        /// The broken rule.
        code: String,
        /// The stream's version.
        version: u64,
        /// Whether it was answered before.
        repeated: bool,
        /// The node that answered.
        node: String,
    },
    /// It was not attempted, says the server.
    TurnedAway {
        /// The reason.
        code: String,
    },
    /// It failed for good and was not recorded, says the server.
    Failed {
        /// The reason.
        code: String,
    },
    /// Nobody knows.
    Unknown {
        /// What the client saw.
        code: String,
    },
}

/// One event of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The event's id.
    pub id: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The stream's version with it.
    pub version: u64,
}

/// What the log must hold of a command that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Accepted: the version behind it, and the ids of its events.
    Accepted(u64, Vec<String>),
    /// Refused, with this code.
    Refused(String),
}

/// The history of a run, written by all of its clients.
#[derive(Debug)]
pub struct History {
    began: Instant,
    file: Mutex<BufWriter<File>>,
}

impl History {
    /// Begins one in a new file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(path: &Path) -> io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            file: Mutex::new(BufWriter::new(File::create(path)?)),
        })
    }

    /// The time on its clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a run ends before that")
    }

    /// Appends a line.
    ///
    /// # Panics
    /// If it cannot be written: a run without its history is worth nothing.
    pub fn write(&self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("an entry is JSON");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).expect("room for the history");
    }

    /// Makes every line so far readable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn flush(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush()
    }
}

/// Reads what clients were told for good, by stream and command id.
///
/// # Errors
/// A line that cannot be read; two answers for one command that contradict each other.
pub fn told(path: &Path) -> Result<BTreeMap<(String, String), Told>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let entry: Entry = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let told = match entry.what {
            What::Ok {
                version, events, ..
            } => Told::Accepted(version, events.into_iter().map(|event| event.id).collect()),
            What::Refused { code, .. } => Told::Refused(code),
            What::Invoke { .. }
            | What::TurnedAway { .. }
            | What::Failed { .. }
            | What::Unknown { .. } => continue,
        };
        let key = (entry.stream, entry.id);
        if let Some(before) = all.get(&key)
            && *before != told
        {
            return Err(format!("{key:?} was told {before:?}, and later {told:?}"));
        }
        all.insert(key, told);
    }
    Ok(all)
}
