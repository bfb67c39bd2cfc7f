//! The name of the running program, and how its texts show it.
//!
//! Invariant: the texts of all crates say `annals` before a command, as the documents do; whatever a
//! person reads of another program names that program instead. The rewriting is done where texts
//! leave the process (help, messages, log lines). Deliberately absent: the texts themselves.

use std::borrow::Cow;
use std::sync::OnceLock;

use kernel::registry::Registry;
use kernel::schemars::SchemaGenerator;
use serde_json::Value;

/// The name that the texts are written with.
pub const ANNALS: &str = "annals";

/// The name of this process's program, and the commands that it has.
struct Program {
    name: String,
    version: Option<String>,
    commands: Vec<String>,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Says which program this is. The first call counts: a process is one program.
pub(crate) fn is_named(name: &str, version: Option<&str>, commands: Vec<String>) {
    PROGRAM.get_or_init(|| Program {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        commands,
    });
}

/// The program's name.
pub(crate) fn name() -> &'static str {
    PROGRAM.get().map_or(ANNALS, |program| &program.name)
}

/// The program as its page and its OpenAPI document show it.
pub(crate) fn shown() -> door::Program {
    let annals = door::Program::annals();
    match PROGRAM.get() {
        Some(program) if program.name != ANNALS => door::Program {
            title: program.name.clone(),
            version: program.version.clone().unwrap_or(annals.version),
        },
        Some(_) | None => annals,
    }
}

/// A text that may name commands of this program, with the program's own name.
pub(crate) fn own(text: &str) -> Cow<'_, str> {
    match PROGRAM.get() {
        Some(program) => renamed(text, &program.name, &program.commands),
        None => Cow::Borrowed(text),
    }
}

/// The text with `name` in the place of `annals` wherever one of `commands` follows.
pub(crate) fn renamed<'a>(text: &'a str, name: &str, commands: &[String]) -> Cow<'a, str> {
    if name == ANNALS || !text.contains(ANNALS) {
        return Cow::Borrowed(text);
    }
    let is_part = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ANNALS) {
        let (before, after) = (&rest[..at], &rest[at + ANNALS.len()..]);
        let is_begin = !before.ends_with(is_part);
        let command = after.strip_prefix(' ').unwrap_or_default();
        let word = command.split(|c: char| c != '-' && !c.is_alphanumeric());
        let word = word.into_iter().next().unwrap_or_default();
        let is_command = is_begin && commands.iter().any(|command| command == word);
        made.push_str(before);
        made.push_str(if is_command { name } else { ANNALS });
        rest = after;
    }
    made.push_str(rest);
    Cow::Owned(made)
}

/// A stream and a command of the domain, for examples in help texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// A stream, such as `order-1`.
    pub stream: String,
    /// The type of a command that it takes.
    pub command: String,
    /// The command's data, as JSON.
    pub data: String,
}

impl Example {
    /// The first command of the first category, with the example of its schema.
    pub(crate) fn of(registry: &Registry) -> Self {
        let mut generator = SchemaGenerator::default();
        let first = registry.iter().find_map(|aggregate| {
            let types = aggregate.command_types(&mut generator);
            Some((aggregate.category().to_owned(), types.into_iter().next()?))
        });
        let Some((category, command)) = first else {
            return Self::none();
        };
        let schema = command.schema.as_value();
        let referred = schema.get("$ref").and_then(Value::as_str);
        let name = referred.and_then(|path| path.rsplit('/').next());
        let definition = name.and_then(|name| generator.definitions().get(name));
        let data = definition.unwrap_or(schema).pointer("/examples/0");
        Self {
            stream: format!("{category}-1"),
            command: command.name.to_owned(),
            data: data.map_or_else(|| "{}".to_owned(), Value::to_string),
        }
    }

    fn none() -> Self {
        Self {
            stream: "STREAM".to_owned(),
            command: "COMMAND".to_owned(),
            data: "{}".to_owned(),
        }
    }

    /// The text with this example in the place of `{stream}`, `{command}` and `{data}`.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{stream}", &self.stream)
            .replace("{command}", &self.command)
            // The data stand between single quotes of a shell.
            .replace("{data}", &self.data.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_can_be_pasted_into_a_shell() {
        let example = Example {
            stream: "cat-1".to_owned(),
            command: "Name".to_owned(),
            data: r#"{"name":"O'Malley"}"#.to_owned(),
        };
        let shown = example.fill("send {stream} {command} '{data}'");
        assert_eq!(shown, r#"send cat-1 Name '{"name":"O'\''Malley"}'"#);
    }

    #[test]
    fn only_commands_of_the_program_take_its_name() {
        let commands = ["log", "projections"].map(str::to_owned);
        let own = |text| renamed(text, "mybank", &commands).into_owned();
        assert_eq!(
            own("first annals log create, then `annals projections rebuild`"),
            "first mybank log create, then `mybank projections rebuild`"
        );
        for kept in [
            "the annals of a bank",
            "annals check-history reads it",
            "annals logs nothing",
            "/usr/bin/annals log create",
            "annals.toml",
            "annals",
        ] {
            assert_eq!(own(kept), kept);
        }
    }
}
