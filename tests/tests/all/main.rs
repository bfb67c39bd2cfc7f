//! Every test of the whole system, in one binary, so that it is linked once and one broker serves
//! all.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod advice;
mod attacks;
mod chain_rule;
mod checker_rule;
mod cli;
mod cluster_works;
mod command_door;
mod contract;
mod crashes;
mod damage;
mod dashboards;
mod defects;
mod directory;
mod event_log_contract;
mod faults;
mod fresh_machine;
mod generated_requests;
mod golden;
mod harness_works;
mod history;
mod intents;
mod lost_log;
mod main_job;
mod manners;
mod many_nodes;
mod membership;
mod one_verdict;
mod other_appends;
mod peers;
mod projections;
mod proxy_works;
mod query_door;
mod raw_log;
mod readable;
mod reading_the_topic;
mod readme;
mod security;
mod tidy;
mod turns;
mod tutorial;
mod verify_cluster;
mod walks;
mod write_side;
