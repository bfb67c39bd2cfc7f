//! The rules of customers.

use kernel::{Context, Timestamp};

use super::{
    Address, AddressCorrected, Command, CorrectAddress, CustomerRegistered, Event,
    RegisterCustomer, Rejection, State,
};

pub(super) fn decide(
    state: &State,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::RegisterCustomer(register) => register_customer(state, register, context),
        Command::CorrectAddress(correct) => correct_address(state, correct, context.occurred_at),
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
        Some((registered_at, facts))
            if *registered_at == context.occurred_at && *facts == registered =>
        {
            Ok(vec![])
        }
        Some((registered_at, _)) => Err(Rejection::AlreadyRegistered {
            registered_at: *registered_at,
        }),
        None => Ok(vec![registered.into()]),
    }
}

/// An address may be given as often as people like, also the one that already holds: a customer who
/// confirms it at a later time has stated a fact. The same words at the same time are a repetition.
fn correct_address(
    state: &State,
    command: &CorrectAddress,
    occurred_at: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    if state.registered.is_none() {
        return Err(Rejection::NotRegistered);
    }
    let corrected = AddressCorrected {
        city: command.city.clone(),
        state: command.state.clone(),
        postcode_prefix: command.postcode_prefix.clone(),
    };
    if (state.corrections).contains(&(occurred_at, Address::from(&corrected))) {
        return Ok(vec![]);
    }
    Ok(vec![corrected.into()])
}
