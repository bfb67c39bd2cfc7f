//! `annals check`: everything that can be checked before production, each with what to do about it.
//!
//! Invariant: nothing is changed, no record is written, no server is started. Deliberately absent:
//! the proof of a whole log (`annals log verify`).

use event_log::commit::Commit;
use event_log::create::first_claim;
use event_log::log::{EventLog, LogAddress, LogError};
use event_log::record::Kind;
use position::{Offset, Partition};
use projector::{ReportState, migration_status};
use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure, explained};
use crate::logging::talk;
use crate::node::http::Bound;
use crate::node::open_log;
use crate::output;
use crate::settings::{Settings, typed, without_password};

/// The clocks of this machine and of the log may differ by this much.
const CLOCK_SKEW_MAX_MS: i64 = 60_000;
/// A clock difference up to this is not reported.
const CLOCK_SKEW_NOTED_MS: i64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Row {
    check: &'static str,
    status: Status,
    found: String,
    to_do: String,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(
        &mut self,
        check: &'static str,
        status: Status,
        found: impl Into<String>,
        to_do: impl Into<String>,
    ) {
        self.0.push(Row {
            check,
            status,
            found: found.into(),
            to_do: to_do.into(),
        });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Status::Ok, found, "");
    }
}

pub(super) async fn run(domain: &Domain, settings: &Settings) -> Result<Exit, Failure> {
    let mut rows = Rows::default();
    rows.ok("configuration", "every setting is understood");
    listening(settings, &mut rows).await;
    data_folder(settings, &mut rows);
    let log = log(settings, &mut rows).await;
    match &settings.postgres {
        Some(url) => postgres(domain, settings, url, log.as_deref(), &mut rows).await,
        None => rows.add(
            "postgres",
            Status::Warn,
            "none is named: a node would use an embedded server, which suits development only",
            "name your own with --postgres URL",
        ),
    }
    output::rows(
        settings.output,
        &["check", "status", "found", "to_do"],
        &rows.0,
    )?;
    let count = |status| rows.0.iter().filter(|row| row.status == status).count();
    let (warned, failed) = (count(Status::Warn), count(Status::Fail));
    talk!(
        "{} checks: {warned} warnings, {failed} failed",
        rows.0.len()
    );
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Unprepared
    })
}

async fn listening(settings: &Settings, rows: &mut Rows) {
    match Bound::to(settings).await {
        Ok(_) if settings.insecure => rows.add(
            "listen",
            Status::Warn,
            format!(
                "{} is free; with --insecure, other machines can reach it without authentication",
                settings.listen
            ),
            "put a proxy that authenticates clients in front of it",
        ),
        Ok(_) => rows.ok("listen", format!("{} is free", settings.listen)),
        // The address is in use, perhaps by the very server that is checked: this is no fault.
        Err(failure) if failure.exit == Exit::Failed => rows.add(
            "listen",
            Status::Warn,
            failure.message,
            "nothing, if this is the server that already runs; otherwise change listen",
        ),
        Err(failure) => rows.add("listen", Status::Fail, failure.message, "change listen"),
    }
}

fn data_folder(settings: &Settings, rows: &mut Rows) {
    let folder = &settings.data;
    let shown = folder.display();
    let existing = folder.ancestors().find(|folder| folder.is_dir());
    let probe = match existing {
        Some(folder) => tempfile::NamedTempFile::new_in(folder),
        None => tempfile::NamedTempFile::new_in("."),
    };
    match probe {
        Ok(_) => rows.ok("data folder", format!("{shown} can be written")),
        Err(error) => rows.add(
            "data folder",
            Status::Fail,
            format!("{shown} cannot be written: {error}"),
            "give this user write access, or name another folder with --data",
        ),
    }
}

