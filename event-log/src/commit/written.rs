//! A fast reader for accepted commits in exactly the form that this program writes: members in
//! their order, no white space, and no escapes outside of data. Most of a replay is reading
//! commits.
//!
//! Invariant: what this reader accepts, `serde_json` reads to the same commit. All other texts are
//! left to `serde_json`, which also judges what is wrong with them. `serde_json` reads the values
//! inside a commit, too.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CommandPart, Commit, EventPart, Outcome};

/// The commit in `text`, if it has this form.
pub(super) fn read(text: &str) -> Option<Commit> {
    let mut text = Written(text);
    let commit = text.behind("{\"commit\":", Written::parsed)?;
    let tenant = text.member(",\"tenant\":", Written::parsed)?;
    let stream = text.behind(",\"stream\":", Written::parsed)?;
    let from_version = text.behind(",\"from_version\":", Written::number)?;
    let recorded_at = text.behind(",\"recorded_at\":", Written::parsed)?;
    let command = text.behind(",\"command\":", Written::command)?;
    let actor = text.member(",\"actor\":", Written::value)?;
    let correlation_id = text.member(",\"correlation_id\":", Written::parsed)?;
    let causation_id = text.member(",\"causation_id\":", Written::parsed)?;
    let trace = text.member(",\"trace\":", Written::value)?;
    text.take(",\"outcome\":")?;
    // Leave refusals to `serde_json`: they are few, and their facts may be as deep as JSON may be.
    text.take("\"accepted\"")?;
    let events = text.member(",\"events\":", Written::events)?;
    text.take("}")?;
    text.0.is_empty().then_some(Commit {
        commit,
        tenant: tenant.unwrap_or_default(),
        stream,
        from_version,
        recorded_at,
        command,
        actor,
        correlation_id,
        causation_id,
        trace,
        outcome: Outcome::Accepted,
        rejection: None,
        events: events.unwrap_or_default(),
    })
}

/// The text that is not read yet.
struct Written<'a>(&'a str);

impl<'a> Written<'a> {
    fn take(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// Consumes `name` and reads the member after it.
    fn behind<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.take(name)?;
        read(self)
    }

