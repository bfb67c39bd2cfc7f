//! The Postgres of the read models: one that is named, or an embedded one of ours.
//!
//! Deliberately absent: what is in it (`projections`), and how the embedded one runs
//! (`embedded_postgres`).

use std::path::PathBuf;

use embedded_postgres::{EmbeddedPostgres, Options};
use event_log::log::EventLog;
use projector::{MigrationStatus, RuntimeError, migrate, migration_status, require_log};

use crate::exit::{Exit, Failure, explained};
use crate::settings::{Settings, typed, without_password};
use crate::{private, signals};

/// A Postgres that may be used as long as this is kept.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    embedded: Option<EmbeddedPostgres>,
    /// The folder that an embedded one's is in.
    data: PathBuf,
}

impl Postgres {
    /// The Postgres of the settings; the embedded one is started if none is named.
    ///
    /// # Errors
    /// What keeps the embedded one from starting.
    pub async fn open(settings: &Settings) -> Result<Self, Failure> {
        if let Some(url) = &settings.postgres {
            return Ok(Self {
                url: url.clone(),
                embedded: None,
                data: settings.data.clone(),
            });
        }
        signals::end_servers_on_signal()?;
        let options = Options {
            server_bin: settings.postgres_bin.clone(),
            ..Options::default()
        };
        let folder = settings.postgres_folder();
        private::folder(&settings.data)?;
        let embedded = EmbeddedPostgres::start(&folder, &options).await?;
        Ok(Self {
            url: embedded.url(),
            embedded: Some(embedded),
            data: settings.data.clone(),
        })
    }

    /// Its address, password included.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address for people.
    #[must_use]
    pub fn shown(&self) -> String {
        without_password(&self.url)
    }

    /// A file that holds its address, password included, for this user alone; of an embedded one.
    #[must_use]
    pub fn url_file(&self) -> Option<PathBuf> {
        self.embedded.as_ref().map(EmbeddedPostgres::url_file)
    }

    /// Brings its schema up to date.
    ///
    /// # Errors
    /// `Unavailable` where it does not answer; `Failed`.
    pub async fn migrate(&self) -> Result<Vec<MigrationStatus>, Failure> {
        migrate(&self.url)
            .await
            .map_err(|error| self.failure(&error, "migrate"))
    }

    /// Which migrations it has.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, Failure> {
        migration_status(&self.url)
            .await
            .map_err(|error| self.failure(&error, "look at the migrations of"))
    }

    /// Refuses a schema that is not up to date, and names the command that mends it. A Postgres
    /// that does not answer is no reason to refuse: commands need none, and projectors wait.
    ///
    /// # Errors
    /// `Unprepared`.
    pub async fn require_migrated(&self) -> Result<(), Failure> {
        match self.migrations().await {
            Ok(migrations) if migrations.iter().all(|migration| migration.applied) => Ok(()),
            Ok(_) => Err(self.unmigrated()),
            Err(failure) => {
                tracing::warn!(
                    reason = failure.message,
                    "going on without Postgres for now"
                );
                Ok(())
            }
        }
    }

    /// Refuses a database that holds the read models of another log than this. A Postgres that does
    /// not answer is no reason to refuse: projectors and doors ask again before anything else.
    ///
    /// # Errors
    /// `Usage`, with what to do; what the log says where it does not answer.
    pub async fn require_log(&self, log: &dyn EventLog) -> Result<(), Failure> {
        match require_log(log, &self.url).await {
            Ok(()) => Ok(()),
            Err(error @ RuntimeError::Postgres { .. }) => {
                tracing::warn!(
                    reason = explained(&error),
                    "going on without Postgres for now"
                );
                Ok(())
            }
            Err(error @ RuntimeError::OtherLog { .. }) => {
                let failure = Failure::from(error);
                Err(match &self.embedded {
                    Some(embedded) => failure.hint(format!(
                        "this one is ours and can be deleted, while nothing runs on it: {}",
                        embedded.folder().display()
                    )),
                    None => failure,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to say of a schema that is not up to date.
    #[must_use]
    pub fn unmigrated(&self) -> Failure {
        let (whose, hint) = match self.embedded {
            Some(_) => (format!(" --data {}", self.data.display()), ""),
            None => {
                let (typed, hint) = typed(&self.url);
                (format!(" --postgres {typed}"), hint)
            }
        };
        let message = format!(
            "the schema of {} is not up to date; bring it there with: annals migrate{whose}{hint}",
            self.shown()
        );
        Failure::new(Exit::Unprepared, message)
    }

    fn failure(&self, error: &dyn std::error::Error, what: &str) -> Failure {
        // The client library tells a server that is not there from one that refuses only in words;
        // both are worth another try.
        Failure::of(Exit::Unavailable, error).while_trying(&format!("{what} {}", self.shown()))
    }

    /// Stops it, if it is ours.
    pub async fn close(self) {
        if let Some(embedded) = self.embedded
            && let Err(error) = embedded.stop().await
        {
            tracing::warn!(%error, "the embedded Postgres may still be running");
        }
    }
}