async fn log(settings: &Settings, rows: &mut Rows) -> Option<std::sync::Arc<dyn EventLog>> {
    let make = format!("annals log create --log {}", settings.log);
    let log = match open_log(settings).await {
        Ok(log) => log,
        Err(error @ LogError::Missing(_)) => {
            rows.add("log", Status::Fail, error.to_string(), make);
            return None;
        }
        Err(error) => {
            let to_do = "check that the log runs and can be reached from this machine";
            rows.add("log", Status::Fail, explained(&error), to_do);
            return None;
        }
    };
    let partition_count = log.partition_count();
    rows.ok(
        "log",
        format!("{} answers, {partition_count} partitions", log.address()),
    );
    if matches!(settings.log, LogAddress::Sqlite { .. }) {
        rows.add(
            "log store",
            Status::Warn,
            "SQLite: one machine, one writer, as durable as its disk",
            format!(
                "for several machines: annals log copy --log {} --to kafka://HOST:PORT/TOPIC",
                settings.log
            ),
        );
    }
    log_settings(&*log, rows).await;
    let mut unclaimed = Vec::new();
    for partition in (0..partition_count).map(Partition) {
        match first_claim(&*log, partition).await {
            Ok(Some(_)) => {}
            Ok(None) => unclaimed.push(partition.to_string()),
            Err(error @ LogError::BeginningGone { .. }) => {
                let to_do = "stop what deletes records, and go on with a complete copy of the log";
                rows.add("claims", Status::Fail, explained(&error), to_do);
                return Some(log);
            }
            Err(error) => {
                let to_do = "check that every broker runs";
                rows.add("claims", Status::Fail, explained(&error), to_do);
                return Some(log);
            }
        }
    }
    if unclaimed.is_empty() {
        rows.ok("claims", "every partition was claimed");
    } else {
        let found = format!("never claimed: partitions {}", unclaimed.join(", "));
        rows.add("claims", Status::Fail, found, make);
    }
    clock(&*log, rows).await;
    Some(log)
}

async fn log_settings(log: &dyn EventLog, rows: &mut Rows) {
    match log.check().await {
        Ok(warnings) if warnings.is_empty() => rows.ok("log settings", "as the protocol requires"),
        Ok(warnings) => {
            for warning in warnings {
                rows.add(
                    "log settings",
                    Status::Warn,
                    warning,
                    "correct this before production",
                );
            }
        }
        Err(LogError::Settings(problems)) => {
            for problem in problems {
                let found = format!(
                    "{} is {} and must be {}",
                    problem.setting, problem.found, problem.needed
                );
                rows.add("log settings", Status::Fail, found, problem.mend);
            }
        }
        Err(error) => rows.add("log settings", Status::Fail, explained(&error), "try again"),
    }
}

/// Compares this machine's clock with the newest records. A record that was appended in the future
/// shows that the brokers' clock is ahead. The opposite cannot be told here: an old record and a
/// slow broker clock look the same, and nodes find that out when they ask the brokers. A command
/// that was recorded in the future was written by a node whose clock was ahead.
async fn clock(log: &dyn EventLog, rows: &mut Rows) {
    let mut newest = Newest::default();
    for partition in (0..log.partition_count()).map(Partition) {
        newest.look_into(log, partition).await;
    }
    let Some(appended_ms) = newest.appended_ms else {
        rows.ok("clock", "nothing to compare with yet");
        return;
    };
    let now_ms = now_ms();
    let ahead_ms = appended_ms - now_ms;
    // The records of a file are stamped by the nodes that wrote them; their clocks may have been
    // wrong.
    let is_stamped_by_brokers = matches!(log.address(), LogAddress::Kafka { .. });
    let status = if ahead_ms <= CLOCK_SKEW_NOTED_MS {
        Status::Ok
    } else if ahead_ms > CLOCK_SKEW_MAX_MS && is_stamped_by_brokers {
        Status::Fail
    } else {
        Status::Warn
    };
    if status == Status::Ok {
        rows.ok("clock", "not behind the log's newest record");
    } else {
        let found = format!("this machine is {ahead_ms} ms behind the log's newest record");
        rows.add("clock", status, found, "synchronise the clocks (NTP)");
    }
    let Some(recorded_ms) = newest.recorded_ms else {
        return;
    };
    let ahead_ms = recorded_ms - now_ms;
    if ahead_ms > CLOCK_SKEW_NOTED_MS {
        let found = format!(
            "the newest command has a recorded time {ahead_ms} ms in the future: the clock of the \
             node that wrote it was ahead; new commands get no earlier recorded time"
        );
        let to_do =
            "nothing, if this clock is right: command ids are only remembered that much longer";
        rows.add("recorded times", Status::Warn, found, to_do);
    } else {
        rows.ok("recorded times", "not ahead of this clock");
    }
}

