//! Lines of the log as JSON documents, one each.
//!
//! Invariant: a line has `timestamp`, `level`, `target` and `message`, and the fields of its event,
//! numbers as numbers. Deliberately absent: spans; this program uses none.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use kernel::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields that are written as numbers even if an event gives them as text, as it does with the
/// project's number types.
const NUMBERS: [&str; 6] = ["partition", "offset", "position", "end", "term", "version"];

/// The members that every line has.
const FIXED: [&str; 4] = ["timestamp", "level", "target", "message"];

/// A log line, without its line end.
pub(super) fn line(level: &str, target: &str, message: &str, fields: Map<String, Value>) -> String {
    let mut line = String::from("{");
    let fixed = [
        now().to_string(),
        level.to_owned(),
        target.to_owned(),
        message.to_owned(),
    ];
    for (name, value) in FIXED.into_iter().zip(fixed) {
        push(&mut line, name, &Value::String(value));
    }
    for (name, value) in fields {
        // An event's own field must not look like one of these members.
        let name = if FIXED.contains(&&*name) {
            format!("field_{name}")
        } else {
            name
        };
        push(&mut line, &name, &value);
    }
    line.push('}');
    line
}

fn push(line: &mut String, name: &str, value: &Value) {
    if line.len() > 1 {
        line.push(',');
    }
    line.push_str(&Value::from(name).to_string());
    line.push(':');
    line.push_str(&value.to_string());
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(0));
    Timestamp::from_micros(micros).unwrap_or_default()
}

/// Writes each event as one JSON document.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        let line = line(
            about.level().as_str(),
            about.target(),
            &fields.message,
            fields.others,
        );
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn keep_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
            return;
        }
        let number = NUMBERS
            .contains(&field.name())
            .then(|| text.parse::<u64>().ok());
        match number.flatten() {
            Some(number) => self.keep(field, number),
            None => self.keep(field, text),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.keep(field, value),
            Err(_) => self.keep(field, value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.keep(field, value),
            Err(_) => self.keep(field, value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.keep_text(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep_text(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn numbers_are_numbers_and_every_line_is_a_document() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let (partition, none) = (format!("{}", 3), None::<u64>);
            let waited_ms = std::time::Duration::from_secs(2).as_millis();
            tracing::warn!(%partition, waited_ms, ratio = 0.5, none, ok = true, "said \"so\"\n");
            tracing::info!(level = "mine", error = %io::Error::other("no"), "second");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["partition"], 3);
        assert_eq!(lines[0]["waited_ms"], 2_000);
        assert_eq!(lines[0]["ratio"], 0.5);
        assert_eq!(lines[0]["ok"], true);
        assert_eq!(lines[0]["message"], "said \"so\"\n");
        assert_eq!(lines[1]["field_level"], "mine");
        assert_eq!(lines[1]["level"], "INFO");
        assert_eq!(lines[1]["error"], "no");
        assert!(lines[1]["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
