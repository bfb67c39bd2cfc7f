//! Exports events into files: one folder for each day on which they were recorded, one or more files
//! in it for each partition.
//!
//! Invariant: which commits a file has, and in which order, follows from the log and the request alone.
//! One file is written at a time. Deliberately absent: the formats, and read models (`models`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use event_log::record::Record;
use event_log::subscription::{Batch, Placed};
use parquet::errors::ParquetError;
use position::{Partition, Position};

use crate::cell::{Cell, Column, day_of, day_text};
use crate::error::ExportError;
use crate::events;
use crate::journal::{Journal, Plan, Range, Step};
use crate::lines::LinesFile;
use crate::manifest::{
    FORM, FileEntry, FileSpan, Format, MANIFEST_NAME, Manifest, PartitionEntry, Program, Request,
};
use crate::output::{Hashed, Part, Whole, write_whole};
use crate::parquet_file::ParquetFile;
use crate::source::{self, Read, head_at};
use crate::typed::Typed;

/// A file ends with the commit that reaches so many rows or bytes, before compression.
pub(crate) const FILE_ROWS: u64 = 1_000_000;
pub(crate) const FILE_BYTES: u64 = 1 << 30;

/// How an export shows how far it is, and learns that it must stop.
pub struct Watch<'w> {
    /// Told how many records of how many were read.
    pub progress: &'w mut (dyn FnMut(u64, u64) + Send),
    /// Whether the export must stop.
    pub is_stopped: &'w (dyn Fn() -> bool + Sync),
}

/// An export of events that is wanted.
pub struct EventsExport<'a> {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The folder of the export.
    pub folder: &'a Path,
    /// What is wanted.
    pub request: Request,
    /// The columns of `request.columns_of`.
    pub typed: Option<Typed>,
    /// The program that exports.
    pub program: Program,
    /// An earlier export, which this one continues: it begins where that one ended.
    pub after: Option<Manifest>,
}

/// Exports events; goes on with an unfinished export of the same request. `None` if the folder has
/// this export already, whole.
///
/// # Errors
/// [`ExportError`]; unless it names the folder, the same call goes on later.
pub async fn export_events(
    export: EventsExport<'_>,
    watch: &mut Watch<'_>,
) -> Result<Option<Manifest>, ExportError> {
    let log = source::log_id(&*export.log).await?;
    if is_there(export.folder, &export.request, log)? {
        return Ok(None);
    }
    let earlier = export.after.as_ref();
    if let Some(earlier) = earlier.filter(|earlier| earlier.log != log) {
        let other = earlier.log;
        let why = format!("the earlier export is of log {other}, and this is log {log}");
        return Err(ExportError::Asked(why));
    }
    let from = |partition| {
        let mut partitions = earlier?.partitions.iter();
        partitions
            .find(|one| one.partition == partition)?
            .to
            .clone()
    };
    let ranges = source::ranges(&*export.log, from).await?;
    let plan = Plan {
        form: FORM,
        program: export.program.clone(),
        request: export.request.clone(),
        columns: events::columns(export.typed.as_ref()),
        log,
        ranges,
        rows_version: None,
    };
    let is_equal = |begun: &Plan| differs(begun, &plan);
    let (mut journal, plan) = Journal::open(export.folder, is_equal, || plan.clone())?;
    journal.require_files()?;
    let mut run = Run {
        export: &export,
        plan: &plan,
        file: None,
        written: journal.files().map(|file| file.bytes).sum(),
        rows: 0,
        read: 0,
        total: plan.ranges.iter().map(records_of).sum(),
    };
    if let Err(error) = run.all(&mut journal, watch).await {
        if let Some(file) = run.file.take() {
            file.part.discard();
        }
        return Err(run.explained(error));
    }
    finish(export.folder, journal, plan).map(Some)
}

