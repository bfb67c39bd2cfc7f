//! The stable codes of problems that only other nodes receive.
//!
//! Invariant: as in [`door::code`]. Deliberately absent: the public document, which does not list
//! these codes.

door::codes! {
    PEER_REFUSED = ("peer_refused", 401, "The node is not known to be a peer",
        "`Annals-Peer` is missing, was made with another secret or for another node, is too old, or \
         was used before.");
    LOG_DIFFERS = ("log_differs", 409, "The node serves another log",
        "A node's peers are the nodes on the same log.");
    PARTITION_UNKNOWN = ("partition_unknown", 404, "The log has no such partition",
        "Partitions are numbered from 0.");
    LINKS_EXHAUSTED = ("links_exhausted", 503, "Too many links are open",
        "Nothing was attempted.");
    NOT_HANDED_OVER = ("not_handed_over", 503, "The partition was not handed over in time",
        "The owner was still answering commands in flight.");
    NOT_TAKEN_OVER = ("not_taken_over", 503, "The node does not own the partition yet",
        "The node was asked to take the partition over and did not do so in time.");
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_code_means_two_things() {
        let shared = door::code::ALL.iter().chain(crate::code::ALL);
        let mut names: Vec<_> = shared.chain(ALL).map(|code| code.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
