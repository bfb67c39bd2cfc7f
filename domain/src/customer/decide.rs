//! The rules of customers.

use kernel::Context;

use super::{
    Address, AddressCorrected, Command, CorrectAddress, CustomerRegistered, Event,
    RegisterCustomer, Rejection, State,
};
use crate::vocabulary::Dated;

pub(super) fn decide(
    state: &State,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::RegisterCustomer(register) => register_customer(state, register, context),
        Command::CorrectAddress(correct) => correct_address(state, correct, context),
    }
}

fn register_customer(
    state: &State,
    command: &RegisterCustomer,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let registered = CustomerRegistered {
        name: command.name.clone(),
        city: command.city.clone(),
        state: command.state.clone(),
        postcode_prefix: command.postcode_prefix.clone(),
    };
    match &state.registered {
        Some(earlier) if context.is_dated(earlier.at) && earlier.facts == registered => Ok(vec![]),
        Some(earlier) => Err(Rejection::AlreadyRegistered {
            registered_at: earlier.at,
        }),
        None => Ok(vec![registered.into()]),
    }
}

/// An address may be given any number of times. The same address again is accepted too: the
/// customer's confirmation is a fact. An address that the client dates before the present one is
/// refused.
fn correct_address(
    state: &State,
    command: &CorrectAddress,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let Some(Dated {
        at: address_since,
        facts: address,
    }) = &state.address
    else {
        return Err(Rejection::NotRegistered);
    };
    let corrected = AddressCorrected {
        city: command.city.clone(),
        state: command.state.clone(),
        postcode_prefix: command.postcode_prefix.clone(),
    };
    if context.is_dated(*address_since) && *address == Address::from(&corrected) {
        return Ok(vec![]);
    }
    if context.is_dated_before(*address_since) {
        return Err(Rejection::AddressSuperseded {
            address_since: *address_since,
        });
    }
    Ok(vec![corrected.into()])
}
