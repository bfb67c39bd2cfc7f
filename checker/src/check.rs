//! The whole check: it reads histories and a log, and returns a report.
//!
//! Invariant: the log is read once, in order, and never stored. Histories may be read before or
//! after it. Deliberately absent: files and printing.

use std::io::BufRead;

use crate::book::Book;
use crate::compare;
use crate::dump::{DumpReader, Header, RawRecord};
use crate::fold::LogFold;
use crate::history::{HistoryReader, Line};
use crate::lines::InputError;
use crate::order;
use crate::report::{Report, Summary, VIOLATIONS_PER_KIND_MAX, Violation};
use crate::rules::{NoRules, Rules};

/// Whether the histories hold everything that was ever sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Other programs may have written, too.
    #[default]
    Partial,
    /// Everything in the log must have been sent by these clients.
    Complete,
}

/// Whether the log's store was made to lose records that it had acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Nothing may be lost.
    #[default]
    Forbidden,
    /// What follows from a loss is counted, but is no violation.
    Expected,
}

/// How to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the histories hold everything that was ever sent.
    pub scope: Scope,
    /// Whether loss is expected.
    pub loss: Loss,
}

/// What was found so far.
pub(crate) struct Findings {
    options: Options,
    pub(crate) summary: Summary,
    report: Report,
}

impl Findings {
    pub(crate) fn add(&mut self, violation: Violation) {
        let kind = violation.kind;
        let Options { scope, loss } = self.options;
        let is_expected = (loss == Loss::Expected && kind.follows_from_loss())
            || (scope == Scope::Partial && kind.may_be_of_before());
        let counts = match is_expected {
            true => &mut self.report.expected,
            false => &mut self.report.counts,
        };
        let count = counts.entry(kind.name()).or_default();
        *count += 1;
        if !is_expected && *count <= VIOLATIONS_PER_KIND_MAX {
            self.report.violations.push(violation);
        }
    }
}

/// One check.
///
/// Read the log only after the last answer has arrived: a later commit would look lost.
pub struct Checker {
    options: Options,
    book: Book,
    log: LogFold,
    findings: Findings,
}

impl Checker {
    /// A check that knows no domain's rules.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_rules(options, Box::new(NoRules))
    }

    /// A check that also compares each commit with the rules of its domain.
    #[must_use]
    pub fn with_rules(options: Options, rules: Box<dyn Rules>) -> Self {
        Self {
            options,
            book: Book::default(),
            log: LogFold::new(rules),
            findings: Findings {
                options,
                summary: Summary::default(),
                report: Report::default(),
            },
        }
    }

    /// Reads a history. `name` appears in the evidence.
    ///
    /// # Errors
    /// If it cannot be read, or holds a wrong line that is not just cut off.
    pub fn history(&mut self, name: &str, input: impl BufRead) -> Result<(), InputError> {
        let file = self.book.file(name);
        let mut reader = HistoryReader::of(name, input);
        while let Some((number, line)) = reader.next()? {
            match line {
                Line::Torn => self.findings.summary.torn_lines += 1,
                Line::Entry(entry) => {
                    if let Some(violation) = self.book.note(file, number, &entry) {
                        self.findings.add(violation);
                    }
                }
            }
        }
        Ok(())
    }

    /// Skips the damaged places that an operator has acknowledged, as all readers do. Each place is
    /// a partition and an offset. Must be called before the log is read.
    pub fn acknowledge(&mut self, places: impl IntoIterator<Item = (u32, u64)>) {
        self.log.acknowledge(places);
    }

    /// Begins the log.
    pub fn begin_log(&mut self, header: &Header) {
        self.findings.summary.partitions = header.partition_count;
    }

    /// Judges the next record of the log: partition by partition, in the order of offsets.
    ///
    /// # Errors
    /// If partitions or offsets do not ascend.
    pub fn record(&mut self, partition: u32, record: &RawRecord) -> Result<(), InputError> {
        let taken = self
            .log
            .take(partition, record, &mut self.book, &mut self.findings);
        taken.map_err(|reason| InputError {
            place: "log".to_owned(),
            reason,
        })
    }

    /// Reads the log from a dump.
    ///
    /// # Errors
    /// If the input is not a dump, was cut off, or is out of order.
    pub fn dump(&mut self, name: &str, input: impl BufRead) -> Result<(), InputError> {
        let mut reader = DumpReader::open(name, input)?;
        self.begin_log(reader.header());
        while let Some((partition, record)) = reader.next_record()? {
            self.record(partition, &record)?;
        }
        Ok(())
    }

    /// Judges all commands and their order, and returns the report.
    #[must_use]
    pub fn finish(self) -> Report {
        let Self {
            options,
            book,
            mut findings,
            ..
        } = self;
        for command in &book.commands {
            compare::compare(&book, command, options.scope, &mut findings);
        }
        order::compare(&book, &mut findings);
        let mut report = findings.report;
        report.summary = findings.summary;
        report
    }
}