/// Whether the folder has this export already, whole.
pub(crate) fn is_there(
    folder: &Path,
    request: &Request,
    log: position::LogId,
) -> Result<bool, ExportError> {
    if !folder.join(MANIFEST_NAME).exists() {
        return Ok(false);
    }
    let there = Manifest::read(folder)?;
    if there.request == *request && there.log == log {
        return Ok(true);
    }
    let folder = folder.display();
    Err(ExportError::Folder(format!(
        "{folder} has another export: of {} from log {}; name another folder",
        there.request.what, there.log
    )))
}

/// Why an unfinished export is not the one that is wanted.
pub(crate) fn differs(begun: &Plan, wanted: &Plan) -> Result<(), String> {
    if begun.log != wanted.log {
        return Err(format!(
            "it is of log {}, and this is log {}",
            begun.log, wanted.log
        ));
    }
    if begun.request != wanted.request {
        return Err("it was begun with other arguments".to_owned());
    }
    if begun.program != wanted.program || begun.form != wanted.form {
        let Program { name, version } = &begun.program;
        return Err(format!(
            "{name} {version} began it, and another version may write other bytes"
        ));
    }
    if begun.columns != wanted.columns {
        return Err("the columns of the events' data have changed since".to_owned());
    }
    let from =
        |plan: &Plan| -> Vec<_> { plan.ranges.iter().map(|range| range.from.clone()).collect() };
    match from(begun) == from(wanted) {
        true => Ok(()),
        false => Err("it continues another export".to_owned()),
    }
}

/// About how many records a range has.
fn records_of(range: &Range) -> u64 {
    let first = range.from.as_ref().map_or(0, |from| from.offset.0 + 1);
    range.end.0.saturating_sub(first)
}

/// Writes the manifest, and ends the export.
pub(crate) fn finish(folder: &Path, journal: Journal, plan: Plan) -> Result<Manifest, ExportError> {
    let files: Vec<FileEntry> = journal.files().cloned().collect();
    let mut partitions: Vec<PartitionEntry> = Vec::new();
    for step in &journal.steps {
        if let Step::Done(partition) = step {
            partitions.push(partition.clone());
        }
    }
    let manifest = Manifest {
        form: plan.form,
        program: plan.program,
        request: plan.request,
        log: plan.log,
        columns: plan.columns,
        partitions,
        rows: files.iter().map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        sha256: String::new(),
    };
    let path = folder.join(MANIFEST_NAME);
    let unwritten = |error: serde_json::Error| ExportError::file("write", &path)(error.into());
    let manifest = manifest.sealed().map_err(unwritten)?;
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(unwritten)?;
    text.push(b'\n');
    write_whole(&path, &text)?;
    journal.remove()?;
    Ok(manifest)
}

/// An export under way.
struct Run<'a> {
    export: &'a EventsExport<'a>,
    plan: &'a Plan,
    file: Option<EventFile>,
    /// The bytes of the files so far.
    written: u64,
    /// The rows of the present partition so far.
    rows: u64,
    read: u64,
    total: u64,
}

/// A file of events that is being written.
struct EventFile {
    part: Part,
    rows_file: RowsFile,
    path: String,
    day: i32,
    bytes: u64,
    partition: Partition,
    first: Position,
    last: Position,
    last_record: Record,
}

/// A partition that is not done yet.
struct Begun {
    range: Range,
    /// The position of the last commit whose events are in whole files.
    behind: Position,
    rows: u64,
}

