//! Tests both adapters: aggregates written for `cqrs-es`, adopted; and rules of ours as an
//! aggregate.

mod specimens;

use cqrs_es::test::TestFramework;
use serde_json::{Map, Value, json};

use super::{
    Adopted, AdoptedCommand, AdoptedEvent, AdoptedRejection, AdoptedState, Adoption, Asked,
    Happened, Rules, decode_variant,
};
use crate::{CommandId, Context, Decider, Message, Rejection, ShapeError, TenantId, Timestamp};
use specimens::{bank, door, reading_room};

struct Bank;

struct SmallMachine;

#[async_trait::async_trait]
impl bank::CashMachines for SmallMachine {
    async fn hand_out(&self, atm_id: &str, amount: f64) -> Result<(), String> {
        if amount > 500.0 {
            return Err(format!("cash machine {atm_id} has not so much"));
        }
        Ok(())
    }
}

impl Adoption for Bank {
    type Aggregate = bank::BankAccount;
    const CATEGORY: &'static str = "bank_account";

    fn services() -> &'static bank::BankAccountServices {
        static SERVICES: std::sync::LazyLock<bank::BankAccountServices> =
            std::sync::LazyLock::new(|| bank::BankAccountServices {
                cash_machines: Box::new(SmallMachine),
            });
        &SERVICES
    }

    fn decode(
        type_name: &str,
        schema: u16,
        data: &str,
    ) -> Result<bank::BankAccountCommand, ShapeError> {
        decode_variant(type_name, schema, data)
    }

    fn code(error: &bank::BankAccountError) -> &str {
        match error.0.as_str() {
            "funds not available" => "bank_funds_not_available",
            _ => "bank_cash_machine_failed",
        }
    }

    fn facts(error: &bank::BankAccountError) -> Map<String, Value> {
        Map::from_iter([("length".to_owned(), json!(error.0.len()))])
    }

    fn event_schema(_event_version: &str) -> u16 {
        1
    }
}

struct Room;

impl Adoption for Room {
    type Aggregate = reading_room::ReadingRoom;
    const CATEGORY: &'static str = "reading_room";

    fn services() -> &'static () {
        &()
    }

    fn decode(
        type_name: &str,
        schema: u16,
        data: &str,
    ) -> Result<reading_room::RoomCommand, ShapeError> {
        decode_variant(type_name, schema, data)
    }

    fn code(error: &std::convert::Infallible) -> &str {
        match *error {}
    }

    fn event_schema(event_version: &str) -> u16 {
        match event_version {
            "0.1.0" | "0.2.0" => 1,
            _ => 2,
        }
    }
}

fn at(hour: u8) -> Context {
    Context {
        occurred_at: format!("2018-06-04T{hour:02}:00:00Z").parse().unwrap(),
        is_time_given: true,
        actor: None,
        tenant: TenantId::default(),
        command_id: "1".parse::<CommandId>().unwrap(),
    }
}

fn decide<T: Adoption>(
    state: &AdoptedState<T::Aggregate>,
    name: &str,
    data: &Value,
) -> Result<Vec<AdoptedEvent<T>>, AdoptedRejection> {
    let command = AdoptedCommand::<T>::decode(name, 1, &data.to_string()).unwrap();
    Adopted::<T>::decide(state, &command, &at(8))
}

/// Decides, then evolves with the events as they are read back from the log.
fn run<T: Adoption>(state: &mut AdoptedState<T::Aggregate>, name: &str, data: &Value) {
    for event in decide::<T>(state, name, data).unwrap() {
        let stored = event.encode().unwrap();
        let read = AdoptedEvent::<T>::decode(&event.type_name(), event.schema(), stored.get());
        let read = read.unwrap();
        assert!(event == read);
        Adopted::<T>::evolve(state, &read, at(8).occurred_at);
    }
}

fn opened_with(amount: f64) -> AdoptedState<bank::BankAccount> {
    let mut state = AdoptedState::default();
    run::<Bank>(&mut state, "OpenAccount", &json!({"account_id": "a1"}));
    run::<Bank>(&mut state, "DepositMoney", &json!({"amount": amount}));
    state
}

#[test]
fn an_adopted_account_decides_and_evolves_as_before() {
    let mut state = opened_with(0.1);
    run::<Bank>(&mut state, "DepositMoney", &json!({"amount": 0.2}));
    let withdrawal = json!({"amount": 0.1, "atm_id": "7"});
    let events = decide::<Bank>(&state, "WithdrawMoney", &withdrawal).unwrap();
    let balance = 0.1 + 0.2 - 0.1;
    let expected = bank::BankAccountEvent::CustomerWithdrewCash {
        amount: 0.1,
        balance,
    };
    assert!(events == [AdoptedEvent(expected)], "{events:?}");
}