/// How many of a partition's last records are searched for a command.
const RECORDS_LOOKED_AT: u64 = 8;

/// The newest times in a log, in milliseconds since 1970.
#[derive(Default)]
struct Newest {
    appended_ms: Option<i64>,
    recorded_ms: Option<i64>,
}

impl Newest {
    async fn look_into(&mut self, log: &dyn EventLog, partition: Partition) {
        let Ok(bounds) = log.bounds(partition).await else {
            return;
        };
        let from = bounds.end.0.saturating_sub(RECORDS_LOOKED_AT);
        let last: Vec<Offset> = (from.max(bounds.first.0)..bounds.end.0)
            .map(Offset)
            .collect();
        let Ok(records) = log.read_at(partition, &last).await else {
            return;
        };
        for record in records.into_iter().flatten() {
            self.appended_ms = self.appended_ms.max(record.appended_at_ms);
            if let (Kind::Commit(_), Some(key), Some(value)) =
                (Kind::of(&record), &record.key, &record.value)
                && let Ok(commit) = Commit::read(key, value)
            {
                let recorded_ms = commit.recorded_at.micros() / 1_000;
                self.recorded_ms = self.recorded_ms.max(Some(recorded_ms));
            }
        }
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

async fn postgres(
    domain: &Domain,
    settings: &Settings,
    url: &str,
    log: Option<&dyn EventLog>,
    rows: &mut Rows,
) {
    let shown = without_password(url);
    let (typed, hint) = typed(url);
    let migrations = match migration_status(url).await {
        Ok(migrations) => migrations,
        Err(error) => {
            let found = format!("{shown}: {}", explained(&error));
            rows.add(
                "postgres",
                Status::Fail,
                found,
                "check that Postgres runs and accepts this user",
            );
            return;
        }
    };
    rows.ok("postgres", format!("{shown} answers"));
    let missing = migrations
        .iter()
        .filter(|migration| !migration.applied)
        .count();
    if missing > 0 {
        let found = format!("{missing} of {} not applied", migrations.len());
        let to_do = format!("annals migrate --postgres {typed}{hint}");
        rows.add("migrations", Status::Fail, found, to_do);
        return;
    }
    rows.ok("migrations", format!("all {} applied", migrations.len()));
    let reports = match projector::report(log, url, &domain.projections).await {
        Ok(reports) => reports,
        Err(error) => {
            rows.add("read models", Status::Fail, explained(&error), "try again");
            return;
        }
    };
    let gap: u64 = reports.iter().filter_map(|report| report.gap).sum();
    let mut is_well = true;
    for report in &reports {
        let name = &report.name;
        let (found, to_do) = match report.state {
            ReportState::Outdated => (
                format!("{name} was made by another version of this program"),
                format!(
                    "annals projections rebuild {name} --log {} --postgres {typed}{hint}",
                    settings.log
                ),
            ),
            ReportState::Unknown => (
                format!("this program does not have {name} any more"),
                format!("annals projections drop {name} --postgres {typed}{hint}"),
            ),
            _ => continue,
        };
        is_well = false;
        rows.add("read models", Status::Fail, found, to_do);
    }
    if is_well {
        let found = format!("{gap} records still to fold, over all read models");
        rows.ok("read models", found);
    }
}
