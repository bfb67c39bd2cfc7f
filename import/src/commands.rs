//! Any command lines, from a file or from stdin.
//!
//! Invariant: each line that is sent has a command id, so that it may be sent again. A line without
//! an id gets the UUIDv5 of its line number and its bytes. So a file that is sent again has no
//! second effect, and two equal lines of it are two intents. After an insertion, the lines behind
//! it get new ids, so they are new commands. To avoid that, write ids into the lines. Deliberately
//! absent: what commands mean; the door checks their form.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use client::{CommandLine, Origin, SendOptions};
use futures::stream;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::report::FileRows;
use super::{ImportError, Listing, Pass, Progress, Report, Unreadable, finished, send};

/// The namespace of the ids of lines that have none (RFC 9562 §5.5). Frozen.
pub const LINE_NAMESPACE: Uuid = Uuid::from_u128(0x52e3a664_937e_462b_8847_4938e2ff9867);

/// The longest line that is read; the door's own limit is lower.
const LINE_SIZE_MAX: u64 = 1024 * 1024;
/// How many lines are read ahead.
const LINES_AHEAD_MAX: usize = 64;

/// Where command lines come from.
#[derive(Clone, Debug)]
pub enum CommandsSource {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// An import of command lines.
#[derive(Clone, Debug)]
pub struct CommandsOptions {
    /// Where the lines come from.
    pub source: CommandsSource,
    /// The file to which all lines that cannot be sent are written, if any.
    pub unreadable: Option<PathBuf>,
    /// To which door the lines are sent, and how.
    pub sending: SendOptions,
}

/// Sends command lines and reports their outcomes.
///
/// # Errors
/// [`ImportError`]. If commands were sent before the error, it holds the report about them.
pub async fn import_commands(
    options: CommandsOptions,
    progress: impl Progress,
) -> Result<Report, ImportError> {
    let begun = Instant::now();
    let (name, input): (String, Box<dyn Read + Send>) = match options.source {
        CommandsSource::Stdin => ("-".to_owned(), Box::new(io::stdin())),
        CommandsSource::File(path) => match File::open(&path) {
            Ok(file) => (path.display().to_string(), Box::new(file)),
            Err(source) => {
                let action = "read";
                return Err(ImportError::File {
                    action,
                    path,
                    source,
                });
            }
        },
    };
    let found = Arc::new(Mutex::new(Found {
        rows: 0,
        unreadable: Listing::written_to(options.unreadable.as_deref())?,
    }));
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD_MAX);
    let reader = Reader {
        file: name.clone(),
        found: found.clone(),
        lines: sender,
    };
    // A thread of its own: a read from stdin may never return, and must not delay the end.
    std::thread::spawn(move || reader.run(BufReader::new(input)));
    let lines = stream::poll_fn(move |context| lines.poll_recv(context));
    let sent = send(
        options.sending,
        lines,
        None,
        Report::default(),
        progress,
        Pass::First,
        begun,
    )
    .await;
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let complete = |mut report: Report| {
        report.files = vec![FileRows {
            file: name,
            rows: found.rows,
            readable: found.rows - found.unreadable.count(),
        }];
        report.unreadable = found.unreadable;
        report
    };
    finished(match sent {
        Ok(report) => Ok(complete(report)),
        Err(ImportError::Send { error, report }) => {
            Err(ImportError::send(error, complete(*report)))
        }
        Err(error) => Err(error),
    })
}

#[derive(Default)]
struct Found {
    rows: u64,
    unreadable: Listing,
}

struct Reader {
    file: String,
    found: Arc<Mutex<Found>>,
    lines: mpsc::Sender<io::Result<CommandLine>>,
}

impl Reader {
    fn run(self, mut input: impl BufRead) {
        let mut number = 0;
        loop {
            number += 1;
            let item = match read_line(&mut input) {
                Ok(None) => return,
                Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
                Ok(Some(line)) => match self.judge(number, &line) {
                    Some(line) => Ok(line),
                    None => continue,
                },
                Err(error) => Err(error),
            };
            let is_last = item.is_err();
            if self.lines.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    }

    fn judge(&self, number: u64, line: &[u8]) -> Option<CommandLine> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.rows += 1;
        match with_id(number, line) {
            Ok(line) => Some(line),
            Err(reason) => {
                found.unreadable.add(Unreadable {
                    file: self.file.clone(),
                    line: number,
                    reason,
                });
                None
            }
        }
    }
}

/// Reads one line without its line end. A line that is too long is cut, so it is not valid JSON.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(LINE_SIZE_MAX)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

/// Makes a command line with an id, so that it may be sent more than once.
fn with_id(number: u64, line: &[u8]) -> Result<CommandLine, String> {
    let line = line.trim_ascii();
    let text = str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let members: HashMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let command = members
        .get("command")
        .and_then(|command| serde_json::from_str::<String>(command.get()).ok())
        .unwrap_or_default()
        .into();
    let json = match members.get("id") {
        Some(id) if id.get() == "null" => return Err("its id is null".to_owned()),
        Some(_) => text.to_owned(),
        None => {
            let name = [format!("{number}:").as_bytes(), line].concat();
            let id = Uuid::new_v5(&LINE_NAMESPACE, &name);
            let comma = if members.is_empty() { "" } else { "," };
            format!("{{\"id\":\"{id}\"{comma}{}", &text[1..])
        }
    };
    // A line break between members is allowed in JSON, but ends a line in NDJSON. There is none
    // here: lines are cut at line feeds, and both formats take a lone carriage return as a blank.
    let origin = Origin {
        line: number,
        ..Origin::default()
    };
    Ok(CommandLine {
        command,
        json,
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_id_gets_one_of_its_place_and_text() {
        let line = br#" {"stream":"order-1","command":"ShipOrder","data":{}}"#;
        let first = with_id(1, line).unwrap();
        assert_eq!(first.command, "ShipOrder");
        assert_eq!(
            first.json,
            "{\"id\":\"f24900d9-bdde-50f8-846f-297f569b992d\",\"stream\":\"order-1\",\"command\":\"ShipOrder\",\"data\":{}}"
        );
        assert_eq!(with_id(1, line), Ok(first.clone()));
        assert_ne!(with_id(2, line), Ok(first));
        let given = br#"{"id":"mine","command":7}"#;
        assert_eq!(with_id(1, given).unwrap().json.as_bytes(), given);
        assert!(with_id(1, b"{ }").unwrap().json.ends_with("\" }"));
    }

    #[test]
    fn a_line_that_is_no_object_or_has_no_usable_id_is_not_sent() {
        for line in ["[]", "7", "{", "{} {}", r#"{"id":null}"#, "\u{feff}{}"] {
            assert!(with_id(1, line.as_bytes()).is_err(), "{line}");
        }
        assert!(with_id(1, b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_line_without_end_does_not_fill_memory_and_spoils_only_itself() {
        let long = usize::try_from(LINE_SIZE_MAX).unwrap() * 2;
        let input = format!("{{}}\r\n\n{}\n{{\"b\":1}}", "x".repeat(long));
        let mut input = BufReader::new(input.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line.len() as u64);
        }
        assert_eq!(lines, [4, 1, LINE_SIZE_MAX, 7]);
    }
}