impl Run<'_> {
    /// What the journal says is still to be done.
    fn begun(&self, journal: &Journal) -> Vec<Begun> {
        let mut todo = Vec::new();
        for range in &self.plan.ranges {
            let mut begun = Begun {
                range: range.clone(),
                behind: Position(0),
                rows: 0,
            };
            let mut is_done = false;
            for step in &journal.steps {
                match step {
                    Step::Done(done) => is_done |= done.partition == range.partition,
                    Step::File { entry, next } => {
                        let span = entry.of.as_ref();
                        if let Some(span) = span.filter(|of| of.partition == range.partition) {
                            begun.behind = span.last;
                            begun.rows += entry.rows;
                            begun.range.from = next.as_deref().cloned();
                        }
                    }
                }
            }
            if !is_done {
                todo.push(begun);
            }
        }
        todo
    }

    async fn all(
        &mut self,
        journal: &mut Journal,
        watch: &mut Watch<'_>,
    ) -> Result<(), ExportError> {
        let todo = self.begun(journal);
        let left: u64 = todo.iter().map(|begun| records_of(&begun.range)).sum();
        self.read = self.total.saturating_sub(left);
        let ranges = todo.iter().map(|begun| begun.range.clone()).collect();
        let mut reads = source::read(Arc::clone(&self.export.log), ranges);
        for begun in todo {
            self.rows = begun.rows;
            let mut behind = begun.range.from.clone();
            loop {
                if (watch.is_stopped)() {
                    return Err(ExportError::Stopped);
                }
                let Some(read) = reads.recv().await else {
                    return Err(ExportError::Stopped);
                };
                match read? {
                    Read::Batch(batch) => {
                        self.take(&batch, begun.behind, journal)?;
                        let before = behind.as_ref().map_or(0, |from| from.offset.0 + 1);
                        self.read += (batch.after.offset.0 + 1).saturating_sub(before);
                        behind = Some(batch.after);
                        (watch.progress)(self.read, self.total.max(self.read));
                    }
                    Read::End { partition, to } => {
                        self.end_file(to.clone(), journal)?;
                        journal.note(Step::Done(PartitionEntry {
                            partition,
                            from: self.beginning(partition),
                            to,
                            rows: self.rows,
                        }))?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the reading of a partition began.
    fn beginning(&self, partition: Partition) -> Option<Checkpoint> {
        let mut ranges = self.plan.ranges.iter();
        ranges
            .find(|range| range.partition == partition)?
            .from
            .clone()
    }

    fn take(
        &mut self,
        batch: &Batch,
        behind: Position,
        journal: &mut Journal,
    ) -> Result<(), ExportError> {
        for placed in &batch.commits {
            if placed.position <= behind || !self.export.request.takes(&placed.commit) {
                continue;
            }
            for (index, event) in (0..).zip(&placed.commit.events) {
                if !self.export.request.filter.takes_event(event) {
                    continue;
                }
                let row = events::row(placed, index, event, self.export.typed.as_ref());
                let row = row.map_err(|what| ExportError::Format {
                    what,
                    format: "typed columns",
                    reason: "leave out --columns-of: the column data has all of it".to_owned(),
                })?;
                self.write(placed, &row, batch.before.as_ref(), journal)?;
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        placed: &Placed,
        row: &[Cell<'_>],
        before: Option<&Checkpoint>,
        journal: &mut Journal,
    ) -> Result<(), ExportError> {
        let day = day_of(placed.commit.recorded_at.micros());
        let ends = self.file.as_ref().is_some_and(|file| {
            let is_large = file.rows_file.rows >= FILE_ROWS || file.bytes >= FILE_BYTES;
            file.last != placed.position && (file.day != day || is_large)
        });
        if ends {
            self.end_file(before.cloned(), journal)?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.begin(placed, day)?),
        };
        let written = file.rows_file.write(row);
        written.map_err(|error| file.part.failed(error))?;
        file.bytes += row.iter().map(|cell| cell.size() as u64).sum::<u64>();
        if file.last != placed.position || file.rows_file.rows == 1 {
            file.last = placed.position;
            file.last_record = placed.record.clone();
        }
        self.rows += 1;
        Ok(())
    }

    fn begin(&self, placed: &Placed, day: i32) -> Result<EventFile, ExportError> {
        let format = self.export.request.format;
        let (Partition(partition), Position(position)) = (placed.partition, placed.position);
        let path = format!(
            "recorded_day={}/events-{partition:04}-{position:012}.{}",
            day_text(day),
            format.extension()
        );
        let (part, rows_file) =
            RowsFile::begin(self.export.folder.join(&path), &self.plan.columns, format)?;
        Ok(EventFile {
            part,
            rows_file,
            path,
            day,
            bytes: 0,
            partition: placed.partition,
            first: placed.position,
            last: placed.position,
            last_record: placed.record.clone(),
        })
    }

    /// Ends the present file, if there is one. `next` is a place from which reading can go on.
    fn end_file(
        &mut self,
        next: Option<Checkpoint>,
        journal: &mut Journal,
    ) -> Result<(), ExportError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let rows = file.rows_file.rows;
        let whole = file.rows_file.finish(file.part)?;
        let entry = FileEntry {
            path: file.path,
            rows,
            bytes: whole.bytes,
            sha256: whole.sha256.clone(),
            of: Some(FileSpan {
                partition: file.partition,
                first: file.first,
                last: file.last,
                head: head_at(&file.last_record),
            }),
        };
        self.written += whole.bytes;
        journal.note(Step::File {
            entry,
            next: next.map(Box::new),
        })?;
        whole.appear()
    }

    /// The error; if the disk is full, with how much is missing.
    fn explained(&self, error: ExportError) -> ExportError {
        let ExportError::Full { path, .. } = error else {
            return error;
        };
        let left = self.total.saturating_sub(self.read);
        let missing = u128::from(self.written.max(1)) * u128::from(left.max(1))
            / u128::from(self.read.max(1));
        ExportError::Full {
            path,
            written: self.written,
            missing: u64::try_from(missing).unwrap_or(u64::MAX),
        }
    }
}

/// A file of rows in any format.
pub(crate) struct RowsFile {
    file: AnyFile,
    path: PathBuf,
    pub(crate) rows: u64,
}

enum AnyFile {
    Parquet(Box<ParquetFile<Hashed>>),
    Lines(Box<LinesFile<Hashed>>),
}

impl RowsFile {
    pub(crate) fn begin(
        path: PathBuf,
        columns: &[Column],
        format: Format,
    ) -> Result<(Part, Self), ExportError> {
        let (part, hashed) = Part::begin(path.clone())?;
        let file = match format {
            Format::Parquet => ParquetFile::begin(hashed, columns)
                .map(|file| AnyFile::Parquet(Box::new(file)))
                .map_err(|error| unwritten(&path, &error)),
            Format::Csv | Format::Ndjson => LinesFile::begin(hashed, columns, format)
                .map(|file| AnyFile::Lines(Box::new(file)))
                .map_err(ExportError::file("write", &path)),
        };
        let file = file.map_err(|error| part.failed(error))?;
        Ok((
            part,
            Self {
                file,
                path,
                rows: 0,
            },
        ))
    }

    pub(crate) fn write(&mut self, row: &[Cell<'_>]) -> Result<(), ExportError> {
        self.rows += 1;
        match &mut self.file {
            AnyFile::Parquet(file) => file
                .write(row)
                .map_err(|error| unwritten(&self.path, &error)),
            AnyFile::Lines(file) => file
                .write(row)
                .map_err(ExportError::file("write", &self.path)),
        }
    }

    pub(crate) fn finish(self, part: Part) -> Result<Whole, ExportError> {
        let path = self.path;
        let finished: Result<Hashed, ExportError> = match self.file {
            AnyFile::Parquet(file) => file.finish().map_err(|error| unwritten(&path, &error)),
            AnyFile::Lines(file) => {
                let finished: io::Result<Hashed> = file.finish();
                finished.map_err(ExportError::file("write", &path))
            }
        };
        match finished {
            Ok(hashed) => part.complete(hashed),
            Err(error) => Err(part.failed(error)),
        }
    }
}

fn unwritten(path: &Path, error: &ParquetError) -> ExportError {
    ExportError::Format {
        what: path.display().to_string(),
        format: "Parquet",
        reason: error.to_string(),
    }
}