    /// As `behind`, for a member that may be absent. The outer `None`: the text has another form.
    fn member<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            Some(()) => read(self).map(Some),
            None => Some(None),
        }
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.strip_prefix('"')?;
        let ends = |byte: u8| byte == b'"' || byte == b'\\' || byte < b' ';
        let end = text.bytes().position(ends)?;
        self.0 = text[end..].strip_prefix('"')?;
        Some(&text[..end])
    }

    fn parsed<T: FromStr>(&mut self) -> Option<T> {
        self.string()?.parse().ok()
    }

    /// A whole number as JSON writes it: no leading zeros.
    fn number<T: FromStr>(&mut self) -> Option<T> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        let is_written_so = number == "0" || !number.starts_with('0');
        self.0 = rest;
        number.parse().ok().filter(|_| is_written_so)
    }

    fn value<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter();
        let value = values.next()?.ok()?;
        self.0 = &self.0[values.byte_offset()..];
        Some(value)
    }

    fn data(&mut self) -> Option<Box<RawValue>> {
        self.value().map(RawValue::to_owned)
    }

    fn command(&mut self) -> Option<CommandPart> {
        let id = self.behind("{\"id\":", Self::parsed)?;
        let type_name = self.behind(",\"type\":", Self::parsed)?;
        let schema = self.member(",\"schema\":", Self::number)?;
        let occurred_at = self.member(",\"occurred_at\":", Self::parsed)?;
        let expected_version = self.member(",\"expected_version\":", Self::number)?;
        let data = self.behind(",\"data\":", Self::data)?;
        self.take("}")?;
        Some(CommandPart {
            id,
            type_name,
            schema,
            occurred_at,
            expected_version,
            data,
        })
    }

    fn events(&mut self) -> Option<Vec<EventPart>> {
        let mut events = Vec::with_capacity(1);
        self.take("[")?;
        loop {
            let id = self.behind("{\"id\":", Self::parsed)?;
            let type_name = self.behind(",\"type\":", Self::parsed)?;
            let schema = self.behind(",\"schema\":", Self::number)?;
            let occurred_at = self.member(",\"occurred_at\":", Self::parsed)?;
            let data = self.behind(",\"data\":", Self::data)?;
            self.take("}")?;
            events.push(EventPart {
                id,
                type_name,
                schema,
                occurred_at,
                data,
            });
            if self.take(",").is_none() {
                self.take("]")?;
                return Some(events);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples with all optional members and with none of them.
    const SAMPLES: [&str; 3] = [
        r#"{"commit":"01890a5d-ac96-774b-bcce-b302099a8057","tenant":"t-1","stream":"order-1","from_version":10,"recorded_at":"2018-06-04T16:44:48.120Z","command":{"id":"a-1","type":"PlaceOrder","schema":1,"occurred_at":"2018-06-04T16:44:48Z","expected_version":10,"data":{"a":[1,{"b":"\\\"ä"}]}},"actor":{"id":"ä\n","kind":"user"},"correlation_id":"c","causation_id":"d","trace":"00-\u00e4","outcome":"accepted","events":[{"id":"01890a5d-ac96-774b-bcce-b302099a8058","type":"OrderPlaced","schema":2,"occurred_at":"2018-06-04T16:44:47.123456Z","data":{"x":-1.5e3}},{"id":"01890a5d-ac96-774b-bcce-b302099a8059","type":"Ä","schema":1,"data":null}]}"#,
        r#"{"commit":"01890a5d-ac96-774b-bcce-b302099a8057","stream":"order-1","from_version":0,"recorded_at":"2018-06-04T16:44:48Z","command":{"id":"a-1","type":"PlaceOrder","schema":1,"data":{}},"outcome":"accepted","events":[{"id":"01890a5d-ac96-774b-bcce-b302099a8058","type":"OrderPlaced","schema":1,"data":{"x":0}}]}"#,
        r#"{"commit":"01890a5d-ac96-774b-bcce-b302099a8057","stream":"order-1","from_version":0,"recorded_at":"2018-06-04T16:44:48Z","command":{"id":"a-1","type":"PlaceOrder","schema":1,"data":7},"outcome":"accepted"}"#,
    ];

    fn by_serde_json(text: &str) -> Option<Commit> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn what_this_program_writes_is_of_this_form() {
        for sample in SAMPLES {
            let commit = by_serde_json(sample).expect("a commit");
            let written = commit.to_value().expect("JSON");
            let written = str::from_utf8(&written).expect("text");
            let read = read(written).expect("of this form");
            assert_eq!(format!("{read:?}"), format!("{commit:?}"));
            assert_eq!(read.to_value().expect("JSON"), written);
        }
    }

    /// The samples with one character inserted, replaced or removed.
    fn changed() -> impl Iterator<Item = String> {
        let put = "\"\\{}[],:0-1.e n\u{1}\u{7f}ä"
            .chars()
            .map(Some)
            .chain([None]);
        let changed = move |sample: &'static str| {
            let put = put.clone();
            sample.char_indices().flat_map(move |(at, there)| {
                let behind = at + there.len_utf8();
                put.clone().flat_map(move |put| {
                    let put = put.map(String::from).unwrap_or_default();
                    let (before, rest) = sample.split_at(at);
                    [
                        [before, put.as_str(), &sample[behind..]].concat(),
                        [before, put.as_str(), rest].concat(),
                    ]
                })
            })
        };
        SAMPLES.into_iter().flat_map(changed)
    }

    #[test]
    fn what_is_read_in_this_form_is_read_as_the_same_in_any() {
        let (mut same, mut left) = (0, 0);
        for text in changed() {
            let Some(commit) = read(&text) else {
                left += 1;
                continue;
            };
            let other = by_serde_json(&text).expect("a commit in any form, too");
            assert_eq!(format!("{commit:?}"), format!("{other:?}"), "{text}");
            same += 1;
        }
        assert!(same > 1_000 && left > 1_000, "{same} read, {left} left");
    }
}
