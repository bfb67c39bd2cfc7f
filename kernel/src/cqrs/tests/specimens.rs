//! Aggregates to test the adapters with.
//!
//! `bank` and `reading_room` are written as users of `cqrs-es` write theirs and do not know this
//! crate. `door` is a decider of ours.

/// An account with a cash machine behind it.
pub(super) mod bank {
    use std::fmt::{self, Display};

    use async_trait::async_trait;
    use cqrs_es::event_sink::EventSink;
    use cqrs_es::{Aggregate, DomainEvent};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub enum BankAccountCommand {
        OpenAccount { account_id: String },
        DepositMoney { amount: f64 },
        WithdrawMoney { amount: f64, atm_id: String },
        CloseAccount,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
    pub enum BankAccountEvent {
        AccountOpened { account_id: String },
        CustomerDepositedMoney { amount: f64, balance: f64 },
        CustomerWithdrewCash { amount: f64, balance: f64 },
        AccountClosed,
    }

    impl DomainEvent for BankAccountEvent {
        fn event_type(&self) -> String {
            match self {
                Self::AccountOpened { .. } => "AccountOpened".to_string(),
                Self::CustomerDepositedMoney { .. } => "CustomerDepositedMoney".to_string(),
                Self::CustomerWithdrewCash { .. } => "CustomerWithdrewCash".to_string(),
                Self::AccountClosed => "AccountClosed".to_string(),
            }
        }

        fn event_version(&self) -> String {
            "1.0".to_string()
        }
    }

    #[derive(Debug, PartialEq)]
    pub struct BankAccountError(pub String);

    impl Display for BankAccountError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)
        }
    }

    impl std::error::Error for BankAccountError {}

    impl From<&str> for BankAccountError {
        fn from(message: &str) -> Self {
            Self(message.to_string())
        }
    }

    #[async_trait]
    pub trait CashMachines: Sync + Send {
        async fn hand_out(&self, atm_id: &str, amount: f64) -> Result<(), String>;
    }

    pub struct BankAccountServices {
        pub cash_machines: Box<dyn CashMachines>,
    }

    #[derive(Serialize, Default, Deserialize)]
    pub struct BankAccount {
        opened: bool,
        balance: f64,
    }

    impl Aggregate for BankAccount {
        const TYPE: &'static str = "bank-account";
        type Command = BankAccountCommand;
        type Event = BankAccountEvent;
        type Error = BankAccountError;
        type Services = BankAccountServices;

        async fn handle(
            &mut self,
            command: Self::Command,
            services: &Self::Services,
            sink: &EventSink<Self>,
        ) -> Result<(), Self::Error> {
            match command {
                BankAccountCommand::OpenAccount { account_id } => {
                    sink.write(BankAccountEvent::AccountOpened { account_id }, self)
                        .await;
                }
                BankAccountCommand::DepositMoney { amount } => {
                    let balance = self.balance + amount;
                    let event = BankAccountEvent::CustomerDepositedMoney { amount, balance };
                    sink.write(event, self).await;
                }
                BankAccountCommand::WithdrawMoney { amount, atm_id } => {
                    let balance = self.balance - amount;
                    // The balance changes at once, and stays changed even if the command is refused
                    // below.
                    let event = BankAccountEvent::CustomerWithdrewCash { amount, balance };
                    sink.write(event, self).await;
                    if balance < 0.0 {
                        return Err("funds not available".into());
                    }
                    services
                        .cash_machines
                        .hand_out(&atm_id, amount)
                        .await
                        .map_err(BankAccountError)?;
                }
                BankAccountCommand::CloseAccount => {
                    sink.write(BankAccountEvent::AccountClosed, self).await;
                }
            }
            Ok(())
        }

        fn apply(&mut self, event: Self::Event) {
            match event {
                BankAccountEvent::AccountOpened { .. } => self.opened = true,
                BankAccountEvent::CustomerDepositedMoney { balance, .. }
                | BankAccountEvent::CustomerWithdrewCash { balance, .. } => self.balance = balance,
                BankAccountEvent::AccountClosed => self.opened = false,
            }
        }
    }
}

/// A room with rules that await, or that keep what JSON cannot hold.
pub(super) mod reading_room {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use cqrs_es::event_sink::EventSink;
    use cqrs_es::{Aggregate, DomainEvent};
    use serde::{Deserialize, Serialize};

    #[derive(Deserialize)]
    pub enum RoomCommand {
        Sit { row: u8, seat: u8 },
        SitWhenCalled { row: u8, seat: u8 },
        Fill { seats: u8 },
    }

    #[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
    pub struct SeatTaken {
        pub row: u8,
        pub seat: u8,
    }

    impl DomainEvent for SeatTaken {
        fn event_type(&self) -> String {
            "room.seat.taken".into()
        }
        fn event_version(&self) -> String {
            "0.3.0".into()
        }
    }

    #[derive(Default, Serialize, Deserialize)]
    pub struct ReadingRoom {
        taken: BTreeMap<(u8, u8), bool>,
    }

    impl Aggregate for ReadingRoom {
        const TYPE: &'static str = "ReadingRoom";
        type Command = RoomCommand;
        type Event = SeatTaken;
        type Error = Infallible;
        type Services = ();

        async fn handle(
            &mut self,
            command: RoomCommand,
            (): &(),
            sink: &EventSink<Self>,
        ) -> Result<(), Infallible> {
            match command {
                RoomCommand::Sit { row, seat } => sink.write(SeatTaken { row, seat }, self).await,
                RoomCommand::SitWhenCalled { row, seat } => {
                    tokio::task::yield_now().await;
                    sink.write(SeatTaken { row, seat }, self).await;
                }
                RoomCommand::Fill { seats } => {
                    for seat in 0..seats {
                        sink.write(SeatTaken { row: 1, seat }, self).await;
                    }
                }
            }
            Ok(())
        }

        fn apply(&mut self, event: SeatTaken) {
            self.taken.insert((event.row, event.seat), true);
        }
    }
}

/// A door that one actor at a time can open.
pub(super) mod door {
    use crate::{Context, Decider, Rejection, Timestamp, messages};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    messages! { pub enum Command { Open } }
    messages! { pub enum Event { Opened = 3 } }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub struct Open {}

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub struct Opened {
        pub tenant: String,
    }

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("opened at {0}")]
    pub struct AlreadyOpen(pub Timestamp);

    impl Rejection for AlreadyOpen {
        fn code(&self) -> &str {
            "door_already_open"
        }
        fn facts(&self) -> Map<String, Value> {
            Map::new()
        }
    }

    pub struct Door;

    impl Decider for Door {
        const CATEGORY: &'static str = "door";
        type State = Option<Timestamp>;
        type Command = Command;
        type Event = Event;
        type Rejection = AlreadyOpen;

        fn decide(
            state: &Option<Timestamp>,
            Command::Open(_): &Command,
            context: &Context,
        ) -> Result<Vec<Event>, AlreadyOpen> {
            match state {
                Some(opened_at) => Err(AlreadyOpen(*opened_at)),
                None => Ok(vec![
                    Opened {
                        tenant: context.tenant.to_string(),
                    }
                    .into(),
                ]),
            }
        }

        fn evolve(state: &mut Option<Timestamp>, _event: &Event, occurred_at: Timestamp) {
            *state = Some(occurred_at);
        }
    }
}
