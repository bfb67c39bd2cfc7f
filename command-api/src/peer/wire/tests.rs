//! What is written is read back unchanged, and forms that are new to the reader are not misread.

use engine::command::{Decision, EventRef};
use engine::frozen::FrozenBy;
use kernel::{ActorKind, RecordedRejection};
use position::{LogId, PositionToken, Term};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn request(data: &str) -> Request {
    Request {
        tenant: "north".parse().unwrap(),
        stream: "order-1".parse().unwrap(),
        command: "PlaceOrder".into(),
        schema: Some(2),
        id: "k1".parse().unwrap(),
        occurred_at: Some("2018-06-04T16:44:48.123456Z".parse().unwrap()),
        expected_version: Some(0),
        correlation_id: Some("c1".parse().unwrap()),
        causation_id: Some("p1".parse().unwrap()),
        actor: Some(Actor {
            id: "till \"7\"".to_owned(),
            kind: ActorKind::Service,
        }),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        data: RawValue::from_string(data.to_owned()).unwrap(),
    }
}

fn written(request: Request) -> Result<Vec<u8>, usize> {
    let mut text = Vec::new();
    let command = CommandForPeer {
        sequence: 7,
        request,
        deadline: Instant::now() + Duration::from_secs(9),
    };
    write_command(&mut text, &command).map(|()| text)
}

/// A request without its data, for comparison.
fn shown(request: &Request) -> String {
    let mut shown = request.clone();
    shown.data = RawValue::from_string("null".to_owned()).unwrap();
    format!("{shown:?}")
}

#[test]
fn a_command_arrives_whole_in_one_line_however_its_data_was_written() {
    let data = "{\r\n  \"text\": \"a\\nb ä\",\n\t\"number\": 1.50\n}";
    let sent = request(data);
    let line = written(sent.clone()).unwrap();
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    let read = read_command(&line).unwrap();
    let CommandRead::Whole {
        sequence,
        wait,
        request,
    } = read
    else {
        panic!("{read:?}")
    };
    assert_eq!(sequence, 7);
    assert!((8_900..=9_000).contains(&wait.as_millis()), "{wait:?}");
    assert_eq!(shown(&request), shown(&sent));
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(value(request.data.get()), value(data));
    assert!(request.data.get().contains("1.50"));
}

#[test]
fn absent_fields_of_a_request_stay_absent() {
    let mut bare = request("null");
    bare.occurred_at = None;
    bare.expected_version = None;
    bare.correlation_id = None;
    bare.causation_id = None;
    bare.actor = None;
    bare.trace = None;
    let read = read_command(&written(bare.clone()).unwrap()).unwrap();
    let CommandRead::Whole { request, .. } = read else {
        panic!("{read:?}")
    };
    assert_eq!(shown(&request), shown(&bare));
}

#[test]
fn a_command_that_is_too_long_is_not_written() {
    let data = format!("\"{}\"", "x".repeat(COMMAND_SIZE_MAX));
    assert!(written(request(&data)).unwrap_err() > COMMAND_SIZE_MAX);
    let data = format!("\"{}\"", "x".repeat(door::BODY_SIZE_MAX));
    assert!(written(request(&data)).is_ok());
}

#[test]
fn a_command_of_a_newer_version_is_known_by_its_number_alone() {
    let line = String::from_utf8(written(request("null")).unwrap()).unwrap();
    let newer = line.replacen('{', "{\"only_if\":\"sunny\",", 1);
    assert!(matches!(
        read_command(newer.as_bytes()),
        Some(CommandRead::Strange(7))
    ));
    assert!(read_command(b"{\"number\":7}").is_none());
    assert!(read_command(b"7").is_none());
}

/// All errors; a new one breaks this match and must be added.
fn errors() -> Vec<SubmitError> {
    let reasons = [
        TurnedAway::Overloaded,
        TurnedAway::Late,
        TurnedAway::NotReady,
        TurnedAway::Stopping,
        TurnedAway::AfterUnanswered,
    ];
    let kinds = [
        DamageKind::Unlinked {
            expected: Position(3),
            found: Position(4),
            after: Some(Offset(2)),
        },
        DamageKind::Unclaimed,
        DamageKind::Unreadable("no JSON".to_owned()),
        DamageKind::VersionGap {
            stream: "order-1".to_owned(),
            expected: 1,
            found: 3,
        },
        DamageKind::ProofFailed("cut".to_owned()),
    ];
    let turned_away = reasons.map(|reason| SubmitError::TurnedAway {
        reason,
        retry_after: Duration::from_millis(20),
    });
    let damaged = kinds.map(|kind| {
        SubmitError::Damaged(Damage {
            partition: Partition(3),
            offset: Offset(9),
            kind,
        })
    });
    let others = [
        SubmitError::IdReused,
        SubmitError::Unknown,
        SubmitError::TooLarge { size: 2, max: 1 },
        SubmitError::StreamTooLarge { size: 4, max: 3 },
        SubmitError::Failed,
        SubmitError::Frozen(Frozen {
            partition: Partition(3),
            offset: Offset(9),
            why: FrozenBy::Rules("evolve panicked".to_owned()),
        }),
        SubmitError::Frozen(Frozen {
            partition: Partition(3),
            offset: Offset(9),
            why: FrozenBy::Acknowledged("disk".to_owned()),
        }),
    ];
    turned_away
        .into_iter()
        .chain(damaged)
        .chain(others)
        .collect()
}

#[test]
fn every_answer_is_read_back_as_it_was_written() {
    let answer = |decision| Answer {
        tenant: TenantId::default(),
        stream: "order-1".parse().unwrap(),
        command_id: "k1".parse().unwrap(),
        version: 3,
        position: PositionToken::at(LogId(Uuid::from_u128(1)), Partition(0), Position(9)),
        decision,
        repeated: true,
    };
    let accepted = answer(Decision::Accepted(vec![EventRef {
        id: Uuid::from_u128(5),
        type_name: "OrderPlaced".into(),
        version: 3,
    }]));
    let rejected = answer(Decision::Rejected(RecordedRejection {
        code: "order_not_placed".to_owned(),
        detail: "never\nplaced".to_owned(),
        facts: json!({"a": [1, null]}).as_object().unwrap().clone(),
    }));
    let hint = Hint {
        log: LogId::default(),
        term: Term(4),
        node: "two".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
    };
    let said = [Ok(accepted), Ok(rejected)]
        .into_iter()
        .chain(errors().into_iter().map(Err))
        .map(LinkAnswer::Answered)
        .chain([LinkAnswer::Moved(None), LinkAnswer::Moved(Some(hint))]);
    for said in said {
        let mut text = Vec::new();
        write_answer(&mut text, 7, &said);
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(read_answer(&text), Some((7, said)));
    }
}

#[test]
fn an_answer_of_a_newer_version_is_unknown() {
    for line in [
        r#"{"sequence":7,"error":{"sold_out":{}}}"#,
        r#"{"sequence":7,"answer":{"version":1}}"#,
        r#"{"sequence":7,"postponed":true}"#,
        r#"{"sequence":7}"#,
    ] {
        let unknown = LinkAnswer::Answered(Err(SubmitError::Unknown));
        assert_eq!(read_answer(line.as_bytes()), Some((7, unknown)), "{line}");
    }
    assert_eq!(read_answer(b"[]"), None);
}
