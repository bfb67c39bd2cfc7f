//! An account (`account-<id>`) that holds money and is never overdrawn.

use annals::{Context, Decider, Timestamp, messages, rejections};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// 1. The commands. Names are imperative and frozen: clients send them, and the log keeps them.
messages! {
    /// What an account can be asked for.
    pub enum Command {
        /// Opens the account.
        #[schemars(extend("examples" = [{"owner": 7}]))]
        OpenAccount {
            /// The owner's number; never a name, for the log is kept for ever.
            owner: u32,
        },
        /// Pays money in.
        #[schemars(extend("examples" = [{"cents": 5000}]))]
        DepositMoney {
            /// How much, in cents.
            #[schemars(range(min = 1))]
            cents: std::num::NonZeroU32,
        },
        /// Pays money out.
        #[schemars(extend("examples" = [{"cents": 1500}]))]
        WithdrawMoney {
            /// How much, in cents.
            #[schemars(range(min = 1))]
            cents: std::num::NonZeroU32,
        },
        /// Closes the account, which must be empty.
        CloseAccount {},
    }
}

// 2. The events, in the past tense. An event holds what a read model will need later: it cannot be
// added to old events.
messages! {
    /// What happened to an account.
    pub enum Event {
        /// It was opened.
        #[schemars(extend("examples" = [{"owner": 7}]))]
        AccountOpened {
            /// The owner's number.
            owner: u32,
        },
        /// Money came in.
        #[schemars(extend("examples" = [{"cents": 5000}]))]
        MoneyDeposited {
            /// How much, in cents.
            cents: u32,
        },
        /// Money went out.
        #[schemars(extend("examples" = [{"cents": 1500}]))]
        MoneyWithdrawn {
            /// How much, in cents.
            cents: u32,
        },
        /// It was closed.
        AccountClosed {},
    }
}

// 3. The reasons for a refusal: a rule, the facts that explain it, its code and its sentence.
rejections! {
    /// The rules of accounts that a command may break.
    pub enum Rejection {
        /// An account is opened once.
        AlreadyOpened => "account_already_opened", "the account was opened before",
        /// Money moves only on an open account.
        NotOpen => "account_not_open", "the account is not open",
        /// An account is never overdrawn.
        Overdrawn {
            /// What the account holds, in cents.
            balance: i64,
        } => "account_overdrawn", "the account holds {balance} cents only",
        /// Only an empty account is closed.
        NotEmpty {
            /// What the account holds, in cents.
            balance: i64,
        } => "account_not_empty", "the account still holds {balance} cents",
    }
}

// 4. The state: only what the rules need.
/// An account after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Whether it was ever opened.
    pub is_opened: bool,
    /// Whether it was closed.
    pub is_closed: bool,
    /// What it holds, in cents.
    pub balance: i64,
}

/// The rules of accounts.
#[derive(Clone, Copy, Debug)]
pub struct Account;

impl Decider for Account {
    const CATEGORY: &'static str = "account";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    // 5. The rules: the first broken one is returned, the last expression is what happens. No clock,
    // no database, no chance: what a rule may know is in its arguments.
    fn decide(state: &State, command: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        let balance = state.balance;
        match command {
            Command::OpenAccount(_) if state.is_opened => Err(Rejection::AlreadyOpened),
            Command::OpenAccount(open) => Ok(vec![AccountOpened { owner: open.owner }.into()]),
            _ if !state.is_opened || state.is_closed => Err(Rejection::NotOpen),
            Command::DepositMoney(DepositMoney { cents }) => {
                let cents = cents.get();
                Ok(vec![MoneyDeposited { cents }.into()])
            }
            Command::WithdrawMoney(WithdrawMoney { cents }) => {
                let cents = cents.get();
                if i64::from(cents) > balance {
                    return Err(Rejection::Overdrawn { balance });
                }
                Ok(vec![MoneyWithdrawn { cents }.into()])
            }
            Command::CloseAccount(_) if balance > 0 => Err(Rejection::NotEmpty { balance }),
            Command::CloseAccount(_) => Ok(vec![AccountClosed {}.into()]),
        }
    }

    // 6. The effects of events. Nothing is refused here: what happened has happened.
    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        match event {
            Event::AccountOpened(_) => state.is_opened = true,
            Event::MoneyDeposited(deposited) => state.balance += i64::from(deposited.cents),
            Event::MoneyWithdrawn(withdrawn) => state.balance -= i64::from(withdrawn.cents),
            Event::AccountClosed(_) => state.is_closed = true,
        }
    }

    // The state's form, for people and programs that ask for it over HTTP.
    fn state_schema(
        generator: &mut annals::schemars::SchemaGenerator,
    ) -> Option<annals::schemars::Schema> {
        Some(generator.subschema_for::<State>())
    }
}
