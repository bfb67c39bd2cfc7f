//! JSON in one canonical form. The log records a command's data in this form, and the data of a
//! repeated command is compared in this form.
//!
//! Members are ordered and strings are written as in RFC 8785 (JSON Canonicalization Scheme), with
//! no white space between the tokens. Numbers differ from RFC 8785: they are exact decimals,
//! because with its doubles two different large amounts could become equal.
//!
//! Invariant: two texts have the same form if and only if they say the same, and the form of a form
//! is the form itself. A text with more than one meaning is refused: a member that occurs twice,
//! half of a surrogate pair. Deliberately absent: what the data means; its type says that
//! (`message`).

mod number;

use std::ops::Range;

use serde::de::IgnoredAny;

use crate::ShapeError;

/// The greatest nesting depth of arrays and objects. With this limit the envelope of a commit stays
/// within the depth that `serde_json` reads, which is 127.
pub const JSON_DEPTH_MAX: usize = 100;

/// Writes JSON in its canonical form.
///
/// # Errors
/// [`ShapeError::Data`] if the text is not JSON. Also, with the place: a member that occurs twice,
/// a string with half of a surrogate pair, an exponent with too many digits, too deep nesting.
pub fn canonical_json(text: &str) -> Result<String, ShapeError> {
    let mut writer = Writer {
        text: text.as_bytes(),
        at: 0,
        written: Vec::with_capacity(text.len()),
        members: Vec::new(),
        depth: 0,
    };
    let outcome = writer.whole();
    outcome.map_err(|fault| fault.explained(text))?;
    Ok(String::from_utf8(writer.written).expect("made of pieces of a text, and of ASCII"))
}

struct Fault {
    what: What,
    /// The path to the place, innermost step first.
    steps: Vec<String>,
}

enum What {
    Syntax,
    Twice,
    Surrogate,
    Exponent,
    Depth,
}

impl From<What> for Fault {
    fn from(what: What) -> Self {
        let steps = Vec::new();
        Self { what, steps }
    }
}

impl Fault {
    #[cold]
    fn within(mut self, step: String) -> Self {
        self.steps.push(step);
        self
    }

    #[cold]
    fn explained(self, text: &str) -> ShapeError {
        let detail = match self.what {
            What::Syntax => match serde_json::from_str::<IgnoredAny>(text) {
                Err(error) => error.to_string(),
                Ok(_) => "this is not JSON".to_owned(),
            },
            What::Twice => "an object has two members with this name".to_owned(),
            What::Surrogate => "a string contains half of a surrogate pair".to_owned(),
            What::Exponent => format!(
                "a number's exponent has more than {} digits",
                number::EXPONENT_DIGITS_MAX
            ),
            What::Depth => {
                format!("more than {JSON_DEPTH_MAX} arrays and objects are nested")
            }
        };
        let mut pointer = String::new();
        if !matches!(self.what, What::Syntax) {
            for step in self.steps.iter().rev() {
                pointer.push('/');
                pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
            }
        }
        ShapeError::Data { pointer, detail }
    }
}

/// A member of an object that is being written: the places of the member and of its name in the
/// output.
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Member {
    /// The name between its quotes, with the escapes of the output.
    fn name(&self) -> Range<usize> {
        self.start + 1..self.name_end - 1
    }
}

struct Writer<'a> {
    text: &'a [u8],
    at: usize,
    written: Vec<u8>,
    /// The members of all open objects, those of the innermost object last.
    members: Vec<Member>,
    depth: usize,
}

