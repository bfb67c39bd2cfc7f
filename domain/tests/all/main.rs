//! The rules of the business, given, when and then; and what must hold for any history and any
//! JSON.

// What fails to unwrap here fails its test.
#![allow(clippy::unwrap_used)]

mod customers;
mod given;
mod json_schema;
mod order_steps;
mod orders;
mod payments;
mod properties;
mod shapes;
mod strategies;
