//! What an account allows.

use std::num::NonZeroU32;

use annals::testing::{Given, given, given_nothing};
use bank::Account;
use bank::account::{
    AccountClosed, AccountOpened, CloseAccount, DepositMoney, MoneyDeposited, MoneyWithdrawn,
    OpenAccount, Rejection, WithdrawMoney,
};

fn opened() -> Given<Account> {
    given([AccountOpened { owner: 7 }])
}

fn cents(cents: u32) -> NonZeroU32 {
    NonZeroU32::new(cents).expect("more than nothing")
}

#[test]
fn an_account_lives_from_opening_to_closing() {
    given_nothing::<Account>()
        .when(OpenAccount { owner: 7 })
        .then([AccountOpened { owner: 7 }])
        .when(DepositMoney { cents: cents(50) })
        .then([MoneyDeposited { cents: 50 }])
        .when(WithdrawMoney { cents: cents(50) })
        .then([MoneyWithdrawn { cents: 50 }])
        .when(CloseAccount {})
        .then([AccountClosed {}]);
}

#[test]
fn an_account_is_never_overdrawn() {
    opened()
        .happened([MoneyDeposited { cents: 50 }])
        .when(WithdrawMoney { cents: cents(51) })
        .then_refused(Rejection::Overdrawn { balance: 50 });
}

#[test]
fn only_an_empty_account_is_closed() {
    opened()
        .happened([MoneyDeposited { cents: 1 }])
        .when(CloseAccount {})
        .then_refused(Rejection::NotEmpty { balance: 1 });
}

#[test]
fn nothing_moves_on_an_account_that_is_not_open() {
    let deposit = || DepositMoney { cents: cents(1) };
    given_nothing::<Account>()
        .when(deposit())
        .then_refused(Rejection::NotOpen);
    opened()
        .happened([AccountClosed {}])
        .when(deposit())
        .then_refused(Rejection::NotOpen)
        .when(OpenAccount { owner: 8 })
        .then_refused(Rejection::AlreadyOpened);
}
