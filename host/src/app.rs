//! A program: a domain's rules and read models with everything that every program can do.
//!
//! `annals` for the shop is one (`cli`), `examples/bank` another. Invariant: a program shows its own
//! name and examples of its own domain, and has no command of another domain. Deliberately absent:
//! any rule, any read model, and the commands that every program has (`command`).

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use kernel::escape;
use kernel::registry::Registry;
use projector::Projection;

use crate::args::{self, Cli, Global};
use crate::exit::{Exit, Failure};
use crate::logging::{self, Voice};
use crate::program::{self, Example};
use crate::settings::{Flags, Settings};
use crate::{command, private, signals, stderr};

/// How long the end waits for threads of libraries when nothing depends on them any more.
const CLIENTS_END_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// What a program runs: its rules and its read models.
pub struct Domain {
    /// The deciders.
    pub registry: Registry,
    /// The read models: the domain's own, and those that suit every domain.
    pub projections: Vec<Arc<dyn Projection>>,
}

impl Domain {
    /// A domain with its rules and its own read models.
    #[must_use]
    pub fn new(registry: Registry, own: Vec<Arc<dyn Projection>>) -> Self {
        Self {
            registry,
            projections: projector::with_general(own),
        }
    }
}

/// A command of one program alone, beside those that every program has.
///
/// Its name, arguments and help are those of its `clap::Parser`. Texts may use `{stream}`,
/// `{command}` and `{data}` for an example of the domain.
pub trait Subcommand: clap::Parser + 'static {
    /// The command below which it stands, such as `import`; else it stands beside them.
    const BELOW: Option<&'static str> = None;
    /// How much it logs unless the user asks for more or less.
    const VOICE: Voice = Voice::Quiet;
    /// Whether the files that it makes are private to its user.
    const KEEPS_PRIVATE: bool = true;

    /// Adds the settings that were typed with it.
    fn add_to(&self, flags: &mut Flags) {
        let _ = flags;
    }

    /// Does it.
    fn run(
        self,
        domain: &Domain,
        settings: Settings,
    ) -> impl Future<Output = Result<Exit, Failure>>;
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Exit, Failure>> + 'a>>;
type Run = Box<dyn FnOnce(&Domain, Settings) -> Running<'_>>;

/// A command that was typed, ready to run.
struct Typed {
    flags: Flags,
    voice: Voice,
    keeps_private: bool,
    run: Run,
}

/// A [`Subcommand`] without its type.
struct Extra {
    below: Option<&'static str>,
    command: fn() -> clap::Command,
    typed: fn(&ArgMatches, Flags) -> Result<Typed, clap::Error>,
}

impl Extra {
    fn of<S: Subcommand>() -> Self {
        Self {
            below: S::BELOW,
            command: S::command,
            typed: |matches, mut flags| {
                let subcommand = S::from_arg_matches(matches)?;
                subcommand.add_to(&mut flags);
                Ok(Typed {
                    flags,
                    voice: S::VOICE,
                    keeps_private: S::KEEPS_PRIVATE,
                    run: Box::new(move |domain, settings| {
                        Box::pin(subcommand.run(domain, settings))
                    }),
                })
            },
        }
    }

    /// What was typed after this command, if it was typed.
    fn matched<'a>(&self, matches: &'a ArgMatches) -> Option<&'a ArgMatches> {
        let command = (self.command)();
        let beside = match self.below {
            Some(above) => matches.subcommand_matches(above)?,
            None => matches,
        };
        beside.subcommand_matches(command.get_name())
    }
}

/// A program: begin with [`app`].
#[must_use = "a program does nothing until it runs"]
pub struct App {
    name: &'static str,
    version: Option<&'static str>,
    about: &'static str,
    domain: Domain,
    example: Option<Example>,
    extras: Vec<Extra>,
}

/// A program with this name, for example `app("mybank").registry(…).projections(…).run()`.
pub fn app(name: &'static str) -> App {
    App {
        name,
        version: None,
        about: args::ABOUT,
        domain: Domain::new(Registry::new(), Vec::new()),
        example: None,
        extras: Vec::new(),
    }
}

impl App {
    /// The version of the program, usually `env!("CARGO_PKG_VERSION")`; else that of Annals.
    pub fn version(self, version: &'static str) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// What the program is, in one sentence.
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// The rules.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.domain.registry = registry;
        self
    }

    /// The read models of the domain; those that suit every domain are added.
    pub fn projections(mut self, projections: Vec<Arc<dyn Projection>>) -> Self {
        self.domain.projections = projector::with_general(projections);
        self
    }

    /// The stream, the command and its data that help texts show; else the first command of the
    /// first category, with the example of its schema.
    pub fn example(mut self, stream: &str, command: &str, data: &str) -> Self {
        self.example = Some(Example {
            stream: stream.to_owned(),
            command: command.to_owned(),
            data: data.to_owned(),
        });
        self
    }

    /// A command of this program alone.
    pub fn command<S: Subcommand>(mut self) -> Self {
        self.extras.push(Extra::of::<S>());
        self
    }

