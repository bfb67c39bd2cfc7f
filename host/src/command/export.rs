//! `annals export …`: writes events or read models into files for other programs, and holds such an
//! export against the log.
//!
//! Deliberately absent: what is written and compared (`export`).

use std::io::{self, BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use export::{
    EVENTS, EventsExport, ExportError, Filter, Finding, Format, Manifest, ModelExport, OcelForm,
    Program, Request, Typed, Verified, Watch, export_events, export_model, export_ocel,
    stream_events, verify,
};
use kernel::Timestamp;
use projector::{Model, Projection, models_of};
use serde_json::json;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_log};
use crate::output;
use crate::program;
use crate::progress::Progress;
use crate::settings::{OutputFormat, Settings};
use crate::signals::{HangUp, Stop};

/// The help text of `export` after the options.
pub(crate) const HELP: &str = "\
Events are read from the log (--log), partition by partition, up to the end that it has at the start;
rows of a read model from Postgres (--postgres), in one snapshot. The files of events lie in one
folder for each day on which they were recorded (recorded_day=2026-03-01). A file appears under its
name only when it is whole.

If the command is interrupted, repeat it: it goes on where it stopped, and the files are the same as
without the interruption. When all is written, the folder has _manifest.json, which says what was
asked, up to which places of the log, and the digest of each file. To hold the folder against the log,
use annals export verify.

Conditions (--where) on the same name are alternatives; the names are category, type, stream, tenant,
actor, correlation and command. A read model takes only tenant.

Examples:
  annals export events --format parquet --out events/
  annals export events --format parquet --where type=OrderPlaced --columns-of OrderPlaced --out placed/
  annals export events --format parquet --after events/ --out events-since/
  annals export events --format ndjson --where category=order --out - | jq .data
  annals export daily_sales --format csv --out sales/
  annals export daily_sales --format csv --as-of 2026-03-01T00:00:00Z --out sales-in-march/";

const OCEL_HELP: &str = "\
An object-centric event log (OCEL 2.0) names with each event the objects that it is about. Each stream
is an object. Which other objects an event names, and which attributes of an object it sets, is
declared with the rules (Decider::OBJECTS). The time of an event is its business time. The file is made
at once: after an interruption, the command begins anew.

Examples:
  annals export ocel --format json --out shop.json
  annals export ocel --format sqlite --where category=order --out orders.sqlite";

const VERIFY_HELP: &str = "\
Compares the bytes of each file with the manifest, and each row of events with the log: nothing may be
left out, added or changed. What differs is named with its file, partition and position, and the
command ends with code 1; with code 5 if the log is damaged. The rows of a read model are not
compared with the log; for that, see annals projections verify.

Example:
  annals export verify events/ --log sqlite:.annals/log.db";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ExportArgs {
    /// Something else than to write rows.
    #[command(subcommand)]
    command: Option<ExportCommand>,
    /// What: events, or the name of a read model
    #[arg(value_name = "WHAT", required = true)]
    what: Option<String>,
    /// The format of the files
    #[arg(long, value_name = "FORMAT", required = true)]
    format: Option<FileFormat>,
    /// The folder of the export; - writes CSV or lines of JSON to stdout
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// Only events that were recorded at this time or later, such as 2026-03-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only events that were recorded before this time
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Only events with this value, as NAME=VALUE; may be repeated
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Give the data of this type of event, or of the events of this category, columns of its own
    #[arg(long, value_name = "TYPE")]
    columns_of: Option<String>,
    /// Export a read model as of this moment of recorded time
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// Begin where the export in this folder ended
    #[arg(long, value_name = "DIR")]
    after: Option<PathBuf>,
}

/// What `export` can do beside.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Hold an export against the log
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The folder of the export
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Write an object-centric event log (OCEL 2.0), for process mining
    #[command(after_help = OCEL_HELP)]
    Ocel {
        /// The form of the file
        #[arg(long, value_name = "FORMAT")]
        format: OcelFormat,
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Only events that were recorded at this time or later, such as 2026-03-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Only events that were recorded before this time
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// Only events with this value, as NAME=VALUE; may be repeated
        #[arg(long = "where", value_name = "CONDITION")]
        conditions: Vec<String>,
    },
}

