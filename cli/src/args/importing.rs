//! The arguments of `annals import`, apart from the server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use client::SendOptions;
use import::{CommandsOptions, CommandsSource, OlistOptions, OlistSource};

/// Options of everything that sends many commands.
#[derive(Clone, Debug, Args)]
pub struct SendingArgs {
    /// Exit code 3 if a command is refused or a row cannot be read
    #[arg(long)]
    pub strict: bool,
    /// Write every row that cannot be read or sent into a CSV file: file, line, reason
    #[arg(long, value_name = "FILE")]
    pub unreadable: Option<PathBuf>,
    /// How many commands may wait for their answers at once
    #[arg(long, value_name = "N", default_value_t = client::IN_FLIGHT_MAX_DEFAULT,
          hide_short_help = true)]
    pub in_flight: usize,
    /// How many seconds to go on without any progress before giving up
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

/// `annals import olist`
#[derive(Clone, Debug, Args)]
pub struct OlistArgs {
    /// Folder with olist_orders_dataset.csv and the files of items, payments, reviews, customers
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// For which tenant [default: main]
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Send rows that were changed since they were imported again, as corrections
    ///
    /// A row's command has an id that is made of the row's key, so that a repeated import does
    /// nothing twice. Where the row was answered before, for other data, its command is sent again
    /// under an id that is made of the changed data too, and with it the commands of the same
    /// stream that were refused. The business may refuse a correction: what was accepted stays.
    #[arg(long)]
    pub correct: bool,
    /// How it is sent.
    #[command(flatten)]
    pub sending: SendingArgs,
}

impl OlistArgs {
    /// The import that these arguments ask for, through the server at `url`.
    #[must_use]
    pub fn options(&self, url: &str) -> OlistOptions {
        OlistOptions {
            source: OlistSource::Folder(self.folder.clone()),
            tenant: self.tenant.clone(),
            correct: self.correct,
            unreadable: self.sending.unreadable.clone(),
            sending: self.sending.options(url),
        }
    }
}

/// `annals import commands`
#[derive(Clone, Debug, Args)]
pub struct CommandsArgs {
    /// File of command lines, as the batch door takes them; - for stdin
    ///
    /// A line without an id gets one that is made of its number and its text, so that the same file
    /// may be sent again and does nothing twice.
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
