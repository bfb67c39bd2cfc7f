//! A member of a log's group in a process of its own, so that a test can freeze or kill it. Prints
//! each gain and loss of partitions, one line each.
//!
//! `group-member LOG GROUP NODE SESSION_MS`

use std::env;
use std::time::Duration;

use event_log::membership::{Assignment, MembershipOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [_, log, group, node, session_ms] = env::args()
        .collect::<Vec<_>>()
        .try_into()
        .expect("four arguments");
    let log = event_log::log::open(&log.parse().expect("a log's address"))
        .await
        .expect("the log is there");
    let options = MembershipOptions {
        group,
        node,
        session_timeout: Duration::from_millis(session_ms.parse().expect("milliseconds")),
    };
    let mut membership = log.membership(&options).expect("a place in the group");
    loop {
        match membership.next().await.expect("the group goes on") {
            Assignment::Gained(partitions) => println!("gained {partitions:?}"),
            Assignment::Lost(partitions) => println!("lost {partitions:?}"),
        }
    }
}