/// The forms of an object-centric event log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OcelFormat {
    /// One JSON document
    Json,
    /// An SQLite database
    Sqlite,
}

/// The formats of files.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FileFormat {
    /// Parquet, for DuckDB, Polars, pandas, Spark
    Parquet,
    /// CSV, for spreadsheets
    Csv,
    /// One JSON document a line
    Ndjson,
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Parquet => Self::Parquet,
            FileFormat::Csv => Self::Csv,
            FileFormat::Ndjson => Self::Ndjson,
        }
    }
}

/// Runs `export`.
pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    args: ExportArgs,
) -> Result<Exit, Failure> {
    match &args.command {
        Some(ExportCommand::Verify { folder }) => return verified(domain, settings, folder).await,
        Some(ExportCommand::Ocel {
            format,
            out,
            from,
            to,
            conditions,
        }) => {
            let request = Request {
                what: EVENTS.to_owned(),
                // Not used: the form of the file is OCEL's own.
                format: Format::Ndjson,
                from: *from,
                to: *to,
                filter: Filter::read(conditions).map_err(|why| usage(&why))?,
                as_of: None,
                columns_of: None,
            };
            let form = match format {
                OcelFormat::Json => OcelForm::Json,
                OcelFormat::Sqlite => OcelForm::Sqlite,
            };
            return ocel(domain, settings, &request, form, out).await;
        }
        None => {}
    }
    let request = request(&args)?;
    let out = args.out.clone().unwrap_or_default();
    let is_stdout = out.as_os_str() == "-";
    if is_stdout && request.format == Format::Parquet {
        return Err(usage(
            "Parquet cannot be written to stdout: name a folder with --out DIR",
        ));
    }
    if is_stdout && args.after.is_some() {
        return Err(usage("--after needs a folder: name one with --out DIR"));
    }
    if request.what != EVENTS {
        return model(domain, settings, &args, request, &out).await;
    }
    if request.as_of.is_some() {
        return Err(usage(
            "--as-of is for read models; for events there is --to",
        ));
    }
    let typed = match &request.columns_of {
        Some(name) => Some(Typed::of(&domain.registry, name).map_err(|why| usage(&why))?),
        None => None,
    };
    if is_stdout {
        return to_stdout(settings, &request, typed.as_ref()).await;
    }
    let after = args
        .after
        .as_deref()
        .map(Manifest::read)
        .transpose()
        .map_err(failure)?;
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let export = EventsExport {
        log,
        folder: &out,
        request,
        typed,
        program: this_program(),
        after,
    };
    let mut progress = Progress::start("exporting events");
    let mut watch = Watch {
        progress: &mut |done, total| progress.set(done, total),
        is_stopped: &|| stop.is_asked(),
    };
    let made = export_events(export, &mut watch).await;
    concluded(settings, &out, made, &progress)
}

/// What was asked.
fn request(args: &ExportArgs) -> Result<Request, Failure> {
    let format = args
        .format
        .ok_or_else(|| usage("name the format with --format"))?;
    if args.from.zip(args.to).is_some_and(|(from, to)| from >= to) {
        return Err(usage("no time is at or after --from and before --to"));
    }
    Ok(Request {
        what: args.what.clone().unwrap_or_default(),
        format: format.into(),
        from: args.from,
        to: args.to,
        filter: Filter::read(&args.conditions).map_err(|why| usage(&why))?,
        as_of: args.as_of,
        columns_of: args.columns_of.clone(),
    })
}

