//! Parquet: rows into a file, and a file's values compared with rows.
//!
//! Invariants: a row group ends after a number of rows or bytes that depends on the rows alone, so that
//! the same rows give the same bytes; memory holds one batch and one row group. Texts with few values
//! are dictionaries, moments are microseconds in UTC. Deliberately absent: which rows.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int32Builder, Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::cell::{Cell, Column, DECIMAL_PRECISION, Kind};
use crate::error::ExportError;

/// A batch of rows in memory ends after so many rows or bytes.
const BATCH_ROWS: usize = 4_096;
const BATCH_BYTES: usize = 4 << 20;
/// A row group ends with the batch that reaches so many rows or bytes, before compression.
const GROUP_ROWS: usize = 128 * 1_024;
const GROUP_BYTES: usize = 64 << 20;

/// A Parquet file that is being written.
pub(crate) struct ParquetFile<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
    group_rows: usize,
    group_bytes: usize,
}

impl<W: Write + Send> ParquetFile<W> {
    pub(crate) fn begin(out: W, columns: &[Column]) -> Result<Self, ParquetError> {
        let fields: Vec<Field> = columns.iter().map(field).collect();
        let schema = Arc::new(Schema::new(fields));
        let level = ZstdLevel::try_new(1)?;
        let mut properties = WriterProperties::builder()
            .set_created_by("annals".to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Row groups are ended here.
            .set_max_row_group_row_count(None);
        for column in columns {
            // Most of these texts are different, and a dictionary would be begun in vain.
            if matches!(column.kind, Kind::Text | Kind::Json) {
                let path = ColumnPath::from(column.name.as_str());
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            if column.kind == Kind::Json {
                let path = ColumnPath::from(column.name.as_str());
                properties =
                    properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties.build()))?;
        let builders = columns.iter().map(Builder::of).collect::<Result<_, _>>()?;
        Ok(Self {
            writer,
            schema,
            builders,
            rows: 0,
            bytes: 0,
            group_rows: 0,
            group_bytes: 0,
        })
    }

    pub(crate) fn write(&mut self, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.push(cell);
            self.bytes += cell.size();
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.end_batch()?;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), ParquetError> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        self.writer.write(&batch)?;
        self.group_rows += std::mem::take(&mut self.rows);
        self.group_bytes += std::mem::take(&mut self.bytes);
        if self.group_rows >= GROUP_ROWS || self.group_bytes >= GROUP_BYTES {
            self.writer.flush()?;
            (self.group_rows, self.group_bytes) = (0, 0);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<W, ParquetError> {
        if self.rows > 0 {
            self.end_batch()?;
        }
        self.writer.into_inner()
    }
}

fn field(column: &Column) -> Field {
    let data_type = match column.kind {
        Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Words => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Kind::Int32 => DataType::Int32,
        Kind::Int64 => DataType::Int64,
        Kind::Double => DataType::Float64,
        Kind::Boolean => DataType::Boolean,
        Kind::Decimal { scale } => DataType::Decimal128(DECIMAL_PRECISION, scale.cast_signed()),
        Kind::Moment => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Day => DataType::Date32,
        Kind::Bytes => DataType::Binary,
        Kind::Texts => {
            let item = Field::new("item", DataType::Utf8, true);
            DataType::List(Arc::new(item))
        }
    };
    Field::new(&column.name, data_type, column.nullable)
}

/// The values of one column of a batch.
enum Builder {
    Text(StringBuilder),
    Words(StringDictionaryBuilder<Int32Type>),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Boolean(BooleanBuilder),
    Decimal(Decimal128Builder),
    Moment(TimestampMicrosecondBuilder),
    Day(Date32Builder),
    Bytes(BinaryBuilder),
    Texts(ListBuilder<StringBuilder>),
}

impl Builder {
    fn of(column: &Column) -> Result<Self, ParquetError> {
        Ok(match column.kind {
            Kind::Text | Kind::Json => Self::Text(StringBuilder::new()),
            Kind::Words => Self::Words(StringDictionaryBuilder::new()),
            Kind::Int32 => Self::Int32(Int32Builder::new()),
            Kind::Int64 => Self::Int64(Int64Builder::new()),
            Kind::Double => Self::Double(Float64Builder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Decimal { scale } => {
                let builder = Decimal128Builder::new();
                let scale = scale.cast_signed();
                Self::Decimal(builder.with_precision_and_scale(DECIMAL_PRECISION, scale)?)
            }
            Kind::Moment => Self::Moment(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Day => Self::Day(Date32Builder::new()),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Texts => Self::Texts(ListBuilder::new(StringBuilder::new())),
        })
    }

    /// Adds a value. One of another kind, which no source makes, becomes null.
    fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Words(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Words(builder), _) => builder.append_null(),
            (Self::Int32(builder), Cell::Int(number)) => {
                builder.append_option(i32::try_from(*number).ok());
            }
            (Self::Int32(builder), _) => builder.append_null(),
            (Self::Int64(builder), Cell::Int(number)) => builder.append_value(*number),
            (Self::Int64(builder), _) => builder.append_null(),
            (Self::Double(builder), Cell::Double(number)) => builder.append_value(*number),
            (Self::Double(builder), _) => builder.append_null(),
            (Self::Boolean(builder), Cell::Boolean(truth)) => builder.append_value(*truth),
            (Self::Boolean(builder), _) => builder.append_null(),
            (Self::Decimal(builder), Cell::Decimal(number)) => builder.append_value(*number),
            (Self::Decimal(builder), _) => builder.append_null(),
            (Self::Moment(builder), Cell::Moment(micros)) => builder.append_value(*micros),
            (Self::Moment(builder), _) => builder.append_null(),
            (Self::Day(builder), Cell::Day(day)) => builder.append_value(*day),
            (Self::Day(builder), _) => builder.append_null(),
            (Self::Bytes(builder), Cell::Bytes(bytes)) => builder.append_value(bytes),
            (Self::Bytes(builder), _) => builder.append_null(),
            (Self::Texts(builder), Cell::Texts(texts)) => {
                for text in texts {
                    builder.values().append_value(text);
                }
                builder.append(true);
            }
            (Self::Texts(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let builder: &mut dyn ArrayBuilder = match self {
            Self::Text(builder) => builder,
            Self::Words(builder) => builder,
            Self::Int32(builder) => builder,
            Self::Int64(builder) => builder,
            Self::Double(builder) => builder,
            Self::Boolean(builder) => builder,
            Self::Decimal(builder) => builder,
            Self::Moment(builder) => builder,
            Self::Day(builder) => builder,
            Self::Bytes(builder) => builder,
            Self::Texts(builder) => builder,
        };
        builder.finish()
    }
}

/// Reads a file back, row by row, to compare it.
pub(crate) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    row: usize,
    columns: Vec<Column>,
}

impl ParquetRows {
    /// Opens a file that must have these columns.
    pub(crate) fn open(path: &Path, columns: &[Column]) -> Result<Self, ExportError> {
        let file = File::open(path).map_err(ExportError::file("read", path))?;
        let unreadable = |error: ParquetError| unreadable(path, &error.to_string());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
        let expected: Vec<Field> = columns.iter().map(field).collect();
        let found = builder.schema().fields();
        let is_same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| {
                found.name() == expected.name() && found.data_type() == expected.data_type()
            });
        if !is_same {
            return Err(unreadable_columns(path));
        }
        let reader = builder.with_batch_size(BATCH_ROWS).build();
        Ok(Self {
            reader: reader.map_err(|error| self::unreadable(path, &error.to_string()))?,
            batch: None,
            row: 0,
            columns: columns.to_vec(),
        })
    }

    /// Compares the next row with `cells`: the column that differs with what the file has, if any.
    /// `None` if the file has no further row.
    pub(crate) fn compare(
        &mut self,
        cells: &[Cell<'_>],
    ) -> Result<Option<Option<(String, String)>>, String> {
        if !self.advance()? {
            return Ok(None);
        }
        let Some(batch) = &self.batch else {
            return Ok(None);
        };
        let row = self.row;
        self.row += 1;
        for ((column, array), cell) in self.columns.iter().zip(batch.columns()).zip(cells) {
            let found = cell_at(array, row, column.kind);
            if found != *cell {
                let shown = found.shown(column.kind).into_owned();
                return Ok(Some(Some((column.name.clone(), shown))));
            }
        }
        Ok(Some(None))
    }

    /// Whether there is another row.
    pub(crate) fn has_more(&mut self) -> Result<bool, String> {
        self.advance()
    }

    fn advance(&mut self) -> Result<bool, String> {
        loop {
            if self
                .batch
                .as_ref()
                .is_some_and(|batch| self.row < batch.num_rows())
            {
                return Ok(true);
            }
            self.row = 0;
            self.batch = self
                .reader
                .next()
                .transpose()
                .map_err(|error| error.to_string())?;
            if self.batch.is_none() {
                return Ok(false);
            }
        }
    }
}

fn unreadable(path: &Path, reason: &str) -> ExportError {
    let path = path.display();
    ExportError::Folder(format!("{path} cannot be read as Parquet: {reason}"))
}

fn unreadable_columns(path: &Path) -> ExportError {
    let path = path.display();
    ExportError::Folder(format!("{path} has other columns than the manifest says"))
}

/// The value of an array that has the type of this kind.
fn cell_at(array: &ArrayRef, row: usize, kind: Kind) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    match kind {
        Kind::Text | Kind::Json => Cell::text(array.as_string::<i32>().value(row)),
        Kind::Words => {
            let words = array.as_dictionary::<Int32Type>();
            let values = words.values().as_string::<i32>();
            words
                .key(row)
                .map_or(Cell::Null, |key| Cell::text(values.value(key)))
        }
        Kind::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        Kind::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        Kind::Double => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
        Kind::Boolean => Cell::Boolean(array.as_boolean().value(row)),
        Kind::Decimal { .. } => Cell::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        Kind::Moment => Cell::Moment(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        Kind::Day => Cell::Day(array.as_primitive::<Date32Type>().value(row)),
        Kind::Bytes => Cell::Bytes(array.as_binary::<i32>().value(row).into()),
        Kind::Texts => {
            let list = array.as_list::<i32>().value(row);
            let texts = list.as_string::<i32>();
            Cell::Texts(texts.iter().flatten().map(str::to_owned).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Column> {
        let kinds = [
            Kind::Text,
            Kind::Words,
            Kind::Json,
            Kind::Int32,
            Kind::Int64,
            Kind::Double,
            Kind::Boolean,
            Kind::Decimal { scale: 28 },
            Kind::Moment,
            Kind::Day,
            Kind::Bytes,
            Kind::Texts,
        ];
        let named = kinds.iter().enumerate();
        named
            .map(|(number, kind)| Column::new(format!("c{number}"), *kind).nullable())
            .collect()
    }

    fn extremes() -> Vec<Vec<Cell<'static>>> {
        let most = 10_i128.pow(38) - 1;
        let row = |text: &'static str, sign: i64, bytes: &'static [u8]| {
            vec![
                Cell::text(text),
                Cell::text(text),
                Cell::text("{\"a\":[]}"),
                Cell::Int(if sign < 0 { i32::MIN } else { i32::MAX }.into()),
                Cell::Int(if sign < 0 { i64::MIN } else { i64::MAX }),
                Cell::Double(if sign < 0 {
                    f64::MIN
                } else {
                    f64::MIN_POSITIVE
                }),
                Cell::Boolean(sign < 0),
                Cell::Decimal(i128::from(sign) * most),
                Cell::Moment(if sign < 0 {
                    -62_135_596_800_000_000
                } else {
                    253_402_300_799_999_999
                }),
                Cell::Day(if sign < 0 { i32::MIN } else { i32::MAX }),
                Cell::Bytes(bytes.into()),
                Cell::Texts(if sign < 0 {
                    vec![]
                } else {
                    vec![String::new(), text.to_owned()]
                }),
            ]
        };
        vec![
            row("", -1, b""),
            row("ä\0\u{10ffff}\n", 1, &[0, 255]),
            vec![Cell::Null; 12],
        ]
    }

    #[test]
    fn every_type_comes_back_at_its_extremes() {
        let (columns, rows) = (every_kind(), extremes());
        let mut file = ParquetFile::begin(Vec::new(), &columns).unwrap();
        for row in rows.iter().cycle().take(9_000) {
            file.write(row).unwrap();
        }
        let bytes = file.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        std::fs::write(&path, &bytes).unwrap();
        let mut back = ParquetRows::open(&path, &columns).unwrap();
        for row in rows.iter().cycle().take(9_000) {
            assert_eq!(back.compare(row), Ok(Some(None)));
        }
        assert_eq!(back.compare(&rows[0]), Ok(None));

        let mut back = ParquetRows::open(&path, &columns).unwrap();
        let differs = Some(Some(("c0".to_owned(), String::new())));
        assert_eq!(back.compare(&rows[1]), Ok(differs));
        assert!(ParquetRows::open(&path, &columns[1..]).is_err());
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let make = || {
            let mut file = ParquetFile::begin(Vec::new(), &every_kind()).unwrap();
            extremes().iter().for_each(|row| file.write(row).unwrap());
            file.finish().unwrap()
        };
        assert_eq!(make(), make());
    }
}
