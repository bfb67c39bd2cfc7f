//! The arguments of `annals import`, apart from the server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use client::SendOptions;
use import::{CommandsOptions, CommandsSource};

/// Options of everything that sends many commands.
#[derive(Clone, Debug, Args)]
pub struct SendingArgs {
    /// End with exit code 3 if a command is refused or a row cannot be read
    #[arg(long)]
    pub strict: bool,
    /// Write a CSV file with every row that cannot be read or sent: file, line, reason
    #[arg(long, value_name = "FILE")]
    pub unreadable: Option<PathBuf>,
    /// The most commands that wait for their answers at once
    #[arg(long, value_name = "N", default_value_t = client::IN_FLIGHT_MAX_DEFAULT,
          hide_short_help = true)]
    pub in_flight: usize,
    /// Give up after this many seconds without progress
    #[arg(long, value_name = "SECONDS",
          default_value_t = client::RETRY_FOR_DEFAULT.as_secs())]
    pub retry_for: u64,
}

impl SendingArgs {
    /// How lines are sent to the server at `url`.
    #[must_use]
    pub fn options(&self, url: &str) -> SendOptions {
        SendOptions {
            url: url.to_owned(),
            in_flight_max: self.in_flight.max(1),
            retry_for: Duration::from_secs(self.retry_for),
        }
    }
}

/// `annals import commands`
#[derive(Clone, Debug, Args)]
pub struct CommandsArgs {
    /// File of command lines, in the format of the batch route; - for stdin
    ///
    /// A line without an id gets an id that is made from its number and its text. The same file may
    /// therefore be sent again: no command takes effect twice.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it is sent.
    #[command(flatten)]
    pub sending: SendingArgs,
}

impl CommandsArgs {
    /// The import that these arguments ask for, through the server at `url`.
    #[must_use]
    pub fn options(&self, url: &str) -> CommandsOptions {
        CommandsOptions {
            source: if self.file.as_os_str() == "-" {
                CommandsSource::Stdin
            } else {
                CommandsSource::File(self.file.clone())
            },
            unreadable: self.sending.unreadable.clone(),
            sending: self.sending.options(url),
        }
    }
}