impl Writer<'_> {
    fn whole(&mut self) -> Result<(), Fault> {
        self.value()?;
        match self.next() {
            None => Ok(()),
            Some(_) => Err(What::Syntax.into()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips white space and returns the next byte without consuming it.
    fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Skips white space and consumes `expected`.
    fn take(&mut self, expected: u8) -> Result<(), Fault> {
        if self.next() != Some(expected) {
            return Err(What::Syntax.into());
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<(), Fault> {
        match self.next() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) | None => Err(What::Syntax.into()),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(What::Syntax.into());
        }
        self.at += word.len();
        self.written.extend_from_slice(word);
        Ok(())
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(What::Depth.into());
        }
        self.depth += 1;
        self.at += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Fault> {
        self.written.push(b'[');
        if self.next() == Some(b']') {
            self.at += 1;
            self.written.push(b']');
            return Ok(());
        }
        for index in 0_usize.. {
            self.value()
                .map_err(|fault| fault.within(index.to_string()))?;
            match self.next() {
                Some(b',') => self.written.push(b','),
                Some(b']') => break,
                Some(_) | None => return Err(What::Syntax.into()),
            }
            self.at += 1;
        }
        self.at += 1;
        self.written.push(b']');
        Ok(())
    }

    fn object(&mut self) -> Result<(), Fault> {
        self.written.push(b'{');
        if self.next() == Some(b'}') {
            self.at += 1;
            self.written.push(b'}');
            return Ok(());
        }
        let first = self.members.len();
        loop {
            let start = self.written.len();
            if self.next() != Some(b'"') {
                return Err(What::Syntax.into());
            }
            self.string()?;
            let name_end = self.written.len();
            self.take(b':')?;
            self.written.push(b':');
            if let Err(fault) = self.value() {
                return Err(fault.within(decoded(&self.written[start..name_end])));
            }
            let end = self.written.len();
            self.members.push(Member {
                start,
                name_end,
                end,
            });
            match self.next() {
                Some(b',') => self.written.push(b','),
                Some(b'}') => break,
                Some(_) | None => return Err(What::Syntax.into()),
            }
            self.at += 1;
        }
        self.at += 1;
        self.order(first)?;
        self.written.push(b'}');
        Ok(())
    }

    /// Sorts the members from index `first` on.
    fn order(&mut self, first: usize) -> Result<(), Fault> {
        let written = &self.written;
        let name = |member: &Member| &written[member.name()];
        let members = &mut self.members[first..];
        let is_plain = members.iter().all(|member| is_plain(name(member)));
        let is_ordered = |pair: &[Member]| name(&pair[0]) < name(&pair[1]);
        if !is_plain || !members.windows(2).all(is_ordered) {
            let from = members[0].start;
            match is_plain {
                true => members.sort_by(|one, other| name(one).cmp(name(other))),
                false => members.sort_by_cached_key(|member| {
                    let name = decoded(&written[member.start..member.name_end]);
                    name.encode_utf16().collect::<Vec<u16>>()
                }),
            }
            if let Some(pair) = members.windows(2).find(|p| name(&p[0]) == name(&p[1])) {
                let name = decoded(&written[pair[0].start..pair[0].name_end]);
                return Err(Fault::from(What::Twice).within(name));
            }
            let as_sent = self.written.split_off(from);
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    self.written.push(b',');
                }
                let piece = member.start - from..member.end - from;
                self.written.extend_from_slice(&as_sent[piece]);
            }
        }
        self.members.truncate(first);
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.written.push(b'"');
        loop {
            let rest = &self.text[self.at..];
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let length = rest.iter().position(ends).ok_or(What::Syntax)?;
            self.written.extend_from_slice(&rest[..length]);
            let end = rest[length];
            self.at += length + 1;
            match end {
                b'"' => break,
                b'\\' => self.escape()?,
                _ => return Err(What::Syntax.into()),
            }
        }
        self.written.push(b'"');
        Ok(())
    }

    /// Writes the character that an escape stands for. The backslash is consumed already.
    fn escape(&mut self) -> Result<(), Fault> {
        let sign = self.peek().ok_or(What::Syntax)?;
        self.at += 1;
        let character = match sign {
            b'"' | b'\\' | b'/' => char::from(sign),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(What::Syntax.into()),
        };
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '\u{8}' => b'b',
            '\u{c}' => b'f',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\0'..='\u{1f}' => {
                let code = format!("\\u{:04x}", u32::from(character));
                self.written.extend_from_slice(code.as_bytes());
                return Ok(());
            }
            _ => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                self.written.extend_from_slice(bytes);
                return Ok(());
            }
        };
        self.written.extend_from_slice(&[b'\\', short]);
        Ok(())
    }

    /// The character of a `\u` escape, which may be a surrogate pair. The first `\u` is consumed
    /// already.
    fn unicode(&mut self) -> Result<char, Fault> {
        let mut units = [self.unit()?, 0];
        let is_high = (0xd800..0xdc00).contains(&units[0]);
        let has_second = is_high && self.text[self.at..].starts_with(b"\\u");
        if has_second {
            self.at += 2;
            units[1] = self.unit()?;
        }
        let units = &units[..=usize::from(has_second)];
        let mut characters = char::decode_utf16(units.iter().copied());
        match characters.next() {
            Some(Ok(character)) => Ok(character),
            Some(Err(_)) | None => Err(What::Surrogate.into()),
        }
    }

    fn unit(&mut self) -> Result<u16, Fault> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(What::Syntax)?;
        self.at += 4;
        let digit = |unit: u16, byte: &u8| {
            let digit = char::from(*byte).to_digit(16)?;
            Some(unit * 16 + u16::try_from(digit).ok()?)
        };
        let unit = digits.iter().try_fold(0, digit);
        unit.ok_or_else(|| What::Syntax.into())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().position(|byte| !is_part(byte));
        let number = &rest[..length.unwrap_or(rest.len())];
        self.at += number.len();
        number::write(number, &mut self.written).map_err(|error| match error {
            number::NumberError::Syntax => What::Syntax.into(),
            number::NumberError::Exponent => What::Exponent.into(),
        })
    }
}

/// Whether byte order equals the order that RFC 8785 asks for, which is that of UTF-16 units. True
/// for names without escapes and without characters from U+E000 on: surrogates sort before those.
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| *byte != b'\\' && *byte < 0xee)
}

/// The string that a written JSON string (with its quotes) stands for.
fn decoded(written: &[u8]) -> String {
    serde_json::from_slice(written).unwrap_or_default()
}

#[cfg(test)]
mod tests;
