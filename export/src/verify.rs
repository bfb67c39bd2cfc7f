//! Holds an export against itself and against the log.
//!
//! Invariant: whatever was left out, added or changed since, in a file, in the manifest or in the log, is
//! named with its place: the first difference of each file and of each partition. Nothing that the
//! manifest says is trusted. Deliberately absent: the rows of read models, which `annals projections
//! verify` compares with the log; of them the bytes and the places in the log are verified here.

mod rows;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path};
use std::sync::Arc;

use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use kernel::registry::Registry;
use position::{Partition, Position};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::cell::Column;
use crate::error::ExportError;
use crate::events;
use crate::journal::Range;
use crate::manifest::{EVENTS, FORM, FileEntry, MANIFEST_NAME, Manifest, PartitionEntry};
use crate::run::Watch;
use crate::source::{self, Read};
use crate::typed::Typed;
use rows::Comparison;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, if it is about one.
    pub file: Option<String>,
    /// The partition, if it is about a place in the log.
    pub partition: Option<Partition>,
    /// The position in the partition.
    pub position: Option<Position>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    fn of_export(what: impl Into<String>) -> Self {
        Self {
            file: None,
            partition: None,
            position: None,
            what: what.into(),
        }
    }

    fn of_file(file: &str, what: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_owned()),
            ..Self::of_export(what)
        }
    }

    fn of_partition(partition: Partition, what: impl Into<String>) -> Self {
        Self {
            partition: Some(partition),
            ..Self::of_export(what)
        }
    }

    fn at(self, partition: Partition, position: Position) -> Self {
        Self {
            partition: Some(partition),
            position: Some(position),
            ..self
        }
    }
}

/// What was found of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileVerdict {
    /// Its path.
    pub path: String,
    /// Its rows, as the manifest says.
    pub rows: u64,
    /// Whether it has the bytes that were written.
    pub as_written: bool,
    /// Whether it has exactly the rows that the log gives; absent if that was not compared.
    pub complete: Option<bool>,
}

/// What verification found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The export's manifest.
    pub manifest: Manifest,
    /// Its files.
    pub files: Vec<FileVerdict>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Whether the log is damaged.
    pub is_log_damaged: bool,
}

/// Verifies the export in a folder against the log.
///
/// # Errors
/// [`ExportError`] if there is no export, or the log does not answer.
pub async fn verify(
    log: Arc<dyn EventLog>,
    folder: &Path,
    registry: &Registry,
    watch: &mut Watch<'_>,
) -> Result<Verified, ExportError> {
    let manifest = Manifest::read(folder)?;
    if manifest.form > FORM {
        let form = manifest.form;
        return Err(ExportError::Asked(format!(
            "a newer program wrote this export (form {form}, and this program knows {FORM}): upgrade"
        )));
    }
    let mut findings = Vec::new();
    if !manifest.is_intact() {
        let what = format!("{MANIFEST_NAME} was changed after it was written");
        findings.push(Finding::of_export(what));
    }
    let mut files: Vec<FileVerdict> = manifest.files.iter().map(verdict).collect();
    for (entry, verdict) in manifest.files.iter().zip(&mut files) {
        if let Err(what) = as_written(folder, entry) {
            verdict.as_written = false;
            findings.push(Finding::of_file(&entry.path, what));
        }
        if (watch.is_stopped)() {
            return Err(ExportError::Stopped);
        }
    }
    findings.extend(strangers(folder, &manifest)?);
    findings.extend(sums(&manifest));
    let mut verification = Verification {
        log,
        folder,
        manifest: &manifest,
        columns: Vec::new(),
        typed: None,
        findings,
        is_log_damaged: false,
        read: 0,
        total: 0,
    };
    if verification.prepare(registry).await? {
        verification.against_log(watch).await?;
        for (entry, verdict) in manifest.files.iter().zip(&mut files) {
            if manifest.request.what == EVENTS {
                let mut of_file = verification.findings.iter();
                let is_bad = of_file.any(|one| one.file.as_deref() == Some(&entry.path));
                verdict.complete = Some(!is_bad);
            }
        }
    }
    let Verification {
        findings,
        is_log_damaged,
        ..
    } = verification;
    Ok(Verified {
        manifest,
        files,
        findings,
        is_log_damaged,
    })
}

