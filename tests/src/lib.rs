//! What tests of the whole system share.

pub mod olist;
