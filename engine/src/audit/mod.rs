//! Looking at a whole log: is it complete and unaltered, what is in it, and taking a copy; and
//! putting the cluster that is to keep one to the test.
//!
//! Invariant: applies the same rule as every reader, to every record, and reads every value.
//! Deliberately absent: mending anything.

mod cluster;

pub use cluster::{
    Connections, Guarantee, Row, Stage, TRIAL_PARTITIONS, TrialOptions, Verdict, verify_cluster,
};