fn verdict(entry: &FileEntry) -> FileVerdict {
    FileVerdict {
        path: entry.path.clone(),
        rows: entry.rows,
        as_written: true,
        complete: None,
    }
}

/// Whether a path leads to a place below the folder of the export.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Compares the bytes of a file with what the manifest says.
fn as_written(folder: &Path, entry: &FileEntry) -> Result<(), String> {
    if !is_inside(&entry.path) {
        return Err("the manifest names a file outside of the export".to_owned());
    }
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = File::open(folder.join(&entry.path)).map_err(unreadable)?;
    let (mut digest, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut piece).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        digest.update(&piece[..read]);
    }
    if bytes != entry.bytes {
        return Err(format!(
            "has {bytes} bytes, and {} were written",
            entry.bytes
        ));
    }
    match hex::encode(digest.finalize()) == entry.sha256 {
        true => Ok(()),
        false => Err("has other bytes than were written".to_owned()),
    }
}

/// The files that a reader of the export would take and the manifest does not name.
fn strangers(folder: &Path, manifest: &Manifest) -> Result<Vec<Finding>, ExportError> {
    let mut findings = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(inner) = waiting.pop() {
        let failed = || ExportError::file("read", &inner);
        for entry in fs::read_dir(&inner).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let relative = path.strip_prefix(folder).unwrap_or(&path);
            let relative = relative.to_string_lossy().replace('\\', "/");
            let is_named = manifest.files.iter().any(|file| file.path == relative);
            if !is_named && !name.starts_with(['.', '_']) {
                findings.push(Finding::of_file(&relative, "is no file of this export"));
            }
        }
    }
    findings.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(findings)
}

/// What contradicts itself in the numbers of a manifest.
fn sums(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows: u64 = manifest.files.iter().map(|file| file.rows).sum();
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    if (rows, bytes) != (manifest.rows, manifest.bytes) {
        findings.push(Finding::of_export(
            "the manifest's rows and bytes are not the sums of those of its files",
        ));
    }
    if manifest.request.what == EVENTS {
        let mut of_files: BTreeMap<Partition, u64> = BTreeMap::new();
        for file in &manifest.files {
            if let Some(of) = &file.of {
                *of_files.entry(of.partition).or_default() += file.rows;
            } else {
                let what = "the manifest does not say which commits it is of";
                findings.push(Finding::of_file(&file.path, what));
            }
        }
        for entry in &manifest.partitions {
            let found = of_files.remove(&entry.partition).unwrap_or(0);
            if found != entry.rows {
                let what = format!("has {} rows, and its files have {found}", entry.rows);
                findings.push(Finding::of_partition(entry.partition, what));
            }
        }
        for partition in of_files.into_keys() {
            let what = "has files, and the manifest does not say up to where it was read";
            findings.push(Finding::of_partition(partition, what));
        }
    }
    findings
}

struct Verification<'a> {
    log: Arc<dyn EventLog>,
    folder: &'a Path,
    manifest: &'a Manifest,
    columns: Vec<Column>,
    typed: Option<Typed>,
    findings: Vec<Finding>,
    is_log_damaged: bool,
    read: u64,
    total: u64,
}

