//! Reads the log record by record, unchanged: for a dump and for the checker.
//!
//! Invariant: reads exactly the records that were in the log when the reading began, in order.
//! Deliberately absent: any verdict, and the format of a dump (`checker::dump`).

use std::io::{self, BufWriter};

use checker::dump::{DumpWriter, Header, PartitionBounds, RawRecord};
use event_log::log::EventLog;
use event_log::record::Record;
use position::Partition;

use crate::exit::{Exit, Failure};
use crate::node::open_log;
use crate::progress::Progress;
use crate::settings::Settings;

/// How many bytes of a dump are buffered before they are written.
pub const BUFFER_BYTES: usize = 1 << 20;

/// The partitions and their current offsets.
/// The header of a dump.
///
/// # Errors
/// [`Failure`] if the log does not answer.
pub async fn header(log: &dyn EventLog) -> Result<Header, Failure> {
    let mut partitions = Vec::new();
    for partition in 0..log.partition_count() {
        let bounds = log.bounds(Partition(partition)).await?;
        partitions.push(PartitionBounds {
            partition,
            first: bounds.first.0,
            end: bounds.end.0,
        });
    }
    Ok(Header::of(partitions))
}

/// Reads every record below the ends that the header names; returns how many there were.
pub async fn read(
    log: &dyn EventLog,
    header: &Header,
    progress: &mut Progress,
    mut take: impl FnMut(u32, &RawRecord) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let total: u64 = header.partitions.iter().map(|p| p.end - p.first).sum();
    let mut count = 0;
    for bounds in &header.partitions {
        let partition = Partition(bounds.partition);
        let mut from = position::Offset(bounds.first);
        while from.0 < bounds.end {
            let chunk = log.read(partition, from).await?;
            let records = chunk.records.iter();
            for record in records.take_while(|record| record.offset.0 < bounds.end) {
                take(bounds.partition, &raw(record))?;
                count += 1;
            }
            progress.set(count, total.max(count));
            if chunk.at_end {
                break;
            }
            from = chunk.next;
        }
    }
    Ok(count)
}

fn raw(record: &Record) -> RawRecord {
    let headers = record.headers.iter();
    let header = headers.map(|(name, value)| (name.to_vec(), value.as_ref().map(|v| v.to_vec())));
    RawRecord {
        offset: record.offset.0,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: header.collect(),
    }
}

/// Writes the log to stdout.
pub(super) async fn dump(settings: &Settings) -> Result<Exit, Failure> {
    let log = open_log(settings).await?;
    let header = header(&*log).await?;
    let mut progress = Progress::start("reading the log");
    // Not locked: the lock must not be held across an await.
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
    let mut writer = DumpWriter::begin(out, &header).map_err(|error| unwritten(&error))?;
    let count = read(&*log, &header, &mut progress, |partition, record| {
        let written = writer.record(partition, record);
        written.map_err(|error| unwritten(&error))
    });
    let count = count.await?;
    writer.finish().map_err(|error| unwritten(&error))?;
    progress.finish(&format!("{count} records written"));
    Ok(Exit::Done)
}

/// If the reader closed the pipe, it has seen enough: that is not a failure.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(Exit::Done),
        _ => Failure::of(Exit::Failed, error).while_trying("write to stdout"),
    }
}
