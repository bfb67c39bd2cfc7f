//! The stable codes of this door's problems that are not rejections.
//!
//! Invariant: as in [`door::code`]. A rejection has the code of its rule and status 422.

door::codes! {
    CATEGORY_UNKNOWN = ("category_unknown", 404, "No aggregate has this category",
        "The stream's category, the part before its first dash, is not registered here.");
    COMMAND_UNKNOWN = ("command_unknown", 404, "The aggregate has no such command",
        "The category is known, but has no command of this name.");
    COMMAND_NOT_IN_LOG = ("command_not_in_log", 404, "The command is not in the log so far",
        "Up to `position`, and within the idempotency window, the log has no command with this id \
         on this stream. A command that was already sent may still reach the log: send it again \
         with the same `command_id` to learn its outcome.");
    PRECONDITIONS_CONTRADICT = ("preconditions_contradict", 412, "The preconditions contradict each other",
        "`If-Match` and `If-None-Match: *` can never both be true. Not attempted, not recorded.");
    VERSION_CONFLICT = ("version_conflict", 412, "Version conflict",
        "The stream has another version than the command expected; `current_version` says which. \
         Recorded as a refusal. Read the stream again, and decide again.");
    COMMIT_TOO_LARGE = ("commit_too_large", 413, "The command's commit would be too large",
        "The commit would have `size` bytes, and one record may hold at most `max`. Not recorded.");
    BATCH_TOO_LONG = ("batch_too_long", 413, "The batch has too many commands",
        "A batch that is one JSON array may have at most `max` commands. Nothing was attempted. \
         Send it as lines, or in parts.");
    COMMAND_ID_REUSED = ("command_id_reused", 422, "The command id was used for another command",
        "On this stream, a command with this id but with another type, schema, data, time or \
         expected version was already answered. Not recorded. Send the new intent with a new id.");
    OUTCOME_UNKNOWN = ("outcome_unknown", 503, "The outcome is unknown",
        "The log has not answered in time, so the command may or may not have taken effect. Send \
         it again with the same `command_id` to learn its outcome.");
    OVERLOADED = ("overloaded", 503, "Too many commands are waiting",
        "The command was not attempted. Send it again, with the same `command_id`, after \
         `Retry-After`.");
    DEADLINE_PASSED = ("deadline_passed", 503, "The deadline passed before the command's turn",
        "The command was not attempted. Send it again, perhaps with a longer `Annals-Timeout-Ms`.");
    NOT_OWNER = ("not_owner", 503, "The stream's partition is not open here yet",
        "The command was not attempted: this node does not own the partition, or not yet.");
    STOPPING = ("stopping", 503, "The server is shutting down",
        "The command was not attempted. Send it again, with the same `command_id`.");
    AFTER_UNANSWERED = ("after_unanswered", 503, "An earlier command had no answer",
        "The command was not attempted, because an earlier command for the same stream in the \
         same batch had no answer and comes first.");
    LOG_DAMAGED = ("log_damaged", 503, "The log of the stream's partition is damaged",
        "No command is decided in this partition until an operator has acknowledged the damage.");
    STREAM_TOO_LARGE = ("stream_too_large", 413, "The stream's state is as large as it may be",
        "The command would make the state `size` bytes long, and at most `max` are allowed. Not \
         recorded. Commands that do not enlarge the state are still decided; use another stream \
         for the rest.");
    STREAM_FROZEN = ("stream_frozen", 503, "The stream is frozen",
        "The record at `offset` of `partition` cannot be taken up: the rules fail on it, or an \
         operator has acknowledged it as damaged. No command is decided on this stream; all other \
         streams go on. Not attempted, not recorded.");
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_code_means_two_things() {
        let shared = door::code::ALL.iter();
        let mut names: Vec<_> = shared.chain(ALL).map(|code| code.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