impl Verification<'_> {
    /// Whether the log is the one of the export, so that both can be compared.
    async fn prepare(&mut self, registry: &Registry) -> Result<bool, ExportError> {
        let log = source::log_id(&*self.log).await?;
        if log != self.manifest.log {
            let what = format!(
                "the export is of log {}, and this is log {log}",
                self.manifest.log
            );
            self.findings.push(Finding::of_export(what));
            return Ok(false);
        }
        if self.manifest.request.what != EVENTS {
            return Ok(true);
        }
        if let Some(name) = &self.manifest.request.columns_of {
            let typed = Typed::of(registry, name).map_err(ExportError::Asked)?;
            self.typed = Some(typed);
        }
        self.columns = events::columns(self.typed.as_ref());
        if self.columns != self.manifest.columns {
            self.findings.push(Finding::of_export(
                "the manifest's columns are not those that this program makes: another version made \
                 the export, or the manifest was changed",
            ));
            return Ok(false);
        }
        let partitions = self.manifest.partitions.iter();
        let named: Vec<u32> = partitions.map(|entry| entry.partition.0).collect();
        let all: Vec<u32> = (0..self.log.partition_count()).collect();
        if named != all {
            let what = "the manifest does not name each partition of the log once";
            self.findings.push(Finding::of_export(what));
            return Ok(false);
        }
        Ok(true)
    }

    async fn against_log(&mut self, watch: &mut Watch<'_>) -> Result<(), ExportError> {
        let end = |entry: &PartitionEntry| entry.to.as_ref().map_or(0, |to| to.offset.0 + 1);
        self.total = self.manifest.partitions.iter().map(end).sum();
        for entry in &self.manifest.partitions {
            self.partition(entry, watch).await?;
        }
        Ok(())
    }

    async fn partition(
        &mut self,
        entry: &PartitionEntry,
        watch: &mut Watch<'_>,
    ) -> Result<(), ExportError> {
        let partition = entry.partition;
        let mut comparison = Comparison::new(self.manifest, partition, self.folder, &self.columns);
        let Some(to) = &entry.to else {
            comparison.finish(&mut self.findings);
            return Ok(());
        };
        let range = Range {
            partition,
            from: entry.from.clone(),
            end: to.offset.next(),
        };
        let mut reads = source::read(Arc::clone(&self.log), vec![range]);
        while let Some(read) = reads.recv().await {
            if (watch.is_stopped)() {
                return Err(ExportError::Stopped);
            }
            match read {
                Ok(Read::Batch(batch)) => {
                    for placed in &batch.commits {
                        let request = &self.manifest.request;
                        if request.what != EVENTS || !request.takes(&placed.commit) {
                            continue;
                        }
                        let filter = &request.filter;
                        let events = (0..).zip(&placed.commit.events);
                        for (index, event) in events.filter(|(_, one)| filter.takes_event(one)) {
                            let row = events::row(placed, index, event, self.typed.as_ref());
                            let row = row.map_err(ExportError::Asked)?;
                            comparison.take(placed, &row, &mut self.findings);
                        }
                    }
                    self.read += batch.commits.len() as u64;
                    (watch.progress)(self.read, self.total.max(self.read));
                }
                Ok(Read::End { to: found, .. }) => {
                    comparison.finish(&mut self.findings);
                    compare_ends(entry, found.as_ref(), &mut self.findings);
                }
                Err(ExportError::Stop(stop)) => {
                    self.is_log_damaged = true;
                    let what = format!("the log cannot be read to the end of the export: {stop}");
                    self.findings.push(Finding::of_partition(partition, what));
                    comparison.give_up(&mut self.findings);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Compares the place that the log gives at the end of the export with the manifest's.
fn compare_ends(entry: &PartitionEntry, found: Option<&Checkpoint>, findings: &mut Vec<Finding>) {
    let (partition, expected) = (entry.partition, entry.to.as_ref());
    let (Some(found), Some(expected)) = (found, expected) else {
        let what = "the log has no record any more where the export read some";
        findings.push(Finding::of_partition(partition, what));
        return;
    };
    let of = |place: &Checkpoint| (place.position, place.head);
    if of(found) != of(expected) {
        let what = format!(
            "the chain's head is {} at position {} in the log, and {} at position {} in the \
             manifest",
            found.head, found.position, expected.head, expected.position
        );
        let finding = Finding::of_partition(partition, what);
        findings.push(finding.at(partition, expected.position));
    } else if (found.offset, found.record_hash) != (expected.offset, expected.record_hash) {
        let what = format!("another record stands at offset {}", expected.offset);
        findings.push(Finding::of_partition(partition, what));
    }
}
