//! Writes records into a log that no writer of ours would write, and reads and removes records: for
//! tests of damage and of hostile topics.

use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event_log::log::{self, AppendSession, EventLog, LogAddress, LogError, StoreOptions};
use event_log::record::{Header, Headers, NewRecord, Record};
use position::{Offset, Partition};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka_sys as native;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tests::harness::logs::{self, Kind, NewLog};
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(30);

/// A log with any content, and a folder that is removed with it.
pub(crate) struct RawLog {
    pub(crate) kind: Kind,
    pub(crate) address: LogAddress,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) folder: TempDir,
}

impl RawLog {
    /// A store without a record.
    pub(crate) async fn empty(kind: Kind, partition_count: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = logs::address(kind, &folder);
        let raw = Self::at(address, partition_count).await;
        Self { folder, ..raw }
    }

    /// The same at a given address.
    pub(crate) async fn at(address: LogAddress, partition_count: u32) -> Self {
        let log = make_store(&address, partition_count).await;
        Self::over(address, log)
    }

    /// The store of an existing log; the folder of the result is empty.
    pub(crate) fn of(new: &NewLog) -> Self {
        Self::over(new.address.clone(), Arc::clone(&new.log))
    }

    fn over(address: LogAddress, log: Arc<dyn EventLog>) -> Self {
        let kind = match &address {
            LogAddress::Sqlite { .. } => Kind::Sqlite,
            LogAddress::Kafka { .. } => Kind::Kafka,
        };
        Self {
            kind,
            address,
            log,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A store whose partition 0 holds these records.
    pub(crate) async fn holding(kind: Kind, records: &[NewRecord]) -> Self {
        let raw = Self::empty(kind, 1).await;
        raw.write(Partition(0), records).await;
        raw
    }

    /// Appends records of any kind.
    pub(crate) async fn write(&self, partition: Partition, records: &[NewRecord]) {
        write(&self.address, &*self.log, partition, records).await;
    }

    /// Replaces all records of partition 0: in the file, or in a new topic with the same name.
    pub(crate) async fn replace(&self, records: &[NewRecord]) {
        match &self.address {
            LogAddress::Sqlite { path } => {
                let mut file = edit(path).await;
                let mut tx = file.begin().await.unwrap();
                sqlx::query("DELETE FROM record WHERE partition = 0")
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                for (id, record) in (0_i64..).zip(records) {
                    let insert = "INSERT INTO record (id, key, value, headers, appended_at_ms) \
                                  VALUES (?, ?, ?, ?, 0)";
                    sqlx::query(insert)
                        .bind(id)
                        .bind(record.key.as_deref())
                        .bind(record.value.as_deref())
                        .bind(header_blob(&record.headers))
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                }
                tx.commit().await.unwrap();
                file.close().await.unwrap();
            }
            LogAddress::Kafka { brokers, topic } => {
                delete_topic(brokers, topic, &self.address).await;
                let log = make_store(&self.address, self.log.partition_count()).await;
                write(&self.address, &*log, Partition(0), records).await;
            }
        }
    }
}

async fn make_store(address: &LogAddress, partition_count: u32) -> Arc<dyn EventLog> {
    let options = StoreOptions {
        partition_count,
        replication: 1,
    };
    log::create_store(address, options).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match log::open(address).await {
            Ok(log) => return log,
            Err(error @ LogError::Missing(_)) => assert!(Instant::now() < deadline, "{error}"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection to a log's file, apart from the engine's.
pub(crate) async fn edit(path: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

/// The form in which a log's file stores headers.
fn header_blob(headers: &Headers) -> Vec<u8> {
    let mut blob = Vec::new();
    let mut put = |bytes: &[u8], presence: Option<u8>| {
        blob.extend(presence);
        blob.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        blob.extend(bytes);
    };
    for (name, value) in headers.iter() {
        put(name, None);
        put(value.unwrap_or_default(), Some(u8::from(value.is_some())));
    }
    blob
}

pub(crate) async fn delete_topic(brokers: &str, topic: &str, address: &LogAddress) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = admin(brokers).delete_topics(&[topic], &options).await;
    deleted.unwrap()[0].as_ref().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(log::open(address).await, Err(LogError::Missing(_))) {
        assert!(Instant::now() < deadline, "the topic is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client for the administration of a broker.
pub(crate) fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.create().unwrap()
}

/// Appends records of any kind: through the log's appender, or with a raw client if the appender
/// does not take a record that the store takes.
pub(crate) async fn write(
    address: &LogAddress,
    log: &dyn EventLog,
    partition: Partition,
    records: &[NewRecord],
) {
    match address {
        LogAddress::Sqlite { .. } => {
            let session = log.appender().await.unwrap().session().unwrap();
            append(&*session, partition, records).await;
        }
        LogAddress::Kafka { brokers, topic } => {
            RawProducer::new(brokers, &[]).write(topic, partition, records);
        }
    }
}

/// Appends records and waits for all acknowledgements; returns the offsets.
pub(crate) async fn append(
    session: &dyn AppendSession,
    partition: Partition,
    records: &[NewRecord],
) -> Vec<Offset> {
    let mut waiting = Vec::new();
    for record in records {
        waiting.push(loop {
            let (done, acknowledged) = oneshot::channel();
            let done = Box::new(move |result| {
                let _ = done.send(result);
            });
            match session.append(partition, record, done) {
                Ok(()) => break acknowledged,
                Err(LogError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let mut offsets = Vec::new();
    for acknowledged in waiting {
        offsets.push(acknowledged.await.unwrap().unwrap().offset.unwrap());
    }
    offsets
}

/// All records of a partition.
pub(crate) async fn read_all(log: &dyn EventLog, partition: Partition) -> Vec<Record> {
    let mut records = Vec::new();
    let mut from = log.bounds(partition).await.unwrap().first;
    loop {
        let chunk = log.read(partition, from).await.unwrap();
        records.extend(chunk.records);
        from = chunk.next;
        if chunk.at_end {
            return records;
        }
    }
}

/// An append that would write the same record once more.
pub(crate) fn again(record: &Record) -> NewRecord {
    NewRecord {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}

/// Changes a record's headers.
pub(crate) fn change_headers(record: &mut NewRecord, change: impl FnOnce(&mut Vec<Header<'_>>)) {
    let before = record.headers.clone();
    let mut headers = before.iter().collect();
    change(&mut headers);
    record.headers = headers.into_iter().collect();
}

/// A record with none of our headers.
pub(crate) fn foreign(value: &str) -> NewRecord {
    NewRecord {
        key: None,
        value: Some(value.to_owned().into()),
        headers: Headers::default(),
    }
}

#[derive(Default)]
struct Counting {
    delivered: AtomicUsize,
}

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // A panic must not unwind through C code.
            eprintln!("a record was not delivered: {error}");
        } else {
            self.delivered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A producer that writes anything, even header names that are not UTF-8.
pub(crate) struct RawProducer {
    producer: BaseProducer<Counting>,
}

impl RawProducer {
    pub(crate) fn new(brokers: &str, settings: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("acks", "all");
        config
            .set("message.max.bytes", "2000000")
            .set("linger.ms", "0");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(Counting::default()).unwrap();
        Self { producer }
    }

    /// Writes the records, and returns once the broker has acknowledged all of them.
    pub(crate) fn write(&self, topic: &str, partition: Partition, records: &[NewRecord]) {
        let delivered = || self.producer.context().delivered.load(Ordering::SeqCst);
        let before = delivered();
        for record in records {
            self.hand_over(topic, partition, record);
        }
        self.producer.flush(PATIENCE).unwrap();
        assert_eq!(delivered() - before, records.len());
    }

    /// Needs the setting `transactional.id`.
    pub(crate) fn init_transactions(&self) {
        self.producer.init_transactions(PATIENCE).unwrap();
    }

    /// Further writes belong to a transaction.
    pub(crate) fn begin_transaction(&self) {
        self.producer.begin_transaction().unwrap();
    }

    /// Ends the transaction; commit and abort both leave an offset without a record.
    pub(crate) fn end_transaction(&self, commit: bool) {
        if commit {
            self.producer.commit_transaction(PATIENCE).unwrap();
        } else {
            self.producer.abort_transaction(PATIENCE).unwrap();
        }
    }

    fn hand_over(&self, topic: &str, partition: Partition, record: &NewRecord) {
        use native::rd_kafka_vtype_t as vtype;
        let topic = CString::new(topic).unwrap();
        let names: Vec<CString> = record
            .headers
            .iter()
            .map(|(name, _)| CString::new(name).unwrap())
            .collect();
        let mem = |bytes: Option<&[u8]>| native::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: bytes.map_or(std::ptr::null_mut(), |b| b.as_ptr().cast_mut().cast()),
            size: bytes.map_or(0, <[u8]>::len),
        };
        let mut parts = Vec::new();
        let mut push = |vtype, u| parts.push(native::rd_kafka_vu_t { vtype, u });
        use native::rd_kafka_vu_s__bindgen_ty_1 as union;
        push(
            vtype::RD_KAFKA_VTYPE_TOPIC,
            union {
                cstr: topic.as_ptr(),
            },
        );
        let number = i32::try_from(partition.0).unwrap();
        push(vtype::RD_KAFKA_VTYPE_PARTITION, union { i32_: number });
        let copy = native::RD_KAFKA_MSG_F_COPY;
        push(vtype::RD_KAFKA_VTYPE_MSGFLAGS, union { i: copy });
        let key = mem(record.key.as_deref());
        push(vtype::RD_KAFKA_VTYPE_KEY, union { mem: key });
        let value = mem(record.value.as_deref());
        push(vtype::RD_KAFKA_VTYPE_VALUE, union { mem: value });
        for (name, (_, value)) in names.iter().zip(record.headers.iter()) {
            let header = native::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                name: name.as_ptr(),
                val: value.map_or(std::ptr::null(), |v| v.as_ptr().cast::<c_void>()),
                size: value.map_or(0, |v| isize::try_from(v.len()).unwrap()),
            };
            push(vtype::RD_KAFKA_VTYPE_HEADER, union { header });
        }
        let client = self.producer.client().native_ptr();
        // SAFETY: every pointer is valid during the call, which copies what it takes.
        let error = unsafe { native::rd_kafka_produceva(client, parts.as_ptr(), parts.len()) };
        if !error.is_null() {
            // SAFETY: the error is valid until it is destroyed, which this test never does.
            let reason = unsafe { std::ffi::CStr::from_ptr(native::rd_kafka_error_string(error)) };
            panic!("the client did not take the record: {reason:?}");
        }
    }
}
