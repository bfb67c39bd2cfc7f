//! `annals import olist`: imports the real orders of the Olist data set through a running server.
//!
//! Deliberately absent: reading the files and sending (`olist`, `import`).

use std::path::PathBuf;

use clap::Parser;
use host::args::Server;
use host::args::importing::SendingArgs;
use host::command::import::conclude;
use host::exit::{Exit, Failure};
use host::progress::sending;
use host::settings::{Flags, Settings};
use host::{Domain, Subcommand};
use olist::{OlistOptions, OlistSource, import_olist};

const HELP: &str = "\
The import may be stopped and repeated: no command takes effect twice. The report counts and lists
refused commands and unreadable rows. With --strict, the exit code is 3 if there are any.

Example:
  annals import olist ~/olist --url http://127.0.0.1:4747";

/// Import orders from a folder with the five Olist CSV files
#[derive(Debug, Parser)]
#[command(name = "olist", after_help = HELP)]
pub(crate) struct Olist {
    /// Folder with olist_orders_dataset.csv and the files of items, payments, reviews, customers
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Tenant of the orders [default: main]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Send rows that have changed since they were imported, as corrections
    ///
    /// The id of a row's command is made from the row's key, so a repeated import does nothing
    /// twice. If the same id was answered before for other data, the command is sent again with an
    /// id that is made from the key and the changed data. The refused commands of the same stream
    /// are sent again with it. The business may refuse a correction: what was accepted stays.
    #[arg(long)]
    correct: bool,
    /// How it is sent.
    #[command(flatten)]
    sending: SendingArgs,
    /// Through which server.
    #[command(flatten)]
    server: Server,
}

impl Subcommand for Olist {
    const BELOW: Option<&'static str> = Some("import");

    fn add_to(&self, flags: &mut Flags) {
        self.server.add_to(flags);
    }

    async fn run(self, _domain: &Domain, settings: Settings) -> Result<Exit, Failure> {
        let remedy = format!(
            "to send the changed data as corrections: annals import olist --correct {}",
            self.folder.display()
        );
        let options = OlistOptions {
            source: OlistSource::Folder(self.folder),
            tenant: self.tenant,
            correct: self.correct,
            unreadable: self.sending.unreadable.clone(),
            sending: self.sending.options(&settings.url),
        };
        let outcome = import_olist(options, sending::on_stderr()).await;
        conclude(&settings, outcome, &self.sending, &remedy)
    }
}
