//! The read model `balances`: what each account holds.
//!
//! A table is declared once, with a rule for each column that says how contributions are combined;
//! each event contributes to rows. The runtime applies each event exactly once. Raise the version
//! with every change of this file: the program makes the rows again from the log, beside the old
//! ones, and `projections switch balances` shows them.

use annals::Decider as _;
use annals::read_model::ColumnType::{Bigint, Text, Timestamptz};
use annals::read_model::{KeyIs, Rules, Table, Value, add, key, max, set, tally};

use crate::account::{Account, AccountOpened, MoneyDeposited, MoneyWithdrawn};

// Shown under `/v1/read/balances`, and as `read.balances` in SQL.
const BALANCES: Table = Table {
    name: "balances",
    about: "What each account holds.",
    key: &[key("account", Text, "The account.")],
    values: &[
        set("owner", Bigint, "The owner's number."),
        add("balance", "What the account holds, in cents."),
        tally("movements", "How often money came in or went out."),
        max("last_moved_at", Timestamptz, "When that was, last.").nullable(),
    ],
    key_is: KeyIs::StreamId(Account::CATEGORY),
    ..Table::PLAIN
};

/// The rules of `balances`.
#[must_use]
pub fn rules() -> Rules {
    Rules::new("balances", 1, &[BALANCES])
        .on::<Account, AccountOpened>(|opened, event, changes| {
            changes
                .row(&BALANCES, [Value::from(event.stream_id())])
                .put("owner", opened.owner);
        })
        .on::<Account, MoneyDeposited>(|deposited, event, changes| {
            changes
                .row(&BALANCES, [Value::from(event.stream_id())])
                .put("balance", i64::from(deposited.cents))
                .put("movements", 1_i64)
                .put("last_moved_at", event.occurred_at());
        })
        .on::<Account, MoneyWithdrawn>(|withdrawn, event, changes| {
            changes
                .row(&BALANCES, [Value::from(event.stream_id())])
                .put("balance", -i64::from(withdrawn.cents))
                .put("movements", 1_i64)
                .put("last_moved_at", event.occurred_at());
        })
}
