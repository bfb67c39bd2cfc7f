//! The Postgres of the read models: the one that the settings name, or an embedded one.
//!
//! Deliberately absent: its tables (`projections`), and how the embedded server runs
//! (`embedded_postgres`).

use std::path::PathBuf;
use std::sync::Arc;

use embedded_postgres::{EmbeddedPostgres, Options};
use event_log::log::EventLog;
use projector::{
    MigrationStatus, Projection, READER, Reader, RuntimeError, migrate, migration_status,
    prepare_reader, require_log, try_declarations,
};

use crate::exit::{Exit, Failure, explained};
use crate::logging::talk;
use crate::settings::{Settings, standard, typed, without_password};
use crate::{private, signals};

/// A Postgres that can be used as long as this value lives.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    embedded: Option<EmbeddedPostgres>,
    /// The data folder, which contains the folder of an embedded server.
    data: PathBuf,
}

impl Postgres {
    /// The Postgres of the settings; the embedded one is started if none is named.
    ///
    /// # Errors
    /// Whatever prevents the embedded server from starting.
    pub async fn open(settings: &Settings) -> Result<Self, Failure> {
        if let Some(url) = &settings.postgres {
            return Ok(Self {
                url: standard(url),
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

    /// Its address without the password, to be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        without_password(&self.url)
    }

    /// For an embedded server: the file with its address, password included, which only this user
    /// may read.
    #[must_use]
    pub fn url_file(&self) -> Option<PathBuf> {
        self.embedded.as_ref().map(EmbeddedPostgres::url_file)
    }

    /// Brings its schema up to date, and prepares the role of the analysts. A user who may not make
    /// that role is told what to do; everything else goes on.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn migrate(&self) -> Result<Vec<MigrationStatus>, Failure> {
        let migrations = migrate(&self.url)
            .await
            .map_err(|error| self.failure(&error, "migrate"))?;
        match prepare_reader(&self.url).await? {
            Reader::Ready => {}
            Reader::Absent { user } => {
                let (whose, hint) = self.typed();
                talk!(
                    "note: there is no role {READER} for analysts, and {user} may not make roles; \
                     everything else works. To have the role, let an administrator of {} run \
                     CREATE ROLE {READER} NOLOGIN, and then run: annals migrate{whose}{hint}",
                    self.shown()
                );
            }
            Reader::Refused { reason } => talk!(
                "note: the role {READER} could not be given the right to read the read models of \
                 {}: {reason}",
                self.shown()
            ),
        }
        Ok(migrations)
    }

    /// The migrations, and whether each is applied.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, Failure> {
        migration_status(&self.url)
            .await
            .map_err(|error| self.failure(&error, "look at the migrations of"))
    }

    /// Refuses a schema that is not up to date, and names the command that updates it. Accepts a
    /// Postgres that does not answer: commands do not need it, and projectors wait for it.
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
                    "Postgres cannot be used yet; going on without it for now"
                );
                Ok(())
            }
        }
    }

    /// Refuses a database that holds the read models of another log. Accepts a Postgres that does
    /// not answer: projectors and doors check again before they do anything else.
    ///
    /// # Errors
    /// `Usage`, with what to do; the log's error if the log does not answer.
    pub async fn require_log(&self, log: &dyn EventLog) -> Result<(), Failure> {
        match require_log(log, &self.url).await {
            Ok(()) => Ok(()),
            Err(error @ RuntimeError::Postgres { .. }) => {
                tracing::warn!(
                    reason = explained(&error),
                    "Postgres cannot be used yet; going on without it for now"
                );
                Ok(())
            }
            Err(error @ RuntimeError::OtherLog { .. }) => {
                let failure = Failure::from(error);
                Err(match &self.embedded {
                    Some(embedded) => failure.hint(format!(
                        "this database is annals' own, and its folder may be deleted while no \
                         process uses it: {}",
                        embedded.folder().display()
                    )),
                    None => failure,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses read models whose SQL this Postgres refuses. Accepts a Postgres that does not answer:
    /// a projector says so when it makes the tables.
    ///
    /// # Errors
    /// `Usage`, with all faults.
    pub async fn require_declarations(
        &self,
        projections: &[Arc<dyn Projection>],
    ) -> Result<(), Failure> {
        match try_declarations(&self.url, projections).await {
            Err(error @ RuntimeError::Declared(_)) => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The failure for a schema that is not up to date.
    #[must_use]
    pub fn unmigrated(&self) -> Failure {
        let (whose, hint) = self.typed();
        let message = format!(
            "the schema of {} is not up to date; update it with: annals migrate{whose}{hint}",
            self.shown()
        );
        Failure::new(Exit::Unprepared, message)
    }

    /// The flags that name this Postgres to another command, and a hint about what to fill in.
    fn typed(&self) -> (String, &'static str) {
        match self.embedded {
            Some(_) => (format!(" --data {}", self.data.display()), ""),
            None => {
                let (typed, hint) = typed(&self.url);
                (format!(" --postgres {typed}"), hint)
            }
        }
    }

    fn failure(&self, error: &dyn std::error::Error, what: &str) -> Failure {
        // The client library tells an unreachable server from a refusing one only by the text of
        // its error. In both cases another try makes sense.
        Failure::of(Exit::Unavailable, error).while_trying(&format!("{what} {}", self.shown()))
    }

    /// Stops the embedded server, if there is one.
    pub async fn close(self) {
        if let Some(embedded) = self.embedded
            && let Err(error) = embedded.stop().await
        {
            tracing::warn!(%error, "the embedded Postgres may still be running");
        }
    }
}