async fn ocel(
    domain: &Domain,
    settings: &Settings,
    request: &Request,
    form: OcelForm,
    out: &Path,
) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let mut progress = Progress::start("exporting events");
    let mut watch = Watch {
        progress: &mut |done, total| progress.set(done, total),
        is_stopped: &|| stop.is_asked(),
    };
    let made = export_ocel(log, &domain.registry, request, form, out, &mut watch).await;
    let counts = made.map_err(|error| match error {
        ExportError::Stopped => Failure::new(
            Exit::Partial,
            "stopped before the end; the same command begins anew",
        ),
        error => failure(error),
    })?;
    progress.finish(&format!(
        "{} events with {} relations to {} objects",
        counts.events, counts.relations, counts.objects
    ));
    if settings.output != OutputFormat::Table || !io::stdout().is_terminal() {
        output::record(
            settings.output,
            &["events", "objects", "relations"],
            &counts,
        )?;
    }
    Ok(Exit::Done)
}

async fn to_stdout(
    settings: &Settings,
    request: &Request,
    typed: Option<&Typed>,
) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let mut progress = Progress::start("exporting events");
    let mut out = BufWriter::with_capacity(super::raw::BUFFER_BYTES, io::stdout());
    let mut watch = Watch {
        progress: &mut |done, total| progress.set(done, total),
        is_stopped: &|| stop.is_asked(),
    };
    match stream_events(log, request, typed, &mut out, &mut watch).await {
        Ok(rows) => {
            progress.finish(&format!("{rows} events written"));
            Ok(Exit::Done)
        }
        Err(ExportError::Closed) => Ok(Exit::Done),
        Err(ExportError::Stopped) => {
            let message = "stopped before the end; the same command begins anew, and with --out DIR \
                           it could go on";
            Err(Failure::new(Exit::Partial, message))
        }
        Err(error) => Err(failure(error)),
    }
}

async fn model(
    domain: &Domain,
    settings: &Settings,
    args: &ExportArgs,
    request: Request,
    out: &Path,
) -> Result<Exit, Failure> {
    let name = request.what.clone();
    let (projection, model) = model_named(domain, &name)?;
    if out.as_os_str() == "-" {
        return Err(usage(&format!(
            "a read model is not written to stdout: name a folder with --out DIR, or ask the query \
             door for /v1/read/{name}?format=csv"
        )));
    }
    let tenants_only = Request {
        filter: Filter {
            tenant: request.filter.tenant.clone(),
            ..Filter::default()
        },
        from: None,
        to: None,
        columns_of: None,
        ..request.clone()
    };
    if tenants_only != request || args.after.is_some() {
        return Err(usage(
            "a read model is exported as of one moment: --from, --to, --columns-of, --after and other \
             conditions than tenant are for events",
        ));
    }
    let stop = Stop::listen(HangUp::Ends)?;
    let postgres = Postgres::open(settings).await?;
    let export = ModelExport {
        postgres: postgres.url(),
        projection: projection.name(),
        model: &model,
        folder: out,
        request,
        program: this_program(),
    };
    let mut progress = Progress::start(&format!("exporting {name}"));
    let mut watch = Watch {
        progress: &mut |done, total| progress.set(done, total),
        is_stopped: &|| stop.is_asked(),
    };
    let made = export_model(export, &mut watch).await;
    postgres.close().await;
    concluded(settings, out, made, &progress)
}

/// A read model by its name, with the projection that writes it.
fn model_named<'d>(domain: &'d Domain, name: &str) -> Result<(&'d dyn Projection, Model), Failure> {
    let mut names = vec![EVENTS];
    for projection in &domain.projections {
        for model in models_of(&**projection) {
            if model.name == name {
                return Ok((&**projection, model));
            }
            names.push(model.name);
        }
    }
    let names = names.join(", ");
    let message = format!("there is no read model {name:?}; what can be exported is {names}");
    Err(Failure::new(Exit::NotFound, message))
}

fn this_program() -> Program {
    Program {
        name: program::name().to_owned(),
        version: program::shown().version,
    }
}

