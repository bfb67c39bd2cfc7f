//! The hashes and the rule, compared with the golden vectors in `event-log/tests/golden`.

use checker::dump::RawRecord;
use checker::rule::{ClaimHeaders, CommitHeaders, Fold, Verdict, claim_hash, commit_hash, genesis};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../event-log/tests/golden");
    let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn vectors<'a>(hashes: &'a Value, name: &str) -> &'a Vec<Value> {
    let vectors = hashes[name].as_array().unwrap();
    assert!(vectors.len() >= 4);
    vectors
}

#[test]
fn hashes_are_those_that_are_committed() {
    let hashes = golden("hashes.json");
    for one in vectors(&hashes, "genesis") {
        let partition = u32::try_from(one["partition"].as_u64().unwrap()).unwrap();
        assert_eq!(genesis(partition), fixed(&one["hash"]));
    }
    for one in vectors(&hashes, "commit") {
        let headers = CommitHeaders {
            term: number(&one["term"]),
            writer: fixed(&one["writer"]),
            position: number(&one["position"]),
            previous: fixed(&one["previous"]),
        };
        let hash = commit_hash(&headers, &bytes(&one["key"]), &bytes(&one["value"]));
        assert_eq!(hash, fixed(&one["hash"]), "{one}");
    }
    for one in vectors(&hashes, "claim") {
        let headers = ClaimHeaders {
            term: number(&one["term"]),
            writer: fixed(&one["writer"]),
            log: fixed(&one["log"]),
            version: u16::try_from(one["version"].as_u64().unwrap()).unwrap(),
        };
        let (previous, position) = (fixed(&one["previous"]), number(&one["position"]));
        let hash = claim_hash(&previous, &headers, position, &bytes(&one["value"]));
        assert_eq!(hash, fixed(&one["hash"]), "{one}");
    }
}

#[test]
fn records_that_are_committed_count_and_lead_to_the_committed_heads() {
    let golden = golden("records.json");
    let partition = u32::try_from(golden["partition"].as_u64().unwrap()).unwrap();
    let mut fold = Fold::new(partition);
    for one in golden["records"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
        let headers = one["headers"].as_array().unwrap().iter();
        let header = |header: &Value| (text(&header[0]).unwrap(), Some(bytes(&header[1])));
        let record = RawRecord {
            offset: one["offset"].as_u64().unwrap(),
            key: text(&one["key"]),
            value: text(&one["value"]),
            headers: headers.map(header).collect(),
        };
        let verdict = fold.take(&record);
        let counts = matches!(verdict, Verdict::Claim(_) | Verdict::Commit(_));
        assert!(counts, "{}: {verdict:?}", one["name"]);
        assert_eq!(fold.head, fixed(&one["chain_hash"]), "{}", one["name"]);
        assert_eq!(Some(fold.position), one["position"].as_u64());
    }
}
