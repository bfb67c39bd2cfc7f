//! What tests of the whole system share. Of the servers they run against there are no mocks: Kafka
//! and Postgres are real, and a test fails, not skips, where they are missing.

pub mod attacks;
pub mod faults;
pub mod harness;
pub mod olist;