#[test]
fn events_are_stored_as_the_json_of_the_aggregates_event_type() {
    let event = AdoptedEvent::<Bank>(bank::BankAccountEvent::AccountOpened {
        account_id: "a1".into(),
    });
    assert_eq!(
        (event.type_name().as_str(), event.schema()),
        ("AccountOpened", 1)
    );
    let stored = event.encode().unwrap();
    assert_eq!(stored.get(), r#"{"AccountOpened":{"account_id":"a1"}}"#);
    assert!(matches!(
        AdoptedEvent::<Bank>::decode("AccountClosed", 1, stored.get()),
        Err(ShapeError::UnknownType { .. })
    ));
    let seat = AdoptedEvent::<Room>(reading_room::SeatTaken { row: 1, seat: 2 });
    assert_eq!(
        (seat.type_name().as_str(), seat.schema()),
        ("room.seat.taken", 2)
    );
}

#[test]
fn an_aggregate_that_refuses_after_changing_itself_has_changed_nothing() {
    let state = opened_with(10.0);
    let too_much = json!({"amount": 11.0, "atm_id": "7"});
    for _ in 0..2 {
        let rejection = decide::<Bank>(&state, "WithdrawMoney", &too_much).unwrap_err();
        assert_eq!(rejection.code(), "bank_funds_not_available");
        assert_eq!(rejection.to_string(), "funds not available");
        assert_eq!(Value::Object(rejection.facts()), json!({"length": 19}));
    }
    let all = json!({"amount": 10.0, "atm_id": "7"});
    assert_eq!(
        decide::<Bank>(&state, "WithdrawMoney", &all).unwrap().len(),
        1
    );
}

#[test]
fn services_that_answer_at_once_are_asked() {
    let state = opened_with(1000.0);
    let rejection = decide::<Bank>(
        &state,
        "WithdrawMoney",
        &json!({"amount": 501.0, "atm_id": "7"}),
    )
    .unwrap_err();
    assert_eq!(rejection.code(), "bank_cash_machine_failed");
    assert_eq!(rejection.to_string(), "cash machine 7 has not so much");
}

#[test]
fn refuses_an_aggregate_that_awaits() {
    let state = AdoptedState::default();
    let rejection =
        decide::<Room>(&state, "SitWhenCalled", &json!({"row": 1, "seat": 2})).unwrap_err();
    assert_eq!(rejection, AdoptedRejection::Awaited);
    assert_eq!(rejection.code(), "aggregate_awaited");
    assert_eq!(
        decide::<Room>(&state, "Sit", &json!({"row": 1, "seat": 2}))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_busy_task_is_not_mistaken_for_an_aggregate_that_awaits() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let state = AdoptedState::default();
        for _ in 0..10 {
            let events = decide::<Room>(&state, "Fill", &json!({"seats": 200})).unwrap();
            assert_eq!(events.len(), 200);
        }
    });
}

#[test]
fn refuses_where_the_aggregate_cannot_be_copied() {
    let mut state = AdoptedState::default();
    let events = decide::<Room>(&state, "Sit", &json!({"row": 1, "seat": 2})).unwrap();
    Adopted::<Room>::evolve(&mut state, &events[0], at(8).occurred_at);
    assert!(state.aggregate().is_some());
    assert!(state.clone().aggregate().is_none());
    for state in [state.clone(), state] {
        let rejection = decide::<Room>(&state, "Sit", &json!({"row": 1, "seat": 3})).unwrap_err();
        assert_eq!(rejection.code(), "aggregate_not_copied");
        assert!(serde_json::to_string(&state).is_err());
    }
}

#[test]
fn a_command_of_another_shape_is_refused_at_the_door() {
    let decode = |name: &str, schema, data: &str| {
        let command = AdoptedCommand::<Bank>::decode(name, schema, data)?;
        Ok::<_, ShapeError>(command.encode().unwrap().get().to_owned())
    };
    assert_eq!(
        decode("OpenAccount", 1, "{ \"account_id\":\t\"a \\\" 1\\\\\" }\n"),
        Ok(r#"{"account_id":"a \" 1\\"}"#.to_owned())
    );
    assert_eq!(decode("CloseAccount", 1, "{}"), Ok("{}".to_owned()));
    for (name, schema, data, pointer) in [
        ("DepositMoney", 1, r#"{"amount":"many"}"#, Some("/amount")),
        (
            "DepositMoney",
            1,
            r#"{"amount":1},"OpenAccount":{}"#,
            Some(""),
        ),
        ("DepositMoney", 1, "[1]", Some("")),
        ("DepositMoney", 1, "", Some("")),
        ("CloseAccount", 1, "null", Some("")),
        ("DepositMoney", 2, r#"{"amount":1}"#, None),
        ("RobBank", 1, "{}", None),
        ("", 1, "{}", None),
    ] {
        match (decode(name, schema, data), pointer) {
            (Err(ShapeError::Data { pointer, .. }), Some(place)) => assert_eq!(pointer, place),
            (Err(ShapeError::UnknownType { .. } | ShapeError::UnknownSchema { .. }), None) => {}
            (other, _) => panic!("{name} {data}: {other:?}"),
        }
    }
}

#[test]
fn a_state_survives_its_checkpoint() {
    let state = opened_with(0.1 + 0.2);
    let json = serde_json::to_string(&state).unwrap();
    let read: AdoptedState<bank::BankAccount> = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read.clone()).unwrap(), json);
}

#[test]
fn our_rules_are_tested_by_the_test_framework() {
    let opened = |occurred_at: Timestamp| {
        Happened::new(
            door::Opened {
                tenant: "main".into(),
            },
            occurred_at,
        )
    };
    TestFramework::<Rules<door::Door>>::with(())
        .given_no_previous_events()
        .when(Asked::new(door::Open {}, at(8)))
        .then_expect_events(vec![opened(at(8).occurred_at)]);
    TestFramework::<Rules<door::Door>>::with(())
        .given(vec![opened(at(8).occurred_at)])
        .when(Asked::new(door::Open {}, at(9)))
        .then_expect_error(door::AlreadyOpen(at(8).occurred_at));
    let event = opened(at(8).occurred_at);
    assert_eq!(
        (
            cqrs_es::DomainEvent::event_type(&event).as_str(),
            cqrs_es::DomainEvent::event_version(&event).as_str()
        ),
        ("Opened", "3")
    );
}
