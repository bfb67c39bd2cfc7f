//! Tests of the business rules as given, when and then; and properties that hold for any history
//! and any JSON.

// A failing `unwrap` here fails its test.
#![allow(clippy::unwrap_used)]

mod customers;
mod declared;
mod given;
mod json_schema;
mod order_steps;
mod orders;
mod payments;
mod properties;
mod shapes;
mod strategies;