    /// What it runs.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The command line, with all help texts.
    #[must_use]
    pub fn command_line(&self) -> clap::Command {
        let mut line = Cli::command().name(self.name).about(self.about);
        let annals = env!("CARGO_PKG_VERSION");
        if let Some(version) = self.version {
            line = line.version(format!("{version} (annals {annals})"));
        }
        line = line.after_help(format!("{}\n\n{}", args::EXAMPLES, Exit::help()));
        for extra in &self.extras {
            let command = (extra.command)();
            line = match extra.below {
                Some(above) => line.mut_subcommand(above, |above| above.subcommand(command)),
                None => line.subcommand(command),
            };
        }
        let example = self.example.clone();
        let example = example.unwrap_or_else(|| Example::of(&self.domain.registry));
        let names = names(&line);
        with_texts(line, &|text| {
            let text = example.fill(text);
            program::renamed(&text, self.name, &names).into_owned()
        })
    }

    /// Runs the program as its command line says.
    ///
    /// The whole of `main`: reads the arguments of the process, and returns what `main` is to
    /// return.
    #[must_use]
    pub fn run(self) -> ExitCode {
        logging::foresee(std::env::args());
        let line = self.command_line();
        program::is_named(self.name, self.version, names(&line));
        let parsed = line.clone().try_get_matches();
        let typed = match parsed.and_then(|matches| self.typed(line, &matches)) {
            Ok(typed) => typed,
            // Help and version are data, so they go to stdout.
            Err(error) if !error.use_stderr() => error.exit(),
            Err(error) => {
                if logging::is_json() {
                    logging::complain(format_args!("{}", error.to_string().trim_end()));
                    return Exit::Usage.into();
                }
                error.exit()
            }
        };
        stderr::log_panics();
        let outcome = start(&self, typed);
        // If a signal has just stopped the embedded Postgres, a failure that follows is not
        // reported.
        signals::yield_to_the_end();
        stderr::finish();
        match outcome {
            Ok(exit) => exit.into(),
            Err(failure) => {
                if !failure.message.is_empty() {
                    let message = escape::lines(&failure.message);
                    match logging::is_json() {
                        true => logging::complain(format_args!("{message}")),
                        false => logging::complain(format_args!("{}: {message}", self.name)),
                    }
                }
                failure.exit.into()
            }
        }
    }

    fn typed(&self, line: clap::Command, matches: &ArgMatches) -> Result<(u8, Typed), clap::Error> {
        let global = Global::from_arg_matches(matches)?;
        for extra in &self.extras {
            if let Some(matches) = extra.matched(matches) {
                return Ok((global.verbose, (extra.typed)(matches, global.flags())?));
            }
        }
        let cli = Cli::from_arg_matches(matches)?;
        let typed = Typed {
            flags: cli.flags(),
            voice: command::voice(&cli.command),
            keeps_private: command::keeps_private(&cli.command),
            run: Box::new(move |domain, settings| {
                Box::pin(command::run(domain, settings, line, cli.command))
            }),
        };
        Ok((global.verbose, typed))
    }
}

fn start(app: &App, (verbose, typed): (u8, Typed)) -> Result<Exit, Failure> {
    let settings = Settings::load(&typed.flags)?;
    if typed.keeps_private {
        private::by_default();
    }
    logging::start(&settings, app.name, verbose, typed.voice)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error).while_trying("start the runtime"))?;
    let outcome = runtime.block_on((typed.run)(&app.domain, settings));
    // Everything that must be awaited has been awaited. What is left are Kafka's clients, which
    // shut themselves down. If the wall clock was set back meanwhile, a client may take as long as
    // it was set back by.
    runtime.shutdown_timeout(CLIENTS_END_WAIT);
    outcome
}

/// The names of the commands.
fn names(line: &clap::Command) -> Vec<String> {
    let names = line.get_subcommands().map(clap::Command::get_name);
    names.map(str::to_owned).collect()
}

/// The command with every text that people read changed by `change`, and its subcommands too.
fn with_texts(command: clap::Command, change: &impl Fn(&str) -> String) -> clap::Command {
    let text = |styled: Option<&clap::builder::StyledStr>| styled.map(|it| change(&it.to_string()));
    let about = text(command.get_about());
    let long_about = text(command.get_long_about());
    let after_help = text(command.get_after_help());
    let mut command = command;
    if let Some(about) = about {
        command = command.about(about);
    }
    if let Some(about) = long_about {
        command = command.long_about(about);
    }
    if let Some(help) = after_help {
        command = command.after_help(help);
    }
    command
        .mut_args(|argument| {
            let help = text(argument.get_help());
            let long_help = text(argument.get_long_help());
            let argument = match help {
                Some(help) => argument.help(help),
                None => argument,
            };
            match long_help {
                Some(help) => argument.long_help(help),
                None => argument,
            }
        })
        .mut_subcommands(|subcommand| with_texts(subcommand, change))
}
