//! What tests of the whole system share. There are no mocks of Kafka or Postgres: if one of them is
//! missing, a test fails and does not skip.

pub mod attacks;
pub mod faults;
pub mod fold;
pub mod harness;
pub mod lamp;
pub mod olist;
