//! Compares the frozen bytes of the log with vectors that another program made.
//!
//! This test also computes each hash by hand from the text of the protocol. So a mistake stays
//! unnoticed only if the vectors, this test and the engine are wrong in the same way.

use bytes::Bytes;
use event_log::chain::{Chain, Verdict};
use event_log::claim::Claim;
use event_log::commit::Commit;
use event_log::record::{
    self, ClaimHeaders, CommitHeaders, Headers, Kind, NewRecord, RECORD_VERSION, Record,
};
use kernel::TenantId;
use position::{ChainHash, LogId, Offset, Partition, Position, Term, WriterId};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

fn golden(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../event-log/tests/golden/");
    let text = std::fs::read_to_string(format!("{path}{name}")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn rows(vectors: &Value) -> &[Value] {
    let rows = vectors.as_array().unwrap();
    assert!(!rows.is_empty());
    rows
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Bytes {
    hex::decode(text(value)).unwrap().into()
}

fn maybe_bytes(value: &Value) -> Option<Bytes> {
    (!value.is_null()).then(|| bytes(value))
}

fn id(value: &Value) -> Uuid {
    Uuid::from_slice(&bytes(value)).unwrap()
}

fn hash(value: &Value) -> ChainHash {
    ChainHash(bytes(value)[..].try_into().unwrap())
}

/// The numbers exceed JSON's safe integers, so they are written as text.
fn number(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

fn sha256(parts: &[&[u8]]) -> String {
    hex::encode(Sha256::digest(parts.concat()))
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap().to_be_bytes()
}

fn by_hand_commit(row: &Value) -> String {
    let (key, value) = (bytes(&row["key"]), bytes(&row["value"]));
    sha256(&[
        b"annals.commit.v1",
        &bytes(&row["previous"]),
        &number(&row["term"]).to_be_bytes(),
        &bytes(&row["writer"]),
        &number(&row["position"]).to_be_bytes(),
        &length(&key),
        &key,
        &length(&value),
        &value,
    ])
}

fn by_hand_claim(row: &Value) -> String {
    let value = bytes(&row["value"]);
    let version = u16::try_from(row["version"].as_u64().unwrap()).unwrap();
    sha256(&[
        b"annals.claim.v1",
        &bytes(&row["previous"]),
        &number(&row["term"]).to_be_bytes(),
        &bytes(&row["writer"]),
        &bytes(&row["log"]),
        &version.to_be_bytes(),
        &number(&row["position"]).to_be_bytes(),
        &length(&value),
        &value,
    ])
}

fn by_hand_record(
    offset: u64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &Headers,
) -> String {
    let mut input = b"annals.record.v1".to_vec();
    input.extend(offset.to_be_bytes());
    let mut part = |part: Option<&[u8]>| {
        input.push(u8::from(part.is_some()));
        input.extend(length(part.unwrap_or_default()));
        input.extend(part.unwrap_or_default());
    };
    part(key);
    part(value);
    for (name, value) in headers.iter() {
        part(Some(name));
        part(value);
    }
    sha256(&[&input])
}

fn headers_of(row: &Value) -> Headers {
    let headers = row["headers"].as_array().unwrap().iter();
    headers
        .map(|header| (bytes(&header[0]), maybe_bytes(&header[1])))
        .collect()
}

#[test]
fn the_four_hashes_are_those_of_the_vectors() {
    let vectors = golden("hashes.json");
    for row in rows(&vectors["genesis"]) {
        let partition = u32::try_from(row["partition"].as_u64().unwrap()).unwrap();
        let by_hand = sha256(&[b"annals.genesis.v1", &partition.to_be_bytes()]);
        assert_eq!(by_hand, text(&row["hash"]));
        assert_eq!(record::genesis(Partition(partition)), hash(&row["hash"]));
    }
    for row in rows(&vectors["commit"]) {
        let headers = CommitHeaders {
            term: Term(number(&row["term"])),
            writer: WriterId(id(&row["writer"])),
            position: Position(number(&row["position"])),
            previous: hash(&row["previous"]),
        };
        let found = record::chain_commit(&headers, &bytes(&row["key"]), &bytes(&row["value"]));
        assert_eq!(by_hand_commit(row), text(&row["hash"]));
        assert_eq!(found, hash(&row["hash"]), "{row}");
    }
    for row in rows(&vectors["claim"]) {
        let headers = ClaimHeaders {
            term: Term(number(&row["term"])),
            writer: WriterId(id(&row["writer"])),
            log: LogId(id(&row["log"])),
            version: u16::try_from(row["version"].as_u64().unwrap()).unwrap(),
        };
        let (previous, position) = (hash(&row["previous"]), Position(number(&row["position"])));
        let found = record::chain_claim(&headers, previous, position, &bytes(&row["value"]));
        assert_eq!(by_hand_claim(row), text(&row["hash"]));
        assert_eq!(found, hash(&row["hash"]), "{row}");
    }
    for row in rows(&vectors["record"]) {
        let new = NewRecord {
            key: maybe_bytes(&row["key"]),
            value: maybe_bytes(&row["value"]),
            headers: headers_of(row),
        };
        let offset = number(&row["offset"]);
        let by_hand = by_hand_record(
            offset,
            new.key.as_deref(),
            new.value.as_deref(),
            &new.headers,
        );
        assert_eq!(by_hand, text(&row["hash"]));
        // The hash covers neither the leader nor the broker's clock.
        let read = Record {
            leader_epoch: Some(3),
            appended_at_ms: Some(4),
            ..Record::at(Offset(offset), new)
        };
        let found = record::record_hash(&read);
        assert_eq!(found.to_string(), text(&row["hash"]), "{row}");
    }
}

#[test]
fn no_two_vectors_have_the_same_hash() {
    let vectors = golden("hashes.json");
    let kinds = ["genesis", "commit", "claim", "record"];
    let rows = kinds.iter().flat_map(|kind| rows(&vectors[*kind]));
    let mut hashes: Vec<&str> = rows.map(|row| text(&row["hash"])).collect();
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!((hashes.len(), count), (21, 21));
}

/// The partition as librdkafka, another implementation, computes it.
fn partition_by_librdkafka(key: &[u8], count: u32) -> u32 {
    // SAFETY: the key is valid for reading; the function reads nothing else.
    let partition = unsafe {
        rdkafka_sys::rd_kafka_msg_partitioner_murmur2(
            std::ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            i32::try_from(count).unwrap(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    u32::try_from(partition).unwrap()
}

#[test]
fn a_stream_stays_in_its_partition_for_ever() {
    let vectors = golden("partitions.json");
    for row in rows(&vectors["keys"]) {
        let tenant: TenantId = text(&row["tenant"]).parse().unwrap();
        let routing_key = text(&row["routing_key"]);
        let key = format!("{tenant}/{routing_key}");
        let murmur2 = u64::from(record::murmur2(key.as_bytes()));
        assert_eq!(Some(murmur2), row["murmur2"].as_u64(), "{key}");
        for (count, partition) in row["partition_of"].as_object().unwrap() {
            let count: u32 = count.parse().unwrap();
            let found = record::partition_of(&tenant, routing_key, count);
            assert_eq!(
                Some(u64::from(found.0)),
                partition.as_u64(),
                "{key} of {count}"
            );
            assert_eq!(found.0, partition_by_librdkafka(key.as_bytes(), count));
        }
    }
}

#[test]
fn the_partitioner_is_the_one_of_kafkas_clients() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..10_000 {
        let mut key = vec![0; random.random_range(1..60)];
        random.fill_bytes(&mut key);
        let count = random.random_range(1..200);
        let ours = (record::murmur2(&key) & 0x7fff_ffff) % count;
        assert_eq!(
            ours,
            partition_by_librdkafka(&key, count),
            "seed {seed}: {key:?}"
        );
    }
}

/// The records of the vectors, in the form that an append takes.
fn whole_records(vectors: &Value) -> Vec<NewRecord> {
    let record = |row: &Value| NewRecord {
        key: row["key"].as_str().map(|key| key.to_owned().into()),
        value: Some(text(&row["value"]).to_owned().into()),
        headers: row["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| (text(&header[0]), Some(bytes(&header[1]))))
            .collect(),
    };
    rows(&vectors["records"]).iter().map(record).collect()
}

#[test]
fn whole_records_are_read_as_they_were_written() {
    assert_eq!(RECORD_VERSION, 1, "a new format needs vectors of its own");
    let vectors = golden("records.json");
    let partition = Partition(u32::try_from(vectors["partition"].as_u64().unwrap()).unwrap());
    let mut chain = Chain::genesis(partition);
    for (row, new) in rows(&vectors["records"])
        .iter()
        .zip(whole_records(&vectors))
    {
        let offset = row["offset"].as_u64().unwrap();
        let read = Record::at(Offset(offset), new.clone());
        let by_hand = by_hand_record(
            offset,
            new.key.as_deref(),
            new.value.as_deref(),
            &new.headers,
        );
        assert_eq!(by_hand, text(&row["record_hash"]));
        assert_eq!(record::record_hash(&read).to_string(), by_hand);
        let verdict = chain.judge(&read).unwrap();
        assert!(!matches!(verdict, Verdict::Orphan(_)), "{row}");
        assert_eq!(chain.head, hash(&row["chain_hash"]), "{row}");
        assert_eq!(Some(chain.position.0), row["position"].as_u64());

        // The engine writes the same bytes.
        let value = new.value.clone().unwrap();
        let written = match Kind::of(&read) {
            Kind::Claim(headers) => {
                let claim = Claim::read(&value).unwrap();
                headers.record(claim.to_value())
            }
            Kind::Commit(headers) => {
                let commit = Commit::read(new.key.as_deref().unwrap(), &value).unwrap();
                headers.record(commit.key(), commit.to_value().unwrap())
            }
            Kind::Foreign => panic!("a vector is no record of ours: {row}"),
        };
        assert_eq!(written.value, new.value, "{row}");
        assert_eq!(written, new, "{row}");
    }
    assert_eq!(chain.position, Position(5));
}

#[test]
fn what_is_left_out_of_a_commit_has_its_default() {
    let vectors = golden("records.json");
    let values: Vec<NewRecord> = whole_records(&vectors);
    let read = |index: usize| {
        let record = &values[index];
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        Commit::read(key.unwrap(), value.unwrap()).unwrap()
    };
    let (most, least) = (read(1), read(2));
    assert_eq!(
        (most.tenant.to_string(), most.version()),
        ("acme".to_owned(), 5)
    );
    assert_eq!(
        (most.correlation_id(), most.causation_id()),
        ("conversation-1", "parent-1")
    );
    assert!(most.asked_at() < most.recorded_at);
    assert!(least.tenant.is_main());
    assert_eq!((least.correlation_id(), least.causation_id()), ("x", "x"));
    assert_eq!(least.asked_at(), least.recorded_at);
    assert_eq!((least.version(), read(3).version()), (0, 0));
    let (given, own) = (&most.events[0], read(4));
    assert_eq!(most.occurred_at(given), most.asked_at());
    assert_eq!(own.asked_at(), own.recorded_at);
    assert!(own.occurred_at(&own.events[0]) < own.recorded_at);
}