/// Tells what was made, and shows it on stdout.
fn concluded(
    settings: &Settings,
    out: &Path,
    made: Result<Option<Manifest>, ExportError>,
    progress: &Progress,
) -> Result<Exit, Failure> {
    let is_new = !matches!(made, Ok(None));
    let manifest = match made {
        Ok(Some(made)) => made,
        Ok(None) => Manifest::read(out).map_err(failure)?,
        Err(ExportError::Stopped) => {
            let message = "stopped before the end; repeat the same command to go on";
            return Err(Failure::new(Exit::Partial, message));
        }
        Err(error) => return Err(failure(error)),
    };
    let (rows, files) = (manifest.rows, manifest.files.len());
    match is_new {
        true => progress.finish(&format!("{rows} rows in {files} files")),
        false => talk!("{} has this export already, whole", out.display()),
    }
    let summary = json!({
        "folder": out.display().to_string(),
        "what": manifest.request.what,
        "format": manifest.request.format,
        "log": manifest.log,
        "rows": rows,
        "files": files,
        "bytes": manifest.bytes,
        "sha256": manifest.sha256,
    });
    if settings.output != OutputFormat::Table || !io::stdout().is_terminal() {
        let columns = [
            "folder", "what", "format", "log", "rows", "files", "bytes", "sha256",
        ];
        output::record(settings.output, &columns, &summary)?;
    }
    Ok(Exit::Done)
}

async fn verified(domain: &Domain, settings: &Settings, folder: &Path) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let mut progress = Progress::start("comparing with the log");
    let mut watch = Watch {
        progress: &mut |done, total| progress.set(done, total),
        is_stopped: &|| stop.is_asked(),
    };
    let found = verify(log, folder, &domain.registry, &mut watch)
        .await
        .map_err(failure)?;
    let outcome = match found.findings.len() {
        0 => "all is as the log says".to_owned(),
        count => format!("{count} differences"),
    };
    progress.finish(&outcome);
    show(settings, &found)?;
    Ok(match (found.is_log_damaged, found.findings.is_empty()) {
        (true, _) => Exit::Damage,
        (false, false) => Exit::Failed,
        (false, true) => Exit::Done,
    })
}

fn show(settings: &Settings, found: &Verified) -> Result<(), Failure> {
    if settings.output.is_json() {
        let record = json!({
            "log": found.manifest.log,
            "what": found.manifest.request.what,
            "rows": found.manifest.rows,
            "files": found.files,
            "findings": found.findings,
        });
        return output::record(settings.output, &[], &record);
    }
    for finding in &found.findings {
        talk!("{}", told(finding));
    }
    let columns = ["path", "rows", "as_written", "complete"];
    output::rows(settings.output, &columns, &found.files)
}

/// A finding as one line.
fn told(finding: &Finding) -> String {
    let mut line = String::new();
    if let Some(file) = &finding.file {
        line.push_str(&format!("{}: ", output::shown(file)));
    }
    match (finding.partition, finding.position) {
        (Some(partition), Some(position)) => {
            line.push_str(&format!("partition {partition}, position {position}: "));
        }
        (Some(partition), None) => line.push_str(&format!("partition {partition}: ")),
        _ => {}
    }
    line.push_str(&output::shown(&finding.what));
    line
}

fn usage(why: &str) -> Failure {
    Failure::new(Exit::Usage, why)
}

fn failure(error: ExportError) -> Failure {
    let exit = match &error {
        ExportError::Log(_) | ExportError::Stop(_) => Exit::Failed,
        ExportError::Postgres { .. } => Exit::Unavailable,
        ExportError::Asked(_) => Exit::Usage,
        ExportError::Stopped => Exit::Partial,
        ExportError::File { .. }
        | ExportError::Full { .. }
        | ExportError::Format { .. }
        | ExportError::Folder(_)
        | ExportError::Closed => Exit::Failed,
    };
    match error {
        ExportError::Log(error) => error.into(),
        ExportError::Stop(stop) => Failure::from(stop)
            .hint("what stands before that place is exported once the log is mended"),
        error => Failure::of(exit, &error),
    }
}
